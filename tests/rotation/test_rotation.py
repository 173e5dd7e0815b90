"""A rotation in real processes under load: nothing wrong, no error, no miss; in the end nothing needs the old key."""

import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from cachekit.codec.keyring import Keyring
from cachekit.config.spec import KeySpec
from cachekit.testing import Processes
from cachekit.testing.processes import Process
from cachekit.testing.servers import Server, start_server

pytestmark = [pytest.mark.server, pytest.mark.slow]

HERE = Path(__file__).parent
A, B, C, Z, NAMES = [sha256(name.encode()).hexdigest() for name in ("a", "b", "c", "z", "names")]
GROUP = 3  # processes that work at the same time
MANY = 8  # threads that ask at once
PAUSE = 11.0  # seconds after which a process rewraps an entry again


@pytest.fixture
def own_server() -> Iterator[Server]:
    with start_server("valkey") as server:
        yield server


def environment(present: str, *previous: str, name_key: str | None = NAMES) -> dict[str, str | None]:
    return {
        "PYTHONPATH": str(HERE),
        "CACHEKIT_MASTER_KEY": present,
        "CACHEKIT_PREVIOUS_KEYS": ",".join(previous) or None,
        "CACHEKIT_NAME_KEY": name_key,
    }


def key_ids(server: Server) -> set[bytes]:
    """Of all entries, from their headers: the id stands 16 bytes before the end of one."""
    ids = set()
    for name in server.command("KEYS", "rotated:v:*"):
        data = server.command("GET", name)
        length = int.from_bytes(data[6:8], "little")
        ids.add(data[length - 16 : length - 12])
    return ids


def id_of(key: str) -> bytes:
    return Keyring(KeySpec(master_key=key), "").present("seal").id


@pytest.mark.parametrize("l1", ["on", pytest.param("off", marks=pytest.mark.nightly)])
def test_a_rotation_under_load_costs_nothing(own_server: Server, l1: str) -> None:
    """A; then A that knows B; then B that knows A; then B: one process after the other, while the others work."""
    steps = [environment(A), environment(A, B), environment(B, A), environment(B)]
    told = []
    with Processes(len(steps) * GROUP, env=lambda number: steps[number // GROUP]) as processes:

        def begin(process: Process) -> None:
            process.call("rotation_app:begin", own_server.url, l1)
            process.call("rotation_app:use")

        working = list(processes)[:GROUP]
        working[0].call("rotation_app:begin", own_server.url, l1)
        working[0].call("rotation_app:fill")
        for process in working[1:]:
            begin(process)
        working[0].call("rotation_app:use")
        for step in range(1, len(steps)):
            if step == len(steps) - 1:
                time.sleep(PAUSE)  # what is not read meanwhile is rewrapped by reading all of it
                for process in working:
                    process.call("rotation_app:read_all")
                assert key_ids(own_server) == {id_of(B)}, "nothing needs the old key"
            for number in range(GROUP):
                time.sleep(0.4)
                told.append(working[number].call("rotation_app:end"))
                working[number].stop()
                working[number] = processes[step * GROUP + number]
                begin(working[number])
        time.sleep(0.5)
        told += [process.call("rotation_app:end") for process in working]
    assert [each for each in told if set(each) != {"wrong", "reads"} or each["wrong"]] == []
    assert sum(each["reads"] for each in told) > 1000
    assert key_ids(own_server) == {id_of(B)}


def files(directory: Path, present: str, *previous: str) -> dict[str, str | None]:
    """Files of keys. The previous ones first: who looks in between knows all keys that are in use."""
    replace(directory / "previous", ",".join(previous))
    replace(directory / "master", present)
    return {
        "PYTHONPATH": str(HERE),
        "CACHEKIT_MASTER_KEY_FILE": str(directory / "master"),
        "CACHEKIT_PREVIOUS_KEYS_FILE": str(directory / "previous"),
        "CACHEKIT_NAME_KEY": NAMES,
    }


def replace(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def test_files_replaced_under_running_processes_are_read_when_they_are_needed(
    own_server: Server, tmp_path: Path
) -> None:
    """The writer has them first, and begins anew. Readers learn the key when they meet it, each of their threads."""
    reading, writing = tmp_path / "reading", tmp_path / "writing"
    readers_env, writer_env = files(reading, A, Z), files(writing, A, Z)
    with Processes(3, env=lambda number: writer_env if number == 0 else readers_env) as processes:
        writer, *readers = processes
        for process in processes:
            process.call("rotation_app:begin", own_server.url, "on")
        writer.call("rotation_app:fill")
        for reader in readers:
            assert None not in reader.call("rotation_app:read_all")
        for now, before in ((B, A), (C, B)):  # the second within the second after the look for the first
            files(writing, now, before)
            files(reading, now, before)
            writer.stop()
            writer.restart()
            writer.call("rotation_app:begin", own_server.url, "on")
            writer.call("rotation_app:store", 1, [1, now[:2]])
            for reader in readers:
                assert reader.call("rotation_app:read_at_once", 1, MANY) == [[1, now[:2]]] * MANY
                reader.call("rotation_app:store", 2, [2, now[:2]])
                assert id_of(now) in key_ids(own_server)
        for reader in readers:
            assert not [name for name in reader.call("rotation_app:counts") if "failed" in name]


def test_a_key_that_comes_into_the_file_later_is_known_without_a_pause(own_server: Server, tmp_path: Path) -> None:
    """An entry under a key that is in no file yet is a miss; as soon as the file has it, the entry is a hit."""
    reading, writing = tmp_path / "reading", tmp_path / "writing"
    readers_env, writer_env = files(reading, A, Z), files(writing, B, A)
    with Processes(2, env=lambda number: writer_env if number == 0 else readers_env) as processes:
        writer, reader = processes
        for process in processes:
            process.call("rotation_app:begin", own_server.url, "off")
        writer.call("rotation_app:store", 1, [1, 1])
        assert reader.call("rotation_app:read", 1) is None
        files(reading, A, B)
        assert reader.call("rotation_app:read", 1) == [1, 1]
        assert reader.call("rotation_app:counts") == {"failed damaged_key": 1, "missed damaged_key": 1}
