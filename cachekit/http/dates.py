"""HTTP dates (RFC 9110 section 5.6.7): read in all three forms, written in the one that is in use."""

from calendar import monthrange, timegm
from email.utils import formatdate
from re import ASCII, compile
from typing import Final

_MONTHS: Final = {name: number for number, name in enumerate(
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
)}  # fmt: skip
_TIME: Final = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DAY: Final = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTH: Final = "(?P<month>[A-Z][a-z]{2})"
_FORMS: Final = (
    compile(rf"{_DAY}, (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_TIME} GMT", ASCII),
    compile(rf"[A-Z][a-z]+day, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_TIME} GMT", ASCII),
    compile(rf"{_DAY} {_MONTH} (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})", ASCII),
)


def parse(text: str, now: float) -> float | None:
    """Seconds since the epoch, or None for what is no date. ``now`` tells the century of years of two digits."""
    for form in _FORMS:
        match = form.fullmatch(text.strip(" \t"))
        if match is not None and match["month"] in _MONTHS:
            year, month, day = int(match["year"]), _MONTHS[match["month"]], int(match["day"])
            if len(match["year"]) == 2:
                year = _century(year, now)
            hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
            if hour > 23 or minute > 59 or second > 60 or year < 1 or not 1 <= day <= monthrange(year, month)[1]:
                return None
            return float(timegm((year, month, day, hour, minute, second)))
    return None


def _century(year: int, now: float) -> int:
    """A year that seems to be more than 50 years ahead is the most recent past one with these digits."""
    this = 1970 + int(now / 31_556_952)
    full = this - this % 100 + year
    return full - 100 if full > this + 50 else full


def format(seconds: float) -> str:
    """``Sun, 06 Nov 1994 08:49:37 GMT``."""
    return formatdate(seconds, usegmt=True)
