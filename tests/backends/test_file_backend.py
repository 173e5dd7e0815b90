"""What a file is protected from, and what it does not do: foreign and damaged files, forks, space, the wrong places."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cachekit.backends.file import open_file, place
from cachekit.backends.file.backend import KEPT_CHANGES, FileBackend
from cachekit.backends.registry import open_backend
from cachekit.config.spec import BackendSpec, RegionSpec, ServiceSpec
from cachekit.errors import BackendError, ConfigError, Fault
from cachekit.service import Service

pytestmark = pytest.mark.slow

BUDGET = 5.0
MIB = 1024 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


def spec(path: Path, **fields: Any) -> BackendSpec:
    return BackendSpec(type="file", url=f"file://{path}", **fields)


def opened(path: Path, **options: Any) -> FileBackend:
    backend = open_file(spec(path, options=options)).sync
    assert isinstance(backend, FileBackend)
    return backend


def small(path: Path) -> FileBackend:
    return FileBackend(path, MIB, 0.05)


def put(backend: FileBackend, key: str, data: bytes = b"value", ttl_ms: int | None = None) -> None:
    backend.store(key, data, ttl_ms, None, budget=BUDGET)


def get(backend: FileBackend, key: str) -> bytes | None:
    return backend.get(key, budget=BUDGET)


def sqlite_file(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE users (name TEXT)")
    connection.execute("INSERT INTO users VALUES ('kept')")
    connection.commit()
    connection.close()


def newer_file(path: Path) -> None:
    backend = opened(path)
    put(backend, "n:v:{r:1}")
    backend.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()


# Files that are not ours


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda path: path.write_text("some notes of mine\n" * 50), "is not a file of cachekit's and is left as it is"),
        (lambda path: path.touch(), "is not a file of cachekit's and is left as it is"),
        (sqlite_file, "is not a file of cachekit's and is left as it is"),
        (newer_file, "was made by another version of cachekit"),
    ],
    ids=["text", "empty", "other tables", "newer"],
)
def test_a_foreign_file_is_an_error_at_opening_and_keeps_every_byte(path: Path, make: Any, part: str) -> None:
    make(path)
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"^\[backends\.default\] url: ") as caught:
        open_backend(spec(path))
    assert part in str(caught.value)
    assert path.read_bytes() == before


def test_a_file_that_becomes_foreign_is_left_alone_too(path: Path) -> None:
    backend = opened(path)
    put(backend, "n:v:{r:1}")
    backend.close()
    path.unlink()
    path.write_text("some notes of mine\n" * 50)
    path.chmod(0o600)
    with pytest.raises(BackendError, match="is not a file of cachekit's") as caught:
        get(backend, "n:v:{r:1}")
    assert caught.value.fault is Fault.CONFIG
    assert path.read_text() == "some notes of mine\n" * 50


def test_a_damaged_file_is_an_error_of_the_backend_and_never_of_the_caller(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = opened(path)
    for number in range(200):
        put(backend, f"n:v:{{r:{number}}}", b"x" * 2_000)
    backend.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    backends = {"default": spec(path, budget=BUDGET, adaptive=False)}
    service = Service(
        ServiceSpec(namespace="n", namespace_given=True, backends=backends, regions={"r": RegionSpec(name="r")})
    )
    region = service.region("r")
    assert [region.get_or_set(number, lambda: 7) for number in range(3)] == [7, 7, 7]
    service.close()
    assert [record.levelname for record in caplog.records if "is damaged and is left as it is" in record.message] == [
        "ERROR"
    ]


# The place


def test_the_file_and_what_belongs_to_it_are_for_the_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        backend = opened(path)
        put(backend, "n:v:{r:1}")
    finally:
        os.umask(before)
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["cache.db", "cache.db-shm", "cache.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_use_is_refused(path: Path, mode: int) -> None:
    backend = opened(path)
    put(backend, "n:v:{r:1}")
    backend.close()
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        open_backend(spec(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(path: Path) -> None:
    path.touch(0o600)
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to another user"):
        open_backend(spec(path))


def test_a_missing_directory_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; make it"):
        open_backend(spec(tmp_path / "absent" / "cache.db"))
    with pytest.raises(ConfigError, match="is not a file"):
        open_backend(spec(tmp_path))


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused(
    tmp_path: Path, path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"36 22 0:32 / {os.path.realpath(tmp_path)} rw,relatime shared:1 - {kind} server:/export rw\n"
    )
    monkeypatch.setattr(place, "MOUNTS", mounts)
    with pytest.raises(ConfigError, match=rf"is on a network file system \({kind}\)"):
        open_backend(spec(path))


@pytest.mark.parametrize("url", ["file://", "file://relative/cache.db", "file:///var/", "file:///x?a=1", "redis:///x"])
def test_a_url_without_a_path_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^\[backends\.default\] url"):
        open_backend(BackendSpec(type="file", url=url))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"max_byte": 1}, "did you mean 'max_bytes'?"),
        ({"max_bytes": "1KiB"}, "less than 8388608"),
        ({"max_bytes": "lots"}, "max_bytes: "),
        ({"poll": 0}, "poll: "),
        ({"poll": "never"}, "must have an end"),
    ],
)
def test_options_are_checked_at_opening(path: Path, options: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=r"^\[backends\.default\.options\]") as caught:
        open_backend(spec(path, options=options))
    assert part in str(caught.value)


# Space and time


def test_it_never_grows_beyond_its_bound_and_keeps_what_came_last(path: Path) -> None:
    backend = small(path)
    for number in range(2_000):
        put(backend, f"n:v:{{r:{number}}}", b"x" * 2_000)
    assert int(backend.check(budget=BUDGET)["used_bytes"]) <= MIB
    backend.close()
    assert path.stat().st_size <= MIB * 1.1
    kept = [number for number in range(2_000) if get(backend, f"n:v:{{r:{number}}}") is not None]
    assert kept == list(range(kept[0], 2_000))
    assert len(kept) > 300


def test_stamps_alone_stay_within_the_bound_too(path: Path) -> None:
    backend = small(path)
    for number in range(40):
        names = [f"n:t:{{_}}:{number}-{each}" for each in range(500)]
        backend.stamps(names, [b"12345678"] * 500, 60_000, budget=BUDGET)
        put(backend, "n:v:{r:1}", b"x" * 1_000)
    assert int(backend.check(budget=BUDGET)["used_bytes"]) <= MIB


def test_what_has_ended_gives_back_its_space_although_nobody_asks_for_it(path: Path) -> None:
    backend = opened(path)
    for number in range(200):
        put(backend, f"n:v:{{r:{number}}}", ttl_ms=1)
    time.sleep(0.01)
    for number in range(60):
        put(backend, f"n:v:{{s:{number}}}")
    assert backend.check(budget=BUDGET)["keys"] == "60"


def test_a_full_disk_is_told_and_what_was_there_stays(path: Path) -> None:
    backend = opened(path)
    put(backend, "n:v:{r:1}")
    with backend.database.reading(BUDGET) as connection:
        connection.execute("PRAGMA max_page_count = 12")  # of this connection, which is the only one
    with pytest.raises(BackendError) as caught:
        put(backend, "n:v:{r:2}", b"x" * MIB)
    assert (caught.value.fault, caught.value.reason) == (Fault.READONLY, "oom")
    assert get(backend, "n:v:{r:1}") == b"value"


NO_SPACE = """
import resource, sys
from pathlib import Path
from cachekit.backends.file.backend import FileBackend
from cachekit.errors import BackendError
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    FileBackend(Path(sys.argv[1]), 1 << 24, 0.05).get("key", budget=5)
except BackendError as error:
    print(error.fault.name)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits")
