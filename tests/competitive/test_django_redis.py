"""The methods of django-redis answer a row of calls as they do there, and take the same arguments."""

import subprocess
import sys
from pathlib import Path

import pytest

from cachekit.testing.servers import start_server

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PINS = (HERE / "requirements.txt").read_text().split()

pytestmark = pytest.mark.slow


def said(python: Path | str, who: str) -> list[str]:
    with start_server() as server:
        command = [str(python), str(HERE / "django_redis_probe.py"), who, server.url]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_call_is_answered_as_by_django_redis() -> None:
    subprocess.run([sys.executable, "tools/environment.py", ".venv-peers", *PINS], cwd=ROOT, check=True)
    peer, ours = said(ROOT / ".venv-peers" / "bin" / "python", "peer"), said(sys.executable, "ours")
    assert len(peer) > 340
    assert ours == peer
