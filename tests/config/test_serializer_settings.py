"""Which serializer a profile names, and what it needs for that: told at start-up, with the place."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachekit import cache, configure, define, process
from cachekit.config.options import apply_options, check_options, unfit_codec
from cachekit.config.settings import load
from cachekit.config.spec import CodecSpec, RegionSpec, built_in_regions
from cachekit.errors import ConfigError
from cachekit.process import replace_default

NEEDS = (
    "needs sign = true or encrypt = true: whoever can write to the server could run code in every process that reads"
)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)


def install(directory: Path) -> Path:
    metadata = directory / "of_others-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: of-others\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[cachekit.serializers]\ntheirs = of_others:Theirs\n")
    return directory


def problems(text: str, environ: dict[str, str] | None = None, **kinds: Any) -> list[str]:
    Path("cachekit.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(environ=environ or {}, **kinds)
    return str(caught.value).splitlines()


def test_a_profile_names_its_serializer() -> None:
    Path("cachekit.toml").write_text("[profiles.users]\nserializer = 'json'\n[profiles.rates]\nextends = 'users'\n")
    regions = load(environ={"CACHEKIT_PROFILES__RATES__SERIALIZER": "msgpack"}).regions
    assert [regions[name].codec.serializer for name in ("default", "users", "rates")] == ["msgpack", "json", "msgpack"]
    assert apply_options(RegionSpec(), check_options({"serializer": "json"})).codec == CodecSpec(serializer="json")


def test_pickle_without_a_proof_is_told_with_file_and_line_once() -> None:
    text = "[profiles.users]\nttl = 5\nserializer = 'pickle'\n[profiles.rates]\nextends = 'users'\n"
    assert problems(text) == [f"cachekit.toml:3: profiles.users.serializer: {NEEDS}"]
    variable = "CACHEKIT_PROFILES__USERS__SERIALIZER"
    assert problems("[profiles.users]\n", {variable: "pickle"}) == [
        f"env {variable}: profiles.users.serializer: {NEEDS}"
    ]
    (line,) = problems("", definitions={"users": {"serializer": "pickle"}})
    assert line == f"define('users'): profiles.users.serializer: {NEEDS}"


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No default service, no definitions."""
    before = replace_default(None)
    monkeypatch.setattr(process, "_configured", None)
    monkeypatch.setattr(process, "_definitions", {})
    yield
    replace_default(before)


@pytest.mark.usefixtures("untouched")
def test_pickle_without_a_proof_is_told_in_code() -> None:
    configure()
    with pytest.raises(ConfigError, match=f"^define\\('late_pickles'\\): serializer: {NEEDS}$"):
        define("late_pickles", serializer="pickle")

    @cache(serializer="pickle")
    def load_it(x: int) -> int:
        return x

    with pytest.raises(ConfigError, match=f"load_it: serializer: {NEEDS}$"):
        load_it(1)


def test_a_proof_is_enough() -> None:
    assert list(unfit_codec(CodecSpec(serializer="pickle", sign=True))) == []
    assert list(unfit_codec(CodecSpec(serializer="pickle", encrypt=True))) == []
    assert all(list(unfit_codec(region.codec)) == [] for region in built_in_regions().values())


def test_a_serializer_that_is_not_installed_is_told_with_the_nearest_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, what = "cachekit.toml:2: profiles.users.serializer: ", "no such serializer is installed; "
    text = "[profiles.users]\nserializer = '{}'\n"
    assert problems(text.format("jsn")) == [f"{place}{what}did you mean 'json'?"]
    assert problems(text.format("theirs")) == [f"{place}{what}known are msgpack, json, pickle"]
    (line,) = problems(text.format("a b"))
    assert line.startswith("cachekit.toml:2: profiles.users.serializer = 'a b': ")
    monkeypatch.syspath_prepend(install(tmp_path))
    Path("cachekit.toml").write_text(text.format("theirs"))
    assert load(environ={}).regions["users"].codec.serializer == "theirs"  # and nothing of it was loaded
    assert problems(text.format("theyrs")) == [f"{place}{what}did you mean 'theirs'?"]
