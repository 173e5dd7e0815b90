"""``make bench-peers`` in its quick mode, with what is installed here and a peer that is made up."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.server]

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "benchmarks" / "peers"
FIRST = ["l1", "async", "l2", "secure", "stampede", "hung", "breaker", "memory", "import", "codec"]
DISKLESS = """
def cached(cache):
    def decorate(function):
        def memo(x):
            if x not in cache:
                cache[x] = function(x)
            return cache[x]
        return memo
    return decorate
class TTLCache(dict):
    def __init__(self, size, ttl): pass
class LRUCache(dict):
    def __init__(self, size): pass
"""
SVG = "{http://www.w3.org/2000/svg}"


def run(*words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(PROGRAM), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("peers")


@pytest.fixture(scope="module")
def found(directory: Path) -> dict[str, Any]:
    """What a quick run of everything printed, with a cachetools of our own in the other interpreter."""
    (directory / "packages").mkdir()
    (directory / "packages" / "cachetools.py").write_text(DISKLESS)
    python = directory / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{directory}/packages:$PYTHONPATH" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = run("--quick", "--json", "--plots", str(directory), "--python", str(python))
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def section(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(section for section in found["sections"] if section["name"] == name)


def row(found: dict[str, Any], name: str, of: str) -> dict[str, Any]:
    return next(row for row in section(found, name)["rows"] if row["name"] == of)


def test_every_section_is_there_and_nothing_of_ours_failed(found: dict[str, Any]) -> None:
    assert [each["name"] for each in found["sections"]][: len(FIRST)] == FIRST
    assert (found["ok"], found["failures"], found["quick"], found["rounds"]) == (True, [], True, 2)
    assert "processors" in found["machine"]
    for each in found["sections"]:
        ours = [row for row in each["rows"] if row["library"] == "cachekit"]
        assert ours, each["name"]
        assert all(cell["value"] > 0 and cell["ratio"] > 0 for row in ours for cell in row["cells"].values())


def test_every_row_has_only_columns_of_its_section_and_a_figure_or_a_reason(found: dict[str, Any]) -> None:
    for each in found["sections"]:
        for line in each["rows"]:
            assert line["cells"].keys() <= each["columns"].keys()
            assert all(cell["value"] is not None or cell["problem"] for cell in line["cells"].values()), line


def test_ratios_are_to_the_reference(found: dict[str, Any]) -> None:
    for name, of in (("l2", "redis-py GET, msgpack"), ("codec", "pickle"), ("memory", "functools.lru_cache")):
        reference = row(found, name, of)
        assert reference["reference"]
        for column, cell in row(found, name, "cachekit")["cells"].items():
            assert cell["ratio"] == pytest.approx(cell["value"] / reference["cells"][column]["value"])
    plain, sealed = row(found, "l2", "cachekit"), row(found, "secure", "cachekit, encrypted")
    assert sealed["cells"]["sync"]["ratio"] == pytest.approx(
        sealed["cells"]["sync"]["value"] / plain["cells"]["sync"]["value"]
    )


def test_a_cold_key_ran_once_for_ours_and_once_per_caller_for_what_has_no_guard(found: dict[str, Any]) -> None:
    assert row(found, "stampede", "cachekit")["cells"]["runs"]["value"] == 1
    assert row(found, "stampede", "cachekit, async")["cells"]["runs"]["value"] == 1
    assert row(found, "stampede", "Django RedisCache")["cells"]["runs"]["value"] == 10


def test_a_server_that_hangs_holds_up_what_has_no_time_limit_and_not_ours(found: dict[str, Any]) -> None:
    assert row(found, "hung", "cachekit")["cells"]["slowest"]["value"] < 1
    theirs = row(found, "hung", "Django RedisCache")["cells"]["slowest"]
    assert theirs["value"] >= 3
    assert theirs["problem"] == "a call got no answer at all"


def test_what_raises_has_the_reason_in_place_of_a_figure(found: dict[str, Any]) -> None:
    theirs = row(found, "breaker", "Django RedisCache")["cells"]["sync"]
    assert theirs["value"] is None
    assert theirs["problem"].startswith("ConnectionError")


def test_a_peer_is_measured_in_the_interpreter_that_has_it_and_others_are_missing(found: dict[str, Any]) -> None:
    assert "cachetools" not in found["missing"]
    assert {"theine", "cachekit.io"} <= set(found["missing"])
    assert row(found, "memory", "cachetools TTLCache")["cells"]["bytes"]["value"] > 0


def test_every_section_is_drawn_with_every_row_and_nothing_leaves_the_page(
    found: dict[str, Any], directory: Path
) -> None:
    for each in found["sections"]:
        root = ElementTree.fromstring((directory / f"peers-{each['name']}.svg").read_text())
        assert root.tag == f"{SVG}svg"
        texts = {"".join(text.itertext()).rstrip("*") for text in root.iter(f"{SVG}text")}
        assert {row["name"] for row in each["rows"]} <= texts
        width = float(root.get("width", ""))
        for bar in root.iter(f"{SVG}rect"):
            assert float(bar.get("x", "")) + float(bar.get("width", "")) < width


def test_some_sections_alone_as_a_table_with_a_bar_of_progress() -> None:
    master, terminal = pty.openpty()
    command = [sys.executable, str(PROGRAM), "--quick", "--only", "codec"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=terminal, text=True, env={**os.environ, "TERM": "xterm"}
    ) as process:
        os.close(terminal)
        drawn = b""
        try:
            while part := os.read(master, 65536):
                drawn += part
        except OSError:  # the other end is closed
            pass
        assert process.stdout is not None
        printed = process.stdout.read()
    os.close(master)
    assert process.returncode == 0
    assert b"all sections" in drawn
    assert re.search(r"^cachekit +[\d.,]+ +[\d.]+x", printed, re.MULTILINE)
    assert "A hit" not in printed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--only", "l3"], "l3: no such section; there are l1, l2,"),
        (["--plots", "no/such/place"], "no such directory"),
        (["--python", "no-such-python"], "no such program"),
        (["--rounds", "0"], "at least 1"),
    ],
)
def test_a_mistake_is_told_before_anything_is_measured(words: list[str], told: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
