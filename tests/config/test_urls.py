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


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:6379", "not a URL"),
        ("reddis://h", "did you mean redis://"),
        ("http://h", "no such scheme"),
        ("redis+sentinel://a,b/mymaster", "not yet available in this version"),
        ("rediss+cluster://h", "not yet available in this version"),
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
    assert not carries_password("redis://user@host:6379/0")
