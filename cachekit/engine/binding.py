"""Call -> argument array: positional, keyword and defaulted spellings of one call give one tuple."""

from collections.abc import Callable, Iterable
from inspect import Parameter, Signature
from keyword import iskeyword
from typing import Any

from cachekit.errors import ConfigError

_STARS: dict[Any, str] = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}


class Binder:
    """The argument arrays of one function. Made by ``compile_binder``."""

    __slots__ = ("array", "ignore", "names", "signature", "simple")

    def __init__(
        self,
        signature: Signature,
        ignore: frozenset[str],
        names: tuple[str, ...],
        array: Callable[..., tuple[Any, ...]],
    ) -> None:
        self.signature = signature
        self.ignore = ignore
        self.names = names  # the parameters that are left, in order
        self.simple = not any(parameter.kind in _STARS for parameter in signature.parameters.values())
        self.array = array  # as bind, but called as the function is called

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The values of ``names``: ``*args`` as a tuple, ``**kwargs`` as pairs in order of their names.

        Raises the ``TypeError`` that the function itself would raise for such arguments.
        """
        return self.array(*args, **kwargs)


def compile_binder(signature: Signature, ignore: Iterable[str] = frozenset(), name: str = "function") -> Binder:
    """A binder for functions of this signature, without the parameters in ``ignore``.

    ``name`` stands in the messages of errors. A name in ``ignore`` that is no parameter is a ``ConfigError``.
    """
    unwanted = frozenset(ignore)
    parameters = list(signature.parameters.values())
    for unknown in sorted(unwanted - signature.parameters.keys()):
        raise ConfigError(_unknown(unknown, list(signature.parameters), name))
    kept = [parameter for parameter in parameters if parameter.name not in unwanted]
    return Binder(signature, unwanted, tuple(p.name for p in kept), _generate(parameters, kept, name))


def _generate(parameters: list[Parameter], kept: list[Parameter], name: str) -> Callable[..., tuple[Any, ...]]:
    """A function with the very parameters, so that the interpreter binds them: nothing in Python is as fast."""
    result = "".join(f"{_result(parameter, parameters)}, " for parameter in kept)
    namespace: dict[str, Any] = {_pairs_name(parameters): _pairs}
    # Parameter accepts nothing but identifiers as names, so no text of a user's gets into the code.
    exec(f"def bind({_declaration(parameters)}): return ({result})", namespace)
    bind = namespace["bind"]
    defaults = {p.name: p.default for p in parameters if p.default is not Parameter.empty}
    keyword_only = {p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY}
    bind.__defaults__ = tuple(value for key, value in defaults.items() if key not in keyword_only)
    bind.__kwdefaults__ = {key: value for key, value in defaults.items() if key in keyword_only}
    bind.__name__ = bind.__qualname__ = name
    result_function: Callable[..., tuple[Any, ...]] = bind
    return result_function


def _declaration(parameters: list[Parameter]) -> str:
    words: list[str] = []
    starred = False
    for index, parameter in enumerate(parameters):
        if parameter.kind is Parameter.KEYWORD_ONLY and not starred:
            words.append("*")
            starred = True
        starred = starred or parameter.kind is Parameter.VAR_POSITIONAL
        default = "" if parameter.default is Parameter.empty else "=None"  # replaced after compiling
        words.append(f"{_STARS.get(parameter.kind, '')}{_variable(parameter)}{default}")
        following = parameters[index + 1].kind if index + 1 < len(parameters) else None
        if parameter.kind is Parameter.POSITIONAL_ONLY and following is not Parameter.POSITIONAL_ONLY:
            words.append("/")
    return ", ".join(words)


def _result(parameter: Parameter, parameters: list[Parameter]) -> str:
    if parameter.kind is Parameter.VAR_KEYWORD:
        return f"{_pairs_name(parameters)}({parameter.name})"
    return _variable(parameter)


def _variable(parameter: Parameter) -> str:
    return f"{parameter.name}_" if iskeyword(parameter.name) else parameter.name  # only functions in C have such names


def _pairs_name(parameters: list[Parameter]) -> str:
    return "pairs" + "_" * max((len(parameter.name) for parameter in parameters), default=0)


def _pairs(kwargs: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(kwargs.items(), key=_first)) if kwargs else ()


def _first(pair: tuple[str, Any]) -> str:
    return pair[0]


def _unknown(name: str, known: list[str], function: str) -> str:
    from difflib import get_close_matches  # only for the message of an error

    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; its parameters are {', '.join(known) or 'none'}"
    return f"ignore names {name!r}, which is no parameter of {function}{hint}"
