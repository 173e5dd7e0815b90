"""The short way of an ordinary hit, beside `answer`, which asks everything: both give the same.

Ordinary is a plain GET for a page that lies in this process, is fresh, and varies by nothing. Whatever turns out to be
something else goes on to `answer` with what was found, so that one request stays one look, and is counted once.
"""

from collections.abc import Awaitable
from typing import Any, Final, NamedTuple, cast

from cachekit.engine.miss import MISS
from cachekit.engine.raised import Raised
from cachekit.http import page
from cachekit.http.answer import Ask, Run, Varies
from cachekit.http.conditional import CONDITIONS
from cachekit.http.messages import Fields, Response
from cachekit.http.page import Kept
from cachekit.http.policy import TELLING, WISHES
from cachekit.http.status import Result, told

# Request fields that `answer` looks at, in lower case: whose request it is, what it wants, that it carries a body.
LOOKED_AT: Final = frozenset({*TELLING, *WISHES, *CONDITIONS, "content-length", "transfer-encoding"})


class Hit(NamedTuple):
    """A fresh page as an answer. Its fields are those of `fields_of`, which are the same for a second."""

    status: int
    body: bytes
    kept: Fields
    age: int
    ttl: int


def hit(found: Any, now: float) -> Hit | None:
    """The answer to an ordinary request from what lies at hand; None: it takes the long way."""
    if type(found) is not tuple or found[0] == "vary":
        return None
    age, fresh_for = page.ages(found, now)
    return Hit(found[0], found[2], found[1], int(age), int(fresh_for)) if fresh_for > 0 else None


def fields_of(kept: Fields, age: int, ttl: int) -> Fields:
    """All fields of such an answer. The integrations keep what they make of them."""
    return told(Response(200, page.aged(kept, age), b""), Result.HIT, fresh_for=ttl).fields


class Looked:
    """A cached function whose first look has been taken."""

    def __init__(self, ask: Ask, found: Any) -> None:
        self._ask = ask
        self._found = found
        self.peek = ask.peek

    def __call__(
        self, key: tuple[Any, ...], run: Run, *, force: bool, allow_stale: bool
    ) -> Awaitable[Kept | Varies | None]:
        found, self._found = self._found, MISS
        if found is MISS:
            return self._ask(key, run, force=force, allow_stale=allow_stale)
        return _given(found)


async def _given(found: Any) -> Kept | Varies | None:
    if type(found) is Raised:
        raise found.error()
    return cast("Kept | Varies | None", found)
