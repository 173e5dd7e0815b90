"""What the integrations are given by their users about whole responses, checked."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from cachekit.config.units import parse_duration
from cachekit.engine.keys import check_tag
from cachekit.errors import ConfigError
from cachekit.http.control import LONGEST
from cachekit.http.policy import NEVER, Rules
from cachekit.options import tag_names

if TYPE_CHECKING:
    from cachekit.config.units import Duration

Checked: TypeAlias = tuple[str, ...] | Callable[[Any], Iterable[str]]  # tags


def rules_of(
    *,
    ttl: "Duration | None" = None,
    vary: Iterable[str] = (),
    statuses: "Mapping[int, Duration] | None" = None,
    client_ttl: "Duration" = 0,
    per_user: object = None,
) -> Rules:
    """The rules, with times in seconds. Raises `ConfigError`."""
    if isinstance(vary, str) or not all(isinstance(name, str) for name in vary):
        raise ConfigError(f"vary = {vary!r}: not names of request fields; write vary=['accept-language']")
    return Rules(
        None if ttl is None else _seconds("ttl", ttl),
        tuple(sorted({name.lower() for name in vary})),
        {_status(status): _seconds(f"statuses[{status}]", life) for status, life in (statuses or {}).items()},
        client_ttl=0.0 if client_ttl == 0 else _seconds("client_ttl", client_ttl),
        per_user=per_user is not None,
    )


def _seconds(name: str, value: Any) -> float:
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise ConfigError(f"{name} = {value!r}: {error}") from None
    return float(LONGEST) if seconds is None else seconds


def _status(status: Any) -> int:
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599 or status in NEVER:
        raise ConfigError(f"statuses = {status!r}: not a status whose response can be kept; write {{404: '30s'}}")
    return status


def checked_tags(tags: "Iterable[str] | Callable[[Any], Iterable[str]]") -> Checked:
    """Tags that are the same for all requests, checked; a callable as it is."""
    return tags if callable(tags) else tuple(map(check_tag, tag_names(tags)))


def tags_of(tags: Checked, request: Any) -> tuple[str, ...]:
    """The tags for a request."""
    return tuple(map(check_tag, tag_names(tags(request)))) if callable(tags) else tags


def checked_user(user: Any) -> str | None:
    """What ``per_user=`` gave, if it can be one; an empty name is nobody's. Raises TypeError."""
    if user is not None and not isinstance(user, str):
        raise TypeError(f"per_user= must give a str or None, not {type(user).__name__}: write str(...)")
    return user or None
