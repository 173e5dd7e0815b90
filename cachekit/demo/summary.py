"""What a load showed, as plain figures."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from cachekit.demo.load import Answer, Question

Counts: TypeAlias = "dict[str, dict[str, int]]"  # by region, then by name

COUNTS = ("l1_hits", "l2_hits", "misses", "waited", "errors")


@dataclass(frozen=True)
class Times:
    """Of answers over HTTP, in milliseconds."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> "Times":
        seconds = sorted(answer.seconds for answer in answers)
        return cls(at(seconds, 0.50), at(seconds, 0.99))


def at(seconds: Sequence[float], share: float) -> float:
    """The value below which this share of the sorted values lies, in milliseconds."""
    return round(seconds[min(len(seconds) - 1, int(share * len(seconds)))] * 1000, 2) if seconds else 0.0


@dataclass(frozen=True)
class Row:
    """One region, or all together."""

    region: str
    requests: int
    questions: int  # different ones
    counts: dict[str, int]
    without: Times  # each different question once
    cached: Times
    took_s: float  # all requests, with the cache
    saved_s: float  # what they would have taken without one, less that

    def share(self, count: str) -> float:
        """The part of the requests that was answered this way."""
        return self.counts[count] / self.requests if self.requests else 0.0


@dataclass(frozen=True)
class Summary:
    """The whole load."""

    rows: tuple[Row, ...]
    total: Row
    compared: int  # different questions whose answers were compared with one computed without a cache
    differing: tuple[str, ...]  # paths whose cached answer was another one, or no answer

    @property
    def ok(self) -> bool:
        """Whether every answer of the cache was right."""
        return not self.differing

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"ok": self.ok} | asdict(self)


def summarise(reference: Sequence[Answer], cached: Sequence[Answer], counted: Counts) -> Summary:
    """Compare every answer with the reference for its question; ``counted`` is what the workers counted meanwhile."""
    right = {answer.question: answer for answer in reference}
    differing = dict.fromkeys(
        answer.question.path
        for answer in cached
        if answer.status != 200 or (answer.status, answer.body) != right[answer.question][2:]
    )
    regions = sorted({answer.question.region for answer in cached})
    rows = tuple(
        row(
            region,
            [answer for answer in reference if answer.question.region == region],
            [answer for answer in cached if answer.question.region == region],
            counted.get(region, {}),
        )
        for region in regions
    )
    totals = {name: sum(each.counts[name] for each in rows) for name in COUNTS}
    return Summary(rows, row("all", reference, cached, totals), len(right), tuple(differing))


def row(region: str, reference: Sequence[Answer], cached: Sequence[Answer], counts: dict[str, int]) -> Row:
    """The figures of one region."""
    alone: dict[Question, float] = {answer.question: answer.seconds for answer in reference}
    return Row(
        region,
        len(cached),
        len(alone),
        {name: counts.get(name, 0) for name in COUNTS},
        Times.of(reference),
        Times.of(cached),
        round(sum(answer.seconds for answer in cached), 3),
        round(sum(alone[answer.question] - answer.seconds for answer in cached), 3),
    )


def grown(after: Counts, before: Counts) -> Counts:
    """By how much counts grew."""
    return {
        region: {name: count - before.get(region, {}).get(name, 0) for name, count in counts.items()}
        for region, counts in after.items()
    }
