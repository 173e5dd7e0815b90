"""What `cachekit migrate` makes of a program gives the same answers, without the other cache being installed.

How it could break: an answer differs, or how often a function runs; the result does not import, or still needs the
other cache; a second run changes it again; a program of one cache is changed as one of another.

Each program of ``snippets`` prints its answers and how often its functions ran. It runs as it is, in an environment
with the versions of ``peers.txt``, and rewritten in ours, where none of them but the frameworks is installed.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cachekit.migrate import PEERS, migrate
from cachekit.testing import start_server

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENT = ".venv-migrate"
# The machine may be busy. Backends of Django's aliases have no variables, and Flask's `config=` reads no file.
PATIENT = {"CACHEKIT_BACKENDS__DEFAULT__BUDGET": "10s", "CACHEKIT_BACKENDS__DEFAULT__ADAPTIVE": "false"}
PATIENT_ALIASES = "".join(
    f"[backends.'django.{name}']\nbudget = '10s'\nadaptive = false\n" for name in ("default", "other")
)
PROGRAMS = sorted((HERE / "snippets").glob("*.py"))

pytestmark = pytest.mark.slow


def peer_of(program: Path) -> str:
    return next(peer for peer in PEERS if program.stem.startswith(peer.replace("-", "_")))


FIRST = [next(program for program in PROGRAMS if peer_of(program) == peer) for peer in PEERS]


@pytest.fixture(scope="module")
def with_peers() -> str:
    """The Python of an environment with the other caches."""
    pins = (HERE / "peers.txt").read_text().split()
    subprocess.run([sys.executable, "tools/environment.py", ENVIRONMENT, *pins], cwd=ROOT, check=True)
    return str(ROOT / ENVIRONMENT / "bin" / "python")


def answers(python: str, name: str, source: bytes, directory: Path) -> str:
    """What a program prints, with a server of its own and no other configuration than patience with it."""
    directory.mkdir()
    (directory / "cachekit.toml").write_text(PATIENT_ALIASES)
    (directory / name).write_bytes(source)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("CACHEKIT_")} | PATIENT
    with start_server() as server:
        done = subprocess.run(
            [python, name], cwd=directory, capture_output=True, text=True, timeout=60,
            env=environ | {"REDIS_URL": server.url, "CACHEKIT_NAMESPACE": "migrated"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("peer", PEERS)
def test_there_are_three_programs_of_each_cache(peer: str) -> None:
    assert len([program for program in PROGRAMS if peer_of(program) == peer]) >= 3


@pytest.mark.parametrize(
    "program",
    [pytest.param(each, id=each.stem, marks=() if each in FIRST else pytest.mark.nightly) for each in PROGRAMS],
)
def test_the_answers_are_the_same(program: Path, with_peers: str, tmp_path: Path) -> None:
    source = program.read_bytes()
    rewritten = migrate(source, program)
    assert rewritten != source
    before = answers(with_peers, program.name, source, tmp_path / "before")
    assert before
    assert answers(sys.executable, program.name, rewritten, tmp_path / "after") == before


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_second_run_changes_nothing(program: Path) -> None:
    rewritten = migrate(program.read_bytes(), program)
    assert migrate(rewritten, program) == rewritten


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_only_the_cache_that_is_named_is_rewritten(program: Path) -> None:
    source, peer = program.read_bytes(), peer_of(program)
    assert migrate(source, program, [each for each in PEERS if each != peer]) == source
    assert migrate(source, program, [peer]) == migrate(source, program)
