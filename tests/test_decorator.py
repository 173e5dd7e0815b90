"""`@cache`: options, kinds of functions, spellings of a call, attributes."""

import functools
import gc
import inspect
import pickle
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from cachekit import MISS, AsyncCachedFunction, CachedFunction, ConfigError, Outcome, UncacheableArgument, cache, region
from cachekit.config.spec import ServiceSpec, built_in_regions
from cachekit.process import default_service, replace_default
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock


@pytest.fixture(autouse=True)
def clock() -> Iterator[FrozenClock]:
    """A default service of its own with a clock that stands still."""
    clock = FrozenClock()
    regions = built_in_regions()
    regions["users"] = regions["default"].but(name="users", jitter=0.0)
    before = replace_default(Service(ServiceSpec(regions=regions), clock=clock))
    yield clock
    replace_default(before)


@cache
def module_level(a: int, b: int = 2, *, c: int = 3) -> list[int]:
    """Adds nothing."""
    return [a, b, c]


class Counted:
    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, value: Any = None) -> Any:
        self.runs += 1
        return value if value is not None else self.runs


# Spellings and keys


def test_all_spellings_of_a_call_share_one_entry() -> None:
    runs = Counted()

    @cache
    def f(a: int, b: int = 2, /, c: int = 3, *, d: int = 4) -> int:
        return int(runs())

    assert {f(1), f(1, 2), f(1, 2, 3), f(1, c=3), f(1, d=4), f(1, 2, c=3, d=4)} == {1}
    assert f(2) == 2


def test_equal_arguments_of_other_types_are_other_calls() -> None:
    runs = Counted()

    @cache
    def f(a: Any) -> int:
        return int(runs())

    values = [1, True, 1.0, "1", b"1", (1,), (True,), [1], 0.0, -0.0, None, "None", ("a b", "c"), ("a", "b c")]
    assert len({f(value) for value in values}) == len(values)
    assert [f(value) for value in values] == list(range(1, len(values) + 1))


def test_wrong_arguments_are_the_functions_own_type_error() -> None:
    @cache
    def f(a: int) -> int:
        return a

    for call in (lambda: f(), lambda: f(1, 2), lambda: f(b=1)):  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="f\\(\\)"):
            call()


def test_variable_arguments_are_part_of_the_key() -> None:
    runs = Counted()

    @cache
    def f(*args: int, **kwargs: int) -> int:
        return int(runs())

    assert f(1, 2, x=1, y=2) == f(1, 2, y=2, x=1) == 1
    assert f(1, 2) == 2
    assert f((1, 2)) == 3  # type: ignore[arg-type]


def test_ignored_parameters_are_not_part_of_the_key() -> None:
    runs = Counted()

    @cache(ignore=("session",))
    def f(a: int, session: object = None) -> int:
        return int(runs())

    assert f(1, object()) == f(1, session=object()) == f(1) == 1


def test_key_replaces_the_encoding_of_arguments_but_not_the_function() -> None:
    @cache(key=lambda user: user["id"])
    def f(user: dict[str, int]) -> str:
        return "f"

    @cache(key=lambda user: user["id"])
    def g(user: dict[str, int]) -> str:
        return "g"

    assert f({"id": 1, "x": 1}) == f({"id": 1, "x": 2}) == "f"
    assert f.cache_info().misses == 1
    assert g({"id": 1}) == "g"
    assert f.invalidate({"id": 1}) is Outcome.DONE
    assert f.peek({"id": 1}) is MISS


def test_one_decorator_serves_many_functions_and_same_names_live_apart() -> None:
    five = cache(ttl="5m")

    def make(value: int) -> Any:
        def f(a: int) -> int:
            return value

        return f

    class One:
        @five
        @staticmethod
        def f(a: int) -> str:
            return "one"

    class Two:
        @five
        @staticmethod
        def f(a: int) -> str:
            return "two"

    first, second = five(make(1)), five(make(2))
    assert (first(1), second(1), One.f(1), Two.f(1)) == (1, 2, "one", "two")
    assert (first(1), second(1), One.f(1), Two.f(1)) == (1, 2, "one", "two")


