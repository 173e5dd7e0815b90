"""Load the configuration: the merged tree, validated by pydantic, becomes a frozen `ServiceSpec`.

Imported on first use only; everything that needs no pydantic is in `tree`, `fields` and `options`.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cachekit.config.fields import KEYS
from cachekit.config.model import (
    BackendTable,
    BreakerTable,
    HttpTable,
    L1Table,
    MetricsTable,
    ProfileTable,
    RuleTable,
    Settings,
    TLSTable,
)
from cachekit.config.options import FOREIGN, ONLY_ON, apply_options, loosened, shown, suggest, tight, unfit, unsafe
from cachekit.config.secret import hidden
from cachekit.config.spec import (
    NEEDS_MASTER_KEY,
    NEEDS_NAMESPACE,
    NEEDS_SIGNING_KEY,
    NO_BACKEND,
    BackendSpec,
    BreakerSpec,
    HttpSpec,
    KeySpec,
    MetricsSpec,
    RegionSpec,
    RuleSpec,
    ServiceSpec,
    TLSSpec,
)
from cachekit.config.tree import (
    BUILT_IN_ORIGIN,
    CODE_ORIGIN,
    MISSING,
    Found,
    Keys,
    Tree,
    build,
    find_files,
    is_secret,
    member,
    variable_of,
)
from cachekit.config.units import nearest
from cachekit.config.urls import CHECKS, NEED_URL, TLS_SCHEMES, carries_password, check_url_of, redact_url, type_of
from cachekit.errors import ConfigError

log = logging.getLogger("cachekit")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and what is known about how it came to be."""

    spec: ServiceSpec
    tree: Tree

    @property
    def warnings(self) -> tuple[str, ...]:
        """What works and may still surprise."""
        return warnings_of(self.spec)

    @property
    def origins(self) -> Mapping[Keys, str]:
        """Where each value came from: ``("profiles", "users", "ttl") -> "cachekit.toml:6"``."""
        return self.tree.origins

    def origin(self, keys: Keys) -> str:
        """Where an effective value came from, through inheritance; ``"default"`` when nobody set it."""
        return _inherited_origin(self.tree, keys)


def load(
    paths: Sequence[Path] | None = None,
    *,
    settings: Mapping[str, Any] = {},
    definitions: Mapping[str, Mapping[str, Any]] = {},
    layers: Mapping[str, Mapping[str, Any]] = {},
    environ: Mapping[str, str] | None = None,
    start: Path | None = None,
) -> ServiceSpec:
    """Read and validate the configuration, and log where it came from.

    ``paths`` (base first) replace ``CACHEKIT_CONFIG`` and the search from ``start`` upward. ``settings`` are those of
    `configure()`, above everything; ``definitions`` those of `define()`, below the files; ``layers`` tables of a
    framework's own configuration by their names, between the files and the environment.
    Raises `ConfigError` with all problems, one per line.
    """
    settings, layers = hidden(settings), hidden(layers)
    loaded = load_tree(paths, settings=settings, definitions=definitions, layers=layers, environ=environ, start=start)
    for file in loaded.spec.files:
        log.info("configuration read from %s", file)
    for backend in loaded.spec.backends.values():
        log.info("backend %s: URL %s from %s", backend.name, redact_url(backend.url), backend.url_origin)
    for warning in loaded.tree.warnings:
        log.warning("%s", warning)
    return loaded.spec


def load_tree(
    paths: Sequence[Path] | None = None,
    *,
    settings: Mapping[str, Any] = {},
    definitions: Mapping[str, Mapping[str, Any]] = {},
    layers: Mapping[str, Mapping[str, Any]] = {},
    environ: Mapping[str, str] | None = None,
    start: Path | None = None,
) -> Loaded:
    """As `load`, with origins and warnings for ``cachekit config``, and without logging."""
    settings, layers = hidden(settings), hidden(layers)
    environ = hidden(os.environ if environ is None else environ)
    found = find_files(environ, start) if paths is None else Found(tuple(map(Path, paths)))
    if found.missing:
        raise ConfigError("\n".join(found.missing))
    tree = build(found.files, definitions, environ, settings, layers)
    model, left_out = _validate(tree)
    backends = dict(_backends(model, tree))
    regions = _regions(model, tree, backends, left_out)
    http = HttpSpec(rules=tuple(_rules(model, tree)))
    if tree.problems:
        raise ConfigError("\n".join(dict.fromkeys(tree.problems)))
    spec = ServiceSpec(
        namespace=model.namespace,
        namespace_given="namespace" in model.model_fields_set,
        enabled=model.enabled,
        strict=model.strict,
        metrics=_metrics(model.metrics),
        http=http,
        keys=_keys_of(model, tree),
        backends=backends,
        regions=regions,
        files=tuple(map(str, found.files)),
    )
    tree.warnings.extend(found.ignored)
    return Loaded(replace(spec, notes=(*tree.warnings, *_backend_warnings(model, tree))), tree)


