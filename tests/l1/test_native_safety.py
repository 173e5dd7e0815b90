"""Whatever Python code does while the native core is at work, the process lives and nobody gets another's value.

What frees memory that is still in use may go unnoticed here; the last test runs all the others with an allocator that
overwrites what was freed.
"""

import asyncio
import collections
import copy
import ctypes
import gc
import importlib.util
import inspect
import itertools
import math
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
from l1_rig import TWINS, Rig

from cachekit.engine.miss import MISS
from cachekit.l1.values import Admission
from cachekit.l1.views import NEVER

if "native" not in TWINS:
    pytest.skip("there is no native core here", allow_module_level=True)

from cachekit import _native
from cachekit.l1 import native

pytestmark = pytest.mark.slow

LIGHT = Admission("opaque", 1, False)
since_3_12 = pytest.mark.skipif(sys.version_info < (3, 12), reason="async functions get a shell before Python 3.12")


def new(**options: Any) -> Rig:
    return Rig(native, **options)


def whole(r: Rig) -> None:
    """What the table says of itself is consistent, and it still works."""
    stats = r.table.stats()
    assert stats.entries == len(r.table)
    assert stats.weight == r.table.weight
    assert r.put("still works", value="yes", admission=LIGHT)
    assert r.get("still works") == "yes"


def churn() -> list[bytes]:
    """Fill what was freed with something else."""
    return [bytes([number % 256]) * (number % 700) for number in range(2000)]


