"""The operations of the protocol on memcached: each change of a record is a compare-and-swap of its item."""

import time
from collections.abc import Sequence
from time import monotonic
from typing import Final, TypeVar

from pymemcache.client.base import Client

from cachekit.backends.memcached.items import OVERHEAD, expiry, name_of, pack, unpack
from cachekit.backends.memcached.transport import Pool
from cachekit.backends.records import STEPS, Record, RecordBackend, Step, expire_soft, living

T = TypeVar("T")

MAX_ITEM_BYTES: Final = 1024 * 1024  # what memcached takes unless its -I says otherwise
PLACE: Final = Record()  # in the way of nobody; whoever wants to store a value swaps this for it
PLACE_SECONDS: Final = 10
GONE: Final = -1  # as a time to live: at once
CLOCK: Final = "#clock"


def now_ms() -> int:
    return int(time.time() * 1000)


class MemcachedBackend(RecordBackend):
    """One memcached server. Nobody is told of changes there, and what it holds cannot be listed.

    What ends is judged by the clocks of the hosts, as in the header of an entry. The right to store is not: it is in
    the item, and whoever invalidates deletes the item.
    """

    capabilities = STEPS | {"get_many", "stamps", "clear", "expire_soft", "check"}

    def __init__(self, host: str, port: int, limit: int, max_item_bytes: int) -> None:
        self.largest = max_item_bytes - OVERHEAD
        self._pool = Pool(host, port, limit)

    # Records

    def _read(self, key: str, budget: float) -> tuple[Record | None, int]:
        with self._pool.wire(monotonic() + budget) as client:
            item = client.get(name_of(key))
        now = now_ms()
        return (None if item is None else living(unpack(item), now)), now

    def _change(self, key: str, step: Step[T], budget: float) -> T:
        name, deadline = name_of(key), monotonic() + budget
        with self._pool.wire(deadline) as client:
            while True:  # its deadline ends it
                item, version = client.gets(name)
                now = now_ms()
                before = None if item is None else living(unpack(item), now)
                after, answer = step(before, now)
                if after is before or (after is None and item is None):
                    return answer
                if item is not None:
                    if swap(client, name, version, after, now):
                        return answer
                elif after is not None and after.data is None:
                    if client.add(name, pack(after), expire=expiry(after.until(), now)):
                        return answer
                else:
                    # An `add` of the value that arrives late would undo an invalidation that found nothing to delete.
                    client.add(name, pack(PLACE), expire=PLACE_SECONDS)

    def expire_soft(self, keys: Sequence[str], *, budget: float) -> None:
        deadline = monotonic() + budget
        for key in keys:
            self._change(key, expire_soft, deadline - monotonic())

    def get_many(self, keys: Sequence[str], *, budget: float) -> list[bytes | None]:
        names = [name_of(key) for key in keys]
        with self._pool.wire(monotonic() + budget) as client:
            items = client.get_many(list(dict.fromkeys(names)))
        now = now_ms()
        records = [living(unpack(items[name]), now) if name in items else None for name in names]
        return [None if record is None else record.data for record in records]

    def invalidate(self, keys: Sequence[str], *, budget: float) -> None:
        self._delete(keys, budget)

    # Stamps: records whose value is the stamp

    def stamps(self, names: Sequence[str], fresh: Sequence[bytes], ttl_ms: int, *, budget: float) -> list[bytes]:
        """Those of tags are read before their clock, which `clear` deletes first: whoever gets a new stamp of a tag
        gets the new clock as well."""
        wanted = {name_of(name): new for name, new in zip(reversed(names), reversed(fresh), strict=True)}
        with self._pool.wire(monotonic() + budget) as client:
            while True:  # its deadline ends it
                now, found = now_ms(), client.gets_many(list(wanted))
                records = {name: living(unpack(item), now) for name, (item, _) in found.items()}
                absent = [name for name in wanted if (record := records.get(name)) is None or record.data is None]
                if not absent:
                    break
                for name in absent:
                    made = Record(wanted[name], now + ttl_ms)
                    if name in found:
                        swap(client, name, found[name][1], made, now)
                    else:
                        client.add(name, pack(made), expire=expiry(made.until(), now))
            for name, record in records.items():
                if record is not None and record.ends is not None and record.ends - now < ttl_ms // 2:
                    swap(client, name, found[name][1], record._replace(ends=now + ttl_ms), now)
        return [records[name_of(name)].data or b"" for name in names]  # type: ignore[union-attr]  # none is absent

    def clear(self, names: Sequence[str], *, budget: float) -> None:
        self._delete(sorted(names, key=lambda name: not name.endswith(CLOCK)), budget)

    # The whole

    def check(self, *, budget: float) -> dict[str, str]:
        with self._pool.wire(monotonic() + budget) as client:
            version, facts, settings = client.version(), client.stats(), client.stats("settings")
        limit = settings.get(b"item_size_max", 0)
        return {
            "server": "memcached",
            "version": version.decode(errors="replace"),
            "keys": str(facts.get(b"curr_items", "")),
            "used_memory": str(facts.get(b"bytes", "")),
            "maxmemory": str(facts.get(b"limit_maxbytes", "")),
            "item_size_max": str(limit),
        }

    def close(self) -> None:
        self._pool.close()

    def _delete(self, names: Sequence[str], budget: float) -> None:
        with self._pool.wire(monotonic() + budget) as client:
            for name in names:
                client.delete(name_of(name))


def swap(client: Client, name: str, version: bytes, after: Record | None, now: int) -> bool:
    """Replace an item that nobody has replaced since."""
    if after is None:
        return bool(client.cas(name, b"", version, expire=GONE))
    return bool(client.cas(name, pack(after), version, expire=expiry(after.until(), now)))
