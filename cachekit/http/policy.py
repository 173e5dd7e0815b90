"""Who may be answered from the cache, what may be kept, and for how long: RFC 9111, as a shared cache.

Where the RFC leaves a choice, this one fails towards not caching: a page shown to the wrong person is worse than any
number of misses. Requests that show who sends them go around the cache unless the route says who they are (`user`).
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from cachekit.http import control, dates
from cachekit.http.control import Directives
from cachekit.http.messages import Fields, Request, Response, joined, values_of

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110 section 9.2.1
CREDENTIALS: Final = ("authorization", "cookie")
UNTOUCHED: Final = ("range", "if-range", "if-match", "if-unmodified-since", "upgrade")  # asked for part of it, or more
TELLING: Final = frozenset({*CREDENTIALS, *UNTOUCHED, "cache-control"})  # request fields that may lead past the cache
WISHES: Final = frozenset({"cache-control", "pragma"})  # of a client
PERSONAL: Final = frozenset({"authorization", "cookie", "*"})  # in Vary
# Cacheable without a word of the origin (RFC 9110 section 15.1), but for errors and those that carry parts.
ORDINARY: Final = frozenset({200, 203, 204, 300, 301, 308})
NEVER: Final = frozenset({206, 304})  # parts, and answers to conditions that others did not ask
HOP_BY_HOP: Final = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization",
    "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
OURS: Final = frozenset({"age", "x-cache"})  # made anew for each answer
# What a response must say to be for all, though the request that it answers was somebody's (RFC 9111 section 3.5).
OPEN: Final = frozenset({"must-revalidate", "public", "s-maxage"})
STRICT: Final = frozenset({"must-revalidate", "proxy-revalidate", "s-maxage"})  # never past their life
# Those of RFC 9110 section 15, whose meaning for a cache is known (`must-understand`, RFC 9111 section 5.2.2.3).
UNDERSTOOD: Final = frozenset({
    *range(200, 207), *range(300, 306), 307, 308, *range(400, 418), 421, 422, 426, *range(500, 506),
})  # fmt: skip
HEURISTIC: Final = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})  # RFC 9110 section 15.1
SHARE: Final = 0.1  # of the time since it was modified: how long a response is taken to be fresh that says nothing


class Rules(NamedTuple):
    """What a route, or a rule for many, says about its responses."""

    ttl: float | None  # of responses that say nothing themselves; None: these are not kept
    vary: tuple[str, ...] = ()  # names of request fields, in lower case, beside those that responses name
    statuses: Mapping[int, float] = {}  # errors that are kept, and for how many seconds
    reload: bool = True  # whether a client may ask for a new one (Cache-Control: no-cache)
    obey: bool = True  # whether what responses say about their life counts
    query: bool = True  # whether the query tells pages apart
    client_ttl: float = 0.0  # for how many seconds clients may keep a page without asking
    per_user: bool = False  # whether the route knows users, so that a page for none of them is not for all
    # In front of an origin that is written for shared caches, as a proxy: what it says opens a response to all although
    # the request was authorized, keeps an error, and a Last-Modified without any lifetime gives one.
    proxy: bool = False


class Life(NamedTuple):
    """How long a response may be given, in seconds from now."""

    fresh: float
    swr: float | None = None  # past that, while it is computed anew; None: what the region says
    on_error: float | None = None  # past that, when that failed
    strict: bool = False  # never past that (must-revalidate)


def why_bypassed(request: Request, user: str | None, *, proxy: bool = False) -> str:
    """Why this request has nothing to do with the cache; empty if it may be answered and its response kept.

    ``user``: whom the response is for, where the route knows (`per_user`). ``proxy``: see `Rules`.
    """
    if request.method not in ("GET", "HEAD"):
        return "method"
    if request.body:
        return "body"
    sent = TELLING.intersection([name for name, _ in request.fields])
    if not sent:
        return ""
    if user is None:
        for name in CREDENTIALS:
            if name in sent and not (proxy and name == "authorization"):
                return name
    if not sent.isdisjoint(UNTOUCHED):
        return next(name for name in UNTOUCHED if name in sent)
    if "no-store" in asked(request):  # RFC 9111 section 5.2.1.5
        return "no-store"
    return ""


def asked(request: Request) -> Directives:
    """The directives of a request; an old Pragma counts where there is no Cache-Control (RFC 7234 section 5.4)."""
    lines = [line for line in request.fields if line[0] in WISHES]
    if not lines:  # most requests
        return control.NONE
    values = [value for name, value in lines if name == "cache-control"]
    if not values and "no-cache" in control.names([value for _, value in lines]):
        return {"no-cache": (None,)}
    return control.directives(values)


def wants_new(found: Directives, rules: Rules, age: float, fresh_for: float) -> bool:
    """Whether a client that `asked` for this will not take what is kept: no-cache, max-age, min-fresh (RFC 9111 section
    5.2.1).

    Who names a max-age wants nothing stale, however young, unless max-stale is there too (section 5.2.1.1).
    """
    if not found or not rules.reload:
        return False
    oldest, left = control.seconds(found, "max-age"), control.seconds(found, "min-fresh")
    old = oldest is not None and (age > oldest or (fresh_for <= 0 and "max-stale" not in found))
    return "no-cache" in found or old or (left is not None and fresh_for < left)


def only_kept(found: Directives) -> bool:
    """Whether a client that `asked` for this wants what is kept or nothing (RFC 9111 section 5.2.1.7)."""
    return "only-if-cached" in found


def is_for(request: Request, response: Response, user: str | None) -> bool:
    """Whether a kept response may answer this request: one with somebody's credentials, only if it is said to be for
    all."""
    if user is not None or joined(request.fields, "authorization") is None:
        return True
    return not OPEN.isdisjoint(response_directives(response))


def why_not_kept(request: Request, response: Response, rules: Rules, user: str | None) -> str:
    """Why this response may not be kept; empty if it may (RFC 9111 section 3)."""
    found = response_directives(response)
    if request.method != "GET" or response.status in NEVER or response.status < 200:
        return "status"
    if "must-understand" in found and response.status not in UNDERSTOOD:
        return "status"
    named = {name for name, _ in response.fields}
    if "set-cookie" in named:
        return "set-cookie"
    if "no-store" in found:
        return "no-store"
    if "private" in found and user is None:
        return "private"
    if "no-cache" in found:  # it would have to be asked for each time
        return "no-cache"
    if not is_for(request, response, user):
        return "authorization"
    if "content-range" in named or not _is_whole(response):
        return "incomplete"
    varies = varies_by(response)
    if "*" in varies or (user is None and not PERSONAL.isdisjoint(varies)):
        return "vary"
    if response.status >= 400 and response.status not in rules.statuses and not rules.proxy:
        return "error"
    return ""


def _is_whole(response: Response) -> bool:
    """Whether it has the length that it says (RFC 9111 section 3.3)."""
    said = set(values_of(response.fields, "content-length"))
    return not said or said == {str(len(response.body))}


def response_directives(response: Response) -> Directives:
    """What a response says in Cache-Control."""
    return control.directives(values_of(response.fields, "cache-control"))


def varies_by(response: Response) -> tuple[str, ...]:
    """The request fields that a response says it depends on."""
    return control.names(values_of(response.fields, "vary"))


def life(response: Response, rules: Rules, now: float) -> Life | None:
    """How long a response that may be kept lives; None if nothing says so, or it has ended."""
    found = response_directives(response) if rules.obey else control.NONE
    fresh = _said(found, response.fields, now) if rules.obey else None
    if fresh is None:
        fresh = rules.statuses.get(response.status, rules.ttl if response.status in ORDINARY else None)
    if fresh is None and rules.proxy:
        fresh = _guessed(found, response, now)
    swr, on_error = control.seconds(found, "stale-while-revalidate"), control.seconds(found, "stale-if-error")
    stale = swr, on_error, not STRICT.isdisjoint(found)
    if response.ttl is not None:  # from now on
        return Life(response.ttl, *stale)
    age = age_of(response.fields, now)
    return None if fresh is None or age is None or fresh <= age else Life(fresh - age, *stale)


def _guessed(found: Directives, response: Response, now: float) -> float | None:
    """Freshness lifetime of a response that says none (RFC 9111 section 4.2.2)."""
    if response.status not in HEURISTIC and "public" not in found:
        return None
    date = dates.parse(joined(response.fields, "date") or "", now)
    changed = dates.parse(joined(response.fields, "last-modified") or "", now)
    return None if changed is None else SHARE * ((now if date is None else date) - changed)


def _said(found: Directives, fields: Fields, now: float) -> float | None:
    """Freshness lifetime by what the response says (RFC 9111 section 4.2.1)."""
    for name in ("s-maxage", "max-age"):
        said = control.seconds(found, name)
        if said is not None:
            return float(said)
    expires = values_of(fields, "expires")
    if not expires:
        return None
    ends = dates.parse(expires[0], now) if len(expires) == 1 else None
    if ends is None:  # not a date, 0 above all: it has ended
        return 0.0
    date = dates.parse(joined(fields, "date") or "", now)
    return ends - (now if date is None else date)


def age_of(fields: Fields, now: float) -> float | None:
    """Seconds since the origin made it (RFC 9111 section 4.2.3): others may have kept it before. None: nobody knows."""
    date = dates.parse(joined(fields, "date") or "", now)
    apparent = 0.0 if date is None else max(0.0, now - date)
    said = values_of(fields, "age")
    if not said:
        return apparent
    first = control.number(said[0].partition(",")[0].strip(" \t"))  # of several the first (section 5.1)
    return None if first is None else max(apparent, float(first))


def kept_fields(fields: Fields) -> Fields:
    """Without what is between two neighbours only, and what is made anew for each answer (RFC 9111 section 3.1)."""
    dropped = {*HOP_BY_HOP, *OURS, *control.names(values_of(fields, "connection"))}
    return tuple([(name, value) for name, value in fields if name not in dropped])


def invalidated(request: Request, response: Response) -> bool:
    """Whether this exchange outdates what is kept of its target (RFC 9111 section 4.4)."""
    return request.method not in SAFE and 200 <= response.status < 400


def emitted(response: Response, rules: Rules, kept: Life, user: str | None) -> Response:
    """The response as it goes out: with all that tells it apart, and a Cache-Control unless it has one of its own.

    Without ``client_ttl`` clients keep the page and ask each time whether it still holds, which an entity tag answers
    with a 304: so what is invalidated here is gone for them as well.
    """
    response = varying(response, rules.vary)
    if joined(response.fields, "cache-control") is not None or joined(response.fields, "expires") is not None:
        return response
    words = ["private"] if rules.per_user or user is not None else []
    if rules.client_ttl > 0:
        words.append(f"max-age={int(rules.client_ttl)}")
        words += [f"{name}={int(value)}" for name, value in _windows(kept) if value]
    else:
        words.append("no-cache")
    return response._replace(fields=(*response.fields, ("cache-control", ", ".join(words))))


def varying(response: Response, names: tuple[str, ...]) -> Response:
    """The response with a Vary of these request fields too, for the caches in front (RFC 9110 section 12.5.5)."""
    missing = sorted({*names} - {*varies_by(response)})
    if not missing:
        return response
    said = [value for value in values_of(response.fields, "vary") if value.strip()]
    others = [line for line in response.fields if line[0] != "vary"]
    return response._replace(fields=(*others, ("vary", ", ".join([*said, *missing]))))


def _windows(kept: Life) -> tuple[tuple[str, float | None], ...]:
    return ("stale-while-revalidate", kept.swr), ("stale-if-error", kept.on_error)