def test_lambdas_of_one_module_live_apart() -> None:
    double, triple = cache(lambda x: x * 2), cache(lambda x: x * 3)
    assert (double(2), triple(2)) == (4, 6)


def test_an_argument_without_identity_is_an_error_only_where_there_is_an_l2() -> None:
    from cachekit.backends.memory import MemoryBackend

    class Session:
        __hash__ = None  # type: ignore[assignment]

    backend = MemoryBackend()

    @cache(backend=backend)
    def f(a: object) -> int:
        return 1

    with pytest.raises(UncacheableArgument, match="__cache_key__"):
        f(object())

    @cache
    def g(a: object) -> int:
        return 1

    assert g(object()) == 1
    with pytest.raises(UncacheableArgument, match="hashable"):
        g(Session())


def made(body: str) -> Any:
    namespace: dict[str, Any] = {"__name__": "shop.views", "__file__": __file__}
    exec(compile(f"def read(x):\n    return {body}", __file__, "exec"), namespace)
    return namespace["read"]


def test_two_functions_of_one_name_in_a_module_are_refused_not_mixed_up() -> None:
    one, two, same = cache(made("1")), cache(made("2")), cache(made("1"))
    assert one(5) == same(5) == 1
    with pytest.raises(ConfigError, match="version="):
        two(5)
    assert cache(version=2)(made("2"))(5) == 2


def test_a_reloaded_function_takes_the_place_of_the_old_one() -> None:
    one = cache(made("1"))
    assert one(5) == 1
    one.invalidate(5)
    del one
    assert cache(made("2"))(5) == 2


def test_a_closure_over_what_has_no_identity_is_refused_only_where_there_is_an_l2() -> None:
    import threading

    from cachekit.backends.memory import MemoryBackend

    def make(lock: Any, **options: Any) -> Any:
        @cache(**options)
        def f(x: int) -> int:
            return id(lock)

        return f

    one, two = make(threading.Lock()), make(threading.Lock())
    assert one(1) != two(1)
    with pytest.raises(ConfigError, match="version="):
        make(threading.Lock(), backend=MemoryBackend())(1)


# Methods


class Repo:
    runs = 0

    def __init__(self, name: str = "") -> None:
        self.name = name

    @cache
    def plain(self, x: int) -> tuple[str, int]:
        Repo.runs += 1
        return (self.name, x)

    @cache(ignore=("self",))
    def shared(self, x: int) -> int:
        Repo.runs += 1
        return x

    @cache
    @classmethod
    def above(cls, x: int) -> tuple[str, int]:
        return (cls.__name__, x)

    @classmethod
    @cache
    def below(cls, x: int) -> tuple[str, int]:
        return (cls.__name__, x)

    @cache
    @staticmethod
    def static(x: int) -> int:
        return x

    @cache
    async def coroutine(self, x: int) -> tuple[str, int]:
        return (self.name, x)

    @property
    @cache
    def prop(self) -> int:
        Repo.runs += 1
        return Repo.runs


class Sub(Repo):
    pass


def test_methods_know_their_instance_in_every_attribute() -> None:
    a, b = Repo("a"), Repo("b")
    assert (a.plain(1), b.plain(1), Repo.plain(a, 1)) == (("a", 1), ("b", 1), ("a", 1))
    assert a.plain.cache_info().misses == 2
    assert a.plain.peek(1) == ("a", 1)
    assert a.plain.invalidate(1) is Outcome.DONE
    assert a.plain.peek(1) is MISS
    assert b.plain.peek(1) == ("b", 1)
    assert Repo.plain.invalidate(b, 1) is Outcome.DONE
    assert b.plain.peek(1) is MISS
    b.plain.put(("put", 1), 1)
    assert b.plain(1) == ("put", 1)
    assert b.plain.refresh(1) == ("b", 1)
    with pytest.raises(TypeError):
        Repo.plain.invalidate(1)  # type: ignore[call-arg, arg-type]


