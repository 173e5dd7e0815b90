"""Options of decorators and of `define()`."""

import subprocess
import sys
from datetime import timedelta

import pytest

from cachekit.config.fields import L1, PROFILE, UNBUILT
from cachekit.config.options import apply_options, check_options
from cachekit.config.spec import RegionSpec
from cachekit.errors import ConfigError


def test_options_come_back_parsed() -> None:
    parsed = check_options({
        "ttl": timedelta(minutes=5), "jitter": "20%", "tags": ["a"], "backend": None, "max_value_bytes": "1MiB",
        "l1": {"ttl": "5s", "max_entries": 10},
    })  # fmt: skip
    assert parsed == {
        "ttl": 300.0, "jitter": (0.2, True), "tags": ("a",), "backend": "none", "max_value_bytes": 2**20,
        "l1": {"ttl": 5.0, "max_entries": 10},
    }  # fmt: skip


def test_parsed_options_can_be_checked_again() -> None:
    parsed = check_options({"ttl": "5m", "jitter": "5s", "tags": ["a"], "l1": {"max_bytes": "1KiB"}})
    assert check_options(parsed) == parsed


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("tll", "did you mean 'ttl'?"),
        ("expire", "did you mean 'ttl'?"),
        ("timeout", "did you mean 'ttl'?"),
        ("maxsize", "did you mean 'max_entries'?"),
        ("noself", 'did you mean ignore=("self",)?'),
        ("profle", "did you mean 'profile'?"),
    ],
)
def test_an_unknown_option_is_a_type_error_that_names_the_right_one(option: str, hint: str) -> None:
    with pytest.raises(TypeError) as caught:
        check_options({option: 5})
    assert str(caught.value) == f"unknown option '{option}'; {hint}"


def test_an_option_that_resembles_nothing_is_a_plain_type_error() -> None:
    with pytest.raises(TypeError, match=r"^unknown option 'zzzzzz'$"):
        check_options({"zzzzzz": 1})


def test_an_unknown_key_of_l1_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"unknown option 'l1.max_entires'; did you mean 'max_entries'\?"):
        check_options({"l1": {"max_entires": 5}})


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("ttl", 0, "ttl = 0: 0 is ambiguous"),
        ("ttl", -1, "ttl = -1: not a duration"),
        ("ttl", True, "ttl = true: not a duration"),
        ("ttl", "5 parsecs", "ttl = '5 parsecs': not a duration"),
        ("jitter", "120%", "more than 100%"),
        ("jitter", "never", "neither a share nor a duration"),
        ("isolation", "cpy", "did you mean 'copy'?"),
        ("tags", "user:1", "not a list; write tags=['user:1']"),
        ("l1", "off", "l1 = 'off': not a table"),
        ("l1", {"max_entries": 0}, "l1.max_entries = 0: not a whole number from 1"),
        ("l1", {"policy": "lfu"}, "must be one of 's3fifo', 'lru'|did you mean"),
        ("backend", "no:such", "not a name"),
    ],
)
def test_a_bad_value_is_a_config_error(option: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_options({option: value})
    assert any(part in str(caught.value) for part in message.split("|"))
    assert isinstance(caught.value, ValueError)


ON = {
    "stale_ttl": "1h", "stale_on_error": True, "stale_throttle": "30s", "swr": True, "early_refresh": "auto",
    "soft_timeout": "1s", "hard_timeout": "30s", "outage": "fallback", "negative_exceptions": {"a.B": "5s"},
    "stale_without_proof": "10s", "serializer": "pickle", "encrypt": True, "sign": True, "fail_closed": True,
    "require_tenant": True, "rewrap": True,
}  # fmt: skip
OFF = {
    "stale_ttl": 0, "stale_on_error": False, "stale_throttle": 0, "swr": False, "early_refresh": "off",
    "soft_timeout": "never", "hard_timeout": None, "outage": "call", "negative_exceptions": {},
    "stale_without_proof": 0, "serializer": "msgpack", "encrypt": False, "sign": False, "fail_closed": False,
    "require_tenant": False, "rewrap": False,
}  # fmt: skip


def test_every_feature_of_a_later_version_is_refused_below() -> None:
    assert set(ON) == set(OFF) == set(UNBUILT)


@pytest.mark.parametrize("option", ON)
def test_a_feature_of_a_later_version_is_refused_unless_it_is_off(option: str) -> None:
    with pytest.raises(ConfigError, match="not yet available in this version"):
        check_options({option: ON[option]})
    assert apply_options(RegionSpec(), check_options({option: OFF[option]})) == RegionSpec()


def test_a_feature_of_a_later_version_is_first_checked_for_its_type() -> None:
    with pytest.raises(ConfigError, match="not a duration"):
        check_options({"hard_timeout": "5 parsecs"})
    with pytest.raises(ConfigError, match="not a boolean"):
        check_options({"encrypt": "perhaps"})


def test_every_option_changes_the_region() -> None:
    base = RegionSpec()
    changed = {
        "backend": "other", "ttl": "1s", "jitter": "1s", "negative_ttl": "never", "cache_none": False,
        "tags": ["a"], "compression": "zstd", "compress_above": 5, "counters": True,
        "max_value_bytes": 5, "on_unstorable": "raise", "isolation": "copy",
        "lease": "off", "lease_wait": 0,
    }  # fmt: skip
    assert set(changed) == set(PROFILE) - set(UNBUILT)
    for option, value in changed.items():
        assert apply_options(base, check_options({option: value})) != base, option
    for option, value in {"mode": "off", "max_entries": 5, "max_bytes": 5, "ttl": 5, "policy": "lru"}.items():
        assert option in L1
        assert apply_options(base, check_options({"l1": {option: value}})) != base, option


def test_a_negative_ttl_of_never_differs_from_none_given() -> None:
    region = apply_options(RegionSpec(), check_options({"negative_ttl": "never"}))
    assert (region.negative_ttl, region.negative_ttl_set) == (None, True)


def test_a_nested_table_changes_only_its_own_keys() -> None:
    region = apply_options(RegionSpec(), check_options({"l1": {"max_entries": 5}}))
    assert apply_options(region, check_options({"l1": {"ttl": "5s"}})).l1.max_entries == 5


def test_a_value_in_a_message_is_short_and_without_passwords() -> None:
    for value in ("redis://:5ENT1NEL@host", "5ENT1NEL@", {"x": "5ENT1NEL"}, ["5ENT1NEL"], "y" * 100 + "5ENT1NEL"):
        with pytest.raises(ConfigError) as caught:
            check_options({"ttl": value})
        assert "5ENT1NEL" not in str(caught.value)


def test_options_are_checked_by_the_standard_library_alone() -> None:
    code = (
        "import sys, cachekit.config.options as o; o.check_options({'ttl': '5m', 'l1': {'ttl': 5}});"
        "sys.exit(any(m in sys.modules for m in ('pydantic', 'redis', 'asyncio', 'tomllib', 'importlib.metadata')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
