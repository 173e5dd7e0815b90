"""Functions that are not the same have different ids, and an id is the same in every process."""

import functools
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachekit import cache
from cachekit.engine.encoding import encode
from cachekit.engine.functions import function_id
from cachekit.errors import ConfigError, UncacheableArgument

HERE = __name__
ROOT = Path(__file__).parents[2]


def get_user(user_id: int) -> None: ...


class Users:
    def get(self, key: int) -> None: ...

    @classmethod
    def create(cls) -> None: ...

    @staticmethod
    def count() -> None: ...

    class Inner:
        def get(self) -> None: ...


class Admins(Users): ...


class Greeter:
    def __init__(self, name: Any) -> None:
        self.name = name

    def __call__(self) -> None: ...

    def __cache_key__(self) -> Any:
        return self.name


def decorated(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


@decorated
def wrapped() -> None: ...


@functools.lru_cache
def memoised() -> None: ...


async def coroutine() -> None: ...


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (get_user, "get_user"),
        (coroutine, "coroutine"),
        (wrapped, "wrapped"),
        (memoised, "memoised"),
        (Users.get, "Users.get"),
        (Admins.get, "Users.get"),
        (Users.Inner.get, "Users.Inner.get"),
        (vars(Users)["create"], "Users.create"),
        (vars(Users)["count"], "Users.count"),
        (Users.count, "Users.count"),
    ],
)
def test_a_function_is_named_by_module_and_qualified_name(fn: Any, name: str) -> None:
    assert function_id(fn, None) == f"{HERE}.{name}:1"


def test_builtin_functions_have_ids() -> None:
    assert function_id(len) == "builtins.len:1"
    assert function_id(os.getcwd) == "posix.getcwd:1"
    assert function_id("a".upper) != function_id("b".upper)


@pytest.mark.parametrize(
    ("version", "text"), [(None, "1"), (1, "1"), ("1", "1"), (2, "2"), ("2024-05-v3", "2024-05-v3")]
)
def test_the_version_ends_the_id(version: Any, text: str) -> None:
    assert function_id(get_user, version) == f"{HERE}.get_user:{text}"


@pytest.mark.parametrize("version", ["", True, 1.5, b"1", ("a",)])
def test_a_version_is_a_text_or_a_number(version: Any) -> None:
    with pytest.raises(ConfigError, match="version must be an int or a non-empty str"):
        function_id(get_user, version)


# Lambdas and functions made inside others

ADD = lambda x: x + 1  # noqa: E731
SUBTRACT = lambda x: x - 1  # noqa: E731
ADD_TWO = lambda x: x + 2  # noqa: E731
DEFAULT = lambda x=1: x  # noqa: E731
DEFAULT_TWO = lambda x=2: x  # noqa: E731
KEYWORD = lambda *, x=2: x  # noqa: E731
NESTED = lambda x: lambda: x + 1  # noqa: E731
NESTED_TWO = lambda x: lambda: x + 2  # noqa: E731
MEMBER = lambda x: x in {"a", "b"}  # noqa: E731
GLOBAL = lambda x: get_user(x)  # noqa: E731
GLOBAL_TWO = lambda x: wrapped(x)  # noqa: E731
ATTRIBUTE = lambda x: x.a  # noqa: E731
ATTRIBUTE_TWO = lambda x: x.b  # noqa: E731
SAME_AS_ADD = lambda x: x + 1  # noqa: E731


def test_lambdas_of_a_module_are_told_apart_by_their_code() -> None:
    lambdas = [
        ADD, SUBTRACT, ADD_TWO, DEFAULT, DEFAULT_TWO, KEYWORD, NESTED, NESTED_TWO, MEMBER, GLOBAL, GLOBAL_TWO,
        ATTRIBUTE, ATTRIBUTE_TWO,
    ]  # fmt: skip
    ids = {function_id(fn) for fn in lambdas}
    assert len(ids) == len(lambdas)
    assert all(one.startswith(f"{HERE}.<lambda>#") and one.endswith(":1") for one in ids)
    assert function_id(ADD) == function_id(SAME_AS_ADD)


def make(captured: Any) -> Callable[[int], Any]:
    def inner(x: int) -> Any:
        return x, captured

    return inner


