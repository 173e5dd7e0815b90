"""``flask_caching_defaults=True`` answers a row of requests as Flask-Caching itself does."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PINS = (HERE / "requirements.txt").read_text().split()

pytestmark = pytest.mark.slow


def said(python: Path | str, who: str) -> list[str]:
    done = subprocess.run(
        [str(python), str(HERE / "flask_probe.py"), who], capture_output=True, text=True, check=True, cwd="/"
    )
    return done.stdout.splitlines()


def test_the_old_defaults_are_those_of_flask_caching() -> None:
    subprocess.run([sys.executable, "tools/environment.py", ".venv-peers", *PINS], cwd=ROOT, check=True)
    peer, ours = said(ROOT / ".venv-peers" / "bin" / "python", "peer"), said(sys.executable, "ours")
    assert len(peer) > 20
    assert ours == peer
