"""Where the file of a backend lies, and what must be true of that place before anything is opened there."""

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cachekit.errors import BackendError, Fault

# File systems where several hosts may see one file: neither the locks nor the shared memory of SQLite work there.
NETWORK = frozenset({
    "afs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs",
    "nfs4", "smb3", "smbfs",
})  # fmt: skip
MOUNTS = Path("/proc/self/mountinfo")  # of Linux; elsewhere nobody tells


def check(path: Path) -> os.stat_result | None:
    """What is known of the file, None if there is none yet. BackendError (CONFIG) when it must not be used."""
    try:
        if not path.parent.is_dir():
            raise _refused(
                f"the directory {path.parent} does not exist; make it, for the user of the application alone"
            )
        kind = file_system(path.parent)
        found = path.stat()
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise _refused(f"{path} cannot be looked at: {error.strerror}") from error
    if kind in NETWORK:
        raise _refused(f"{path} is on a network file system ({kind}); choose a directory of this host, or use Redis")
    if found is not None:
        _check_file(path, found)
    return found


def _check_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _refused(f"{path} is not a file")
    if not hasattr(os, "geteuid"):  # Windows, which has no modes of this kind
        return
    if found.st_uid != os.geteuid():
        raise _refused(f"{path} belongs to another user; give each user of this host a file of their own")
    if found.st_mode & 0o077:
        raise _refused(f"{path} can be used by others than its owner; run chmod 600 on it")


def identity(path: Path) -> tuple[int, int] | None:
    """Which file lies there; None: none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def put_there(path: Path, make: Callable[[Path], object]) -> None:
    """Have a file made beside the path, for its owner alone, and put it there unless another process was quicker.

    So nobody ever sees one that is half made, and none that lies there is touched. What a file that was removed has
    left behind is removed as well: SQLite would take its journal for that of the new one.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".new", dir=path.parent)
        os.close(handle)
        try:
            make(Path(name))
            with alone(path.parent):
                if not path.exists():
                    for suffix in ("-wal", "-shm"):
                        Path(f"{path}{suffix}").unlink(missing_ok=True)
                    os.link(name, path)
        finally:
            Path(name).unlink()
    except OSError as error:
        raise _refused(f"{path} cannot be made: {error.strerror}") from error


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """No other process makes a file there meanwhile."""
    if os.name == "nt":  # nobody can remove a file there that is open
        yield
        return
    import fcntl

    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def file_system(directory: Path) -> str:
    """The type of the file system of a directory; empty if nobody tells."""
    try:
        mounts = [line.split(" ") for line in MOUNTS.read_text(errors="surrogateescape").splitlines()]
    except OSError:
        return ""
    where = os.path.realpath(directory)
    kinds = {parts[4].encode().decode("unicode_escape"): parts[parts.index("-") + 1] for parts in mounts}
    above = [where, *map(str, Path(where).parents)]
    return next((kinds[each] for each in above if each in kinds), "")


def _refused(text: str) -> BackendError:
    return BackendError(Fault.CONFIG, "file", text)
