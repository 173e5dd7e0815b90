"""An entry under an older key is stored again under the present one when it is read, and nothing else of it changes."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit import MISS, current_entry, tenant
from cachekit.codec.envelope import Header, unpack
from cachekit.codec.keyring import Keyring
from cachekit.config.spec import FreshnessSpec
from cachekit.engine.ports import drive
from cachekit.l2 import operation
from cachekit.l2.operation import Found
from cachekit.service import Service
from cachekit.testing.servers import Server, start_server

MakeHolder = Callable[..., Service]
A, B = "aa" * 32, "bb" * 32

pytestmark = pytest.mark.parametrize("face", ["sync", "async"])


def wait(result: Any) -> Any:
    async def awaited() -> Any:
        return await result

    return asyncio.run(awaited()) if inspect.isawaitable(result) else result


def cached(service: Service, face: str, body: Callable[[], Any], **options: Any) -> Any:
    def plain(x: int) -> Any:
        return body()

    async def coroutine(x: int) -> Any:
        return body()

    return service.region("users").cached(plain if face == "sync" else coroutine, version=1, **options)


def key_id(key: str, protection: str) -> bytes:
    from cachekit.config.spec import KeySpec

    return Keyring(KeySpec(master_key=key), "").present("seal" if protection == "encrypt" else "sign").id


def header_of(service: Service, server: Server, key: str) -> Header | None:
    locks = service.tiers("users").locks
    data = server.command("GET", key)
    assert locks is not None
    return None if data is None else unpack(data, key, locks.of(""))[0]


def test_all_but_the_key_is_kept(make_holder: MakeHolder, cachekit_server: Server, protection: str, face: str) -> None:
    def body() -> list[int]:
        entry = current_entry()
        entry.etag, entry.last_modified = '"v1"', "yesterday"
        entry.tags.add("late")
        old.clock.advance(0.25)  # type: ignore[attr-defined]
        return [1, 2]

    fields = {"ttl": 60.0, "freshness": FreshnessSpec(stale_ttl=30.0, early_refresh="off")}
    old, new = make_holder(A, **fields), make_holder(B, A, **fields)
    f, g = (cached(service, face, body, tags=["early"]) for service in (old, new))
    assert wait(f(1)) == [1, 2]
    key = str(f.key(1))
    assert g.key(1) == key, "with a key for names of its own they stay"
    before, lives = header_of(new, cachekit_server, key), cachekit_server.command("PTTL", key)
    assert before is not None and before.key_id == key_id(A, protection) and before.load_ms == 250
    assert wait(g(1)) == [1, 2]
    after = header_of(new, cachekit_server, key)
    assert after == before._replace(key_id=key_id(B, protection))
    assert before.etag and before.tags and before.hard - before.soft == 30_000
    # Our clock stands still, the server's does not.
    assert abs(cachekit_server.command("PTTL", key) - lives) < 2_000
    assert g.cache_info().l2_hits == 1
    new.region("users").invalidate_tags("late")
    assert wait(g.peek(1)) is MISS


def test_every_way_of_reading_does_it_and_what_must_not_write_does_not(
    make_holder: MakeHolder, cachekit_server: Server, protection: str, face: str
) -> None:
    region = make_holder(A).region("users")
    a = "" if face == "sync" else "a"
    new, off = make_holder(B, A), make_holder(B, A, rewrap=False)
    region.set("k", 1)
    text = next(name.decode() for name in cachekit_server.command("KEYS", f"{region.service.spec.namespace}:v:*"))

    def under() -> str:
        header = header_of(new, cachekit_server, text)
        assert header is not None
        return {key_id(A, protection): "A", key_id(B, protection): "B"}[header.key_id]

    assert wait(getattr(off.region("users"), a + "get")("k")) == 1
    assert under() == "A", "switched off"
    assert wait(getattr(new.region("users").using(read_only=True), a + "get")("k")) == 1
    assert under() == "A", "only reads"
    assert wait(getattr(new.region("users"), a + "get_many")(["k"])) == {"k": 1}
    assert under() == "B", "get_many"
    for method, args in {"get": (), "get_or_set": (int,), "add": (2,), "remaining": (), "touch": ()}.items():
        region.set("k", 1)
        assert under() == "A"
        answer = wait(getattr(make_holder(B, A).region("users"), a + method)("k", *args))
        assert under() == "B", method
        assert answer == {"add": False, "remaining": 300.0, "touch": True}.get(method, 1)


source = {"up": True}


def answer() -> int:
    if not source["up"]:
        raise OSError("the source is down")
    return 1


@pytest.mark.parametrize("l1", ["on", "off"])
def test_a_stale_value_that_stands_in_is_sealed_anew(
    make_holder: MakeHolder,
    cachekit_server: Server,
    protection: str,
    face: str,
    l1: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = {"ttl": 60.0, "freshness": FreshnessSpec(stale_ttl=300.0, early_refresh="off"), "l1": l1}
    old, new = make_holder(A, **fields), make_holder(B, A, **fields)
    f, g = (cached(service, face, answer) for service in (old, new))
    assert wait(f(1)) == 1
    key = str(f.key(1))
    before = header_of(new, cachekit_server, key)
    new.clock.advance(61.0)  # type: ignore[attr-defined]
    monkeypatch.setitem(source, "up", False)
    for _ in range(3):
        assert wait(g(1)) == 1
    assert before is not None
    assert header_of(new, cachekit_server, key) == before._replace(key_id=key_id(B, protection))


def test_a_value_that_somebody_stored_before_the_lease_is_sealed_anew(
    make_holder: MakeHolder, cachekit_server: Server, protection: str, face: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make_holder(A), make_holder(B, A)
    f, g = (cached(service, face, lambda: 1) for service in (old, new))
    assert wait(f(1)) == 1
    read = operation.read

    async def too_early(*_: Any) -> Any:
        monkeypatch.setattr(operation, "read", read)
        return operation.NOTHING

    monkeypatch.setattr(operation, "read", too_early)
    assert wait(g(1)) == 1
    assert g.cache_info().l2_hits == 1
    header = header_of(new, cachekit_server, str(f.key(1)))
    assert header is not None
    assert header.key_id == key_id(B, protection)


def test_a_newer_value_and_an_invalidation_are_never_undone(
    make_holder: MakeHolder, cachekit_server: Server, face: str
) -> None:
    """They come between the look and the store."""
    old, new = make_holder(A), make_holder(B, A)
    values = iter(range(100))
    f, g = (cached(service, face, lambda: next(values)) for service in (old, new))

    def found() -> tuple[Any, Found]:
        wait(g.using(read_only=True).peek(1))  # the stamps are known from now on
        function = g.__cachekit_function__
        call = function.call(function.at(), (1,), {})
        answer = operation.examine(call, call.tiers.remote, cachekit_server.command("GET", call.key), new.sync_port)
        assert isinstance(answer, Found)
        return call, answer

    def rewrap(call: Any, answer: Found) -> None:
        if face == "sync":
            drive(operation.rewrap(call, call.tiers.remote, answer, new.sync_port))
        else:
            asyncio.run(operation.rewrap(call, call.tiers.remote, answer, new.async_port))

    for happens in (lambda: f.refresh(1), lambda: f.put(7, 1), lambda: f.mark_stale(1), lambda: f.invalidate(1)):
        wait(f.put(0, 1))
        seen = found()
        wait(happens())
        lies = cachekit_server.command("GET", str(f.key(1)))
        new.tiers("users").rewraps.clear()
        rewrap(*seen)
        assert cachekit_server.command("GET", str(f.key(1))) == lies
    wait(f.put(0, 1))
    seen = found()
    lies = cachekit_server.command("GET", str(f.key(1)))
    new.tiers("users").rewraps.clear()
    rewrap(*seen)
    assert cachekit_server.command("GET", str(f.key(1))) != lies, "else nothing was tried"


def test_a_refresh_that_runs_meanwhile_brings_its_value(make_holder: MakeHolder, face: str) -> None:
    """The rewrap of what it is about to replace does not cost it the right to store."""
    old, new = make_holder(A), make_holder(B, A)
    values = iter(["first", "second"])

    def body() -> str:
        value = next(values)
        if value == "second":
            assert new.region("users").get(f.key(1)) == "first"
        return value

    f = cached(old, face, body)
    assert wait(f(1)) == "first"
    assert wait(f.refresh(1)) == "second"
    assert wait(f.peek(1)) == "second"


def test_two_sets_of_processes_with_two_present_keys_do_not_store_in_turn(
    make_holder: MakeHolder, cachekit_server: Server, protection: str, face: str
) -> None:
    """As while a rotation is rolled out: each stores an entry again once in 10 seconds and no more."""
    one, other = make_holder(A, B), make_holder(B, A)
    f, g = (cached(service, face, lambda: 1) for service in (one, other))
    wait(f(1))
    lay = set()
    for _ in range(20):
        for each in (g, f):
            wait(each(1))
            lay.add(cachekit_server.command("GET", str(f.key(1))))
    assert len(lay) == 2
    one.clock.advance(11)  # type: ignore[attr-defined]
    wait(g(1))
    header = header_of(other, cachekit_server, str(f.key(1)))
    assert header is not None and header.key_id == key_id(B, protection), "and the last one has it"


def test_an_entry_whose_key_was_taken_away_is_a_counted_miss(make_holder: MakeHolder, face: str) -> None:
    old, new = make_holder(A), make_holder(B)
    values = iter([1, 2])
    f, g = (cached(service, face, lambda: next(values)) for service in (old, new))
    seen: list[Any] = []
    new.observers.append(seen.append)
    assert wait(f(1)) == 1
    assert wait(g(1)) == 2
    assert [event.reason for event in seen if type(event).__name__ in ("Missed", "Failed")] == ["damaged_key"] * 2
    assert wait(g(1)) == 2


def test_without_a_key_for_names_the_change_of_the_master_key_is_only_misses(
    make_holder: MakeHolder, protection: str, face: str
) -> None:
    old, new = make_holder(A, name_key=None), make_holder(B, A, name_key=None)
    values = iter([1, 2])
    f, g = (cached(service, face, lambda: next(values), tags=["t"]) for service in (old, new))
    seen: list[Any] = []
    new.observers.append(seen.append)
    assert wait(f(1)) == 1
    hidden = protection == "encrypt"
    assert (f.key(1) != g.key(1)) is hidden
    assert wait(g(1)) == (2 if hidden else 1)
    assert {event.reason for event in seen if type(event).__name__ == "Missed"} == ({"absent"} if hidden else set())
    assert not [event for event in seen if type(event).__name__ == "Failed"]
    new.region("users").invalidate_tags("t")
    assert wait(g.peek(1)) is MISS
    assert wait(f.peek(1)) == 1 if hidden else True, "which its own process clears under its own name"
    old.region("users").invalidate_tags("t")
    assert wait(f.peek(1)) is MISS


@pytest.fixture
def full_server() -> Iterator[Server]:
    """A server of one test, which may be filled up."""
    with start_server("valkey") as server:
        yield server


def test_a_server_that_takes_nothing_costs_the_rewrap_and_no_more(
    make_holder: MakeHolder, full_server: Server, protection: str, face: str
) -> None:
    old, new = make_holder(A, url=full_server.url), make_holder(B, A, url=full_server.url)
    f, g = (cached(service, face, lambda: "value") for service in (old, new))
    wait(f(1))
    full_server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    full_server.command("CONFIG", "SET", "maxmemory", "1")
    assert wait(g(1)) == "value"
    assert g.cache_info()[:2] == (1, 0)
    assert g.cache_info().errors == 0
    full_server.command("CONFIG", "SET", "maxmemory", "0")
    new.clock.advance(11)  # type: ignore[attr-defined]
    assert wait(g(1)) == "value"
    header = header_of(new, full_server, str(g.key(1)))
    assert header is not None and header.key_id == key_id(B, protection)


def test_entries_of_tenants_are_rewrapped_with_their_own_keys(
    make_holder: MakeHolder, cachekit_server: Server, face: str
) -> None:
    old, new = make_holder(A), make_holder(B, A)
    values = iter(["of a", "of b"])
    f, g, h = (cached(service, face, lambda: next(values)) for service in (old, new, make_holder(B)))
    for who in ("a", "b"):
        with tenant(who):
            wait(f(1))
    for who in ("a", "b"):
        with tenant(who):
            assert wait(g(1)) == wait(h(1)) == f"of {who}"
