"""The shape of ``cachekit.toml`` as pydantic models: which tables and keys there are, their types and defaults.

What a value must look like is in `fields`, so that decorators check the same without pydantic.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, InstanceOf, SecretStr, WithJsonSchema, field_validator
from pydantic import Field as ModelField
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from cachekit.config import fields
from cachekit.config.fields import Field, Jitter
from cachekit.config.secret import Secret
from cachekit.config.spec import DEFAULT_NAMESPACE, BackendSpec, MetricsSpec, RegionSpec, RuleSpec
from cachekit.config.units import check_name

Duration: TypeAlias = Annotated[
    float | None, WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]})
]
DurationOrZero: TypeAlias = Annotated[
    float | None, WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]})
]
Size: TypeAlias = Annotated[int, WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]})]
JitterValue: TypeAlias = Annotated[
    Jitter, WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]})
]
Negative: TypeAlias = Annotated[
    tuple[tuple[str, float], ...],
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "object"}]},
        }
    ),
]
Statuses: TypeAlias = Annotated[
    tuple[tuple[int, float], ...],
    WithJsonSchema({"type": "object", "additionalProperties": {"anyOf": [{"type": "number"}, {"type": "string"}]}}),
]
Whether: TypeAlias = Annotated[bool | None, WithJsonSchema({"type": "boolean"})]  # None only as nobody's decision
Key: TypeAlias = Annotated[InstanceOf[Secret] | None, WithJsonSchema({"type": "string"})]
Keys: TypeAlias = Annotated[tuple[InstanceOf[Secret], ...], WithJsonSchema({"type": "string"})]
Token: TypeAlias = Annotated[SecretStr | None, WithJsonSchema({"type": "string", "description": "environment only"})]


class Table(BaseModel):
    """A table of the configuration: unknown keys are refused, and every value goes through its parser first."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    parsers: ClassVar[Mapping[str, Field]] = {}

    @field_validator("*", mode="before")
    @classmethod
    def parse(cls, value: object, info: Any) -> object:
        field = cls.parsers.get(info.field_name)
        return value if field is None else field.parse(value)

    def given(self) -> dict[str, Any]:
        """What was set, by this table's own names."""
        return self.model_dump(exclude_unset=True)


REGION = RegionSpec()
BACKEND = BackendSpec()
RULE = RuleSpec(path="/")
DEFAULT_JITTER = Jitter(REGION.jitter, REGION.jitter_is_share)


class L1Table(Table):
    """``[profiles.NAME.l1]``"""

    parsers = fields.L1
    mode: Literal["on", "off"] = "on"
    max_entries: int = REGION.l1.max_entries
    max_bytes: Size = REGION.l1.max_bytes
    ttl: Duration = REGION.l1.ttl
    policy: Literal["s3fifo", "lru"] = "s3fifo"


class ProfileTable(Table):
    """``[profiles.NAME]``"""

    parsers = {**fields.PROFILE, "extends": Field(check_name)}
    extends: str = "default"
    backend: str = REGION.backend
    ttl: Duration = REGION.ttl
    jitter: JitterValue = DEFAULT_JITTER
    stale_ttl: DurationOrZero = REGION.freshness.stale_ttl
    stale_on_error: Whether = REGION.freshness.stale_on_error
    stale_unless: tuple[str, ...] = REGION.freshness.stale_unless
    stale_throttle: DurationOrZero = REGION.freshness.stale_throttle
    stale_without_proof: DurationOrZero = REGION.freshness.stale_without_proof
    swr: bool = REGION.freshness.swr
    early_refresh: Literal["auto", "off"] | float = REGION.freshness.early_refresh  # type: ignore[assignment]
    soft_timeout: Literal["auto"] | Duration = None
    hard_timeout: Duration = REGION.freshness.hard_timeout
    outage: Literal["call", "fallback"] = "call"
    negative_ttl: Duration = None
    cache_none: bool = REGION.cache_none
    negative_exceptions: Negative = ()
    lease: Literal["auto", "on", "off"] = "auto"
    lease_wait: DurationOrZero = REGION.lease_wait
    tags: tuple[str, ...] = REGION.tags
    serializer: str = REGION.codec.serializer
    compression: Literal["lz4", "zstd", "none"] = "lz4"
    compress_above: Size = REGION.codec.compress_above
    counters: bool = REGION.counters
    max_value_bytes: Size = REGION.codec.max_value_bytes
    on_unstorable: Literal["warn", "raise"] = "warn"
    isolation: Literal["auto", "copy", "share"] = "auto"
    encrypt: bool = False
    sign: bool = False
    fail_closed: bool = False
    require_tenant: bool = False
    rewrap: bool = REGION.codec.rewrap
    l1: L1Table = L1Table()


