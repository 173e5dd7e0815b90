"""The native core by hand, for the Python that runs this.

    python tools/native.py build      the extension in cachekit/
    python tools/native.py checked    .cache/checked/cachekit: a copy of cachekit/, debug assertions in its extension
    python tools/native.py checks     format, lints as errors, the tests written in Rust
    python tools/native.py format     rewrite what the check of the format would refuse
    python tools/native.py stub       that cachekit/_native.pyi describes the extension which is installed

Where cargo or the extension is missing it says so and does nothing; with CACHEKIT_NATIVE=1 that is an error.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from environment import ROOT, cargo_answers

CRATE = ROOT / "native"
PACKAGE = ROOT / "cachekit"
CHECKED = ROOT / ".cache" / "checked"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("build", "checked", "checks", "format", "stub"))
    action = parser.parse_args().action
    if action == "stub":
        check_stub()
    elif not cargo_answers():
        not_done(f"tools/native.py {action}", "cargo does not answer")
    elif action == "build":
        put(built("release"), PACKAGE)
    elif action == "checked":
        shutil.rmtree(CHECKED, ignore_errors=True)
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
        put(built("checked"), Path(shutil.copytree(PACKAGE, CHECKED / "cachekit", ignore=ignored)))
    elif action == "format":
        component("fmt")
    else:
        component("fmt", "--check")
        component("clippy", "--quiet", "--all-targets", "--", "-D", "warnings")
        tests()


def not_done(what: str, reason: str) -> None:
    print(f"{what}: NOT DONE, {reason}", flush=True)
    if os.environ.get("CACHEKIT_NATIVE") == "1":
        sys.exit("CACHEKIT_NATIVE=1 asks for it")


def tests() -> None:
    """The tests written in Rust. Some need Python as a library, which not every installation has."""
    where, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDLIBRARY")
    if where and name and name.endswith(".so") and (Path(where) / name).exists():
        paths = os.pathsep.join(filter(None, [where, os.environ.get("LD_LIBRARY_PATH")]))
        cargo("test", "--quiet", "--lib", "--no-default-features", LD_LIBRARY_PATH=paths)
    else:
        print("this Python is no library: the tests that need one are left out", flush=True)
        cargo("test", "--quiet", "--lib")  # what refers to an interpreter is left out when they are linked


def cargo(*arguments: str, **variables: str) -> None:
    """Run cargo for this Python."""
    print("cargo", *arguments, flush=True)
    environment = os.environ | {"PYO3_PYTHON": sys.executable} | variables
    if subprocess.run(["cargo", *arguments], cwd=CRATE, env=environment).returncode != 0:
        sys.exit(f"failed: cargo {' '.join(arguments)}")


def component(name: str, *arguments: str) -> None:
    """Run a part of cargo that an installation of Rust need not have."""
    if subprocess.run(["cargo", name, "--version"], capture_output=True).returncode != 0:
        not_done(f"cargo {name}", "this Rust has no such component")
    else:
        cargo(name, *arguments)


def built(profile: str) -> Path:
    """The library that cargo makes."""
    cargo("build", "--quiet", "--profile", profile)
    target = Path(os.environ.get("CARGO_TARGET_DIR") or CRATE / "target") / profile
    for name in ("lib_native.so", "lib_native.dylib", "_native.dll"):
        if (target / name).exists():
            return target / name
    sys.exit(f"cargo left no library in {target}")


def put(library: Path, package: Path) -> None:
    """In one step: a process that has loaded the old one keeps it."""
    new = Path(shutil.copy(library, package / "_native.new"))
    new.replace(package / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}")


def check_stub() -> None:
    if importlib.util.find_spec("cachekit._native") is None:
        not_done("stubtest", "there is no native core here")
    elif subprocess.run([sys.executable, "-m", "mypy.stubtest", "cachekit._native"], cwd=ROOT).returncode != 0:
        sys.exit("cachekit/_native.pyi is wrong")


if __name__ == "__main__":
    main()
