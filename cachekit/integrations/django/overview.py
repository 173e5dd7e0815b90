"""What the caches of this process hold, and how its calls were answered, region by region. Asks no server."""

from collections.abc import Iterator
from typing import NamedTuple

from cachekit.config.units import format_duration
from cachekit.integrations.django.project import aliases_of
from cachekit.process import default_service
from cachekit.service import BackendHealth, Service

BUILT_IN = "built-in"


class Part(NamedTuple):
    """A stretch of a bar, in percent of its width; as text, so that no locale gets into a drawing."""

    kind: str
    start: str
    width: str


class RegionOverview(NamedTuple):
    """A region in this process, since it started."""

    name: str
    aliases: list[str]
    backend: str
    ttl: float | None
    entries: int
    bytes: int
    l1_hits: int
    l2_hits: int
    waited: int
    stale: int
    misses: int

    @property
    def life(self) -> str:
        """The TTL in words."""
        return "never ends" if self.ttl is None else format_duration(self.ttl)

    @property
    def answers(self) -> dict[str, int]:
        """Calls by what answered them, best first."""
        return {name: getattr(self, name) for name in ("l1_hits", "l2_hits", "waited", "stale", "misses")}

    @property
    def share(self) -> float | None:
        """Hits in percent of the calls; None without calls."""
        calls = sum(self.answers.values())
        return 100 * (self.l1_hits + self.l2_hits) / calls if calls else None

    @property
    def bar(self) -> list[Part]:
        """The answers as stretches of one bar, none for what did not happen."""
        calls, at, parts = sum(self.answers.values()), 0.0, []
        for kind, count in self.answers.items():
            if count:
                width = 100 * count / calls
                parts.append(Part(kind.replace("_", "-"), f"{at:.2f}", f"{width:.2f}"))
                at += width
        return parts


def regions() -> list[RegionOverview]:
    """The regions that this process uses, that have an alias, or that the project declared."""
    service = default_service()
    names, used = aliases_of(), {tally.region for tally in service.tallies()}
    return [
        _region(service, name, names.get(name, []))
        for name, spec in sorted(service.spec.regions.items())
        if name in names or name in used or spec.origin != BUILT_IN
    ]


def _region(service: Service, name: str, aliases: list[str]) -> RegionOverview:
    tables = [table.stats() for region, table in service.tables() if region == name]
    tallies = [tally for tally in service.tallies() if tally.region == name]
    spec = service.region_spec(name)
    return RegionOverview(
        name,
        aliases,
        spec.backend if service.remote(spec.backend) is not None else "",
        spec.ttl,
        sum(stats.entries for stats in tables),
        sum(stats.weight for stats in tables),
        sum(tally.l1_hits() for tally in tallies),
        sum(tally.l2_hits for tally in tallies),
        sum(tally.waited for tally in tallies),
        sum(tally.stale for tally in tallies),
        sum(tally.misses for tally in tallies),
    )


def stores() -> Iterator[tuple[str, BackendHealth]]:
    """The backends and how they do, judged by what this process asked of them."""
    yield from sorted(default_service().health().backends.items())
