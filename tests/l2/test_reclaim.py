"""Space of outdated entries is given back: what counts as outdated, when it is looked for, how fast, and when not."""

import asyncio
import hashlib
import itertools
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachekit import Outcome
from cachekit.backends.base import HEAD_BYTES, SEEN_BYTES, Faces
from cachekit.backends.memory import MemoryBackend, as_coroutines
from cachekit.codec.envelope import NEVER, Header, glance, pack
from cachekit.config.spec import BackendSpec, BreakerSpec, L1Spec, ServiceSpec, built_in_regions
from cachekit.engine import keys
from cachekit.errors import BackendError, Fault
from cachekit.l2.lease import SHORTEST
from cachekit.l2.reclaim import (
    AFTER,
    APART,
    LEASE_MS,
    NAMES,
    NEEDED,
    PAGE,
    PAUSE,
    RATE,
    SPELL,
    Entry,
    entry_of,
    outdated,
)
from cachekit.l2.remote import Remote
from cachekit.service import TICK, TURNS, Service
from cachekit.testing.clock import FrozenClock

numbers = itertools.count()
stamps = st.binary(min_size=8, max_size=8).filter(any)  # not all zero, which is none
tags = st.dictionaries(st.binary(min_size=8, max_size=8), stamps, max_size=5)

FN = "app.views.get_user:1"
CALL = f"shop:v:{{users:{FN}:{'0f' * 16}}}"
KEY = "shop:v:{users:=a:b{c}d}"
OF_REGION, OF_FUNCTION = keys.region_stamp("shop", "users"), keys.function_stamp("shop", "users", FN)


def stored(key: str, region: bytes, function: bytes = bytes(8), tags: Any = (), payload: bytes = b"x" * 600) -> bytes:
    header = Header(0, os.urandom(16), 1, NEVER, NEVER, region_stamp=region, function_stamp=function, tags=tuple(tags))
    return pack(header, payload, key)


def number(region: bytes, tags: Any = ()) -> bytes:
    return b"-12@" + region + b"".join(digest + stamp for digest, stamp in tags)


# Judging.


@given(region=stamps, function=stamps, tags=tags, kind=st.sampled_from(["call", "key", "number"]), data=st.data())
def test_an_entry_is_outdated_as_soon_as_one_of_its_stamps_is_another(
    region: bytes, function: bytes, tags: dict[bytes, bytes], kind: str, data: st.DataObject
) -> None:
    pairs = sorted(tags.items())
    bytes_of = {
        "call": lambda: stored(CALL, region, function, pairs),
        "key": lambda: stored(KEY, region, tags=pairs),
        "number": lambda: number(region, pairs),
    }[kind]()
    entry = entry_of("shop", CALL if kind == "call" else KEY, bytes_of[:HEAD_BYTES])
    assert entry is not None
    assert bytes_of.startswith(entry.seen)
    written = {OF_REGION: region} | {keys.tag_stamp("shop", digest): stamp for digest, stamp in pairs}
    if kind == "call":
        written[OF_FUNCTION] = function
    assert entry.stamps == written
    assert not outdated(entry, written)
    name = data.draw(st.sampled_from(sorted(written)))
    assert outdated(entry, {**written, name: data.draw(st.none() | stamps.filter(written[name].__ne__))})


def test_a_stamp_that_nobody_has_is_a_cleared_one() -> None:
    entry = entry_of("shop", KEY, stored(KEY, b"r" * 8)[:HEAD_BYTES])
    assert entry is not None
    assert outdated(entry, {})


def test_of_an_entry_its_first_bytes_tell_it_from_the_next_and_of_a_number_all_of_it() -> None:
    data = stored(CALL, b"r" * 8, b"f" * 8)
    entry = entry_of("shop", CALL, data[:HEAD_BYTES])
    assert entry is not None
    assert entry.seen == data[:SEEN_BYTES]
    old, new = (number(b"r" * 8, [(b"t" * 8, stamp)]) for stamp in (b"1" * 8, b"2" * 8))
    assert old[:20] == new[:20]  # what comes first does not tell them apart
    counted = entry_of("shop", KEY, old)
    assert counted is not None
    assert not new.startswith(counted.seen)


