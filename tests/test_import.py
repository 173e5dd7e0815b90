"""Importing cachekit is light, its public names are the documented ones, and arrows between modules point one way."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cachekit

PACKAGE = Path(cachekit.__file__).parent
HEAVY = {
    "asyncio", "redis", "hiredis", "pydantic", "pydantic_settings", "prometheus_client", "cryptography", "msgpack",
    "ormsgpack", "lz4", "typer", "rich", "importlib.metadata", "django", "flask", "fastapi", "starlette", "numpy",
    "pandas", "pyarrow", "pymemcache", "sqlite3", "libcst",
}  # fmt: skip


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(PACKAGE.parent)},
        cwd="/",
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("code", ["import cachekit", "from cachekit import cache, region, MISS"])
def test_importing_loads_nothing_heavy(code: str) -> None:
    assert loaded_by(code) & HEAVY == set()


def test_a_cached_function_without_configuration_needs_nothing_heavy() -> None:
    code = "from cachekit import cache\n@cache\ndef f(x): return [x]\nassert f(1) == f(1) == [1]"
    assert loaded_by(code) & HEAVY == set()


def test_the_public_names_are_all_there_and_no_others() -> None:
    assert len(set(cachekit.__all__)) == len(cachekit.__all__)
    for name in cachekit.__all__:
        assert getattr(cachekit, name) is not None
    namespace: dict[str, object] = {}
    exec("from cachekit import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(cachekit.__all__)


def test_an_unknown_name_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'cahce'"):
        cachekit.cahce


# Each layer may import those before it, and its own.
LAYERS = [
    {"errors", "foreign", "modules", "_native"},
    {"config.units", "config.urls", "config.secret"},
    {"config.spec", "config.fields", "config.options", "config.tree"},
    {"l2.times", "http.control", "http.dates", "http.messages"},
    {"http.policy", "http.conditional"},
    {"http.page", "http.status"},
    {"engine.miss", "engine.outcome", "engine.events", "engine.binding", "engine.encoding", "engine.functions"},
    {"engine.keys", "engine.freshness", "engine.flight", "l1", "l2.breaker", "l2.budget", "l2.outbox", "l2.stamps"},
    {"l2.lease", "l2.parking", "l2.reach"},
    {"codec"},
    {"backends"},
    {"context", "engine.workers"},
    {"engine.ports"},
    {"l2.coherence"},
    {"l2.remote"},
    {"engine.pauses", "engine.raised", "engine.unshared"},
    {"engine.tiers"},
    {"l2.operation", "l2.reclaim", "l2.rewrap"},
    {"engine.entries", "engine.invalidation", "l2.listing"},
    {"engine.aging"},
    {"engine.reading"},
    {"engine.right"},
    {"engine.loading"},
    {"engine.behind", "engine.writes", "engine.quick"},
    {"engine.flow"},
    {"service"},
    {"process"},
    {"regions", "options", "registration"},
    {"function"},
    {"cached"},
    {"decorator"},
    {"signatures", "__init__"},
    {"bench", "http.answer", "http.declared", "http.environ", "http.rules", "http.short", "migrate"},
]


def layer_of(module: str) -> int | None:
    for number, names in enumerate(LAYERS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return number
    return None


def imports_of(path: Path) -> set[str]:
    """Modules of cachekit imported at the top of a file; imports inside functions are for first use."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("cachekit"):
            inside = node.module.removeprefix("cachekit").removeprefix(".")
            found |= {
                f"{inside}.{alias.name}".strip(".") if layer_of(inside) is None else inside for alias in node.names
            }
    return found


def test_arrows_between_modules_point_one_way() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        mine = layer_of(module)
        if mine is None:
            continue
        for other in imports_of(path):
            theirs = layer_of(other)
            if theirs is None or theirs > mine:
                wrong.append(f"{module} -> {other}")
    assert wrong == []


def test_every_package_is_shipped() -> None:
    """Packages are listed by hand, so that tests and caches are never packed; a new one must be listed too."""
    listed = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("__init__.py")}
    assert set(listed) == there
