"""How a record lies in memcached: the name of its item, the bytes, and when memcached may forget it.

One item holds a value and its lease, so one compare-and-swap replaces both and one delete ends both.
"""

import hashlib
from struct import Struct
from typing import Final

from cachekit.backends.records import Record

HEAD: Final = Struct("<4sBqq16s")  # magic, what is there, end of the value, end of the lease, token
MAGIC: Final = b"ckm1"
VALUE, ENDS, LEASE = 1, 2, 4  # what is there
NO_TOKEN: Final = bytes(16)
OVERHEAD: Final = 512  # bytes of an item that are not the value's: our head, memcached's own, and the name
RELATIVE: Final = 30 * 86_400  # seconds; more is taken for a date
LAST: Final = 2**31 - 1  # of these dates


def name_of(key: str) -> str:
    """Any text as a name that memcached takes: at most 250 bytes, none of them a space."""
    return "ck:" + hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=24).hexdigest()


def pack(record: Record) -> bytes:
    there = (VALUE if record.data is not None else 0) | (ENDS if record.ends is not None else 0)
    there |= LEASE if record.token is not None else 0
    head = HEAD.pack(MAGIC, there, record.ends or 0, record.lease_ends, record.token or NO_TOKEN)
    return head + (record.data or b"")


def unpack(item: bytes) -> Record:
    """What somebody else stored under this name is as good as nothing."""
    if len(item) < HEAD.size or not item.startswith(MAGIC):
        return Record()
    _, there, ends, lease_ends, token = HEAD.unpack_from(item)
    return Record(
        item[HEAD.size :] if there & VALUE else None,
        ends if there & ENDS else None,
        token if there & LEASE else None,
        lease_ends,
    )


def expiry(until: int | None, now: int) -> int:
    """The time to live as memcached wants it, never shorter than until then. It counts in whole seconds."""
    if until is None:
        return 0
    seconds = max(0, until - now) // 1000 + 2
    if seconds <= RELATIVE:
        return seconds
    date = now // 1000 + seconds
    return date if date <= LAST else 0
