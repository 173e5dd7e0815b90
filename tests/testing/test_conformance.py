"""The contract passes for the in-memory backend, plain and with coroutines, and fails for backends that break it."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from cachekit.backends.base import OPTIONAL, AsyncBaseBackend, BaseBackend, Leased
from cachekit.backends.memory import MemoryBackend, as_coroutines
from cachekit.testing import BackendContract, FrozenClock
from cachekit.testing.conformance import Subject


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
