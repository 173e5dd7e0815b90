"""Exceptions and None that are answers, and values that are not to be stored."""

import sys
import threading
import traceback
from types import ModuleType
from typing import Any

import pytest
from limits_rig import LONG, Cached, Source, World, choose, inner, made_world  # noqa: F401  # a fixture

from cachekit import MISS, CacheLoadTimeout, current_entry
from cachekit.engine import raised as remembered

MODES = ["l1", "server"]


class NotFound(LookupError):
    """No answer is one too."""


class Gone(NotFound):
    """A kind of it."""


class NoUser(Exception):
    """Its constructor takes something else than what the exception keeps."""

    def __init__(self, user_id: int, *, hint: str) -> None:
        super().__init__(f"no user {user_id}, {hint}")
        self.user_id = user_id


class Status(Exception):
    """As web frameworks have it."""

    def __init__(self, code: int, headers: dict[str, str] | None = None) -> None:
        self.code = code
        self.headers = headers


class Strict(Exception):
    """Cannot be made of what it keeps."""

    def __new__(cls, number: int) -> "Strict":
        made = super().__new__(cls, number)
        made.args = ("text", "and more")
        return made

    def __init__(self, number: int) -> None:
        pass


NAME = f"{__name__}.NotFound"
REMEMBER = {NAME: 30}


def failing(world: World, error: BaseException | None, mode: str = "l1", **options: Any) -> Cached:
    names = {f"{__name__}.{name}": 30 for name in ("NotFound", "NoUser", "Status", "Strict")}
    options = {"negative_exceptions": {**names, "OSError": 30, "UnicodeError": 30}, "ttl": 300, **options}
    load = world.cached(world.service(mode), **options)
    load.source.error = error
    return load


def raised(load: Cached, key: int = 1) -> BaseException:
    with pytest.raises(Exception) as caught:  # which one is for the test to say
        load(key)
    return caught.value


@pytest.mark.parametrize("mode", MODES)
def test_the_fact_is_kept_and_raised_as_a_fresh_instance_each_time(world: World, mode: str) -> None:
    load = failing(world, NotFound("user", 7), mode)
    first, second, third = raised(load), raised(load), raised(load)
    assert load.source.runs == 1
    assert len({id(error) for error in (first, second, third)}) == 3
    assert {type(error) for error in (second, third)} == {NotFound}
    assert second.args == third.args == ("user", 7)
    assert second.__context__ is second.__cause__ is None
    lengths = {len(traceback.extract_tb(error.__traceback__)) for error in (second, third)}
    assert len(lengths) == 1, "no traceback grows"
    assert "_end" not in "".join(traceback.format_tb(third.__traceback__)), "nor tells of the run that raised it"


@pytest.mark.parametrize("mode", MODES)
def test_it_is_kept_for_its_own_time(world: World, mode: str) -> None:
    load = failing(world, NotFound(), mode, stale_ttl=600)
    raised(load)
    world.clock.advance(29)
    raised(load)
    assert load.source.runs == 1
    world.clock.advance(2)
    load.source.error = None
    assert load(1) == "run 2"


def test_another_process_knows_it_too(world: World) -> None:
    load = failing(world, NotFound("user", 7), "server")
    raised(load)
    other = world.cached(world.service("server"), like=load, negative_exceptions=REMEMBER, ttl=300)
    error = raised(other)
    assert (type(error), error.args) == (NotFound, ("user", 7))
    assert raised(other) is not error
    assert other.source.runs == 0
    assert other.tally.l2_hits == 1


@pytest.mark.parametrize("mode", MODES)
def test_subclasses_count_by_the_nearest_class_that_is_named(world: World, mode: str) -> None:
    names = {"LookupError": 100, NAME: 10, "Exception": 1000}
    load = failing(world, Gone("x"), mode, negative_exceptions=names)
    assert (type(raised(load)), type(raised(load))) == (Gone, Gone)
    world.clock.advance(11)
    raised(load)
    assert load.source.runs == 2


