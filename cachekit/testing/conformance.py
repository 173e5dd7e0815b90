"""The test suite of the backend protocol. Whoever writes a backend inherits it and says how to make one."""

import asyncio
import functools
import inspect
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, TypeVar

import pytest

from cachekit.backends.base import (
    COMMANDS,
    HEAD_BYTES,
    LISTEN,
    OPTIONAL,
    TOKEN_BYTES,
    AsyncBaseBackend,
    BaseBackend,
    Listener,
)
from cachekit.codec.envelope import MAGIC, NEVER, Header, pack, unpack
from cachekit.errors import BackendError, Fault
from cachekit.testing.faults import FaultProxy

Test = TypeVar("Test", bound=Callable[..., None])

MINUTE_MS = 60_000


def needs(*operations: str) -> Callable[[Test], Test]:
    """A test of optional operations: it has nothing to say about a backend that does not name them."""

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def run(self: Any, subject: "Subject", **fixtures: Any) -> None:
            if subject.backend.capabilities.issuperset(operations):
                test(self, subject, **fixtures)

        return run  # type: ignore[return-value]

    return decorate


class Subject:
    """The backend under test, called the same way whether its methods are plain or coroutines."""

    def __init__(self, backend: BaseBackend | AsyncBaseBackend, budget: float) -> None:
        self.backend = backend
        self.budget = budget
        self.is_async = inspect.iscoroutinefunction(backend.get)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        method = getattr(self.backend, operation)
        return lambda *args, **options: self.call(method, *args, **({"budget": self.budget} | options))

    def call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if not self.is_async:
            return method(*args, **options)

        async def wait() -> Any:
            return await method(*args, **options)

        return asyncio.run_coroutine_threadsafe(wait(), self.loop).result(30.0)

    def close(self) -> None:
        self.call(self.backend.close)

    def end(self) -> None:
        self.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def some_key(identity: str = "") -> str:
    """A key that no other test uses."""
    return f"contract:v:{{region:{uuid.uuid4().hex}{identity}}}"


def some_token() -> bytes:
    return os.urandom(TOKEN_BYTES)


def some_entry(key: str, payload: bytes = b"payload") -> bytes:
    """What cachekit stores for this key."""
    return pack(Header(1, os.urandom(16), 1, NEVER, NEVER, etag="etag"), payload, key)


class Setup:
    """What an author fills in; everything but `make_backend` may stay as it is."""

    budget: ClassVar[float] = 2.0  # seconds for each operation
    shortest_ttl_ms: ClassVar[int] = 200  # raise it for a store that counts in seconds
    offers: ClassVar[frozenset[str] | None] = None  # the capabilities it must name, so that none is lost by mistake

    def make_backend(self) -> BaseBackend | AsyncBaseBackend:
        """A backend ready for use. (Or override the fixture `backend`.)"""
        raise NotImplementedError("say how to make the backend: def make_backend(self): ...")

    def server_address(self) -> tuple[str, int] | None:
        """Where the store listens; None (no network) leaves out the tests that break the connection."""
        return None

    def make_backend_behind(self, host: str, port: int) -> BaseBackend | AsyncBaseBackend:
        """The same backend, connected to this address. Needed only with `server_address`."""
        raise NotImplementedError("say how to make a backend for an address: def make_backend_behind(...)")

    def wait(self, seconds: float) -> None:
        """Let time pass; a store with a clock of its own moves that instead."""
        time.sleep(seconds)

    @pytest.fixture
    def backend(self) -> BaseBackend | AsyncBaseBackend:
        return self.make_backend()

    @pytest.fixture
    def subject(self, backend: BaseBackend | AsyncBaseBackend) -> Iterator[Subject]:
        subject = Subject(backend, self.budget)
        yield subject
        subject.end()

    def outlive(self, ttl_ms: int) -> None:
        """Wait until something with this life is gone for certain."""
        self.wait(ttl_ms / 1000 * 1.5 + 0.1)


