"""The contract passes for the in-memory backend, plain and with coroutines, and fails for backends that break it."""

import inspect
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cachekit.backends.base import OPTIONAL, AsyncBaseBackend, BaseBackend, Leased
from cachekit.backends.memory import MemoryBackend, as_coroutines
from cachekit.backends.redis import open_redis
from cachekit.config.spec import BackendSpec
from cachekit.errors import BackendError, Fault
from cachekit.testing import BackendContract, FaultProxy, FrozenClock, Server, start_server
from cachekit.testing.conformance import Hearing, Subject


class InMemory(BackendContract):
    offers = OPTIONAL

    def make_memory(self, kind: type[MemoryBackend] = MemoryBackend) -> MemoryBackend:
        self.clock = FrozenClock()
        return kind(self.clock)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)


class TestPlain(InMemory):
    def make_backend(self) -> BaseBackend:
        return self.make_memory()


class TestCoroutines(InMemory):
    def make_backend(self) -> AsyncBaseBackend:
        return as_coroutines(self.make_memory())


class OnlyRequired(MemoryBackend):
    capabilities = frozenset()


class TestRequiredOperationsAreEnough(InMemory):
    offers = frozenset()

    def make_backend(self) -> BaseBackend:
        return self.make_memory(OnlyRequired)


# Backends with one mistake each.


class Text(MemoryBackend):
    def get(self, key: str, *, budget: float) -> Any:
        data = super().get(key, budget=budget)
        return bytearray(data) if data is not None else None


class EmptyIsAbsent(MemoryBackend):
    def get(self, key: str, *, budget: float) -> bytes | None:
        return super().get(key, budget=budget) or None


class Eternal(MemoryBackend):
    def store(self, key: str, data: bytes, ttl_ms: int | None, token: bytes | None, *, budget: float) -> bool:
        return super().store(key, data, None, token, budget=budget)


class ShortKeys(MemoryBackend):
    def get(self, key: str, *, budget: float) -> bytes | None:
        return super().get(key[:250], budget=budget)

    def store(self, key: str, data: bytes, ttl_ms: int | None, token: bytes | None, *, budget: float) -> bool:
        return super().store(key[:250], data, ttl_ms, token, budget=budget)


class Unfenced(MemoryBackend):
    def store(self, key: str, data: bytes, ttl_ms: int | None, token: bytes | None, *, budget: float) -> bool:
        return super().store(key, data, ttl_ms, None, budget=budget)


class LeasesSurvive(MemoryBackend):
    def invalidate(self, keys: Sequence[str], *, budget: float) -> None:
        for key in keys:
            self.values.items.pop(key, None)


class OnlyTheFirst(MemoryBackend):
    def invalidate(self, keys: Sequence[str], *, budget: float) -> None:
        super().invalidate(keys[:1], budget=budget)


class NotRepeatable(MemoryBackend):
    def get_or_lease(self, key: str, token: bytes, lease_ms: int, *, budget: float) -> Leased:
        if self.leases.get(key) == token:
            return Leased("busy", None, lease_ms)
        return super().get_or_lease(key, token, lease_ms, budget=budget)


class Generous(MemoryBackend):
    def get_or_lease(self, key: str, token: bytes, lease_ms: int, *, budget: float) -> Leased:
        return Leased("held")


class ReleasesAll(MemoryBackend):
    def release(self, key: str, token: bytes, *, budget: float) -> None:
        self.leases.items.pop(key, None)


class IgnoresSeen(MemoryBackend):
    def lease(self, key: str, token: bytes, lease_ms: int, seen: bytes | None, steal: bool, *, budget: float) -> Leased:
        return super().lease(key, token, lease_ms, None, steal, budget=budget)


class AlwaysFresh(MemoryBackend):
    def stamps(self, names: Sequence[str], fresh: Sequence[bytes], ttl_ms: int, *, budget: float) -> list[bytes]:
        return list(fresh)


class Forgetful(MemoryBackend):
    def close(self) -> None:
        self.values.items.clear()


class Leaks(MemoryBackend):
    def incr(self, key: str, by: int, ttl_ms: int | None, *, budget: float) -> int:
        return int(self.get(key, budget=budget) or b"0") + by


