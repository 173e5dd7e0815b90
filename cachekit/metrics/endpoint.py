"""The metrics page as a framework-free answer: the integrations and `serve` turn it into their own response."""

from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from cachekit.metrics.access import Access
from cachekit.metrics.prometheus import exposition

if TYPE_CHECKING:
    from cachekit.service import Service


class Answer(NamedTuple):
    """Status, headers and body of an HTTP response."""

    status: HTTPStatus
    headers: dict[str, str]
    body: bytes


_REFUSED = {
    HTTPStatus.UNAUTHORIZED: ({"WWW-Authenticate": 'Bearer realm="metrics"'}, b"metrics.token is required\n"),
    HTTPStatus.FORBIDDEN: ({}, b"this client is in no network of metrics.allow\n"),
}


def respond(
    service: "Service",
    *,
    accept: str | None = None,
    authorization: str | None = None,
    address: str | None = None,
    access: Access | None = None,
) -> Answer:
    """Answer a scrape of ``service``.

    Args:
        accept: The request's Accept header; chooses between OpenMetrics and the text format.
        authorization: The request's Authorization header.
        address: The client's IP address as the server knows it.
        access: Who may read; without it, what the service's configuration says.
    """
    rule = Access.of(service.spec.metrics) if access is None else access
    status = rule.decide(address, authorization)
    if status is not HTTPStatus.OK:
        headers, body = _REFUSED[status]
        return Answer(status, {"Content-Type": "text/plain; charset=utf-8", **headers}, body)
    content_type, body = exposition(service, accept)
    return Answer(status, {"Content-Type": content_type, "Cache-Control": "no-store"}, body)