class ValueTests(Setup):
    """get, store, invalidate: required."""

    def test_names_only_capabilities_that_exist(self, subject: Subject) -> None:
        assert subject.backend.capabilities <= OPTIONAL | COMMANDS | (frozenset() if subject.is_async else {LISTEN})
        for operation in subject.backend.capabilities:
            assert inspect.iscoroutinefunction(getattr(subject.backend, operation)) is subject.is_async
        if self.offers is not None:
            assert subject.backend.capabilities == self.offers

    def test_a_key_that_was_never_stored_is_none(self, subject: Subject) -> None:
        assert subject.get(some_key()) is None

    @pytest.mark.parametrize(
        "data",
        [b"", b"\0", b"\r\n", b"$5\r\nhello\r\n", bytes(range(256)), b"12", b"\xff" * 5000, os.urandom(2**20)],
        ids=["empty", "nul", "newline", "protocol", "every byte", "digits", "medium", "one MiB"],
    )
    def test_bytes_come_back_as_they_were(self, subject: Subject, data: bytes) -> None:
        key, data = some_key(), data[: subject.backend.largest]
        assert subject.store(key, data, None, None) is True
        back = subject.get(key)
        assert type(back) is bytes
        assert back == data

    def test_the_largest_value_that_it_takes_comes_back(self, subject: Subject) -> None:
        key, largest = some_key(), subject.backend.largest
        if largest is not None:
            data = os.urandom(largest)
            subject.store(key, data, None, None)
            assert subject.get(key) == data

    @pytest.mark.parametrize("identity", [" two words", "\r\n", "Straße 東京 \U0001f511", "%s{}:*", "x" * 1000])
    def test_any_text_is_a_key(self, subject: Subject, identity: str) -> None:
        key = some_key(identity)
        subject.store(key, b"value", None, None)
        assert subject.get(key) == b"value"
        assert subject.get(key[:-2] + "}") is None
        subject.invalidate([key])
        assert subject.get(key) is None

    def test_keys_differ_in_case_and_in_length(self, subject: Subject) -> None:
        base = some_key("abc")[:-1]
        keys = [base + "}", base + "d}", base.replace("abc", "ABC") + "}", base + " }"]
        for number, key in enumerate(keys):
            subject.store(key, b"%d" % number, None, None)
        assert [subject.get(key) for key in keys] == [b"0", b"1", b"2", b"3"]

    def test_a_second_store_replaces_the_first(self, subject: Subject) -> None:
        key = some_key()
        subject.store(key, b"a long first value", None, None)
        assert subject.store(key, b"second", None, None) is True
        assert subject.get(key) == b"second"

    def test_a_value_ends_with_its_ttl_and_not_before(self, subject: Subject) -> None:
        short, long, for_ever = some_key(), some_key(), some_key()
        subject.store(short, b"short", self.shortest_ttl_ms, None)
        subject.store(long, b"long", MINUTE_MS, None)
        subject.store(for_ever, b"for ever", None, None)
        self.outlive(self.shortest_ttl_ms)
        assert [subject.get(key) for key in (short, long, for_ever)] == [None, b"long", b"for ever"]

    def test_a_second_store_replaces_the_ttl(self, subject: Subject) -> None:
        longer, shorter = some_key(), some_key()
        subject.store(longer, b"first", self.shortest_ttl_ms, None)
        subject.store(longer, b"second", None, None)
        subject.store(shorter, b"first", None, None)
        subject.store(shorter, b"second", self.shortest_ttl_ms, None)
        self.outlive(self.shortest_ttl_ms)
        assert subject.get(longer) == b"second"
        assert subject.get(shorter) is None

    def test_a_ttl_of_years_is_stored(self, subject: Subject) -> None:
        key = some_key()
        subject.store(key, b"value", 10 * 365 * 86_400_000, None)
        assert subject.get(key) == b"value"

    def test_invalidate_removes_these_keys_and_no_other(self, subject: Subject) -> None:
        gone, also_gone, stays, absent = some_key(), some_key(), some_key(), some_key()
        for key in (gone, also_gone, stays):
            subject.store(key, b"value", None, None)
        assert subject.invalidate([gone, absent, also_gone, gone]) is None
        assert [subject.get(key) for key in (gone, also_gone, stays, absent)] == [None, None, b"value", None]

    def test_invalidate_may_be_repeated_and_may_be_empty(self, subject: Subject) -> None:
        key = some_key()
        subject.store(key, b"value", None, None)
        subject.invalidate([])
        assert subject.get(key) == b"value"
        subject.invalidate([key])
        subject.invalidate([key])
        assert subject.get(key) is None

    @needs("get_many")
    def test_get_many_answers_in_the_order_of_the_question(self, subject: Subject) -> None:
        first, second, absent = some_key(), some_key(), some_key()
        subject.store(first, b"1", None, None)
        subject.store(second, b"", None, None)
        assert list(subject.get_many([second, absent, first, second])) == [b"", None, b"1", b""]
        assert list(subject.get_many([])) == []

    @needs("store_if")
    @pytest.mark.parametrize(
        ("there", "seen", "absent", "stored"),
        [
            (None, None, True, True),
            (None, None, False, False),
            (None, b"ab", False, False),
            (None, b"ab", True, True),
            (b"abc", None, True, False),
            (b"abc", b"ab", True, True),
            (b"abc", b"abc", False, True),
            (b"abc", b"abcd", False, False),
            (b"abc", b"b", True, False),
        ],
    )
    def test_store_if_stores_only_on_its_condition(
        self, subject: Subject, there: bytes | None, seen: bytes | None, absent: bool, stored: bool
    ) -> None:
        key = some_key()
        if there is not None:
            subject.store(key, there, None, None)
        assert subject.store_if(key, b"new", None, seen, absent) is stored
        assert subject.get(key) == (b"new" if stored else there)

    @needs("store_if")
    def test_store_if_keeps_its_ttl(self, subject: Subject) -> None:
        key = some_key()
        assert subject.store_if(key, b"new", self.shortest_ttl_ms, None, True) is True
        self.outlive(self.shortest_ttl_ms)
        assert subject.get(key) is None


