"""Opens entries of any region and tenant, for commands: the key says whose one is, the header how it is closed."""

import re
from typing import Final, NamedTuple

from cachekit.codec.envelope import SEALED, SIGNED, Damaged, Header, closed_by, unpack
from cachekit.codec.keyring import Keyring, Use
from cachekit.codec.seal import Lock, Locks
from cachekit.errors import ConfigError

USES: Final[dict[int, Use]] = {SEALED: "seal", SIGNED: "sign"}
_KEY: Final = re.compile(r"([^:{}]+):v:\{([^:{}]+):(.*)\}", re.DOTALL)
_DIGEST: Final = "([0-9a-f]{32})"
# A call of a tenant, a readable key of a region, any other key of a region: see `engine.keys`.
_TENANTS: Final = (
    re.compile(f".*:{_DIGEST}:[0-9a-f]{{32}}", re.DOTALL),
    re.compile(f"{_DIGEST}=.*", re.DOTALL),
    re.compile(f"{_DIGEST}:[0-9a-f]{{32}}"),
)


class Place(NamedTuple):
    """What the full key of an entry says."""

    namespace: str
    region: str
    ident: str

    @property
    def tenants(self) -> list[str]:
        """Whose the entry may be, by digests; empty: nobody's. The lock tells which: a version may look like one."""
        found = [match[1] for pattern in _TENANTS if (match := pattern.fullmatch(self.ident))]
        return [*found, ""]


def place_of(key: str) -> Place | None:
    """The parts of a full key; None for what is none."""
    match = _KEY.fullmatch(key)
    return None if match is None else Place(*match.groups())


class Opened(NamedTuple):
    """An entry that was verified, and the lock that closes it again under the key of today."""

    header: Header
    payload: bytes | memoryview
    lock: Lock | None


class Opener:
    """The locks of all regions, made as they are needed."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._locks: dict[tuple[str, Use], Locks] = {}

    def present(self, use: Use) -> bytes:
        """The id of the key that closes now; empty without one."""
        try:
            return self._keyring.present(use).id
        except ConfigError:
            return b""

    def open(self, key: str, data: bytes) -> Opened:
        """Header and payload, however they are closed. Raises `Damaged` and nothing else."""
        closed, place = closed_by(data), place_of(key)
        if closed is None or not closed[0] or place is None:
            return Opened(*unpack(data, key), None)
        locks = self._of(place.region, USES[closed[0]])
        for tenant in place.tenants:
            lock = locks.of(tenant)
            try:
                return Opened(*unpack(data, key, lock), lock)
            except Damaged as damage:
                if damage.reason != "tampered":
                    raise
        raise Damaged("tampered")

    def _of(self, region: str, use: Use) -> Locks:
        if (region, use) not in self._locks:
            try:
                self._locks[region, use] = Locks(self._keyring, region, use)
            except ConfigError:
                raise Damaged("key") from None
        return self._locks[region, use]