def test_a_header_that_was_read_in_part_is_judged_by_what_was_read() -> None:
    pairs = [(bytes([n]) * 8, b"t%07d" % n) for n in range(1, 41)]
    entry = entry_of("shop", CALL, stored(CALL, b"r" * 8, b"f" * 8, pairs)[:HEAD_BYTES])
    assert entry is not None
    assert len(entry.stamps) == 2 + (HEAD_BYTES - 70) // 16
    written = {OF_REGION: b"r" * 8, OF_FUNCTION: b"f" * 8}
    written.update((keys.tag_stamp("shop", digest), stamp) for digest, stamp in pairs)
    assert entry.stamps.items() <= written.items()


@pytest.mark.parametrize("flag", [b"\4", b"\10"], ids=["sealed", "signed"])
def test_the_stamps_of_what_is_sealed_or_signed_can_be_read_by_all(flag: bytes) -> None:
    data = stored(CALL, b"r" * 8, b"f" * 8)
    entry = entry_of("shop", CALL, (data[:4] + flag + data[5:])[:HEAD_BYTES])
    assert entry is not None
    assert entry.stamps == {OF_REGION: b"r" * 8, OF_FUNCTION: b"f" * 8}


@pytest.mark.parametrize("version", ["1", "a:b", "0" * 32])
def test_a_call_of_a_tenant_is_one_of_its_function(version: str) -> None:
    function = f"app.views.get_user:{version}"
    for whose in ("", hashlib.blake2b(b"acme", digest_size=16).hexdigest() + ":"):
        key = f"shop:v:{{users:{function}:{whose}{'0f' * 16}}}"
        entry = entry_of("shop", key, stored(key, b"r" * 8, b"f" * 8)[:HEAD_BYTES])
        assert entry is not None
        assert entry.stamps == {OF_REGION: b"r" * 8, keys.function_stamp("shop", "users", function): b"f" * 8}


GOOD = stored(CALL, b"r" * 8, b"f" * 8)


@pytest.mark.parametrize(
    ("key", "head"),
    [
        (KEY, b"41"),
        (KEY, b"-9223372036854775808"),
        (KEY, b"41@short"),
        (KEY, b"41@" + b"r" * 8 + b"half a tag"),
        (KEY, b"12345678901234567890@" + b"r" * 8),
        (KEY, b""),
        (KEY, b"somebody else's value, " * 20),
        (KEY, b"\xcaK"),
        (CALL, GOOD[:67]),
        (CALL, b"xx" + GOOD[2:]),
        (CALL, GOOD[:2] + b"\2" + GOOD[3:]),  # another format
        (CALL, GOOD[:6] + b"\0\0" + GOOD[8:]),  # a header of no length
        (KEY, stored(KEY, bytes(8))),  # stored where there are no stamps
        (KEY, number(bytes(8))),
        ("shop:v:{users:=k", stored(KEY, b"r" * 8)),
        ("shop:v:{users}", stored(KEY, b"r" * 8)),
        ("shop:v:{:=k}", stored(KEY, b"r" * 8)),
        ("shop:v:{users:nofunction}", GOOD),
        ("shop2:v:{users:=k}", stored(KEY, b"r" * 8)),
        ("shop:l:{users:=k}", stored(KEY, b"r" * 8)),
        ("xshop:v:{users:=k}", stored(KEY, b"r" * 8)),
    ],
    ids=lambda value: value if isinstance(value, str) else str(len(value)),
)
def test_what_is_not_certainly_ours_is_left_alone(key: str, head: bytes) -> None:
    assert entry_of("shop", key, head[:HEAD_BYTES]) is None


@given(st.binary(max_size=HEAD_BYTES) | st.builds(lambda rest, cut: (GOOD[:cut] + rest)[:HEAD_BYTES],
    st.binary(max_size=HEAD_BYTES), st.integers(0, 90)), st.sampled_from([CALL, KEY]))  # fmt: skip
def test_no_bytes_raise(head: bytes, key: str) -> None:
    glance(head)
    entry = entry_of("shop", key, head)
    assert entry is None or isinstance(entry, Entry)


# Doing.