class LeaseTests(Setup):
    """The right to compute, and the token that fences the store that follows."""

    @needs("get_or_lease")
    def test_one_token_gets_the_lease_and_may_ask_again(self, subject: Subject) -> None:
        key, mine, other = some_key(), some_token(), some_token()
        assert subject.get_or_lease(key, mine, MINUTE_MS).kind == "held"
        assert subject.get_or_lease(key, mine, MINUTE_MS).kind == "held"
        busy = subject.get_or_lease(key, other, MINUTE_MS)
        assert busy.kind == "busy"
        assert busy.ttl_ms is None or 0 < busy.ttl_ms <= MINUTE_MS

    @needs("get_or_lease")
    def test_a_value_is_found_and_no_lease_taken(self, subject: Subject) -> None:
        key, token = some_key(), some_token()
        subject.store(key, b"\0value", MINUTE_MS, None)
        found = subject.get_or_lease(key, token, MINUTE_MS)
        assert (found.kind, found.data) == ("found", b"\0value")
        assert type(found.data) is bytes
        assert found.ttl_ms is None or 0 < found.ttl_ms <= MINUTE_MS
        assert subject.store(key, b"fenced", None, token) is False
        assert subject.get(key) == b"\0value"

    @needs("get_or_lease")
    def test_an_empty_value_is_a_value(self, subject: Subject) -> None:
        key = some_key()
        subject.store(key, b"", None, None)
        found = subject.get_or_lease(key, some_token(), MINUTE_MS)
        assert (found.kind, found.data) == ("found", b"")

    @needs("get_or_lease")
    def test_a_store_with_the_token_is_taken_once_and_ends_the_lease(self, subject: Subject) -> None:
        key, token = some_key(), some_token()
        subject.get_or_lease(key, token, MINUTE_MS)
        assert subject.store(key, b"first", None, token) is True
        assert subject.get(key) == b"first"
        assert subject.store(key, b"second", None, token) is False
        assert subject.get(key) == b"first"

    @needs("get_or_lease")
    def test_a_store_with_a_token_keeps_its_ttl(self, subject: Subject) -> None:
        key, token = some_key(), some_token()
        subject.get_or_lease(key, token, MINUTE_MS)
        assert subject.store(key, b"value", self.shortest_ttl_ms, token) is True
        self.outlive(self.shortest_ttl_ms)
        assert subject.get(key) is None

    @needs("get_or_lease")
    def test_a_store_without_the_lease_is_refused(self, subject: Subject) -> None:
        key, holder, stranger = some_key(), some_token(), some_token()
        assert subject.store(key, b"no lease at all", None, stranger) is False
        subject.get_or_lease(key, holder, MINUTE_MS)
        assert subject.store(key, b"the lease of another", None, stranger) is False
        assert subject.get(key) is None
        assert subject.store(key, b"mine", None, holder) is True

    @needs("get_or_lease")
    def test_invalidate_fences_a_load_in_flight(self, subject: Subject) -> None:
        key, token = some_key(), some_token()
        subject.get_or_lease(key, token, MINUTE_MS)
        subject.invalidate([key])
        assert subject.store(key, b"read before the invalidation", None, token) is False
        assert subject.get(key) is None

    @needs("get_or_lease")
    def test_a_store_without_token_fences_a_load_in_flight(self, subject: Subject) -> None:
        key, token = some_key(), some_token()
        subject.get_or_lease(key, token, MINUTE_MS)
        assert subject.store(key, b"set by hand", None, None) is True
        assert subject.store(key, b"loaded", None, token) is False
        assert subject.get(key) == b"set by hand"

    @needs("get_or_lease", "store_if")
    def test_store_if_fences_a_load_in_flight_only_when_it_stores(self, subject: Subject) -> None:
        for absent in (True, False):
            key, token = some_key(), some_token()
            subject.get_or_lease(key, token, MINUTE_MS)
            assert subject.store_if(key, b"set by hand", None, None, absent) is absent
            assert subject.store(key, b"loaded", None, token) is not absent

    @needs("lease", "store_if")
    def test_store_if_of_the_same_value_leaves_a_load_in_flight_its_right(self, subject: Subject) -> None:
        """A new time to live, or another key, must not cost a refresh that has begun its value."""
        key, token = some_key(), some_token()
        subject.store(key, b"old", None, None)
        assert subject.lease(key, token, MINUTE_MS, b"old", False).kind == "held"
        assert subject.store_if(key, b"old again", None, b"old", False) is True
        assert subject.store(key, b"loaded", None, token) is True

    @needs("get_or_lease")
    def test_a_lease_ends_by_itself_and_its_store_is_refused(self, subject: Subject) -> None:
        key, slow, next_one = some_key(), some_token(), some_token()
        subject.get_or_lease(key, slow, self.shortest_ttl_ms)
        self.outlive(self.shortest_ttl_ms)
        assert subject.get_or_lease(key, next_one, MINUTE_MS).kind == "held"
        assert subject.store(key, b"too late", None, slow) is False
        assert subject.store(key, b"in time", None, next_one) is True
        assert subject.get(key) == b"in time"

    @needs("get_or_lease")
    def test_leases_of_two_keys_are_two(self, subject: Subject) -> None:
        first, second, token = some_key(), some_key(), some_token()
        assert subject.get_or_lease(first, token, MINUTE_MS).kind == "held"
        assert subject.get_or_lease(second, some_token(), MINUTE_MS).kind == "held"
        assert subject.store(second, b"value", None, token) is False

    @needs("get_or_lease", "release")
    def test_release_frees_the_key_for_the_next(self, subject: Subject) -> None:
        key, holder, waiter = some_key(), some_token(), some_token()
        subject.get_or_lease(key, holder, MINUTE_MS)
        assert subject.release(key, waiter) is None
        assert subject.get_or_lease(key, waiter, MINUTE_MS).kind == "busy"
        subject.release(key, holder)
        assert subject.get_or_lease(key, waiter, MINUTE_MS).kind == "held"
        assert subject.store(key, b"released", None, holder) is False

    @needs("release")
    def test_release_leaves_the_value_alone(self, subject: Subject) -> None:
        key = some_key()
        subject.store(key, b"value", None, None)
        subject.release(key, some_token())
        assert subject.get(key) == b"value"

    @needs("get_or_lease", "renew")
    def test_renew_holds_a_lease_longer(self, subject: Subject) -> None:
        key, token = some_key(), some_token()
        subject.get_or_lease(key, token, self.shortest_ttl_ms)
        assert subject.renew(key, token, MINUTE_MS) is True
        self.outlive(self.shortest_ttl_ms)
        assert subject.get_or_lease(key, some_token(), MINUTE_MS).kind == "busy"
        assert subject.store(key, b"value", None, token) is True

    @needs("get_or_lease", "renew")
    def test_only_the_holder_renews(self, subject: Subject) -> None:
        key, token = some_key(), some_token()
        assert subject.renew(key, token, MINUTE_MS) is False
        subject.get_or_lease(key, token, MINUTE_MS)
        assert subject.renew(key, some_token(), MINUTE_MS) is False
        subject.invalidate([key])
        assert subject.renew(key, token, MINUTE_MS) is False
        assert subject.get_or_lease(key, some_token(), MINUTE_MS).kind == "held"

    @needs("lease")
    def test_lease_is_given_although_an_outdated_value_lies_there(self, subject: Subject) -> None:
        for seen in (b"outdated", b"outdated value", None):
            key, token = some_key(), some_token()
            subject.store(key, b"outdated value", None, None)
            assert subject.lease(key, token, MINUTE_MS, seen, False).kind == "held"
            assert subject.get(key) == b"outdated value"
            assert subject.lease(key, some_token(), MINUTE_MS, seen, False).kind == "busy"
            assert subject.store(key, b"new", None, token) is True
            assert subject.get(key) == b"new"

    @needs("lease")
    def test_lease_finds_a_value_that_was_replaced_meanwhile(self, subject: Subject) -> None:
        key, token = some_key(), some_token()
        subject.store(key, b"new", MINUTE_MS, None)
        for steal in (False, True):
            found = subject.lease(key, token, MINUTE_MS, b"old", steal)
            assert (found.kind, found.data) == ("found", b"new")
            assert found.ttl_ms is None or 0 < found.ttl_ms <= MINUTE_MS
        assert subject.store(key, b"no lease", None, token) is False

    @needs("lease")
    def test_lease_is_given_for_an_absent_key(self, subject: Subject) -> None:
        for seen in (None, b"gone meanwhile"):
            key, token = some_key(), some_token()
            assert subject.lease(key, token, MINUTE_MS, seen, False).kind == "held"
            assert subject.store(key, b"value", None, token) is True

    @needs("lease")
    def test_a_stolen_lease_fences_its_former_holder(self, subject: Subject) -> None:
        key, former, thief = some_key(), some_token(), some_token()
        subject.lease(key, former, MINUTE_MS, None, False)
        assert subject.lease(key, thief, MINUTE_MS, None, True).kind == "held"
        assert subject.store(key, b"former", None, former) is False
        assert subject.store(key, b"thief", None, thief) is True

    @needs("get_or_lease")
    def test_of_many_at_once_one_gets_the_lease(self, subject: Subject) -> None:
        key, tokens = some_key(), [some_token() for _ in range(16)]
        with ThreadPoolExecutor(16) as pool:
            kinds = list(pool.map(lambda token: subject.get_or_lease(key, token, MINUTE_MS).kind, tokens))
        assert sorted(kinds) == ["busy"] * 15 + ["held"]


