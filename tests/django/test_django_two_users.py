"""Two users and a stranger in browsers, at once: nobody is ever shown a page that was made for another.

The project has the admin, sessions in cachekit, pages kept by our `cache_page`, by Django's and by our middleware, and
fragments, in two workers. The second half of a visit is another user in the same browser.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.async_api import Browser, Page, async_playwright

from cachekit.testing.servers import Server, free_port

APPS = Path(__file__).parent / "apps"
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SECRETS = {"ann": "secret-of-ann", "bob": "secret-of-bob"}
PERSONAL = ("/me/", "/ame/", "/plain/", "/django-me/", "/fragments/", "/ruled/me/", "/basket/", "/basket/")
ADMIN = ("/admin/", "/admin/auth/group/", "/admin/password_change/")
PUBLIC = ("/public/", "/django-public/")
STEPS = 20
PATIENCE = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.server]


@pytest.fixture(params=[("wsgi", "cache"), ("asgi", "cached_db")], ids=["gunicorn", "uvicorn"])
def url(request: pytest.FixtureRequest, tmp_path: Path, cachekit_server: Server) -> Iterator[str]:
    """The project in two workers of gunicorn or of uvicorn."""
    kind, sessions = request.param
    port = free_port()
    environment = {
        **os.environ, "REDIS_URL": cachekit_server.url, "PROJECT_NAMESPACE": f"twousers{port}", "PROJECT_SERVER": kind,
        "PROJECT_SESSIONS": sessions, "PROJECT_DB": str(tmp_path / "db.sqlite3"),
        # A busy machine may take longer than the usual 250 ms, and a session that cannot be read is logged out.
        "CACHEKIT_BACKENDS__DEFAULT__BUDGET": "10s", "CACHEKIT_BACKENDS__DEFAULT__ADAPTIVE": "false",
    }  # fmt: skip
    subprocess.run([sys.executable, "two_users_app.py"], cwd=APPS, env=environment, check=True, timeout=PATIENCE)
    program = {
        "wsgi": ["gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "2", "--threads", "4", "--log-level", "error"],
        "asgi": ["uvicorn", "--host", "127.0.0.1", "--port", str(port), "--workers", "2", "--log-level", "warning",
                 "--timeout-worker-healthcheck", "15"],
    }[kind]  # fmt: skip
    command = [sys.executable, "-m", *program, "two_users_app:application"]
    process = subprocess.Popen(command, cwd=APPS, env=environment, start_new_session=True)
    try:
        answers(f"http://127.0.0.1:{port}/public/")
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


def answers(url: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            assert httpx2.get(url).status_code == 200
            return
        except httpx2.TransportError:
            assert time.monotonic() < deadline, "the workers did not answer"
            time.sleep(0.2)


class Visit:
    """One browser profile, and what it was shown."""

    def __init__(self, page: Page, url: str, seed: int) -> None:
        self.page = page
        self.url = url
        self.random = random.Random(seed)
        self.seen: Counter[str] = Counter()
        self.who = "nobody"
        self.added = 0

    async def log_in(self, name: str) -> None:
        await self.page.goto(f"{self.url}/admin/login/?next=/me/")
        await self.page.fill("[name=username]", name)
        await self.page.fill("[name=password]", SECRETS[name][::-1])
        await self.page.click("[type=submit]")
        await self.page.wait_for_url("**/me/")
        self.who, self.added = SECRETS[name], 0
        await self.check("/me/")

    async def log_out(self) -> None:
        await self.page.goto(f"{self.url}/admin/")
        await self.page.click("#logout-form button")
        await self.page.wait_for_load_state()
        self.who, self.added = "nobody", 0
        await self.go("/me/")

    async def walk(self) -> None:
        """Pages in an order of its own; each is checked."""
        paths = [*PERSONAL, *PUBLIC, *(ADMIN if self.who != "nobody" else ())]
        for _ in range(STEPS):
            await self.go(self.random.choice(paths))

    async def go(self, path: str) -> None:
        answer = await self.page.goto(self.url + path)
        assert answer is not None
        assert answer.status in (200, 304)
        self.seen[f"{path} {answer.headers.get('x-cache', '-')}"] += 1
        await self.check(path)
        if path == "/basket/" and self.random.random() < 0.5:
            await self.page.click("#add")
            await self.page.wait_for_url("**/basket/")
            self.added += 1
            assert f"added by {self.who}" in await self.page.inner_text(".message")
            await self.check(path)

    async def check(self, path: str) -> None:
        """The page shows its visitor where it shows any, and nothing of others."""
        text = await self.page.content()
        assert not [secret for secret in SECRETS.values() if secret != self.who and secret in text], (path, self.who)
        if path in ADMIN:
            assert self.who in await self.page.inner_text("#user-tools")
        elif path in PERSONAL:
            assert await self.page.inner_text("#who") == self.who
        if path == "/basket/":
            mine = [f"{self.who} {number + 1}" for number in range(self.added)]
            assert await self.page.locator("li").all_inner_texts() == mine


async def visitor(browser: Browser, url: str, names: list[str], seed: int) -> Counter[str]:
    """A browser profile in which these users log in one after another; without any, a stranger's."""
    async with await browser.new_context() as context:
        visit = Visit(await context.new_page(), url, seed)
        if not names:
            await visit.walk()
        for name in names:
            await visit.log_in(name)
            await visit.walk()
            await visit.log_out()
        return visit.seen


async def test_no_page_of_one_is_ever_shown_to_another(url: str) -> None:
    async with async_playwright() as playwright:
        browser: Any = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            visits = (["ann", "bob"], ["bob", "ann"], [])
            seen = await asyncio.gather(*[visitor(browser, url, names, seed) for seed, names in enumerate(visits)])
        finally:
            await browser.close()
    users, stranger = seen[0] + seen[1], seen[2]
    for path in ("/me/", "/ame/", "/ruled/me/"):
        assert users[f"{path} HIT"] > 0, users  # what was shown came from the cache, too
    assert users["/plain/ BYPASS"] > 0
    assert not users["/plain/ HIT"]
    assert stranger["/public/ HIT"] + stranger["/public/ MISS"] + stranger["/public/ BYPASS"] > 0
