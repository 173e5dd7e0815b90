"""The admin's page and the toolbar's panel in a browser, of a project that runs in a process of its own.

``DJANGO_SCREENSHOTS=docs/images pytest tests/django/test_django_admin_browser.py`` renews the pictures in the
documentation.
"""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from cachekit.testing.servers import Server, free_port, start_server

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
FILL = """
from decimal import Decimal
from uuid import UUID
from django.contrib.auth.models import User
from project.shop.models import Author, Book
User.objects.create_superuser("ann", password="secret")
for number, (title, name) in enumerate([("Emma", "Jane"), ("Faust", "Johann"), ("Persuasion", "Jane")]):
    author = Author.objects.get_or_create(name=name)[0]
    Book.objects.create(id=UUID(int=number), title=title, price=Decimal(number), author=author)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server("valkey") as running:
        yield running


@pytest.fixture(scope="module")
def project(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the project answers."""
    environment = {
        **os.environ, "DJANGO_SETTINGS_MODULE": "project.debug_settings", "REDIS_URL": server.url,
        "PROJECT_DB": str(tmp_path_factory.mktemp("project") / "db.sqlite3"),
        "PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))),
        # The machine may be busy.
        "CACHEKIT_BACKENDS__DEFAULT__BUDGET": "10s", "CACHEKIT_BACKENDS__DEFAULT__ADAPTIVE": "false",
    }  # fmt: skip
    manage = (sys.executable, "-m", "django")
    subprocess.run([*manage, "migrate", "--run-syncdb", "--verbosity=0"], env=environment, check=True)
    subprocess.run([*manage, "shell", "--verbosity=0", "--command", FILL], env=environment, check=True)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("log") / "runserver"
    with log.open("w") as output:
        command = [*manage, "runserver", "--noreload", address.removeprefix("http://")]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            wait(f"{address}/whoami/", process, log)
            yield address
        finally:
            process.terminate()
            process.wait(10)


def wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=10).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def opened(project: str, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The admin, logged in. Nothing is refused by the policy of its pages, and no other host is asked."""
    scheme: Any = getattr(request, "param", "light")
    page = browser.new_page(viewport={"width": 1180, "height": 760}, color_scheme=scheme)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: None if asked.url.startswith(project) else problems.append(asked.url))
    page.goto(f"{project}/admin/")
    page.get_by_label("Username").fill("ann")
    page.get_by_label("Password").fill("secret")
    page.get_by_role("button", name="Log in").click()
    yield page
    page.close()
    assert problems == []


def picture(page: Page, name: str, tmp_path: Path) -> None:
    path = Path(os.environ.get("DJANGO_SCREENSHOTS", tmp_path)) / name
    page.screenshot(path=path)
    assert 10_000 < path.stat().st_size < 250_000


@pytest.mark.parametrize("opened", ["light", "dark"], indirect=True, ids=str)
def test_the_page_is_found_read_and_used_in_either_colours(
    opened: Page, project: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    for _ in range(8):
        urllib.request.urlopen(f"{project}/books/").close()
    opened.goto(f"{project}/admin/")
    opened.locator("#content").get_by_role("link", name="Caches", exact=True).click()
    books = opened.get_by_role("row").filter(has=opened.get_by_role("rowheader", name="books"))
    expect(books.locator("rect.l1-hits")).to_have_count(1)
    background = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    colour = books.locator("rect.l1-hits").evaluate("element => getComputedStyle(element).fill")
    dark = "dark" in request.node.name
    assert background == ("rgb(18, 18, 18)" if dark else "rgb(255, 255, 255)")
    assert colour == "rgb(46, 139, 87)"  # so the style sheet was let in
    picture(opened, f"django-admin{'-dark' if dark else ''}.png", tmp_path)

    books.get_by_role("link", name="Clear").click()
    expect(opened.get_by_text("Remove everything in region")).to_be_visible()
    opened.get_by_role("link", name="No, take me back").click()
    books.get_by_role("link", name="Clear").click()
    opened.get_by_role("button", name="Yes, clear books").click()
    expect(opened.locator(".messagelist")).to_contain_text("Cleared region books. Done.")
    expect(books.locator("td").nth(2)).to_contain_text("0 bytes")
    opened.get_by_label("Tags").fill("authors")
    opened.get_by_role("button", name="Invalidate").click()
    expect(opened.locator(".messagelist")).to_contain_text("Invalidated by tag: authors. Done.")
    opened.goto(f"{project}/admin/")
    expect(opened.locator("#recent-actions-module")).to_contain_text("books")


def test_the_panel_lists_the_calls_of_the_page(project: str, browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1180, "height": 640})
    page.goto(f"{project}/books/")
    page.goto(f"{project}/books/")
    page.locator("#djdt-CachesPanel").get_by_role("link").click()
    panel = page.locator("#CachesPanel")
    expect(panel).to_contain_text("load_books")
    expect(panel).to_contain_text("L1")
    expect(panel).to_contain_text("incr")
    picture(page, "django-panel.png", tmp_path)
    page.close()