def test_a_disk_that_is_full_from_the_beginning_is_an_error_of_the_backend_too(path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", NO_SPACE, str(path)], capture_output=True, text=True, timeout=60)
    assert run.stdout.split() in (["READONLY"], ["DOWN"]), run.stdout + run.stderr
    assert list(path.parent.iterdir()) == [], "nothing half made is left"


# Other processes


@pytest.mark.timed
def test_a_lock_that_another_process_keeps_costs_the_budget(path: Path) -> None:
    backend = opened(path)
    put(backend, "n:v:{r:1}")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begun = time.monotonic()
    with pytest.raises(BackendError) as caught:
        backend.store("n:v:{r:1}", b"new", None, None, budget=0.1)
    assert (caught.value.fault, caught.value.reason) == (Fault.DOWN, "timeout")
    assert time.monotonic() - begun < 1.0, "late"
    assert get(backend, "n:v:{r:1}") == b"value", "reading waits for nobody"
    other.execute("ROLLBACK")
    other.close()
    put(backend, "n:v:{r:1}", b"new")


def test_a_file_that_was_removed_is_noticed_and_told_of_and_its_journal_counts_no_more(path: Path) -> None:
    backend, moves = opened(path), []
    backend.on_move = lambda: moves.append(1)
    put(backend, "n:v:{r:1}")
    listener = backend.listen(["n:v:"], heartbeat=1.0, clock=time.monotonic, budget=BUDGET)
    path.unlink()
    assert path.with_name("cache.db-wal").stat().st_size > 0
    assert get(backend, "n:v:{r:1}") is None
    assert moves == [1]
    with pytest.raises(BackendError, match="moved"):
        listener.receive(0.0)
    put(backend, "n:v:{r:1}", b"new")
    assert get(backend, "n:v:{r:1}") == b"new"
    assert get(opened(path), "n:v:{r:1}") == b"new"


def test_a_listener_that_missed_changes_says_so(path: Path) -> None:
    backend = opened(path)
    listener = backend.listen(["n:v:"], heartbeat=1.0, clock=time.monotonic, budget=BUDGET)
    backend.invalidate([f"n:v:{{r:{number}}}" for number in range(KEPT_CHANGES + 1_000)], budget=BUDGET)
    assert list(listener.receive(0.0)) == [None]
    with backend.database.reading(BUDGET) as connection:
        ((noted,),) = connection.execute("SELECT count(*) FROM changes")
    assert noted <= KEPT_CHANGES + 256


FORKING = """
import os, sys, threading, time
from pathlib import Path
from cachekit.backends.file.backend import FileBackend
from cachekit.errors import BackendError
backend = FileBackend(Path(sys.argv[1]), 1 << 24, 0.05)
def put(key, data):
    backend.store(key, data, None, None, budget=5)
put("parent", b"before")
stop = threading.Event()
def busy():
    while not stop.is_set():
        put("busy", os.urandom(1000))
thread = threading.Thread(target=busy)
thread.start()
children = []
for number in range(8):
    child = os.fork()
    if child == 0:
        open_files = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd.isdigit()
                      and os.path.exists(f"/proc/self/fd/{fd}")] if sys.platform == "linux" else []
        inherited = [name for name in open_files if sys.argv[1] in name]
        put(f"child {number}", b"child")
        ok = backend.get("parent", budget=5) == b"before" and not inherited
        os._exit(0 if ok else 1)
    children.append(child)
    put(f"parent {number}", b"parent")
statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
stop.set()
thread.join()
found = [backend.get(f"{who} {number}", budget=5) for who in ("child", "parent") for number in range(8)]
print(statuses == [0] * 8, found == [b"child"] * 8 + [b"parent"] * 8)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_no_connection_crosses_a_fork_although_threads_are_writing(path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, str(path)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.stdout.split() == ["True", "True"], run.stdout + run.stderr
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


STRANDED = """
import os, sys, threading
from pathlib import Path
from cachekit.backends.file import database
from cachekit.backends.file.backend import FileBackend
from cachekit.errors import BackendError
database.FORK_WAIT = 0.05
backend = FileBackend(Path(sys.argv[1]), 1 << 24, 0.05)
entered, leave = threading.Event(), threading.Event()
def hold():
    with backend.database.reading(5):
        entered.set()
        leave.wait()
thread = threading.Thread(target=hold)
thread.start()
entered.wait()
child = os.fork()
if child == 0:
    try:
        backend.get("key", budget=5)
    except BackendError as error:
        os._exit(0 if "was in use when this process was forked" in str(error) else 1)
    os._exit(2)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
leave.set()
thread.join()
print(status, backend.get("key", budget=5))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_that_was_forked_amid_an_operation_does_not_touch_the_file(path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", STRANDED, str(path)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.stdout.split() == ["0", "None"], run.stdout + run.stderr


def test_many_that_make_the_file_at_once_share_it(path: Path) -> None:
    backends = [opened(path) for _ in range(8)]
    threads = [
        threading.Thread(target=put, args=(backend, f"n:v:{{r:{number}}}")) for number, backend in enumerate(backends)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(get(backends[0], f"n:v:{{r:{number}}}") == b"value" for number in range(8))
    assert [file.name for file in path.parent.iterdir() if file.name.endswith(".new")] == []
