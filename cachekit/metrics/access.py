"""Who may read the metrics: a bearer token, networks that need none, or everybody."""

import hmac
from collections.abc import Iterable
from http import HTTPStatus
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from cachekit.config.spec import MetricsSpec
from cachekit.errors import ConfigError


class Access:
    """The rule made of ``metrics.token`` and ``metrics.allow``. Raises `ConfigError` for a network that is none.

    A client in an allowed network needs no token. Everybody else needs the token; with networks and no token they are
    refused, and with neither nobody is.
    """

    def __init__(self, token: str | None = None, allow: Iterable[str] = ()) -> None:
        self._token = token.encode() if token else None
        self._networks = [_network(text) for text in allow]

    @classmethod
    def of(cls, spec: MetricsSpec) -> "Access":
        """The rule of a configuration."""
        return cls(spec.token, spec.allow)

    def decide(self, address: str | None, authorization: str | None) -> HTTPStatus:
        """OK, UNAUTHORIZED (a token would help) or FORBIDDEN (only another network would).

        Args:
            address: The client's IP address as the server knows it, or None.
            authorization: The request's Authorization header, or None.
        """
        if self._networks and self._is_allowed(address):
            return HTTPStatus.OK
        if self._token is not None:
            return HTTPStatus.OK if self._is_token(authorization or "") else HTTPStatus.UNAUTHORIZED
        return HTTPStatus.FORBIDDEN if self._networks else HTTPStatus.OK

    def _is_allowed(self, address: str | None) -> bool:
        client = _address(address or "")
        return client is not None and any(client in network for network in self._networks)

    def _is_token(self, authorization: str) -> bool:
        scheme, _, credentials = authorization.strip().partition(" ")
        # Servers hand header bytes over as Latin-1; going back gives the bytes the client sent.
        given = credentials.strip().encode("latin-1", "replace")
        return scheme.lower() == "bearer" and hmac.compare_digest(given, self._token or b"")


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigError(
            f"metrics.allow: {text!r} is not a network; write an address or a range such as '10.0.0.0/8'"
        ) from error


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address, an IPv4 client of an IPv6 socket as IPv4; None for a Unix socket or a test client."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
