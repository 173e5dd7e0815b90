"""What `@cache` makes of a function: the faces that users hold, blocking and awaited."""

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from cachekit.engine import flow
from cachekit.engine.keys import EntryKey
from cachekit.engine.miss import MISS, Miss
from cachekit.engine.outcome import Outcome
from cachekit.engine.ports import Port, drive
from cachekit.engine.tiers import ORDINARY, Switches
from cachekit.errors import UncacheableArgument
from cachekit.function import CacheInfo, Function
from cachekit.process import default_service
from cachekit.regions import Region, region

if TYPE_CHECKING:
    from typing import Concatenate, Literal

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


if TYPE_CHECKING:

    class _Partial:
        func: Any
        args: tuple[Any, ...]

else:
    _Partial = functools.partial

_bind: Any = functools.partial.__new__


class _Doc:
    """`__doc__`: what is written in the class, and of its instances the function's own."""

    def __init__(self, text: str | None) -> None:
        self._text = text

    def __get__(self, instance: Any, owner: type | None = None) -> str | None:
        return self._text if instance is None else instance.func.__doc__


class _Kind(type):
    """Makes the functions that `@cache` returns count as `CachedFunction`."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> "_Kind":
        return super().__new__(cls, name, bases, {**body, "__doc__": _Doc(body.get("__doc__"))})

    def __instancecheck__(cls, instance: object) -> bool:
        if isinstance(type(instance), _Kind):  # a twin has the function's attributes, and is the other kind of it
            return super().__instancecheck__(instance)
        return super().__instancecheck__(getattr(instance, "__cachekit__", None))


class CachedFunction(_Partial, Generic[P, R], metaclass=_Kind):
    """What `@cache` makes of a function: call it as before, and use the attributes below to look into its entries.

    With the native core a function, also in a class body, becomes a callable of the core with these attributes. In pure
    Python, and on 3.11 if it is async, it becomes a real function at module level and this object in a class body.
    Either way instances and classes are bound so that ``obj.method.invalidate(7)`` knows ``obj``: what is bound is this
    object, a `functools.partial` of the hit path with the instance as its argument. Frameworks see through all of them
    whether the function is a coroutine function.
    """

    _switches: Switches = ORDINARY
    _kind: str = "bound"  # what it does as an attribute: method and class bind, static and bound do not

    if TYPE_CHECKING:
        __name__: str
        __qualname__: str
        __wrapped__: Callable[..., R]  # with self, also where a method is bound

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @classmethod
    def of(cls, function: Function) -> "CachedFunction[Any, Any]":
        """The face of a decorated function, bound to nothing yet."""
        made = function.face = cls(function.memo.call)  # type: ignore[call-arg]  # a partial
        functools.update_wrapper(made, function.fn)
        made._kind = function.kind
        return made

    @property
    def _function(self) -> Function:
        return cast(Function, self.func.__cachekit_function__)

    def __repr__(self) -> str:
        return f"<cached {self._function.name}>"

    def __reduce__(self) -> Any:
        name = self._function.fn.__qualname__
        return (getattr, (self.args[0], name.rpartition(".")[2])) if self.args else name

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.func is other.func and list(map(id, self.args)) == list(map(id, other.args))

    def __hash__(self) -> int:
        return hash((id(self.func), *map(id, self.args)))

    @overload
    def __get__(self, instance: None, owner: type, /) -> "CachedFunction[P, R]": ...
    @overload
    def __get__(
        self: "CachedFunction[Concatenate[S, Q], R]", instance: S, owner: type | None = None, /
    ) -> "CachedFunction[Q, R]": ...
    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> "CachedFunction[P, R]": ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> "CachedFunction[Any, R]":
        # Called for every call of a method, so it says what it means in as few steps as possible.
        if instance is None or self._kind != "method":
            if self._kind != "class" or self.args:
                return self
            instance = owner or type(instance)
        return _bind(type(self), self.func, instance)  # type: ignore[no-any-return]  # partial.__new__

    @property
    def region(self) -> Region:
        """The region that this function's entries belong to."""
        service = self._function.service
        name = self._function.options.profile
        return region(name) if service is default_service else cast(Region, service().region(name))

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function now and store the result, whatever is cached. A failure leaves what was stored."""
        return cast(R, self._run(self._function.refresh(self._port(), self._switches, self._all(args), kwargs)))

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> "R | Literal[Miss.MISS]":
        """What is cached for this call in either tier, or `MISS`; never runs the function."""
        return cast(
            "R | Literal[Miss.MISS]",
            self._run(self._function.peek(self._port(), self._switches, self._all(args), kwargs)),
        )

    def put(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Store a value for this call."""
        return cast(None, self._run(self._function.put(self._port(), self._switches, value, self._all(args), kwargs)))

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Outcome:
        """Remove what this call cached. Whoever calls afterwards gets a value computed from data read afterwards."""
        return cast(Outcome, self._run(self._function.invalidate(self._port(), self._all(args), kwargs)))

    def mark_stale(self, *args: P.args, **kwargs: P.kwargs) -> Outcome:
        """Have the value of this call computed anew, and keep the old one for where stale values may be given.

        Who must not see the old value again wants `invalidate`.
        """
        return cast(Outcome, self._run(self._function.mark_stale(self._port(), self._all(args), kwargs)))

    def invalidate_all(self) -> Outcome:
        """Remove every entry of this function; inside `tenant`, every one of that tenant.

        Where a tenant is required and there is none, `MissingTenant` is raised; `cache_clear` reaches all of them.
        """
        return cast(Outcome, self._run(self._function.invalidate_all(self._port())))

    def key(self, *args: P.args, **kwargs: P.kwargs) -> EntryKey:
        """The key of this call's entry, which every method of a region takes."""
        at = self._function.at()
        place, tenant = at.place(self._all(args), kwargs)
        whose = at.whose(tenant)
        text = at.text(place, whose.digest)
        if text is None:
            raise UncacheableArgument(f"{self._function.name}: an argument has no stable identity, so there is no key")
        return EntryKey.of(text, slot=at.slot, args=place, stamp_names=at.stamp_names, tiers=at.tiers, whose=whose)

    def cache_info(self) -> CacheInfo:
        """As of `functools.lru_cache`: hits and misses in this process since `cache_clear`, maxsize and currsize."""
        return self._function.info()

    def cache_clear(self) -> None:
        """Forget every entry of this function, in this process at once, in L2 before it is used again; count anew.

        Of all tenants, wherever it is called.
        """
        self._function.clear()

    def cache_parameters(self) -> dict[str, Any]:
        """The settings of this function."""
        at = self._function.at()
        spec = at.tiers.spec
        return {"maxsize": at.maxsize, "typed": True, "profile": spec.name, "ttl": spec.ttl}

    def using(
        self,
        *,
        force_refresh: bool = False,
        skip_l1: bool = False,
        skip_l2: bool = False,
        read_only: bool = False,
        allow_stale: bool | None = None,
    ) -> "CachedFunction[P, R]":
        """The same function for calls that want it otherwise than the profile says: ``f.using(skip_l1=True)(7)``.

        ``force_refresh`` computes and stores whatever is cached; ``skip_l1`` and ``skip_l2`` neither read nor write
        that tier; ``read_only`` stores nothing; ``allow_stale`` takes a stale value rather than compute, False never.
        """
        switches = self._switches.also(force_refresh, skip_l1, skip_l2, read_only, allow_stale)
        kind = _AsyncView if isinstance(self, AsyncCachedFunction) else _View
        return cast("CachedFunction[P, R]", _view(kind, self, switches))

    def twin(self) -> "AsyncCachedFunction[P, R]":
        """The same cached function for coroutines: ``await f.twin().invalidate(7)``. Calls run in a worker thread."""
        return cast("AsyncCachedFunction[P, R]", _bind(_Awaited, self.func, *self.args))

    def _all(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*self.args, *args)

    def _port(self) -> Port:
        return self._function.at().service.sync_port

    def _run(self, body: Coroutine[Any, Any, Any]) -> Any:
        return drive(body)

    if not TYPE_CHECKING:  # type checkers would take it for a promise that every attribute exists

        def __getattr__(self, name: str) -> Any:
            if name == "__signature__" and self.args:  # bound: `__wrapped__` has one parameter more
                return inspect.signature(functools.partial(self.func, *self.args))
            # Bound: what the function has, or was given above the decorator, as methods have it.
            for known in (vars(self.func.__cachekit_function__.face), vars(self.func)):
                if name in known:
                    return known[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class AsyncCachedFunction(CachedFunction[P, Coroutine[Any, Any, R]]):
    """`CachedFunction` of an async function: its attributes are coroutines too, but for those that touch no server."""

    def twin(self) -> CachedFunction[P, R]:  # type: ignore[override]  # each is the other's twin
        """The blocking face: ``f.twin().invalidate(7)`` where nothing can be awaited."""
        return cast("CachedFunction[P, R]", _bind(_Blocking, self.func, *self.args))

    def _port(self) -> Port:
        return self._function.at().service.async_port

    def _run(self, body: Coroutine[Any, Any, Any]) -> Any:
        return body

    if TYPE_CHECKING:
        # As `async def`: mypy gives up on `gather(f(1), g(2))` where an Any of ours is in a written-out `Coroutine`.
        async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        async def peek(  # type: ignore[override]
            self, *args: P.args, **kwargs: P.kwargs
        ) -> "R | Literal[Miss.MISS]": ...
        async def put(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None: ...  # type: ignore[override]
        async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Outcome: ...  # type: ignore[override]
        async def mark_stale(self, *args: P.args, **kwargs: P.kwargs) -> Outcome: ...  # type: ignore[override]
        async def invalidate_all(self) -> Outcome: ...  # type: ignore[override]
        def using(
            self,
            *,
            force_refresh: bool = False,
            skip_l1: bool = False,
            skip_l2: bool = False,
            read_only: bool = False,
            allow_stale: bool | None = None,
        ) -> "AsyncCachedFunction[P, R]": ...
        @overload
        def __get__(self, instance: None, owner: type, /) -> "AsyncCachedFunction[P, R]": ...
        @overload
        def __get__(
            self: "AsyncCachedFunction[Concatenate[S, Q], R]", instance: S, owner: type | None = None, /
        ) -> "AsyncCachedFunction[Q, R]": ...
        @overload
        def __get__(self, instance: object, owner: type | None = None, /) -> "AsyncCachedFunction[P, R]": ...
        def __get__(self, instance: Any, owner: type | None = None, /) -> Any: ...


class _Awaited(AsyncCachedFunction[P, R]):
    """The awaitable face of a blocking function, which runs in a worker thread."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        function = self._function
        at, every = function.at(), self._all(args)
        given = at.place(every, kwargs)
        value = at.quick(*given)
        if value is MISS:
            value = (await flow.get_or_load(function.call(at, every, kwargs, given), at.service.async_port)).unwrap()
        return cast(R, value)

    def twin(self) -> Any:
        return _bind(CachedFunction, self.func, *self.args)


class _Blocking(CachedFunction[P, R]):
    """The blocking face of an async function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        function = self._function
        at, every = function.at(), self._all(args)
        given = at.place(every, kwargs)
        value = at.quick(*given)
        if value is MISS:
            value = drive(flow.get_or_load(function.call(at, every, kwargs, given), at.service.sync_port)).unwrap()
        return cast(R, value)

    def twin(self) -> Any:
        return _bind(AsyncCachedFunction, self.func, *self.args)


def _view(kind: Any, face: CachedFunction[Any, Any], switches: Switches) -> Any:
    made = _bind(kind, face.func, *face.args)
    made._switches = switches
    made._kind = face._kind  # it may be assigned in the class body
    return made


class _Switched(CachedFunction[P, R]):
    """What `using` makes of a face: bound, or turned into its twin, it keeps its switches."""

    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        bound = super().__get__(instance, owner)
        return bound if bound is self else _view(type(self), bound, self._switches)

    def twin(self) -> Any:
        return _view(_View if isinstance(self, AsyncCachedFunction) else _AsyncView, self, self._switches)


class _View(_Switched[P, R]):
    """A blocking face with switches."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, self._run(self._function.load(self._port(), self._switches, self._all(args), kwargs)))


class _AsyncView(_Switched[P, Coroutine[Any, Any, R]], AsyncCachedFunction[P, R]):
    """An awaited face with switches."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, await self._function.load(self._port(), self._switches, self._all(args), kwargs))
