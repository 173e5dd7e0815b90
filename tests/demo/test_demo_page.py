"""The first page of the demo, in a browser.

``DEMO_SCREENSHOT=docs/images/demo.png pytest tests/demo/test_demo_page.py`` renews the picture in the documentation.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from cachekit.demo.load import ask, draw
from cachekit.demo.processes import Demo

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
MEMORY, SERVER, COMPUTED = "from memory", "from the server", "computed"
# The machine may be busy.
PATIENT = {"CACHEKIT_BACKENDS__DEFAULT__BUDGET": "10s", "CACHEKIT_BACKENDS__DEFAULT__ADAPTIVE": "false"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    demo = Demo()
    demo.environment |= PATIENT
    with demo as running:
        running.wait()
        yield running


@pytest.fixture(scope="module")
def opened(demo: Demo) -> Iterator[Page]:
    """The first page of the first worker. No script fails on it, and it asks nobody but the workers."""
    errors: list[str] = []
    hosts: set[str] = set()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1180, "height": 1180})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: hosts.add("/".join(request.url.split("/")[:3])))
        page.goto(demo.workers[0].url)
        yield page
        browser.close()
    assert not errors
    assert hosts == {worker.url for worker in demo.workers}


def card(page: Page, title: str) -> Locator:
    return page.locator("section", has=page.get_by_role("heading", name=title))


def answer(card: Locator, framework: str) -> Locator:
    """The line of one framework below a question."""
    return card.locator(f".answers [data-framework={framework}]")


def counts(page: Page, framework: str) -> list[Locator]:
    """L1 hits, L2 hits and misses of one framework, in the table."""
    row = page.locator(f"#workers [data-framework={framework}]")
    return [row.locator(f"[data-count={name}]") for name in ("l1", "l2", "miss")]


def numbers(page: Page, framework: str) -> list[int]:
    return [int(cell.inner_text().replace(",", "").replace("–", "0")) for cell in counts(page, framework)]


def test_each_framework_answers_and_its_counts_grow(opened: Page) -> None:
    names = card(opened, "Cities by name")
    names.get_by_label("part of a name").fill("wien")
    for framework, tier, grown in (
        ("django", COMPUTED, (0, 0, 1)),
        ("fastapi", SERVER, (0, 1, 0)),
        ("flask", SERVER, (0, 1, 0)),
    ):
        before = numbers(opened, framework)
        line = answer(names, framework)
        line.get_by_role("button").click()
        expect(line).to_contain_text(tier)
        expect(line).to_contain_text("ms")
        expect(names.locator("li").first).to_contain_text("Vienna, AT")
        for cell, count, more in zip(counts(opened, framework), before, grown, strict=True):
            expect(cell).to_have_text(f"{count + more:,}")
    for _ in range(5):  # a process that has just begun to hear of changes begins with an empty memory
        before = numbers(opened, "flask")
        answer(names, "flask").get_by_role("button").click()
        opened.wait_for_timeout(100)
        while sum(numbers(opened, "flask")) == sum(before):
            opened.wait_for_timeout(20)
        if numbers(opened, "flask") == [before[0] + 1, *before[1:]]:
            break
    expect(answer(names, "flask")).to_contain_text(MEMORY)


def test_one_button_asks_all_three(opened: Page) -> None:
    for title, first in (("Nearest cities", "Landstraße, AT"), ("Largest urban areas", "Paris, FR")):
        question = card(opened, title)
        question.get_by_role("button", name="Ask all three").click()
        expect(answer(question, "fastapi")).to_contain_text(COMPUTED)
        expect(answer(question, "flask")).to_contain_text(SERVER)
        expect(answer(question, "django")).to_contain_text(SERVER)
        expect(question.locator("li").first).to_contain_text(first)


def test_without_any_cache_nothing_is_counted(opened: Page) -> None:
    names = card(opened, "Cities by name")
    names.get_by_label("without any cache").check()
    names.get_by_label("part of a name").fill("graz")
    before = numbers(opened, "flask")
    answer(names, "flask").get_by_role("button").click()
    expect(names.locator("li").first).to_contain_text("Graz, AT")
    expect(answer(names, "flask")).to_contain_text(COMPUTED)
    names.get_by_label("without any cache").uncheck()
    assert numbers(opened, "flask") == before


def test_a_refused_question_says_why(opened: Page) -> None:
    areas = card(opened, "Largest urban areas")
    areas.get_by_label("country code").fill("xx")
    for framework in ("fastapi", "flask", "django"):
        answer(areas, framework).get_by_role("button").click()
        expect(answer(areas, framework)).to_contain_text("refused")
        expect(areas.locator("ol")).to_contain_text("no cities in a country 'XX'")
    areas.get_by_label("country code").fill("FR")


def test_a_tag_is_invalidated_in_the_framework_of_the_button(opened: Page) -> None:
    names = card(opened, "Cities by name")
    names.get_by_label("part of a name").fill("linz")
    names.get_by_role("button", name="Ask all three").click()
    expect(answer(names, "django")).to_contain_text(SERVER)
    opened.locator("#invalidate [data-framework=django]").click()
    expect(opened.locator("#invalidated")).to_contain_text("Done. Django computes anew at once")
    answer(names, "django").get_by_role("button").click()
    expect(answer(names, "django")).to_contain_text(COMPUTED)


def test_a_picture_of_the_page_is_small_enough_for_the_documentation(opened: Page, demo: Demo, tmp_path: Path) -> None:
    ask(demo.workers, draw(1_500, seed=1), cached=True)
    opened.reload()
    nearest, names, areas = (
        card(opened, title) for title in ("Nearest cities", "Cities by name", "Largest urban areas")
    )
    nearest.get_by_label("latitude").fill("59.9")
    nearest.get_by_label("longitude").fill("10.7")
    names.get_by_label("part of a name").fill("reykj")
    areas.get_by_label("country code").fill("NZ")
    for question in (nearest, names, areas, names):
        question.get_by_role("button", name="Ask all three").click()
        expect(answer(question, "django")).to_contain_text("ms")
    expect(answer(names, "django")).to_contain_text(MEMORY)
    expect(opened.locator("#share")).to_contain_text("%")
    opened.wait_for_timeout(600)  # the bars grow
    path = Path(os.environ.get("DEMO_SCREENSHOT", tmp_path / "demo.png"))
    opened.screenshot(path=path, full_page=True)
    assert 20_000 < path.stat().st_size < 250_000