class StampTests(Setup):
    """Small values that many entries depend on."""

    def names(self, count: int) -> list[str]:
        unique = uuid.uuid4().hex
        return [f"contract:t:{{_}}:{unique}-{number}" for number in range(count)]

    @needs("stamps")
    def test_the_first_makes_a_stamp_and_the_others_get_it(self, subject: Subject) -> None:
        names = self.names(2)
        first, later = [b"\0" * 7 + b"1", b"22222222"], [b"33333333", b"44444444"]
        assert list(subject.stamps(names, first, MINUTE_MS)) == first
        assert list(subject.stamps(names, later, MINUTE_MS)) == first
        assert list(subject.stamps(names[::-1], later, MINUTE_MS)) == first[::-1]

    @needs("stamps")
    def test_some_stamps_may_be_there_and_others_new(self, subject: Subject) -> None:
        old, new = self.names(2)
        subject.stamps([old], [b"oldstamp"], MINUTE_MS)
        assert list(subject.stamps([new, old], [b"newstamp", b"not used"], MINUTE_MS)) == [b"newstamp", b"oldstamp"]

    @needs("stamps", "keep")
    def test_keep_changes_nothing(self, subject: Subject) -> None:
        there, absent = self.names(2)
        subject.stamps([there], [b"first"], MINUTE_MS)
        assert subject.keep([there, absent]) is None
        assert subject.keep([]) is None
        assert list(subject.stamps([there, absent], [b"2nd"] * 2, MINUTE_MS)) == [b"first", b"2nd"]

    @needs("stamps", "get_many", "reclaim")
    def test_stamps_can_be_read_without_making_them(self, subject: Subject) -> None:
        """Else all would seem to be cleared to whoever looks for what is outdated."""
        there, absent = self.names(2)
        key = some_key()
        subject.store(key, b"value", MINUTE_MS, None)
        subject.stamps([there], [b"12345678"], MINUTE_MS)
        for _ in range(2):
            assert list(subject.get_many([absent, there, key])) == [None, b"12345678", b"value"]

    @needs("stamps", "clear")
    def test_clear_makes_way_for_new_stamps_and_touches_no_other(self, subject: Subject) -> None:
        cleared, also_cleared, kept = names = self.names(3)
        subject.stamps(names, [b"old"] * 3, MINUTE_MS)
        assert subject.clear([cleared, also_cleared]) is None
        assert list(subject.stamps(names, [b"new"] * 3, MINUTE_MS)) == [b"new", b"new", b"old"]
        assert list(subject.stamps([kept], [b"new"], MINUTE_MS)) == [b"old"]

    @needs("clear")
    def test_clear_may_be_repeated(self, subject: Subject) -> None:
        names = self.names(2)
        subject.clear(names)
        subject.clear(names)

    @needs("stamps")
    def test_a_stamp_in_use_outlives_its_first_ttl(self, subject: Subject) -> None:
        names = self.names(1)
        subject.stamps(names, [b"first"], self.shortest_ttl_ms)
        subject.stamps(names, [b"second"], MINUTE_MS)
        self.outlive(self.shortest_ttl_ms)
        assert list(subject.stamps(names, [b"third"], MINUTE_MS)) == [b"first"]

    @needs("stamps")
    def test_two_who_make_a_stamp_at_once_agree(self, subject: Subject) -> None:
        names = self.names(1)
        with ThreadPoolExecutor(8) as pool:
            made = pool.map(lambda n: subject.stamps(names, [b"stamp-%02d" % n], MINUTE_MS)[0], range(32))
            assert len(set(made)) == 1


class CounterTests(Setup):
    """incr, touch, remaining."""

    @needs("incr")
    def test_incr_counts_from_nothing_and_both_ways(self, subject: Subject) -> None:
        key = some_key()
        assert [subject.incr(key, by, None) for by in (5, 1, -10, 0)] == [5, 6, -4, -4]
        assert subject.get(key) == b"-4"

    @needs("incr")
    def test_incr_goes_on_from_a_stored_integer(self, subject: Subject) -> None:
        key = some_key()
        subject.store(key, b"41", None, None)
        assert subject.incr(key, 1, None) == 42

    @needs("incr")
    def test_the_life_of_a_counter_begins_with_its_creation(self, subject: Subject) -> None:
        short, long = some_key(), some_key()
        subject.incr(short, 1, self.shortest_ttl_ms)
        subject.incr(short, 1, MINUTE_MS)
        subject.incr(long, 1, MINUTE_MS)
        subject.incr(long, 1, self.shortest_ttl_ms)
        self.outlive(self.shortest_ttl_ms)
        assert subject.get(short) is None
        assert subject.get(long) == b"2"

    @needs("incr")
    def test_incr_leaves_alone_what_is_no_number_with_this_mark(self, subject: Subject) -> None:
        key = some_key()
        for value in (b"not a number", b"", b"1.5", b"41", b"41@other", b"41@mark\0", b"-@mark", b"@mark"):
            subject.store(key, value, None, None)
            assert subject.incr(key, 1, None, b"@mark") is None
            assert subject.get(key) == value

    @needs("incr")
    def test_incr_keeps_the_mark(self, subject: Subject) -> None:
        key, mark = some_key(), b"@\0\xff\r\n%"
        assert [subject.incr(key, by, None, mark) for by in (5, -9)] == [5, -4]
        assert subject.get(key) == b"-4" + mark
        subject.store(key, b"%d%b" % (2**62, mark), None, None)
        assert subject.incr(key, 1, None, mark) == 2**62 + 1

    @needs("incr")
    def test_incr_creates_only_if_it_may(self, subject: Subject) -> None:
        key = some_key()
        assert subject.incr(key, 1, None, b"@", False) is None
        assert subject.get(key) is None
        subject.incr(key, 1, None, b"@")
        assert subject.incr(key, 1, None, b"@", False) == 2

    @needs("incr")
    @pytest.mark.parametrize("there", [True, False])
    def test_a_sum_beyond_64_bits_is_the_commands_own_failure(self, subject: Subject, there: bool) -> None:
        key, value = some_key(), b"%d@" % (2**63 - 1)
        if there:
            subject.store(key, value, None, None)
        with pytest.raises(BackendError) as caught:
            subject.incr(key, 1 if there else 2**63, None, b"@")
        assert caught.value.fault is Fault.COMMAND
        assert subject.get(key) == (value if there else None)

    @needs("incr")
    def test_no_increment_is_lost(self, subject: Subject) -> None:
        key = some_key()
        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(lambda _: subject.incr(key, 1, None), range(200)))
        assert sorted(seen) == list(range(1, 201))

    @needs("touch")
    def test_touch_changes_the_life_and_not_the_value(self, subject: Subject) -> None:
        longer, shorter, for_ever = some_key(), some_key(), some_key()
        subject.store(longer, b"longer", self.shortest_ttl_ms, None)
        subject.store(shorter, b"shorter", MINUTE_MS, None)
        subject.store(for_ever, b"for ever", self.shortest_ttl_ms, None)
        assert subject.touch(longer, MINUTE_MS) is True
        assert subject.touch(shorter, self.shortest_ttl_ms) is True
        assert subject.touch(for_ever, None) is True
        self.outlive(self.shortest_ttl_ms)
        assert [subject.get(key) for key in (longer, shorter, for_ever)] == [b"longer", None, b"for ever"]

    @needs("touch")
    def test_touch_of_an_absent_key_makes_nothing(self, subject: Subject) -> None:
        key = some_key()
        assert subject.touch(key, MINUTE_MS) is False
        assert subject.touch(key, None) is False
        assert subject.get(key) is None

    @needs("remaining")
    def test_remaining_tells_absent_from_for_ever(self, subject: Subject) -> None:
        key, for_ever = some_key(), some_key()
        assert subject.remaining(key) is False
        subject.store(key, b"value", MINUTE_MS, None)
        assert MINUTE_MS / 2 < subject.remaining(key) <= MINUTE_MS
        subject.store(for_ever, b"value", None, None)
        assert subject.remaining(for_ever) is None


