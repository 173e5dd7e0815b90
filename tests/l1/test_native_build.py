"""Which twin serves: what the environment asks for, what is there, and whether it fits these sources."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from l1_rig import TWINS

import cachekit

ROOT = Path(__file__).parents[2]
PACKAGE = Path(cachekit.__file__).parent
BINARY = f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"

TELL = """
import logging, sys
logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
from cachekit.l1 import table
print(table.TWIN, "cachekit._native" in sys.modules, flush=True)
"""
USE = """
from cachekit import cache
f = cache(lambda x: x)
assert f(1) == f(1) and f.cache_info().hits == 1
"""
CANNOT = "the native core cannot be used, pure Python serves: "


def digest() -> str:
    """What native/build.rs puts into the extension as BUILD: FNV-1a over the sources, their names before them."""
    state = 0xCBF2_9CE4_8422_2325
    for path in [*sorted((ROOT / "native" / "src").iterdir()), ROOT / "native" / "Cargo.toml"]:
        for byte in path.name.encode() + path.read_bytes():
            state = (state ^ byte) * 0x0000_0100_0000_01B3 & (1 << 64) - 1
    return f"{state:016x}"


def builds() -> list[str]:
    """BUILD of the extension that this process can load, if there is one."""
    if "native" not in TWINS:
        return []
    from cachekit import _native

    return [_native.BUILD]


def test_the_extension_is_built_from_the_sources_beside_it() -> None:
    here = digest()
    assert [build for build in builds() if build != here] == [], "an old extension; build it anew with: make native"


# ------------------------------------------------------------------------------------- what there is, what is asked for


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package without its extension."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    return Path(shutil.copytree(PACKAGE, tmp_path_factory.mktemp("copied") / "cachekit", ignore=ignored))


@pytest.fixture
def package(copied: Path) -> Iterator[Path]:
    """This copy, for one test to put an extension into."""
    yield copied
    for path in copied.glob("_native.*"):
        if path.suffix != ".pyi":
            path.unlink()


def tell(package: Path, **environment: str) -> list[str]:
    """What a new process logs and which twin it has; or how it fails."""
    done = run(TELL + USE, package, **environment)
    return (done.stdout + done.stderr[done.stderr.rfind("cachekit.errors.") :]).splitlines()


def run(code: str, package: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code with this package and no other: without site, an editable installation adds nothing."""
    path = os.pathsep.join([str(package.parent), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    return subprocess.run(
        [sys.executable, "-S", "-B", "-c", code],
        env={"PYTHONPATH": path, **environment},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_an_extension_pure_python_serves_and_nothing_is_said(package: Path) -> None:
    assert tell(package) == ["pure False"]
    assert tell(package, CACHEKIT_PURE="1") == ["pure False"]
    assert tell(package, CACHEKIT_NATIVE="1") == [
        "cachekit.errors.ConfigError: CACHEKIT_NATIVE=1 asks for the native core, which cannot be used: "
        "this installation has none"
    ]


BROKEN = {
    "no library at all": (BINARY, "not a library", ""),
    "fails to load": ("_native.py", "raise ImportError('undefined symbol: PyNothing')", "undefined symbol: PyNothing"),
    "needs what is not there": ("_native.py", "import no_such_module", "No module named 'no_such_module'"),
    "of another interface": (
        "_native.py",
        "ABI = -1\ndef __getattr__(name): return None",
        "cachekit._native has interface -1, not",
    ),
    "of an older interface": ("_native.py", "ABI = 2", "cannot import name"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_with_a_broken_extension_pure_python_serves_and_one_warning_says_why(package: Path, name: str) -> None:
    file, content, reason = BROKEN[name]
    (package / file).write_text(content)
    said, served = tell(package)
    assert said.startswith("WARNING cachekit: " + CANNOT)
    assert reason in said
    assert served.startswith("pure")
    (failure,) = tell(package, CACHEKIT_NATIVE="1")
    assert failure.startswith(
        "cachekit.errors.ConfigError: CACHEKIT_NATIVE=1 asks for the native core, which cannot be"
    )
    assert reason in failure


@pytest.mark.parametrize("twin", TWINS)
def test_with_an_extension_the_environment_chooses(twin: str) -> None:
    if twin == "native":
        assert tell(PACKAGE) == tell(PACKAGE, CACHEKIT_NATIVE="1") == ["native True"]
    assert tell(PACKAGE, CACHEKIT_PURE="1") == tell(PACKAGE, CACHEKIT_PURE="1", CACHEKIT_NATIVE="1") == ["pure False"]


# ---------------------------------------------------------------------------------------------- where there can be none

ELSEWHERE = """
try:
    import _interpreters as interpreters  # Python 3.13
    other = interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    other = interpreters.create(isolated=False)
import cachekit.l1.table
failed = interpreters.run_string(other, TELL)
if failed:
    print(failed)
interpreters.destroy(other)
"""


@pytest.mark.parametrize("twin", TWINS)
def test_another_interpreter_of_the_process_is_served_by_pure_python(twin: str) -> None:
    code = ELSEWHERE.replace("TELL", repr(TELL))
    done = run(code, PACKAGE, CACHEKIT_PURE="1" if twin == "pure" else "")
    *said, served = done.stdout.splitlines() or [done.stderr]
    assert served.startswith("pure")
    assert [line.startswith("WARNING cachekit: " + CANNOT) for line in said] == [True] * (twin == "native")


def test_free_threaded_python_says_why_it_has_none(package: Path) -> None:
    """Its version says so; no such Python need be here."""
    pretend = "import sys; sys.version = '3.13.0 experimental free-threading build (main)'\nimport cachekit.l1.table"
    done = run(pretend, package, CACHEKIT_NATIVE="1")
    assert done.stderr.rstrip().endswith("which cannot be used: free-threaded Python has no GIL, which it needs")
