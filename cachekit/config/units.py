"""Durations, sizes, booleans and lists as people write them, and the nearest name to a misspelt one."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TypeAlias

Duration: TypeAlias = int | float | str | timedelta
"""Seconds, a text such as ``"30s"``, ``"2h5m"``, ``"250ms"``, ``"1d"``, ``"never"``, or a `timedelta`."""

LONGEST = 100 * 365.25 * 86400.0  # timers of the operating system overflow at about 292 years

DURATION_HINT = "write 30, '30s', '5m', '2h5m', '1d' or 'never'"
SIZE_HINT = "write 65536, '64KiB', '10MB' or '1GiB'"
NAME_HINT = (
    "begin with a letter and use up to 64 letters, digits, '.', '_' and '-', without two of '.', '_' and '-' in a row"
)
BOOL_HINT = "write true or false (also 1/0, yes/no, on/off)"

_UNITS: Mapping[str, float] = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
# Compiled on first use: every import of the package would pay for it.
_DURATION = r"\s*".join(rf"(?:(?P<{unit}>[0-9]+(?:\.[0-9]+)?)\s*{unit}(?![a-z]))?" for unit in _UNITS)
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
_NAME = r"[A-Za-z][A-Za-z0-9._-]{0,63}"
_SIZE = r"([0-9]+(?:\.[0-9]+)?)\s*([kKMG]i?B|B)?"
_SIZES: Mapping[str, int] = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "kiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
_BOOLS: Mapping[str, bool] = {
    "true": True, "1": True, "yes": True, "on": True,
    "false": False, "0": False, "no": False, "off": False,
}  # fmt: skip


def parse_duration(value: object, *, zero: bool = False) -> float | None:
    """Seconds, or None for ``"never"`` and None.

    ``0`` is refused unless ``zero``: it means "do not store" to some libraries and "for ever" to others.
    Raises `ValueError` with what to write instead.
    """
    if value is None:
        return None
    seconds = _seconds(value)
    if seconds is None:
        return None
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"not a duration; {DURATION_HINT}")
    if seconds > LONGEST:
        raise ValueError("longer than 100 years; write 'never' for no end")
    if seconds == 0 and not zero:
        raise ValueError("0 is ambiguous; write 'never' for no end, or a duration above 0")
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if not isinstance(value, str):
        raise ValueError(f"not a duration; {DURATION_HINT}")
    text = value.strip()
    if text.casefold() == "never":
        return None
    if re.fullmatch(_NUMBER, text):
        return float(text)
    match = re.fullmatch(_DURATION, text)
    if not text or match is None:
        raise ValueError(f"not a duration; {DURATION_HINT}")
    return math.fsum(float(amount) * _UNITS[unit] for unit, amount in match.groupdict().items() if amount)


def format_duration(seconds: float | None) -> str:
    """The shortest text that `parse_duration` reads back: ``"2h5m"``, ``"250ms"``, ``"never"``."""
    if seconds is None:
        return "never"
    if seconds == 0:
        return "0s"
    millis = round(seconds * 1000)
    if not math.isclose(millis / 1000, seconds, rel_tol=1e-12):
        return f"{seconds:.12f}".rstrip("0") + "s"
    text = ""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        amount, millis = divmod(millis, size)
        if amount:
            text += f"{amount}{unit}"
    return text


def parse_size(value: object) -> int:
    """Bytes from a whole number or a text such as ``"64MiB"``. Raises `ValueError` with what to write instead."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (match := re.fullmatch(_SIZE, value.strip())):
        size = float(match[1]) * _SIZES[match[2] or "B"]
        if size.is_integer() and size < 2**53:
            return int(size)
    raise ValueError(f"not a size; {SIZE_HINT}")


def format_size(size: int) -> str:
    """The shortest exact text for a size: ``"64MiB"``, ``"1000B"``."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{unit}"
    return f"{size}B"


def parse_bool(value: object) -> bool:
    """True or False from a boolean, 0, 1, or the usual words. Raises `ValueError` with what to write instead."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, str)) and (known := _BOOLS.get(str(value).strip().casefold())) is not None:
        return known
    raise ValueError(f"not a boolean; {BOOL_HINT}")


def parse_list(value: object) -> tuple[str, ...]:
    """Texts from a list, or from one text with commas or JSON, as an environment variable carries them."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            import json  # rarely written so, and every import of the package would pay for it

            try:
                value = json.loads(text)
            except ValueError:
                raise ValueError("not a list; write a,b or a JSON list") from None
        else:
            value = [item.strip() for item in text.split(",") if item.strip()]
    if not isinstance(value, (list, tuple, set, frozenset)) or not all(isinstance(item, str) for item in value):
        raise ValueError("not a list of texts; write ['a', 'b'], in the environment a,b")
    return tuple(sorted(value)) if isinstance(value, (set, frozenset)) else tuple(value)


def fold(name: str) -> str:
    """The form in which names are compared: environment variables know neither case nor ``-`` nor ``.``."""
    return name.casefold().replace("-", "_").replace(".", "_")


def check_name(name: object) -> str:
    """The name of a namespace, profile or backend: nothing that breaks a Redis key, a hash tag or a metric label.

    Raises `ValueError` for anything else.
    """
    if not isinstance(name, str) or not re.fullmatch(_NAME, name) or "__" in fold(name):
        raise ValueError(f"not a name; {NAME_HINT}")
    return name


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of ``names`` that ``name`` was probably meant to be, or None."""
    from difflib import get_close_matches  # for mistakes only

    by_fold = {fold(known): known for known in names}
    matches = get_close_matches(fold(name), by_fold, n=1, cutoff=0.6)
    return by_fold[matches[0]] if matches else None
