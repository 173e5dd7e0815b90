"""The generated function is the user's function to everybody, and never answers with another call's value."""

import asyncio
import functools
import inspect
import math
import typing
from collections.abc import Callable
from typing import Any

import pytest
from l1_rig import Rig

from cachekit.engine.binding import compile_binder
from cachekit.engine.miss import MISS
from cachekit.l1 import pure
from cachekit.l1.views import NEVER

Make = Callable[..., Any]


class Cached:
    """A memo over a table, with the slow path that a decorator would have."""

    def __init__(self, twin: Any, rig: Any, func: Any, ignore: frozenset[str] = frozenset(), **put: Any) -> None:
        self.rig, self.func, self.options = rig, func, put
        self.binder = compile_binder(inspect.signature(func), ignore)
        self.slow: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        is_async = inspect.iscoroutinefunction(func)
        on_slow = self.on_slow_async if is_async else self.on_slow
        self.memo = twin.compile_memo(func, self.binder, on_slow, ignore=ignore, is_async=is_async)
        self.memo.bind_table(rig.table, rig.slot)
        self.call = self.memo.call

    def on_slow(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.slow.append((args, kwargs))
        array = self.binder.bind(args, kwargs)
        value = self.rig.get(*array)
        if value is MISS:
            value = self.func(*args, **kwargs)
            self.rig.put(*array, value=value, **self.options)
        return value

    async def on_slow_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.slow.append((args, kwargs))
        array = self.binder.bind(args, kwargs)
        value = self.rig.get(*array)
        if value is MISS:
            value = await self.func(*args, **kwargs)
            self.rig.put(*array, value=value, **self.options)
        return value


@pytest.fixture
def cached(twin: Any, rig: Make) -> Callable[..., Cached]:
    """Makes a `Cached`."""
    return lambda func, ignore=frozenset(), rig_options={}, **put: Cached(twin, rig(**rig_options), func, ignore, **put)


def none() -> Any:
    return ("none",)


def one(x: Any) -> Any:
    return ("one", repr(x))


def two(x: Any, y: Any = "b") -> Any:
    return ("two", repr(x), repr(y))


def mixed(a: Any, b: Any = 1, /, c: Any = 2, *, d: Any = 3, e: Any) -> Any:
    return ("mixed", repr((a, b, c, d, e)))


def four(a: Any, b: Any, c: Any, d: Any) -> Any:
    return ("four", repr((a, b, c, d)))


def variable(x: Any, *rest: Any, **more: Any) -> Any:
    return ("variable", repr((x, rest, more)))


def shadowing(type: Any, _type: Any, _slow: Any = 1, KeyError: Any = 2, entry: Any = 3, _entry: Any = 4) -> Any:
    return ("shadowing", repr((type, _type, _slow, KeyError, entry, _entry)))


def _lambda() -> Any:
    return lambda x: ("lambda", repr(x))


CALLS: list[tuple[Any, list[tuple[tuple[Any, ...], dict[str, Any]]]]] = [
    (none, [((), {})]),
    (one, [((1,), {}), ((), {"x": 1})]),
    (two, [((1,), {}), ((1, "b"), {}), ((1,), {"y": "b"}), ((), {"y": "b", "x": 1})]),
    (mixed, [((0,), {"e": 5}), ((0, 1, 2), {"e": 5, "d": 3}), ((0, 1), {"c": 2, "e": 5})]),
    (four, [((1, 2, 3, 4), {}), ((1, 2), {"d": 4, "c": 3})]),
    (shadowing, [((1, 2), {}), ((1,), {"_type": 2, "KeyError": 2})]),
    (_lambda(), [((1,), {})]),
]


@pytest.mark.parametrize(("func", "calls"), CALLS, ids=lambda value: getattr(value, "__name__", ""))
def test_every_spelling_of_a_call_hits_the_same_entry_without_the_slow_path(
    cached: Any, func: Any, calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
) -> None:
    c = cached(func)
    args, kwargs = calls[0]
    assert c.call(*args, **kwargs) == func(*args, **kwargs)
    assert len(c.slow) == 1
    for args, kwargs in calls * 2:
        assert c.call(*args, **kwargs) == func(*args, **kwargs)
    assert len(c.slow) == 1
    assert c.rig.table.stats()[:2] == (2 * len(calls), 1)


def test_functions_with_star_parameters_always_take_the_slow_path(cached: Any) -> None:
    c = cached(variable)
    for _ in range(2):
        assert c.call(1, 2, a=3) == variable(1, 2, a=3)
        assert c.call(x=1) == variable(1)
    assert c.slow == [((1, 2), {"a": 3}), ((1,), {})] * 2


ALIKE = [1, True, 1.0, 1 + 0j, "1", b"1", None, 0, False, 0.0, -0.0, "", (1,), (True,)]


@pytest.mark.parametrize("func", [one, two, lambda a, x, c, d, e: repr(x)], ids=["one", "two", "five"])
def test_equal_arguments_of_other_types_never_get_each_others_values(cached: Any, func: Any) -> None:
    c = cached(func)
    more = (9,) * (len(inspect.signature(func).parameters) - 1)
    expected = {index: func(*more[:1], value, *more[1:]) for index, value in enumerate(ALIKE)}
    for _ in range(3):
        for index, value in enumerate(ALIKE):
            assert c.call(*more[:1], value, *more[1:]) == expected[index]


class Keyed:
    def __init__(self, key: Any, error: type[BaseException] | None = None) -> None:
        self.key, self.error = key, error

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        if self.error is not None:
            raise self.error("eq")
        return self.key == (other.key if isinstance(other, Keyed) else other)


def test_objects_are_found_by_their_own_equality_and_exact_type(cached: Any) -> None:
    class Sub(Keyed):
        pass

    c = cached(lambda x, y=0: type(x).__name__)
    for thing, name in [(7, "int"), (Keyed(7), "Keyed"), (Sub(7), "Sub"), (Keyed(7), "Keyed"), (7, "int")] * 2:
        assert c.call(thing) == name
    assert c.rig.table.stats().puts == 3


@pytest.mark.parametrize("error", [KeyError, TypeError, ValueError])
def test_what_hash_or_eq_of_an_argument_raises_reaches_the_caller(cached: Any, error: type[Exception]) -> None:
    c = cached(one)
    stored = Keyed("a")
    c.call(stored)
    stored.error = error
    with pytest.raises(error, match="eq"):
        c.call(Keyed("a"))
    with pytest.raises(TypeError, match="unhashable"):
        c.call([])
    assert c.call("other") == one("other")


def test_errors_of_the_function_come_without_ours_in_their_context(cached: Any) -> None:
    def fail(x: Any) -> Any:
        raise KeyError(x)

    with pytest.raises(KeyError) as caught:
        cached(fail).call(1)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("func", "args", "kwargs"),
    [
        (one, (), {}), (one, (1, 2), {}), (one, (1,), {"x": 1}), (one, (), {"y": 1}), (mixed, (), {"e": 1}),
        (mixed, (1,), {}), (mixed, (), {"a": 1, "e": 1}), (none, (1,), {}), (variable, (), {}),
    ],
)  # fmt: skip
def test_wrong_arguments_raise_what_the_function_itself_raises(
    cached: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    c = cached(func)
    with pytest.raises(TypeError) as original:
        func(*args, **kwargs)
    with pytest.raises(TypeError) as ours:
        c.call(*args, **kwargs)
    assert str(ours.value) == str(original.value)
    assert c.slow == []


def documented(a: int, /, b: "list[str]" = [], *, c: float = 1.5) -> dict[str, int]:  # type: ignore[assignment]  # noqa: B006
    """A docstring."""
    return {}


documented.mark = "kept"  # type: ignore[attr-defined]


def test_tools_see_the_users_function(cached: Any) -> None:
    call = cached(documented).call
    assert (call.__name__, call.__qualname__, call.__module__) == ("documented", "documented", __name__)
    assert call.__doc__ == "A docstring."
    assert call.__wrapped__ is documented
    assert call.mark == "kept"
    assert inspect.signature(call) == inspect.signature(documented)
    assert typing.get_type_hints(call) == typing.get_type_hints(documented)
    call.attribute = 1
    assert not hasattr(documented, "attribute")


def test_in_pure_python_it_is_a_function() -> None:
    call = Cached(pure, Rig(pure), documented).call
    assert inspect.isfunction(call)
    assert inspect.signature(call, follow_wrapped=False).replace(return_annotation=inspect.Signature.empty) == (
        inspect.signature(documented).replace(return_annotation=inspect.Signature.empty)
    )
    assert call.__defaults__ == documented.__defaults__
    assert call.__kwdefaults__ == documented.__kwdefaults__
    assert call.__globals__ is documented.__globals__


def test_builtins_and_partials_can_be_memoised(twin: Any, rig: Make) -> None:
    def memo(func: Any) -> Any:
        slow = functools.partial(lambda args, kwargs: func(*args, **kwargs))
        return twin.compile_memo(func, inspect.signature(func), slow, ignore=frozenset(), is_async=False).call

    assert memo(math.gcd)(6, 4) == 2
    assert memo(functools.partial(two, 1))(y="x") == two(1, "x")


def test_ignored_parameters_reach_the_function_but_not_the_key(cached: Any) -> None:
    c = cached(lambda self, x: (id(self), x), ignore=frozenset({"self"}))
    first, second = object(), object()
    assert c.call(first, 1) == c.call(second, 1) == (id(first), 1)
    assert c.slow == [((first, 1), {})]
    everything = cached(lambda self: id(self), ignore=frozenset({"self"}))
    assert everything.call(first) == everything.call(second) == id(first)


def test_hits_end_in_time_and_with_the_proof_of_life(cached: Any) -> None:
    c = cached(one, ttl=10)
    c.call(1)
    c.call(1)
    assert len(c.slow) == 1
    c.rig.clock.now += 10
    c.call(1)
    assert len(c.slow) == 2
    c.rig.table.alive(c.rig.clock() + 5)
    c.call(1)
    assert len(c.slow) == 2
    c.rig.clock.now += 5
    c.call(1)
    assert len(c.slow) == 3


def test_dropped_replaced_and_outdated_entries_are_not_hit(cached: Any) -> None:
    c = cached(one, tags=["t"], khash=5)
    value = c.call(1)
    assert c.call(1) is value
    assert len(c.slow) == 1
    for remove in (
        lambda: c.rig.table.drop(c.rig.slot, (1,)),
        lambda: c.rig.table.drop_key(5),
        lambda: c.rig.table.drop_slot(c.rig.slot),
        lambda: c.rig.versions.bump_tags(["t"]),
        c.rig.table.clear,
        c.rig.table.reset,
    ):
        before = len(c.slow)
        remove()
        c.call(1)
        assert len(c.slow) == before + 1
        c.call(1)
        assert len(c.slow) == before + 1
    c.rig.put(1, value="replaced")
    assert c.call(1) == "replaced"


def test_an_invalidation_between_the_look_up_and_the_clock_wins(cached: Any) -> None:
    """The clock is read after the entry was found: another thread may invalidate in between."""

    class Interrupting:
        act: Any = None

        def __call__(self) -> int:
            act, self.act = self.act, None
            if act is not None:
                act()
            return 1_000

    clock = Interrupting()
    c = cached(one, rig_options={"clock": clock}, khash=5)
    c.call(1)
    clock.act = lambda: c.rig.table.drop_key(5)
    c.call(1)
    assert len(c.slow) == 2


def test_every_caller_has_a_copy_of_its_own_on_the_hit_path_too(cached: Any) -> None:
    c = cached(lambda x: {"rows": [x]})
    for _ in range(3):
        value = c.call(1)
        assert value == {"rows": [1]}
        value["rows"].append("mine")
    assert len(c.slow) == 1
    assert c.rig.table.stats().hits == 2


def test_lru_order_follows_hits_of_the_memo(cached: Any) -> None:
    c = cached(one, rig_options={"policy": "lru", "max_entries": 2})
    for argument in (1, 2, 1, 3, 1):
        c.call(argument)
    assert [args for args, _ in c.slow] == [(1,), (2,), (3,)]


def test_an_unbound_memo_asks_the_slow_path_every_time_and_can_be_bound_again(cached: Any, rig: Make) -> None:
    c = cached(one)
    c.call(1)
    c.memo.unbind()
    c.call(1)
    c.call(1)
    assert len(c.slow) == 3
    other = rig()
    other.put(1, value="elsewhere", fresh_until=NEVER)
    c.memo.bind_table(other.table, other.slot)
    assert c.call(1) == "elsewhere"


async def test_an_async_function_stays_one_and_its_hit_does_not_suspend(cached: Any) -> None:
    async def load(x: int, *, y: int = 2) -> list[int]:
        await asyncio.sleep(0)
        return [x, y]

    c = cached(load)
    assert inspect.iscoroutinefunction(c.call)
    assert await c.call(1) == [1, 2]
    coroutine = c.call(1, y=2)
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    assert stop.value.value == [1, 2]
    assert len(c.slow) == 1
    with pytest.raises(TypeError, match="positional"):
        c.call(1, 2)
    c.memo.unbind()
    assert await c.call(3) == [3, 2]
