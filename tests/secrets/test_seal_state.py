"""What sealing remembers: nothing that a fork, a thread or a restart could repeat, and how much a key has sealed."""

import logging
import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from seal_rig import MASTER, OTHER

from cachekit.codec import keyring as keyring_module
from cachekit.codec import seal
from cachekit.codec.envelope import Damaged, Header, pack, unpack
from cachekit.codec.keyring import Keyring
from cachekit.codec.seal import ID_BYTES, NONCE_BYTES, Locks
from cachekit.config.spec import KeySpec, ServiceSpec
from cachekit.service import Service

HEADER = Header(1, b"i" * 16, 1, 2, 3)
FORKED = multiprocessing.get_context("fork")


def locks(use: Any = "seal", **keys: Any) -> Locks:
    return Locks(Keyring(KeySpec(**{"master_key": MASTER, **keys}), "shop"), "users", use)


def nonces_of_threads(lock: Any, threads: int, each: int) -> bytes:
    """As `pack` asks for them."""
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(lambda _: b"".join([lock.mark()[ID_BYTES:] for _ in range(each)]), range(threads))
        return b"".join(parts)


def in_child(lock: Any, threads: int, each: int, path: Path) -> None:
    path.write_bytes(nonces_of_threads(lock, threads, each))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_the_nonces_of_forked_processes_and_their_threads_are_all_different(count: int, tmp_path: Path) -> None:
    lock = locks().of("")
    lock.mark()  # used before the fork, so that whatever it keeps is there to be copied
    files = [tmp_path / str(number) for number in range(4)]
    children = [FORKED.Process(target=in_child, args=(lock, 4, count // 16, file)) for file in files]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    made = b"".join(file.read_bytes() for file in files)
    assert len(made) == count * NONCE_BYTES
    assert len({made[at : at + NONCE_BYTES] for at in range(0, len(made), NONCE_BYTES)}) == count


def test_each_entry_has_a_nonce_of_its_own_also_if_it_is_the_same() -> None:
    lock = locks().of("")
    made = {pack(HEADER, b"x", "key", lock) for _ in range(1000)}
    assert len(made) == 1000


def sealed_in_child(lock: Any, data: bytes, pipe: Connection) -> None:
    pipe.send_bytes(bytes(unpack(data, "key", lock)[1]) + pack(HEADER, b"theirs", "key", lock))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("use", ["seal", "sign"])
def test_locks_work_on_both_sides_of_a_fork(use: str) -> None:
    lock = locks(use).of("t")
    data = pack(HEADER, b"before", "key", lock)
    here, there = FORKED.Pipe()
    child = FORKED.Process(target=sealed_in_child, args=(lock, data, there))
    child.start()
    got = here.recv_bytes()
    child.join(20)
    assert got[:6] == b"before"
    assert unpack(got[6:], "key", lock)[1] == b"theirs"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_another_thread_makes_a_key_leaves_the_child_free() -> None:
    service = Service(ServiceSpec(namespace="shop", namespace_given=True, keys=KeySpec(master_key=MASTER)))
    made, going, stop = Locks(service.keyring(), "users", "seal"), threading.Event(), threading.Event()

    def hold() -> None:
        with service.keyring().mutex:
            going.set()
            stop.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    going.wait(10)
    try:
        child = FORKED.Process(target=made.of, args=("tenant",))
        child.start()
        child.join(20)
        assert child.exitcode == 0
    finally:
        stop.set()
        thread.join()
        child.kill()
        service.close()


def test_the_warning_comes_once_and_long_before_the_bound(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert seal.WARN_AT * 16 == 2**32
    monkeypatch.setattr(seal, "WARN_AT", 5000)
    lock = locks().of("")
    with caplog.at_level(logging.WARNING, "cachekit"):
        nonces_of_threads(lock, 4, 1249)
        assert not caplog.records
        nonces_of_threads(lock, 4, 1250)
    (record,) = caplog.records
    assert "region 'users': this process alone has sealed 5000 entries with one key" in record.getMessage()


def test_the_count_survives_new_keys_for_other_uses_and_ends_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(seal, "WARN_AT", 10)
    file = tmp_path / "key"
    file.write_text(MASTER)
    ring = Keyring(KeySpec(master_key=MASTER, files={"master_key": str(file)}), "shop")
    made = Locks(ring, "users", "seal")
    for _ in range(9):
        made.of("").mark()
    ring.version += 1  # as a new signing key does
    made.of("").mark()
    assert len(caplog.records) == 1
    file.write_text(OTHER)
    assert ring.find("seal", b"none") is None
    for _ in range(9):
        made.of("").mark()
    assert len(caplog.records) == 1
    made.of("").mark()
    assert len(caplog.records) == 2


@pytest.mark.parametrize("use", ["seal", "sign"])
def test_the_locks_of_busy_tenants_stay_and_the_others_leave(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "MAX_LOCKS", 10)
    made = locks(use)
    busy = made.of("busy")
    for number in range(100):
        made.of(f"once-{number}")
        assert made.of("busy") is busy
        assert len(made._locks) <= 10


def test_many_threads_and_more_tenants_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "MAX_LOCKS", 8)
    made = locks()
    entries = {f"t{number}": pack(HEADER, b"of %d" % number, "key", made.of(f"t{number}")) for number in range(32)}

    def read(start: int) -> None:
        for step in range(2000):
            number = (start * 7 + step) % 32
            assert unpack(entries[f"t{number}"], "key", made.of(f"t{number}"))[1] == b"of %d" % number

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))
    assert len(made._locks) <= 8


def test_threads_that_meet_a_new_key_at_once_all_get_it_by_one_look_into_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, began, looks = tmp_path / "key", threading.Barrier(8), []
    file.write_text(OTHER)
    read = keyring_module.read_secret_file

    def slow(path: str) -> str:
        looks.append(path)
        threading.Event().wait(0.05)
        return read(path)

    monkeypatch.setattr(keyring_module, "read_secret_file", slow)
    made = Locks(Keyring(KeySpec(master_key=MASTER, files={"master_key": str(file)}), "shop"), "users", "seal")
    data = pack(HEADER, b"new", "key", locks(master_key=OTHER).of(""))

    def open_it(_: int) -> bytes:
        began.wait(10)
        return bytes(unpack(data, "key", made.of(""))[1])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(open_it, range(8))) == [b"new"] * 8
    assert len(looks) == 1