class Watched(MemoryBackend):
    """Notes what is asked for and when; ``fails`` names what does not work, and ``costs`` is what each call takes."""

    def __init__(self, clock: FrozenClock) -> None:
        super().__init__(clock)
        self.frozen = clock
        self.asked: list[tuple[float, str, Any]] = []
        self.fails: dict[str, BackendError] = {}
        self.costs: dict[str, float] = {}
        self.meanwhile: Callable[[str], object] = lambda name: None

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if name not in MemoryBackend.capabilities | {"get", "store"}:
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            self.asked.append((self.frozen.now(), name, arguments))
            self.frozen.advance(self.costs.get(name, 0.0))
            if name in self.fails:
                raise self.fails[name]
            answer = found(*arguments, **options)
            self.meanwhile(name)
            return answer

        return call

    def times(self, name: str) -> list[float]:
        return [at for at, asked, _ in self.asked if asked == name]


class Process:
    """A service on a backend that it may share with others, and its maintenance thread, which runs when told."""

    def __init__(self, backend: Any, clock: FrozenClock, namespace: str = "shop") -> None:
        base = built_in_regions()["default"].but(jitter=0.0, l1=L1Spec(mode="off"), lease_wait=0.0)
        regions = {name: base.but(name=name) for name in ("default", "users", "other")}
        regions["counts"] = base.but(name="counts", counters=True)
        self.clock = clock
        self.service = Service(
            ServiceSpec(
                namespace=namespace,
                namespace_given=True,
                backends={"default": BackendSpec(adaptive=False, breaker=BreakerSpec(failures=1))},
                regions=regions,
            ),
            clock=clock,
        )
        self.remote._faces = backend if isinstance(backend, Faces) else Faces(backend, as_coroutines(backend))
        self.users = self.service.region("users")

    @property
    def remote(self) -> Remote:
        remote = self.service.remote("default")
        assert remote is not None
        return remote

    def run(self, seconds: float) -> None:
        """The maintenance thread's turns in so much time."""
        end = self.clock.now() + seconds
        while self.clock.now() < end:
            self.clock.advance(self.service.tend())

    def fill(self, count: int, name: str = "users") -> None:
        self.service.region(name).set_many({f"{n:05}": n for n in range(count)}, ttl=None)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def backend(clock: FrozenClock) -> Watched:
    return Watched(clock)


@pytest.fixture
def process(backend: Watched, clock: FrozenClock) -> Process:
    return Process(backend, clock)


def there(backend: MemoryBackend) -> set[str]:
    return set(backend.values.items)


CLEARS = {
    "region": lambda process: process.users.clear(),
    "function": lambda process: process.load.invalidate_all(),
    "tag": lambda process: process.users.invalidate_tags("cleared"),
}


@pytest.mark.parametrize("how", CLEARS)
def test_what_a_clear_outdated_is_deleted_and_nothing_else(process: Process, backend: Watched, how: str) -> None:
    process.load = process.users.cached(lambda number: number, version="load", tags=["of a function"])  # type: ignore[attr-defined]
    other = process.users.cached(lambda number: -number, version="other")
    counts = process.service.region("counts")
    with_tag = lambda region, key: region.set(key, 1, ttl=None, tags=["cleared"])  # noqa: E731
    for number_ in range(5):
        process.load(number_)  # type: ignore[attr-defined]
        other(number_)
    process.users.set("plain", 1)
    with_tag(process.users, "tagged")
    with_tag(counts, "tagged")
    counts.set("plain", 7)
    process.service.region("other").set("plain", 1)
    backend.values.put("shop:v:{users:=foreign}", b"41", None)
    before = there(backend)
    mine = {str(process.load.key(n)) for n in range(5)}  # type: ignore[attr-defined]
    theirs = {str(other.key(n)) for n in range(5)}
    names = ["users:=plain", "users:=tagged", "counts:=tagged", "counts:=plain", "other:=plain"]
    keyed = {f"shop:v:{{{name}}}" for name in names}
    assert before == mine | theirs | keyed | {"shop:v:{users:=foreign}"}
    gone = {
        "region": mine | theirs | {"shop:v:{users:=plain}", "shop:v:{users:=tagged}"},
        "function": mine,
        "tag": {"shop:v:{users:=tagged}", "shop:v:{counts:=tagged}"},
    }[how]
    assert CLEARS[how](process) is Outcome.DONE
    assert there(backend) == before
    process.run(AFTER + 5)
    assert before - there(backend) == gone
    assert process.remote.reclaimed == len(gone)
    assert not backend.leases.items
    assert backend.times("stamps")[-1] < backend.times("scan")[0]  # it makes none


def test_nobody_looks_before_there_was_a_clear(process: Process, backend: Watched) -> None:
    process.fill(10)
    process.users.delete("00001")
    process.run(300)
    assert backend.times("scan") == []


