"""Loads that the native core runs by itself: nobody gets another's value, and nothing of them stays afterwards."""

import inspect
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from l1_rig import TWINS, Clock, Rig

from cachekit.engine.miss import MISS
from cachekit.l1.views import NEVER

if "native" not in TWINS:
    pytest.skip("there is no native core here", allow_module_level=True)

from cachekit.l1 import native
from cachekit.l1.native import core


@pytest.fixture(autouse=True)
def no_greenlets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests use them, and then the core loads nothing."""
    monkeypatch.delitem(sys.modules, "greenlet", raising=False)


class Hooks:
    """Notes what the core asks for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.fails: type[BaseException] | None = None

    def note(self, *what: Any) -> None:
        self.asked.append(what)
        if self.fails is not None:
            raise self.fails

    def flight(self, args: Any, ticket: int, began: float) -> Any:
        self.note("flight", args)
        return ("flight of", args)

    def entry(self) -> Any:
        self.note("entry")
        return "entry"

    def landed(self, args: Any, flight: Any, value: Any, mode: str) -> None:
        self.note("landed", args, flight, value)

    def finish(self, args: Any, flight: Any, value: Any, entry: Any, *rest: Any) -> Any:
        self.note("finish", args, value)
        return value

    def failed(self, args: Any, flight: Any, error: BaseException) -> None:
        self.note("failed", args, type(error))


class Loaded:
    """A memo whose misses the core loads."""

    def __init__(self, func: Callable[..., Any], *, early: bool = False, **options: Any) -> None:
        self.r = Rig(native, **options)
        self.hooks = Hooks()
        self.slow: list[Any] = []
        self.memo = native.compile_memo(func, inspect.signature(func), self.on_slow)
        self.memo.bind_table(self.r.table, self.r.slot)
        self.flights: dict[Any, Any] = {}
        self.observers: list[Any] = []
        self.memo.loads_by(func, self.flights, self.observers, self.hooks, NEVER, 0, NEVER, early)
        self.call = self.memo.call

    def on_slow(self, args: Any, kwargs: Any) -> Any:
        self.slow.append(args)
        return MISS


def test_a_load_is_kept_and_hit() -> None:
    loaded = Loaded(lambda x, y=2: (x, y))
    assert [loaded.call(1), loaded.call(x=1), loaded.call(1, 2), loaded.call(1, y=3)] == [(1, 2)] * 3 + [(1, 3)]
    assert loaded.slow == loaded.hooks.asked == []
    assert loaded.r.table.stats()[:3] == (2, 2, 2)
    assert core.running() == core.depth() == 0


def test_what_waits_for_one_load_never_gets_the_value_of_the_next() -> None:
    """Who saw a load may come too late with a flight for it; by then another may lie where it lay."""
    seen: list[Any] = []

    def func(x: int) -> tuple[str, int]:
        if not seen:
            seen.extend(core.unseen())
        else:
            assert not core.attach(seen[0][0], "flight of the first")
        return ("value", x)

    loaded = Loaded(func)
    for number in range(5):
        assert loaded.call(number) == ("value", number)
    assert seen[0][2] == (0,)
    assert loaded.hooks.asked == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("where", ["function", "clock before", "clock after", "hooks"])
def test_a_load_that_fails_is_over(where: str, error: type[BaseException]) -> None:
    fails: list[str] = []

    def clock() -> int:
        if fails and fails[-1] == "clock":
            fails.clear()
            raise error
        return 1_000

    def func(x: Any) -> Any:
        if where == "function":
            raise error
        if where == "clock after":
            fails.append("clock")
        if where == "hooks":
            loaded.hooks.fails = error
            return (number for number in range(3))  # nothing that can be kept
        return x

    loaded = Loaded(func, clock=clock)
    for _ in range(3):
        if where == "clock before":
            fails.append("clock")
        try:
            loaded.call(1)
        except error:
            pass
        assert core.running() == core.depth() == 0
        assert core.unseen() == core.flights_here() == []
        fails.clear()
        loaded.hooks.fails = None
        loaded.r.table.clear()


