"""The files of a program: which there are, what each becomes, and writing that."""

import difflib
import io
import os
import shutil
import tokenize
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from cachekit.errors import CacheKitError
from cachekit.migrate import NOTE, migrate


class Result(NamedTuple):
    """One file: what it holds and would hold, or why it cannot be read."""

    path: Path
    before: bytes
    after: bytes
    problem: str = ""

    @property
    def changed(self) -> bool:
        return self.before != self.after

    def notes(self) -> list[tuple[int, str]]:
        """The comments for a human in the new text, old ones too: line and text."""
        lines = _text(self.after).splitlines()
        return [(at, line.partition(NOTE)[2]) for at, line in enumerate(lines, 1) if line.lstrip().startswith(NOTE)]

    def diff(self) -> list[str]:
        """The lines of a unified diff."""
        before, after = (_text(each).splitlines() for each in (self.before, self.after))
        return list(difflib.unified_diff(before, after, f"a/{self.path}", f"b/{self.path}", lineterm=""))


def _text(source: bytes) -> str:
    """As Python reads it; for showing alone."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        return source.decode(encoding)
    except (SyntaxError, UnicodeDecodeError):
        return source.decode(errors="replace")


def python_files(path: Path) -> list[Path]:
    """A file itself, or those of a directory: not those of virtual environments and hidden directories."""
    return [path] if path.is_file() else sorted(_inside(path))


def _inside(directory: Path) -> Iterator[Path]:
    for place, inner, names in os.walk(directory):
        inner[:] = [name for name in inner if _is_source(Path(place, name))]
        yield from (Path(place, name) for name in names if name.endswith(".py") and Path(place, name).is_file())


def _is_source(directory: Path) -> bool:
    hidden = directory.name.startswith(".") or directory.name in ("__pycache__", "node_modules", "site-packages")
    return not hidden and not (directory / "pyvenv.cfg").exists()


def migrated(path: Path, peers: Collection[str]) -> Result:
    """What one file becomes. Raises ImportError if LibCST is not installed."""
    before = b""
    try:
        before = path.read_bytes()
        return Result(path, before, migrate(before, path.absolute(), peers))
    except OSError as error:
        return Result(path, before, before, error.strerror or type(error).__name__)
    except CacheKitError as error:
        return Result(path, before, before, str(error))


def write(result: Result) -> str:
    """Put the new text in the place of the old one, whole or not at all; what went wrong, or nothing."""
    place = result.path.resolve()
    new = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        new.write_bytes(result.after)
        shutil.copymode(place, new)
        new.replace(place)
    except OSError as error:
        new.unlink(missing_ok=True)
        return error.strerror or type(error).__name__
    return ""