class Described:
    @cache
    def method(self) -> int:
        """The method."""
        return 1

    @classmethod
    @cache
    def of_class(cls) -> int:
        """Of the class."""
        return 1

    @cache
    async def coroutine(self) -> int:
        """To be awaited."""
        return 1

    method.short_description = "said above the decorator"  # type: ignore[attr-defined]


def test_bound_methods_have_what_the_function_has() -> None:
    bound: Any = Described().method
    assert (bound.__doc__, Described().coroutine.__doc__, Described.of_class.__doc__) == (
        "The method.", "To be awaited.", "Of the class.",
    )  # fmt: skip
    assert (bound.__name__, bound.__qualname__) == ("method", "Described.method")
    assert bound.short_description == Described.method.short_description  # type: ignore[attr-defined]
    assert bound.__wrapped__ is Described.method.__wrapped__  # type: ignore[attr-defined]
    for signature in (inspect.signature(bound), inspect.signature(Described.of_class)):
        assert str(signature) == "() -> int"
    assert str(inspect.signature(Described.method)) == "(self) -> int"
    assert CachedFunction.__doc__ is not None
    assert CachedFunction.__doc__.startswith("What `@cache` makes")
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = bound.other


def test_an_ignored_self_shares_entries_between_instances() -> None:
    before = Repo.runs
    assert Repo("a").shared(5) == Repo("b").shared(5) == 5
    assert Repo.runs == before + 1


def test_class_methods_work_in_both_orders_and_know_their_class() -> None:
    assert (Repo.above(1), Sub.above(1), Sub().above(1)) == (("Repo", 1), ("Sub", 1), ("Sub", 1))
    assert (Repo.below(1), Sub.below(1), Sub().below(1)) == (("Repo", 1), ("Sub", 1), ("Sub", 1))
    assert Sub.above.peek(1) == ("Sub", 1)
    assert Sub.above.invalidate(1) is Outcome.DONE
    assert Sub.above.peek(1) is MISS
    assert Repo.above.peek(1) == ("Repo", 1)


def test_static_methods_work_through_class_and_instance() -> None:
    assert Repo.static(1) == Repo().static(1) == 1
    assert Repo.static.cache_info().misses == 1
    assert Repo.static.invalidate(1) is Repo().static.invalidate(1) is Outcome.DONE


async def test_async_methods_and_their_blocking_twin() -> None:
    a = Repo("a")
    assert inspect.iscoroutinefunction(Repo.coroutine.__wrapped__)  # type: ignore[attr-defined]
    assert await a.coroutine(1) == ("a", 1)
    assert await a.coroutine.peek(1) == ("a", 1)
    assert a.coroutine.twin().peek(1) == ("a", 1)
    assert a.coroutine.twin().invalidate(1) is Outcome.DONE
    assert await a.coroutine.peek(1) is MISS


def test_properties_go_above() -> None:
    repo = Repo("p")
    assert repo.prop == repo.prop
    with pytest.raises(TypeError, match="@property"):
        cache(property(lambda self: 1))  # type: ignore[call-overload]


# Attributes


def test_attributes_of_a_cached_function() -> None:
    assert module_level.__name__ == "module_level"
    assert module_level.__doc__ == "Adds nothing."
    assert str(inspect.signature(module_level)) == "(a: int, b: int = 2, *, c: int = 3) -> list[int]"
    assert isinstance(module_level, CachedFunction)
    assert not isinstance(module_level, AsyncCachedFunction)
    assert module_level.region is region("default")
    assert pickle.loads(pickle.dumps(module_level)) is module_level
    assert module_level(1) == [1, 2, 3]
    assert module_level.cache_info()[:2] == (0, 1)
    assert module_level(1) == [1, 2, 3]
    info = module_level.cache_info()
    assert info == (1, 1, 10_000, 1)
    assert (info.l1_hits, info.l2_hits, info.errors) == (1, 0, 0)
    assert module_level.cache_parameters()["maxsize"] == 10_000
    assert module_level.cache_clear() is None
    assert module_level.peek(1) is MISS


