"""The methods of django-redis for sorted sets."""

from collections.abc import Callable, Mapping
from typing import Any

from cachekit.engine.ports import Port
from cachekit.integrations.django.extras.commands import Commands, number, texts
from cachekit.integrations.django.extras.twins import both

Scored = list[tuple[bytes, bytes]]


class SortedSets(Commands):
    """Members as in sets, each with a score. Bounds of scores are numbers, or text as Redis takes it: ``"-inf"``.

    ``score_cast_func`` is called with the digits of a score, as bytes.
    """

    @both
    async def zadd(
        self, port: Port, key: Any, mapping: Mapping[Any, float], nx: bool = False, xx: bool = False, ch: bool = False,
        incr: bool = False, gt: bool = False, lt: bool = False, version: Any = None, client: Any = None,
    ) -> Any:  # fmt: skip
        """Add members with their scores; how many were new, or with ``ch`` also how many changed.

        ``nx`` only new ones, ``xx`` only known ones, ``gt`` and ``lt`` only to a higher or lower score. ``incr`` adds
        to the score of one member and returns it, None if another option forbids it.
        """
        if not mapping:
            raise ValueError("zadd() needs a member with a score")
        if (nx and (xx or gt or lt)) or (gt and lt):
            raise ValueError("zadd() takes one of nx, gt and lt, and xx not with nx")
        if incr and len(mapping) != 1:
            raise ValueError("zadd(incr=True) takes one member")
        call, options = self._call(key, version, client), {"NX": nx, "XX": xx, "GT": gt, "LT": lt, "CH": ch}
        flags = [name for name, wanted in options.items() if wanted]
        words = [word for member, score in mapping.items() for word in (_bound(score), self._member(member))]
        if incr:
            return await self._alter(port, [call], "ZADD", *flags, "INCR", *words, read=number, otherwise=None)
        return await self._in_parts(port, call, "ZADD", words, 2, flags)

    @both
    async def zincrby(
        self, port: Port, key: Any, amount: float, value: Any, version: Any = None, client: Any = None
    ) -> float | None:
        """Add to the score of a member, which begins at 0; the new score."""
        call, member = self._call(key, version, client), self._member(value)
        return await self._alter(port, [call], "ZINCRBY", _bound(amount), member, read=number, otherwise=None)

    @both
    async def zrem(self, port: Port, key: Any, *values: Any, version: Any = None, client: Any = None) -> int:
        """Remove members; how many were there."""
        gone = [self._member(value) for value in values]
        return await self._in_parts(port, self._call(key, version, client), "ZREM", gone)

    @both
    async def zremrangebyscore(
        self, port: Port, key: Any, min: Any, max: Any, version: Any = None, client: Any = None
    ) -> int:
        """Remove the members with scores from ``min`` to ``max``; how many."""
        call = self._call(key, version, client)
        return await self._alter(port, [call], "ZREMRANGEBYSCORE", _bound(min), _bound(max), read=int, otherwise=0)

    @both
    async def zpopmax(
        self, port: Port, key: Any, count: int | None = None, version: Any = None, client: Any = None
    ) -> Any:
        """Remove the member with the highest score: ``(member, score)`` or None; with ``count`` a list of them."""
        return await self._popped(port, "ZPOPMAX", key, count, version, client)

    @both
    async def zpopmin(
        self, port: Port, key: Any, count: int | None = None, version: Any = None, client: Any = None
    ) -> Any:
        """As `zpopmax`, with the lowest score."""
        return await self._popped(port, "ZPOPMIN", key, count, version, client)

    @both
    async def zcard(self, port: Port, key: Any, version: Any = None, client: Any = None) -> int:
        """How many members there are."""
        return await self._query(port, [self._call(key, version, client)], "ZCARD", read=int, otherwise=0)

    @both
    async def zcount(self, port: Port, key: Any, min: Any, max: Any, version: Any = None, client: Any = None) -> int:
        """How many members have a score from ``min`` to ``max``."""
        call = self._call(key, version, client)
        return await self._query(port, [call], "ZCOUNT", _bound(min), _bound(max), read=int, otherwise=0)

    @both
    async def zscore(self, port: Port, key: Any, value: Any, version: Any = None, client: Any = None) -> float | None:
        """The score of a member, or None."""
        call, member = self._call(key, version, client), self._member(value)
        return await self._query(port, [call], "ZSCORE", member, read=number, otherwise=None)

    @both
    async def zrank(
        self, port: Port, key: Any, value: Any, withscore: bool = False, version: Any = None, client: Any = None
    ) -> Any:
        """How many members have a lower score, or None; with ``withscore`` a list of that and the score."""
        call, member = self._call(key, version, client), self._member(value)
        if withscore:  # servers before 7.2 have no such option
            rank = await self._query(port, [call], "ZRANK", member, read=_rank, otherwise=None)
            score = await self._query(port, [call], "ZSCORE", member, read=number, otherwise=None)
            return None if rank is None or score is None else [rank, score]
        return await self._query(port, [call], "ZRANK", member, read=_rank, otherwise=None)

    @both
    async def zrange(
        self, port: Port, key: Any, start: int, end: int, desc: bool = False, withscores: bool = False,
        score_cast_func: Callable[[Any], Any] = float, version: Any = None, client: Any = None,
    ) -> list[Any]:  # fmt: skip
        """The members from place ``start`` to ``end``, -1 being the last, by ascending score, or ``desc``."""
        command = "ZREVRANGE" if desc else "ZRANGE"
        return await self._range(port, command, key, (start, end), withscores, score_cast_func, version, client)

    @both
    async def zrevrange(
        self, port: Port, key: Any, start: int, end: int, withscores: bool = False,
        score_cast_func: Callable[[Any], Any] = float, version: Any = None, client: Any = None,
    ) -> list[Any]:  # fmt: skip
        """As `zrange`, by descending score."""
        return await self._range(port, "ZREVRANGE", key, (start, end), withscores, score_cast_func, version, client)

    @both
    async def zrangebyscore(
        self, port: Port, key: Any, min: Any, max: Any, start: int | None = None, num: int | None = None,
        withscores: bool = False, score_cast_func: Callable[[Any], Any] = float, version: Any = None,
        client: Any = None,
    ) -> list[Any]:  # fmt: skip
        """The members with scores from ``min`` to ``max``; of these ``num`` from place ``start`` on."""
        words = (_bound(min), _bound(max), *_limit(start, num))
        return await self._range(port, "ZRANGEBYSCORE", key, words, withscores, score_cast_func, version, client)

    @both
    async def zrevrangebyscore(
        self, port: Port, key: Any, max: Any, min: Any, start: int | None = None, num: int | None = None,
        withscores: bool = False, score_cast_func: Callable[[Any], Any] = float, version: Any = None,
        client: Any = None,
    ) -> list[Any]:  # fmt: skip
        """As `zrangebyscore`, by descending score."""
        words = (_bound(max), _bound(min), *_limit(start, num))
        return await self._range(port, "ZREVRANGEBYSCORE", key, words, withscores, score_cast_func, version, client)

    async def _range(
        self, port: Port, command: str, key: Any, words: tuple[Any, ...], withscores: bool,
        cast: Callable[[Any], Any], version: Any, client: Any,
    ) -> list[Any]:  # fmt: skip
        call = self._call(key, version, client)
        if not withscores:
            return self._values(await self._query(port, [call], command, *words, read=texts, otherwise=[]))
        none: Scored = []
        found = await self._query(port, [call], command, *words, "WITHSCORES", read=_scored, otherwise=none)
        return self._with_scores(found, cast)

    async def _popped(self, port: Port, command: str, key: Any, count: int | None, version: Any, client: Any) -> Any:
        call, none = self._call(key, version, client), Scored()
        words = () if count is None else (count,)
        found = self._with_scores(await self._alter(port, [call], command, *words, read=_scored, otherwise=none))
        return found if count is not None else found[0] if found else None

    def _with_scores(self, found: Scored, cast: Callable[[Any], Any] = float) -> list[tuple[Any, Any]]:
        return [(value[0], cast(score)) for data, score in found for value in [self._values([data])] if value]


def _scored(reply: Any) -> Scored:
    pairs = texts(reply)
    for score in pairs[1::2]:
        float(score)
    return list(zip(pairs[::2], pairs[1::2], strict=True))


def _rank(reply: Any) -> int | None:
    return None if reply is None else int(reply)


def _bound(score: Any) -> Any:
    """A score or the bound of a range; a number as Redis reads all its digits."""
    if isinstance(score, (str, bytes)):
        return score
    return repr(float(score)) if isinstance(score, float) else str(score)


def _limit(start: int | None, num: int | None) -> tuple[Any, ...]:
    if (start is None) is not (num is None):
        raise ValueError("start and num belong together")
    return () if start is None else ("LIMIT", start, num)
