"""The URL of a backend tells its type; a type that says otherwise, or a URL that is none, is told with its place."""

from pathlib import Path

import pytest

from cachekit.config.settings import load_tree
from cachekit.errors import ConfigError


def loaded(tmp_path: Path, text: str, **environ: str) -> dict[str, str]:
    file = tmp_path / "cachekit.toml"
    file.write_text(text)
    spec = load_tree([file], environ=environ).spec
    return {name: backend.type for name, backend in spec.backends.items()}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('url = "file:///var/cache/app/cache.db"', "file"),
        ('url = "memcached://host"', "memcached"),
        ('url = "MEMCACHED://host:11212"', "memcached"),
        ('url = "memory://"', "memory"),
        ('type = "memory"', "memory"),
        ('type = "file"\nurl = "file:///x.db"', "file"),
        ('url = "redis://host"', "redis"),
        ('url = "unix:///run/redis.sock"', "redis"),
    ],
)
def test_the_url_tells_the_type(tmp_path: Path, text: str, kind: str) -> None:
    assert loaded(tmp_path, f"[backends.b]\n{text}") == {"b": kind}


def test_the_variable_of_a_host_may_name_any_of_them(tmp_path: Path) -> None:
    assert loaded(tmp_path, "", REDIS_URL="file:///x.db") == {"default": "file"}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('type = "redis"\nurl = "file:///x.db"', "is the URL of a backend of type 'file' and not 'redis'"),
        ('type = "file"\nurl = "redis://h"', "is the URL of a backend of type 'redis' and not 'file'"),
        ('url = "file://x.db"', "the path of a file is missing"),
        ('url = "memcached://a,b"', "write one host"),
        ('url = "memcache://h"', "did you mean memcached://?"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(ConfigError, match=r"cachekit\.toml:\d: backends\.b\.url") as caught:
        loaded(tmp_path, f"[backends.b]\n{text}")
    assert part in str(caught.value)


def test_without_a_url_those_that_need_one_are_not_used(tmp_path: Path) -> None:
    assert loaded(tmp_path, '[backends.b]\ntype = "file"') == {}
