"""Flask's timeouts as ours: 0 is for ever, None what the profile says."""

from typing import Any

from cachekit.config.units import parse_duration
from cachekit.errors import ConfigError
from cachekit.http.control import LONGEST


def ttl_of(timeout: Any) -> dict[str, Any]:
    """A timeout as our option."""
    if timeout is None:
        return {}
    return {"ttl": None if timeout == 0 and not isinstance(timeout, bool) else timeout}


def seconds_of(timeout: Any) -> float | None:
    """A timeout in seconds; None if it says nothing. Raises `ConfigError`."""
    if timeout is None:
        return None
    try:
        seconds = parse_duration(ttl_of(timeout)["ttl"])
    except ValueError as error:
        raise ConfigError(f"timeout = {timeout!r}: {error}") from None
    return float(LONGEST) if seconds is None else seconds