def test_closures_are_told_apart_by_what_they_capture() -> None:
    values: list[Any] = [1, "1", True, None, (1,), [1], {"a": 1}, int, get_user, ADD, SUBTRACT, make(1), make(2), os]
    assert len({function_id(make(value)) for value in values}) == len(values)
    for value in (1, [1], get_user, ADD, make(1), memoised, os, Users.create, Greeter("a")):
        assert function_id(make(value)) == function_id(make(value))


def test_functions_of_one_name_in_one_function_are_told_apart_by_their_code() -> None:
    def choose(number: int) -> Callable[[int], int]:
        if number == 1:

            def inner(x: int) -> int:
                return x + 1
        else:

            def inner(x: int) -> int:
                return x - 1

        return inner

    assert function_id(choose(1)) != function_id(choose(2))
    assert function_id(choose(1)) == function_id(choose(1))


def test_functions_made_in_a_loop_are_told_apart_by_their_defaults() -> None:
    functions = []
    for number in range(3):

        def inner(x: int, factor: int = number) -> int:
            return x * factor

        functions.append(inner)
    assert len({function_id(fn) for fn in functions}) == 3


def test_a_default_without_identity_is_left_to_the_call() -> None:
    lock = threading.Lock()

    def inner(x: int, lock: Any = lock) -> None: ...

    assert function_id(inner) == function_id(inner)


def test_a_function_that_captures_itself_has_an_id() -> None:
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert function_id(fib) == function_id(fib)
    twin = decorated(fib)
    fib = twin  # as a decorator does
    assert function_id(twin)


def test_functions_that_capture_each_other_have_different_ids() -> None:
    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    def odd(n: int) -> bool:
        return n != 0 and even(n - 1)

    assert function_id(even) != function_id(odd)


def test_the_wrapper_of_a_closure_is_told_apart_by_what_it_wraps() -> None:
    assert function_id(decorated(make(1))) != function_id(decorated(make(2)))
    assert function_id(decorated(make(1))) == function_id(decorated(make(1)))
    assert function_id(functools.lru_cache(make(1))) != function_id(functools.lru_cache(make(2)))


def test_a_captured_variable_without_identity_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"make.<locals>.inner captures 'captured', a lock.*argument.*version="):
        function_id(make(threading.Lock()))
    with pytest.raises(ConfigError, match="'captured'"):
        function_id(decorated(make(make(object()))))


def test_an_explicit_version_answers_for_what_is_captured() -> None:
    assert function_id(make(threading.Lock()), 1) == function_id(make(threading.Lock()), 1)
    assert function_id(make(threading.Lock()), "a") != function_id(make(threading.Lock()), "b")
    assert function_id(make(threading.Lock()), 1) != function_id(make(object()), 1)
    assert function_id(make(1), 1) != function_id(make(2), 1)


def test_ids_for_one_process_alone_refuse_nothing_and_share_nothing() -> None:
    fn = make(threading.Lock())
    assert function_id(fn, shared=False) != function_id(fn, shared=False)
    assert function_id(make(threading.Lock()), 1, shared=False) != function_id(make(threading.Lock()), 1, shared=False)
    assert function_id(get_user, shared=False) == function_id(get_user)
    assert function_id(make(5), shared=False) == function_id(make(5))


def test_the_id_of_a_method_with_super_is_the_same_before_its_class_exists() -> None:
    class Local:
        def get(self) -> Any:
            return super().__repr__()

        early = function_id(get)

    assert function_id(Local.get) == Local.early


def test_what_handles_exceptions_is_part_of_the_code() -> None:
    def local(x: Any) -> Any:
        try:
            return x.a
        except AttributeError:
            return None

    unguarded = types.FunctionType(local.__code__.replace(co_exceptiontable=b""), globals(), "local")
    unguarded.__qualname__ = local.__qualname__
    assert function_id(unguarded) != function_id(local)


def test_captured_cached_functions_count_as_the_functions_they_are() -> None:
    def pair(captured: Any) -> Any:
        @cache
        def outer(x: int) -> Any:
            return captured(x)

        return outer

    ids = {function_id(pair(cache(make(value)))) for value in (1, 2, get_user)}
    assert len(ids) == 3
    assert function_id(pair(cache(make(1)))) == function_id(pair(make(1)))


