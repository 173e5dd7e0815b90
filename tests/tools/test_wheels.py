"""What is built is what it is called, with cargo and without: wheels, the source distribution, editable installations.

In copies of the tree, as somebody else would build them. Each trap has its test: a wheel that is silently pure, one
that is called native and is not, an old binary that is packed again.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FILES = (
    "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md",
    "cachekit.toml.example",
)  # fmt: skip
BINARY = f"cachekit/_native{sysconfig.get_config_var('EXT_SUFFIX')}"
TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"
PURE = "cachekit-0.1.0-py3-none-any.whl"
SOURCE = "cachekit-0.1.0.tar.gz"
QUICK = {"SETUPTOOLS_RUST_CARGO_PROFILE": "dev"}  # where it does not matter how fast the extension is


def cargo_answers() -> bool:
    try:
        return subprocess.run(["cargo", "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


TWIN_OF_THIS_MACHINE = "native" if cargo_answers() or os.environ.get("CACHEKIT_NATIVE") == "1" else "pure"
# Where there is no Rust the other tests are those that can be run.
with_cargo = pytest.mark.parametrize("twin", ["native"] if TWIN_OF_THIS_MACHINE == "native" else [])


class Builder:
    """A copy of the tree that is put back in order for each test, and what builds it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tree = directory / "tree"
        self.out = directory / "out"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("CACHEKIT_", "PYTHON"))
        }
        # What cargo made of the crates is shared; what is ours is made anew in each tree.
        self.environment |= {"CARGO_TARGET_DIR": str(directory / "target"), "CARGO_NET_RETRY": "0"}
        self.python = self.venv("builder", "build[uv]", "setuptools>=77", "setuptools-rust>=1.10", "pip")

    def venv(self, name: str, *requirements: str) -> str:
        """The Python of a new environment."""
        python = self.directory / name / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.directory / name)], check=True)
        if requirements:
            self.install(str(python), *requirements)
        return str(python)

    def install(self, python: str, *requirements: str, **environment: str) -> subprocess.CompletedProcess[str]:
        uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
        command = [uv, "pip", "install", "--python", python] if uv else [
            sys.executable, "-m", "pip", "--python", python, "install", "--disable-pip-version-check",
        ]  # fmt: skip
        fresh = ["--reinstall-package", "cachekit"] if uv else []
        return self.run(*command, *fresh, *requirements, cwd=self.directory, **environment)

    def run(
        self, *command: str, cwd: Path, fails: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=cwd, env=self.environment | environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done

    def renew(self) -> None:
        """The tree as it is in the repository, with what builds may leave behind."""
        shutil.rmtree(self.tree, ignore_errors=True)
        shutil.rmtree(self.out, ignore_errors=True)
        self.tree.mkdir(parents=True)
        for name in FILES:
            shutil.copy(ROOT / name, self.tree)
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
        shutil.copytree(ROOT / "cachekit", self.tree / "cachekit", ignore=ignored)
        ignored = shutil.ignore_patterns("target", "Cargo.lock")
        shutil.copytree(ROOT / "native", self.tree / "native", ignore=ignored)
        (self.tree / "native" / "target" / "release").mkdir(parents=True)
        (self.tree / "native" / "target" / "release" / "lib_native.so").write_text("left from another time")

    def break_crate(self) -> None:
        with (self.tree / "native" / "src" / "lib.rs").open("a") as file:
            file.write("\nfn broken( {}\n")

    def wheel(self, *, fails: bool = False, **environment: str) -> tuple[str, str]:
        """The name of the wheel that the tree gives, and what was printed."""
        shutil.rmtree(self.out, ignore_errors=True)
        command = (self.python, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(self.out), str(self.tree))
        done = self.run(*command, cwd=self.directory, fails=fails, **environment)
        return "" if fails else self.one("*.whl").name, done.stdout + done.stderr

    def one(self, pattern: str) -> Path:
        (found,) = self.out.glob(pattern)
        return found

    def twin(self, python: str, **environment: str) -> list[str]:
        """Where an environment's cachekit is, and which twin serves."""
        code = "import cachekit; from cachekit.l1 import table; print(cachekit.__file__, table.TWIN)"
        return self.run(python, "-P", "-c", code, cwd=self.directory, **environment).stdout.split()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    return Builder(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def made(shared: Builder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``python -m build`` makes: in environments of its own, the wheel out of the source distribution."""
    shared.renew()
    (shared.tree / "native" / "Cargo.lock").write_text("left from another time")
    out = tmp_path_factory.mktemp("made")
    command = (shared.python, "-m", "build", "--installer", "uv", "--outdir", str(out), str(shared.tree))
    must = {"CACHEKIT_NATIVE": "1"} if TWIN_OF_THIS_MACHINE == "native" else {}
    shared.run(*command, cwd=shared.directory, **must)
    return out


@pytest.fixture
def builder(shared: Builder) -> Builder:
    shared.renew()
    return shared


@pytest.fixture
def no_cargo(tmp_path: Path) -> dict[str, str]:
    """A PATH with nothing on it."""
    return {"PATH": str(tmp_path)}


@pytest.fixture
def shim(tmp_path: Path) -> dict[str, str]:
    """A PATH with a cargo that does not answer, as rustup leaves it before a toolchain is chosen."""
    for name in ("cargo", "rustc"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin"}


def names(archive: Path) -> list[str]:
    if archive.suffix == ".whl":
        return zipfile.ZipFile(archive).namelist()
    with tarfile.open(archive) as tar:
        return [name.partition("/")[2] for name in tar.getnames()]


def binaries(wheel: Path) -> list[str]:
    return [name for name in names(wheel) if name.endswith((".so", ".pyd"))]


def is_purelib(wheel: Path) -> bool:
    return "Root-Is-Purelib: true" in zipfile.ZipFile(wheel).read("cachekit-0.1.0.dist-info/WHEEL").decode()


def test_a_build_gives_a_wheel_and_a_source_distribution_with_the_crate(made: Path) -> None:
    (wheel,), (source,) = made.glob("*.whl"), made.glob("*.tar.gz")
    if TWIN_OF_THIS_MACHINE == "native":
        assert wheel.name.startswith(f"cachekit-0.1.0-{TAG}-{TAG}-")
        assert binaries(wheel) == [BINARY]
    else:
        assert wheel.name == PURE
        assert binaries(wheel) == []
    assert {"cachekit/_native.pyi", "cachekit/py.typed", "cachekit/signatures.pyi"} <= set(names(wheel))
    assert [name for name in names(wheel) if not name.startswith("cachekit")] == []
    assert source.name == SOURCE
    packed = names(source)
    crate = [str(path.relative_to(ROOT)) for path in (ROOT / "native" / "src").iterdir()]
    assert {*crate, "native/Cargo.toml", "native/build.rs", "setup.py", "CHANGELOG.md", "LICENSE"} <= set(packed)
    left = [name for name in packed if "target" in name.split("/") or name.endswith((".so", ".pyd", "Cargo.lock"))]
    assert left == []


def test_what_asks_for_pure_python_gets_it(builder: Builder) -> None:
    name, _ = builder.wheel(CACHEKIT_PURE="1")
    assert name == PURE
    assert binaries(builder.one(PURE)) == []
    assert is_purelib(builder.one(PURE))


def test_without_cargo_a_pure_wheel_is_built_and_says_so(builder: Builder, no_cargo: dict[str, str]) -> None:
    name, said = builder.wheel(**no_cargo)
    assert name == PURE
    assert "built without its native core, pure Python serves: there is no cargo" in said


def test_a_cargo_that_does_not_answer_is_none(builder: Builder, shim: dict[str, str]) -> None:
    assert builder.wheel(**shim)[0] == PURE
    builder.wheel(fails=True, **shim, CACHEKIT_NATIVE="1")


def test_who_must_have_the_native_core_is_told_what_is_missing(builder: Builder, no_cargo: dict[str, str]) -> None:
    builder.wheel(fails=True, **no_cargo, CACHEKIT_NATIVE="1")
    shutil.rmtree(builder.tree / "native")
    _, said = builder.wheel(fails=True, CACHEKIT_NATIVE="1")
    assert "the sources of the native core are missing: native/Cargo.toml" in said


@with_cargo
def test_a_crate_that_does_not_compile_gives_a_pure_wheel_or_an_error(builder: Builder, twin: str) -> None:
    builder.break_crate()
    name, _ = builder.wheel(**QUICK)
    assert name == PURE
    assert is_purelib(builder.one(PURE))
    _, said = builder.wheel(fails=True, **QUICK, CACHEKIT_NATIVE="1")
    assert "fn broken( {}" in said  # in cargo's own words


@with_cargo
def test_a_failed_build_does_not_pack_the_binary_of_the_one_before(builder: Builder, twin: str) -> None:
    assert builder.wheel(**QUICK)[0].startswith(f"cachekit-0.1.0-{TAG}-")
    assert list(builder.tree.glob(f"build/lib*/{BINARY}"))  # which lies in wait
    builder.break_crate()
    assert builder.wheel(**QUICK)[0] == PURE
    assert binaries(builder.one(PURE)) == []


@with_cargo
def test_an_editable_installation_has_its_binary_in_the_tree_and_loses_it_with_the_crate(
    builder: Builder, twin: str
) -> None:
    python = builder.venv("editable")
    builder.install(python, "--no-deps", "--editable", str(builder.tree), **QUICK)
    assert [str(path.relative_to(builder.tree)) for path in builder.tree.glob("cachekit/_native*.so")] == [BINARY]
    builder.break_crate()
    builder.install(python, "--no-deps", "--editable", str(builder.tree), **QUICK)
    assert list(builder.tree.glob("cachekit/_native*.so")) == []


@pytest.mark.parametrize("kind", ["wheel", "wheel without cargo", "source without cargo"])
def test_what_is_installed_elsewhere_works(
    builder: Builder, made: Path, kind: str, no_cargo: dict[str, str], tmp_path: Path
) -> None:
    """The contract of the table, in an environment and a directory that know nothing of this tree."""
    if kind == "wheel without cargo":
        builder.wheel(**no_cargo)
        what, twin = builder.out / PURE, "pure"
    elif kind == "wheel":
        (what,), twin = made.glob("*.whl"), TWIN_OF_THIS_MACHINE
    else:
        what, twin = made / SOURCE, "pure"
    python = builder.directory / "user" / "bin" / "python"
    if not python.exists():
        builder.venv("user", "pytest", "pytest-asyncio", "hypothesis")
    builder.install(str(python), str(what), **({} if kind == "wheel" else no_cargo))
    assert builder.twin(str(python))[1:] == [twin]
    file, chosen = builder.twin(str(python), CACHEKIT_PURE="1")
    assert "site-packages" in Path(file).parts
    assert chosen == "pure"
    (tmp_path / "l1").mkdir()
    for name in ("conftest.py", "l1/conftest.py", "l1/l1_rig.py", "l1/test_table.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / name)
    options = ("-q", "-p", "no:cacheprovider", "-k", f"[{twin}]")
    tests = builder.run(str(python), "-P", "-m", "pytest", *options, "l1", cwd=tmp_path)
    assert " passed" in tests.stdout