# --- validation ------------------------------------------------------------------------------------------------------


def _validate(tree: Tree) -> tuple[Settings, set[Keys]]:
    """The model of the tree, and the keys that had to be left out of it; their problems are in the tree.

    Leaving out and going on finds what is wrong between values as well, so that all problems are told at once.
    """
    left_out: set[Keys] = set()
    while True:
        try:
            return Settings(tree=tree.values), left_out
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
        # Outside the handler: a chained pydantic error would carry the input, passwords included, into tracebacks.
        bad = {keys: detail for detail in details if (keys := _keys(tree, detail["loc"]))}
        tree.problems.extend(_problem(tree, keys, detail) for keys, detail in bad.items())
        for keys in bad:
            _leave_out(tree, keys)
        left_out |= bad.keys()
        if not bad:
            raise ConfigError("\n".join(tree.problems) or "the configuration is not valid")


def _leave_out(tree: Tree, keys: Keys) -> None:
    parent = tree.get(*keys[:-1])
    if isinstance(parent, list):
        parent[int(keys[-1])] = {"path": "/"}  # so that those after it stay where they are
    elif keys[:2] == ("http", "rules") and keys[-1] == "path":
        parent["path"] = "/"  # what was wrong with it is told already
    else:
        parent.pop(keys[-1], None)  # it may be gone with what was around it


