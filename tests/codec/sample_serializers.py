"""Serializers of another package, and what an installer leaves of it: a module on the path and its metadata."""

from array import array
from pathlib import Path
from typing import Any

from cachekit.codec.base import Serializer
from cachekit.config.spec import CodecSpec
from cachekit.errors import Unstorable


class Doubles:
    """Arrays of doubles as they lie in memory."""

    code = 200

    def __init__(self, spec: CodecSpec) -> None:
        self.spec = spec

    def dumps(self, value: Any, /) -> bytes:
        if type(value) is not array or value.typecode != "d":
            raise Unstorable("not an array of doubles")
        return value.tobytes()

    def loads(self, payload: bytes, /) -> Any:
        return array("d", payload)


class SameCode(Doubles):
    pass


class Ours(Doubles):
    code = 4


class NoByte(Doubles):
    code = 256


class Truth(Doubles):
    code = True


class Raising(Doubles):
    code = 201

    def dumps(self, value: Any, /) -> Any:
        if value == "text":
            return "text"
        if value == "deep":
            raise RecursionError
        raise KeyError(value)

    def loads(self, payload: bytes, /) -> Any:
        raise RecursionError if payload == b"deep" else KeyError("x")


def nothing(spec: CodecSpec) -> object:
    return object()


def doubles(spec: CodecSpec) -> Serializer:
    return Doubles(spec)


NAMES = {
    "doubles": "doubles", "samecode": "SameCode", "ours": "Ours", "nobyte": "NoByte", "truth": "Truth",
    "raising": "Raising", "nothing": "nothing", "absent": "absent",
}  # fmt: skip


def install(directory: Path) -> Path:
    """Install the package into a directory, which belongs onto the path then."""
    (directory / "sample_of_others.py").write_text(Path(__file__).read_text())
    metadata = directory / "sample_of_others-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sample-of-others\nVersion: 1.0\n")
    lines = ["[cachekit.serializers]", *(f"{name} = sample_of_others:{target}" for name, target in NAMES.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return directory
