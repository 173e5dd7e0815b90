"""Make a virtual environment and install into it, needing nothing but Python; do nothing when all is as it was.

    python3 tools/environment.py .venv '.[test]'
    python3 tools/environment.py .venv-redis-6.4 --copy . 'redis==6.4.*' pytest

A requirement that is a path is installed editable, or as a copy with ``--copy`` (two editable installs of one tree
would fight over its compiled extension). uv installs if pip can get it, else pip.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)


def main() -> None:
    options = arguments()
    if sys.version_info < OLDEST:
        sys.exit(f"cachekit needs Python {OLDEST[0]}.{OLDEST[1]} or newer, this is {sys.version.split()[0]}")
    environment = dict(os.environ)
    if environment.get("CACHEKIT_PURE") != "1" and not cargo_answers():
        if environment.get("CACHEKIT_NATIVE") == "1":
            sys.exit("CACHEKIT_NATIVE=1 asks for the native core, and there is no Rust: cargo does not answer")
        environment["CACHEKIT_PURE"] = "1"  # nobody waits for a compiler that is not there
    directory = ROOT / options.directory
    stamp = directory / "stamps" / sources(environment) / digest(repr(options.requirements).encode())
    if stamp.exists() and not options.copy:
        return
    # The certificates that the system trusts, which is what pip and the browser go by as well.
    environment.setdefault("UV_SYSTEM_CERTS", "1")
    environment.setdefault("UV_NATIVE_TLS", "1")  # its name before
    python = make_venv(directory)
    # Those of other sources count no more, also when the sources become again what they were: the extension is another.
    for other in stamp.parent.parent.glob("*"):
        if other != stamp.parent:
            shutil.rmtree(other, ignore_errors=True)
    install(python, requirements(options), environment)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.touch()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--copy", action="store_true", help="install this project as users do; every time")
    parser.add_argument("requirements", nargs="+")
    return parser.parse_args()


def cargo_answers() -> bool:
    """Whether Rust can be compiled; a rustup shim without a toolchain is on PATH and does not answer."""
    try:
        return subprocess.run(["cargo", "--version"], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def sources(environment: "dict[str, str]") -> str:
    """Changes with whatever changes what is installed of this project."""
    wishes = [environment.get(name) for name in ("CACHEKIT_PURE", "CACHEKIT_NATIVE")]
    files = [ROOT / name for name in ("pyproject.toml", "setup.py", "native/Cargo.toml", "native/build.rs")]
    contents = [path.read_bytes() for path in [*files, *sorted(ROOT.glob("native/src/*"))] if path.is_file()]
    return digest(repr((sys.version, wishes)).encode(), *contents)


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def make_venv(directory: Path) -> str:
    """The Python of the environment, which is made if it is missing or no longer runs."""
    python = directory / "bin" / "python"
    if works(python):
        return str(python)
    print(f"making {directory.name} with Python {sys.version.split()[0]}", flush=True)
    shutil.rmtree(directory, ignore_errors=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(directory)], capture_output=True, text=True)
    if made.returncode != 0:
        shutil.rmtree(directory, ignore_errors=True)
        remedy = "This Python cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv"
        sys.exit(f"{remedy}\n\n{made.stdout}{made.stderr}")
    return str(python)


def works(python: Path) -> bool:
    return (
        python.exists() and subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True).returncode == 0
    )


def install(python: str, wanted: "list[str]", environment: "dict[str, str]") -> None:
    """With uv, which takes seconds; with pip, which takes a minute, where uv cannot be had or does not manage."""
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    uv = Path(python).with_name("uv")
    if uv.exists() or succeeds([*pip, "uv"], environment):
        # uv would take a copy of this project out of its cache as long as pyproject.toml is unchanged.
        options = ["pip", "install", "--quiet", "--python", python, "--reinstall-package", "cachekit"]
        if succeeds([str(uv), *options, *wanted], environment):
            return
    print("without uv; pip takes a minute longer", flush=True)
    if not succeeds([*pip, *wanted], environment):
        sys.exit("could not install: " + " ".join([*pip, *wanted]))


def succeeds(command: "list[str]", environment: "dict[str, str]") -> bool:
    return subprocess.run(command, cwd=ROOT, env=environment).returncode == 0


def requirements(options: argparse.Namespace) -> "list[str]":
    if options.copy:
        shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools would pack modules that are gone by now
        return list(options.requirements)
    return [
        part for each in options.requirements for part in (["--editable", each] if each.startswith(".") else [each])
    ]


if __name__ == "__main__":
    main()
