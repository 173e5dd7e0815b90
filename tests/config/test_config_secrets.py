"""No secret appears anywhere: messages, tracebacks, reprs, logs, `config show`."""

import json
import logging
import traceback
from pathlib import Path

import pytest

from cachekit.cli.config import rows
from cachekit.config.model import Settings
from cachekit.config.settings import load, load_tree
from cachekit.errors import ConfigError

SECRET = "5ENT1NEL"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project directory, which is also the working directory."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "secret").write_text(SECRET + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


ENVIRON = {
    "REDIS_URL": f"redis://user:{SECRET}@h:6379/0?password={SECRET}",
    "CACHEKIT_BACKENDS__DEFAULT__PASSWORD": SECRET,
    "CACHEKIT_BACKENDS__FILED__PASSWORD_FILE": "secret",
    "CACHEKIT_METRICS__TOKEN": SECRET,
}
FILE = f'[backends.filed]\nurl = "redis://:{SECRET}@h"\noptions = {{ token = "{SECRET}" }}\n'


def everything_about(error: BaseException) -> str:
    seen, text = error, ""
    text += "".join(traceback.format_exception(error)) + repr(error)
    while seen is not None:
        text += repr(seen.args) + str(vars(seen))
        seen = seen.__cause__ or seen.__context__  # type: ignore[assignment]
    return text


def test_secrets_arrive_and_are_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    Path("cachekit.toml").write_text(FILE)
    loaded = load_tree(environ=ENVIRON)
    spec = load(environ=ENVIRON)
    assert spec.backends["default"].password == spec.backends["filed"].password == spec.metrics.token == SECRET
    assert spec.backends["filed"].url == f"redis://:{SECRET}@h"
    assert SECRET not in caplog.text
    assert SECRET not in repr(loaded.warnings)
    assert SECRET not in repr(list(rows(loaded)))
    assert SECRET not in repr(loaded.origins)
    assert SECRET not in repr(spec.metrics) + repr(spec)
    assert SECRET not in repr(Settings(tree=loaded.tree.values))
    assert SECRET not in repr(loaded)


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        (f'[backends.default]\npassword = "{SECRET}"\n', {}),
        (f'[backends.default]\npassword = {{ x = "{SECRET}" }}\n', {}),
        (f'[backends.default]\npassword_file = "{SECRET}"\n', {}),
        (f'[metrics]\ntoken = "{SECRET}"\n', {}),
        (f'master_key = "{SECRET}"\n', {}),
        (f'previous_keys = ["{SECRET}"]\n', {}),
        (f'[backends.default]\npasword = "{SECRET}"\n', {}),
        (f'[backends.default]\nurl = ["redis://:{SECRET}@h"]\n', {}),
        (f'[backends.default]\nurl = "redis://:{SECRET}"\n', {}),
        (f'[backends.default]\nurl = "redis:/:{SECRET}@h"\n', {}),
        (f'[backends.default]\nurl = "rediss+sentinel://:{SECRET}@h"\n', {}),
        (f'[backends.default]\nurl_env = ["redis://:{SECRET}@h"]\n', {}),
        (f'[backends.default]\nbreaker = "redis://:{SECRET}@h"\n', {}),
        (f'backends = "redis://:{SECRET}@h"\n', {}),
        (f'[backends]\ndefault = "redis://:{SECRET}@h"\n', {}),
        (f'namespace = "redis://:{SECRET}@h"\n', {}),
        (f'[profiles.a]\nbackend = "redis://:{SECRET}@h"\n', {}),
        (f'[profiles.a]\nextends = "redis://:{SECRET}@h"\n', {}),
        (f'[backends.default]\nusername = ["{SECRET}"]\n', {}),
        (f'[backends.default]\npassword = "{SECRET}\n', {}),
        ("", {"CACHEKIT_MASTER_KEY": SECRET}),
        ("", {"CACHEKIT_MASTER_KEY_FILE": SECRET}),
        ("", {"CACHEKIT_METRICS__TOKEN_FILE": SECRET}),
        ("", {"CACHEKIT_METRICS__TOKEN_FILE": "secret", "CACHEKIT_METRICS__TOKEN": SECRET}),
        ("", {"CACHEKIT_PASSWORD": SECRET}),
        ("", {"CACHEKIT_BACKENDS__X__PASSWORD": SECRET}),
        ("", {"CACHEKIT_BACKENDS": SECRET}),
        ("", {"CACHEKIT_BACKENDS__DEFAULT__PASSWORD__X": SECRET}),
        ("", {"REDIS_URL": f"redis://:{SECRET}/@h"}),
        ("", {"REDIS_URL": SECRET}),
        ("", {"REDIS_URL": f"http://:{SECRET}@h"}),
        ("", {**ENVIRON, "CACHEKIT_NAMESPACE": "a:b"}),
        ("", {**ENVIRON, "CACHEKIT_BACKENDS__DEFAULT__BUDGET": "x"}),
    ],
)
def test_no_problem_repeats_a_secret(text: str, environ: dict[str, str]) -> None:
    Path("cachekit.toml").write_text(text)
    if "CACHEKIT_BACKENDS__FILED__PASSWORD_FILE" in environ:
        environ = {**environ, "CACHEKIT_BACKENDS__FILED__URL": "redis://h"}
    with pytest.raises(ConfigError) as caught:
        load(environ=environ)
    assert SECRET not in everything_about(caught.value)


@pytest.mark.parametrize("key", ["password", "password_file"])
def test_a_secret_in_a_file_is_refused_with_the_variable_to_use(key: str) -> None:
    Path("cachekit.toml").write_text(f'\n[backends.my-redis]\n{key} = "x"\n')
    with pytest.raises(ConfigError) as caught:
        load(environ={})
    assert str(caught.value) == (
        f"cachekit.toml:3: backends.my-redis.{key}: a secret does not belong in a file; "
        "set CACHEKIT_BACKENDS__MY_REDIS__PASSWORD or CACHEKIT_BACKENDS__MY_REDIS__PASSWORD_FILE"
    )


def test_a_secret_from_code_is_accepted() -> None:
    settings = {"backends": {"default": {"url": "redis://h", "password": SECRET}}}
    assert load([], environ={}, settings=settings).backends["default"].password == SECRET


def test_a_secret_of_the_wrong_type_is_refused_without_its_value() -> None:
    settings = {"backends": {"default": {"password": 51571}}}
    with pytest.raises(ConfigError) as caught:
        load([], environ={}, settings=settings)
    assert str(caught.value) == "configure(): backends.default.password: not a text, or an empty one"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_an_unusable_secret_file_is_a_problem(content: bytes) -> None:
    Path("secret").write_bytes(content)
    with pytest.raises(ConfigError, match="env CACHEKIT_METRICS__TOKEN_FILE: the file that it names"):
        load([], environ={"CACHEKIT_METRICS__TOKEN_FILE": "secret"})


def test_the_shown_values_are_json_without_secrets() -> None:
    Path("cachekit.toml").write_text(FILE)
    shown = json.dumps([(".".join(keys), value) for keys, value in rows(load_tree(environ=ENVIRON))])
    assert "redis://***@h:6379/0?***" in shown
    assert SECRET not in shown
