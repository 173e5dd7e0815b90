"""Every entry and every stamp has a key of its own, the same in every process."""

import enum
import hashlib
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachekit.engine import keys
from cachekit.engine.keys import Digest, EntryKey, call_ident, digest, full_key, region_ident
from cachekit.errors import UncacheableArgument
from cachekit.l1.pure import is_plain

UUID = uuid.UUID(int=5)


class Kind(enum.StrEnum):
    A = "a"


class Level(enum.IntEnum):
    ONE = 1


class MyBytes(bytes): ...


class MyUUID(uuid.UUID):
    __slots__ = ()


# Calls


def test_the_key_of_a_call_has_the_documented_shape() -> None:
    ident = call_ident("app.views.get_user:1", (7,))
    assert ident == "app.views.get_user:1:" + hashlib.blake2b(b"t1:i7;", digest_size=16).hexdigest()
    assert full_key("shop", "users", ident).text == f"shop:v:{{users:{ident}}}"


@pytest.mark.parametrize(
    ("args", "hexadecimal"),
    [
        ((), "17901c726202590e0fa6c3225abf176e"),
        ((7,), "e06c731fe7e2523286eb52e54e4a742a"),
        (("7",), "eadbb15c37f2b47c7815feee1c942e18"),
        ((1.5, True, None), "255d37db62ffea1744571bafdea19442"),
        (((1, "a"), [b"x"], {"k": {1}}), "1c3669ed1bf8d642dc93dca0ec91034f"),
        ((UUID,), "f02c98190a037f34a1016b082b72f68c"),
    ],
)
def test_digests_do_not_change(args: tuple[Any, ...], hexadecimal: str) -> None:
    assert digest(args).hex() == hexadecimal


def test_khash_is_the_64_bits_of_blake2b_of_the_full_key() -> None:
    key = full_key("shop", "users", "=7é")
    expected = hashlib.blake2b("shop:v:{users:=7é}".encode(), digest_size=8).digest()
    assert key.khash == int.from_bytes(expected, "big") == keys.khash(key.text.encode())


def test_a_digest_may_stand_for_its_arguments() -> None:
    args = (1.5, [2])
    assert type(digest(args)) is Digest
    assert len(digest(args)) == 16
    assert call_ident("f:1", (digest(args),)) == call_ident("f:1", args)
    assert not is_plain((digest(args),))


@pytest.mark.parametrize(
    ("args", "plain"),
    [
        ((), True),
        ((1, "a", b"x", True, None), True),
        ((1.0,), False),
        (((),), False),
        ((1, []), False),
        ((Kind.A,), False),
        ((Level.ONE,), False),
        ((MyBytes(b"x"),), False),
        ((EntryKey("x"),), False),
        ((UUID,), False),
    ],
)
def test_plain_arguments_are_of_exact_simple_types(args: tuple[Any, ...], plain: bool) -> None:
    assert is_plain(args) is plain


simple = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "1", "a", "True"]) | st.binary(max_size=1)
)


@given(st.lists(simple, max_size=3).map(tuple), st.lists(simple, max_size=3).map(tuple))
def test_what_l1_takes_for_equal_has_equal_digests(one: tuple[Any, ...], two: tuple[Any, ...]) -> None:
    native = one == two and list(map(type, one)) == list(map(type, two))
    assert native is (digest(one) == digest(two))


def test_the_error_names_the_parameter() -> None:
    with pytest.raises(UncacheableArgument, match=r"argument 'session': a object .*ignore="):
        digest((1, object()), ("user_id", "session"))
    with pytest.raises(UncacheableArgument, match=r"argument 'self'"):
        call_ident("f:1", (object(), object()), ("self", "other"))
    with pytest.raises(UncacheableArgument, match=r"^a object"):
        digest((1, object()))


# Region keys


@pytest.mark.parametrize(
    ("key", "ident"),
    [("7", "=7"), ("user:7 of {x}", "=user:7 of {x}"), ("", "="), ("é" * 100, "=" + "é" * 100), (Kind.A, "=a")],
)
def test_a_short_printable_text_stays_readable(key: str, ident: str) -> None:
    assert region_ident(key) == ident
    assert type(region_ident(key)) is str


REGION_KEYS: list[Any] = [
    7, "7", -7, b"7", ("7",), (7,), (), ((),), ("a b", "c"), ("a", "b c"), "a", "=a", "", b"", "a\n",
    "a\0", "x" * 200, "x" * 201, "é" * 101, "\ud800", UUID, str(UUID), UUID.bytes, UUID.int, (UUID,), 2**70,
    (1, ("a", (b"x",))),
]  # fmt: skip


