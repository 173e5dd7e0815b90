"""docs/configuration.md is a reference: every key, its default, its variable, nothing more."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from cachekit.config import fields
from cachekit.config.model import BackendTable, ProfileTable, RuleTable, Settings
from cachekit.config.settings import load_tree
from cachekit.config.tree import FILE_ONLY, is_secret, variable_of
from cachekit.config.urls import SCHEMES

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
ROW = re.compile(r"^\| `([a-z0-9_.]+)` \| (.+?) \| (.+?) \| (.+) \|$", re.MULTILINE)
SECTIONS: dict[str, tuple[str, ...]] = {
    "The whole service": (), "`[backends.NAME]`": ("backends", "NAME"), "`[profiles.NAME]`": ("profiles", "NAME"),
    "Not yet available": ("profiles", "NAME"), "`[[http.rules]]`": ("http", "rules"),
}  # fmt: skip


def documented() -> dict[tuple[str, ...], tuple[str, str]]:
    rows = {}
    for section in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        title = section.splitlines()[0]
        for key, default, variable, _ in ROW.findall(section):
            keys = tuple(key.split("."))
            prefix = () if keys[0] in fields.KEYS else SECTIONS[title]
            rows[(*prefix, *keys)] = (default, variable)
    return rows


def leaves(table: type[BaseModel], at: tuple[str, ...]) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for name, field in table.model_fields.items():
        if field.is_required():
            found[(*at, name)] = None
            continue
        if isinstance(field.default, BaseModel):
            found |= leaves(type(field.default), (*at, name))
        elif (*at, name) not in (("backends",), ("profiles",)):
            found[(*at, name)] = field.default
    return found


MODEL = (
    leaves(Settings, ())
    | leaves(BackendTable, ("backends", "NAME"))
    | leaves(ProfileTable, ("profiles", "NAME"))
    | leaves(RuleTable, ("http", "rules"))
)  # fmt: skip


def parser(keys: tuple[str, ...]) -> fields.Parser:
    tables: dict[str, Any] = {
        "metrics": fields.METRICS,
        "http": fields.HTTP,
        "rules": fields.RULE,
        "l1": fields.L1,
        "tls": fields.TLS,
        "breaker": fields.BREAKER,
    }
    named = {"profiles": {**fields.PROFILE, "extends": fields.Field(str)}, "backends": fields.BACKEND}
    table = tables.get(keys[-2] if len(keys) > 1 else "") or named.get(keys[0], fields.SERVICE)
    return table[keys[-1]].parse


def test_every_key_of_the_model_is_documented_and_no_other() -> None:
    assert set(documented()) == set(MODEL)


@pytest.mark.parametrize("keys", MODEL, ids=".".join)
def test_the_documented_variable_is_the_one_that_works(keys: tuple[str, ...]) -> None:
    name = variable_of(keys)
    expected = (
        f"`{name}` or `{name}_FILE`"
        if is_secret(keys)
        else "file only"
        if keys[-1] in FILE_ONLY or keys[:2] == ("http", "rules") != keys
        else f"`{name}`"
    )
    assert documented()[keys][1] == expected


@pytest.mark.parametrize("keys", MODEL, ids=".".join)
def test_the_documented_default_is_the_one_that_applies(keys: tuple[str, ...]) -> None:
    written, default = documented()[keys][0], MODEL[keys]
    if literal := re.fullmatch(r"`(.+)`", written):
        value = tomllib.loads(f"x = {literal[1]}")["x"]
        assert parser(keys)(value) == default
    else:
        assert default is None
        assert written.startswith("none") or written == "as `ttl`"


def test_the_examples_of_the_page_load(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.+?)```", PAGE, flags=re.DOTALL)
    assert examples
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.toml"
        file.write_text(example)
        load_tree([file], environ={})


def test_every_scheme_is_documented() -> None:
    assert all(f"`{scheme}://" in PAGE for scheme in SCHEMES)
