"""The two tiers of one region as the flow sees them, and the call that runs through them. Data, no decisions."""

import logging
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachekit.config.spec import RegionSpec
from cachekit.context import is_off
from cachekit.engine import keys
from cachekit.engine.events import Event, Observer, Tally
from cachekit.engine.flight import Flights
from cachekit.engine.miss import MISS
from cachekit.engine.pauses import Pauses, Validators
from cachekit.engine.ports import Load
from cachekit.errors import ConfigError, MissingTenant
from cachekit.l1.nesting import Nesting
from cachekit.l1.table import Table, Versions, khash
from cachekit.l2.remote import Remote

if TYPE_CHECKING:
    from cachekit.codec.codec import Codec
    from cachekit.codec.keyring import Keyring
    from cachekit.codec.seal import Lock, Locks

logger = logging.getLogger("cachekit")


class Tiers:
    """What one region (or one function with bounds of its own) stands on."""

    __slots__ = (
        "clock_stamp", "codec", "enabled", "flights", "hasher", "keyring", "locks", "name_key", "namespace", "nesting",
        "observers", "pauses", "region_stamp", "remote", "reported", "rewraps", "rng", "spec", "table", "tables",
        "unstored", "validators", "versions",
    )  # fmt: skip

    def __init__(
        self,
        namespace: str,
        spec: RegionSpec,
        *,
        table: Table | None,
        remote: Remote | None,
        versions: Versions,
        flights: Flights,
        nesting: Nesting,
        rng: Callable[[], float],
        observers: list[Observer],
        tables: list[Table],
        pauses: Pauses,
        unstored: Pauses,
        validators: Validators,
        keyring: "Callable[[], Keyring]",
        enabled: bool = True,
    ) -> None:
        self.namespace = namespace
        self.spec = spec
        self.table = table  # None: l1.mode = "off"
        self.remote = remote  # None: L1 only
        self.codec = None if remote is None else _codec(spec)
        self.keyring = keyring
        self.locks = _locks(spec, keyring)  # None: entries are neither sealed nor signed
        self.name_key = keyring().name_key if spec.codec.encrypt else None  # what hides names of keys and tags
        self.hasher = keys.hasher(self.name_key)
        self.versions = versions
        self.flights = flights
        self.nesting = nesting
        self.rng = rng
        self.observers = observers
        self.pauses = pauses  # of sources that failed
        self.unstored = unstored  # keys whose last value was not to be stored
        self.validators = validators
        self.rewraps = Pauses()  # of entries that were stored again under the present key
        self.enabled = enabled  # false: the whole service is switched off
        self.tables = tables  # every table of the region, those of single functions included
        self.region_stamp = keys.region_stamp(namespace, spec.name)
        self.clock_stamp = keys.clock_stamp(namespace)
        self.reported: set[str] = set()  # what has been logged once

    @property
    def takes_opaque(self) -> bool:
        """Whether the serializer may store values that L1 cannot copy. Ours for data cannot; any other is asked."""
        return self.spec.codec.serializer not in ("msgpack", "json")

    @property
    def remotes(self) -> tuple[Remote, ...]:
        """The L2 of this region, if any."""
        return () if self.remote is None else (self.remote,)

    def but(self, spec: RegionSpec, *, off: bool = False) -> "Tiers":
        """The same tiers for a function with entry options of its own, or for one that is to compute at each call."""
        return Tiers(
            self.namespace,
            spec,
            table=self.table,
            remote=self.remote,
            versions=self.versions,
            flights=self.flights,
            nesting=self.nesting,
            rng=self.rng,
            observers=self.observers,
            tables=self.tables,
            pauses=self.pauses,
            unstored=self.unstored,
            validators=self.validators,
            keyring=self.keyring,
            enabled=self.enabled and not off,
        )

    def emit(self, event: Event) -> None:
        """Tell the observers; one that fails is dropped, it must not break a call."""
        for observer in tuple(self.observers):
            try:
                observer(event)
            except Exception:
                with suppress(ValueError):  # another thread was first
                    self.observers.remove(observer)
                    logger.exception("an observer failed and was removed: %r", observer)

    def once(self, what: str) -> bool:
        """True the first time."""
        if what in self.reported:
            return False
        self.reported.add(what)
        return True


def _codec(spec: RegionSpec) -> "Codec":
    from cachekit.codec.codec import Codec  # only where there is an L2

    return Codec(spec.codec)


