"""json and pickle beside msgpack, and the serializers that other packages register."""

import io
import json
import pickle
import subprocess
import sys
import textwrap
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import codec_models as m
import pytest
from codec_models import FIELDS, KEY
from sample_serializers import install

from cachekit.codec import registry
from cachekit.codec.codec import Codec
from cachekit.codec.envelope import Damaged, pack, unpack
from cachekit.codec.pickled import PickleSerializer
from cachekit.codec.registry import guarded, open_serializer
from cachekit.config.spec import CodecSpec
from cachekit.errors import ConfigError, Unstorable

JSON = Codec(CodecSpec(serializer="json"))
ROOT = Path(__file__).parents[2]


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(install(tmp_path))
    monkeypatch.setattr(registry, "_names", {})
    yield
    sys.modules.pop("sample_of_others", None)


# --- json


def test_what_lies_behind_the_header_is_json_that_other_languages_read() -> None:
    value = {"name": "Zoë", "tags": ["a", None, True], "price": 1.5}
    payload = unpack(JSON.dumps(value, KEY, **FIELDS), KEY)[1]
    assert bytes(payload) == '{"name":"Zoë","tags":["a",null,true],"price":1.5}'.encode()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"orders": [0, {"price": 1j}]}, "orders[1].price: cannot store complex as JSON"),
        ({"a": {7: 1}}, "a[7]: cannot store a key of type int as JSON"),
        ([float("nan")], "[0]: cannot store the float nan as JSON"),
        ((1,), "cannot store tuple as JSON"),
        ({"a": "\ud800"}, "a: cannot store text with a lone surrogate as JSON"),
        ({"secret of Ada": {1}}, "[<str>]: cannot store set as JSON"),
        (m.Order(1, []), "cannot store codec_models.Order as JSON"),
    ],
)
def test_what_json_cannot_hold_is_told_with_its_place(value: Any, told: str) -> None:
    with pytest.raises(Unstorable) as caught:
        JSON.dumps(value, KEY, **FIELDS)
    assert str(caught.value) == told
    assert caught.value.reason == "type"


def test_json_is_bounded_in_depth_and_items_on_the_way_in() -> None:
    value: list[Any] = []
    for _ in range(255):
        value = [value]
    assert JSON.loads(JSON.dumps(value, KEY, **FIELDS), KEY)[0] == value
    with pytest.raises(Unstorable) as caught:
        JSON.dumps([value], KEY, **FIELDS)
    assert caught.value.reason == "depth"
    web: list[Any] = []
    for _ in range(60):
        web = [web, web]
    small = Codec(CodecSpec(serializer="json", max_value_bytes=100_000))
    with pytest.raises(Unstorable) as caught:
        small.dumps(web, KEY, **FIELDS)
    assert caught.value.reason == "size"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "payload"),
        (b"NaN", "payload"),
        (b"[Infinity]", "payload"),
        (b"-Infinity", "payload"),
        (b"[1", "payload"),
        (b"\xff", "payload"),
        (b"\xef\xbb\xbf1", "payload"),
        ("1".encode("utf-16"), "payload"),
        (b"1 2", "payload"),
        (b"[" * 100_000, "depth"),
        (b"1" * 5000, "payload"),
        (b"{1:2}", "payload"),
    ],
    ids=lambda part: str(part)[:20],
)
def test_forged_json_is_damaged(payload: bytes, reason: str) -> None:
    with pytest.raises(Damaged) as caught:
        JSON.loads(pack(m.header(codec=3), payload, KEY), KEY)
    assert caught.value.reason == reason


def test_the_least_limit_on_digits_reads_the_longest_int() -> None:
    code = """if True:
        from cachekit.codec.jsontext import JSONSerializer
        from cachekit.config.spec import CodecSpec
        json = JSONSerializer(CodecSpec())
        assert json.loads(json.dumps(2**2048 - 1)) == 2**2048 - 1
    """
    subprocess.run([sys.executable, "-X", "int_max_str_digits=640", "-c", code], check=True, timeout=60)


# --- one serializer per profile


def test_each_reads_its_own_bytes_only() -> None:
    codecs = {"msgpack": Codec(CodecSpec()), "json": JSON, "pickle": Codec(CodecSpec(serializer="pickle", sign=True))}
    for name, codec in codecs.items():
        data = codec.dumps({"a": 1}, KEY, **FIELDS)
        for other, reader in codecs.items():
            if other == name:
                assert reader.loads(data, KEY)[0] == {"a": 1}
                continue
            with pytest.raises(Damaged) as caught:
                reader.loads(data, KEY)
            assert caught.value.reason == "codec"