def test_different_region_keys_have_different_idents() -> None:
    idents = [region_ident(key) for key in REGION_KEYS]
    assert len(set(idents)) == len(REGION_KEYS)
    assert all(len(ident) == 32 for ident in idents if not ident.startswith("="))
    assert all(ident.isprintable() and len(ident.encode()) <= 201 for ident in idents)


def test_no_region_key_reaches_the_entry_of_a_call() -> None:
    ident = call_ident("app.f:1", (7,))
    assert region_ident(ident) == "=" + ident
    assert ":" not in region_ident((ident,))


@pytest.mark.parametrize(("one", "two"), [(Kind.A, "a"), (Level.ONE, 1), (MyBytes(b"x"), b"x"), (MyUUID(int=5), UUID)])
def test_a_subclass_counts_as_its_base(one: Any, two: Any) -> None:
    assert region_ident(one) == region_ident(two)
    assert region_ident((one,)) == region_ident((two,))


@pytest.mark.parametrize("key", [True, None, 1.5, [1], {1}, object(), (1, True), (1, (None,)), bytearray(b"x")])
def test_other_types_are_no_region_keys(key: Any) -> None:
    with pytest.raises(TypeError, match="a region key is a str, int, UUID, bytes or a tuple of those, not"):
        region_ident(key)


def test_an_entry_key_is_not_taken_for_a_text() -> None:
    with pytest.raises(TypeError, match="EntryKey"):
        region_ident(("a", EntryKey("shop:v:{users:x}")))


# Stamps and tags


def test_stamps_have_the_documented_shapes() -> None:
    digest_of_tag = keys.tag_digest("user:7")
    assert keys.tag_stamp("shop", digest_of_tag) == f"shop:t:{{_}}:{digest_of_tag.hex()}"
    assert keys.clock_stamp("shop") == "shop:t:{_}:#clock"
    assert keys.region_stamp("shop", "users") == "shop:t:{users}:#"
    assert keys.function_stamp("shop", "users", "app.f:1") == "shop:t:{users}:#f:app.f:1"


def test_no_two_keys_meet() -> None:
    tags = [keys.tag_stamp("n", keys.tag_digest(tag)) for tag in ("a", "clock", "f:a")]
    stamps = [keys.clock_stamp("n"), keys.region_stamp("n", "r"), keys.function_stamp("n", "r", "a")]
    values = [
        full_key("n", "r", ident).text for ident in (region_ident("a"), region_ident("a}"), call_ident("a:1", ()))
    ]
    made = [*tags, *stamps, *values]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("tag", ["a", "user:7", "größe", "with space", "{x}", "a#", "x" * 200, Kind.A])
def test_a_tag_is_a_short_printable_text(tag: str) -> None:
    assert keys.check_tag(tag) == str(tag)
    assert type(keys.check_tag(tag)) is str
    assert len(keys.tag_digest(tag)) == 8


@pytest.mark.parametrize(
    ("tag", "error", "message"),
    [
        ("", ValueError, "must not be empty"),
        ("#clock", ValueError, "begins with '#'"),
        ("a\n", ValueError, "not printable"),
        ("\ud800", ValueError, "not printable"),
        ("é" * 101, ValueError, "longer than 200 bytes"),
        (7, TypeError, r"a tag is a str, not int: write f\"user:"),
        (b"a", TypeError, "not bytes"),
        (None, TypeError, "not NoneType"),
    ],
)
def test_other_tags_are_refused_with_a_remedy(tag: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        keys.check_tag(tag)


# Every process


PROGRAM = """
import inspect, uuid
from cachekit.engine.keys import *
from cachekit.engine.keys import digest
def get(a, b={"x", "y", "z"}, **more): ...
binder = compile_binder(inspect.signature(get))
one = binder.bind((1,), {"q": {"b": 1, "a": {"n", "m"}}, "p": frozenset("abc")})
print(full_key("shop", "users", call_ident(function_id(get), one)))
print(full_key("shop", "users", region_ident(("a", 7, uuid.UUID(int=7), b"x"))))
print(tag_digest("user:7"), khash(b"shop"))
"""


def test_processes_with_other_hashes_make_the_same_keys(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    outputs = set()
    for seed in ("0", "1", "4711"):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONHASHSEED": seed}
        outputs.add(subprocess.run([sys.executable, script], env=environment, check=True, capture_output=True).stdout)
    assert len(outputs) == 1
    assert b"shop:v:{users:program.get:1:" in outputs.pop()