def unicode_error() -> UnicodeError:
    return UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (NoUser(7, hint="was deleted"), ["user_id"]),
        (Status(404, headers={"Retry-After": "1"}), ["code", "headers"]),
        (Status(code=404), ["code", "headers"]),
        (Strict(1), []),
        (FileNotFoundError(2, "No such file"), ["errno", "strerror"]),
        (unicode_error(), ["start", "reason", "object"]),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, Exception) else "",
)
def test_it_is_the_same_whatever_its_constructor_takes(
    world: World, mode: str, error: Exception, kept: list[str]
) -> None:
    load = failing(world, error, mode)
    raised(load)
    copies = [raised(load)]
    if mode == "server":
        options = {"negative_exceptions": dict(inner(load.function).at().tiers.spec.freshness.negative_exceptions)}
        copies.append(raised(world.cached(world.service("server"), like=load, ttl=300, **options)))
    assert load.source.runs == 1
    for copy in copies:
        assert (type(copy), str(copy), copy.args) == (type(error), str(error), error.args)
        assert [getattr(copy, name) for name in kept] == [getattr(error, name) for name in kept]


@pytest.mark.parametrize("mode", MODES)
def test_what_one_caller_changes_nobody_else_sees(world: World, mode: str) -> None:
    load = failing(world, Status(404, {"a": "b"}), mode)
    raised(load)
    raised(load).headers.clear()  # type: ignore[attr-defined]
    assert raised(load).headers == {"a": "b"}  # type: ignore[attr-defined]


class Local:
    """A class that no name leads to."""

    @staticmethod
    def error() -> Exception:
        class Hidden(NotFound):
            pass

        return Hidden()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("unfit", ["a lock", "a local class", "another class"])
def test_one_that_could_not_be_raised_again_is_not_kept(
    world: World, mode: str, unfit: str, caplog: pytest.LogCaptureFixture
) -> None:
    reloaded = type("NotFound", (NotFound,), {"__module__": __name__, "__qualname__": "NotFound"})
    error = {
        "a lock": NotFound(threading.Lock()),
        "a local class": Local.error(),
        "another class": reloaded(),  # than the one that its name leads to
    }[unfit]
    load = failing(world, error, mode, on_unstorable="raise")
    assert [raised(load), raised(load)] == [error, error]
    assert load.source.runs == 2
    assert load.tally.errors["store", "unstorable"] == 2
    assert not load.flights


