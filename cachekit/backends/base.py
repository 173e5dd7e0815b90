"""What a backend (L2 store) must and may offer.

A backend is one class. Its methods are plain functions (derive from `BaseBackend`) or coroutines (derive from
`AsyncBaseBackend`); names and arguments are the same. Every method gets ``budget``, the seconds that it may take in
all, and raises `cachekit.errors.BackendError` and nothing else. A write must not take effect in the store after its
budget ran out, however late the network delivers it.

Required are `get`, `store`, `invalidate`, `close`. The others are optional: a backend names those it has in
``capabilities``. `cachekit.testing.BackendContract` is the test suite for all of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

OPTIONAL = frozenset({
    "get_many", "get_or_lease", "lease", "release", "renew", "stamps", "keep", "clear", "store_if", "incr", "touch",
    "remaining", "scan", "reclaim", "expire_soft", "check",
})  # fmt: skip
COMMANDS = frozenset({"query", "alter"})  # optional too, of servers that understand the commands of Redis
LISTEN = "listen"  # optional too, but of the plain face alone: a thread of its own listens, whoever calls

TOKEN_BYTES = 16
SEEN_BYTES = 24  # magic, format, codec, flags, stale mark, header length and id: enough to tell one store from another
HEAD_BYTES = 512  # of a value, as `scan` returns them: the header of all but those with very many tags


def lease_key(key: str) -> str:
    """The name of the lease that belongs to a value key: ``ns:v:{...}`` -> ``ns:l:{...}``."""
    namespace, _, rest = key.partition(":v:")
    return f"{namespace}:l:{rest}"


class Leased(NamedTuple):
    """Answer of `get_or_lease` and `lease`."""

    kind: Literal["found", "held", "busy"]
    data: bytes | None = None  # found: the stored bytes
    ttl_ms: int | None = None  # found: what is left of the value; busy: of the other's lease; None: unknown or never


class Listener(Protocol):
    """A confirmed subscription to changes of keys. One thread uses it; only `wake` may be called from others."""

    @property
    def proof(self) -> float:
        """Every change from before this instant (of the clock given to `listen`) has been returned by `receive`."""

    def track(self, prefixes: Sequence[str], *, budget: float) -> None:
        """Hear of keys with these prefixes as well; confirmed when it returns. Raises `BackendError`."""

    def receive(self, seconds: float) -> Sequence[str | None]:
        """Keys that changed, in their order; None stands for "everything may have". Waits for at most ``seconds``.

        Keys that expired or were evicted, and our own writes, are among them. Nothing may have changed although it
        returns early. Raises `BackendError` as soon as changes may have been missed; the subscription is over then.
        """

    def wake(self) -> None:
        """Have `receive` return at once."""

    def close(self) -> None:
        """End the subscription. May be called twice."""

    def abandon(self) -> None:
        """In a forked child: let go of the connections without a word to the server."""


class BaseBackend:
    """A backend with plain methods. Keys are str (see docs/data-flow-architecture.md), data is bytes."""

    capabilities: frozenset[str] = frozenset()

    largest: int | None = None
    """The most bytes that a value may have, its header included. What is larger is returned and counted, and never
    handed to the backend. None: any number."""

    on_move: Callable[[], object] | None = None
    """Set by the engine; a backend calls it, from whatever thread, as soon as a connection leads to another server
    than the ones before (a failover, a restart), and before it is used."""

    def get(self, key: str, *, budget: float) -> bytes | None:
        """The stored bytes, or None."""
        raise NotImplementedError

    def store(self, key: str, data: bytes, ttl_ms: int | None, token: bytes | None, *, budget: float) -> bool:
        """Store for ``ttl_ms`` (None: for ever).

        With a token: only while the lease of this key still holds it, and give the lease back in the same step;
        False when it does not. Without: in any case, and end any lease of the key.
        """
        raise NotImplementedError

    def invalidate(self, keys: Sequence[str], *, budget: float) -> None:
        """Remove values and their leases in one step per key, so that a load in flight cannot store afterwards."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back connections. A later call opens them again."""
        raise NotImplementedError

    # Optional from here on; `capabilities` tells.

    def get_many(self, keys: Sequence[str], *, budget: float) -> list[bytes | None]:
        """As `get`, for several keys in one round trip. Names of stamps may be among them; it makes none."""
        raise NotImplementedError

    def get_or_lease(self, key: str, token: bytes, lease_ms: int, *, budget: float) -> Leased:
        """The value, or the right to compute it: ``held`` when no one else has it (or the same token has)."""
        raise NotImplementedError

    def lease(self, key: str, token: bytes, lease_ms: int, seen: bytes | None, steal: bool, *, budget: float) -> Leased:
        """A lease although a value lies there. ``found`` when it no longer begins with ``seen``."""
        raise NotImplementedError

    def release(self, key: str, token: bytes, *, budget: float) -> None:
        """Give a lease back without storing."""
        raise NotImplementedError

    def renew(self, key: str, token: bytes, lease_ms: int, *, budget: float) -> bool:
        """Hold a lease longer; False when it is no longer ours."""
        raise NotImplementedError

    def stamps(self, names: Sequence[str], fresh: Sequence[bytes], ttl_ms: int, *, budget: float) -> list[bytes]:
        """Read the stamps of these names; one that is absent becomes its ``fresh`` value."""
        raise NotImplementedError

    def keep(self, names: Sequence[str], *, budget: float) -> None:
        """These stamps are in use, so the store should evict others first. Nobody is told of a change."""
        raise NotImplementedError

    def clear(self, names: Sequence[str], *, budget: float) -> None:
        """Delete stamps: everything stored under them is outdated from now on."""
        raise NotImplementedError

    def store_if(
        self, key: str, data: bytes, ttl_ms: int | None, seen: bytes | None, absent: bool, *, budget: float
    ) -> bool:
        """Store if the value is absent (with ``absent``) or still begins with ``seen``.

        Without ``absent`` it is the same value once more, so a load in flight keeps its right to store.
        """
        raise NotImplementedError

    def incr(
        self, key: str, by: int, ttl_ms: int | None, mark: bytes = b"", create: bool = True, *, budget: float
    ) -> int | None:
        """Add to a decimal number of 64 bits that ``mark`` follows, and keep its life and the mark.

        An absent one starts at 0 and lives for ``ttl_ms``, if it may be created. None when nothing was changed: it may
        not, or something else lies there.
        """
        raise NotImplementedError

    def touch(self, key: str, ttl_ms: int | None, *, budget: float) -> bool:
        """Change what is left of a value's life; False when absent."""
        raise NotImplementedError

    def remaining(self, key: str, *, budget: float) -> int | Literal[False] | None:
        """Milliseconds left, None for ever, False when absent."""
        raise NotImplementedError

    def scan(self, prefix: str, cursor: str, count: int, *, budget: float) -> tuple[str, list[tuple[str, bytes]]]:
        """About ``count`` keys from ``cursor`` on, those with this prefix with the first `HEAD_BYTES` of their values.

        "" begins; the cursor to go on with comes back, "" after the last. What is there all the time comes at least
        once. What is gone meanwhile, or empty, is left out; what is no string of bytes has the empty head ``b""``.
        """
        raise NotImplementedError

    def query(self, command: str, keys: Sequence[str], words: Sequence[Any], *, budget: float) -> Any:
        """The answer of Redis to a command that only reads: ``command``, these keys, then these words."""
        raise NotImplementedError

    def alter(self, command: str, keys: Sequence[str], words: Sequence[Any], *, budget: float) -> Any:
        """As `query`, a command that writes. It is sent once."""
        raise NotImplementedError

    def reclaim(self, key: str, seen: bytes, *, budget: float) -> bool:
        """Delete a value if it still begins with ``seen``, and leave its lease alone; whether it was deleted."""
        raise NotImplementedError

    def expire_soft(self, keys: Sequence[str], *, budget: float) -> None:
        """Mark values as stale and remove their leases, in one step per key, so that a load in flight cannot store
        afterwards. An absent value stays absent.

        The mark is the byte `STALE_MARK` of an entry, which becomes 1; the rest of it and its life stay as they are.
        What does not begin with `MAGIC`, or ends before the mark (both of `cachekit.codec.envelope`), is deleted.
        """
        raise NotImplementedError

    def check(self, *, budget: float) -> dict[str, str]:
        """Facts for `cachekit doctor`: server, version, memory policy and the like."""
        raise NotImplementedError

    def listen(
        self, prefixes: Sequence[str], *, heartbeat: float, clock: Callable[[], float], budget: float
    ) -> Listener:
        """Subscribe to changes of all keys with these prefixes, whoever makes them; confirmed when it returns.

        Every ``heartbeat`` seconds of ``clock`` the listener asks the store for a proof that nothing is on its way.
        """
        raise NotImplementedError


