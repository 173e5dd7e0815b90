"""A backend in a package of its own: each entry is a file in a directory.

[backends.default]
type = "directory"
options = { path = "/var/cache/app" }
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cachekit.backends.base import BaseBackend
from cachekit.config.spec import BackendSpec
from cachekit.errors import BackendError, ConfigError, Fault

END = 8  # bytes before the value: when it ends, in milliseconds since the epoch
NEVER = 2**63 - 1


class DirectoryBackend(BaseBackend):
    """What a backend must offer, and nothing else."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def get(self, key: str, *, budget: float) -> bytes | None:
        check(budget)
        try:
            stored = self._file(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failed(error) from error
        return stored[END:] if int.from_bytes(stored[:END], "big") > now() else None

    def store(self, key: str, data: bytes, ttl_ms: int | None, token: bytes | None, *, budget: float) -> bool:
        check(budget)
        ends = NEVER if ttl_ms is None else now() + ttl_ms
        try:
            handle, name = tempfile.mkstemp(dir=self.directory)
            with os.fdopen(handle, "wb") as file:
                file.write(ends.to_bytes(END, "big") + data)
            Path(name).replace(self._file(key))
        except OSError as error:
            raise failed(error) from error
        return True

    def invalidate(self, keys: Sequence[str], *, budget: float) -> None:
        check(budget)
        for key in keys:
            try:
                self._file(key).unlink(missing_ok=True)
            except OSError as error:
                raise failed(error) from error

    def close(self) -> None:
        """Nothing is open."""

    def _file(self, key: str) -> Path:
        return self.directory / hashlib.sha256(key.encode()).hexdigest()


def now() -> int:
    return int(time.time() * 1000)


def check(budget: float) -> None:
    if budget <= 0:
        raise BackendError(Fault.DOWN, "timeout")


def failed(error: OSError) -> BackendError:
    return BackendError(Fault.DOWN, "connection", str(error))


def open_directory(spec: BackendSpec) -> DirectoryBackend:
    """The entry point."""
    path = Path(str(spec.options.get("path", "")))
    if not path.is_dir():
        raise ConfigError(f"[backends.{spec.name}.options] path: not a directory")
    return DirectoryBackend(path)
