"""The methods of django-redis that find keys by a pattern: page by page, in this region alone."""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

from django.conf import settings
from django.utils.module_loading import import_string

from cachekit.engine.invalidation import invalidate_keys
from cachekit.engine.ports import Port, drive
from cachekit.engine.tiers import Call, Tiers, logger
from cachekit.errors import UnsupportedOperation
from cachekit.integrations.django.extras.commands import Commands, has_structures
from cachekit.integrations.django.extras.twins import both
from cachekit.l2.reclaim import entry_of, outdated
from cachekit.l2.remote import Remote, Unavailable
from cachekit.regions import call_of

PAGE: Final = 200  # keys that one step looks at, unless said otherwise
LARGEST_PAGE: Final = 1_000  # more would not fit into the budget of a step
SPECIAL: Final = re.compile(r"[*?\[\\]")


class Patterns(Commands):
    """``*``, ``?``, ``[abc]``, ``[^a]``, ``[a-c]`` and a backslash, as Redis reads them."""

    key_prefix: str
    version: Any
    key_func: Any
    _params: Mapping[str, Any]

    @both
    async def keys(self, port: Port, search: str, version: Any = None, client: Any = None) -> list[str]:
        """The keys that match, as the caller knows them. Empty while the server is away."""
        found = [name async for name in self._matching(port, "keys()", self._pattern(search, version), None, client)]
        return [self._reversed(name) for name in dict.fromkeys(found)]

    def iter_keys(
        self, search: str, itersize: int | None = None, client: Any = None, version: Any = None
    ) -> Iterator[str]:
        """As `keys`, looking at ``itersize`` keys at a time; one may come twice while others are added."""
        port, cursor = self.region.service.sync_port, ""
        pattern = self._pattern(search, version)
        while True:
            cursor, page = drive(self._page(port, "iter_keys()", pattern, cursor, itersize, client))
            yield from map(self._reversed, page)
            if not cursor:
                return

    async def aiter_keys(
        self, search: str, itersize: int | None = None, client: Any = None, version: Any = None
    ) -> AsyncIterator[str]:
        """As `iter_keys`."""
        pattern = self._pattern(search, version)
        async for name in self._matching(self.region.service.async_port, "iter_keys()", pattern, itersize, client):
            yield self._reversed(name)

    @both
    async def delete_pattern(
        self, port: Port, pattern: str, version: Any = None, prefix: Any = None, client: Any = None,
        itersize: int | None = None,
    ) -> int:  # fmt: skip
        """Delete the keys that match; how many. In this process and others they are gone when it returns."""
        glob, count = self._pattern(pattern, version, prefix), 0
        cursor = ""
        try:
            while True:
                cursor, page = await self._look(port, "delete_pattern()", glob, cursor, itersize, client)
                if page:
                    calls = [call_of(self.region, name) for name in page]
                    await invalidate_keys(calls[0].tiers, calls, port)
                count += len(page)
                if not cursor:
                    return count
        except Unavailable:
            logger.warning("delete_pattern(%r): the server is away; %d keys were deleted", pattern, count)
            return count

    @both
    async def clear_structures(self, port: Port) -> None:
        """Delete the structures of the tenant, or of the whole region: a clear outdates values alone."""
        call = call_of(self.region, "")
        remote = call.tiers.remote
        if remote is None or not remote.offers("query") or call.tiers.locks is not None:
            return
        try:
            if not await has_structures(remote, port, call):
                return
            cursor, name = "", f"{call.tiers.namespace}:v:{{{call.tiers.spec.name}:"
            prefix = _prefix(call) if call.tenant else name  # as `Region.clear`
            while True:
                cursor, page = await remote.do(port, "scan", prefix, cursor, LARGEST_PAGE)
                texts = [key for key, head in page if not head]
                if texts:
                    await remote.do(port, "invalidate", texts)
                if not cursor:
                    return
        except Unavailable:
            logger.warning("clear(): the server is away; sets, hashes and sorted sets stay there")

    def _pattern(self, search: str, version: Any, prefix: Any = None) -> str:
        """A pattern for full keys: prefix and version stand for themselves."""
        prefix = self.key_prefix if prefix is None else prefix
        version = self.version if version is None else version
        return str(self.key_func(search, _escaped(str(prefix)), _escaped(str(version))))

    def _reversed(self, name: str) -> str:
        return str(self._reverse_key(name))

    @property
    def _reverse_key(self) -> Any:
        params = self._params
        path = params.get("REVERSE_KEY_FUNCTION") or (params.get("OPTIONS") or {}).get("REVERSE_KEY_FUNCTION")
        return default_reverse_key if not path else path if callable(path) else import_string(path)

    async def _matching(self, port: Port, what: str, pattern: str, size: int | None, client: Any) -> AsyncIterator[str]:
        cursor = ""
        while True:
            cursor, page = await self._page(port, what, pattern, cursor, size, client)
            for name in page:
                yield name
            if not cursor:
                return

    async def _page(
        self, port: Port, what: str, pattern: str, cursor: str, size: int | None, client: Any
    ) -> tuple[str, list[str]]:
        """As `_look`; nothing more while the server is away."""
        try:
            return await self._look(port, what, pattern, cursor, size, client)
        except Unavailable:
            return "", []

    async def _look(
        self, port: Port, what: str, pattern: str, cursor: str, size: int | None, client: Any
    ) -> tuple[str, list[str]]:
        """The full keys of one page that match and are there, and where to go on. Raises `Unavailable`."""
        call = self._call("", None, client)
        remote = self._remote(call.tiers, what)
        _refuse_hidden(call.tiers, what)
        if call.off:
            return "", []
        size = min(size or getattr(settings, "DJANGO_REDIS_SCAN_ITERSIZE", PAGE), LARGEST_PAGE)
        prefix, wanted = _prefix(call_of(self.region, "")), matcher(pattern)
        following, page = await remote.do(port, "scan", prefix + _literal(pattern), cursor, size)
        there = await _usable(remote, port, call.tiers.namespace, page)
        names = [key.removeprefix(prefix).removesuffix("}") for key in there]
        return following, [name for name in names if wanted.fullmatch(name)]


