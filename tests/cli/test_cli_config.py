"""`cachekit config check | show | schema`, as a user runs them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from cachekit.cli import build
from cachekit.config.spec import FRESHNESS_FIELDS

BROKEN = '[profiles.users]\nttl = "5 parsecs"\nl1.max_entires = 5\n'
QUIET = "namespace = 'shop'\n[metrics]\nallow = ['::1']\n"


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Cachekit = Callable[..., Done]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project directory, in an environment without settings, which is also the working directory."""
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("CACHEKIT_") or name == "REDIS_URL"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def cachekit(project: Path, monkeypatch: pytest.MonkeyPatch) -> Cachekit:
    """Run the command in this process."""

    def run(*words: str, **environ: str) -> Done:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(build(), words)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


def command(*words: str) -> Done:
    """Run the command as a process of its own, for what imports the user's modules."""
    done = subprocess.run(
        [sys.executable, "-c", "from cachekit.cli import main; main()", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_check_says_ok_and_which_file_was_read(project: Path, cachekit: Cachekit) -> None:
    (project / "cachekit.toml").write_text(QUIET)
    done = cachekit("config", "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"ok: {project}/cachekit.toml\n"


def test_check_without_a_file_is_no_error(cachekit: Cachekit) -> None:
    done = cachekit("config", "check")
    assert done.returncode == 0
    assert "ok: no file" in done.stdout


def test_check_prints_every_problem_on_its_line_and_exits_1(project: Path, cachekit: Cachekit) -> None:
    (project / "cachekit.toml").write_text(BROKEN)
    done = cachekit("config", "check")
    assert done.returncode == 1
    assert sorted(line.partition(": ")[0] for line in done.stdout.splitlines()) == [
        "cachekit.toml:2",
        "cachekit.toml:3",
    ]


def test_problems_are_red_and_warnings_yellow(project: Path, cachekit: Cachekit) -> None:
    (project / "cachekit.toml").write_text(BROKEN)
    assert "\x1b[31mcachekit.toml:2" in cachekit("config", "check", FORCE_COLOR="1", TERM="xterm").stdout
    (project / "cachekit.toml").write_text("")
    assert "\x1b[33mwarning: metrics" in cachekit("config", "check", FORCE_COLOR="1", TERM="xterm").stdout


@pytest.mark.parametrize(("text", "words"), [("", ["--strict"]), ("strict = true\n", [])])
def test_warnings_are_errors_when_strict(project: Path, cachekit: Cachekit, text: str, words: list[str]) -> None:
    (project / "cachekit.toml").write_text(text)
    done = cachekit("config", "check", *words)
    assert done.returncode == 1
    assert done.stdout.startswith("error: metrics")
    (project / "cachekit.toml").write_text(text + QUIET)
    assert cachekit("config", "check", *words).returncode == 0


def test_check_prints_json(project: Path, cachekit: Cachekit) -> None:
    (project / "cachekit.toml").write_text(BROKEN)
    done = cachekit("config", "check", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert (report["ok"], len(report["problems"])) == (False, 2)


def test_config_names_files_base_first(project: Path, cachekit: Cachekit) -> None:
    (project / "a.toml").write_text("[profiles.users]\nttl = 1\n")
    (project / "b.toml").write_text("[profiles.users]\nttl = 2\n")
    done = cachekit("config", "show", "--json", "--config", "a.toml", "--config", "b.toml")
    assert json.loads(done.stdout)["profiles.users.ttl"] == '"2s"'


def test_import_binds_the_functions_of_a_module(project: Path) -> None:
    (project / "views.py").write_text("from cachekit import cache\n@cache(profile='usrs')\ndef f(x): return x\n")
    (project / "cachekit.toml").write_text(QUIET + "[profiles.users]\n")
    done = command("config", "check", "--import", "views")
    assert done.returncode == 1
    assert "usrs" in done.stdout
    assert "users" in done.stdout
    assert "Traceback" not in done.stderr


def test_import_uses_the_files_that_config_names(project: Path) -> None:
    (project / "views.py").write_text("from cachekit import cache\n@cache(profile='users')\ndef f(x): return x\n")
    (project / "other.toml").write_text(QUIET + "[profiles.users]\n")
    assert command("config", "check", "--import", "views").returncode == 1
    assert command("config", "check", "--import", "views", "--config", "other.toml").returncode == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import no_such_module_here", "views: cannot be imported: ModuleNotFoundError"),
        ("from cachekit import cache\n@cache(ttl=0)\ndef f(): pass", "views: ttl = 0"),
        ("from cachekit import cache\n@cache(tll=5)\ndef f(): pass", "did you mean 'ttl'?"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_problem(project: Path, text: str, problem: str) -> None:
    (project / "views.py").write_text(text)
    done = command("config", "check", "--import", "views")
    assert done.returncode == 1
    assert problem in done.stdout
    assert "Traceback" not in done.stderr


def test_show_names_values_and_origins(project: Path, cachekit: Cachekit) -> None:
    (project / "cachekit.toml").write_text("[profiles.default]\nttl = '2h5m'\n[profiles.users]\n")
    lines = cachekit("config", "show", "--origin", REDIS_URL="redis://:5ENT1NEL@h").stdout.splitlines()
    cells = {line.split()[0]: line.split() for line in lines}
    assert cells["profiles.users.ttl"] == ["profiles.users.ttl", '"2h5m"', "cachekit.toml:2"]
    assert cells["backends.default.url"][1:] == ['"redis://***@h"', "env", "REDIS_URL"]
    assert cells["profiles.users.jitter"][1:] == ['"10%"', "default"]


def test_show_tells_what_freshness_comes_to(project: Path, cachekit: Cachekit) -> None:
    (project / "cachekit.toml").write_text(
        "[profiles.users]\nstale_ttl = '1h'\nstale_unless = ['KeyError', 'app.Gone']\nsoft_timeout = 'auto'\n"
        "[profiles.users.negative_exceptions]\n'app.errors.NotFound' = 30\n[profiles.other]\nstale_without_proof = 5\n"
    )
    shown = json.loads(cachekit("config", "show", "--json").stdout)
    users = {
        key.removeprefix("profiles.users."): value for key, value in shown.items() if key.startswith("profiles.users.")
    }
    assert {key: value for key, value in users.items() if key in FRESHNESS_FIELDS} == {
        "stale_ttl": '"1h"', "stale_on_error": "true", "stale_unless": '["builtins.KeyError", "app.Gone"]',
        "stale_throttle": '"30s"', "stale_without_proof": "as disconnected_ttl", "swr": "false",
        "early_refresh": '"auto"', "soft_timeout": '"auto"', "hard_timeout": '"never"', "outage": '"call"',
        "negative_exceptions": '{"app.errors.NotFound" = "30s"}',
    }  # fmt: skip
    assert shown["profiles.other.stale_on_error"] == "false"
    assert shown["profiles.other.stale_without_proof"] == '"5s"'
    assert shown["profiles.production.hard_timeout"] == '"30s"'
    assert shown["profiles.minimal.early_refresh"] == '"off"'


def test_check_wants_a_namespace_where_a_function_is_made_for_production(project: Path) -> None:
    (project / "views.py").write_text(
        "from cachekit import cache\n@cache.production\ndef f(x): return x\n"
        "@cache.production(backend=None)\ndef g(x): return x\n"
    )
    text = "[metrics]\nallow = ['::1']\n[backends.default]\nurl = 'redis://h'\n"
    (project / "cachekit.toml").write_text(text)
    done = command("config", "check", "--import", "views")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == (
        "views.f: profile 'production': what is made for production needs a namespace of its own; "
        "set namespace, or CACHEKIT_NAMESPACE"
    )
    assert "views.g" not in done.stdout
    (project / "cachekit.toml").write_text("namespace = 'shop'\n" + text)
    assert command("config", "check", "--import", "views").returncode == 0


def test_check_judges_the_options_of_functions_with_their_profile(project: Path) -> None:
    options = ("profile='spare'", "soft_timeout=9", "swr=True")
    functions = "".join(f"@cache({each})\ndef f{at}(x): return x\n" for at, each in enumerate(options))
    (project / "views.py").write_text(f"from cachekit import cache\n{functions}")
    profiles = "[profiles.default]\nhard_timeout = 5\n[profiles.spare]\noutage = 'fallback'\n"
    (project / "cachekit.toml").write_text(QUIET + profiles)
    assert command("config", "check", "--import", "views").stdout.splitlines() == [
        "views.f0: outage = 'fallback' needs something to give: fallback=..., None if that is meant",
        "views.f1: soft_timeout: longer than hard_timeout (5 s)",
        "views.f2: swr: needs stale_ttl, the time for which a value may be given past its TTL",
    ]


def test_show_of_a_broken_configuration_prints_the_problems(project: Path, cachekit: Cachekit) -> None:
    (project / "cachekit.toml").write_text(BROKEN)
    done = cachekit("config", "show")
    assert done.returncode == 1
    assert "did you mean 'max_entries'?" in done.stdout


def test_no_output_holds_a_secret(project: Path, cachekit: Cachekit) -> None:
    (project / "cachekit.toml").write_text('[backends.b]\nurl = "redis://:5ENT1NEL@h"\n')
    environ = {"CACHEKIT_METRICS__TOKEN": "5ENT1NEL", "CACHEKIT_BACKENDS__B__PASSWORD": "5ENT1NEL"}
    for words in (["check"], ["check", "--json"], ["show"], ["show", "--origin"], ["show", "--json", "--origin"]):
        done = cachekit("config", *words, **environ)
        assert done.returncode == 0
        assert "5ENT1NEL" not in done.stdout + done.stderr


def test_schema_is_json_schema(cachekit: Cachekit) -> None:
    schema = json.loads(cachekit("config", "schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["additionalProperties"] is False


def test_help_loads_no_part_that_it_does_not_need(project: Path) -> None:
    code = (
        "import sys\nfrom cachekit.cli import build\nbuild()\n"
        "print([m for m in ('redis', 'pydantic_settings', 'cachekit.config.settings', 'cachekit.service') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=project)
    assert done.stdout == "[]\n"


def test_version_is_printed(cachekit: Cachekit) -> None:
    assert cachekit("--version").stdout.startswith("cachekit ")
