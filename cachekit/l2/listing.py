"""What lies in a store: every entry of a namespace, and what its key and its first bytes say. For commands."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from cachekit.backends.base import HEAD_BYTES, BaseBackend
from cachekit.codec.envelope import NEVER, SEALED, closed_by, span
from cachekit.codec.opening import place_of
from cachekit.engine import keys
from cachekit.errors import UnsupportedOperation
from cachekit.l2.operation import NUMBER
from cachekit.l2.reclaim import entry_of, outdated
from cachekit.l2.remote import Remote

PAGE: Final = 200  # keys in one step
PATIENCE: Final = 1.0  # seconds that one step may take at least: nobody's request waits for it
READING: Final = 10.0  # the same, of reading one value: it may be large


class Listed(NamedTuple):
    """One entry. ``state``: fresh, stale, outdated (a region, function or tag of it was cleared), number, or foreign.

    ``bytes`` are those in the store; None: gone meanwhile. Times are seconds from now on, below 0 if they have passed;
    None: never, or not known.
    """

    key: str
    region: str
    function: str
    state: str
    protection: str  # none, signed, encrypted
    bytes: int | None
    created: float | None
    fresh_until: float | None
    kept_until: float | None


def list_stores(
    remotes: Iterable[Remote], namespace: str, region: str | None, now: float, turn: Callable[[], object] = lambda: None
) -> Iterator[Listed]:
    """As `list_entries` of each, and those once that several backends have because they are one server."""
    seen: set[str] = set()
    for remote in remotes:
        for entry in list_entries(remote, namespace, region, now, turn):
            if entry.key not in seen:
                seen.add(entry.key)
                yield entry


def list_entries(
    remote: Remote, namespace: str, region: str | None, now: float, turn: Callable[[], object] = lambda: None
) -> Iterator[Listed]:
    """The entries of a region, or of all; ``now`` in seconds since the epoch. What comes or goes meanwhile may be left
    out, or come twice.

    Nothing is written. The store is asked for `PAGE` keys at a time, found or not; ``turn`` is called before each time,
    and may wait. The size of a value longer than what a page has of it is found by reading it. Raises `BackendError`,
    and `UnsupportedOperation` where the backend cannot list its keys.
    """
    face = remote.faces.sync
    if face is None or not {"scan", "get_many"} <= face.capabilities:
        raise UnsupportedOperation(f"backend {remote.spec.name!r} cannot list its keys")
    budget = max(PATIENCE, remote.spec.budget)
    prefix = f"{namespace}:v:{{" + (f"{region}:" if region else "")
    cursor = ""
    while True:
        turn()
        cursor, page = face.scan(prefix, cursor, PAGE, budget=budget)
        gone = _outdated(face, namespace, page, budget)
        for key, head in page:
            yield _listed(face, key, head, key in gone, now, budget)
        if not cursor:
            return


def _outdated(face: BaseBackend, namespace: str, page: list[tuple[str, bytes]], budget: float) -> set[str]:
    entries = [entry for key, head in page if (entry := entry_of(namespace, key, head)) is not None]
    names = list(dict.fromkeys(name for entry in entries for name in entry.stamps))
    current = dict(zip(names, face.get_many(names, budget=budget), strict=True)) if names else {}
    return {entry.key for entry in entries if outdated(entry, current)}


def _listed(face: BaseBackend, key: str, head: bytes, outdated: bool, now: float, budget: float) -> Listed:
    place = place_of(key)
    region, function = ("", "") if place is None else (place.region, keys.function_of(place.ident))
    size, times = _size(face, key, head), span(head)
    if times is None:
        state = "outdated" if outdated else "number" if NUMBER.fullmatch(head) else "foreign"
        return Listed(key, region, "", state, "none", size, None, None, _left(face, key, budget))
    state = "outdated" if outdated else "stale" if times.stale or times.soft <= now * 1000 else "fresh"
    left = [None if at >= NEVER else round(at / 1000 - now, 3) for at in times[:3]]
    return Listed(key, region, function, state, _protection(head), size, *left)


def _size(face: BaseBackend, key: str, head: bytes) -> int | None:
    if len(head) < HEAD_BYTES:
        return len(head)
    data = face.get(key, budget=READING)
    return None if data is None else len(data)


def _protection(head: bytes) -> str:
    use, _ = closed_by(head) or (0, b"")
    return "none" if not use else "encrypted" if use == SEALED else "signed"


def _left(face: BaseBackend, key: str, budget: float) -> float | None:
    """What the store says of what does not say it itself."""
    left = face.remaining(key, budget=budget) if "remaining" in face.capabilities else None
    return left / 1000 if left else None