def test_several_clears_are_one_scan_some_time_after_the_first(
    process: Process, backend: Watched, clock: FrozenClock
) -> None:
    process.fill(10)
    begun = clock.now()
    while clock.now() < begun + AFTER + 1:
        process.users.clear()
        process.run(0.5)
    process.run(1)
    assert len(backend.times("scan")) == 1
    assert AFTER <= backend.times("scan")[0] - begun <= AFTER + TICK
    assert there(backend) == set()


def test_two_scans_are_apart_and_a_clear_during_one_is_not_forgotten(
    process: Process, backend: Watched, clock: FrozenClock
) -> None:
    process.fill(PAGE * 3)
    process.users.clear()
    process.run(AFTER + 0.5)
    assert process.remote.reclaimed > 0
    process.fill(PAGE * 3)
    process.users.clear()
    process.run(APART - 1)
    pages = backend.times("scan")
    assert pages[-1] - pages[0] < 2
    assert there(backend)
    process.run(AFTER + 5)
    assert backend.times("scan")[len(pages)] - pages[-1] >= APART
    assert there(backend) == set()
    process.run(1000)
    assert len(backend.times("scan")) == len(pages) + 4 - 1  # an end that falls on a page costs no more


def test_a_clear_that_was_queued_counts_when_it_is_delivered(process: Process, backend: Watched) -> None:
    process.fill(10)
    backend.fails["clear"] = BackendError(Fault.DOWN, "timeout")
    assert process.users.clear() is Outcome.QUEUED
    process.run(AFTER + 5)
    assert backend.times("scan") == []
    backend.fails.clear()
    process.clock.advance(60)
    process.service.tick()
    process.run(AFTER + 5)
    assert there(backend) == set()


def test_a_refused_clear_is_none(process: Process, backend: Watched) -> None:
    process.fill(10)
    backend.fails["clear"] = BackendError(Fault.CONFIG, "noperm")
    assert process.users.clear() is Outcome.FAILED
    backend.fails.clear()
    process.run(300)
    assert backend.times("scan") == []


@pytest.mark.parametrize("turns", ["as told", "all the time"])
def test_so_many_keys_a_second_are_looked_at(process: Process, backend: Watched, turns: str) -> None:
    process.fill(PAGE * 20)
    process.users.clear()
    process.clock.advance(AFTER)
    while there(backend):
        pause = process.service.tend()
        process.clock.advance(pause if turns == "as told" else PAUSE / 7)
    pages = backend.times("scan")
    assert there(backend) == set()
    assert {count for _, name, (*_, count) in backend.asked if name == "scan"} == {PAGE}
    for first, later in itertools.pairwise(pages):
        assert later - first >= PAGE / RATE - 1e-6
    assert pages[-1] - pages[0] < 3 * len(pages) * PAUSE


def test_a_turn_is_short_and_leases_of_loads_come_first(process: Process, backend: Watched, clock: FrozenClock) -> None:
    """With slow deletions a page takes several turns."""
    process.fill(PAGE)
    process.users.clear()
    backend.costs["reclaim"] = 0.03
    process.run(AFTER)
    while not backend.times("scan"):
        clock.advance(process.service.tend())
    process.remote.leases.hold("key", b"t" * 16, int(SHORTEST * 1000), clock.now(), None)
    longest, renewed = 0.0, []
    while there(backend):
        started = clock.now()
        asked = len(backend.asked)
        pause = process.service.tend()
        longest = max(longest, clock.now() - started)
        first = [name for _, name, _ in backend.asked[asked:]]
        renewed += [clock.now()] if "renew" in first[:1] else []
        assert "renew" not in first[1:] or first[0] == "renew"
        clock.advance(pause)
    assert longest <= SPELL + 0.03 + 1e-6
    assert len(renewed) >= 5
    for before, after in itertools.pairwise(renewed):
        assert after - before < SHORTEST


def test_of_several_processes_one_scans(backend: Watched, clock: FrozenClock) -> None:
    a, b = Process(backend, clock), Process(backend, clock)
    a.fill(PAGE * 3)
    a.users.clear()
    b.users.clear()
    clock.advance(AFTER)
    assert a.service.tend() == PAUSE
    assert b.service.tend() == TICK / TURNS
    assert len(backend.times("scan")) == 1
    while a.service.tend() == PAUSE:
        b.service.tend()
        clock.advance(PAUSE)
    assert a.remote.reclaimed == PAGE * 3
    assert b.remote.reclaimed == 0
    scans = len(backend.times("scan"))
    b.run(APART + 1)  # what it cleared may have come after the other had passed by
    assert len(backend.times("scan")) == scans + 1
    assert not backend.leases.items


