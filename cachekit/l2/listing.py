"""What lies in a store: every entry of a namespace, and what its key and its first bytes say. For commands."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from cachekit.backends.base import BaseBackend
from cachekit.codec.envelope import NEVER, span
from cachekit.codec.opening import place_of
from cachekit.engine import keys
from cachekit.errors import UnsupportedOperation
from cachekit.l2.operation import NUMBER
from cachekit.l2.reclaim import entry_of, outdated
from cachekit.l2.remote import Remote

PAGE: Final = 200  # keys in one step
PATIENCE: Final = 1.0  # seconds that one step may take at least: nobody's request waits for it


class Listed(NamedTuple):
    """One entry. ``state``: fresh, stale, outdated (a region, function or tag of it was cleared), number, or foreign.

    Times are seconds from now on, below 0 if they have passed; None: never, or not known.
    """

    key: str
    region: str
    function: str
    state: str
    created: float | None
    fresh_until: float | None
    kept_until: float | None


def list_entries(remote: Remote, namespace: str, region: str | None, now: float) -> Iterator[Listed]:
    """The entries of a region, or of all; ``now`` in seconds since the epoch. What comes or goes meanwhile may be left
    out, or come twice.

    Nothing is written. Raises `BackendError`, and `UnsupportedOperation` where the backend cannot list its keys.
    """
    face = remote.faces.sync
    if face is None or not {"scan", "get_many"} <= face.capabilities:
        raise UnsupportedOperation(f"backend {remote.spec.name!r} cannot list its keys")
    budget = max(PATIENCE, remote.spec.budget)
    prefix = f"{namespace}:v:{{" + (f"{region}:" if region else "")
    cursor = ""
    while True:
        cursor, page = face.scan(prefix, cursor, PAGE, budget=budget)
        gone = _outdated(face, namespace, page, budget)
        for key, head in page:
            yield _listed(key, head, key in gone, now)
        if not cursor:
            return


def _outdated(face: BaseBackend, namespace: str, page: list[tuple[str, bytes]], budget: float) -> set[str]:
    entries = [entry for key, head in page if (entry := entry_of(namespace, key, head)) is not None]
    names = list(dict.fromkeys(name for entry in entries for name in entry.stamps))
    current = dict(zip(names, face.get_many(names, budget=budget), strict=True)) if names else {}
    return {entry.key for entry in entries if outdated(entry, current)}


def _listed(key: str, head: bytes, outdated: bool, now: float) -> Listed:
    place = place_of(key)
    region, function = ("", "") if place is None else (place.region, keys.function_of(place.ident))
    times = span(head)
    if times is None:
        state = "outdated" if outdated else "number" if NUMBER.fullmatch(head) else "foreign"
        return Listed(key, region, "", state, None, None, None)
    state = "outdated" if outdated else "stale" if times.stale or times.soft <= now * 1000 else "fresh"
    left = [None if at >= NEVER else round(at / 1000 - now, 3) for at in times[:3]]
    return Listed(key, region, function, state, *left)
