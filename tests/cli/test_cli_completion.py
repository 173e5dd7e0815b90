"""Bash, zsh and fish complete commands, options, and the regions of the configuration."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each question is a process of its own

# How each shell is asked, without a terminal, what it would offer for the last word; with its own script.
ASK = {
    "bash": (
        "source ./script; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
        '_cachekit_completion cachekit; printf "%s\\n" "${{COMPREPLY[@]}}"'
    ),
    "zsh": (
        'compdef() {{ }}; _arguments() {{ print -r -- "$@" }}; _files() {{ }}; source ./script; '
        "words=({words}); CURRENT=$#words; _cachekit_completion"
    ),
    "fish": 'source ./script; complete -C "{words}"',
}


@pytest.fixture(params=ASK)
def shell(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A shell with our script in a project with two regions."""
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name}: run tools/system-packages")
    command = tmp_path / "bin" / "cachekit"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom cachekit.cli import main\nmain()\n")
    command.chmod(0o755)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "cachekit.toml").write_text("[profiles.users]\n[profiles.user-tokens]\n[profiles.pages]\n")
    (tmp_path / "other.toml").write_text("[profiles.usurpers]\n")
    (tmp_path / "wrong.toml").write_text("[profiles.us")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "script").write_text(run(name, "cachekit --show-completion; true"))  # else the shell would be replaced
    return name


def run(shell: str, text: str) -> str:
    options = [] if shell == "fish" else ["-f"] if shell == "zsh" else ["--norc"]
    done = subprocess.run([shell, *options, "-c", text], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


def offered(shell: str, words: str) -> set[str]:
    printed = run(shell, ASK[shell].format(words=words))
    known = {"users", "user-tokens", "usurpers", "pages", "clear", "config", "--yes", "--config"}
    return {name for name in known if name in printed.replace('"', " ").replace("\\", "").split()}


def test_commands_options_and_regions_are_offered(shell: str) -> None:
    assert offered(shell, "cachekit cl") == {"clear"}
    assert offered(shell, "cachekit clear us") == {"users", "user-tokens"}
    assert offered(shell, "cachekit clear users pa") == {"pages"}
    assert offered(shell, "cachekit inspect us") == {"users", "user-tokens"}
    assert offered(shell, "cachekit invalidate --region pa") == {"pages"}
    assert offered(shell, "cachekit clear --config other.toml us") == {"usurpers"}


def test_a_wrong_configuration_offers_nothing_and_says_nothing(shell: str) -> None:
    assert offered(shell, "cachekit clear --config wrong.toml us") == set()


def test_it_is_installed_by_one_command(shell: str, tmp_path: Path) -> None:
    assert f"{shell} completion installed" in run(shell, "cachekit --install-completion; true")
    folders = {"bash": ".bash_completions", "zsh": ".zfunc", "fish": ".config/fish/completions"}
    (installed,) = (tmp_path / folders[shell]).iterdir()
    assert "_CACHEKIT_COMPLETE" in installed.read_text()
