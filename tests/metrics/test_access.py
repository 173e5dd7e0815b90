import pytest

from cachekit.config.spec import MetricsSpec
from cachekit.errors import ConfigError
from cachekit.metrics.access import Access


@pytest.mark.parametrize(
    ("token", "allow", "address", "authorization", "status"),
    [
        (None, (), "8.8.8.8", None, 200),
        (None, ("10.0.0.0/8",), "10.1.2.3", None, 200),
        (None, ("10.0.0.0/8",), "8.8.8.8", None, 403),
        (None, ("10.0.0.0/8",), "8.8.8.8", "Bearer anything", 403),
        ("s3cret", (), "10.1.2.3", None, 401),
        ("s3cret", (), "10.1.2.3", "Bearer s3cret", 200),
        ("s3cret", (), "10.1.2.3", "bearer   s3cret ", 200),
        ("s3cret", (), "10.1.2.3", "Bearer s3cre", 401),
        ("s3cret", (), "10.1.2.3", "Bearer s3crett", 401),
        ("s3cret", (), "10.1.2.3", "Basic s3cret", 401),
        ("s3cret", (), "10.1.2.3", "s3cret", 401),
        ("s3cret", (), "10.1.2.3", "Bearer ", 401),
        ("s3cret", (), "10.1.2.3", "", 401),
        ("s3cret", ("10.0.0.0/8",), "10.1.2.3", None, 200),
        ("s3cret", ("10.0.0.0/8",), "8.8.8.8", None, 401),
        ("s3cret", ("10.0.0.0/8",), "8.8.8.8", "Bearer s3cret", 200),
        (None, ("10.0.0.0/8", "127.0.0.1"), "127.0.0.1", None, 200),
        (None, ("10.0.0.0/8",), "::ffff:10.1.2.3", None, 200),
        (None, ("fd00::/8",), "fd00::17", None, 200),
        (None, ("10.0.0.0/8",), "fd00::17", None, 403),
        (None, ("0.0.0.0/0",), "testclient", None, 403),
        (None, ("0.0.0.0/0",), None, None, 403),
        (None, ("10.0.0.7/8",), "10.1.2.3", None, 200),  # host bits set: a common way to write it
    ],
)
def test_token_and_networks_decide_together(token, allow, address, authorization, status):
    assert Access(token, allow).decide(address, authorization) == status


def test_a_token_beyond_ascii_is_compared_as_the_bytes_that_travel():
    header = "Bearer schlüssel".encode().decode("latin-1")
    assert Access("schlüssel").decide(None, header) == 200
    assert Access("schlüssel").decide(None, "Bearer 鍵") == 401


def test_the_rule_comes_from_the_configuration():
    access = Access.of(MetricsSpec(token="s3cret", allow=("127.0.0.0/8",)))
    assert access.decide("127.0.0.1", None) == 200
    assert access.decide("8.8.8.8", None) == 401


def test_a_network_that_is_none_stops_with_a_message():
    with pytest.raises(ConfigError, match=r"metrics\.allow: 'localhost' is not a network"):
        Access(None, ["localhost"])