def test_cache_clear_begins_the_counts_of_cache_info_anew_but_not_those_of_the_metrics() -> None:
    @cache
    def f(x: int) -> int:
        return 1 // x

    with pytest.raises(ZeroDivisionError):
        f(0)
    assert [f(1), f(1), f(2)] == [1, 1, 0]
    info = f.cache_info()
    assert (info, info.l1_hits, info.errors) == ((1, 3, 10_000, 2), 1, 1)
    f.cache_clear()
    info = f.cache_info()
    assert (info, info.l1_hits, info.errors) == ((0, 0, 10_000, 0), 0, 0)
    assert [f(1), f(1)] == [1, 1]
    info = f.cache_info()
    assert (info, info.l1_hits, info.errors) == ((1, 1, 10_000, 1), 1, 0)
    (tally,) = [each for each in default_service().tallies() if each.function.endswith("<locals>.f")]
    assert tally.counted() == (2, 0, 4, 1, 0)


def test_without_l1_this_process_keeps_nothing() -> None:
    @cache(backend=None, l1={"mode": "off"})
    def f(x: int) -> int:
        return x

    assert [f(1), f(1)] == [1, 1]
    assert f.cache_info() == (0, 2, 0, 0)
    assert f.cache_parameters()["maxsize"] == 0


def test_keys_reach_an_entry_from_its_region() -> None:
    module_level(1)
    key = module_level.key(1)
    assert key == module_level.key(a=1, b=2, c=3)
    assert region().get(key) == [1, 2, 3]
    region().set(key, ["set"])
    assert module_level(1) == ["set"]
    assert region().delete(key) is Outcome.DONE
    assert module_level.peek(1) is MISS


async def test_async_functions_are_coroutine_functions() -> None:
    @cache
    async def load(x: int) -> int:
        return x

    assert inspect.iscoroutinefunction(load)
    assert isinstance(load, AsyncCachedFunction)
    assert await load(1) == await load(1) == 1
    assert await load.peek(1) == 1
    await load.put(5, 1)
    assert await load(1) == 5
    assert await load.refresh(1) == 1
    assert await load.invalidate(1) is Outcome.DONE
    assert await load.invalidate_all() is Outcome.DONE
    assert load.key(1) == load.key(x=1)
    assert load.cache_info().misses >= 1
    assert load.cache_clear() is None


async def test_the_twin_of_a_blocking_function_can_be_awaited() -> None:
    runs = Counted()

    @cache
    def load(x: int) -> int:
        return int(runs())

    assert await load.twin()(1) == load(1) == 1
    assert await load.twin().invalidate(1) is Outcome.DONE
    assert await load.twin()(1) == 2


def test_the_twin_of_an_async_function_runs_it_where_no_loop_runs() -> None:
    @cache
    async def load(x: int) -> int:
        return x

    assert load.twin()(1) == load.twin()(1) == 1
    assert load.cache_info().misses == 1


def test_a_tenant_is_told_by_a_callable() -> None:
    with pytest.raises(TypeError, match="tenant= must be callable, not str"):
        cache(tenant="acme")  # type: ignore[call-overload]


def test_options_that_contradict_each_other_are_refused_at_decoration() -> None:
    with pytest.raises(ConfigError, match=r"^soft_timeout: longer than hard_timeout \(1 s\)$"):
        cache(soft_timeout=2, hard_timeout=1)
    with pytest.raises(ConfigError, match=r"^outage = 'fallback' needs something to give: fallback="):
        cache(outage="fallback")
    cache(outage="fallback", fallback=None)


