"""Locks around stored values: sealed with AES-256-GCM, or signed with HMAC-SHA256, bound to key and header.

What is bound is the full key followed by the header with its stale mark read as 0. The header begins with a byte that
no UTF-8 text can hold there, so the two cannot be shifted against each other.

Nonces are 96 random bits from the kernel for each entry. That needs no state, so it is safe across threads, forks,
processes and restarts. By the birthday bound (NIST SP 800-38D, section 8.3) one key may seal 2**32 entries before a
repetition becomes more likely than 2**-32; keys are derived per region and tenant, and `WARN_AT` is a sixteenth of it.
"""

import hmac
import logging
import os
from collections import OrderedDict
from itertools import count
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from cachekit.codec.envelope import SEALED, SIGNED, Damaged
from cachekit.codec.keyring import ID_BYTES, Keyring, Root, Use
from cachekit.l1.table import core

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hmac import HMAC

logger = logging.getLogger("cachekit")

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
WARN_AT: Final = 2**28  # entries that one process sealed under one key
IN_CORE: Final = 32 * 1024  # bytes of what the native core opens, which lets nobody else run meanwhile
MAX_LOCKS: Final = 4096  # of tenants; the rest are derived again, which takes about 20 us


class Lock(Protocol):
    """Closes and opens the entries of one region, and of one tenant in it."""

    key_id: bytes  # of what closes now

    @property
    def core(self) -> object | None:
        """What opens in the native core what that key sealed; None: `open` does."""

    @property
    def flag(self) -> int:
        """In the header."""

    @property
    def extra(self) -> int:
        """Bytes at the end of the header."""

    def mark(self) -> bytes:
        """What goes at the end of the header: the id of the key, and the nonce if there is one."""

    def close(self, mark: bytes, bound: bytes, payload: bytes) -> bytes:
        """What follows the header. ``bound`` cannot be changed any more either."""

    def open(self, ident: bytes, nonce: bytes, bound: bytes, rest: bytes) -> bytes:
        """The payload of what the key of this id closed. Raises `Damaged`: key (nobody here knows it), tampered."""


