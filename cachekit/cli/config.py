"""``cachekit config``: check the configuration, show the effective values, print the JSON Schema."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cachekit.cli.output import fail, say, say_json, show_table

if TYPE_CHECKING:
    from cachekit.config.settings import Loaded
    from cachekit.config.spec import BackendSpec, RegionSpec

ConfigOption = Annotated[
    list[Path] | None,
    typer.Option("--config", metavar="PATH", help="A file in place of the one that is found; repeat it, base first."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

HELP = """Check and show the configuration.

Examples:
    cachekit config check
    cachekit config show
"""


def register(app: typer.Typer) -> None:
    """Add ``config`` to the application."""
    config = typer.Typer(help=HELP, no_args_is_help=True)
    config.command()(check)
    config.command()(show)
    config.command()(schema)
    app.add_typer(config, name="config")


def check(
    config: ConfigOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors.")] = False,
    as_json: JsonOption = False,
    module: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Import it and bind its cached functions too; repeatable."),
    ] = None,
) -> None:
    """Read and validate the configuration.

    Exit status 1: anything is wrong, with --strict a warning too.

    Examples:
        cachekit config check --strict
        cachekit config check --import shop.views --json
        cachekit config check --config base.toml --config prod.toml
    """
    from cachekit.config.settings import load_tree
    from cachekit.errors import ConfigError

    problems: list[str] = []
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    try:
        loaded = load_tree(config)
    except ConfigError as error:
        problems = str(error).splitlines()
    else:
        warnings, files = loaded.warnings, loaded.spec.files
        strict = strict or loaded.spec.strict
        problems = _bind(module or [], config)
    failed = bool(problems) or (strict and bool(warnings))
    if as_json:
        report = {"ok": not failed, "problems": problems, "warnings": warnings, "files": files}
        say_json(report)
    else:
        _print_report(problems, warnings, files, strict=strict)
    raise typer.Exit(1 if failed else 0)


def _bind(modules: list[str], config: list[Path] | None) -> list[str]:
    """Import the modules and bind the functions that they decorate; what goes wrong, as problems."""
    if not modules:
        return []
    from importlib import import_module

    from cachekit.errors import ConfigError

    if config:
        os.environ["CACHEKIT_CONFIG"] = os.pathsep.join(str(path.resolve()) for path in config)
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does; a console script has its own directory there
    for name in modules:
        try:
            import_module(name)
        except ConfigError as error:
            return [f"{name}: {line}" for line in str(error).splitlines()]
        except Exception as error:
            return [f"{name}: cannot be imported: {type(error).__name__}: {error}".replace("\n", " ")]
    from cachekit.process import default_service

    try:
        default_service().start()
    except ConfigError as error:
        return str(error).splitlines()
    return []


def _print_report(problems: list[str], warnings: tuple[str, ...], files: tuple[str, ...], *, strict: bool) -> None:
    for problem in problems:
        say(problem, "red")
    for warning in warnings:
        say(f"{'error' if strict else 'warning'}: {warning}", "red" if strict else "yellow")
    if not problems and not (strict and warnings):
        where = ", ".join(files) if files else "no file, built-in values and environment"
        say(f"ok: {where}", "green")


def show(
    config: ConfigOption = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the effective values, inheritance resolved and secrets hidden.

    Exit status 1: the configuration is wrong.

    Examples:
        cachekit config show --origin
        cachekit config show --json
    """
    from cachekit.config.settings import load_tree
    from cachekit.errors import ConfigError

    try:
        loaded = load_tree(config)
    except ConfigError as error:
        fail(str(error), as_json=as_json)
    found = [(".".join(keys), value, loaded.origin(keys)) for keys, value in rows(loaded)]
    if as_json:
        table = {key: {"value": value, "origin": place} if origin else value for key, value, place in found}
        say_json(table)
    else:
        columns = ("key", "value", "origin") if origin else ("key", "value")
        show_table(columns, [(key, value, place)[: len(columns)] for key, value, place in found])


def rows(loaded: "Loaded") -> Iterator[tuple[tuple[str, ...], str]]:
    """Each key of the configuration with its effective value as text."""
    from cachekit.config import fields

    spec = loaded.spec
    for key in ("namespace", "enabled", "strict"):
        yield (key,), fields.SERVICE[key].show(getattr(spec, key))
    for key, field in fields.METRICS.items():
        value = getattr(spec.metrics, key)
        yield ("metrics", key), "***" if key == "token" and value else field.show(value)
    for number, rule in enumerate(spec.http.rules):
        for key, field in fields.RULE.items():
            if key != "ttl" or rule.ttl_set:
                yield ("http", "rules", str(number), key), field.show(getattr(rule, key))
    for name, backend in spec.backends.items():
        yield from ((("backends", name, *keys), text) for keys, text in _backend_rows(backend))
    for name, region in spec.regions.items():
        yield from ((("profiles", name, *keys), text) for keys, text in _region_rows(region))


def _backend_rows(backend: "BackendSpec") -> Iterator[tuple[tuple[str, ...], str]]:
    from cachekit.config import fields
    from cachekit.config.urls import redact_url

    hidden: dict[str, Any] = {
        "url": redact_url(backend.url) if backend.url else None,
        "password": "***" if backend.password else None,
    }
    for key, field in fields.BACKEND.items():
        if key != "url_env":  # says where to look for the URL; the origin of the URL says where it was found
            yield (key,), field.show(hidden[key] if key in hidden else getattr(backend, key))
    for table, known in (("tls", fields.TLS), ("breaker", fields.BREAKER)):
        yield from (((table, key), field.show(getattr(getattr(backend, table), key))) for key, field in known.items())


def _region_rows(region: "RegionSpec") -> Iterator[tuple[tuple[str, ...], str]]:
    from cachekit.config import fields

    for key, field in fields.PROFILE.items():
        if key == "jitter":
            value: Any = fields.Jitter(region.jitter, region.jitter_is_share)
        elif key == "negative_ttl" and not region.negative_ttl_set:
            yield (key,), "as ttl"
            continue
        elif key == "stale_without_proof" and region.freshness.stale_without_proof is None:
            yield (key,), "as disconnected_ttl"
            continue
        elif key == "stale_on_error":
            value = region.freshness.serves_on_error
        else:
            value = next(
                getattr(table, key) for table in (region.codec, region.freshness, region) if hasattr(table, key)
            )
        yield (key,), field.show(value)
    for key, field in fields.L1.items():
        value = getattr(region.l1, key)
        yield ("l1", key), "as ttl" if key == "ttl" and value is None else field.show(value)


def schema(as_json: JsonOption = False) -> None:
    """Print the JSON Schema of cachekit.toml, for editors.

    It is JSON with and without --json.

    Examples:
        cachekit config schema > cachekit.schema.json
    """
    from cachekit.config.model import json_schema

    say_json(json_schema())