@pytest.mark.parametrize("act", ["unbind", "stop", "rebind", "drop", "clear", "plan"])
def test_a_function_may_let_go_of_everything_that_loads_it(act: str) -> None:
    def func(x: Any) -> Any:
        memo, r = held[0].memo, held[0].r
        if act == "unbind":
            memo.unbind()
        elif act == "stop":
            memo.stop_loading()
        elif act == "rebind":
            other = Rig(native)
            memo.bind_table(other.table, other.slot)
        elif act == "drop":
            memo.unbind()
            held.clear()
        elif act == "clear":
            r.table.clear()
            r.versions.bump_all()
        else:
            memo.loads_by(func, {}, [], Hooks(), NEVER, 0, NEVER, early=True)
        return ["value", x]

    held = [Loaded(func)]
    call = held[0].call
    for number in range(3):
        if not held:
            break
        assert call(number) in (["value", number], MISS)
    assert core.running() == 0


def test_keys_that_act_while_they_are_looked_for_do_not_load_into_nothing() -> None:
    class Key:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            loaded.memo.unbind()
            loaded.memo.loads_by(lambda x: "again", {}, [], loaded.hooks, NEVER, 0, NEVER, early=False)
            return False

    loaded = Loaded(lambda x: "value")
    loaded.r.put(Key(), value="stored")
    assert loaded.call(Key()) in ("value", "again", MISS)
    assert loaded.call(5) in ("value", "again", MISS)


def test_threads_load_different_keys_and_the_list_of_loads_stays_right() -> None:
    wrong: list[Any] = []

    def func(x: int) -> tuple[int, int]:
        depth = core.depth()
        inner = call(x - 1) if x % 10 else (0, 0)
        if core.depth() != depth or not core.running() >= depth > 0:
            wrong.append((depth, core.depth()))
        for handle, _, args, _, _ in core.unseen():
            if args[0] % 7 == 0:
                core.attach(handle, ("flight of", args))
        return (x, inner[0])

    loaded = Loaded(func, max_entries=20)
    call = loaded.call

    def run(thread: int) -> None:
        for step in range(400):
            x = thread * 1000 + step % 50
            value = call(x)
            if value is not MISS and value[0] != x:
                wrong.append((x, value))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert core.running() == 0
    for name, args, *rest in loaded.hooks.asked:
        assert name == "landed"
        assert rest[0] == ("flight of", args)
        assert rest[1][0] == args[0]


def test_names_of_attributes_may_be_empty() -> None:
    call = Loaded(lambda x: x).call
    assert not hasattr(call, "")
    setattr(call, "", 1)
    assert getattr(call, "") == 1


# ------------------------------------------------------------------------------------------------- what Python decides


def takes(ns: int, **options: Any) -> Loaded:
    """A function that takes so long by the table's clock."""
    clock = Clock()

    def func(x: Any) -> Any:
        clock.now += ns
        return ("loaded", x)

    return Loaded(func, clock=clock, **options)


@pytest.mark.parametrize("ns", [0, 999_999, 1_000_000, 5_000_000_000])
def test_python_decides_when_a_value_is_refreshed_that_took_time(ns: int) -> None:
    loaded = takes(ns, early=True)
    assert loaded.call(1) == ("loaded", 1)
    asked = [name for name, *_ in loaded.hooks.asked]
    if ns < 1_000_000:
        assert (asked, len(loaded.r.table), loaded.r.table.take_loads(loaded.r.slot)[0]) == ([], 1, 1)
    else:
        assert loaded.hooks.asked == [("flight", (1,)), ("finish", (1,), ("loaded", 1))]
        assert (len(loaded.r.table), loaded.r.table.take_loads(loaded.r.slot)[0]) == (0, 0)
    assert loaded.slow == []
    assert loaded.r.table.stats().misses == 1
    assert core.running() == core.depth() == 0


