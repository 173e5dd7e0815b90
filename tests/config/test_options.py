"""Options of decorators and of `define()`."""

import subprocess
import sys
from datetime import timedelta

import pytest

from cachekit.config.fields import L1, PROFILE
from cachekit.config.options import apply_options, check_options
from cachekit.config.spec import RegionSpec
from cachekit.config.units import BOOL_HINT, DURATION_HINT
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


@pytest.mark.parametrize("option", ["encrypt", "sign", "fail_closed", "require_tenant", "rewrap"])
def test_what_is_on_or_off_is_nothing_else(option: str) -> None:
    with pytest.raises(ConfigError, match="not a boolean"):
        check_options({option: "perhaps"})


def test_every_option_changes_the_region() -> None:
    base = RegionSpec()
    changed = {
        "backend": "other", "ttl": "1s", "jitter": "1s", "negative_ttl": "never", "cache_none": False,
        "tags": ["a"], "serializer": "json", "compression": "zstd", "compress_above": 5, "counters": True,
        "max_value_bytes": 5, "on_unstorable": "raise", "isolation": "copy",
        "lease": "off", "lease_wait": 0, "stale_ttl": "1h", "stale_on_error": False, "stale_unless": "KeyError",
        "stale_throttle": 0, "stale_without_proof": 0, "swr": True, "early_refresh": "off", "soft_timeout": "auto",
        "hard_timeout": "30s", "outage": "fallback", "negative_exceptions": {KeyError: 5},
        "encrypt": True, "sign": True, "fail_closed": True, "require_tenant": True, "rewrap": False,
    }  # fmt: skip
    assert set(changed) == set(PROFILE)
    for option, value in changed.items():
        assert apply_options(base, check_options({option: value})) != base, option
    for option, value in {"mode": "off", "max_entries": 5, "max_bytes": 5, "ttl": 5, "policy": "lru"}.items():
        assert option in L1
        assert apply_options(base, check_options({"l1": {option: value}})) != base, option


class NotFound(LookupError):
    """An exception that is an answer."""


HERE = f"{__name__}.NotFound"
END = "must have an end; write a duration such as '250ms' or '30s'"
NO_TABLE = "not a table; write { 'package.module.NotFound' = '30s' }"
NO_STALE_TTL = "needs stale_ttl, the time for which a value may be given past its TTL"
NOT_ONE = "not an exception; write 'package.module.NotFound', or 'KeyError' for a built-in one"