def test_of_two_namespaces_both_scan_and_each_its_own(backend: Watched, clock: FrozenClock) -> None:
    a, b = Process(backend, clock, "shop"), Process(backend, clock, "shop2")
    for each in (a, b):
        each.fill(10)
    a.users.clear()
    a.run(AFTER + 5)
    assert all(key.startswith("shop2:") for key in there(backend))
    assert len(there(backend)) == 10


def test_the_right_to_scan_is_renewed_and_lost_with_its_lease(
    process: Process, backend: Watched, clock: FrozenClock
) -> None:
    process.fill(PAGE * 3)
    process.users.clear()
    backend.costs["reclaim"] = 0.2
    process.run(AFTER + 3 * LEASE_MS / 1000)
    assert len(backend.times("renew")) >= 6
    assert len(backend.leases.items) == 1
    assert there(backend)
    backend.leases.items.clear()
    process.run(LEASE_MS / 1000)
    left = there(backend)
    process.run(10)
    assert there(backend) == left  # it stopped,
    backend.costs.clear()
    process.run(APART + 5)
    assert there(backend) == set()  # and tried again


def test_an_entry_that_is_stored_anew_in_between_stays(process: Process, backend: Watched) -> None:
    process.fill(10)
    process.users.clear()

    def store(name: str) -> None:
        if name == "get_many":
            backend.meanwhile = lambda name: None
            process.fill(5)

    backend.meanwhile = store
    process.run(AFTER + 5)
    assert len(there(backend)) == 5
    assert process.users.get_many([f"{n:05}" for n in range(10)]) == {f"{n:05}": n for n in range(5)}


def test_the_stamps_are_read_after_the_page(process: Process, backend: Watched) -> None:
    """Stamps from before it would make an entry outdated that was stored under newer ones."""
    process.fill(10)
    process.users.clear()

    def renew(name: str) -> None:
        if name == "scan":
            backend.meanwhile = lambda name: None
            process.fill(10, "other")
        elif name == "get_or_lease" and backend.leases.items:
            process.fill(5)  # just before the page

    backend.meanwhile = renew
    process.run(AFTER + 5)
    assert len(there(backend)) == 15