def _locks(spec: RegionSpec, keyring: "Callable[[], Keyring]") -> "Locks | None":
    if not (spec.codec.encrypt or spec.codec.sign):
        return None
    from cachekit.codec.seal import Locks  # with cryptography, for those who have secrets

    try:
        return Locks(keyring(), spec.name, "seal" if spec.codec.encrypt else "sign")
    except ConfigError as error:
        raise ConfigError(f"profile {spec.name!r}: {error}") from None


def missing_tenant(spec: RegionSpec, name: str) -> MissingTenant:
    """The error of a call without a tenant, where there must be one."""
    return MissingTenant(
        f"{name}: region {spec.name!r} requires a tenant: call it inside `with cachekit.tenant(...)`, or give the "
        "decorator tenant=; threads and Celery tasks do not inherit the tenant"
    )


class Switches(NamedTuple):
    """What a caller wants done otherwise than the profile says: `using()`."""

    force_refresh: bool = False
    skip_l1: bool = False
    skip_l2: bool = False
    read_only: bool = False
    allow_stale: bool | None = None
    strict: bool = False  # what cannot be stored is an error, and what was there stays

    def also(
        self, force_refresh: bool, skip_l1: bool, skip_l2: bool, read_only: bool, allow_stale: bool | None
    ) -> "Switches":
        """These and others."""
        return Switches(
            self.force_refresh or force_refresh,
            self.skip_l1 or skip_l1,
            self.skip_l2 or skip_l2,
            self.read_only or read_only,
            self.allow_stale if allow_stale is None else allow_stale,
            self.strict,
        )


ORDINARY: Final = Switches()


class Call:
    """One key on its way through the tiers."""

    __slots__ = (
        "_khash", "aged", "answered", "args", "condition", "elsewhere", "fallback", "flight_key", "ident", "key",
        "load", "named_tags", "slot", "stamp_names", "switches", "tag_ids", "tags", "tally", "tenant", "tiers", "ttl",
    )  # fmt: skip

    def __init__(
        self,
        tiers: Tiers,
        key: str | None,
        slot: int,
        args: tuple[Any, ...],
        tally: Tally,
        stamp_names: tuple[str, ...],
        load: Load | None = None,
        tags: tuple[str, ...] = (),
        ttl: Any = None,
        condition: Callable[[Any], object] | None = None,
        whose: keys.Whose = keys.NOBODY,
    ) -> None:
        self.tiers = tiers
        self.key = key  # the full text; None: arguments without a stable identity, in a region without L2
        self.slot = slot
        self.args = args
        self.tally = tally
        self.stamp_names = stamp_names  # of the region, and of the function if there is one
        self.load = load
        self.tenant = whose.digest
        self.named_tags = tags
        self.tags = (*tags, *whose.tags) if whose.tags else tags
        self.tag_ids = tuple([keys.tag_id(tag, tiers.name_key) for tag in self.tags]) if self.tags else ()
        self.ttl = ttl  # seconds, None for never, or a callable of the value
        self.condition = condition
        self.aged: Any = None  # the `Aged` value that is at hand
        self.answered = False  # the caller has its answer, and what goes on behind it is none
        self.fallback: Any = MISS  # given where there is nothing better, a value or a callable of the arguments
        self.switches = ORDINARY
        self.elsewhere = False  # the key is from another process: where this one has the entry is not known
        self._khash: int | None = None
        # What calls must have in common: the key, and to share a computation what they want of it as well.
        self.ident: Hashable = key if key is not None else (slot, tuple(map(type, args)), args)
        self.flight_key: Hashable = self.ident

    def using(self, switches: Switches) -> "Call":
        """This call with switches. What it computes is not for callers with other ones."""
        self.switches = switches
        self.flight_key = (self.ident, switches)
        return self

    @property
    def off(self) -> bool:
        """Whether the cache is switched off for this call: nothing is read or stored."""
        return not self.tiers.enabled or is_off(self.tiers.spec.name)

    @property
    def lock(self) -> "Lock | None":
        """What seals or signs the entry, under the keys of today."""
        locks = self.tiers.locks
        return None if locks is None else locks.of(self.tenant)

    @property
    def khash(self) -> int:
        """What the tables and the versions know the key by."""
        if self._khash is None:
            if self.tiers.remote is None and self.tiers.table is not None:
                self._khash = khash(self.slot, self.args)  # nobody else names it
            elif self.key is not None:
                self._khash = keys.khash(self.key.encode())
            else:
                self._khash = hash(self.ident) & 0xFFFF_FFFF_FFFF_FFFF
        return self._khash
