"""The native twin: `cachekit._native` behind the interface that `table` describes. An ImportError: there is none."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, Final

import cachekit._native as core
from cachekit._native import Table, Versions, admit, is_plain, isolate, khash
from cachekit.engine.miss import MISS
from cachekit.errors import ConfigError
from cachekit.l1.kinds import kinds_of
from cachekit.l1.memo import compile_probe, compile_shell
from cachekit.l1.views import EntryView, Stats

__all__ = [
    "TWIN", "Memo", "Table", "Versions", "admit", "compile_memo", "core", "is_plain", "isolate", "khash",
]  # fmt: skip

TWIN: Final = "native"
ABI: Final = 6  # of the binary that this code understands
READY: Final = sys.version_info >= (3, 12)  # `inspect.iscoroutinefunction` believes a mark since then

if core.ABI != ABI:
    raise ImportError(f"cachekit._native has interface {core.ABI}, not {ABI}: it is left from another build")
core.install(MISS, EntryView, Stats, kinds_of, ConfigError)


class Memo:
    """The function that users call, ``call``, and the table that it looks into. Unbound, every call is slow."""

    __slots__ = ("_core", "call")

    def __init__(self, call: Callable[..., Any], core: core.Memo) -> None:
        self.call = call
        self._core = core

    def bind_table(self, table: Table, slot: int) -> None:
        """Answer hits from this slot."""
        self._core.bind(table, slot)

    def unbind(self) -> None:
        """Answer nothing; every call goes to ``on_slow``."""
        self._core.unbind()

    def binds_by(self, face: Any) -> bool:
        """Let ``instance.f`` be what ``face`` makes of the instance; ``instance.f(...)`` makes no object."""
        if self.call is not self._core:
            return False  # a shell, which Python binds in its own way
        self._core.binds_by(face)
        return True

    def loads_by(
        self, func: Any, flights: Any, observers: Any, hooks: Any, ttl: int, spread: int, cap: int, early: bool
    ) -> None:
        """Let the core run loads by itself; see `cachekit.engine.quick`. Times in ns.

        With ``early``, a value whose load took 1 ms or more is not kept by the core but given to ``hooks.finish``.
        """
        if self.call is self._core:
            self._core.loads_by(func, flights, observers, hooks, ttl, spread, cap, early)

    def stop_loading(self) -> None:
        """Let every miss go to ``on_slow``."""
        self._core.stop_loading()


def compile_memo(
    func: Callable[..., Any],
    signature: Any,
    on_slow: Callable[[tuple[Any, ...], dict[str, Any]], Any],
    *,
    ignore: frozenset[str] = frozenset(),
    is_async: bool = False,
) -> Memo:
    """As `cachekit.l1.memo.compile_memo`; what is made is not a function but a `cachekit._native.Memo`.

    Before Python 3.12 nothing but a function can be seen to be a coroutine function, so async ones get a shell there
    that asks the native memo.
    """
    if is_async and not READY:
        memo = _core(None, signature, ignore, is_async=False)
        return Memo(compile_probe(func, signature, on_slow, memo.probe), memo)
    shell = compile_shell(func, signature, on_slow, is_async=is_async)
    memo = _core(shell, signature, ignore, is_async=is_async)
    _dress(memo, shell)
    if is_async:
        inspect.markcoroutinefunction(memo)  # type: ignore[attr-defined,unused-ignore]  # since 3.12
    return Memo(memo, memo)


def _dress(memo: core.Memo, shell: Callable[..., Any]) -> None:
    """Name, documentation, attributes: what the function has."""
    memo.__dict__.update(shell.__dict__)
    for name in (*functools.WRAPPER_ASSIGNMENTS, "__annotations__"):
        memo.__dict__[name] = getattr(shell, name)


def _core(shell: Callable[..., Any] | None, signature: Any, ignore: frozenset[str], *, is_async: bool) -> core.Memo:
    exact = signature if isinstance(signature, inspect.Signature) else signature.signature
    parameters = list(exact.parameters.values())
    positional = [p for p in parameters if p.kind <= p.POSITIONAL_OR_KEYWORD]
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        parameters, positional = [], []  # nothing fits, so that every call goes to the shell
    return core.Memo(
        shell,
        tuple([p.name for p in parameters]),
        tuple([MISS if p.default is p.empty else p.default for p in parameters]),
        len(positional),
        len([p for p in positional if p.kind is p.POSITIONAL_ONLY]),
        tuple([at for at, p in enumerate(parameters) if p.name not in ignore]),
        is_async,
    )
