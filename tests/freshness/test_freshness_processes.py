"""Stale values and refreshes across processes: real processes, a real server, the system's clock."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachekit.testing import CallFailed, Processes
from cachekit.testing.servers import Server, start_server

pytestmark = pytest.mark.slow

numbers = itertools.count()
given: list[int] = []
MakeProcesses = Callable[..., list[Any]]
APP = "freshness_app:"
STALE = {"ttl": "1s", "stale_ttl": "1m"}
KINDS = pytest.mark.parametrize("name", ["load", "aload"])
WAYS = pytest.mark.parametrize("coherence", ["tracking", "ttl"])
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def four() -> Iterator[Processes]:
    """Processes that the tests of this file share, since starting them takes longer than most tests."""
    with Processes(4, env={"PYTHONPATH": str(Path(__file__).parent)}) as started:
        yield started


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What the functions read."""
    file = tmp_path / "data"
    file.write_text("old")
    return file


@pytest.fixture
def processes(four: Processes, cachekit_server: Server, data: Path) -> MakeProcesses:
    """``processes(count, coherence, server, **profile_fields)``: as if they had just started, and connected."""

    def begun(count: int, coherence: str, server: Server | None = None, **profile: Any) -> list[Any]:
        four.start()  # those that a test has killed
        given.append(next(numbers))
        namespace, some = f"freshness{last()}", [four[index] for index in range(count)]
        backend = {"url": (server or cachekit_server).url, "coherence": coherence}
        for process in some:
            process.shut("slow")
        for running in [process.start(f"{APP}begin", namespace, backend, profile, str(data)) for process in some]:
            running.result()
        for process in some:
            process.call(f"{APP}warm")
        return some

    return begun


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that a test may kill."""
    with start_server() as server:
        yield server


def last() -> int:
    """The number of the namespace of this test."""
    return given[-1]


def ask(process: Any, name: str) -> str:
    answer: str = process.call(f"{APP}{'call' if name == 'load' else 'acall'}", name)
    return answer


def loads(processes: list[Any]) -> int:
    return sum(len(process.call(f"{APP}loads")) for process in processes)


def settle(processes: list[Any]) -> None:
    for process in processes:
        assert process.call(f"{APP}settled")
        assert process.call(f"{APP}asettled")


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@KINDS
@WAYS
@pytest.mark.parametrize("warm", [True, pytest.param(False, marks=SLOW)], ids=["in L1", "only in L2"])
def test_100_callers_get_the_stale_value_while_one_load_runs(
    processes: MakeProcesses, data: Path, name: str, coherence: str, warm: bool
) -> None:
    """In 4 processes. That nobody waits is told by the load, which is held up until all have their answers."""
    some = processes(4, coherence, **STALE, swr=True)
    assert ask(some[0], name) == "old"
    if warm:
        assert {ask(process, name) for process in some} == {"old"}
    assert loads(some) == 1
    data.write_text("new")
    time.sleep(1.1)
    for process in some:
        process.call(f"{APP}option", "gate", "slow")
    asked = [process.start(f"{APP}{'many' if name == 'load' else 'amany'}", name, 25) for process in some]
    assert [answer for running in asked for answer in running.result(10)] == ["old"] * 100
    assert sum(process.call(f"{APP}counts", name)["stale"] for process in some) >= 1
    until(lambda: loads(some) == 2, 5)
    time.sleep(0.3)  # whoever has begun a refresh has found by now that it is not alone
    assert loads(some) == 2, "one load of the stale value, in all of them together"
    for process in some:
        process.open("slow")
    settle(some)
    assert loads(some) == 2
    behind = [process.call(f"{APP}refreshes", name) for process in some]
    assert sum(each.get("swr stored", 0) for each in behind) == 1, behind
    assert ask(some[0], name) == "new"


@pytest.mark.parametrize("name", ["load", pytest.param("aload", marks=SLOW)])
@pytest.mark.parametrize("coherence", ["tracking", pytest.param("ttl", marks=SLOW)])
def test_early_refreshes_are_one_load_for_each_end(processes: MakeProcesses, name: str, coherence: str) -> None:
    """4 processes ask all the time. No load begins before half of the TTL has passed since the one before."""
    some = processes(4, coherence, ttl="2s", early_refresh=5.0)
    for process in some:
        process.call(f"{APP}option", "seconds", 0.05)
    ask(some[0], name)
    for process in some:
        process.call(f"{APP}start_asking", name)
    time.sleep(7)
    assert [process.call(f"{APP}stop_asking") for process in some] == [[]] * 4
    settle(some)
    begun = sorted(when for process in some for when, _ in process.call(f"{APP}loads"))
    gaps = [second - first for first, second in itertools.pairwise(begun)]
    assert len(gaps) >= 3
    assert min(gaps) >= 1.0, gaps
    behind = [process.call(f"{APP}refreshes", name) for process in some]
    early = sum(each.get("early stored", 0) for each in behind)
    assert early >= len(gaps) - 1, (behind, "of 4 lots hardly ever all fall on the last milliseconds")
    if name == "load":
        threads = [thread for process in some for _, thread in process.call(f"{APP}loads")]
        assert threads.count("cachekit-refresh") == early


@KINDS
@WAYS
def test_a_process_gives_a_stale_value_that_it_never_loaded(
    processes: MakeProcesses, name: str, coherence: str
) -> None:
    """The source fails there; the value comes from L2. Afterwards the source is left alone."""
    first, second = processes(2, coherence, **STALE)
    assert ask(first, name) == "old"
    time.sleep(1.1)
    second.call(f"{APP}option", "fails", True)
    assert [ask(second, name) for _ in range(5)] == ["old"] * 5
    assert (loads([first]), loads([second])) == (1, 1)
    assert second.call(f"{APP}counts", name)["stale"] == 5


@pytest.mark.timed
@pytest.mark.parametrize("name", ["load", pytest.param("aload", marks=SLOW)])
def test_a_refresh_whose_process_is_killed_is_done_by_another(processes: MakeProcesses, data: Path, name: str) -> None:
    """When the lease ends, which is 2 s for loads as short as these; until then the stale value is there."""
    first, second = processes(2, "tracking", **STALE, swr=True)
    assert ask(first, name) == ask(second, name) == "old"
    first.call(f"{APP}option", "gate", "slow")
    data.write_text("new")
    time.sleep(1.1)
    assert ask(first, name) == "old"
    first.wait_at("slow")
    assert {ask(second, name) for _ in range(20)} == {"old"}
    assert sum(second.call(f"{APP}refreshes", name).values()) <= 2, "it is not asked at each call whether it has ended"
    first.kill()
    killed = time.monotonic()
    while (answer := ask(second, name)) == "old":
        assert time.monotonic() - killed < 2.0 + 1.0 + 2.0, "late: lease, pause after somebody else's, a busy machine"
        time.sleep(0.02)
    assert answer == "new"
    assert loads([second]) == 1


@KINDS
def test_a_forked_child_ends_without_the_refreshes_of_its_parent(
    processes: MakeProcesses, cachekit_server: Server, data: Path, name: str
) -> None:
    """It neither waits for them nor gives their leases back."""
    (process,) = processes(1, "tracking", **STALE, swr=True)
    assert ask(process, name) == "old"
    process.call(f"{APP}option", "gate", "slow")
    data.write_text("new")
    time.sleep(1.1)
    assert ask(process, name) == "old"
    process.wait_at("slow")
    leases = cachekit_server.command("KEYS", f"freshness{last()}:l:*")
    assert len(leases) == 1
    assert process.call(f"{APP}close_in_a_forked_child") < 5
    assert cachekit_server.command("KEYS", f"freshness{last()}:l:*") == leases
    process.open("slow")
    settle([process])
    assert ask(process, name) == "new"


@SLOW
@WAYS
@pytest.mark.parametrize("swr", [True, False], ids=["swr", "on error"])
def test_without_a_server_stale_values_are_given_as_long_as_the_profile_says(
    processes: MakeProcesses, own_server: Server, coherence: str, swr: bool
) -> None:
    """And no longer, although ``stale_ttl`` is longer: nobody tells of invalidations."""
    (process,) = processes(1, coherence, own_server, **STALE, swr=swr, stale_without_proof="3s", stale_throttle="1s")
    assert ask(process, "load") == "old"
    time.sleep(1.1)
    process.call(f"{APP}option", "fails", True)
    loaded = time.monotonic()
    own_server.kill()
    assert ask(process, "load") == "old"
    assert process.call(f"{APP}counts", "load")["stale"] == 1
    time.sleep(max(0.0, loaded + 3.3 - time.monotonic()))
    with pytest.raises(CallFailed) as raised:
        ask(process, "load")
    assert raised.value.type == "LookupError"