@pytest.mark.parametrize("fails", ["get_or_lease", "scan", "get_many", "reclaim", "renew"])
def test_a_step_that_fails_ends_the_scan_until_later_and_hurts_nobody(
    process: Process, backend: Watched, fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    process.fill(PAGE * 3)
    process.users.clear()
    backend.costs["reclaim"] = 0.05
    backend.fails[fails] = BackendError(Fault.DOWN, "timeout")
    process.run(AFTER + APART / 2)
    assert there(backend)
    assert process.service.health().ok
    assert caplog.records == []
    tried = len(backend.times(fails))
    assert tried == 1
    process.run(APART / 4)
    assert len(backend.times(fails)) == tried
    backend.fails.clear()
    backend.costs.clear()
    process.run(APART + LEASE_MS / 1000 + 5)
    assert there(backend) == set()


def test_nobody_scans_while_the_breaker_is_open(process: Process, backend: Watched, clock: FrozenClock) -> None:
    process.fill(PAGE * 3)
    process.users.clear()
    clock.advance(AFTER)
    assert process.service.tend() == PAUSE
    backend.fails = dict.fromkeys(("get", "keep"), BackendError(Fault.DOWN, "timeout"))
    process.users.get("00001")
    clock.advance(PAUSE)
    assert process.service.tend() == TICK / TURNS
    left = there(backend)
    process.run(300)
    assert there(backend) == left
    assert len(backend.times("scan")) == len(backend.times("get_or_lease")) == 1
    backend.fails.clear()
    while process.remote.breaker.state(clock.now()) != "closed":
        process.users.get("00001")
        clock.advance(1)
    process.run(APART + 5)
    assert there(backend) == set()


@pytest.mark.parametrize("refused", ["scan", "reclaim"])
def test_a_server_that_refuses_is_not_asked_again_and_one_line_says_so(
    process: Process, backend: Watched, refused: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cachekit")
    backend.fails[refused] = BackendError(Fault.CONFIG, "noperm", "NOPERM no permission")
    for _ in range(5):
        process.fill(10)
        process.users.clear()
        process.run(AFTER + APART + 5)
    assert len(backend.times(refused)) == 1
    (line,) = caplog.records
    assert line.levelno == logging.INFO
    assert "NOPERM" in line.getMessage()
    assert process.service.health().ok
    process.users.set("key", 1)
    assert process.users.get("key") == 1


@pytest.mark.parametrize("lacks", NEEDED)
def test_a_backend_that_lacks_an_operation_is_left_alone(process: Process, backend: Watched, lacks: str) -> None:
    backend.capabilities = MemoryBackend.capabilities - {lacks}
    process.remote._faces = Faces(backend, None)
    process.fill(10)
    process.users.clear()
    process.run(AFTER + 5)
    assert backend.times("scan") == backend.times("reclaim") == []


def test_a_backend_with_coroutines_only_is_left_alone(clock: FrozenClock) -> None:
    backend = Watched(clock)
    process = Process(Faces(None, as_coroutines(backend)), clock)

    async def clear() -> None:
        await process.users.aset("key", 1)
        await process.users.aclear()

    asyncio.run(clear())
    process.run(AFTER + APART)
    assert backend.times("scan") == []


def test_a_backend_that_breaks_its_word_ends_the_scan(
    process: Process, backend: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    process.fill(10)
    process.users.clear()
    backend.fails["scan"] = ZeroDivisionError("defect")  # type: ignore[assignment]
    process.run(AFTER + 5)
    assert [record.message for record in caplog.records] == ["giving back space failed"]


def scanning(process: Process) -> None:
    process.fill(PAGE * 3)
    process.users.clear()
    process.clock.advance(AFTER)
    assert process.service.tend() == PAUSE


def test_a_service_that_closes_stops_and_lets_another_begin(process: Process, backend: Watched) -> None:
    scanning(process)
    process.service.close()
    assert not backend.leases.items
    scans = len(backend.times("scan"))
    process.run(AFTER)
    assert len(backend.times("scan")) == scans
    process.run(APART + AFTER)  # used again
    assert there(backend) == set()


def test_a_closing_event_loop_does_not_wait_for_it(process: Process, backend: Watched) -> None:
    scanning(process)
    asked = len(backend.asked)
    asyncio.run(process.service.aclose())
    assert len(backend.asked) == asked
    assert process.service.tend() == TICK / TURNS


@pytest.mark.parametrize("begun", [True, False])
def test_a_forked_child_leaves_it_to_its_parent(process: Process, backend: Watched, begun: bool) -> None:
    if begun:
        scanning(process)
    else:
        process.fill(10)
    process.users.clear()
    asked = len(backend.asked)
    process.service.after_fork()
    process.run(50)
    assert len(backend.asked) == asked


def test_many_stamps_are_asked_for_in_parts(process: Process, backend: Watched) -> None:
    for n in range(PAGE):
        process.users.set(str(n), n, tags=[f"{n}-{tag}" for tag in range(8)])
    process.users.clear()
    process.run(AFTER + 5)
    asked = [len(names) for _, name, (names, *_) in backend.asked if name == "get_many"]
    assert sum(asked) == PAGE * 8 + 1
    assert max(asked) == NAMES
    assert there(backend) == set()


def test_the_maintenance_thread_does_it(backend: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real clock: pages follow each other quickly, and the ticks go on once a second."""
    monkeypatch.setattr("cachekit.l2.reclaim.AFTER", 0.0)
    process = Process(backend, FrozenClock())
    process.service.clock = type(Service(process.service.spec).clock)()
    process.remote._now = process.service.clock.now
    backend.clock = backend.values.clock = backend.leases.clock = backend.names.clock = process.service.clock.now
    process.fill(PAGE * 12)
    done, ticked = threading.Event(), []
    process.service._sync_port.now = process.service.clock.now
    process.service.on_tick(lambda: ticked.append(process.service.clock.now()))
    backend.meanwhile = lambda name: done.set() if not backend.values.items else None
    process.users.clear()
    try:
        assert done.wait(20)
    finally:
        process.service.close()
    assert all(later - first > 0.7 for first, later in itertools.pairwise(ticked))