class AsyncBaseBackend:
    """A backend whose methods are coroutines; names, arguments and promises as in `BaseBackend`."""

    capabilities: frozenset[str] = frozenset()
    largest: int | None = None
    on_move: Callable[[], object] | None = None

    async def get(self, key: str, *, budget: float) -> bytes | None:
        raise NotImplementedError

    async def store(self, key: str, data: bytes, ttl_ms: int | None, token: bytes | None, *, budget: float) -> bool:
        raise NotImplementedError

    async def invalidate(self, keys: Sequence[str], *, budget: float) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Faces:
    """The two faces of an opened backend; one may be missing (a third-party backend with only one kind of method)."""

    sync: BaseBackend | None
    aio: Any  # AsyncBaseBackend | None; Any because optional coroutines are found by name

    @property
    def capabilities(self) -> frozenset[str]:
        """What both faces offer."""
        offered = [face.capabilities for face in (self.sync, self.aio) if face is not None]
        return frozenset.intersection(*offered) if offered else frozenset()

    @property
    def largest(self) -> int | None:
        """What both faces take."""
        limits = [face.largest for face in (self.sync, self.aio) if face is not None and face.largest is not None]
        return min(limits, default=None)

    @property
    def listens(self) -> bool:
        """Whether somebody can be told of changes."""
        return self.sync is not None and LISTEN in self.sync.capabilities

    def tell_of_moves(self, on_move: Callable[[], object]) -> None:
        """Have both faces call this when they are led to another server."""
        for face in (self.sync, self.aio):
            if face is not None:
                face.on_move = on_move