class CommandTests(Setup):
    """query, alter: the commands of Redis."""

    @needs("query", "alter")
    def test_a_command_goes_to_where_its_key_is(self, subject: Subject) -> None:
        for key in [some_key() for _ in range(10)]:
            assert subject.query("GET", [key], []) is None
            assert subject.alter("SET", [key], ["some words", "PX", MINUTE_MS]) is not None
            assert subject.query("GETRANGE", [key], [5, -1]) == b"words" == subject.get(key)[5:]
            assert 0 < subject.query("PTTL", [key], []) <= MINUTE_MS

    @needs("query", "alter")
    def test_what_the_server_refuses_says_nothing_about_the_server(self, subject: Subject) -> None:
        key = some_key()
        subject.store(key, b"no number", MINUTE_MS, None)
        for method, command in ((subject.alter, "INCRBY"), (subject.query, "GETRANGE")):
            with pytest.raises(BackendError) as caught:
                method(command, [key], ["x"])
            assert (caught.value.fault, caught.value.reason) == (Fault.COMMAND, "command")


class SpaceTests(Setup):
    """scan, reclaim: looking for what is outdated."""

    def scanned(self, subject: Subject, prefix: str, count: int = 100) -> list[tuple[str, bytes]]:
        found, cursor, pages = [], "", 0
        while True:
            cursor, page = subject.scan(prefix, cursor, count)
            assert all(type(key) is str and type(head) is bytes for key, head in page)
            found += page
            pages += 1
            assert pages < 100_000
            if not cursor:
                return found

    @needs("scan")
    @pytest.mark.parametrize("count", [1, 7, 1000])
    def test_scan_finds_every_key_of_a_prefix_and_no_other(self, subject: Subject, count: int) -> None:
        unique = uuid.uuid4().hex
        prefix = f"contract:v:{{{unique}*?[a-z]\\^:"
        keys = {f"{prefix}{number} é\r\n}}": b"%d" % number for number in range(40)}
        others = [
            f"contract:v:{{{unique}}}",
            f"contract:v:{{{unique}xx[a-z]\\^:1}}",
            f"contract:v:{{{unique}**a\\^:1}}",
        ]
        for key, data in [*keys.items(), *((other, b"other") for other in others)]:
            subject.store(key, data, MINUTE_MS, None)
        assert dict(self.scanned(subject, prefix, count)) == keys
        assert self.scanned(subject, f"contract:v:{{{unique}nothing") == []

    @needs("scan")
    def test_scan_gives_the_first_bytes(self, subject: Subject) -> None:
        key, short, data = some_key("long"), some_key("short"), os.urandom(HEAD_BYTES + 1)
        subject.store(key, data, None, None)
        subject.store(short, b"\0\r\n", None, None)
        assert self.scanned(subject, key) == [(key, data[:HEAD_BYTES])]
        assert self.scanned(subject, short) == [(short, b"\0\r\n")]

    @needs("scan", "get_or_lease", "stamps")
    def test_scan_finds_neither_what_is_gone_nor_what_is_no_value(self, subject: Subject) -> None:
        unique = uuid.uuid4().hex
        gone, ended, empty, leased = keys = [f"contract:v:{{{unique}:{number}}}" for number in range(4)]
        for key in (gone, ended, empty):
            subject.store(key, b"" if key == empty else b"1", self.shortest_ttl_ms if key == ended else None, None)
        subject.get_or_lease(leased, some_token(), MINUTE_MS)
        subject.stamps([f"contract:t:{{{unique}}}:#"], [b"12345678"], MINUTE_MS)
        subject.invalidate([gone])
        self.outlive(self.shortest_ttl_ms)
        assert self.scanned(subject, keys[0][:-2]) == []

    @needs("scan")
    def test_what_is_there_all_the_time_is_found_although_others_come_and_go(self, subject: Subject) -> None:
        prefix = some_key()[:-1]
        stay = {f"{prefix}{number}}}" for number in range(30)}
        go = [f"{prefix}{number}-}}" for number in range(60)]
        for key in (*stay, *go):
            subject.store(key, b"1", MINUTE_MS, None)
        found, cursor = set(), ""
        while True:
            cursor, page = subject.scan(prefix, cursor, 5)
            found |= {key for key, _ in page}
            if not cursor:
                break
            if go:
                subject.invalidate([go.pop()])
                subject.store(f"{prefix}{len(go)} new}}", b"1", MINUTE_MS, None)
        assert stay <= found

    @needs("reclaim")
    @pytest.mark.parametrize(
        ("there", "seen", "deleted"),
        [
            (b"outdated", b"out", True),
            (b"outdated", b"outdated", True),
            (b"outdated", b"outdated!", False),
            (b"new", b"outdated", False),
            (b"\0\xff\r\n-", b"\0\xff\r\n", True),
            (b"not outdated", b"outdated", False),
            (b"", b"o", False),
            (None, b"outdated", False),
        ],
    )
    def test_reclaim_deletes_only_what_was_seen(
        self, subject: Subject, there: bytes | None, seen: bytes, deleted: bool
    ) -> None:
        key, other = some_key(), some_key()
        for stored in (key, other):
            if there is not None:
                subject.store(stored, there, MINUTE_MS, None)
        assert subject.reclaim(key, seen) is deleted
        assert subject.get(key) == (None if deleted else there)
        assert subject.get(other) == there

    @needs("reclaim", "lease")
    def test_reclaim_leaves_the_lease_alone(self, subject: Subject) -> None:
        key, token = some_key(), some_token()
        subject.store(key, b"outdated", None, None)
        subject.lease(key, token, MINUTE_MS, b"outdated", False)
        assert subject.reclaim(key, b"outdated") is True
        assert subject.store(key, b"new", None, token) is True
        assert subject.get(key) == b"new"


