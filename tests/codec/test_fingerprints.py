"""A class whose fields have changed, in name or in annotation, does not read what it wrote before."""

import dataclasses
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypeVar

import attrs
import pydantic
import pytest

from cachekit.codec import classes
from cachekit.codec.envelope import Damaged
from cachekit.codec.fingerprints import fingerprint
from cachekit.codec.serializers import MARKED, dump, load

T = TypeVar("T")


def data_class(**fields: Any) -> type:
    return dataclasses.make_dataclass("Thing", fields.items())


def attrs_class(**fields: Any) -> type:
    return attrs.make_class("Thing", {name: attrs.field(type=kind) for name, kind in fields.items()})


def model(**fields: Any) -> type:
    return pydantic.create_model("Thing", **{name: (kind, ...) for name, kind in fields.items()})  # type: ignore[call-overload, no-any-return]


def named_tuple(**fields: Any) -> type:
    return NamedTuple("Thing", list(fields.items()))  # type: ignore[misc, return-value]


KINDS: dict[str, Callable[..., type]] = {
    "dataclass": data_class, "attrs": attrs_class, "pydantic": model, "namedtuple": named_tuple,
}  # fmt: skip
Thing: type  # as it is in this module at the moment


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Callable[[type], type]:
    """Makes a class the one that this module has as ``Thing``."""

    def replace(cls: type) -> type:
        cls.__module__ = __name__
        monkeypatch.setattr(sys.modules[__name__], "Thing", cls, raising=False)
        return cls

    return replace


def reason(payload: bytes) -> str:
    with pytest.raises(Damaged) as caught:
        load(MARKED, payload)
    return caught.value.reason


@pytest.mark.parametrize("kind", KINDS)
def test_other_names_and_other_annotations_are_a_miss(kind: str, become: Callable[[type], type]) -> None:
    make = KINDS[kind]
    value = become(make(a=int, b=str))(a=1, b="x")
    payloads = [dump(it, plain=False, limit=1000)[1] for it in (value, [value], {"a": [{"b": (value,)}]})]
    for other in (make(a=int, b=int), make(a=int, c=str), make(b=str, a=int), make(a=int), make(a=int, b=str, c=int)):
        become(other)
        assert [reason(payload) for payload in payloads] == ["fingerprint"] * 3
    become(make(a=int, b=str))
    assert load(MARKED, payloads[0]).a == 1


def test_another_kind_of_class_is_a_miss(become: Callable[[type], type]) -> None:
    payload = dump(become(data_class(a=int))(a=1), plain=False, limit=1000)[1]
    become(attrs_class(a=int))
    assert reason(payload) == "payload"


def test_entries_with_the_names_of_the_fields_are_read(become: Callable[[type], type]) -> None:
    import msgpack

    become(data_class(a=int, b=str))
    assert load(MARKED, msgpack.packb([msgpack.ExtType(49, b"test_fingerprints:Thing\0a\0b"), 1, "x"])).b == "x"


ANNOTATIONS = [
    int, str, "int", "list[int]", list, list[int], list[str], dict[str, int], int | None, int | str, Optional["int"], T,
    Literal["a"], Literal["b"], Callable[[int], str], Callable[[str], str], Callable[..., str], Any, tuple[int, ...],
    dataclasses.InitVar, lambda: 1,
]  # fmt: skip


def test_different_annotations_have_different_fingerprints() -> None:
    found = {fingerprint(data_class(a=annotation), ["a"]) for annotation in ANNOTATIONS}
    assert len(found) == len(ANNOTATIONS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Annotated[int, pydantic.Field(gt=1)], int),
        (Annotated[int, object()], Annotated[int, object()]),
        (Optional[int], int | None),  # noqa: UP045
        (lambda: 1, lambda: 1),
    ],
    ids=["annotated", "metadata", "optional", "address"],
)
def test_what_says_nothing_about_the_fields_does_not_count(one: Any, other: Any) -> None:
    assert fingerprint(data_class(a=one), ["a"]) == fingerprint(data_class(a=other), ["a"])


def test_annotations_of_bases_count() -> None:
    @dataclasses.dataclass
    class Base:
        a: int

    @dataclasses.dataclass
    class Other:
        a: str

    first, second = type("Thing", (Base,), {}), type("Thing", (Other,), {})
    assert fingerprint(first, ["a"]) != fingerprint(second, ["a"])


def test_classes_without_annotations_have_one() -> None:
    assert fingerprint(namedtuple("Thing", "a b"), ["a", "b"]) != fingerprint(namedtuple("Thing", "a c"), ["a", "c"])


def test_resolving_annotations_changes_nothing() -> None:
    @attrs.define
    class Late:
        a: "int"

    before = fingerprint(Late, ["a"])
    attrs.resolve_types(Late)
    assert fingerprint(Late, ["a"]) == before


def test_every_process_has_the_same() -> None:
    each = "t.fingerprint(t.data_class(a=a), ['a']).hex() for a in t.ANNOTATIONS"
    code = f"import test_fingerprints as t; print([{each}])"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], text=True, capture_output=True, check=True, timeout=60,
            cwd=__file__.rpartition("/")[0], env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert outputs == {f"{[fingerprint(data_class(a=annotation), ['a']).hex() for annotation in ANNOTATIONS]}\n"}


def test_a_fingerprint_is_made_once_per_class(monkeypatch: pytest.MonkeyPatch, become: Callable[[type], type]) -> None:
    made = []
    monkeypatch.setattr(classes, "fingerprint", lambda cls, names: made.append(cls) or bytes(8))
    value = become(data_class(a=int))(a=1)
    for _ in range(3):
        load(*dump([value, value], plain=False, limit=1000))
    assert made == [type(value)]