def test_nothing_is_kept_where_its_module_is_not_loaded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("answers_of_a_writer")
    exec("class NotHere(Exception): pass", vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    options = {"negative_exceptions": {"answers_of_a_writer.NotHere": 30}}
    load = failing(world, module.NotHere("x"), "server", **options)
    raised(load)
    raised(load)
    assert load.source.runs == 1
    monkeypatch.delitem(sys.modules, module.__name__)
    other = world.cached(world.service("server"), like=load, ttl=300, **options)
    assert other(1) == "run 1"
    assert "answers_of_a_writer" not in sys.modules


def test_nothing_is_kept_where_its_class_is_another_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("answers_that_changed")
    exec("class NotHere(Exception): pass", vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    options = {"negative_exceptions": {"answers_that_changed.NotHere": 30}}
    load = failing(world, module.NotHere("x"), "server", **options)
    raised(load)
    exec("class NotHere: pass", vars(module))
    other = world.cached(world.service("server"), like=load, ttl=300, **options)
    assert other(1) == "run 1"
    assert type(raised(load)).__name__ == "NotHere", "who raised it goes on with its own"
    assert load.source.runs == 1


class Lazy(ModuleType):
    """Imports what it is asked for."""

    def __getattribute__(self, name: str) -> Any:
        ran.append(name)
        return super().__getattribute__(name)


class Proxy:
    """As lazy objects of frameworks: whoever asks for its class or its attributes runs its code."""

    def __getattribute__(self, name: str) -> Any:
        ran.append(name)
        return object.__getattribute__(self, name)


class Runs(NotFound):
    def __new__(cls, *args: object) -> "Runs":
        ran.append("__new__")
        return super().__new__(cls, *args)

    def __init__(self, *args: object) -> None:
        ran.append("__init__")


ran: list[str] = []


def test_reading_one_that_somebody_forged_runs_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = Lazy("lazy_answers")
    vars(lazy)["proxy"] = Proxy()
    monkeypatch.setitem(sys.modules, "lazy_answers", lazy)
    monkeypatch.setitem(sys.modules, "proxy_answers", Proxy())
    monkeypatch.setitem(sys.modules, "no_answers", 5)
    load = failing(world, NotFound("x"), "server", negative_exceptions={NAME: 30})
    spec = inner(load.function).at().tiers.spec
    ran.clear()
    for name in (
        "lazy_answers.Absent",
        "lazy_answers.proxy.X",
        "proxy_answers.X",
        "no_answers.X",
        "no_answers.X.Y",
        ".",
        "",
    ):
        assert remembered.read([name, [], {}], spec) is None
    found = remembered.read([f"{__name__}.Runs", ["of a forger"], {"note": 1}], spec)
    assert found is not None
    assert (type(found.error()), found.error().args, vars(found.error())) == (Runs, ("of a forger",), {"note": 1})
    assert ran == []


def test_a_name_that_is_not_configured_any_more_is_not_raised(world: World) -> None:
    load = failing(world, NotFound(), "server")
    raised(load)
    other = world.cached(world.service("server"), like=load, negative_exceptions={"OSError": 30}, ttl=300)
    assert other(1) == "run 1"
    assert other(1) == "run 1"


@pytest.mark.parametrize("mode", MODES)
def test_others_are_not_kept(world: World, mode: str) -> None:
    load = failing(world, ValueError("x"), mode)
    raised(load)
    raised(load)
    assert load.source.runs == 2


@pytest.mark.parametrize("mode", MODES)
def test_it_is_no_value(world: World, mode: str) -> None:
    load = failing(world, NotFound(), mode)
    raised(load)
    region, key = load.service.region(), load.function.key(1)
    assert load.do("peek", 1) is MISS
    assert region.get(key, "none") == "none"
    assert region.get_many([key]) == {}
    assert load.using(allow_stale=True).do("peek", 1) is MISS
    assert type(raised(load.using(allow_stale=True))) is NotFound
    assert load.source.runs == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["key", "all", "tag", "late tag", "region", "put"])
def test_it_goes_as_values_go(world: World, mode: str, way: str) -> None:
    load = failing(world, NotFound(), mode, tags=["tag"])
    if way == "late tag":
        load.source.inside = lambda: current_entry().tags.add("late")
    raised(load)
    raised(load)
    assert load.source.runs == 1
    region = load.service.region()
    {
        "key": lambda: load.do("invalidate", 1),
        "all": lambda: world.run(load.function.invalidate_all),
        "tag": lambda: region.invalidate_tags("tag"),
        "late tag": lambda: region.invalidate_tags("late"),
        "region": region.clear,
        "put": lambda: load.do("put", "put", 1),
    }[way]()
    load.source.error = None
    assert load(1) == ("put" if way == "put" else "run 2")


@pytest.mark.parametrize("mode", MODES)
def test_it_stands_in_the_place_of_a_stale_value(world: World, mode: str) -> None:
    load = failing(world, None, mode, ttl=60, stale_ttl=600)
    load(1)
    world.clock.advance(61)
    load.source.error = NotFound()
    assert type(raised(load)) is NotFound
    assert type(raised(load.using(allow_stale=True))) is NotFound
    assert load.source.runs == 2


@pytest.mark.parametrize("mode", MODES)
def test_what_the_function_asks_of_its_entry_goes_for_its_exception(world: World, mode: str) -> None:
    load = failing(world, NotFound(), mode)

    def shorter() -> None:
        current_entry().ttl = 2

    load.source.inside = shorter
    raised(load)
    raised(load)
    assert load.source.runs == 1
    world.clock.advance(2.5)
    raised(load)
    assert load.source.runs == 2
    world.clock.advance(2.5)
    load.source.inside = lambda: current_entry().no_store()
    raised(load)
    raised(load)
    assert load.source.runs == 4


@pytest.mark.parametrize("mode", MODES)
def test_one_that_comes_behind_is_kept_as_well(world: World, mode: str) -> None:
    load = failing(world, NotFound(), mode, hard_timeout=0.05)
    load.source.hold()
    assert type(raised(load)) is CacheLoadTimeout
    load.source.release()
    world.settle()
    assert type(raised(load)) is NotFound
    assert load.source.runs == 1


@pytest.mark.parametrize("mode", MODES)
def test_all_who_wait_have_it(world: World, mode: str) -> None:
    load = failing(world, NotFound("x"), mode)
    load.source.hold()
    callers = [load.start(1) for _ in range(5)]
    load.gather(5)
    load.source.release()
    assert [type(caller.exception(LONG)) for caller in callers] == [NotFound] * 5
    assert load.source.runs == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_refresh_that_brings_it_keeps_it(world: World, mode: str) -> None:
    load = failing(world, None, mode)
    load(1)
    load.source.error = NotFound()
    with pytest.raises(NotFound):
        load.do("refresh", 1)
    assert type(raised(load)) is NotFound
    assert load.source.runs == 2


# None


@pytest.mark.parametrize("mode", MODES)
def test_none_is_kept_as_long_as_values_or_for_its_own_time_or_not_at_all(world: World, mode: str) -> None:
    service = world.service(mode)
    for options, runs in (({}, [1, 1, 2]), ({"negative_ttl": 10}, [1, 2, 3]), ({"cache_none": False}, [2, 3, 4])):
        load = world.cached(service, Source(lambda run: None), ttl=60, **options)
        seen = []
        assert load(1) is None
        for seconds in (5, 10, 60):
            world.clock.advance(seconds)
            load(1)
            seen.append(load.source.runs)
        assert seen == runs, options


# What is not stored


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["no_store", "condition", "cache_none"])
def test_callers_of_what_is_not_stored_do_not_queue(world: World, mode: str, way: str) -> None:
    options: dict[str, Any] = {
        "condition": {"condition": lambda value: False},
        "cache_none": {"cache_none": False},
    }.get(way, {})
    load = world.cached(world.service(mode), Source(lambda run: None if way == "cache_none" else run), **options)
    if way == "no_store":
        load.source.inside = lambda: current_entry().no_store()
    load(1)
    load.source.hold()
    callers = [load.start(1) for _ in range(8)]
    world.until(lambda: load.source.runs == 9)  # all at the same time
    load.source.release()
    values = [caller.result(LONG) for caller in callers]
    assert len(set(values)) == (1 if way == "cache_none" else 8)
    assert load.do("peek", 1) is MISS
    world.clock.advance(5.1)
    load.source.hold()
    callers = [load.start(1) for _ in range(8)]
    load.gather(8)
    load.source.release()
    assert len({caller.result(LONG) for caller in callers}) == 1
    assert load.source.runs == 10, "it may be another one by now"


