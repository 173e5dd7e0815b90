"""What a query asks, checked: Flask and Django leave that to the application, FastAPI does it from annotations."""

from collections.abc import Mapping

from cachekit.demo import cities

Query = Mapping[str, str]


class Refused(Exception):
    """The query is wrong. The message says what would be right."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


def place(query: Query) -> tuple[float, float]:
    """Latitude and longitude in degrees."""
    return number(query, "lat", 90), number(query, "lon", 180)


def number(query: Query, name: str, bound: float) -> float:
    try:
        value = float(query.get(name, ""))
    except ValueError:
        value = float("nan")
    if not -bound <= value <= bound:
        raise Refused(f"{name} is a number from {-bound} to {bound}")
    return value


def text(query: Query) -> str:
    """A part of a name."""
    value = query.get("q", "")
    if not 2 <= len(value) <= 50:
        raise Refused("q is a text of 2 to 50 characters")
    return value


def country(code: str) -> str:
    """The code of a country that has a city."""
    code = code.upper()
    if code not in cities.countries():
        raise Refused(cities.no_country(code), 404)
    return code


def limit(query: Query, default: int = 5) -> int:
    """How many cities."""
    value = query.get("limit", str(default))
    if not value.isdecimal() or len(value) > 2 or not 1 <= int(value) <= 50:
        raise Refused("limit is a number from 1 to 50")
    return int(value)


def cached(query: Query) -> bool:
    """Whether the answer may come from the cache."""
    return query.get("cached") != "false"
