"""What all commands have in common: a page with examples, JSON, and exit statuses that mean the same everywhere."""

import importlib.util
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cachekit.cli import build

PATH = Path(__file__).parents[2] / "tools" / "cli_page.py"
spec = importlib.util.spec_from_file_location("cli_page", PATH)
assert spec is not None
assert spec.loader is not None
cli_page = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cli_page)

ROOT = typer.main.get_command(build())
PAGES: dict[str, str] = dict(cli_page.pages())
GROUPS = [name for name in PAGES if any(other.startswith(f"{name} ") for other in PAGES)]
COMMANDS = [name for name in PAGES if name not in GROUPS]
# Each command that reads the configuration, with words that it takes.
READING = {
    "config check": "", "config show": "", "doctor": "", "entries": "", "clear": "users --yes", "stats": "",
    "inspect": "users 7", "invalidate": "--tag red", "secrets check": "", "secrets rotate": "",
    "secrets generate": "--name-key",
}  # fmt: skip


def section(page: str, title: str) -> list[str]:
    lines: list[str] = []
    inside = False
    for line in page.splitlines():
        if line and not line.startswith(" "):
            inside = line == title
        elif inside and line:
            lines.append(line.strip())
    return lines


def command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that a line means, and the rest of the line."""
    found: Any = ROOT
    while words and words[0] in getattr(found, "commands", {}):
        found, words = found.commands[words[0]], words[1:]
    return found, words


def run(*words: str) -> Any:
    result = CliRunner().invoke(build(), words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    for name in ("REDIS_URL", "CACHEKIT_REDIS_URL", "CACHEKIT_CONFIG", "CACHEKIT_MASTER_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_page_in_the_documentation_is_what_help_prints() -> None:
    assert cli_page.PAGE.read_text() == cli_page.page(), "run make docs"


@pytest.mark.parametrize("name", PAGES)
def test_help_is_a_whole_page(name: str) -> None:
    printed = run(*name.split()[1:], "--help")
    assert printed.exit_code == 0
    titles = [line for line in printed.stdout.splitlines() if line and not line.startswith(" ")]
    assert titles == [title for title in cli_titles() if title in titles]
    assert {"NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "EXAMPLES"} <= set(titles)
    assert section(printed.stdout, "NAME")[0].startswith(f"{name} - ")
    assert [line.split()[0] for line in section(PAGES[name], "EXIT STATUS") if line[0].isdigit()] == [
        "0", "1", "2", "130",
    ]  # fmt: skip


def cli_titles() -> list[str]:
    return ["NAME", "SYNOPSIS", "DESCRIPTION", "ARGUMENTS", "OPTIONS", "COMMANDS", "EXIT STATUS", "EXAMPLES"]


@pytest.mark.parametrize("name", PAGES)
def test_every_example_is_a_command_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    examples = section(PAGES[name], "EXAMPLES")
    assert examples
    for example in examples:
        line, *words = shlex.split(example.partition(" >")[0])
        found, rest = command(words)
        assert line == "cachekit"
        assert found is not ROOT or name == "cachekit"
        if found is not ROOT:
            found.make_context(name, rest)  # raises for what it does not know


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json(name: str) -> None:
    assert "--json" in " ".join(section(PAGES[name], "OPTIONS"))


@pytest.mark.parametrize("name", PAGES)
def test_a_wrong_command_line_is_exit_status_2_and_told_on_stderr(name: str) -> None:
    done = run(*name.split()[1:], "--no-such-option")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "No such option" in done.stderr


@pytest.mark.parametrize("name", READING)
def test_a_wrong_configuration_is_exit_status_1_in_words_and_in_json(name: str, project: Path) -> None:
    (project / "cachekit.toml").write_text('[profiles.users]\nttl = "5 parsecs"\n')
    words = [*name.split(), *READING[name].split()]
    done = run(*words)
    assert done.exit_code == 1
    assert "5 parsecs" in done.stdout
    done = run(*words, "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["ok"], len(found["problems"])) == (1, False, 1)
    assert "5 parsecs" in found["problems"][0]


def test_every_command_that_reads_the_configuration_is_among_them() -> None:
    reading = {name.removeprefix("cachekit ") for name in COMMANDS if "--config" in PAGES[name]}
    assert reading == set(READING)


def test_what_is_well_is_exit_status_0(project: Path) -> None:
    (project / "cachekit.toml").write_text("[profiles.users]\n")
    for words in ("config check", "config show --json", "config schema --json", "doctor", "secrets check"):
        assert run(*words.split()).exit_code == 0, words
    assert json.loads(run("config", "schema", "--json").stdout) == json.loads(run("config", "schema").stdout)
