"""All spellings of a call give one argument array; wrong calls fail as the function itself would."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachekit.engine.binding import Binder, compile_binder
from cachekit.errors import ConfigError


def binder(fn: Callable[..., Any], *ignore: str) -> Binder:
    return compile_binder(inspect.signature(fn), frozenset(ignore), name=fn.__name__)


def bind(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return binder(fn).bind(args, kwargs)


def plain(a: Any, b: Any = 2) -> None: ...
def positional(a: Any, /, b: Any = 2) -> None: ...
def keyword(a: Any, *, b: Any = 2, c: Any) -> None: ...
def stars(a: Any, *args: Any, b: Any = 2, **kwargs: Any) -> None: ...
def same_name(a: Any, /, **kwargs: Any) -> None: ...
def shadowing(pairs: Any, bind: Any, tuple: Any = 1, pairs_______: Any = 2, **kwargs: Any) -> None: ...


class Repository:
    def get(self, key: int) -> None: ...


@pytest.mark.parametrize(
    ("fn", "spellings", "array"),
    [
        (plain, [((1,), {}), ((1, 2), {}), ((1,), {"b": 2}), ((), {"a": 1}), ((), {"b": 2, "a": 1})], (1, 2)),
        (positional, [((1,), {}), ((1, 2), {}), ((1,), {"b": 2})], (1, 2)),
        (keyword, [((1,), {"c": 3}), ((1,), {"c": 3, "b": 2}), ((), {"b": 2, "c": 3, "a": 1})], (1, 2, 3)),
        (stars, [((1,), {}), ((), {"a": 1}), ((1,), {"b": 2})], (1, (), 2, ())),
        (stars, [((1, 8, 9), {"z": 1, "y": 2}), ((1, 8, 9), {"y": 2, "b": 2, "z": 1})],
         (1, (8, 9), 2, (("y", 2), ("z", 1)))),
        (same_name, [((1,), {"a": 2})], (1, (("a", 2),))),
        (shadowing, [((1, 2), {"z": 3})], (1, 2, 1, 2, (("z", 3),))),
        (lambda: None, [((), {})], ()),
        (Repository.get, [(("repo", 7), {}), (("repo",), {"key": 7})], ("repo", 7)),
        (Repository().get, [((7,), {}), ((), {"key": 7})], (7,)),
    ],
)  # fmt: skip
def test_spellings_of_one_call_share_an_array(
    fn: Callable[..., Any], spellings: list[tuple[tuple[Any, ...], dict[str, Any]]], array: tuple[Any, ...]
) -> None:
    for args, kwargs in spellings:
        assert binder(fn).bind(args, kwargs) == array
        assert binder(fn).array(*args, **kwargs) == array


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (plain, (), {}),
        (plain, (1, 2, 3), {}),
        (plain, (1,), {"a": 1}),
        (plain, (1,), {"nope": 1}),
        (positional, (), {"a": 1}),
        (keyword, (1, 2), {}),
        (keyword, (1,), {}),
        (stars, (), {}),
    ],
)
def test_wrong_arguments_raise_the_functions_own_type_error(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(TypeError) as own:
        fn(*args, **kwargs)
    with pytest.raises(TypeError) as ours:
        binder(fn).bind(args, kwargs)
    assert str(ours.value) == str(own.value)


def test_ignored_parameters_leave_the_array_but_not_the_signature() -> None:
    bound = binder(stars, "b", "args")
    assert bound.names == ("a", "kwargs")
    assert bound.ignore == {"b", "args"}
    assert bound.bind((1, 5, 6), {"b": 9, "c": 3}) == (1, (("c", 3),))
    assert binder(Repository.get, "self").bind((object(), 7), {}) == (7,)
    with pytest.raises(TypeError, match="missing 1 required"):
        binder(Repository.get, "self").bind((), {"key": 7})


def test_an_unknown_name_in_ignore_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'sefl'.*get.*did you mean 'self'"):
        binder(Repository.get, "sefl")
    with pytest.raises(ConfigError, match=r"parameters are self, key"):
        binder(Repository.get, "x_y_z")


def test_simple_means_no_stars() -> None:
    assert binder(plain).simple
    assert binder(keyword).simple
    assert not binder(stars).simple
    assert not binder(same_name).simple


def test_defaults_are_the_functions_own_objects() -> None:
    marker = object()

    def fn(a: Any = marker, /, b: Any = marker, *, c: Any = marker) -> None: ...

    assert all(value is marker for value in bind(fn))


def test_an_ignored_default_before_a_required_keyword_stays_optional() -> None:
    def fn(a: Any, b: Any = 5, *, c: Any, d: Any = 6) -> None: ...

    assert binder(fn, "b").bind((1,), {"c": 2}) == (1, 2, 6)


def test_a_parameter_of_a_function_in_c_may_be_a_keyword() -> None:
    parameters = [inspect.Parameter("from", inspect.Parameter.POSITIONAL_ONLY)]
    assert compile_binder(inspect.Signature(parameters)).bind((1,), {}) == (1,)


names = st.lists(st.sampled_from("abcdefg"), unique=True, min_size=1, max_size=6)


@given(names=names, data=st.data())
def test_any_signature_binds_as_inspect_does(names: list[str], data: st.DataObject) -> None:
    kinds = sorted(data.draw(st.lists(st.sampled_from(range(5)), min_size=len(names), max_size=len(names))))
    parameters: list[inspect.Parameter] = []
    optional = False
    for name, number in zip(names, kinds, strict=True):
        kind = list(inspect._ParameterKind)[number]
        if number in (2, 4) and any(parameter.kind is kind for parameter in parameters):
            continue
        optional = (optional and number < 2) or (number not in (2, 4) and data.draw(st.booleans()))
        default = f"default {name}" if optional else inspect.Parameter.empty
        parameters.append(inspect.Parameter(name, kind, default=default))
    signature = inspect.Signature(parameters)
    args = tuple(data.draw(st.lists(st.integers(), max_size=4)))
    # signature.bind does not know that **kwargs may repeat the name of a positional-only parameter
    taken = {parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.POSITIONAL_ONLY}
    keywords = st.sampled_from([name for name in "abcdefgh" if name not in taken])
    kwargs = data.draw(st.dictionaries(keywords, st.integers(), max_size=4))
    try:
        expected = signature.bind(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError):
            compile_binder(signature).bind(args, kwargs)
        return
    expected.apply_defaults()
    values = [
        tuple(sorted(value.items())) if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD else value
        for name, value in expected.arguments.items()
    ]
    assert compile_binder(signature).bind(args, kwargs) == tuple(values)
