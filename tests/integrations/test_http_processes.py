"""Pages in several processes: equal entity tags, and one run for all who ask at once."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from cachekit.testing import Processes
from cachekit.testing.servers import Server, free_port

APPS = Path(__file__).parent / "apps"
PAGES = ("decorated", "blocking", "middleware")
PATIENCE = 90.0

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("page", PAGES)
def test_entity_tags_are_equal_in_every_process_and_after_a_restart(
    tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(APPS)  # what this process can import the others can, too
    seen = []
    for start in range(2):  # again, as after a restart
        env = {"JOURNAL": str(tmp_path), "PYTHONHASHSEED": str(start + 1)}
        with Processes(2, "pages_app:start", env=env) as processes:
            seen += [tag for process in processes for tag in process.call("tags_of", f"/{page}/7")]
    assert len(seen) == 8
    assert len(set(seen)) == 1
    assert seen[0].startswith('"')
    runs = sum(len(file.read_text().split()) for file in tmp_path.iterdir())
    assert runs == 4  # each process made its own


@pytest.fixture
def workers(tmp_path: Path, server: Server) -> Iterator[str]:
    """Two workers of uvicorn with one server."""
    port, journal = free_port(), tmp_path / "journal"
    journal.mkdir()
    environment = {
        **os.environ, "JOURNAL": str(journal), "REDIS_URL": server.url,
        "CACHEKIT_NAMESPACE": f"pages{port}",
        # 100 requests at once keep a loop of a busy machine from reading an answer for longer than the usual 250 ms.
        "CACHEKIT_BACKENDS__DEFAULT__BUDGET": "10s", "CACHEKIT_BACKENDS__DEFAULT__ADAPTIVE": "false",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), "--workers", "2", "--log-level",
        "warning", "--timeout-worker-healthcheck", "15", "pages_app:app",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=APPS, env=environment, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # the session that we made
            except ProcessLookupError:
                pass
            process.wait()


async def both_workers(url: str) -> None:
    deadline, seen = time.monotonic() + PATIENCE, set()
    while len(seen) < 2:
        assert time.monotonic() < deadline, "the workers did not answer"
        try:
            async with httpx2.AsyncClient(headers={"authorization": "x"}) as client:  # a connection of its own
                seen.add((await client.get(f"{url}/pid")).json())
        except httpx2.TransportError:
            await asyncio.sleep(0.2)


@pytest.mark.server
@pytest.mark.parametrize("page", PAGES)
async def test_200_requests_at_once_to_a_cold_page_run_its_function_once(
    workers: str, tmp_path: Path, page: str
) -> None:
    await both_workers(workers)
    limits = httpx2.Limits(max_connections=200)
    async with httpx2.AsyncClient(limits=limits, timeout=PATIENCE) as client:
        answers = await asyncio.gather(*[client.get(f"{workers}/{page}/7") for _ in range(200)])
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, '{"number":7}')}
    assert len({answer.headers["etag"] for answer in answers}) == 1
    runs = sum(len(file.read_text().split()) for file in (tmp_path / "journal").iterdir())
    assert runs == 1
    assert sorted(answer.headers["x-cache"] for answer in answers) == ["HIT"] * 199 + ["MISS"]