class Unbounded(MemoryBackend):
    def get(self, key: str, *, budget: float) -> bytes | None:
        return super().get(key, budget=1.0)


class Claims(MemoryBackend):
    capabilities = OPTIONAL | {"telepathy"}


class Mixed(MemoryBackend):
    async def check(self, *, budget: float) -> dict[str, str]:  # type: ignore[override]
        return {}


class OnePage(MemoryBackend):
    def scan(self, prefix: str, cursor: str, count: int, *, budget: float) -> tuple[str, list[tuple[str, bytes]]]:
        return "", super().scan(prefix, cursor, count, budget=budget)[1]


class AnyPrefix(MemoryBackend):
    def scan(self, prefix: str, cursor: str, count: int, *, budget: float) -> tuple[str, list[tuple[str, bytes]]]:
        return super().scan("", cursor, count, budget=budget)


class Whole(MemoryBackend):
    def scan(self, prefix: str, cursor: str, count: int, *, budget: float) -> tuple[str, list[tuple[str, bytes]]]:
        cursor, page = super().scan(prefix, cursor, count, budget=budget)
        return cursor, [(key, self.values.items[key][0]) for key, _ in page]


class ReclaimsAll(MemoryBackend):
    def reclaim(self, key: str, seen: bytes, *, budget: float) -> bool:
        return super().reclaim(key, b"", budget=budget)


class ReclaimsLeases(MemoryBackend):
    def reclaim(self, key: str, seen: bytes, *, budget: float) -> bool:
        self.leases.items.pop(key, None)
        return super().reclaim(key, seen, budget=budget)


class Deletes(MemoryBackend):
    def expire_soft(self, keys: Sequence[str], *, budget: float) -> None:
        self.invalidate(keys, budget=budget)


class MarksForEver(MemoryBackend):
    def expire_soft(self, keys: Sequence[str], *, budget: float) -> None:
        super().expire_soft(keys, budget=budget)
        for key in keys:
            if (there := self.values.get(key)) is not None:
                self.values.put(key, there, None)


class MarksTheFirst(MemoryBackend):
    def expire_soft(self, keys: Sequence[str], *, budget: float) -> None:
        super().expire_soft(keys[:1], budget=budget)


class MarksBesideLeases(MemoryBackend):
    def expire_soft(self, keys: Sequence[str], *, budget: float) -> None:
        for key in keys:
            self._outdate(key)


class MarksAll(MemoryBackend):
    """As a server does that is told nothing but SETRANGE."""

    def expire_soft(self, keys: Sequence[str], *, budget: float) -> None:
        for key in keys:
            self.leases.items.pop(key, None)
            data = self.values.get(key) or b""
            self.values.put(key, data[:5].ljust(5, b"\0") + b"\1" + data[6:], None)


class HidesStamps(MemoryBackend):
    def get_many(self, keys: Sequence[str], *, budget: float) -> list[bytes | None]:
        return [self.get(key, budget=budget) for key in keys]


class Racing(MemoryBackend):
    def get_or_lease(self, key: str, token: bytes, lease_ms: int, *, budget: float) -> Leased:
        busy = self.leases.get(key) not in (None, token)
        self.gate.wait(0.5)  # everybody has looked before anybody takes
        if busy:
            return Leased("busy", None, lease_ms)
        self.leases.put(key, token, lease_ms)
        return Leased("held")

    gate = threading.Event()