class BreakerTable(Table):
    """``[backends.NAME.breaker]``"""

    parsers = fields.BREAKER
    failures: int = BACKEND.breaker.failures
    ratio: float = BACKEND.breaker.ratio
    window: Duration = BACKEND.breaker.window
    open_for: Duration = BACKEND.breaker.open_for
    open_max: Duration = BACKEND.breaker.open_max


class TLSTable(Table):
    """``[backends.NAME.tls]``"""

    parsers = fields.TLS
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    check_hostname: bool = BACKEND.tls.check_hostname


class BackendTable(Table):
    """``[backends.NAME]``"""

    parsers = fields.BACKEND
    type: str = BACKEND.type
    url: str | None = ModelField(default=None, repr=False)
    url_env: tuple[str, ...] | None = None
    username: str | None = None
    password: Token = None
    tls: TLSTable = TLSTable()
    credential_provider: str | None = None
    max_connections: int = BACKEND.max_connections
    budget: Duration = BACKEND.budget
    budget_min: Duration = BACKEND.budget_min
    adaptive: bool = BACKEND.adaptive
    breaker: BreakerTable = BreakerTable()
    coherence: Literal["auto", "tracking", "ttl"] = "auto"
    max_staleness: Duration = BACKEND.max_staleness
    disconnected_ttl: DurationOrZero = BACKEND.disconnected_ttl
    heartbeat: Duration = BACKEND.heartbeat
    replay_window: Duration = BACKEND.replay_window
    pending_invalidations: int = BACKEND.pending_invalidations
    options: dict[str, Any] = ModelField(default={}, repr=False)


class MetricsTable(Table):
    """``[metrics]``"""

    parsers = fields.METRICS
    enabled: bool = True
    path: str = MetricsSpec().path
    token: Token = None
    allow: tuple[str, ...] = ()


class RuleTable(Table):
    """``[[http.rules]]``"""

    parsers = fields.RULE
    path: str
    name: str | None = None
    cache: bool = RULE.cache
    profile: str | None = RULE.profile
    ttl: Duration = None
    vary: tuple[str, ...] = RULE.vary
    statuses: Statuses = RULE.statuses
    client_ttl: DurationOrZero = RULE.client_ttl
    per_user: bool = RULE.per_user


class HttpTable(Table):
    """``[http]``"""

    parsers = fields.HTTP
    rules: tuple[RuleTable, ...] = ()


class TreeSource(PydanticBaseSettingsSource):
    """Hands the merged tree to pydantic-settings, in place of its own sources."""

    def __init__(self, settings_cls: type[BaseSettings], values: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self.values = values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self.values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self.values


class Settings(BaseSettings):
    """The whole of ``cachekit.toml``."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=False)
    namespace: str = DEFAULT_NAMESPACE
    enabled: bool = True
    strict: bool = False
    master_key: Key = None
    previous_keys: Keys = ()
    signing_key: Key = None
    name_key: Key = None
    metrics: MetricsTable = MetricsTable()
    http: HttpTable = HttpTable()
    backends: dict[str, BackendTable] = {}
    profiles: dict[str, ProfileTable] = {}

    def __init__(self, *, tree: dict[str, Any]) -> None:
        super().__init__(tree=tree)

    @field_validator(*fields.SERVICE, mode="before")
    @classmethod
    def parse(cls, value: object, info: Any) -> object:
        return fields.SERVICE[info.field_name].parse(value)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: Any, *args: Any, **kwargs: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the tree: no variable or file may reach a field past its rules."""
        return (TreeSource(settings_cls, init_settings.init_kwargs["tree"]),)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of ``cachekit.toml``, for editors. Secrets are not in it, since they are not for files."""
    schema = Settings.model_json_schema()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "cachekit.toml"}
    tables = schema["$defs"]
    for key in fields.KEYS:
        del schema["properties"][key]
    del tables["MetricsTable"]["properties"]["token"], tables["BackendTable"]["properties"]["password"]
    tables["ProfileTable"]["properties"]["jitter"]["default"] = f"{DEFAULT_JITTER.amount:.0%}"
    tables["ProfileTable"]["properties"]["negative_exceptions"]["default"] = {}
    tables["RuleTable"]["properties"]["statuses"]["default"] = {}
    return schema