class Sealer:
    """AES-256-GCM, its objects kept: making one costs more than sealing a kilobyte."""

    flag: Final = SEALED
    extra: Final = ID_BYTES + NONCE_BYTES

    def __init__(self, keyring: Keyring, region: str, tenant: str) -> None:
        from cryptography.exceptions import InvalidTag

        self._invalid = InvalidTag
        self._keyring, self._region, self._tenant = keyring, region, tenant
        self.version = keyring.version
        present = keyring.present("seal")
        self.key_id = present.id
        self._cipher, self.core = self._ciphers_of(present)
        self._ciphers = {present.id: (self._cipher, self.core)}
        self.used = False  # again, since room was needed last
        self.sealed = count(1)  # of which threads cannot take the same number

    def _ciphers_of(self, root: Root) -> "tuple[AESGCM, object | None]":
        """What seals, and opens where the native core does not; and what opens there."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = self._keyring.derive(root, "seal", self._region, self._tenant)
        return AESGCM(key), None if core is None else core.cipher(key)

    def mark(self) -> bytes:
        if next(self.sealed) == WARN_AT:
            logger.warning(
                "region %r: this process alone has sealed %d entries with one key; rotate the master key before all "
                "processes together have sealed 2**32 (`cachekit secrets rotate`)",
                self._region,
                WARN_AT,
            )
        return self.key_id + os.urandom(NONCE_BYTES)

    def close(self, mark: bytes, bound: bytes, payload: bytes) -> bytes:
        return self._cipher.encrypt(mark[ID_BYTES:], payload, bound)

    def open(self, ident: bytes, nonce: bytes, bound: bytes, rest: bytes) -> bytes:
        cipher, inner = self._ciphers.get(ident) or self._find(ident)
        if core is not None and inner is not None and len(rest) < IN_CORE:
            payload: bytes | None = core.unsealed(inner, nonce, bound, rest)
            if payload is None:
                raise Damaged("tampered")
            return payload
        try:
            return cipher.decrypt(nonce, rest, bound)
        except self._invalid:
            raise Damaged("tampered") from None

    def _find(self, ident: bytes) -> "tuple[AESGCM, object | None]":
        root = self._keyring.find("seal", ident)
        if root is None:
            raise Damaged("key")
        found = self._ciphers[ident] = self._ciphers_of(root)
        return found


class Signer:
    """HMAC-SHA256 cut to 16 bytes, over what sealing binds and the payload, which stays readable."""

    flag: Final = SIGNED
    extra: Final = ID_BYTES
    core: Final = None

    def __init__(self, keyring: Keyring, region: str, tenant: str) -> None:
        self._keyring, self._region, self._tenant = keyring, region, tenant
        self.version = keyring.version
        present = keyring.present("sign")
        self.key_id = present.id
        self._macs = {present.id: self._mac_of(present)}
        self.used = False

    def _mac_of(self, root: Root) -> "HMAC":
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.hmac import HMAC

        return HMAC(self._keyring.derive(root, "sign", self._region, self._tenant), SHA256())

    def mark(self) -> bytes:
        return self.key_id

    def close(self, mark: bytes, bound: bytes, payload: bytes) -> bytes:
        return payload + self._tag(self._macs[mark], bound, payload)

    def open(self, ident: bytes, nonce: bytes, bound: bytes, rest: bytes) -> bytes:
        payload = rest[:-TAG_BYTES]
        tag = self._tag(self._macs.get(ident) or self._find(ident), bound, payload)
        if not hmac.compare_digest(tag, rest[-TAG_BYTES:]):
            raise Damaged("tampered")
        return payload

    def _find(self, ident: bytes) -> "HMAC":
        root = self._keyring.find("sign", ident)
        if root is None:
            raise Damaged("key")
        mac = self._macs[ident] = self._mac_of(root)
        return mac

    @staticmethod
    def _tag(mac: "HMAC", bound: bytes, payload: bytes) -> bytes:
        # The length first: where the header ends and the payload begins cannot be shifted either.
        mac = mac.copy()  # keyed already, which is the half of it
        mac.update(b"%d:%b%b" % (len(bound), bound, payload))
        return mac.finalize()[:TAG_BYTES]


class Locks:
    """The locks of one region, by tenant (its digest in the key; empty: none). Raises `ConfigError` without a key."""

    def __init__(self, keyring: Keyring, region: str, use: Use) -> None:
        self._keyring = keyring
        self._region = region
        self._kind = Sealer if use == "seal" else Signer
        self._locks: OrderedDict[str, Sealer | Signer] = OrderedDict()
        self._own: Sealer | Signer = self._kind(keyring, region, "")
        self.key_id = self._own.key_id  # of what closes now, for all tenants alike

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not pickled; each process reads them from its own environment")

    def of(self, tenant: str) -> Lock:
        """The lock of a tenant, under the keys of today."""
        if not tenant:
            return self._own if self._own.version == self._keyring.version else self._make("")
        lock = self._locks.get(tenant)
        if lock is None or lock.version != self._keyring.version:
            return self._make(tenant)
        lock.used = True
        return lock

    def _make(self, tenant: str) -> Sealer | Signer:
        with self._keyring.mutex:
            before = self._locks.pop(tenant, None) if tenant else self._own
            if before is not None and before.version == self._keyring.version:
                lock = before  # another thread was first
            else:
                lock = self._kind(self._keyring, self._region, tenant)
            if isinstance(before, Sealer) and isinstance(lock, Sealer) and before.key_id == lock.key_id:
                lock.sealed = before.sealed  # the key is the same, and what it sealed counts
            self.key_id = lock.key_id
            if tenant:
                self._make_room()
                self._locks[tenant] = lock
            else:
                self._own = lock
        return lock

    def _make_room(self) -> None:
        """Drop the lock of a tenant that did nothing since room was needed last, those that were made first first."""
        while len(self._locks) >= MAX_LOCKS:
            tenant, lock = self._locks.popitem(last=False)
            if lock.used:
                lock.used = False
                self._locks[tenant] = lock  # once more round
