"""What a running load knows about itself: the flights it is inside of, and `current_entry()`."""

from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, cast

from cachekit.engine.flight import Chain
from cachekit.l1.table import core

if TYPE_CHECKING:
    from cachekit.config.units import Duration

LOADING: ContextVar[Chain | None] = ContextVar("cachekit_loading", default=None)
ENTRY: "ContextVar[Entry | None]" = ContextVar("cachekit_entry", default=None)


def inside_load() -> bool:
    """Whether this context runs inside of a load whose value goes into L2.

    What it is made of must not be what this process remembers: L2 may know already that it is outdated, and then what
    is made of it would be stored after its own invalidation.
    """
    chain = LOADING.get()
    return chain is not None and chain.began is not None


class Entry:
    """The entry that the running cached function is about to fill.

    ``ttl`` (seconds, a duration like "5m", or None for never) and ``tags`` may be set by the function; ``no_store()``
    keeps the result out of the cache.
    """

    __slots__ = ("_depth", "_thread", "_ttl", "stored", "tags", "ttl_given")

    def __init__(self, ttl: float | None, tags: tuple[str, ...]) -> None:
        self._depth = core.depth() if core is not None else 0  # loads of the core that this one is inside of
        self._thread = get_ident()
        self._ttl = ttl
        self.ttl_given = False
        self.tags: set[str] = set(tags)
        self.stored = True

    @property
    def ttl(self) -> float | None:
        """Time to live in seconds; None is never."""
        return self._ttl

    @ttl.setter
    def ttl(self, value: "Duration | None") -> None:
        from cachekit.config.units import parse_duration  # light, but only needed here

        self._ttl = parse_duration(value)
        self.ttl_given = True

    def no_store(self) -> None:
        """Return the result to the caller and keep nothing."""
        self.stored = False


def current_entry() -> Entry:
    """The entry that the running cached function fills. Outside of one: `RuntimeError`."""
    entry = ENTRY.get()
    if (
        core is not None
        and (depth := core.depth())
        and (entry is None or entry._thread != get_ident() or entry._depth < depth)
    ):
        return cast(Entry, core.entry_here())  # a load that the core runs is the innermost
    if entry is None:
        raise RuntimeError("current_entry() works only inside a cached function while it is being computed")
    return entry
