"""The settings of a Redis backend are checked when it is opened, and a mistake is told with its place and no secret."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cachekit.backends.redis import open_redis
from cachekit.backends.redis.address import Address, Cluster, Sentinels, parse
from cachekit.backends.redis.transport import credentials
from cachekit.config.spec import BackendSpec, TLSSpec
from cachekit.errors import ConfigError


def place(url: str, **options: Any) -> Any:
    return parse(BackendSpec(name="main", url=url, url_origin="cachekit.toml:3", **options))


def parsed(url: str, **options: Any) -> Address:
    found = place(url, **options)
    assert isinstance(found, Address)
    return found


def refused(url: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        open_redis(BackendSpec(name="main", url=url, url_origin="cachekit.toml:3", **options))
    message = str(caught.value)
    assert message.startswith("[backends.main] ")
    assert "hush" not in message
    return message


@pytest.mark.parametrize(
    ("url", "kind", "host", "port", "db"),
    [
        ("redis://", "tcp", "localhost", 6379, 0),
        ("redis://cache.test", "tcp", "cache.test", 6379, 0),
        ("valkey://cache.test:7000/3", "tcp", "cache.test", 7000, 3),
        ("rediss://cache.test:7000/", "tls", "cache.test", 7000, 0),
        ("valkeys://cache.test", "tls", "cache.test", 6379, 0),
        ("redis://[::1]:7000/1", "tcp", "::1", 7000, 1),
        ("redis://cache.test?db=4", "tcp", "cache.test", 6379, 4),
        ("REDIS://cache.test", "tcp", "cache.test", 6379, 0),
    ],
)
def test_urls_say_where_the_server_is(url: str, kind: str, host: str, port: int, db: int) -> None:
    address = parsed(url)
    assert (address.kind, address.host, address.port, address.db) == (kind, host, port, db)
    assert (address.context is not None) is (kind == "tls")


def test_a_unix_socket_is_a_path_and_perhaps_a_database() -> None:
    address = parsed("unix:///run/a%20b.sock?db=2&password=pw")
    assert (address.kind, address.path, address.db, address.password) == ("unix", "/run/a b.sock", 2, "pw")
    assert str(address) == "/run/a b.sock"


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_a_url_of_sentinels_names_them_their_service_and_its_database(scheme: str) -> None:
    found = place(f"{scheme}+sentinel://u:pw@one,two:5000,[::1]/my%20master/3?sentinel_password=watch")
    assert isinstance(found, Sentinels)
    assert [str(address) for address in found.sentinels] == ["one:26379", "two:5000", "[::1]:26379"]
    assert found.service == "my master"
    assert [credentials(address) for address in found.sentinels] == [("watch",)] * 3
    primary = found.at("three", 7000)
    assert (str(primary), primary.db, primary.leads, credentials(primary)) == ("three:7000", 3, True, ("u", "pw"))
    secure = scheme in ("rediss", "valkeys")
    for address in (primary, *found.sentinels):
        assert (address.kind == "tls", address.context is not None) == (secure, secure)
    assert "pw" not in f"{found} {found!r}"
    assert "watch" not in f"{found} {found!r}"


def test_sentinels_have_no_credentials_but_their_own() -> None:
    found = place("redis+sentinel://:pw@one/m")
    assert (found.service, found.primary.db) == ("m", 0)
    assert credentials(found.sentinels[0]) == ()
    found = place("redis+sentinel://one/m?sentinel_username=w&sentinel_password=watch")
    assert credentials(found.sentinels[0]) == ("w", "watch")
    assert credentials(found.primary) == ()


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_a_url_of_a_cluster_names_some_of_its_nodes(scheme: str) -> None:
    found = place(f"{scheme}+cluster://:pw@one,two:7001,[::1]:7002/0")
    assert isinstance(found, Cluster)
    assert [str(address) for address in found.nodes] == ["one:6379", "two:7001", "[::1]:7002"]
    assert {(address.db, address.leads, credentials(address)) for address in found.nodes} == {(0, False, ("pw",))}
    assert {address.kind for address in found.nodes} == {"tls" if scheme in ("rediss", "valkeys") else "tcp"}
    assert str(found) == "one:6379, two:7001, [::1]:7002"
    assert "pw" not in repr(found)


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("redis://h", {}, ()),
        ("redis://:p%40ss@h", {}, ("p@ss",)),
        ("redis://user:pw@h", {}, ("user", "pw")),
        ("redis://user@h", {}, ("user", "")),
        ("redis://user:pw@h", {"username": "other", "password": "hush"}, ("other", "hush")),
        ("redis://h?password=hush", {}, ("hush",)),
    ],
)
def test_credentials_come_from_the_url_and_the_settings_win(
    url: str, options: dict[str, str], words: tuple[str, ...]
) -> None:
    assert credentials(parsed(url, **options)) == words


def test_a_password_is_in_no_text() -> None:
    address = parsed("redis://user:hush@h")
    assert "hush" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("http://:hush@h", "no such scheme"),
        ("h:6379", "not a URL"),
        ("", "not a URL"),
        ("redis://:hush@h:port", "cachekit.toml:3"),
        ("redis://h:99999", "cachekit.toml:3"),
        ("redis://:hush@h/first", "is not a number"),
        ("redis://:hush@h?db=x", "not a number: 'x'"),
        ("redis://:hush@h?socket_timeout=5", "'socket_timeout'; known are db"),
        ("unix://", "path is missing"),
        ("redis://a,b", "several hosts"),
        ("redis+sentinel://:hush@a,b", "service after the hosts is missing"),
        ("redis+sentinel://a/m?sentinel_username=u", "without sentinel_password"),
        ("redis+sentinel://a/m?db=x", "not a number: 'x'"),
        ("redis+cluster://:hush@a,b/5", "database than 0"),
        ("redis+cluster://a?db=5", "database than 0"),
        ("redis+cluster://a?sentinel_password=hush", "unknown parameter"),
    ],
)
def test_a_wrong_url_is_told_with_its_place(url: str, part: str) -> None:
    message = refused(url)
    assert "url (cachekit.toml:3)" in message
    assert part in message


@pytest.mark.parametrize("url", ["redis://h", "redis+cluster://h", "valkey+sentinel://h/m"])
def test_tls_settings_without_a_tls_url_are_told(url: str) -> None:
    assert "rediss://" in refused(url, tls=TLSSpec(ca="/etc/ssl/ca.pem"))


@pytest.mark.parametrize("key", ["ca", "cert", "key"])
def test_a_certificate_that_is_not_there_is_told(key: str) -> None:
    assert f"tls.{key}: there is no file '/not/there.pem'" in refused(
        "rediss://h", tls=TLSSpec(**{key: "/not/there.pem"})
    )


def test_a_file_that_is_no_certificate_is_told(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    refused("rediss://h", tls=TLSSpec(ca=str(tmp_path / "ca.pem")))
    assert "tls.key" in refused("rediss://h", tls=TLSSpec(key=str(tmp_path / "ca.pem")))


def test_the_name_of_the_server_is_checked_unless_told_otherwise() -> None:
    for wanted in (True, False):
        context = parsed("rediss://h", tls=TLSSpec(check_hostname=wanted)).context
        assert context is not None
        assert context.check_hostname is wanted
        assert context.verify_mode.name == "CERT_REQUIRED"


class Provider:
    def get_credentials(self) -> tuple[str, str]:
        return "rotating", "token"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("credentials_of_a_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize("offered", [Provider, Provider(), lambda: Provider()], ids=["class", "object", "function"])
@pytest.mark.parametrize("separator", [".", ":"])
def test_a_credential_provider_is_a_class_an_object_or_a_function(
    module: ModuleType, offered: Any, separator: str
) -> None:
    module.offered = offered  # type: ignore[attr-defined]
    address = parsed("redis://h", credential_provider=f"credentials_of_a_test{separator}offered")
    assert credentials(address) == ("rotating", "token")


def test_a_credential_provider_that_cannot_be_used_is_told(module: ModuleType) -> None:
    module.number = lambda: 5  # type: ignore[attr-defined]
    for path in ("credentials_of_a_test.absent", "no_such_module.x", "nodot", "credentials_of_a_test.number"):
        assert path in refused("redis://h", credential_provider=path)
    assert "either" in refused("redis://:hush@h", credential_provider="credentials_of_a_test.number")