class StaleTests(Setup):
    """expire_soft: a value that is outdated and may still be used."""

    def stale(self, subject: Subject, key: str) -> bool | None:
        """Whether what lies there is marked; its checksum is right. None: nothing lies there."""
        data = subject.get(key)
        return None if data is None else unpack(data, key)[0].stale

    @needs("expire_soft")
    @pytest.mark.parametrize(
        "payload", [b"", b"\0\xff\r\n", os.urandom(2**20)], ids=["empty", "special bytes", "one MiB"]
    )
    def test_an_entry_is_marked_and_otherwise_as_it_was(self, subject: Subject, payload: bytes) -> None:
        key = some_key()
        if subject.backend.largest is not None:
            payload = payload[: subject.backend.largest - len(some_entry(key, b""))]
        data = some_entry(key, payload)
        before, _ = unpack(data, key)
        subject.store(key, data, None, None)
        for _ in range(2):
            assert subject.expire_soft([key]) is None
            back = subject.get(key)
            assert type(back) is bytes
            header, rest = unpack(back, key)
            assert header == before._replace(stale=True)
            assert bytes(rest) == payload

    @needs("expire_soft")
    def test_a_marked_value_keeps_its_ttl(self, subject: Subject) -> None:
        keys = _, long, for_ever = [some_key() for _ in range(3)]
        for key, ttl_ms in zip(keys, (self.shortest_ttl_ms, MINUTE_MS, None), strict=True):
            subject.store(key, some_entry(key), ttl_ms, None)
        subject.expire_soft(keys)
        self.outlive(self.shortest_ttl_ms)
        assert [self.stale(subject, key) for key in keys] == [None, True, True]
        if "remaining" in subject.backend.capabilities:
            assert 0 < subject.remaining(long) <= MINUTE_MS
            assert subject.remaining(for_ever) is None

    @needs("expire_soft")
    def test_these_values_are_marked_and_no_other(self, subject: Subject) -> None:
        marked, also_marked, stays, absent = keys = [some_key() for _ in range(4)]
        for key in (marked, also_marked, stays):
            subject.store(key, some_entry(key), None, None)
        subject.expire_soft([])
        subject.expire_soft([marked, absent, also_marked, marked])
        assert [self.stale(subject, key) for key in keys] == [True, True, False, None]

    @needs("expire_soft", "get_or_lease")
    def test_an_absent_value_stays_absent_and_a_load_in_flight_is_fenced(self, subject: Subject) -> None:
        key, slow, next_one = some_key(), some_token(), some_token()
        subject.get_or_lease(key, slow, MINUTE_MS)
        subject.expire_soft([key])
        assert subject.get(key) is None
        assert subject.store(key, some_entry(key), None, slow) is False
        assert subject.get_or_lease(key, next_one, MINUTE_MS).kind == "held"
        assert subject.store(key, some_entry(key), None, next_one) is True
        assert self.stale(subject, key) is False

    @needs("expire_soft", "lease")
    def test_a_load_beside_a_value_is_fenced_and_the_value_marked(self, subject: Subject) -> None:
        leased, other = some_key(), some_key()
        token = some_token()
        for key in (leased, other):
            subject.store(key, some_entry(key), None, None)
            subject.lease(key, token, MINUTE_MS, None, False)
        subject.expire_soft([leased])
        assert subject.store(leased, some_entry(leased), None, token) is False
        assert self.stale(subject, leased) is True
        assert subject.store(other, some_entry(other), None, token) is True
        assert self.stale(subject, other) is False

    @needs("expire_soft")
    @pytest.mark.parametrize(
        "data", [b"", b"12", b"some other text", MAGIC[:1], MAGIC, MAGIC + b"\1\2\3", b"_" + MAGIC * 3]
    )
    def test_what_is_no_entry_is_deleted(self, subject: Subject, data: bytes) -> None:
        key, other = some_key(), some_key()
        for stored in (key, other):
            subject.store(stored, data, MINUTE_MS, None)
        subject.expire_soft([key])
        assert subject.get(key) is None
        assert subject.get(other) == data

    @needs("expire_soft")
    def test_the_mark_may_be_the_last_byte(self, subject: Subject) -> None:
        key = some_key()
        subject.store(key, MAGIC + b"123\0", None, None)
        subject.expire_soft([key])
        assert subject.get(key) == MAGIC + b"123\1"

    @needs("expire_soft", "incr")
    def test_a_number_begins_anew(self, subject: Subject) -> None:
        for mark in (b"", b"mark"):
            key = some_key()
            subject.incr(key, 5, None, mark)
            subject.expire_soft([key])
            assert subject.get(key) is None
            assert subject.incr(key, 1, None, mark) == 1


class Hearing:
    """A listener under test. ``until`` goes on receiving, as whoever uses it does."""

    patience: ClassVar[float] = 10.0

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.heard: list[str | None] = []

    def until(self, done: Callable[[], bool]) -> list[str | None]:
        """All that was heard by the time ``done`` holds."""
        deadline = time.monotonic() + self.patience
        while not done():
            assert time.monotonic() < deadline, f"not in {self.patience} s; heard {self.heard}"
            self.heard += self.listener.receive(0.2)
        return self.heard

    def all_until_now(self) -> list[str | None]:
        """What was heard of everything that was done before the call, and of nothing twice: once it is proven."""
        now = time.monotonic()
        self.until(lambda: self.listener.proof >= now)
        heard, self.heard = self.heard, []
        return heard


