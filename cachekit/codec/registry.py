"""From the name in a profile to its serializer: ours by name, others by entry point."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from cachekit.codec import serializers
from cachekit.codec.base import OF_OTHERS, Serializer
from cachekit.codec.classes import describe
from cachekit.codec.envelope import Damaged
from cachekit.codec.weight import PER_BYTE, ROOM, check_json, check_weight
from cachekit.config.options import SERIALIZERS_GROUP, unfit_codec
from cachekit.config.spec import CodecSpec
from cachekit.errors import ConfigError, Unstorable

_names: dict[int, str] = {}  # of other packages, by their codec bytes, as far as this process uses them


class Dump(Protocol):
    """Codec byte and payload of a value; raises `Unstorable` and nothing else. ``plain`` as in `Codec.dumps`."""

    def __call__(self, value: Any, *, plain: bool, limit: int) -> tuple[int, bytes]: ...


class Load(Protocol):
    """The value of codec byte and payload; raises `Damaged` and nothing else. ``room``: for a compressed one."""

    def __call__(self, code: int, payload: bytes | memoryview, room: int | None = None) -> Any: ...


class Encoding(NamedTuple):
    """A serializer as the codec uses it."""

    dump: Dump
    load: Load
    check: Callable[[bytes | memoryview, int], None] = lambda payload, room: None
    """Raises `Damaged` for a payload that may become more than so many bytes of memory, as far as that can be told."""


def open_serializer(spec: CodecSpec) -> Encoding:
    """The serializer that ``spec.serializer`` names. ConfigError when there is none, or it may not be used so."""
    for name, problem in unfit_codec(spec):
        raise ConfigError(f"{name} = {getattr(spec, name)!r}: {problem}")
    if spec.serializer == "msgpack":
        return Encoding(_dump_msgpack, _load_msgpack, check_weight)
    if spec.serializer == "json":
        from cachekit.codec.jsontext import JSONSerializer  # for those who ask for it

        return guarded(JSONSerializer(spec), check_json)
    if spec.serializer == "pickle":
        from cachekit.codec.pickled import PickleSerializer  # nobody else shall have pickle in the process

        return guarded(PickleSerializer(spec))
    return guarded(find(spec.serializer, spec))


def find(name: str, spec: CodecSpec) -> Serializer:
    """The serializer that another package registered under this name, which is there. Raises `ConfigError`."""
    return _checked(_factory(name)(spec), name)


def _dump_msgpack(value: Any, *, plain: bool, limit: int) -> tuple[int, bytes]:
    codec, payload = serializers.dump(value, plain=plain, limit=limit)
    try:
        check_weight(payload)
    except Damaged:
        raise Unstorable(
            f"a value that takes more than {PER_BYTE} bytes of memory for each byte stored, and more than "
            f"{ROOM >> 20} MiB: nearly all of it is empty",
            "size",
        ) from None
    return codec, payload


def _load_msgpack(code: int, payload: bytes | memoryview, room: int | None = None) -> Any:
    check_weight(payload, room)
    return serializers.load(code, payload)


def guarded(serializer: Serializer, check: Callable[[bytes | memoryview, int], None] | None = None) -> Encoding:
    """A serializer that may raise anything and return too much, as one that does not."""
    mine, dumps, loads = serializer.code, serializer.dumps, serializer.loads

    def dump(value: Any, *, plain: bool, limit: int) -> tuple[int, bytes]:
        try:
            payload = dumps(value)
        except Unstorable:
            raise
        except RecursionError:
            raise Unstorable(f"cannot store {describe(type(value))}: nested too deep", "depth") from None
        except Exception as error:
            raise Unstorable(
                f"cannot store {describe(type(value))}: {type(error).__name__}: {error}", "type"
            ) from error
        if type(payload) is not bytes:
            raise Unstorable(f"the serializer gave {describe(type(payload))} and not bytes")
        if len(payload) > limit:
            raise Unstorable(f"a value of {len(payload)} bytes; max_value_bytes is {limit}", "size")
        return mine, payload

    def load(code: int, payload: bytes | memoryview, room: int | None = None) -> Any:
        if code != mine:
            raise Damaged("codec")
        if check is not None and room is not None:
            check(payload, room)
        try:
            return loads(bytes(payload))
        except RecursionError as error:
            raise Damaged("depth") from error
        except Exception as error:
            raise Damaged("payload") from error

    return Encoding(dump, load) if check is None else Encoding(dump, load, check)


def _factory(name: str) -> Callable[[CodecSpec], Any]:
    from importlib.metadata import entry_points  # takes longer to load than the whole of `import cachekit` may

    (point, *_) = entry_points(group=SERIALIZERS_GROUP, name=name)
    try:
        loaded: Callable[[CodecSpec], Any] = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"serializer = {name!r}: it cannot be loaded: {error}") from error
    return loaded


def _checked(serializer: object, name: str) -> Serializer:
    """What a factory returned. Raises ConfigError unless it is a serializer with a codec byte of its own."""
    if not isinstance(serializer, Serializer):
        raise ConfigError(f"serializer = {name!r}: it gave a {type(serializer).__name__} without code, dumps or loads")
    code = serializer.code
    if type(code) is not int or code not in OF_OTHERS:
        raise ConfigError(f"serializer = {name!r}: its code is {code!r}; those of other packages are 64 to 255")
    other = _names.setdefault(code, name)
    if other != name:
        raise ConfigError(f"serializer = {name!r}: it has the code {code}, and so has {other!r}; one must take another")
    return serializer