def _problem(tree: Tree, keys: Keys, detail: ErrorDetails) -> str:
    place, name = tree.origin(keys), ".".join(keys)
    if detail["type"] == "extra_forbidden":
        return f"{place}: {name}: no such key{_nearest_key(keys)}"
    if detail["type"] == "missing":
        return f"{place}: {name}: needs {detail['loc'][-1]!r}"
    if detail["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return f"{place}: {name}: not a table"
    reason = str(detail.get("ctx", {}).get("error", detail["msg"]))
    value = tree.get(*keys)
    if is_secret(keys):
        return f"{place}: {name}: {reason}"
    return f"{place}: {name} = {shown(value)}: {reason}"


def _keys(tree: Tree, loc: tuple[int | str, ...]) -> Keys:
    """The location without what pydantic adds for members of a union."""
    keys: Keys = ()
    node: Any = tree.values
    for key in map(str, loc):
        inside = member(node, key)
        if inside is MISSING:
            break
        keys, node = (*keys, key), inside
    return keys


def _nearest_key(keys: Keys) -> str:
    table: type[BaseModel] = Settings
    for key in keys[:-1]:
        table = _TABLES.get(key, table)
    name = FOREIGN.get(keys[-1], keys[-1])
    if table is ProfileTable and name in L1Table.model_fields and name not in ProfileTable.model_fields:
        return f"; did you mean 'l1.{name}'?"
    return suggest(keys[-1], table.model_fields)


_TABLES: Mapping[str, type[BaseModel]] = {
    "metrics": MetricsTable,
    "http": HttpTable,
    "rules": RuleTable,
    "backends": BackendTable,
    "profiles": ProfileTable,
    "l1": L1Table,
    "breaker": BreakerTable,
    "tls": TLSTable,
}


# --- from the model to the spec --------------------------------------------------------------------------------------


def _backends(model: Settings, tree: Tree) -> Iterator[tuple[str, BackendSpec]]:
    for name, table in model.backends.items():
        keys = ("backends", name)
        given = table.given()
        for key in ("url_env", "url", "password"):
            given.pop(key, None)
        given.setdefault("type", type_of(table.url or ""))
        breaker, tls = BreakerSpec(**given.pop("breaker", {})), TLSSpec(**given.pop("tls", {}))
        spec = BackendSpec(
            name=name,
            url=table.url or "",
            url_origin=tree.origin((*keys, "url")) if table.url else "",
            password=table.password.get_secret_value() if table.password else None,
            breaker=breaker,
            tls=tls,
            **given,
        )
        tree.problems.extend(
            f"{tree.origin((*keys, *at))}: {'.'.join((*keys, *at))}{text}" for at, text in _unfit(spec)
        )
        if spec.url or spec.type not in NEED_URL:
            yield name, spec


def _unfit(spec: BackendSpec) -> Iterator[tuple[Keys, str]]:
    """What is wrong with values that are right one by one."""
    if spec.type not in CHECKS and spec.type not in (types := _backend_types()):
        meant = nearest(spec.type, types)
        hint = f"did you mean '{meant}'?" if meant else f"installed are {', '.join(sorted(types))}"
        yield ("type",), f" = '{spec.type}': no such backend type; {hint}"
    if spec.url and spec.type in CHECKS:
        try:
            check_url_of(spec.type, spec.url)
        except ValueError as error:
            yield ("url",), f" = '{redact_url(spec.url)}': {error}"
    if spec.budget_min > spec.budget:
        yield ("budget_min",), f": longer than budget ({spec.budget:g} s)"
    if spec.breaker.open_for > spec.breaker.open_max:
        yield ("breaker", "open_for"), f": longer than open_max ({spec.breaker.open_max:g} s)"


def _backend_types() -> set[str]:
    from importlib.metadata import entry_points  # 15 ms, and only for those who name another type

    return {point.name for point in entry_points(group="cachekit.backends")} | CHECKS.keys()


def _inherited_origin(tree: Tree, keys: Keys) -> str:
    while keys not in tree.origins:
        parent = tree.parent(keys[1]) if keys[0] == "profiles" and len(keys) > 2 else None
        if parent is None:
            return "default"
        keys = ("profiles", parent, *keys[2:])
    return tree.origins[keys]


def _regions(
    model: Settings, tree: Tree, backends: Mapping[str, BackendSpec], left_out: set[Keys]
) -> dict[str, RegionSpec]:
    regions: dict[str, RegionSpec] = {}

    def resolve(name: str, chain: Keys) -> RegionSpec:
        if name in regions:
            return regions[name]
        parent = tree.parent(name)
        base = RegionSpec()
        if parent is not None:
            problem = _bad_parent(parent, (*chain, name), model.profiles)
            if problem:
                keys = ("profiles", name, "extends")
                tree.problems.append(f"{tree.origin(keys)}: {'.'.join(keys)} = {shown(parent)}: {problem}")
            else:
                base = resolve(parent, (*chain, name))
        given = model.profiles[name].given()
        if "jitter" in given:
            given["jitter"] = model.profiles[name].jitter
        region = apply_options(base, given).but(
            name=name,
            origin=tree.origin(("profiles", name)),
            needs_namespace=base.needs_namespace or name == "production",
        )
        for key in loosened(base, given):
            tree.problems.append(f"{tree.origin(('profiles', name, key))}: profiles.{name}.{key} = false: {ONLY_ON}")
        inherited = {*unfit(base.freshness), *unsafe(base)}  # told already
        for key, problem in (*unfit(region.freshness), *unsafe(region)):
            if (key, problem) not in inherited:
                place = _inherited_origin(tree, ("profiles", name, key))
                tree.problems.append(f"{place}: profiles.{name}.{key}: {problem}")
        regions[name] = region
        return region

    for name in model.profiles:
        resolve(name, ())
    tree.problems.extend(_let_go(regions, tree))
    return {name: _bind(regions[name], tree, model, backends, left_out) for name in model.profiles}


def _let_go(regions: Mapping[str, RegionSpec], tree: Tree) -> Iterator[str]:
    """What a later layer would turn off by having a profile extend another one."""
    for name, former in tree.former:
        if name not in regions or former not in regions:
            continue
        for key in tight(regions[former]):
            if key not in tight(regions[name]):
                keys = ("profiles", name, "extends")
                yield (
                    f"{tree.origin(keys)}: {'.'.join(keys)} = {shown(tree.get(*keys))}: would turn off {key}, which "
                    f"'{former}' has turned on; it {ONLY_ON}"
                )


def _bad_parent(parent: str, chain: Keys, profiles: Mapping[str, ProfileTable]) -> str:
    if parent in chain:
        return f"extends itself: {' -> '.join((*chain[chain.index(parent) :], parent))}"
    if parent in profiles:
        return ""
    meant = nearest(parent, profiles)
    return f"no such profile; did you mean '{meant}'?" if meant else "no such profile"


def _bind(
    region: RegionSpec, tree: Tree, model: Settings, backends: Mapping[str, BackendSpec], left_out: set[Keys]
) -> RegionSpec:
    """The region with its backend; without any URL the region "default" of backends is this process alone."""
    if region.codec.compression == "zstd" and not _has_zstd():
        place = _inherited_origin(tree, ("profiles", region.name, "compression"))
        tree.problems.append(f"{place}: profiles.{region.name}.compression = 'zstd': pip install 'cachekit[compress]'")
    unnamed = region.backend in backends and "namespace" not in model.model_fields_set
    if unnamed and region.needs_namespace and region.origin != BUILT_IN_ORIGIN:
        tree.problems.append(f"{region.origin}: profiles.{region.name}: {NEEDS_NAMESPACE}")
    if region.origin != BUILT_IN_ORIGIN and (missing := _missing_key(region, model)):
        place = _inherited_origin(tree, ("profiles", region.name, "encrypt" if region.codec.encrypt else "sign"))
        place = region.origin if place == BUILT_IN_ORIGIN else place
        tree.problems.append(f"{place}: profiles.{region.name}: {missing}")
    if region.backend == NO_BACKEND or region.backend in backends:
        return region
    if region.backend == "default":
        return replace(region, backend=NO_BACKEND)
    keys = ("backends", region.backend)
    if keys in left_out or (*keys, "url") in left_out:
        return region  # its own problem was told
    place = _inherited_origin(tree, ("profiles", region.name, "backend"))
    if region.backend in model.backends:
        reason = f"this backend has no URL; set backends.{region.backend}.url"
    else:
        meant = nearest(region.backend, (*model.backends, "default", NO_BACKEND))
        reason = f"no such backend; did you mean '{meant}'?" if meant else "no such backend"
    tree.problems.append(f"{place}: profiles.{region.name}.backend = '{region.backend}': {reason}")
    return region


def _missing_key(region: RegionSpec, model: Settings) -> str:
    if region.codec.encrypt and model.master_key is None:
        return NEEDS_MASTER_KEY
    if region.codec.sign and not region.codec.encrypt and model.master_key is None and model.signing_key is None:
        return NEEDS_SIGNING_KEY
    return ""


def _keys_of(model: Settings, tree: Tree) -> KeySpec:
    return KeySpec(**{name: getattr(model, name) for name in KEYS}, files=dict(tree.files))


def _has_zstd() -> bool:
    from importlib.util import find_spec  # for those who ask for zstd

    return find_spec("zstandard") is not None


def _rules(model: Settings, tree: Tree) -> Iterator[RuleSpec]:
    for number, table in enumerate(model.http.rules):
        given, keys = table.given(), ("http", "rules", str(number), "profile")
        if table.profile is not None and table.profile not in model.profiles:
            meant = nearest(table.profile, model.profiles)
            hint = f"; did you mean '{meant}'?" if meant else ""
            name = ".".join(keys)
            tree.problems.append(f"{tree.origin(keys)}: {name} = {shown(table.profile)}: no such profile{hint}")
        yield RuleSpec(**given, ttl_set="ttl" in given)


def _metrics(table: MetricsTable) -> MetricsSpec:
    token = table.token.get_secret_value() if table.token else None
    return MetricsSpec(enabled=table.enabled, path=table.path, token=token, allow=table.allow)


def warnings_of(spec: ServiceSpec) -> tuple[str, ...]:
    """What works and may still surprise, as ``config check`` prints it."""
    return (*spec.notes, *_service_warnings(spec), *key_warnings(spec.keys))


def _service_warnings(spec: ServiceSpec) -> Iterator[str]:
    if spec.backends and not spec.namespace_given:
        yield (
            f"namespace: not set; services that share a server and have functions of the same name would share "
            f"their entries under '{spec.namespace}'; set namespace"
        )
    if spec.metrics.enabled and not (spec.metrics.token or spec.metrics.allow):
        yield (
            f"metrics: {spec.metrics.path} is open to everybody and shows names of functions; "
            "set metrics.allow or CACHEKIT_METRICS__TOKEN"
        )


def _backend_warnings(model: Settings, tree: Tree) -> Iterator[str]:
    for name, table in model.backends.items():
        keys = ("backends", name, "url")
        origin = tree.origin(keys)
        if table.url is None and table.type in NEED_URL and name != "default":
            yield f"{tree.origin(keys[:2])}: backends.{name}: has no URL and is not used"
        if table.url and carries_password(table.url) and not origin.startswith(("env ", CODE_ORIGIN)):
            yield f"{origin}: backends.{name}.url: holds a password; set it in the environment instead"
        if table.url and "tls" in table.model_fields_set and table.url.partition("://")[0] not in TLS_SCHEMES:
            yield f"{tree.origin((*keys[:2], 'tls'))}: backends.{name}.tls: not used, since the URL is not rediss://"


def key_warnings(keys: KeySpec) -> Iterator[str]:
    """What works today, and may not when a key is changed or read by others."""
    if keys.master_key is not None and keys.name_key is None:
        yield (
            "name_key: not set; a rotation of the master key will change names: each secure entry is computed once "
            "more; pin it with `cachekit secrets generate --name-key`"
        )
    if keys.previous_keys and keys.master_key is None and keys.signing_key is None:
        yield "previous_keys: set without master_key or signing_key; nothing is opened or verified with them"
    for name, path in keys.files.items():
        if _others_may_read(path):
            yield (
                f"env {variable_of((name,))}_FILE: the file that it names can be read by others than its owner; "
                "chmod 600, or defaultMode: 0400 for a secret of Kubernetes"
            )


def _others_may_read(path: str) -> bool:
    """Not on Windows, which has no modes of this kind."""
    try:
        return hasattr(os, "getuid") and bool(Path(path).stat().st_mode & 0o077)
    except OSError:  # it was there a moment ago
        return False
