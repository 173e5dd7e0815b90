"""A validated configuration as frozen dataclasses of the standard library; `settings` makes them, everybody reads them.

All times are seconds (float), ``None`` means never; sizes are bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from dataclasses import fields as dataclass_fields
from typing import Any, NoReturn

from cachekit.config.secret import Secret

DEFAULT_NAMESPACE = "cachekit"
NO_BACKEND = "none"
SERIALIZERS = ("msgpack", "json", "pickle")  # ours; other packages register theirs
DEFAULT_BACKEND = "default"  # without a URL anywhere it is as good as none


@dataclass(frozen=True, slots=True, kw_only=True)
class L1Spec:
    """Bounds of a region's table in the process."""

    mode: str = "on"  # on | off
    max_entries: int = 10_000
    max_bytes: int = 64 * 1024 * 1024
    ttl: float | None = None  # cap; None: as the entry's TTL
    policy: str = "s3fifo"  # s3fifo | lru


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecSpec:
    """How values become bytes."""

    serializer: str = "msgpack"  # msgpack | json | pickle | an entry point of the group cachekit.serializers
    compression: str = "lz4"  # lz4 | zstd | none
    compress_above: int = 1024
    max_value_bytes: int = 16 * 1024 * 1024
    on_unstorable: str = "warn"  # warn | raise
    encrypt: bool = False
    sign: bool = False  # what is encrypted is signed by that
    fail_closed: bool = False  # raise `TamperedEntry` instead of a counted miss
    rewrap: bool = True  # what is read under an older key is stored under the present one


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshnessSpec:
    """What is served past the TTL, when a value is computed anew before it, and how long anybody waits for that."""

    stale_ttl: float = 0.0  # kept so long past the TTL
    stale_on_error: bool | None = None  # None: if there is a `stale_ttl`
    stale_unless: tuple[str, ...] = ()  # exceptions that are answers, by dotted name, subclasses included
    stale_throttle: float = 30.0  # pause of the source per key after a failure; doubles up to `LONGEST_PAUSE`
    stale_without_proof: float | None = None  # while L2 is away; None: the backend's `disconnected_ttl`
    swr: bool = False
    early_refresh: float | str = "auto"  # auto | off | beta of XFetch
    soft_timeout: float | str | None = None  # "auto": twice what most loads take
    hard_timeout: float | None = None
    outage: str = "call"  # call | fallback
    negative_exceptions: tuple[tuple[str, float], ...] = ()  # dotted name, seconds

    @property
    def serves_on_error(self) -> bool:
        """Whether a stale value stands in for an error."""
        return self.stale_ttl > 0 if self.stale_on_error is None else self.stale_on_error


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSpec:
    """When the circuit breaker of a backend opens, and for how long."""

    failures: int = 5
    ratio: float = 0.5
    window: float = 10.0
    open_for: float = 2.0
    open_max: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSSpec:
    """Certificates for a rediss:// or valkeys:// backend."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    check_hostname: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """One store (L2). ``url`` may carry a password, so it is not part of the repr."""

    name: str = "default"
    type: str = "redis"
    url: str = field(default="", repr=False)
    url_origin: str = ""  # where the URL came from: "cachekit.toml:3", "env REDIS_URL"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TLSSpec = TLSSpec()
    credential_provider: str | None = None
    max_connections: int = 50
    budget: float = 0.25
    budget_min: float = 0.02
    adaptive: bool = True
    breaker: BreakerSpec = BreakerSpec()
    coherence: str = "auto"  # auto | tracking | ttl
    max_staleness: float = 3.0
    disconnected_ttl: float = 30.0
    heartbeat: float = 1.0
    replay_window: float = 60.0
    pending_invalidations: int = 10_000
    options: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)  # may hold passwords

    def __reduce__(self) -> NoReturn:
        raise TypeError("backends are not pickled, since they hold passwords; each process reads its own environment")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpec:
    """The secrets of encryption and signatures. Each may be given in hexadecimal digits, too."""

    master_key: Secret | None = None
    previous_keys: tuple[Secret, ...] = ()
    signing_key: Secret | None = None
    name_key: Secret | None = None
    files: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)  # key of the configuration to path

    def __post_init__(self) -> None:
        for name in ("master_key", "signing_key", "name_key"):
            if (key := getattr(self, name)) is not None:
                object.__setattr__(self, name, Secret.of(key))
        object.__setattr__(self, "previous_keys", tuple([Secret.of(key) for key in self.previous_keys]))

    @property
    def names_hidden(self) -> bool:
        """Whether there is a key to hide names with."""
        return self.name_key is not None or self.master_key is not None

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not pickled; each process reads them from its own environment")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionSpec:
    """One profile, inheritance resolved. ``backend`` is the name of a backend, or ``"none"`` for L1 only."""

    name: str = "default"
    backend: str = "default"
    ttl: float | None = 300.0
    jitter: float = 0.10  # a share of the TTL if at most 1 and `jitter_is_share`, else seconds
    jitter_is_share: bool = True
    negative_ttl: float | None = None  # for None; `negative_ttl_set` tells "as ttl" from "never"
    negative_ttl_set: bool = False
    cache_none: bool = True
    tags: tuple[str, ...] = ()
    counters: bool = False
    counters_set: bool = False  # whether somebody decided
    isolation: str = "auto"  # auto | copy | share
    lease: str = "auto"
    lease_wait: float = 5.0  # no longer than `hard_timeout`
    freshness: FreshnessSpec = FreshnessSpec()
    l1: L1Spec = L1Spec()
    codec: CodecSpec = CodecSpec()
    require_tenant: bool = False
    needs_namespace: bool = False  # with an L2 it must have a name of its own
    origin: str = ""  # the table that declared it: "cachekit.toml:5", "built-in", "define()"

    def but(self, **changes: Any) -> "RegionSpec":
        """A copy with these fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSpec:
    """The /metrics endpoint of web applications."""

    enabled: bool = True
    path: str = "/metrics"
    token: str | None = field(default=None, repr=False)
    allow: tuple[str, ...] = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError("the token of metrics is not pickled; each process reads it from its own environment")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSpec:
    """One rule of `CacheMiddleware`: what becomes of the responses under some paths."""

    path: str  # `*` is any part of one segment, `**` is anything
    name: str = ""  # in metrics
    cache: bool = True
    profile: str | None = None  # None: the middleware's own
    ttl: float | None = None  # of responses that say nothing themselves; `ttl_set` tells "not kept" from "never"
    ttl_set: bool = False
    vary: tuple[str, ...] = ()
    statuses: tuple[tuple[int, float], ...] = ()
    client_ttl: float = 0.0
    per_user: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSpec:
    """What web applications do with whole responses. The first rule whose path matches counts."""

    rules: tuple[RuleSpec, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """A whole configuration. ``backends`` holds only usable ones: a backend without a URL is not in it."""

    namespace: str = DEFAULT_NAMESPACE
    namespace_given: bool = False
    enabled: bool = True
    strict: bool = False
    metrics: MetricsSpec = MetricsSpec()
    http: HttpSpec = HttpSpec()
    keys: KeySpec = KeySpec()
    backends: Mapping[str, BackendSpec] = field(default_factory=dict, hash=False)
    regions: Mapping[str, RegionSpec] = field(default_factory=dict, hash=False)
    files: tuple[str, ...] = ()  # that were read, base first
    notes: tuple[str, ...] = field(default=(), compare=False)  # what may surprise, and is not seen in the rest of it


FRESHNESS_FIELDS = frozenset(each.name for each in dataclass_fields(FreshnessSpec))
CODEC_FIELDS = frozenset(each.name for each in dataclass_fields(CodecSpec))
ONLY_TIGHTENED = ("encrypt", "sign", "fail_closed", "require_tenant")  # turned on by any layer, off by none

# Built-in profiles as differences from `default`, by the keys of a file.
BUILT_IN: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "minimal": {"jitter": 0.0, "early_refresh": "off", "lease": "off"},
    "production": {"stale_ttl": 3600.0, "swr": True, "hard_timeout": 30.0},
    "secure": {"encrypt": True, "early_refresh": "off"},
    "dev": {"ttl": 30.0, "on_unstorable": "raise"},
    "test": {"backend": NO_BACKEND, "jitter": 0.0, "early_refresh": "off", "on_unstorable": "raise"},
    "local": {"backend": NO_BACKEND},
}
NEEDS_NAMESPACE = "what is made for production needs a namespace of its own; set namespace, or CACHEKIT_NAMESPACE"
NEEDS_MASTER_KEY = (
    "what is encrypted needs a master key; set CACHEKIT_MASTER_KEY or CACHEKIT_MASTER_KEY_FILE "
    "(`cachekit secrets generate` makes one)"
)
NEEDS_SIGNING_KEY = (
    "what is signed needs a key; set CACHEKIT_SIGNING_KEY, CACHEKIT_MASTER_KEY or one of them with _FILE "
    "(`cachekit secrets generate` makes one)"
)


def built_in_regions() -> dict[str, RegionSpec]:
    """The regions that exist without any configuration."""
    regions = {}
    for name, differences in BUILT_IN.items():
        fields = dict(differences)
        codec = CodecSpec(**{key: fields.pop(key) for key in CODEC_FIELDS & fields.keys()})
        fresh = FreshnessSpec(**{key: fields.pop(key) for key in FRESHNESS_FIELDS & fields.keys()})
        regions[name] = RegionSpec(
            name=name, codec=codec, freshness=fresh, needs_namespace=name == "production", origin="built-in", **fields
        )
    return regions


def default_service() -> ServiceSpec:
    """What runs without a file and without a variable: every region in the process only."""
    return ServiceSpec(regions={name: region.but(backend=NO_BACKEND) for name, region in built_in_regions().items()})