def test_the_two_codes_of_msgpack_are_one_serializer() -> None:
    codec = Codec(CodecSpec())
    for value, code in (([1], 1), ((1,), 2)):
        value_again, header = codec.loads(codec.dumps(value, KEY, **FIELDS), KEY)
        assert (value_again, header.codec) == (value, code)


# --- pickle


def test_pickle_without_a_proof_is_refused() -> None:
    with pytest.raises(ConfigError, match="serializer = 'pickle': needs sign = true or encrypt = true"):
        Codec(CodecSpec(serializer="pickle"))
    for proof in ({"sign": True}, {"encrypt": True}):
        open_serializer(CodecSpec(serializer="pickle", **proof))  # type: ignore[arg-type]


ran: list[str] = []


def run(what: str) -> str:
    ran.append(what)
    return what


class Trap:
    def __reduce__(self) -> Any:
        return run, ("trap",)


def test_a_pickle_is_not_looked_at_in_other_profiles_or_before_it_is_verified() -> None:
    payload = pickle.dumps(Trap())
    signed = Codec(CodecSpec(serializer="pickle", sign=True))
    ran.clear()
    for codec in (Codec(CodecSpec()), JSON):
        with pytest.raises(Damaged):
            codec.loads(pack(m.header(codec=4), payload, KEY), KEY)
    data = pack(m.header(codec=4), payload, KEY)
    for at in range(len(data) - 8, len(data)):  # of another key, or changed
        bad = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        for entry, key in ((bad, KEY), (data, KEY + "x")):
            with pytest.raises(Damaged):
                signed.loads(entry, key)
    assert ran == []


def test_unpickling_imports_nothing() -> None:
    code = """if True:
        import pickle, sys
        from cachekit.codec.pickled import PickleSerializer
        from cachekit.codec.registry import guarded
        from cachekit.codec.envelope import Damaged
        from cachekit.config.spec import CodecSpec
        load = guarded(PickleSerializer(CodecSpec())).load
        for payload in (b"cfractions\\nFraction\\n.", b"\\x80\\x04\\x8c\\x09fractions\\x8c\\x08Fraction\\x93."):
            assert "fractions" not in sys.modules
            try:
                load(4, payload)
            except Damaged as damage:
                assert isinstance(damage.__cause__, LookupError), damage.__cause__
            else:
                raise AssertionError
            assert "fractions" not in sys.modules
        import fractions
        assert load(4, payload) is fractions.Fraction
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


class Lazy:
    def method(self) -> int:
        return 1

    def __setstate__(self, state: Any) -> None:
        raise RuntimeError


def test_names_within_classes_are_found_and_names_that_are_not_there_are_damaged() -> None:
    encoding = guarded(PickleSerializer(CodecSpec()))
    for value in (m.Outer.Inner, m.Outer.Inner(3), Lazy.method, io.BytesIO, len, "".join):
        code, payload = encoding.dump(value, plain=False, limit=1000)
        assert encoding.load(code, payload) == value or callable(value)
    for payload in (b"ccodec_models\nNothing\n.", b"ccodec_models\nOuter.Nothing\n."):
        with pytest.raises(Damaged, match="payload"):
            encoding.load(4, payload)
    lazy = Lazy()
    lazy.x = 1  # type: ignore[attr-defined]
    with pytest.raises(Damaged, match="payload"):
        encoding.load(4, pickle.dumps(lazy))


def test_what_pickle_refuses_is_unstorable() -> None:
    codec = Codec(CodecSpec(serializer="pickle", sign=True))
    with pytest.raises(Unstorable, match="cannot store list: TypeError: cannot pickle"):
        codec.dumps([sys.stdout], KEY, **FIELDS)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Unstorable) as caught:
        codec.dumps(deep, KEY, **FIELDS)
    assert caught.value.reason == "depth"
    while deep:
        deep = deep[0]


def test_nothing_of_ours_loads_pickle_unless_a_profile_asks() -> None:
    """Other packages may: what counts is who asks for it."""
    code = """if True:
        import builtins, sys
        asked, real = [], builtins.__import__

        def watched(name, namespace=None, *rest):
            if name.partition(".")[0] in ("pickle", "_pickle", "cPickle"):
                asked.append((namespace or {}).get("__name__", ""))
            return real(name, namespace, *rest)

        builtins.__import__ = watched
        import cachekit
        from cachekit.codec.codec import Codec
        from cachekit.config.spec import BackendSpec, CodecSpec, built_in_regions
        from cachekit.backends.redis import open_redis
        import cachekit.config.settings, cachekit.service
        open_redis(BackendSpec(url="redis://localhost"))

        @cachekit.cache
        def f(x):
            return [x]

        assert f(1) == [1]
        codec = Codec(CodecSpec())
        entry = dict(id=b"i" * 16, created=0, soft=1, hard=1)
        assert codec.loads(codec.dumps({"a": (1,)}, "k", **entry), "k")[0] == {"a": (1,)}
        assert not [name for name in asked if name.startswith("cachekit")], asked
        assert "cachekit.codec.pickled" not in sys.modules
        Codec(CodecSpec(serializer="pickle", sign=True))
        assert "cachekit.codec.pickled" in asked
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