@pytest.mark.parametrize("mode", MODES)
def test_what_is_not_stored_has_its_limits_too(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), condition=lambda value: False, hard_timeout=0.05)
    load(1)
    load.source.hold()
    assert type(raised(load)) is CacheLoadTimeout
    load.source.release()
    world.settle()
    assert load.source.ended == 2


@pytest.mark.parametrize("mode", MODES)
def test_another_key_is_not_concerned(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), condition=lambda value: value != "run 1")
    assert [load(1), load(2), load(2)] == ["run 1", "run 2", "run 2"]


@pytest.mark.parametrize("mode", MODES)
def test_a_value_that_may_be_stored_again_is(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), condition=lambda value: value != "run 1")
    load(1)
    load(1)
    world.clock.advance(5.1)
    value = load(1)
    assert load(1) == value
    load.do("invalidate", 1)
    assert load(1) != value


@pytest.mark.parametrize("mode", MODES)
def test_a_ttl_of_the_value(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), Source(lambda run: {"ttl": 10 * run}), ttl=lambda value: value["ttl"])
    assert load(1) == {"ttl": 10}
    world.clock.advance(11)
    assert load(1) == {"ttl": 20}
    world.clock.advance(11)
    assert load(1) == {"ttl": 20}
    world.clock.advance(11)
    assert load(1) == {"ttl": 30}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("option", ["ttl", "condition"])
def test_a_mistake_in_an_option_reaches_the_caller_and_is_counted(world: World, mode: str, option: str) -> None:
    load = world.cached(world.service(mode), **{option: lambda value: 1 / 0})
    assert type(raised(load)) is ZeroDivisionError
    assert load.tally.errors["load", "ZeroDivisionError"] == 1
    assert not load.flights


@choose("sync-native", "sync-pure")
def test_an_exception_with_many_callers_is_one_run(world: World) -> None:
    load = failing(world, NotFound("x"))
    callers = [load.start(key % 4) for key in range(200)]
    assert {type(caller.exception(LONG)) for caller in callers} == {NotFound}
    assert load.source.runs == 4