@pytest.mark.parametrize("options", [{"swr": True}, {"stale_on_error": True}])
def test_options_that_their_profile_contradicts_are_refused_at_the_first_call(options: dict[str, Any]) -> None:
    @cache(**options)
    def bare(x: int) -> int:
        return x

    @cache(profile="production", **options)
    def complete(x: int) -> int:
        return x

    with pytest.raises(ConfigError, match=rf"bare: {next(iter(options))}: needs stale_ttl"):
        bare(1)
    assert complete(1) == 1


def test_a_fallback_is_a_value_or_a_plain_callable() -> None:
    async def later() -> int:
        return 1

    with pytest.raises(TypeError, match="a value or a plain callable of the arguments, since nobody may wait for it"):
        cache(fallback=later)


# Options


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"tttl": 1}, "ttl"),
        ({"expire": 1}, "ttl"),
        ({"timeout": 1}, "ttl"),
        ({"maxsize": 1}, "max_entries"),
        ({"noself": True}, "ignore"),
        ({"ignore": "self"}, "ignore"),
        ({"key": "user"}, "callable"),
        ({"version": 1.5}, "version"),
        ({"profile": 5}, "profile"),
    ],
)
def test_an_unknown_or_misused_option_is_a_type_error_with_a_hint(options: dict[str, Any], hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        cache(**options)(lambda x: x)


@pytest.mark.parametrize("ttl", [0, -1, True, "5 parsecs", float("nan"), "0s"])
def test_a_ttl_that_is_none_is_refused(ttl: Any) -> None:
    with pytest.raises(ConfigError):
        cache(ttl=ttl)


def test_a_profile_by_position_is_a_type_error_that_says_profile() -> None:
    with pytest.raises(TypeError, match="profile='users'"):
        cache("users")  # type: ignore[call-overload]


@pytest.mark.parametrize("bad", [int, (x for x in ()), 5])
def test_what_cannot_be_cached_is_refused_at_decoration(bad: Any) -> None:
    with pytest.raises(TypeError):
        cache(bad)


def test_generators_are_refused_at_decoration() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def anumbers() -> Any:
        yield 1

    for function in (numbers, anumbers):
        with pytest.raises(TypeError, match="generator"):
            cache(function)


def test_only_built_in_profiles_are_attributes() -> None:
    assert cache.local(ttl=5)(lambda x: x)(1) == 1
    with pytest.raises(AttributeError, match="profile='users'"):
        cache.users  # type: ignore[attr-defined]


def test_an_unknown_profile_is_an_error_at_the_first_call_and_at_start() -> None:
    @cache(profile="usres")
    def f(x: int) -> int:
        return x

    with pytest.raises(ConfigError, match="did you mean 'users'"):
        f(1)
    from cachekit.process import default_service

    with pytest.raises(ConfigError, match="usres"):
        default_service().start()


def test_a_ttl_ends_an_entry(clock: FrozenClock) -> None:
    runs = Counted()

    @cache(profile="users", ttl="5m")
    def f(x: int) -> int:
        return int(runs())

    assert f(1) == 1
    clock.advance("299s")
    assert f(1) == 1
    clock.advance("1s")
    assert f(1) == 2


def test_never_means_never(clock: FrozenClock) -> None:
    runs = Counted()

    @cache(ttl=None)
    def f(x: int) -> int:
        return int(runs())

    f(1)
    clock.advance("3650d")
    assert f(1) == 1


def test_a_ttl_may_depend_on_the_value(clock: FrozenClock) -> None:
    @cache(profile="users", ttl=lambda value: value)
    def f(x: int) -> int:
        return x

    f(10)
    f(20)
    clock.advance(15)
    assert f.peek(10) is MISS
    assert f.peek(20) == 20


def test_condition_and_no_store_keep_a_value_out() -> None:
    from cachekit import current_entry

    runs = Counted()

    @cache(condition=lambda value: value % 2 == 0)
    def even(x: int) -> int:
        runs()
        return x

    @cache
    def never(x: int) -> int:
        current_entry().no_store()
        return int(runs())

    assert even(1) == even(1) == 1
    assert runs.runs == 2
    assert even(2) == even(2) == 2
    assert runs.runs == 3
    assert never(1) != never(1)


def test_the_function_may_set_the_life_of_its_entry(clock: FrozenClock) -> None:
    from cachekit import current_entry

    @cache(profile="users")
    def f(x: int) -> int:
        current_entry().ttl = "10s"
        return x

    f(1)
    clock.advance(11)
    assert f.peek(1) is MISS
    with pytest.raises(RuntimeError, match="inside"):
        current_entry()


def test_none_is_cached_unless_the_profile_says_otherwise(clock: FrozenClock) -> None:
    runs = Counted()

    def f(x: int) -> None:
        runs()

    cached = cache(profile="users")(f)
    assert cached(1) is cached(1) is None
    assert runs.runs == 1
    uncached = cache(profile="users", cache_none=False, version=2)(f)
    assert uncached(1) is uncached(1) is None
    assert runs.runs == 3
    short = cache(profile="users", negative_ttl="5s", version=3)(f)
    assert short(1) is None
    clock.advance(6)
    assert short(1) is None
    assert runs.runs == 5


def test_a_function_with_bounds_of_its_own_has_its_own_table() -> None:
    @cache(max_entries=2)
    def f(x: int) -> int:
        return x

    for x in range(10):
        f(x)
    assert f.cache_info().maxsize == 2
    assert f.cache_info().currsize <= 2


def test_entries_in_a_table_of_its_own_go_with_the_function() -> None:
    class Value:
        pass

    class Shop:
        def __init__(self) -> None:
            self.price = cache(max_entries=2, isolation="share")(self.price)  # type: ignore[method-assign]

        def price(self, x: int) -> Value:
            return Value()

    shop = Shop()
    value = weakref.ref(shop.price(1))
    gc.collect()
    assert shop.price(1) is value()
    del shop
    gc.collect()
    assert value() is None


def test_a_new_version_starts_fresh() -> None:
    def f(x: int) -> int:
        return x

    assert cache(f).key(1) != cache(version=2)(f).key(1) != cache(version="2b")(f).key(1)


def test_a_decorated_function_follows_a_new_configuration() -> None:
    assert module_level(7) == [7, 2, 3]
    replace_default(Service(ServiceSpec(regions=built_in_regions())))
    assert module_level.peek(7) is MISS
    assert module_level(7) == [7, 2, 3]


def test_a_disabled_service_only_calls() -> None:
    replace_default(Service(ServiceSpec(regions=built_in_regions(), enabled=False)))
    runs = Counted()

    @cache
    def f(x: int) -> int:
        return int(runs())

    assert (f(1), f(1)) == (1, 2)
    assert region().get_or_set("k", lambda: 5) == 5
    assert region().get("k") is None


def test_functools_wraps_and_partial_work_on_top() -> None:
    wrapped = functools.wraps(module_level)(lambda *args: module_level(*args))
    assert wrapped(1) == [1, 2, 3]
    assert functools.partial(module_level, 1)() == [1, 2, 3]


# Isolation


def test_changing_a_result_at_any_depth_changes_nobody_elses() -> None:
    @cache
    def f(x: int) -> dict[str, Any]:
        return {"a": [{"b": [1, 2]}], "t": ([1],), "s": {1}}

    first = f(1)
    first["a"][0]["b"].append(3)
    first["t"][0].append(2)
    first["s"].add(2)
    first["new"] = 1
    second = f(1)
    assert second == {"a": [{"b": [1, 2]}], "t": ([1],), "s": {1}}
    second["a"].clear()
    assert f(1)["a"] == [{"b": [1, 2]}]
    peeked = f.peek(1)
    assert peeked is not MISS
    peeked.clear()
    assert f(1)["a"]
