"""assert_cached notices each way in which a cached function may fail to be cached."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from cachekit.testing import assert_cached


class Info(NamedTuple):
    misses: int


class Cached:
    """Gives these answers one after the other; the ones after the first count as found, unless it forgets."""

    def __init__(self, *answers: Any, forgets: bool = False) -> None:
        self.answers = list(answers)
        self.forgets = forgets
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.answers[self.calls - 1]

    def cache_info(self) -> Info:
        return Info(self.calls if self.forgets else min(self.calls, 1))


class CachedAsync(Cached):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        async def call() -> Any:
            return Cached.__call__(self)

        return call()


def test_gives_the_value_of_a_function_that_ran_once() -> None:
    runs = []

    @functools.lru_cache
    def double(x: int) -> int:
        runs.append(x)
        return 2 * x

    assert assert_cached(double, 4) == 8
    assert runs == [4]


@pytest.mark.parametrize(
    ("cached", "message"),
    [
        (Cached(1, 1, forgets=True), r"\(7, x=1\) ran again"),
        (Cached((1, 2), [1, 2]), "came back as list, it was tuple"),
        (Cached(1, True), "came back as bool, it was int"),
        (Cached([1], [2]), r"came back as \[2\], it was \[1\]"),
    ],
)
def test_tells_what_differs(cached: Callable[..., Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_cached(cached, 7, x=1)


async def test_awaits_async_functions() -> None:
    assert await assert_cached(CachedAsync("a", "a"), 1) == "a"
    with pytest.raises(AssertionError, match="ran again"):
        await assert_cached(CachedAsync("a", "a", forgets=True), 1)


def test_the_same_object_need_not_equal_itself() -> None:
    nan = float("nan")
    assert assert_cached(Cached(nan, nan)) is nan


def test_refuses_a_function_that_is_not_cached() -> None:
    with pytest.raises(TypeError, match="not a cached function"):
        assert_cached(len, "abc")