class Bound:
    """A memo over a table."""

    def __init__(self, r: Rig, func: Any, *, is_async: bool = False, **options: Any) -> None:
        self.slow: list[Any] = []
        self.memo = native.compile_memo(func, inspect.signature(func), self.on_slow, is_async=is_async, **options)
        self.memo.bind_table(r.table, r.slot)
        self.call = self.memo.call

    def on_slow(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.slow.append((args, kwargs))
        return "slow"


def one(x: Any) -> Any:
    raise AssertionError


class Key:
    """Acts when it is compared or hashed, once; compares by its number."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.on_eq: Callable[[], object] | None = None
        self.on_hash: Callable[[], object] | None = None

    def __hash__(self) -> int:
        act, self.on_hash = self.on_hash, None
        if act is not None:
            act()
        return 5

    def __eq__(self, other: object) -> bool:
        act, self.on_eq = self.on_eq, None
        if act is not None:
            act()
        return isinstance(other, Key) and other.number == self.number


class Stage:
    """A table, a memo over it, an entry; all of it can be let go from inside of a call."""

    def __init__(self) -> None:
        self.armed: Callable[[], object] | None = None
        self.r: Any = new(clock=self.clock, skip=self.skip, max_entries=50)
        self.bound: Any = Bound(self.r, one)
        self.call = self.bound.call
        self.stored: Any = Key()
        self.r.put(self.stored, value=("value", 0), khash=1, admission=LIGHT)
        self.r.put(7, value=("value", 7), khash=7, admission=LIGHT)

    def act(self) -> None:
        act, self.armed = self.armed, None
        if act is not None:
            act()

    def clock(self) -> int:
        self.act()
        return 1_000

    def skip(self) -> bool:
        self.act()
        return False

    def let_go(self) -> None:
        self.bound.memo.unbind()
        self.r = self.bound = self.call = self.stored = None
        gc.collect()

    def rebind(self) -> None:
        other = new(max_entries=3)
        other.put(Key(), value=("value", 0), admission=LIGHT)
        self.bound.memo.bind_table(other.table, other.slot)
        self.r = other
        gc.collect()

    def many(self) -> None:
        for number in range(300):
            self.r.put(number + 1000, value=("value", number + 1000), admission=LIGHT)

    def replace(self) -> None:
        self.r.put(Key(), value=("value", 0), khash=1, admission=LIGHT)
        self.r.put(7, value=("value", 7), khash=7, admission=LIGHT)


ACTS: dict[str, Callable[[Stage], object]] = {
    "unbind": lambda s: s.bound.memo.unbind(),
    "let go": Stage.let_go,
    "rebind": Stage.rebind,
    "put many": Stage.many,
    "replace": Stage.replace,
    "drop": lambda s: s.r.table.drop(s.r.slot, (Key(),)),
    "drop_key": lambda s: (s.r.table.drop_key(1), s.r.table.drop_key(7)),
    "drop_slot": lambda s: s.r.table.drop_slot(s.r.slot),
    "clear": lambda s: s.r.table.clear(),
    "reset": lambda s: s.r.table.reset(),
    "clear and put": lambda s: (s.r.table.clear(), s.replace()),
    "new slots": lambda s: [s.r.table.slot(f"slot {number}") for number in range(200)],
    "call again": lambda s: s.call(Key()),
    "watch": lambda s: s.r.table.watch(True),
    "bump": lambda s: s.r.versions.bump_all(),
    "raise": lambda s: 1 // 0,
    "new lock": lambda s: s.r.versions.reset_lock(),
}
DOINGS: dict[str, Callable[[Stage, Any], Any]] = {
    "call": lambda s, key: s.call(key),
    "call by name": lambda s, key: s.call(x=key),
    "get": lambda s, key: s.r.table.get(s.r.slot, (key,)),
    "get in a tuple": lambda s, key: s.r.table.get(s.r.slot, ((key,),)),
    "entry": lambda s, key: (view := s.r.table.entry(s.r.slot, (key,))) and view.value,
    "drop": lambda s, key: s.r.table.drop(s.r.slot, (key,)),
    "put": lambda s, key: s.r.put(key, value=("value", 0), khash=1, admission=LIGHT),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("doing", DOINGS)
@pytest.mark.parametrize("where", ["eq", "hash", "clock", "skip", "clock of a plain key"])
def test_python_code_inside_of_an_operation_may_do_anything(doing: str, act: str, where: str) -> None:
    s = Stage()
    asked: Any = Key()

    def armed() -> None:
        ACTS[act](s)
        churn()

    if where == "eq":
        s.stored.on_eq = armed
    elif where == "hash":
        asked.on_hash = armed
    else:
        s.r.table.watch(where == "skip")
        if where == "clock of a plain key":
            asked = 7
        s.armed = armed
    try:
        found = DOINGS[doing](s, asked)
    except ZeroDivisionError:
        found = None
    assert found in (("value", 0), ("value", 7), "slow", MISS, None, True, False)
    if type(found) is tuple:
        assert found[1] == (7 if asked == 7 else 0)
    s.armed = None  # not every operation asks for it
    if s.r is not None:
        s.r.table.watch(False)
        whole(s.r)


def test_a_comparison_that_always_changes_the_table_comes_to_an_end() -> None:
    """Other threads change it all the time, too."""
    r = new(max_entries=10**6)
    bound = Bound(r, one)
    numbers = itertools.count()

    class Busy:
        def __init__(self, number: int) -> None:
            self.number = number

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            number = next(numbers)
            assert number < 1000, "it goes on for ever"
            r.put(f"key {number}", admission=LIGHT)
            r.table.drop(r.slot, (f"key {number - 1}",))
            return isinstance(other, Busy) and other.number == self.number

    for number in range(5):
        assert r.put(Busy(number), value=number, admission=LIGHT)
    assert [r.get(Busy(number)) for number in range(6)] == [0, 1, 2, 3, 4, MISS]
    assert [bound.call(Busy(number)) for number in range(6)] == [0, 1, 2, 3, 4, "slow"]
    assert r.table.drop(r.slot, (Busy(3),))
    assert r.get(Busy(3)) is MISS
    whole(r)


def test_the_same_key_put_from_inside_of_its_own_insertion_is_there_once() -> None:
    r = new()
    stored, asked = Key(1), Key(0)
    r.put(stored, value="other", admission=LIGHT)
    stored.on_eq = lambda: r.put(Key(0), value="inner", admission=LIGHT)
    assert r.put(asked, value="outer", admission=LIGHT)
    assert r.get(Key(0)) == "outer"
    assert len(r.table) == 2
    assert r.table.drop(r.slot, (Key(0),))
    assert r.get(Key(0)) is MISS


def test_the_only_reference_to_an_argument_may_go_with_the_entry() -> None:
    class Last:
        gone = 0

        def __del__(self) -> None:
            Last.gone += 1
            r.table.clear()
            r.put(1, value=Last() if Last.gone < 5 else "end", admission=LIGHT)

    r = new(max_entries=3)
    bound = Bound(r, one)
    for number in range(20):
        r.put(number % 4, value=Last(), khash=number % 4, admission=LIGHT)
        r.table.drop_key(number % 5)
        bound.call(number % 4)
        del number
    r.table.clear()
    assert Last.gone > 5
    whole(r)


def test_values_may_let_go_of_the_table_and_of_the_memo_when_they_die() -> None:
    for kind in ("unbind", "rebind", "drop", "clear", "replace"):
        r: Any = new()
        bound: Any = Bound(r, one)
        table = weakref.ref(r.table)
        held = [r, bound]

        class Last:
            def __init__(self, held: list[Any]) -> None:
                self.held = held

            def __del__(self) -> None:
                self.held[-1].memo.unbind()
                self.held.clear()
                churn()

        r.put(1, value=Last(held), khash=1, admission=LIGHT)
        memo, versions = bound.memo, r.versions
        del r, bound
        if kind == "unbind":
            held.pop(0)
            memo.unbind()
        elif kind == "rebind":
            other = native.Table(region="r", max_entries=1, max_bytes=1, policy="lru", versions=versions)
            held.pop(0)
            memo.bind_table(other, 0)
        elif kind == "drop":
            held[0].table.drop_key(1)
        elif kind == "clear":
            held[0].table.clear()
        else:
            held[0].put(1, admission=LIGHT)
        held.clear()
        memo.unbind()
        gc.collect()
        assert table() is None


def test_what_binds_instances_may_be_replaced_while_it_binds() -> None:
    r = new()
    bound = Bound(r, one)

    class Face:
        def __get__(self, instance: object, owner: Any = None) -> Any:
            assert bound.memo.binds_by(Face())
            churn()
            return (type(self).__name__, instance)

    bound.memo.binds_by(Face())
    thing = type("Thing", (), {"f": bound.call})()
    for _ in range(10):
        assert thing.f == ("Face", thing)
    bound.memo.binds_by(5)
    assert thing.f == 5


# ------------------------------------------------------------------------------------------------------------- garbage


@pytest.fixture
def busy_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*before)
    gc.collect()


@pytest.mark.usefixtures("busy_collector")
def test_the_collector_may_run_at_every_allocation() -> None:
    async def load(x: Any) -> Any:
        raise AssertionError

    for round_ in range(30):
        r = new(max_entries=20)
        bound, ready = Bound(r, one), Bound(r, load, is_async=True)
        for number in range(10):
            value: Any = [r.table, bound.call, ready.call]
            value.append(value)
            r.put(number % 7, value=value, tags=["t"] * (number % 2), admission=LIGHT)
            r.put((number % 3, Key(number)), value=value, admission=LIGHT)
            assert bound.call(number % 7) is value
            assert r.get((number % 3, Key(number))) is value
            assert r.table.entry(r.slot, (number % 7,)).value is value
            awaitable = ready.call(number % 7)
            with pytest.raises(StopIteration) as stop:
                awaitable.send(None)
            assert stop.value.value is value
            r.table.stats()
            copy.copy(bound.call)
            repr(bound.call)
        bound.call.__dict__["itself"] = bound.call
        if round_ % 2:
            r.table.clear()


class Anchor:
    """Something whose death can be seen."""


def _cycle(kind: str) -> list[weakref.ref[Any]]:
    anchor: Any = Anchor()
    anchor.clock = lambda: 1_000
    r: Any = new(clock=lambda: anchor.clock(), skip=lambda: bool(anchor is None))
    func = one
    if kind == "default":
        func = lambda x=anchor: x  # noqa: E731
    bound = Bound(r, func)
    anchor.r, anchor.bound = r, bound
    if kind == "value":
        r.put(1, value=anchor, admission=LIGHT)
    elif kind == "key":
        r.put(anchor, value=1, admission=LIGHT)
    elif kind == "part of a key":
        r.put((1, (anchor,)), 2, value=1, admission=LIGHT)
    elif kind == "tag":
        tag: Any = type("Tag", (str,), {})("t")
        tag.anchor = anchor
        r.put(1, tags=[tag], admission=LIGHT)
    elif kind == "attribute of the memo":
        bound.call.anchor = anchor
    elif kind == "face":
        bound.memo.binds_by(anchor)
    elif kind == "memo as value":
        r.put(1, value=bound.call, admission=LIGHT)
    return [weakref.ref(anchor), weakref.ref(r.table), weakref.ref(bound.call)]


@pytest.mark.parametrize(
    "kind",
    ["clock", "value", "key", "part of a key", "tag", "attribute of the memo", "face", "default", "memo as value"],
)
def test_cycles_through_table_memo_and_values_are_collected(kind: str) -> None:
    gc.collect()
    references = _cycle(kind)
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


def test_weak_references_tell_the_end_and_may_come_back_in_then() -> None:
    ended: list[str] = []
    r: Any = new()
    bound: Any = Bound(r, one)
    r.put(1, value=bound, admission=LIGHT)
    table = weakref.ref(r.table, lambda _: ended.append("table"))
    memo = weakref.ref(bound.call, lambda _: (ended.append("memo"), gc.collect(), churn()))
    assert table() is r.table
    assert memo() is bound.call
    assert len({table, memo}) == 2
    del r, bound
    gc.collect()
    assert sorted(ended) == ["memo", "table"]
    assert table() is memo() is None


def test_long_chains_of_tables_and_memos_end_without_the_end_of_the_stack() -> None:
    versions = native.Versions()
    last: Any = "end"
    for _ in range(100_000):
        table = native.Table(region="r", max_entries=1, max_bytes=9, policy="lru", versions=versions)
        fields = {"khash": 1, "fresh_until": NEVER, "keep_until": NEVER, "ticket": 0, "admission": LIGHT}
        table.put(0, (1,), last, **fields)
        last = table
    del table, last
    last = "end"
    for _ in range(100_000):
        last = _native.Memo(None, ("x",), (last,), 1, 0, (0,), False)
    del last


def test_a_table_may_be_used_until_the_interpreter_ends() -> None:
    code = """
    import atexit, gc, inspect, sys
    from cachekit.l1 import native
    from cachekit.l1.values import Admission
    from cachekit.l1.views import NEVER
    versions = native.Versions()
    table = native.Table(region="r", max_entries=5, max_bytes=99, policy="s3fifo", versions=versions)
    def f(x): return x
    memo = native.compile_memo(f, inspect.signature(f), lambda args, kwargs: args)
    memo.bind_table(table, table.slot("f"))
    class Last:
        def __init__(self, table, call): self.table, self.call = table, call
        def __del__(self):
            self.table.clear()
            self.table.put(0, (2,), 3, khash=1, fresh_until=2**62, keep_until=2**62, ticket=0,
                           admission=("share", 1, True))
            self.call(1)
            self.table.stats()
    def put(number, value):
        table.put(table.slot("f"), (number,), value, khash=1, fresh_until=NEVER, keep_until=NEVER, ticket=0,
                  admission=Admission("opaque", 1, False))
    for number in range(9):
        put(number, Last(table, memo.call))
    sys.last = Last(table, memo.call)
    atexit.register(put, 4, Last(table, memo.call))
    """
    assert _python(code) == ""


# --------------------------------------------------------------------------------------------- interpreters, processes


def _python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, **environment}, capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_other_interpreters_of_the_process_are_refused() -> None:
    name = next(name for name in ("_interpreters", "_xxsubinterpreters") if importlib.util.find_spec(name))
    code = f"""
    import os, sys, warnings
    warnings.simplefilter("ignore")
    import {name} as interpreters
    import cachekit.l1.native  # in this one it is in use
    code = '''if True:
        import os, sys
        sys.path[:] = {{path!r}}
        try:
            from cachekit import _native
        except ImportError as error:
            os.write(1, b"refused")
        else:
            os.write(1, b"loaded")
    '''.format(path=sys.path)
    for _ in range(3):
        interpreter = interpreters.create()
        failed = interpreters.run_string(interpreter, code)
        assert failed is None, failed
        interpreters.destroy(interpreter)
    """
    assert _python(code) == "refused" * 3


def test_a_forked_child_may_import_it_and_may_go_on_with_what_was_imported() -> None:
    code = """
    import os, sys
    def use():
        from cachekit.l1 import native
        from cachekit.l1.views import NEVER
        global versions, table
        if "table" not in globals():
            versions = native.Versions()
            table = native.Table(region="r", max_entries=5, max_bytes=99, policy="s3fifo", versions=versions)
        else:
            versions.reset_lock()
            table.reset()
        for number in range(20):
            table.put(0, (number,), number, khash=1, fresh_until=NEVER, keep_until=NEVER, ticket=versions.ticket(),
                      admission=("share", 1, True))
        assert table.get(0, (19,)) == 19 and len(table) == 5
    for generation in range(3):
        child = os.fork()
        if child == 0:
            use()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        use()
    """
    assert _python(code) == ""


def test_loading_the_module_again_leaves_tables_as_they_are() -> None:
    code = """
    import importlib, sys
    from cachekit.l1 import native
    from cachekit.l1.views import NEVER
    versions = native.Versions()
    table = native.Table(region="r", max_entries=50, max_bytes=99, policy="s3fifo", versions=versions)
    keys = [(number,) for number in range(20)] + [("a",), ((1, "b"),)]
    for key in keys:
        table.put(0, key, key, khash=1, fresh_until=NEVER, keep_until=NEVER, ticket=0, admission=("share", 1, True))
    for _ in range(3):
        for name in ("cachekit._native", "cachekit.l1.native"):
            del sys.modules[name]
        importlib.import_module("cachekit.l1.native")
        assert [table.get(0, key) for key in keys] == keys
    """
    assert _python(code) == ""


def test_without_its_python_side_it_makes_nothing() -> None:
    code = """
    from cachekit import _native
    for make in (
        lambda: _native.Table(region="r", max_entries=1, max_bytes=1, policy="x", versions=_native.Versions()),
        lambda: _native.Memo(None, (), (), 0, 0, (), False),
    ):
        try:
            make()
        except RuntimeError as error:
            print(error)
    """
    assert _python(code, CACHEKIT_PURE="1").count("cachekit.l1.native") == 2


# -------------------------------------------------------------------------------------------- pickling, names, copying


def pickled(x: Any) -> Any:
    """Replaced by its memo below."""


pickled = Bound(new(), pickled).call  # type: ignore[assignment]


def test_a_memo_is_pickled_and_copied_by_its_name_as_a_function_is() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(pickled, protocol)) is pickled
    assert copy.copy(pickled) is copy.deepcopy([pickled])[0] is pickled
    local = Bound(new(), lambda x: x).call
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(local)
    assert copy.deepcopy(local) is local


def test_nothing_else_of_it_is_pickled_or_copied_or_derived_from_or_made_without_being_filled() -> None:
    r = new()
    for thing in (r.table, r.versions):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError):
                pickle.dumps(thing, protocol)
        with pytest.raises(TypeError):
            copy.deepcopy(thing)
    for kind in (_native.Table, _native.Versions, _native.Memo, _native.Ready):
        with pytest.raises(TypeError):
            type("Sub", (kind,), {})
        with pytest.raises(TypeError):
            object.__new__(kind)
        with pytest.raises(TypeError):
            kind.attribute = 1
    with pytest.raises(TypeError):
        _native.Ready()
    with pytest.raises(TypeError):
        _native.Table()
    with pytest.raises(AttributeError):
        r.table.region = "other"


def test_attributes_of_a_memo_may_be_anything() -> None:
    bound = Bound(new(), one)
    call = bound.call
    assert repr(call) == "<cached function one>"
    for name in (5, None, "\ud800", Key(), "x" * 10_000, type("Text", (str,), {})("sub")):
        call.__qualname__ = name
        assert "cached function" in repr(call)
    del call.__qualname__
    assert repr(call) == "<cached function>"
    with pytest.raises(AttributeError):
        call.__reduce__()
    call.__dict__ = {"other": 1}
    assert call.other == 1
    with pytest.raises(TypeError):
        call.__dict__ = 5
    with pytest.raises(TypeError):
        del call.__dict__
    assert call(1) == "slow"
    assert sys.getsizeof(call) > 100


# ---------------------------------------------------------------------------------------------------------- exceptions


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError])
@pytest.mark.parametrize("where", ["eq", "hash", "clock", "skip"])
@pytest.mark.parametrize("doing", DOINGS)
def test_what_comes_from_outside_reaches_the_caller(doing: str, where: str, error: type[BaseException]) -> None:
    s = Stage()
    asked = Key()
    raised: list[bool] = []

    def fail() -> None:
        raised.append(True)
        raise error

    if where == "eq":
        s.stored.on_eq = fail
    elif where == "hash":
        asked.on_hash = fail
    else:
        s.r.table.watch(where == "skip")
        if doing == "put":
            pytest.skip("the rig reads the clock itself")
        s.armed = fail
    try:
        DOINGS[doing](s, asked)
    except error:
        assert raised
    else:
        assert not raised, "swallowed"
    s.armed = None
    s.r.table.watch(False)
    whole(s.r)


def test_a_signal_during_a_comparison_interrupts_the_call() -> None:
    r = new()
    bound = Bound(r, one)
    key = Key()
    r.put(key, value="value", admission=LIGHT)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in processes that run in the background
    try:
        for _ in range(5):
            key.on_eq = lambda: signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                bound.call(Key())
    finally:
        signal.signal(signal.SIGINT, before)
    assert bound.call(Key()) == "value"
    assert bound.slow == []


def test_errors_of_arguments_are_raised_where_they_can_be_seen() -> None:
    r = new()
    func = lambda x: x  # noqa: E731
    calls: list[Any] = []

    def on_slow(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        calls.append(args)
        return r.get(*args)

    memo = native.compile_memo(func, inspect.signature(func), on_slow)
    memo.bind_table(r.table, r.slot)
    r.put(Key(), value="object", admission=LIGHT)
    with pytest.raises(TypeError, match="unhashable"):
        memo.call([])
    assert calls == [([],)]

    class Broken(Key):
        def __hash__(self) -> int:
            raise LookupError("no hash")

    with pytest.raises(LookupError, match="no hash"):
        memo.call(Broken())


ODD: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**70), 1.5, math.nan, "", "\ud800", b"x", (), (1,),
    ("share",), ("share", 1), ("share", -1, True), ("share", 2**70, True), (b"share", 1, True), [], {}, {"a": 1},
    object, Key(), iter([1, "a"]), range(3), type("Index", (), {"__index__": lambda self: 3})(),
]  # fmt: skip


METHODS = [
    "slot", "get", "entry", "put", "refreshed", "mark_stale", "drop", "drop_key", "drop_slot", "clear", "alive",
    "watch", "sweep", "stats", "reset",
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_wrong_arguments_of_a_table_raise_and_nothing_else(method: str) -> None:
    r = new(max_entries=20)
    call = getattr(r.table, method)
    good = {"khash": 1, "fresh_until": NEVER, "keep_until": NEVER, "ticket": 0, "admission": LIGHT}
    for count in range(5):
        for start in range(len(ODD)):
            _tolerated(call, *[ODD[(start + 7 * position) % len(ODD)] for position in range(count)])
    for thing in ODD:
        _tolerated(call, **{"slot": thing})
        for name in [*good, "tags", "load_ms", "negative", "detached", "early", "aside", "nonsense"]:
            _tolerated(call, r.slot, (1,), "value", **{**good, name: thing})
    r.table.watch(False)
    r.table.alive(NEVER)
    whole(r)


def _tolerated(call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    try:
        call(*args, **kwargs)
    except (TypeError, ValueError, KeyError, OverflowError, IndexError):  # UnicodeEncodeError is a ValueError
        pass


@pytest.mark.parametrize(
    "method", ["bump_key", "bump_tags", "bump_slot", "bump_region", "tag_event", "allows", "ticket", "new_slot"]
)
def test_wrong_arguments_of_versions_raise_and_nothing_else(method: str) -> None:
    r = new()
    call = getattr(r.versions, method)
    for thing in ODD:
        _tolerated(call, thing)
        for position in range(5):
            args: list[Any] = [0, 1, ["t"], r.slot, "r"]
            args[position] = thing
            _tolerated(call, *args)
        _tolerated(call, **{"ticket": thing, "khash": thing})
    assert r.put(1)
    whole(r)


def test_wrong_arguments_of_the_types_raise_and_nothing_else() -> None:
    good: dict[str, Any] = {
        "region": "r", "max_entries": 5, "max_bytes": 9, "policy": "lru", "versions": native.Versions(),
        "clock": None, "isolation": "auto", "skip": bool,
    }  # fmt: skip
    for name, thing in itertools.product([*good, "nonsense"], ODD):
        try:
            native.Table(**{**good, name: thing})
        except (TypeError, ValueError, OverflowError):  # ConfigError is a ValueError
            pass
    fields: list[Any] = [None, ("x",), (MISS,), 1, 0, (0,), False]
    for position, thing in itertools.product(range(len(fields)), [*ODD, ("x", "y"), (0, 0), (5,), ("x", 5), -5, 10**6]):
        args = list(fields)
        args[position] = thing
        try:
            made = _native.Memo(*args)
        except (TypeError, ValueError, OverflowError):
            continue
        r = new()
        made.bind(r.table, r.slot)
        for count in (0, 1, 2, 31, 32, 33, 50, 500):
            try:
                made(*range(count))
            except TypeError:  # what should be a shell is none
                pass
    for names, defaults, positional, only in [((), (), 1000, 0), ((), (), -1, 0), ((), (1,), 0, 0), ((), (), 0, 5)]:
        with pytest.raises(TypeError):
            _native.Memo(None, names, defaults, positional, only, (), False)
    core = Bound(new(), one).call
    for args in [(), (1,), (1, 2), (new().table, 10**9), (new().table, "x"), (new().table, -1)]:
        with pytest.raises((TypeError, KeyError, OverflowError)):
            core.bind(*args)
    for thing in ODD:
        _tolerated(_native.is_plain, thing)


# ----------------------------------------------------------------------------------------------------------- arguments


def test_a_function_without_arguments_hits_however_it_is_called() -> None:
    r = new()
    bound = Bound(r, lambda: None)
    r.put(value="value")
    assert bound.call() == bound.call(**{}) == next(iter(bound.call, MISS)) == "value"
    assert collections.defaultdict(bound.call)[1] == "value"
    method = type("Thing", (), {"f": Bound(r, lambda self: None, ignore=frozenset({"self"})).call})()
    assert method.f() == next(iter(method.f, MISS)) == "value"
    assert bound.slow == []


def test_names_of_arguments_are_compared_as_texts() -> None:
    r = new()

    def func(a: Any, /, bä: Any, *, c: Any = 3) -> Any:
        raise AssertionError

    bound = Bound(r, func)
    r.put(1, 2, 3, value="value")
    text = type("Text", (str,), {})
    uninterned = "".join(["b", "ä"])
    for names in ({"bä": 2}, {uninterned: 2}, {"c": 3, "bä": 2}):
        assert bound.call(1, **names) == "value"
    assert bound.slow == []
    assert bound.call(1, **{text("bä"): 2}) in ("value", "slow")
    for args, kwargs in [((1,), {}), ((), {"a": 1, "bä": 2}), ((1, 2), {"bä": 2}), ((1, 2), {"d": 4}), ((1, 2, 3), {})]:
        with pytest.raises(TypeError):
            bound.call(*args, **kwargs)
    with pytest.raises(TypeError):
        bound.call(1, **{5: 2})  # type: ignore[misc]


@pytest.mark.parametrize("count", [0, 1, 8, 23, 24, 25, 31, 32, 33, 40, 200])
def test_functions_of_any_number_of_parameters(count: int) -> None:
    r = new()
    scope: dict[str, Any] = {}
    names = [f"p{number}" for number in range(count)]
    exec(f"def func({', '.join(names)}): pass", scope)
    bound = Bound(r, scope["func"])
    array = tuple(range(count))
    r.put(*array, value="value")
    assert bound.call(*array) == "value"
    by_name = dict(zip(reversed(names), reversed(array), strict=True))
    assert bound.call(**by_name) in ("value", "value" if count <= 8 else "slow")
    half = count // 2
    assert bound.call(*array[:half], **dict(zip(names[half:], array[half:], strict=True))) in ("value", "slow")
    for wrong in (array[1:], (*array, 1)):
        if len(wrong) != count:
            with pytest.raises(TypeError):
                bound.call(*wrong)


M = sys.hash_info.modulus
INTS = sorted({
    sign * (base + around)
    for sign in (1, -1)
    for base in (0, 1 << 15, 1 << 30, 1 << 31, 1 << 32, 1 << 45, 1 << 60, 1 << 62, 1 << 63, 1 << 64, M, 2 * M, 1 << 200)
    for around in (-2, -1, 0, 1, 2)
})  # fmt: skip


def test_ints_of_every_size_are_told_apart_even_where_their_hashes_are_not() -> None:
    r = new(max_entries=10_000)
    bound = Bound(r, one)
    for number in INTS:
        r.put(number, value=("is", number), admission=LIGHT)
        r.put((number,), value=("in", number), admission=LIGHT)
    for number in INTS:
        other = int(str(number))  # another object
        assert bound.call(other) == ("is", number)
        assert bound.call((other,)) == ("in", number)
    alike = [1 + position * M for position in range(300)]
    assert len(set(map(hash, alike))) == 1
    for number in alike:
        r.put(number, value=number)
    assert [bound.call(number + 0) for number in alike] == alike
    assert bound.slow == []


TEXTS = [
    "", "a", "ab", "\x00", "a\x00", "\x7f", "\x80", "ä", "aä", "é", "e\u0301", "€", "a€", "𝄞", "a𝄞", "\ud800", "\udfff",
    "a\ud800", "\ud834\udd1e", "ß" * 1000, "a" * 1000,
]  # fmt: skip


def test_texts_of_every_kind_are_told_apart() -> None:
    r = new(max_entries=10_000)
    bound = Bound(r, one)
    kinds: list[Callable[[str], Any]] = [
        lambda text: text, lambda text: text.encode("utf-8", "surrogatepass"), lambda text: (text,),
        type("Text", (str,), {}), lambda text: type("Same", (bytes,), {})(text.encode("utf-8", "surrogatepass")),
        lambda text: Exact(text.encode("utf-8", "surrogatepass")), lambda text: frozenset({text}),
    ]  # fmt: skip
    made = [[kind(text) for text in TEXTS] for kind in kinds]
    for number, row in enumerate(made):
        for text, thing in zip(TEXTS, row, strict=True):
            r.put(thing, value=(number, text), admission=LIGHT)
    for number, row in enumerate(made):
        for text, thing in zip(TEXTS, row, strict=True):
            assert bound.call(thing) == (number, text)
            if number != 4:  # a class of its own each time
                again = kinds[number]("".join([text[:1], text[1:]])) if number != 3 else thing
                assert bound.call(again) == (number, text)
    assert r.get("nowhere") is MISS


class Exact(bytes):
    """Hashes and compares as bytes do."""


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="they do not exist any more")
def test_strings_of_the_old_kind_are_found() -> None:
    make = ctypes.pythonapi.PyUnicode_FromUnicode
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_wchar_p, ctypes.c_ssize_t]
    buffer = ctypes.pythonapi.PyUnicode_AsUnicode
    buffer.restype, buffer.argtypes = ctypes.c_void_p, [ctypes.py_object]
    r = new()
    bound = Bound(r, one)

    def old(text: str) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: str = make(None, len(text))
            ctypes.memmove(buffer(made), text.encode("utf-32-le"), 4 * len(text))
        return made

    for text in ("abc", "äöü", "€𝄞"):
        r.put(text, value=text)
        assert bound.call(old(text)) == text
        assert r.get((old(text),)) is MISS
        assert r.table.drop(r.slot, (text,))
        r.put(old(text), value="old")
        assert bound.call(text) == bound.call("".join(list(text))) == "old"
        assert bound.call(**{old("x"): text}) in ("old", "slow")
        assert r.table.slot(old(text)) == r.table.slot(text)


def test_floats_go_by_their_bits() -> None:
    r = new()
    bound = Bound(r, one)
    things = [0.0, -0.0, 1.0, math.inf, -math.inf, 5e-324, math.nan, 1, 0, True, False]
    for number, thing in enumerate(things):
        r.put(thing, value=number)
        r.put((thing,), value=(number,))
    assert [bound.call(thing) for thing in things] == list(range(len(things)))
    assert [bound.call((thing,)) for thing in things] == [(number,) for number in range(len(things))]
    assert bound.call(-things[1]) == 0


def test_tuples_of_any_depth_and_length() -> None:
    r = new(max_entries=1000)
    bound = Bound(r, one)
    for depth in (1, 7, 8, 9, 10, 40, 200):
        for leaf in (1, True, 1.0, 0.0, -0.0, "a", Key(3)):
            thing: Any = leaf
            for _ in range(depth):
                thing = (thing,)
            r.put(thing, value=(depth, type(leaf), str(leaf)), admission=LIGHT)
            again: Any = leaf
            for _ in range(depth):
                again = (again,)
            assert bound.call(again) == (depth, type(leaf), str(leaf))
    r.put(tuple(range(10_000)), value="long")
    assert bound.call(tuple(range(10_000))) == "long"
    assert bound.call(tuple(range(9_999))) == "slow"
    assert bound.call((*range(9_999), "x")) == "slow"


def test_a_class_that_learns_to_compare_later_harms_nobody() -> None:
    class Later(bytes):
        pass

    r = new()
    bound = Bound(r, one)
    key = Later(b"a")
    r.put(key, value="first", admission=LIGHT)
    assert bound.call(Later(b"a")) == "first"
    Later.__eq__ = lambda self, other: True  # type: ignore[method-assign, assignment]
    Later.__hash__ = lambda self: 1  # type: ignore[method-assign, assignment]
    assert bound.call(Later(b"b")) == "slow"
    r.put(Later(b"b"), value="second", admission=LIGHT)
    assert bound.call(Later(b"c")) == "second"
    del Later.__eq__, Later.__hash__
    assert bound.call(Later(b"c")) == "slow"
    whole(r)


def test_recursion_through_a_memo_ends_with_an_error_not_with_the_stack() -> None:
    r = new()
    call: Any

    def func(x: int) -> int:
        return int(call(x + 1))

    memo = native.compile_memo(func, inspect.signature(func), lambda args, kwargs: func(*args, **kwargs))
    memo.bind_table(r.table, r.slot)
    call = memo.call
    for _ in range(3):
        with pytest.raises(RecursionError):
            call(0)

    class Deep(Key):
        def __eq__(self, other: object) -> bool:
            return bool(bound.call(Deep()))

        __hash__ = Key.__hash__

    bound = Bound(r, one)
    r.put(Deep(), admission=LIGHT)
    assert r.get(Deep()) == bound.call(Deep()) == "v"  # at the end of the stack it was computed
    nested: list[Any] = [(), ()]
    for _ in range(20_000):
        nested = [(part,) for part in nested]
    r.put(nested[0], value=1)
    assert r.get(nested[0]) == 1
    with pytest.raises(RecursionError):
        r.get(nested[1])  # as nested[0] == nested[1] does
    whole(r)


def test_far_times_are_never_and_long_gone() -> None:
    r = new()
    assert r.put(1, fresh_until=2**80, keep_until=2**90)
    assert r.get(1) == "v"
    view = r.table.entry(r.slot, (1,))
    assert (view.fresh_until, view.keep_until) == (NEVER, NEVER)
    assert r.put(1, fresh_until=-(2**80), keep_until=-(2**80))
    assert r.get(1) is MISS
    r.put(1)
    r.table.alive(2**80)
    assert r.get(1) == "v"
    r.table.alive(-(2**80))
    assert r.get(1) is MISS


def test_numbers_of_slots_that_were_never_given_out_cost_nothing() -> None:
    r = new()
    for slot in (10**6, 2**40, 2**62, 2**64 - 1):
        r.versions.bump_slot(slot)
        assert r.versions.allows(0, 1, (), slot, "r") in (True, False)
    assert r.put(1)


def test_weights_up_to_the_largest_do_not_overflow() -> None:
    r = new(max_bytes=2**63 - 1)
    for weight in (2**62, 2**61, 2**62, 2**63 - 1, 2**60, 1):
        assert r.put(weight, admission=Admission("share", weight, True))
        assert r.table.weight <= 2**63 - 1
    assert not r.put(1, admission=Admission("share", 2**64 - 1, True))
    whole(r)


# ------------------------------------------------------------------------------------------------------------- threads


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads change places at every chance."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("restless")
def test_threads_may_take_turns_inside_of_comparisons_and_clocks() -> None:
    class Slow:
        def __init__(self, number: int) -> None:
            self.number = number

        def __hash__(self) -> int:
            return sum(range(20)) + self.number % 3

        def __eq__(self, other: object) -> bool:
            total = sum(range(30))
            return total > 0 and isinstance(other, Slow) and other.number == self.number

    def clock() -> int:
        return sum(range(20)) + 1000

    rigs = [new(clock=clock, max_entries=12) for _ in range(2)]
    bound = Bound(rigs[0], one)
    wrong: list[str] = []
    end = time.monotonic() + 2.0
    done = [0] * 6

    def run(number: int) -> None:
        step = 0
        try:
            while time.monotonic() < end and not wrong:
                step += 1
                done[number] = step
                key = (step * 7 + number) % 24
                asked: Any = Slow(key) if key % 2 else key
                r = rigs[step % 2]
                if number == 0:
                    if step % 3 == 0:
                        bound.memo.unbind()
                    elif step % 3 == 1:
                        bound.memo.bind_table(r.table, r.slot)
                    else:
                        r.table.clear()
                    r.table.drop(r.slot, (asked,))
                    r.table.sweep(5)
                elif number == 1:
                    r.table.drop_key(key)
                    r.table.watch(step % 2)
                    r.table.drop(r.slot, (asked,))
                elif number < 4:
                    r.put(asked, value=(key, step), khash=key, tags=["t"] * (key % 3 == 0), admission=LIGHT)
                    r.versions.bump_tags(["t"])
                else:
                    for found in (bound.call(asked), r.get(asked)):
                        if found not in ("slow", MISS) and found[0] != key:
                            wrong.append(f"{found} for {key}")
                if len(r.table) > 12:
                    wrong.append("too many")
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert min(done) > 0
    for r in rigs:
        r.table.watch(False)
        whole(r)


# ---------------------------------------------------------------------------------------------------------- coroutines


async def load(x: Any) -> Any:
    raise AssertionError


VALUES: list[Any] = [None, 0, "text", (), (1, 2), (ValueError("a"),), ValueError("value"), StopIteration(1), ValueError]


@since_3_12
class TestReady:
    """The coroutine of a hit is like any other to all who look."""

    @pytest.fixture
    def bound(self) -> Bound:
        r = new()
        for number, value in enumerate(VALUES):
            r.put(number, value=value, admission=LIGHT)
        return Bound(r, load, is_async=True)

    def test_it_is_a_coroutine_to_all_who_ask(self, bound: Bound) -> None:
        ready = bound.call(1)
        assert type(ready) is _native.Ready
        assert isinstance(ready, Coroutine)
        assert isinstance(ready, Awaitable)
        assert inspect.isawaitable(ready)
        assert asyncio.iscoroutine(ready)
        assert inspect.iscoroutinefunction(bound.call)
        assert inspect.getcoroutinestate(ready) in (inspect.CORO_CREATED, inspect.CORO_CLOSED)
        assert (ready.cr_running, ready.cr_suspended, ready.cr_await, ready.cr_origin) == (False, False, None, None)
        ready.close()

    async def test_every_value_comes_back_however_it_is_awaited(self, bound: Bound) -> None:
        for number, value in enumerate(VALUES):
            assert await bound.call(number) is value
            assert (await asyncio.gather(bound.call(number), bound.call(x=number)))[1] is value
            assert await asyncio.create_task(bound.call(number)) is value
            assert await asyncio.wait_for(bound.call(number), 1) is value
            assert await asyncio.shield(bound.call(number)) is value
            assert await asyncio.ensure_future(bound.call(number)) is value
            async with asyncio.timeout(1), asyncio.TaskGroup() as group:
                task = group.create_task(bound.call(number))
            assert task.result() is value
            (done,), _ = await asyncio.wait([asyncio.create_task(bound.call(number))])
            assert done.result() is value

            async def through(number: int = number) -> Any:
                return await bound.call(number)

            assert await through() is value
            assert (await asyncio.to_thread(asyncio.run, bound.call(number))) is value
        assert bound.slow == []

    def test_values_arrive_in_stop_iteration_as_they_are(self, bound: Bound) -> None:
        for number, value in enumerate(VALUES):
            for step in (lambda ready: ready.send(None), next, lambda ready: next(ready.__await__())):
                with pytest.raises(StopIteration) as stop:
                    step(bound.call(number))
                assert stop.value.value is value
                assert stop.value.args == (value,)

    def test_it_can_be_awaited_once(self, bound: Bound) -> None:
        for first in (lambda ready: ready.send(None), lambda ready: ready.close(), lambda ready: ready.throw(KeyError)):
            ready = bound.call(1)
            try:
                first(ready)
            except (StopIteration, KeyError):
                pass
            steps: Any = [(ready.send, None), (ready.__next__,), (ready.send, 1), (ready.throw, KeyError)]
            for again, *args in steps:
                with pytest.raises(RuntimeError, match="already awaited"):
                    again(*args)
            assert ready.close() is None

    def test_what_is_thrown_in_comes_out(self, bound: Bound) -> None:
        error = KeyError("a", 1)
        with pytest.raises(KeyError) as caught:
            bound.call(1).throw(error)
        assert caught.value is error
        for args, text in (((KeyError,), "KeyError()"), ((KeyError, "a"), "KeyError('a')"), ((error,), repr(error))):
            with pytest.raises(KeyError) as caught:
                bound.call(1).throw(*args)
            assert repr(caught.value) == text
        for wrong in [(), (1,), (object,), ("x", 1), (1, 2, 3, 4)]:
            with pytest.raises(TypeError):
                bound.call(1).throw(*wrong)

    def test_a_fresh_one_takes_nothing_but_none(self, bound: Bound) -> None:
        ready = bound.call(2)
        with pytest.raises(TypeError, match="just-started"):
            ready.send(1)
        with pytest.raises(StopIteration):
            ready.send(None)

    async def test_a_task_can_be_cancelled_before_it_starts(self, bound: Bound) -> None:
        task = asyncio.create_task(bound.call(1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "Ready" in repr(asyncio.create_task(bound.call(1)))
        await asyncio.sleep(0)

    def test_debug_mode_can_show_it(self, bound: Bound) -> None:
        async def main() -> Any:
            task = asyncio.create_task(bound.call(2))
            repr(task)
            task.get_stack()
            return await task

        assert asyncio.run(main(), debug=True) == "text"

    def test_values_are_released_with_it_and_its_memory_is_used_again(self, bound: Bound) -> None:
        r = new()
        ready = Bound(r, load, is_async=True)
        anchor = Anchor()
        dead = weakref.ref(anchor)
        r.put(1, value=anchor, admission=LIGHT)
        del anchor
        kept = [ready.call(1) for _ in range(500)]
        r.table.clear()
        assert dead() is not None
        kept[3].close()
        del kept[:400]
        gc.collect()
        assert dead() is not None
        kept.clear()
        assert dead() is None

    def test_cycles_through_it_are_collected(self) -> None:
        r = new()
        ready = Bound(r, load, is_async=True)
        anchor: Any = Anchor()
        dead = weakref.ref(anchor)
        r.put(1, value=anchor, admission=LIGHT)
        anchor.ready = ready.call(1)
        r.table.clear()
        del anchor
        gc.collect()
        assert dead() is None

    def test_a_value_may_make_more_of_them_when_it_dies(self) -> None:
        r = new()
        bound = Bound(r, load, is_async=True)

        class Last:
            def __del__(self) -> None:
                for _ in range(100):
                    bound.call(2).close()

        r.put(2, value="other")
        for _ in range(100):
            r.put(1, value=Last(), admission=LIGHT)
            ready = [bound.call(1) for _ in range(100)]
            r.table.drop(r.slot, (1,))
            ready.clear()
        assert asyncio.run(bound.call(2)) == "other"


@pytest.mark.slow
def test_all_of_this_again_with_an_allocator_that_overwrites_what_was_freed() -> None:
    but_this = "not test_all_of_this_again"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "", "-k", but_this, __file__]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONMALLOC": "debug"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
