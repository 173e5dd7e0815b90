"""The L1 table: which implementation this process uses, and what every implementation promises.

`Table` keeps the values of one region in this process. A *slot* is a function's part of it (slot 0: the region's own
keys); ``args`` is the array that an entry is found by, a tuple of

* exact ``int``, ``str``, ``bytes``, ``bool`` or ``None``, or
* one `cachekit.engine.keys.Digest`, or
* in a table without L2, any hashable objects.

Two arrays are the same only if they are equal *and* each element has exactly the same type, inside tuples and
frozensets too, and 0.0 is not -0.0: ``1``, ``True`` and ``1.0`` have three entries. Times are ns of the table's clock,
`NEVER` does not come; a time has passed from its own instant on.

::

    Table(*, region, max_entries, max_bytes, policy, versions, clock=None, isolation="auto", skip=bool)
        policy       "s3fifo" or "lru" (exact; in pure Python its hits take a lock)
        versions     the service's Versions; its lock guards every change
        clock        () -> int; None: time.monotonic_ns
        isolation    "auto", "copy": who gets a value that can be changed, gets a copy; "share": never copy
        skip         () -> bool: this caller must not be answered; asked at each hit while `watch` is on
    slot(name) -> int                     the same name, the same slot
    get(slot, args)                       value or MISS; counts a hit or a miss
    entry(slot, args) -> EntryView|None   also what is stale but not past keep_until; counts nothing
    put(slot, args, value, *, khash, fresh_until, keep_until, ticket, tags=(), admission, load_ms=0, negative=False,
        detached=False, early=False, aside=False)
        -> bool      True: the table keeps a copy of its own. False: something that covers the key was invalidated after
                     the ticket (test and insertion are one critical section; what was there stays), or the value is
                     heavier than the table (what was there goes)
        early        fresh_until is when to refresh the value, which is good until later: keep_until at the most
        aside        no memo answers it, its calls go to ``on_slow`` and are not counted; get answers it
    refreshed(slot, args, fresh_until) -> bool
                     True to one caller, if the entry is early, not past keep_until and not outdated by a tag: it is not
                     early any more, and fresh until then or until keep_until, whichever comes first
    mark_stale(khash) -> int    every entry of this hash is fresh until now at the most, and not early any more;
                     keep_until stays. How many there were
    drop(slot, args) -> bool    drop_key(khash) -> int    drop_slot(slot) -> int    clear() -> int
                     how many entries went. An invalidation is ``versions.bump_...`` and then this, under the lock; for
                     tags the bump alone does, entries compare
    alive(until)     hits of entries that are not ``detached`` need now < until as well; infinite until the first call
    watch(on)        whether hits ask ``skip``; off until the first call
    sweep(limit) -> int                   remove what expired among the next `limit` entries
    reset()          in a forked child: empty and its counts 0, without taking the lock (Versions.reset_lock makes the
                     new one)
    stats(slot=None) -> Stats             __len__() -> int            weight -> int, estimated bytes of the values

The bounds hold after every call: at most ``max_entries`` entries and ``max_bytes`` of weight (a value's alone, not
the memory of the entry). Expired entries go first. A copy that fails on a hit counts as a miss.

`compile_memo` and `Memo` (`cachekit.l1.memo`) make the function that answers hits; `TWIN` names the implementation.
``CACHEKIT_PURE=1`` asks for pure Python, ``CACHEKIT_NATIVE=1`` for the native one or an error.
"""

import logging
import os
import sys
from typing import TYPE_CHECKING

from cachekit.errors import ConfigError
from cachekit.l1.views import NEVER, EntryView, Stats

__all__ = [
    "NEVER", "TWIN", "EntryView", "Memo", "Stats", "Table", "Versions", "admit", "compile_memo", "core",
    "is_plain", "isolate", "khash",
]  # fmt: skip

logger = logging.getLogger("cachekit")


def _wanted() -> bool:
    """Whether there is a native core that this process may use; why not is an error if it was asked for."""
    if os.environ.get("CACHEKIT_PURE") == "1":
        return False
    try:
        import cachekit.l1.native  # noqa: F401  # asked for here, used below
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == "cachekit._native"
        reason = "this installation has none" if absent else str(error)
        if "free-threading" in sys.version:
            reason = "free-threaded Python has no GIL, which it needs"
        if os.environ.get("CACHEKIT_NATIVE") == "1":
            raise ConfigError(f"CACHEKIT_NATIVE=1 asks for the native core, which cannot be used: {reason}") from error
        if not absent:  # it is there, and does not load
            logger.warning("the native core cannot be used, pure Python serves: %s", reason)
        return False
    return True


if TYPE_CHECKING or not _wanted():
    from cachekit.l1.pure import TWIN, Memo, Table, Versions, admit, compile_memo, core, is_plain, isolate, khash
else:
    from cachekit.l1.native import TWIN, Memo, Table, Versions, admit, compile_memo, core, is_plain, isolate, khash