@pytest.mark.parametrize(
    ("kind", "test", "arguments"),
    [
        (Text, "test_bytes_come_back_as_they_were", {"data": b"x"}),
        (EmptyIsAbsent, "test_bytes_come_back_as_they_were", {"data": b""}),
        (Eternal, "test_a_value_ends_with_its_ttl_and_not_before", {}),
        (ShortKeys, "test_any_text_is_a_key", {"identity": "x" * 1000}),
        (Unfenced, "test_a_store_without_the_lease_is_refused", {}),
        (LeasesSurvive, "test_invalidate_fences_a_load_in_flight", {}),
        (OnlyTheFirst, "test_invalidate_removes_these_keys_and_no_other", {}),
        (NotRepeatable, "test_one_token_gets_the_lease_and_may_ask_again", {}),
        (Generous, "test_a_value_is_found_and_no_lease_taken", {}),
        (ReleasesAll, "test_release_frees_the_key_for_the_next", {}),
        (IgnoresSeen, "test_lease_finds_a_value_that_was_replaced_meanwhile", {}),
        (AlwaysFresh, "test_the_first_makes_a_stamp_and_the_others_get_it", {}),
        (Forgetful, "test_close_may_be_repeated_and_a_later_call_opens_again", {}),
        (Leaks, "test_incr_of_something_else_is_the_commands_own_failure", {}),
        (Leaks, "test_no_increment_is_lost", {}),
        (Unbounded, "test_a_budget_that_is_used_up_is_a_backend_error_at_once", {}),
        (Claims, "test_names_only_capabilities_that_exist", {}),
        (Mixed, "test_names_only_capabilities_that_exist", {}),
        (OnePage, "test_scan_finds_every_key_of_a_prefix_and_no_other", {"count": 7}),
        (AnyPrefix, "test_scan_finds_every_key_of_a_prefix_and_no_other", {"count": 7}),
        (Whole, "test_scan_gives_the_first_bytes", {}),
        (ReclaimsAll, "test_reclaim_deletes_only_what_was_seen", {"there": b"new", "seen": b"old", "deleted": False}),
        (ReclaimsLeases, "test_reclaim_leaves_the_lease_alone", {}),
        (Deletes, "test_an_entry_is_marked_and_otherwise_as_it_was", {"payload": b"x"}),
        (MarksForEver, "test_a_marked_value_keeps_its_ttl", {}),
        (MarksTheFirst, "test_these_values_are_marked_and_no_other", {}),
        (MarksBesideLeases, "test_an_absent_value_stays_absent_and_a_load_in_flight_is_fenced", {}),
        (MarksBesideLeases, "test_a_load_beside_a_value_is_fenced_and_the_value_marked", {}),
        (MarksAll, "test_an_absent_value_stays_absent_and_a_load_in_flight_is_fenced", {}),
        (MarksAll, "test_what_is_no_entry_is_deleted", {"data": b"12"}),
        (MarksAll, "test_a_number_begins_anew", {}),
        (HidesStamps, "test_stamps_can_be_read_without_making_them", {}),
        (Racing, "test_of_many_at_once_one_gets_the_lease", {}),
    ],
)
def test_the_contract_notices(kind: type[MemoryBackend], test: str, arguments: dict[str, Any]) -> None:
    contract = InMemory()
    subject = Subject(contract.make_memory(kind), contract.budget)
    try:
        with pytest.raises((AssertionError, ValueError, AttributeError, pytest.fail.Exception)):
            getattr(contract, test)(subject, **arguments)
    finally:
        subject.end()


# Backends that talk to a server as one would at first, with the mistakes that the broken connection shows.


class Naive(BaseBackend):
    """Turns the driver's errors into ours and gives each call its budget, but knows nothing of late writes."""

    retries = 1

    def __init__(self, port: int) -> None:
        self.port = port
        self.clients: list[redis.Redis] = []

    def client(self, budget: float) -> redis.Redis:
        if not self.clients:
            retry = Retry(NoBackoff(), self.retries, supported_errors=(redis.ConnectionError,))
            single = not self.retries  # a pool looks at a connection before it hands it out
            self.clients.append(
                redis.Redis(port=self.port, socket_timeout=budget, retry=retry, single_connection_client=single)
            )
        return self.clients[0]

    def get(self, key: str, *, budget: float) -> Any:
        try:
            return self.client(budget).get(key)
        except redis.RedisError as error:
            raise BackendError(Fault.DOWN, "connection") from error

    def store(self, key: str, data: bytes, ttl_ms: int | None, token: bytes | None, *, budget: float) -> bool:
        try:
            return bool(self.client(budget).set(key, data, px=ttl_ms))
        except redis.RedisError as error:
            raise BackendError(Fault.DOWN, "connection") from error

    def close(self) -> None:
        while self.clients:
            self.clients.pop().close()


class DriverErrors(Naive):
    def get(self, key: str, *, budget: float) -> Any:
        return self.client(budget).get(key)


class NoRetry(Naive):
    retries = 0