def test_an_entry_under_a_new_key_opens_as_soon_as_the_file_has_it(tmp_path: Path) -> None:
    file, now = tmp_path / "key", [0.0]
    file.write_text(MASTER)
    ring = Keyring(KeySpec(master_key=MASTER, files={"master_key": str(file)}), "shop", lambda: now[0])
    made = Locks(ring, "users", "seal")
    data = pack(HEADER, b"new", "key", locks(master_key=OTHER).of(""))
    with pytest.raises(Damaged, match="key"):
        unpack(data, "key", made.of(""))
    file.write_text(OTHER)
    assert unpack(data, "key", made.of(""))[1] == b"new"


def test_names_keep_their_key_when_the_files_say_another(tmp_path: Path) -> None:
    """What this process stored under a name, it must be able to invalidate."""
    file = tmp_path / "key"
    file.write_text(OTHER)
    ring = Keyring(KeySpec(master_key=MASTER, files={"master_key": str(file)}), "shop")
    before = ring.name_key
    assert ring.find("seal", Keyring(KeySpec(master_key=OTHER), "shop").present("seal").id) is not None
    assert ring.name_key == before


@pytest.mark.parametrize("use", ["seal", "sign"])
def test_nothing_of_it_can_be_pickled(use: str) -> None:
    made = locks(use)
    for thing in (made, made.of(""), made.of("t")):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(thing)
        assert MASTER not in repr(thing)


def test_the_kernel_is_asked_for_each_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(os, "urandom", lambda size: asked.append(size) or b"n" * size)
    lock = locks().of("")
    assert pack(HEADER, b"", "key", lock)[72:84] == b"n" * 12
    assert pack(HEADER, b"", "key", lock)[72:84] == b"n" * 12
    assert asked == [12, 12]