def test_a_recursive_cached_function_has_an_id() -> None:
    def local() -> Any:
        @cache
        def fib(n: int) -> int:
            return n if n < 2 else fib(n - 1) + fib(n - 2)

        return fib

    assert function_id(local()) == function_id(local()) == function_id(local().__wrapped__)


# What is bound to a function counts


class Machinery(functools.partial[Any]):
    """As a decorator binds methods."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.update_wrapper(Machinery(self.func, instance), self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Machinery) and (self.func, self.args) == (other.func, other.args)

    __hash__ = None  # type: ignore[assignment]


def bound(fn: Any) -> Any:
    return functools.update_wrapper(Machinery(lambda *args: fn(*args)), fn)


class Service(Greeter):
    @bound
    def ask(self) -> None: ...

    @bound
    def tell(self) -> None: ...


def test_methods_bound_by_a_decorator_are_the_methods_they_are() -> None:
    assert function_id(Service.ask) == f"{HERE}.Service.ask:1"
    assert function_id(Service("a").ask) == function_id(Service("a").ask)
    assert len({function_id(fn) for fn in (Service.ask, Service.tell, Service("a").ask, Service("b").ask)}) == 4
    assert len({function_id(make(fn)) for fn in (Service.ask, Service.tell, Service("a").ask, Service("b").ask)}) == 4
    assert encode(Service("a").ask) == encode(Service("a").ask)
    assert len({encode(fn) for fn in (Service.ask, Service.tell, Service("a").ask, Service("b").ask)}) == 4
    with pytest.raises(UncacheableArgument):
        encode(bound(make(1)))


def test_bound_arguments_are_part_of_the_id() -> None:
    ids = [
        function_id(fn)
        for fn in (
            get_user,
            functools.partial(get_user, 1),
            functools.partial(get_user, "1"),
            functools.partial(get_user, user_id=1),
            Greeter("a").__call__,
            Greeter("b").__call__,
            Greeter("a"),
            Greeter("b"),
            Users.create,
            Admins.create,
            vars(Users)["create"],
        )
    ]
    assert len(set(ids)) == len(ids)
    assert function_id(functools.partial(get_user, 1)) == function_id(functools.partial(get_user, 1))
    assert function_id(functools.partial(get_user)) == function_id(get_user)
    assert function_id(Users.create) == function_id(Users.create)


@pytest.mark.parametrize(
    "fn", [Users().get, functools.partial(get_user, object()), types.MethodType(get_user, object())]
)
def test_bound_arguments_without_identity_are_refused(fn: Any) -> None:
    with pytest.raises(ConfigError, match="without an identity"):
        function_id(fn)


# The text is fit for a key


def named(module: str, qualname: str) -> Callable[[], None]:
    def fn() -> None: ...

    fn.__module__, fn.__qualname__ = module, qualname
    return fn


@pytest.mark.parametrize(
    ("module", "qualname", "version"),
    [("my app", "f", 1), ("a\nb", "f\r\n", 1), ("a{b}", "f", 1), ("=a", "f", 1), ("a", "f:1", 1), ("a", "f", "{x}: y"),
     ("a" * 300, "f", 1), ("a", "f", "v" * 300), ("a", "f*?[]\\", 1)],
)  # fmt: skip
def test_an_id_has_only_harmless_characters_and_a_bounded_length(module: str, qualname: str, version: Any) -> None:
    text = function_id(named(module, qualname), version)
    assert len(text) < 260
    assert text.count(":") == 1
    assert text.isprintable()
    assert not set(text) & set(" {}=*?[]\\")
    assert text == function_id(named(module, qualname), version)


def test_replaced_characters_do_not_make_two_functions_one() -> None:
    texts = [("a b", "f"), ("a_b", "f"), ("a\tb", "f"), ("a" * 200, "f"), ("a" * 200, "g"), ("a", "b.f"), ("a", "b f")]
    assert len({function_id(named(*text)) for text in texts}) == len(texts)
    assert function_id(get_user, "a b") != function_id(get_user, "a_b")


def test_identifiers_need_not_be_ascii() -> None:
    assert function_id(named("büro", "größe")) == "büro.größe:1"


# The main module, and code without a file


def run(*arguments: str, cwd: Path, **environment: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, check=True, capture_output=True
    ).stdout.decode()


PROGRAM = """
from cachekit.engine.functions import function_id
from cachekit.engine.encoding import encode

