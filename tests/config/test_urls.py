"""URLs of backends, and how they are shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachekit.config.urls import carries_password, check_url, redact_url

SECRET = "5ENT1NEL"


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost", "redis://localhost:6379/0", "rediss://u:p@host:6380/15", "valkey://[::1]:6379",
        "valkeys://host", "unix:///run/redis.sock", "unix://u:p@/run/redis.sock?db=1", "redis://:p%2Fw@host",
        "REDIS://host", "redis://host?protocol=3", "redis://",
    ],
)  # fmt: skip
def test_urls_of_one_server_are_accepted(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize("base", ["redis", "rediss", "valkey", "valkeys", "REDIS"])
@pytest.mark.parametrize(
    "rest",
    [
        "+sentinel://a/mymaster", "+sentinel://u:p@a:1,b:2,[::1]:3/my.master/3?sentinel_password=p",
        "+sentinel://a,b/mymaster/", "+cluster://a", "+cluster://:p,w@a:1,b:2,[::1]:3/", "+cluster://a,b/0",
    ],
)  # fmt: skip
def test_urls_of_several_servers_are_accepted(base: str, rest: str) -> None:
    assert check_url(base + rest) == base + rest


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:6379", "not a URL"),
        ("reddis://h", "did you mean redis://"),
        ("http://h", "no such scheme"),
        ("redis://a,b", "several hosts need redis.sentinel:// or redis.cluster://"),
        ("redis+sentinel://a,b", "service after the hosts is missing; write redis.sentinel://"),
        ("redis+sentinel://a,b/", "service after the hosts is missing"),
        (f"rediss+sentinel://a/m/{SECRET}", "after the name of the service is not a number; write rediss.sentinel://"),
        ("redis+sentinel://a,,b/m", "a host is missing"),
        ("redis+sentinel:///m", "a host is missing"),
        ("redis+sentinel://a:1,b:99999/m", "not valid"),
        ("redis+sentinel://a:1,b:0/m", "port 0"),
        (f"redis+sentinel://:{SECRET}/x@a,b/m", "not valid"),
        ("redis+cluster://a,b/1", "no other database than 0"),
        ("redis+cluster://", "a host is missing; write redis.cluster://"),
        ("redis+clusters://a", "did you mean redis.cluster://"),
        ("unix+cluster://a", "no such scheme"),
        ("unix://redis.sock", "path is missing"),
        (f"redis://:{SECRET}/x@host", "not valid"),
        (f"redis://:{SECRET}", "not valid"),
        (f"redis://:a#{SECRET}@host", "not valid|%23"),
        ("redis://:6379", "host is missing"),
        ("redis://host:99999", "not valid"),
        ("redis://host:0", "port 0"),
        (f"redis://host/{SECRET}", "not a number"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_repeating_it(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        check_url(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None  # the error of the library behind would quote the text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        (f"redis://:{SECRET}@localhost:6379/0", "redis://***@localhost:6379/0"),
        (f"redis://{SECRET}@localhost", "redis://***@localhost"),
        (f"unix://u:{SECRET}@/run/r.sock?password={SECRET}", "unix://***@/run/r.sock?***"),
        (f"redis://h/0?password=a@{SECRET}", "redis://***"),
        (f"redis://:a?{SECRET}@h", "redis://***"),
        (f"redis://:{SECRET}", "redis://***"),
        (f"redis://:a@{SECRET}@h", "redis://***@h"),
        (f":{SECRET}@host:6379", "***"),
        ("redis+cluster://a:1,[::1]:2,c", "redis+cluster://a:1,[::1]:2,c"),
        (f"rediss+sentinel://u:{SECRET}@a:1,b/m/0", "rediss+sentinel://***@a:1,b/m/0"),
        (f"redis+sentinel://a,b/m?sentinel_password={SECRET}", "redis+sentinel://a,b/m?***"),
        (f"redis+cluster://a,:{SECRET}", "redis+cluster://***"),
        (f"redis+cluster://u:{SECRET},x@a,b", "redis+cluster://***@a,b"),
        (SECRET, "***"),
    ],
)
def test_a_url_is_shown_without_credentials(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@given(st.text(st.characters(codec="ascii", exclude_characters="@"), min_size=0, max_size=10), st.booleans())
def test_no_password_survives_redaction(around: str, quoted: bool) -> None:
    url = f"redis://user:{around}{SECRET}{around}@host:6379/0"
    assert SECRET not in redact_url(url)


def test_a_password_is_seen_wherever_it_stands() -> None:
    assert carries_password("redis://:p@host")
    assert carries_password("redis://host?password=p")
    assert carries_password("redis+sentinel://a:1,b:2/m?sentinel_password=p")
    assert not carries_password("redis+sentinel://a:1,b:2/m")
    assert not carries_password("redis://user@host:6379/0")