def test_one_module_of_ours_names_pickle() -> None:
    naming = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "cachekit").rglob("*.py")
        for line in path.read_text().splitlines()
        if line.split()[:2] in (["import", "pickle"], ["from", "pickle"]) or 'import_module("pickle' in line
    }
    assert naming == {"cachekit/codec/pickled.py"}


# --- of other packages


def test_a_serializer_of_another_package_is_found_by_its_entry_point(others: None) -> None:
    codec = Codec(CodecSpec(serializer="doubles", max_value_bytes=800))
    value, header = codec.loads(codec.dumps(array("d", [1, 2]), KEY, **FIELDS), KEY)
    assert (value, header.codec) == (array("d", [1, 2]), 200)
    with pytest.raises(Unstorable, match="max_value_bytes is 800") as caught:
        codec.dumps(array("d", range(101)), KEY, **FIELDS)
    assert caught.value.reason == "size"
    with pytest.raises(Damaged, match="payload"):
        codec.loads(pack(m.header(codec=200), b"123", KEY), KEY)


def test_whatever_it_raises_is_unstorable_or_damaged(others: None) -> None:
    codec = Codec(CodecSpec(serializer="raising"))
    for value, reason, told in (
        (7, "type", "cannot store int: KeyError: 7"),
        ("deep", "depth", "cannot store str: nested too deep"),
        ("text", "type", "the serializer gave str and not bytes"),
    ):
        with pytest.raises(Unstorable) as caught:
            codec.dumps(value, KEY, **FIELDS)
        assert (caught.value.reason, str(caught.value)) == (reason, told)
    for payload, reason in ((b"deep", "depth"), (b"x", "payload")):
        with pytest.raises(Damaged) as damage:
            codec.loads(pack(m.header(codec=201), payload, KEY), KEY)
        assert damage.value.reason == reason


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("doubels", "no such serializer is installed; did you mean 'doubles'?"),
        ("qqqq", "no such serializer is installed; known are msgpack, json, pickle, absent, doubles, "),
        ("absent", "it cannot be loaded: "),
        ("nothing", "it gave a object without code, dumps or loads"),
        ("ours", "its code is 4; those of other packages are 64 to 255"),
        ("nobyte", "its code is 256; those of other packages are 64 to 255"),
        ("truth", "its code is True; those of other packages are 64 to 255"),
        ("samecode", "it has the code 200, and so has 'doubles'; one must take another"),
    ],
)
def test_one_that_cannot_be_used_stops_at_start_up(others: None, name: str, told: str) -> None:
    for _ in range(2):
        Codec(CodecSpec(serializer="doubles"))
    with pytest.raises(ConfigError) as caught:
        Codec(CodecSpec(serializer=name))
    assert str(caught.value).startswith(f"serializer = {name!r}: {told}")


def test_json_takes_no_longer_text_than_a_value_may_be() -> None:
    with pytest.raises(Unstorable, match="max_value_bytes is 100"):
        Codec(CodecSpec(serializer="json", max_value_bytes=100)).dumps("a" * 99, KEY, **FIELDS)
    assert json.loads(bytes(unpack(JSON.dumps("a" * 99, KEY, **FIELDS), KEY)[1])) == "a" * 99
