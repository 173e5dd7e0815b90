"""Workers of gunicorn: a cold page is made once for all who ask for it, and its entity tag is the same everywhere."""

import os
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from cachekit.testing.servers import free_port, start_server

pytestmark = pytest.mark.slow

CLIENTS = 200
HERE = Path(__file__).parent


def get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.headers, answer.read().decode()


class Workers:
    """Two of them, behind one port."""

    def __init__(self, url, directory, port):
        self.port = port  # it is part of the host, and so of the key
        self.base = f"http://127.0.0.1:{self.port}"
        self.runs = directory / "runs"
        self.runs.touch()
        self.environment = {**os.environ, "PAGES_RUNS": str(self.runs), "PAGES_URL": url, "PYTHONPATH": str(HERE)}

    def __enter__(self):
        gunicorn = str(Path(sys.executable).parent / "gunicorn")
        threads = str(CLIENTS + 10)
        self.process = subprocess.Popen(
            [gunicorn, "--workers", "2", "--threads", threads, "--backlog", "1024", "--bind", f"127.0.0.1:{self.port}",
             "--log-level", "warning", "flask_pages_app:app"],
            cwd=HERE, env=self.environment,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while len(self.pids()) < 2:
            assert time.monotonic() < deadline, "the workers did not answer"
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)

    def pids(self):
        found = set()
        for _ in range(20):
            try:
                found.add(get(f"{self.base}/pid")[1])
            except OSError:
                time.sleep(0.1)
        return found


def ask_together(base):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(get(base))) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_200_at_once_on_a_cold_page_run_its_view_once(tmp_path):
    port = free_port()
    with start_server("valkey") as store:
        with Workers(store.url, tmp_path, port) as workers:
            answers = ask_together(workers.base)
            assert len(answers) == CLIENTS
            assert {body for _, body in answers} == {"the same for all"}
            assert len(workers.runs.read_text().split()) == 1
            tags = {headers["ETag"] for headers, _ in answers}
        with Workers(
            store.url, tmp_path, port
        ) as workers:  # after a restart, of both processes and with what the store has
            tags |= {get(workers.base)[0]["ETag"] for _ in range(10)}
            assert len(workers.runs.read_text().split()) == 1
        assert len(tags) == 1


def test_an_entity_tag_is_made_of_the_content_alone(tmp_path):
    tags = set()
    for number in range(2):
        directory = tmp_path / str(number)
        directory.mkdir()
        with start_server("valkey") as store, Workers(store.url, directory, free_port()) as workers:
            tags.add(get(workers.base)[0]["ETag"])
            assert workers.runs.read_text()
    assert len(tags) == 1