class OwnTimeout(Naive):
    def client(self, budget: float) -> redis.Redis:
        return super().client(1.0)


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    with start_server() as server:
        yield server


@pytest.mark.parametrize(
    ("kind", "test", "arguments"),
    [
        (Naive, "test_a_write_that_arrives_after_its_budget_has_no_effect", {"operation": "store"}),
        (NoRetry, "test_an_idle_connection_that_was_reset_costs_no_failure", {}),
        (DriverErrors, "test_a_fault_is_a_backend_error_within_the_budget_and_passes", {"fault": "refuse"}),
        (DriverErrors, "test_a_fault_is_a_backend_error_within_the_budget_and_passes", {"fault": "garbage"}),
        (OwnTimeout, "test_a_fault_is_a_backend_error_within_the_budget_and_passes", {"fault": "black_hole"}),
        (OwnTimeout, "test_a_fault_is_a_backend_error_within_the_budget_and_passes", {"fault": "hang"}),
        (Naive, "test_a_fault_is_a_backend_error_within_the_budget_and_passes", {"fault": "drip"}),
    ],
)
def test_the_contract_notices_over_a_broken_connection(
    valkey: Server, kind: type[Naive], test: str, arguments: dict[str, Any]
) -> None:
    contract = BackendContract()
    contract.fault_budget, contract.slack = 0.2, 0.5  # type: ignore[misc]
    with FaultProxy("127.0.0.1", valkey.port) as proxy:
        remote = Subject(kind(proxy.port), contract.fault_budget)
        try:
            with pytest.raises((AssertionError, pytest.fail.Exception, BackendError, redis.RedisError)):
                getattr(contract, test)(remote, proxy, **({"warm": False} if "fault" in arguments else {}), **arguments)
        finally:
            proxy.pass_()
            remote.end()


# Listeners with a mistake each, before a real one.


class Misheard:
    def __init__(self, right: Any) -> None:
        self.right = right

    def __getattr__(self, name: str) -> Any:
        return getattr(self.right, name)


class Silent(Misheard):
    def receive(self, seconds: float) -> Sequence[str | None]:
        self.right.receive(seconds)
        return []


class Backwards(Misheard):
    def receive(self, seconds: float) -> Sequence[str | None]:
        return list(self.right.receive(seconds))[::-1]


class Overconfident(Misheard):
    @property
    def proof(self) -> float:
        return time.monotonic() + 1.0


class Unchanged(Misheard):
    def track(self, prefixes: Sequence[str], *, budget: float) -> None:
        """Nothing more."""


class Immortal(Misheard):
    def receive(self, seconds: float) -> Sequence[str | None]:
        try:
            return list(self.right.receive(seconds))
        except BackendError:
            return []


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (Silent, "test_every_change_is_heard_whoever_makes_it"),
        (Silent, "test_what_is_marked_is_heard"),
        (Silent, "test_invalidating_what_is_absent_is_heard_too"),
        (Silent, "test_a_lease_given_back_without_a_value_is_heard"),
        (Silent, "test_a_value_that_ends_with_its_ttl_is_heard"),
        (Backwards, "test_changes_are_heard_in_their_order"),
        (Overconfident, "test_what_is_proven_was_heard_before"),
        (Unchanged, "test_only_asked_prefixes_are_heard_and_more_may_be_asked_for"),
        (Immortal, "test_after_its_end_a_subscription_says_so"),
    ],
)
def test_the_contract_notices_who_mishears(valkey: Server, kind: type[Misheard], test: str) -> None:
    contract, prefix = BackendContract(), f"contract:v:{{{uuid.uuid4().hex}:"
    subject, other = (Subject(open_redis(BackendSpec(url=valkey.url)).sync, 2.0) for _ in "12")  # type: ignore[arg-type]
    hearing = Hearing(kind(contract.listen(subject, [prefix])))
    fixtures = {"other": other, "hearing": hearing, "prefix": prefix, "who": "other"}
    wanted = inspect.signature(getattr(BackendContract, test)).parameters
    try:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            getattr(contract, test)(subject, **{name: value for name, value in fixtures.items() if name in wanted})
    finally:
        hearing.listener.close()
        subject.end()
        other.end()
