"""What a load showed, as plain figures."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from cachekit.demo.load import Answer
from cachekit.demo.processes import FRAMEWORKS

Counts: TypeAlias = "dict[tuple[str, str], dict[str, int]]"  # by framework and region, then by name

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
    """One framework, one region, or all together."""

    name: str
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

    frameworks: tuple[Row, ...]
    regions: tuple[Row, ...]
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
    """Compare every answer with the reference for its question, whichever framework gave it; ``counted`` is what the
    workers counted meanwhile."""
    right = {answer.question: value(answer) for answer in reference}
    differing = dict.fromkeys(
        answer.question.path for answer in cached if answer.status != 200 or value(answer) != right[answer.question]
    )
    frameworks = sorted({answer.framework for answer in cached}, key=FRAMEWORKS.index)
    regions = sorted({answer.question.region for answer in cached})
    return Summary(
        tuple(row(name, reference, cached, counted, framework=name) for name in frameworks),
        tuple(row(name, reference, cached, counted, region=name) for name in regions),
        row("all", reference, cached, counted),
        len(right),
        tuple(differing),
    )


def value(answer: Answer) -> Any:
    """What an answer says. The frameworks write JSON in different ways."""
    return json.loads(answer.body) if answer.status == 200 else None


def row(
    name: str,
    reference: Sequence[Answer],
    cached: Sequence[Answer],
    counted: Counts,
    *,
    framework: str | None = None,
    region: str | None = None,
) -> Row:
    """The figures of one framework, one region, or all."""

    def asked(answers: Sequence[Answer]) -> list[Answer]:
        return [
            answer
            for answer in answers
            if framework in (None, answer.framework) and region in (None, answer.question.region)
        ]

    alone = {answer.question: answer.seconds for answer in reference}
    without, cached = asked(reference), asked(cached)
    counts = [row for (its, of), row in counted.items() if framework in (None, its) and region in (None, of)]
    return Row(
        name,
        len(cached),
        len({answer.question for answer in cached}),
        {count: sum(row.get(count, 0) for row in counts) for count in COUNTS},
        Times.of(without),
        Times.of(cached),
        round(sum(answer.seconds for answer in cached), 3),
        round(sum(alone[answer.question] - answer.seconds for answer in cached), 3),
    )


def grown(after: Counts, before: Counts) -> Counts:
    """By how much counts grew."""
    return {
        place: {name: count - before.get(place, {}).get(name, 0) for name, count in counts.items()}
        for place, counts in after.items()
    }