@pytest.mark.parametrize("ns", [0, 1_000_000, 5_000_000_000])
def test_the_core_keeps_whatever_is_not_refreshed_early(ns: int) -> None:
    loaded = takes(ns, early=False)
    assert [loaded.call(1), loaded.call(1)] == [("loaded", 1)] * 2
    assert loaded.hooks.asked == loaded.slow == []
    view = loaded.r.table.entry(loaded.r.slot, (1,))
    assert (view.early, view.load_ms) == (False, ns // 1_000_000)
    assert loaded.r.table.stats()[:3] == (1, 1, 1)


def test_whether_loads_are_refreshed_early_is_true_or_false() -> None:
    class Odd:
        def __bool__(self) -> bool:
            raise ZeroDivisionError

    loaded = takes(0)
    with pytest.raises(ZeroDivisionError):
        loaded.memo.loads_by(one, {}, [], loaded.hooks, NEVER, 0, NEVER, early=Odd())  # type: ignore[arg-type]
    assert loaded.call(1) == ("loaded", 1)


def one(x: Any) -> Any:
    raise AssertionError


KEPT: dict[str, dict[str, Any]] = {
    "stale": {"fresh": 10, "keep": 30},
    "early": {"fresh": 10, "keep": 30, "early": True},
    "marked": {"fresh": 30, "keep": 30, "marked": True},
    "marked early": {"fresh": 20, "keep": 30, "early": True, "marked": True},
    "aside": {"fresh": 30, "keep": 30, "aside": True},
    "stale and aside": {"fresh": 10, "keep": 30, "aside": True},
    "tagged": {"fresh": 10, "keep": 30, "tags": ["t"]},
}


def keep(loaded: Loaded, array: tuple[Any, ...], kind: str) -> None:
    """An entry that no memo answers 10 ns later, and that is kept for 20 ns more."""
    fields = dict(KEPT[kind])
    now, marked = loaded.r.clock(), fields.pop("marked", False)
    fresh, end = now + fields.pop("fresh"), now + fields.pop("keep")
    assert loaded.r.put(*array, value="old", khash=5, fresh_until=fresh, keep_until=end, **fields)
    loaded.r.clock.now += 10
    if marked:
        assert loaded.r.table.mark_stale(5) == 1


@pytest.mark.parametrize("array", [(1,), (1, "b"), ()])
@pytest.mark.parametrize("kind", KEPT)
def test_python_decides_what_becomes_of_an_old_value(kind: str, array: tuple[Any, ...]) -> None:
    runs: list[Any] = []
    loaded = Loaded([lambda: runs.append(()), lambda x: runs.append(x), lambda x, y: runs.append((x, y))][len(array)])
    keep(loaded, array, kind)
    assert loaded.call(*array) is MISS
    assert (loaded.slow, runs) == ([array], [])
    loaded.r.clock.now += 19
    assert loaded.call(*array) is MISS
    assert len(loaded.slow) == 2
    assert loaded.r.table.entry(loaded.r.slot, array).value == "old"
    assert loaded.r.table.stats()[:2] == (0, 0)
    assert core.running() == 0
    loaded.r.clock.now += 1
    assert loaded.call(*array) is None
    assert (len(loaded.slow), len(runs)) == (2, 1)
    assert loaded.r.table.stats()[:2] == (0, 1)


@pytest.mark.parametrize(
    "how", ["dropped", "dropped by hash", "cleared", "outdated", "other type", "another key", "slot"]
)
def test_the_core_loads_where_nothing_old_is_kept(how: str) -> None:
    loaded = Loaded(lambda x: ("loaded", x))
    table, slot = loaded.r.table, loaded.r.slot
    keep(loaded, (True,) if how == "other type" else (2,) if how == "another key" else (1,), "tagged")
    if how == "dropped":
        table.drop(slot, (1,))
    elif how == "dropped by hash":
        table.drop_key(5)
    elif how == "cleared":
        table.clear()
    elif how == "outdated":
        loaded.r.versions.bump_tags(["t"])
    elif how == "slot":
        loaded.memo.bind_table(table, table.slot("g"))
    assert [loaded.call(1), loaded.call(1)] == [("loaded", 1)] * 2
    assert loaded.slow == loaded.hooks.asked == []
    assert table.stats()[:2] == (1, 1)


def test_the_core_loads_again_once_the_old_value_was_replaced() -> None:
    loaded = Loaded(lambda x: ("loaded", x))
    keep(loaded, (1,), "early")
    assert loaded.call(1) is MISS
    loaded.r.put(1, value="new", ttl=5)
    assert loaded.call(1) == "new"
    loaded.r.clock.now += 5
    assert loaded.call(1) == ("loaded", 1)
    assert loaded.slow == [(1,)]


def test_a_clock_may_let_go_of_everything_before_an_old_value_is_looked_for() -> None:
    class Releasing(Clock):
        def __call__(self) -> int:
            if armed:
                armed.clear()
                loaded.memo.unbind()
                loaded.r.table.clear()
            return self.now

    armed: list[int] = []
    loaded = Loaded(lambda x: ("loaded", x), clock=Releasing())
    for kind in KEPT:
        keep(loaded, (1,), kind)
        armed.append(1)
        assert loaded.call(1) in (("loaded", 1), MISS)
        assert core.running() == 0
        loaded.memo.bind_table(loaded.r.table, loaded.r.slot)