def get(x): ...
def make(y):
    def inner(x): return x, y
    return inner
class Point:
    def __cache_key__(self): return 1
def main():
    print(function_id(get), function_id(make({"b", "a", "c"})), encode(Point()), sep="\\n")
if __name__ in ("__main__", "__mp_main__"):
    main()
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tool.py").write_text(PROGRAM)
    (package / "__main__.py").write_text(PROGRAM)
    (tmp_path / "tool.py").write_text(PROGRAM)
    return tmp_path


def test_a_script_is_named_by_its_file_wherever_it_lies(program: Path) -> None:
    script = run("tool.py", cwd=program, PYTHONHASHSEED="1")
    assert script.splitlines()[0] == "tool.get:1"
    assert script == run(str(program / "package" / "tool.py"), cwd=ROOT, PYTHONHASHSEED="2")
    assert script == run("-m", "tool", cwd=program)
    assert script == run("-c", "import tool; tool.main()", cwd=program)
    profiled = run("-m", "cProfile", "-o", os.devnull, "tool.py", cwd=program)
    assert profiled.splitlines()[:2] == script.splitlines()[:2]


def test_a_module_run_with_m_is_named_as_when_imported(program: Path) -> None:
    module = run("-m", "package.tool", cwd=program)
    assert module.splitlines()[0] == "package.tool.get:1"
    assert module == run("-c", "import package.tool; package.tool.main()", cwd=program)
    package = run("-m", "package", cwd=program)
    assert package.splitlines()[0] == "package.__main__.get:1"
    assert package == run("package", cwd=program)


def test_the_workers_of_a_script_agree_with_it(program: Path) -> None:
    (program / "tool.py").write_text(
        PROGRAM.replace("if __name__ in", "if __name__ ==").replace('("__main__", "__mp_main__"):', '"__main__":')
        + "    import multiprocessing\n"
        + "    worker = multiprocessing.get_context('spawn').Process(target=main)\n"
        + "    import sys; sys.stdout.flush(); worker.start(); worker.join()\n"
    )
    lines = run("tool.py", cwd=program).splitlines()
    assert len(lines) == 6
    assert lines[:3] == lines[3:]


def cell(source: str, filename: str = "<stdin>", **namespace: Any) -> Any:
    """A function as a REPL or a notebook makes it."""
    namespace = {"__name__": "__main__", **namespace}
    exec(compile(source, filename, "exec"), namespace)
    return namespace["f"]


@pytest.mark.parametrize(
    "filename", ["<stdin>", "<python-input-3>", "<ipython-input-1-abc>", "/tmp/ipykernel_5/1234.py"]
)
def test_an_edited_cell_starts_fresh(filename: str) -> None:
    one, two = cell("def f(x): return x + 1", filename), cell("def f(x): return x + 2", filename)
    assert function_id(one).startswith("__main__.f#")
    assert function_id(one) != function_id(two)
    assert function_id(one) == function_id(cell("\n\n\ndef f(x): return x + 1", "<other>"))
    assert function_id(one) == function_id(cell("def f(x):\n    # why\n    return x + 1", filename))


def test_a_cell_is_known_by_its_code_in_a_module_too() -> None:
    assert function_id(cell("def f(x): return 1", "<string>", __name__="app", __file__="/app.py")).startswith("app.f#")
    assert function_id(cell("def f(x): return 1", "/app.py", __name__="app", __file__="/app.py")) == "app.f:1"


def test_a_wrapped_cell_is_known_by_the_code_it_wraps() -> None:
    one, two = cell("def f(x): return x + 1"), cell("def f(x): return x + 2")
    assert function_id(decorated(one)) != function_id(decorated(two))
    assert function_id(decorated(one)) == function_id(one)


def test_text_executed_from_the_command_line_has_no_file() -> None:
    program = (
        "from cachekit.engine.functions import function_id\n"
        "def f(x): return 1\n"
        "print(function_id(f))\n"
        "def f(x): return 2\n"
        "print(function_id(f))"
    )
    first, second = run("-c", program, cwd=ROOT).split()
    piped = subprocess.run([sys.executable], input=program.encode(), cwd=ROOT, check=True, capture_output=True).stdout
    assert piped.decode().split() == [first, second]
    assert first.startswith("__main__.f#")
    assert second.startswith("__main__.f#")
    assert first != second