class ListenTests(Setup):
    """Being told of changes: for backends with plain methods that name ``listen``."""

    heartbeat: ClassVar[float] = 0.1

    def make_other(self) -> BaseBackend | AsyncBaseBackend:
        """Another client of the same store."""
        return self.make_backend()

    @pytest.fixture
    def other(self, subject: Subject) -> Iterator[Subject | None]:
        if LISTEN not in subject.backend.capabilities:
            yield None
            return
        other = Subject(self.make_other(), self.budget)
        yield other
        other.end()

    @pytest.fixture
    def prefix(self) -> str:
        return f"contract:v:{{{uuid.uuid4().hex}:"

    @pytest.fixture
    def hearing(self, subject: Subject, prefix: str) -> Iterator[Hearing | None]:
        if LISTEN not in subject.backend.capabilities:
            yield None
            return
        hearing = Hearing(self.listen(subject, [prefix]))
        yield hearing
        hearing.listener.close()

    def listen(self, subject: Subject, prefixes: list[str]) -> Listener:
        listener: Listener = subject.listen(prefixes, heartbeat=self.heartbeat, clock=time.monotonic)
        return listener

    @needs(LISTEN)
    @pytest.mark.parametrize("who", ["other", "subject"])
    def test_every_change_is_heard_whoever_makes_it(
        self, subject: Subject, other: Subject, hearing: Hearing, prefix: str, who: str
    ) -> None:
        writer, key = {"other": other, "subject": subject}[who], f"{prefix}a}}"
        writer.store(key, b"1", MINUTE_MS, None)
        assert key in hearing.all_until_now()
        assert hearing.all_until_now() == []
        if "touch" in writer.backend.capabilities:
            writer.touch(key, MINUTE_MS * 2)
            assert key in hearing.all_until_now()
        writer.invalidate([key])
        assert key in hearing.all_until_now()

    @needs(LISTEN)
    def test_changes_are_heard_in_their_order(
        self, subject: Subject, other: Subject, hearing: Hearing, prefix: str
    ) -> None:
        keys = [f"{prefix}}}{name}" for name in "cab"]  # of one slot: several servers have no common order
        for key in keys:
            other.store(key, b"1", None, None)
        assert list(dict.fromkeys(hearing.all_until_now())) == keys

    @needs(LISTEN)
    def test_invalidating_what_is_absent_is_heard_too(
        self, subject: Subject, other: Subject, hearing: Hearing, prefix: str
    ) -> None:
        other.invalidate([f"{prefix}absent}}"])
        assert f"{prefix}absent}}" in hearing.all_until_now()

    @needs(LISTEN, "reclaim")
    def test_what_is_reclaimed_is_heard(self, subject: Subject, other: Subject, hearing: Hearing, prefix: str) -> None:
        key = f"{prefix}a}}"
        other.store(key, b"1", None, None)
        hearing.all_until_now()
        other.reclaim(key, b"1")
        assert hearing.all_until_now() == [key]

    @needs(LISTEN, "expire_soft")
    def test_what_is_marked_is_heard(self, subject: Subject, other: Subject, hearing: Hearing, prefix: str) -> None:
        key = f"{prefix}a}}"
        other.store(key, some_entry(key), MINUTE_MS, None)
        hearing.all_until_now()
        other.expire_soft([key])
        assert key in hearing.all_until_now()

    @needs(LISTEN, "get_or_lease", "release")
    def test_a_lease_given_back_without_a_value_is_heard(
        self, subject: Subject, other: Subject, hearing: Hearing, prefix: str
    ) -> None:
        key, token = f"{prefix}a}}", some_token()
        other.get_or_lease(key, token, MINUTE_MS)
        hearing.all_until_now()
        other.release(key, token)
        assert key in hearing.all_until_now()

    @needs(LISTEN)
    def test_a_value_that_ends_with_its_ttl_is_heard(
        self, subject: Subject, other: Subject, hearing: Hearing, prefix: str
    ) -> None:
        key = f"{prefix}a}}"
        other.store(key, b"1", self.shortest_ttl_ms, None)
        hearing.all_until_now()
        self.outlive(self.shortest_ttl_ms)
        other.get(key)
        assert key in hearing.all_until_now()

    @needs(LISTEN, "stamps", "clear", "keep")
    def test_a_cleared_stamp_is_heard_and_one_that_is_kept_is_not(self, subject: Subject, other: Subject) -> None:
        prefix = f"contract:t:{{{uuid.uuid4().hex}"
        hearing = Hearing(self.listen(subject, [prefix]))
        other.stamps([f"{prefix}}}:a"], [b"1"], MINUTE_MS)
        hearing.all_until_now()
        other.keep([f"{prefix}}}:a"])
        assert hearing.all_until_now() == []
        other.clear([f"{prefix}}}:a"])
        assert hearing.all_until_now() == [f"{prefix}}}:a"]
        hearing.listener.close()

    @needs(LISTEN)
    def test_only_asked_prefixes_are_heard_and_more_may_be_asked_for(
        self, subject: Subject, other: Subject, hearing: Hearing, prefix: str
    ) -> None:
        mine, more, not_mine = f"{prefix}a}}", some_key(), some_key()
        for key in (mine, more, not_mine):
            other.store(key, b"1", None, None)
        assert hearing.all_until_now() == [mine]
        other.store(mine, b"2", None, None)  # whether it is heard before or after does not matter; that it is does
        hearing.listener.track([more[:-1]], budget=self.budget)
        hearing.listener.track([more[:-1]], budget=self.budget)
        for key in (not_mine, more):
            other.store(key, b"2", None, None)
        assert sorted(map(str, hearing.all_until_now())) == sorted([mine, more])  # of two servers, in any order

    @needs(LISTEN)
    def test_what_is_proven_was_heard_before(
        self, subject: Subject, other: Subject, hearing: Hearing, prefix: str
    ) -> None:
        for number in range(10):
            key = f"{prefix}{number}}}"
            other.store(key, b"1", None, None)
            assert key in hearing.all_until_now()

    @needs(LISTEN)
    def test_the_first_proof_is_that_of_the_subscription(self, subject: Subject, prefix: str) -> None:
        before = time.monotonic()
        listener = self.listen(subject, [prefix])
        assert before <= listener.proof <= time.monotonic()
        listener.close()

    @needs(LISTEN)
    def test_who_waits_is_woken(self, subject: Subject, prefix: str) -> None:
        listener: Listener = subject.listen([prefix], heartbeat=60.0, clock=time.monotonic)
        for early in (True, False):
            waker = threading.Timer(0.0 if early else 0.1, listener.wake)
            waker.start()
            if early:
                waker.join()
            begun = time.monotonic()
            assert list(listener.receive(30.0)) == []
            assert time.monotonic() - begun < 10.0
            waker.join()
        listener.close()

    @needs(LISTEN)
    def test_after_its_end_a_subscription_says_so(self, subject: Subject, hearing: Hearing) -> None:
        hearing.listener.close()
        hearing.listener.close()
        hearing.listener.wake()
        with pytest.raises(BackendError):
            hearing.listener.receive(0.0)
        with pytest.raises(BackendError):
            hearing.listener.track(["contract:t:"], budget=self.budget)


class BehaviourTests(Setup):
    """Threads, loops, closing."""

    @needs("check")
    def test_check_tells_facts_as_text(self, subject: Subject) -> None:
        facts = subject.check()
        assert facts
        assert all(type(name) is str and type(fact) is str for name, fact in facts.items())

    def test_threads_get_their_own_answers(self, subject: Subject) -> None:
        def work(number: int) -> list[bool]:
            right = []
            for turn in range(25):
                key, data = some_key(), b"%d-%d" % (number, turn) * (1 + turn * 50)
                subject.store(key, data, MINUTE_MS, None)
                right.append(subject.get(key) == data)
            return right

        with ThreadPoolExecutor(8) as pool:
            assert all(all(right) for right in pool.map(work, range(8)))

    def test_close_may_be_repeated_and_a_later_call_opens_again(self, subject: Subject) -> None:
        key = some_key()
        subject.store(key, b"value", None, None)
        subject.close()
        subject.close()
        assert subject.get(key) == b"value"

    def test_a_budget_that_is_used_up_is_a_backend_error_at_once(self, subject: Subject) -> None:
        key = some_key()
        operations: list[Callable[[], Any]] = [
            lambda: subject.get(key, budget=0.0),
            lambda: subject.store(key, b"value", None, None, budget=-1.0),
        ]
        for operation in operations:
            with pytest.raises(BackendError) as caught:
                operation()
            assert caught.value.fault is Fault.DOWN
        assert subject.get(key) is None

    def test_a_cancelled_call_spoils_no_other(self, subject: Subject) -> None:
        if not subject.is_async:
            return
        backend = subject.backend
        keys = [some_key() for _ in range(20)]

        async def cancel_some() -> list[bytes | None]:
            for number, key in enumerate(keys):
                await backend.store(key, b"%d" % number, None, None, budget=self.budget)  # type: ignore[misc]
            for number, key in enumerate(keys):
                task = asyncio.ensure_future(backend.get(key, budget=self.budget))  # type: ignore[arg-type]
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
            return [await backend.get(key, budget=self.budget) for key in keys]  # type: ignore[misc]

        assert subject.call(cancel_some) == [b"%d" % number for number in range(20)]

    def test_several_event_loops_one_after_the_other(self, subject: Subject) -> None:
        if not subject.is_async:
            return
        key = some_key()
        subject.store(key, b"value", None, None)
        for _ in range(2):
            assert asyncio.run(subject.backend.get(key, budget=self.budget)) == b"value"  # type: ignore[arg-type]
        assert subject.get(key) == b"value"