async def _usable(remote: Remote, port: Port, namespace: str, page: list[tuple[str, bytes]]) -> list[str]:
    """The keys of a page without the values that a clear outdated and nobody has looked at since."""
    entries = {key: entry_of(namespace, key, head) for key, head in page}
    names = sorted({name for entry in entries.values() if entry is not None for name in entry.stamps})
    stamps = dict(zip(names, await remote.do(port, "get_many", names), strict=True)) if names else {}
    return [key for key, entry in entries.items() if entry is None or not outdated(entry, stamps)]


def _refuse_hidden(tiers: Tiers, what: str) -> None:
    if tiers.name_key is not None:
        raise UnsupportedOperation(
            f"{what}: region {tiers.spec.name!r} encrypts, so the server does not know the names of its keys; give the "
            "entries tags and use invalidate_tags()"
        )


def _prefix(call: Call) -> str:
    """What the keys of a region, or of a tenant in it, begin with on the server; ``call`` has the empty key."""
    assert call.key is not None
    return call.key.removesuffix("}")


def default_reverse_key(key: str) -> str:
    """The caller's key in one that Django's default key function made."""
    return key.split(":", 2)[2]


def _escaped(text: str) -> str:
    return re.sub(r"([*?\[\\])", r"\\\1", text)


def _literal(pattern: str) -> str:
    """What every match begins with."""
    return SPECIAL.split(pattern, maxsplit=1)[0]


def matcher(pattern: str) -> re.Pattern[str]:
    """A glob of Redis as a regular expression."""
    parts, at = [], 0
    while at < len(pattern):
        sign, at = pattern[at], at + 1
        if sign == "[":
            some, at = _class(pattern, at)
            parts.append(some)
        elif sign in "*?":
            parts.append(".*" if sign == "*" else ".")
        else:
            if sign == "\\" and at < len(pattern):
                sign, at = pattern[at], at + 1
            parts.append(re.escape(sign))
    return re.compile("".join(parts), re.DOTALL)


def _class(pattern: str, at: int) -> tuple[str, int]:
    """The characters in brackets that begin before ``at``, and where the pattern goes on."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    parts: list[str] = []
    while at < len(pattern) and pattern[at] != "]":
        at += pattern[at] == "\\" and at + 1 < len(pattern)
        first = last = pattern[at]
        if pattern[at + 1 : at + 2] == "-" and at + 2 < len(pattern):
            last, at = pattern[at + 2], at + 2
        parts.append(f"{re.escape(min(first, last))}-{re.escape(max(first, last))}")
        at += 1
    some = f"[{'^' if negated else ''}{''.join(parts)}]" if parts else "." if negated else r"(?!)"
    return some, at + 1