@pytest.mark.parametrize(
    ("option", "value", "parsed"),
    [
        ("stale_ttl", "2h5m", 7500.0),
        ("stale_ttl", 0, 0.0),
        ("stale_throttle", timedelta(seconds=5), 5.0),
        ("stale_without_proof", "250ms", 0.25),
        ("early_refresh", "AUTO", "auto"),
        ("early_refresh", "1.5", 1.5),
        ("early_refresh", 2, 2.0),
        ("soft_timeout", " Auto ", "auto"),
        ("soft_timeout", "200ms", 0.2),
        ("soft_timeout", "never", None),
        ("hard_timeout", None, None),
        ("hard_timeout", "never", None),
        ("outage", "CALL", "call"),
        ("stale_unless", "KeyError, app.errors.NotFound", ("builtins.KeyError", "app.errors.NotFound")),
        ("stale_unless", ["builtins.KeyError", NotFound], ("builtins.KeyError", HERE)),
        ("stale_unless", (), ()),
        ("negative_exceptions", {KeyError: "30s", NotFound: 5}, (("builtins.KeyError", 30.0), (HERE, 5.0))),
        ("negative_exceptions", {"app.Errors.notFound": "1m"}, (("app.Errors.notFound", 60.0),)),
        ("negative_exceptions", {"app": {"errors": {"A": 1, "B": 2}}}, (("app.errors.A", 1.0), ("app.errors.B", 2.0))),
        ("negative_exceptions", {KeyError: 1, "KeyError": 2}, (("builtins.KeyError", 2.0),)),
        ("negative_exceptions", {}, ()),
    ],
)  # fmt: skip
def test_an_option_of_freshness_is_parsed_and_may_be_parsed_again(option: str, value: object, parsed: object) -> None:
    assert check_options({option: value}) == {option: parsed} == check_options({option: parsed})


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("stale_ttl", "never", f"stale_ttl = 'never': {END}"),
        ("stale_ttl", -1, f"stale_ttl = -1: not a duration; {DURATION_HINT}"),
        ("stale_throttle", "never", f"stale_throttle = 'never': {END}"),
        ("stale_without_proof", None, f"stale_without_proof = None: {END}"),
        ("stale_on_error", "perhaps", f"stale_on_error = 'perhaps': not a boolean; {BOOL_HINT}"),
        ("swr", "60s", f"swr = '60s': not a boolean; {BOOL_HINT}"),
        ("early_refresh", 0, "early_refresh = 0: must be 'auto', 'off' or a number above 0"),
        ("early_refresh", "inf", "early_refresh = 'inf': must be 'auto', 'off' or a number above 0"),
        ("early_refresh", True, "early_refresh = true: must be 'auto', 'off' or a number above 0"),
        ("early_refresh", "on", "early_refresh = 'on': must be 'auto', 'off' or a number above 0"),
        ("soft_timeout", 0, "soft_timeout = 0: 0 is ambiguous; write 'never' for no end, or a duration above 0"),
        ("soft_timeout", "atuo", f"soft_timeout = 'atuo': not a duration; {DURATION_HINT}"),
        ("hard_timeout", 0, "hard_timeout = 0: 0 is ambiguous; write 'never' for no end, or a duration above 0"),
        ("outage", "fallbak", "outage = 'fallbak': did you mean 'fallback'?"),
        ("outage", "raise", "outage = 'raise': must be one of 'call', 'fallback'"),
        ("stale_unless", KeyError,
         "stale_unless = <type>: not a list of exceptions; write ['package.module.NotFound']"),
        ("stale_unless", "NotFound", f"stale_unless = 'NotFound': {NOT_ONE}"),
        ("stale_unless", "app..NotFound", f"stale_unless = 'app..NotFound': {NOT_ONE}"),
        ("stale_unless", [KeyboardInterrupt], f"stale_unless = <list>: {NOT_ONE}"),
        ("stale_unless", ["print"], f"stale_unless = <list>: {NOT_ONE}"),
        ("negative_exceptions", [KeyError], f"negative_exceptions = <list>: {NO_TABLE}"),
        ("negative_exceptions", (KeyError,), f"negative_exceptions = <tuple>: {NO_TABLE}"),
        ("negative_exceptions", {SystemExit: 5}, f"negative_exceptions = <dict>: {NOT_ONE}"),
        ("negative_exceptions", {7: 5}, f"negative_exceptions = <dict>: {NOT_ONE}"),
        ("negative_exceptions", {"a.B": "5 parsecs"},
         f"negative_exceptions = <dict>: a.B: not a duration; {DURATION_HINT}"),
        ("negative_exceptions", {KeyError: "never"},
         "negative_exceptions = <dict>: builtins.KeyError: must have an end; write a duration such as '30s'"),
        ("negative_exceptions", {KeyError: 0},
         "negative_exceptions = <dict>: builtins.KeyError: 0 is ambiguous; "
         "write 'never' for no end, or a duration above 0"),
    ],
)  # fmt: skip
def test_a_wrong_option_of_freshness_says_what_to_write(option: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_options({option: value})
    assert str(caught.value) == message


def test_an_exception_that_cannot_be_found_by_its_name_is_not_remembered_but_may_be_an_answer() -> None:
    class Local(Exception):
        pass

    with pytest.raises(ConfigError, match=r"Local is defined inside of a function, where no process can find it again"):
        check_options({"negative_exceptions": {Local: 5}})
    parsed = check_options({"stale_unless": [Local]})
    assert parsed == check_options(parsed) == {"stale_unless": (f"{__name__}.{Local.__qualname__}",)}


def test_remembered_exceptions_merge_key_by_key() -> None:
    region = apply_options(RegionSpec(), check_options({"negative_exceptions": {KeyError: 5, NotFound: 6}}))
    region = apply_options(region, check_options({"negative_exceptions": {NotFound: 7, OSError: 8}}))
    assert region.freshness.negative_exceptions == (("builtins.KeyError", 5.0), (HERE, 7.0), ("builtins.OSError", 8.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"soft_timeout": "2s", "hard_timeout": "1s"}, "soft_timeout: longer than hard_timeout (1 s)"),
        ({"swr": True, "stale_ttl": 0}, f"swr: {NO_STALE_TTL}"),
        ({"stale_on_error": True, "stale_ttl": 0}, f"stale_on_error: {NO_STALE_TTL}"),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other_are_refused_at_once(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_options(options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "options",
    [
        {"soft_timeout": "1s", "hard_timeout": "1s"}, {"soft_timeout": "auto", "hard_timeout": "1ms"},
        {"soft_timeout": "2s"}, {"swr": True}, {"stale_on_error": True}, {"stale_on_error": False, "stale_ttl": 0},
    ],
)  # fmt: skip
def test_options_that_a_profile_may_complete_pass(options: dict[str, object]) -> None:
    check_options(options)


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