class FaultTests(Setup):
    """A broken connection costs at most the budget and raises BackendError. For backends with a `server_address`."""

    fault_budget: ClassVar[float] = 0.3
    slack: ClassVar[float] = 1.0  # for a busy machine; the point is that nothing waits for a socket's own timeout

    @pytest.fixture
    def proxy(self) -> Iterator[FaultProxy | None]:
        address = self.server_address()
        if address is None:
            yield None
            return
        with FaultProxy(*address) as proxy:
            yield proxy

    @pytest.fixture
    def remote(self, proxy: FaultProxy | None) -> Iterator[Subject | None]:
        if proxy is None:
            yield None
            return
        subject = Subject(self.make_backend_behind("127.0.0.1", proxy.port), self.fault_budget)
        yield subject
        proxy.pass_()
        subject.end()

    def fails_in_time(self, operation: Callable[[], Any]) -> BackendError:
        begun = time.monotonic()
        with pytest.raises(BackendError) as caught:
            operation()
        assert time.monotonic() - begun < self.fault_budget + self.slack
        return caught.value

    @pytest.mark.parametrize("warm", [True, False], ids=["connected before", "not connected"])
    @pytest.mark.parametrize("fault", ["black_hole", "hang", "refuse", "drop_replies", "drip", "garbage"])
    def test_a_fault_is_a_backend_error_within_the_budget_and_passes(
        self, remote: Subject | None, proxy: FaultProxy | None, fault: str, warm: bool
    ) -> None:
        if remote is None or proxy is None:
            return
        key = some_key()
        if warm:
            remote.store(key, b"value" * 100, None, None, budget=self.budget)
        if fault == "hang" and warm:
            proxy.reset()  # connections from before go on working: make it open another
        {"drip": lambda: proxy.slow(100), "garbage": lambda: proxy.reply(b"HTTP/1.1 400 Bad Request\r\n\r\n")}.get(
            fault, getattr(proxy, fault, proxy.pass_)
        )()
        self.fails_in_time(lambda: remote.get(key))
        self.fails_in_time(lambda: remote.store(some_key(), b"value", MINUTE_MS, None))
        proxy.pass_()
        assert remote.get(key, budget=self.budget) == (b"value" * 100 if warm else None)

    def test_an_idle_connection_that_was_reset_costs_no_failure(
        self, remote: Subject | None, proxy: FaultProxy | None
    ) -> None:
        if remote is None or proxy is None:
            return
        key = some_key()
        remote.store(key, b"value", None, None, budget=self.budget)
        proxy.reset()
        assert remote.get(key, budget=self.budget) == b"value"

    @pytest.mark.parametrize("operation", ["store", "store_if", "incr", "touch", "get_or_lease", "lease"])
    def test_a_write_that_arrives_after_its_budget_has_no_effect(
        self, remote: Subject | None, proxy: FaultProxy | None, operation: str
    ) -> None:
        if remote is None or proxy is None or operation not in {"store", *remote.backend.capabilities}:
            return
        key, token = some_key(), some_token()
        late: dict[str, tuple[Any, ...]] = {
            "store": (b"late", None, None),
            "store_if": (b"late", None, b"1", True),
            "incr": (5, None),
            "touch": (self.shortest_ttl_ms,),
            "get_or_lease": (token, MINUTE_MS),
            "lease": (token, MINUTE_MS, None, False),
        }
        before = b"1" if operation in ("touch", "incr") else None
        if before is not None:
            remote.store(key, before, None, None, budget=self.budget)
        remote.get(key, budget=self.budget)
        proxy.hold_requests()
        self.fails_in_time(lambda: getattr(remote, operation)(key, *late[operation]))
        proxy.pass_()
        self.outlive(self.shortest_ttl_ms)
        assert remote.get(key, budget=self.budget) == before
        if operation in ("get_or_lease", "lease"):  # a lease without a holder would keep everybody waiting
            assert getattr(remote, operation)(key, some_token(), *late[operation][1:]).kind == "held"

    @pytest.mark.parametrize("loss", ["reset", "refuse", "black_hole", "garbage"])
    def test_a_lost_subscription_is_a_backend_error(
        self, remote: Subject | None, proxy: FaultProxy | None, loss: str
    ) -> None:
        if remote is None or proxy is None or LISTEN not in remote.backend.capabilities:
            return
        listener: Listener = remote.listen(["contract:v:"], heartbeat=0.2, clock=time.monotonic, budget=self.budget)
        hearing = Hearing(listener)
        hearing.all_until_now()
        if loss == "garbage":
            proxy.reply(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        else:
            getattr(proxy, loss)()
        lost, proof = time.monotonic(), listener.proof
        with pytest.raises(BackendError) as caught:
            hearing.until(lambda: False)
        assert caught.value.fault is Fault.DOWN
        assert proof <= listener.proof <= lost
        with pytest.raises(BackendError):
            listener.receive(0.0)

    @pytest.mark.parametrize("fault", ["black_hole", "hang", "refuse", "drop_replies", "garbage"])
    def test_a_subscription_that_cannot_be_had_costs_the_budget(
        self, remote: Subject | None, proxy: FaultProxy | None, fault: str
    ) -> None:
        if remote is None or proxy is None or LISTEN not in remote.backend.capabilities:
            return
        if fault == "garbage":
            proxy.reply(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        else:
            getattr(proxy, fault)()
        self.fails_in_time(lambda: remote.listen(["contract:v:"], heartbeat=1.0, clock=time.monotonic))


class BackendContract(
    ValueTests,
    LeaseTests,
    StampTests,
    CounterTests,
    CommandTests,
    SpaceTests,
    StaleTests,
    ListenTests,
    BehaviourTests,
    FaultTests,
):
    """Everything that cachekit relies on in a backend. Inherit, and say how to make one::

        class TestMyBackend(BackendContract):
            def make_backend(self):
                return MyBackend("localhost")

    It makes keys of its own and removes none, so use a store for tests. With `server_address` and
    `make_backend_behind` it also breaks the connection. A backend with plain methods and one with coroutines take
    two classes; see `Setup` for what else may be adjusted.
    """
