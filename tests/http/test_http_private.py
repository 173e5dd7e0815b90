"""Whatever several visitors ask and whatever a route answers: nobody is given what is not for them.

Random requests, some at the same time, over a real cached function and a clock that stands still. Each run of the route
makes a page of its own, so that every answer tells which run it came from; what that run said, as drawn and not as
parsed, must allow this visitor to have it now.
"""

import asyncio
import itertools
from typing import Any, NamedTuple

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from cachekit.http.messages import Response
from cachekit.http.policy import Rules

TTL, STALE_TTL = 60, 120


class Visitor(NamedTuple):
    user: str | None
    credentials: tuple[tuple[str, str], ...]


class Ask(NamedTuple):
    visitor: Visitor
    method: str
    scheme: str
    host: str
    path: str
    query: bytes
    said: str | None  # Cache-Control
    varies: tuple[tuple[str, str], ...]
    known: bool  # whether it sends the entity tag that it last saw


class Said(NamedTuple):
    """What a run of the route answers."""

    status: int
    words: tuple[str, ...]  # Cache-Control
    seconds: tuple[tuple[str, int], ...]
    vary: tuple[str, ...]
    cookie: bool
    age: int


class Ran(NamedTuple):
    number: int  # of the request
    asked: Ask
    said: Said
    at: float
    tick: int


visitors = st.sampled_from([
    *[Visitor(None, ())] * 4, Visitor(None, (("authorization", "a"),)), Visitor(None, (("cookie", "a"),)),
    Visitor("anna", (("authorization", "a"),)), Visitor("anna", (("cookie", "a"),)),
    Visitor("bert", (("cookie", "b"),)), Visitor("", ()),
])  # fmt: skip


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([*[usual] * 4 * len(others), *others])


asks = st.builds(
    Ask,
    visitors,
    mostly("GET", "HEAD", "POST"),
    mostly("http", "https"),
    mostly("example.com", "EXAMPLE.com:80", "example.org"),
    mostly("/a", "/a/"),
    mostly(b"x=1&y=2", b"y=2&x=1", b"x=2", b""),
    mostly(None, "no-cache", "no-store", "max-age=20", "min-fresh=20", "only-if-cached"),
    st.sampled_from([(), (), (("accept", "a"),), (("accept-language", "de"),), (("accept", "a"), ("x-a", "1"))]),
    st.booleans(),
)
lives = st.sampled_from([30, 30, 10, 0])
windows = st.fixed_dictionaries({}, optional={"stale-while-revalidate": lives, "stale-if-error": lives})
ends = st.fixed_dictionaries({}, optional={"max-age": lives, "s-maxage": lives})
saids = st.builds(
    Said,
    mostly(200, 203, 301, 404, 500),
    mostly((), ("private",), ("no-store",), ("no-cache",), ("must-revalidate",), ("proxy-revalidate",), ("public",),
           ("x-other",), ("public", "private")),
    st.tuples(ends, windows).map(lambda both: tuple((both[0] | both[1]).items())),
    st.sampled_from([(), (), ("accept",), ("Accept-Language", "X-A"), ("Cookie",), ("*",), ("accept", "*")]),
    mostly(False, True),
    mostly(0, 5, 100),
)  # fmt: skip
pools = st.lists(asks, min_size=1, max_size=4)
rounds = st.lists(
    st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.sampled_from([0, 0, 5, 25, 90])),
    min_size=2,
    max_size=12,
)


class World:
    def __init__(self, site: Any, answers: list[Said]) -> None:
        self.site, self.plan = site, itertools.cycle(answers)
        site.route = self.route
        self.runs: list[Ran] = []
        self.ended: dict[int, int] = {}  # run -> tick
        self.ticks = itertools.count()
        self.outdated: list[tuple[Any, int, int]] = []  # place, from, to
        self.tags: dict[str, int] = {}  # entity tag -> run
        self.seen: dict[Any, str] = {}
        self.asking: dict[int, Ask] = {}  # by their numbers

    async def route(self, request: Any) -> Response:
        said, number = next(self.plan), int(dict(request.fields)["x-number"])
        run = len(self.runs)
        self.runs.append(Ran(number, self.asking[number], said, self.site.clock.wall(), next(self.ticks)))
        await asyncio.sleep(0)
        self.ended[run] = next(self.ticks)
        words = [*said.words, *(f"{name}={seconds}" for name, seconds in said.seconds)]
        found = [("x-run", str(run))]
        found += [("cache-control", ", ".join(words))] if words else []
        found += [("vary", name) for name in said.vary]
        found += [("set-cookie", "sid=x")] if said.cookie else []
        found += [("age", str(said.age))] if said.age else []
        return Response(said.status, tuple(found), f"run {run}".encode())

    async def ask(self, asked: Ask) -> None:
        begun, number = next(self.ticks), len(self.asking)
        self.asking[number] = asked
        sent = {name.replace("-", "_"): value for name, value in (*asked.visitor.credentials, *asked.varies)}
        if asked.said:
            sent["cache_control"] = asked.said
        if asked.known and (tag := self.seen.get((asked.path, asked.query))):
            sent["if_none_match"] = tag
        before = len(self.runs)
        answer = await self.site.ask(
            asked.path, method=asked.method, query=asked.query, host=asked.host, scheme=asked.scheme,
            user=asked.visitor.user, x_number=str(number), **sent,
        )  # fmt: skip
        if answer.status == 504:
            assert asked.said == "only-if-cached"
            return
        if asked.method == "POST" and answer.status < 400:
            self.outdated.append((self.place(asked), begun, next(self.ticks)))
        if answer.status == 304:
            run = self.tags[answer["etag"]]
        else:
            run = int(answer.body.split()[1])
            if answer["etag"]:
                self.tags[answer["etag"]] = run
                self.seen[asked.path, asked.query] = answer["etag"]
        if run >= before and self.runs[run].number == number:
            event("own run")
            return
        event("shared")
        failed = answer.status == 500 and answer["x-cache"] == "MISS" and begun < self.ended[run]  # and both waited
        self.judge(asked, self.runs[run], begun, answer, failed)

    @staticmethod
    def place(asked: Ask) -> tuple[str, str, str]:
        return asked.scheme, asked.host.lower().removesuffix(":80"), asked.path

    def judge(self, asked: Ask, ran: Ran, begun: int, answer: Any, failed: bool) -> None:
        """Whether what one visitor's run brought may be given to another, or to the same again."""
        said, words, seconds = ran.said, set(ran.said.words), dict(ran.said.seconds)
        user, proxy = asked.visitor.user, self.site.rules.proxy
        opened = bool(words & {"public", "must-revalidate"}) or "s-maxage" in seconds
        for visitor in (asked.visitor, ran.asked.visitor):
            names = dict(visitor.credentials)
            assert user is not None or "cookie" not in names, "credentials"
            assert user is not None or "authorization" not in names or (proxy and opened), "credentials"
        assert ran.asked.visitor.user == user, "another user"
        assert "private" not in words or user is not None, "private"
        assert not words & {"no-store", "no-cache"} and not said.cookie, "not to be stored"
        assert failed or said.status in (200, 203, 301) or (proxy and said.status in (404, 500)), "status"
        assert ran.asked.method == "GET" and asked.method in ("GET", "HEAD"), "method"
        assert "no-store" not in (asked.said, ran.asked.said) and asked.said != "no-cache", "asked"
        assert self.place(asked) == self.place(ran.asked), "target"
        assert sorted(asked.query.split(b"&")) == sorted(ran.asked.query.split(b"&")), "query"
        assert "*" not in said.vary, "vary"
        for name in map(str.lower, said.vary):
            values = [dict((*each.visitor.credentials, *each.varies)).get(name) for each in (asked, ran.asked)]
            assert values[0] == values[1], "vary"
            assert name != "cookie" or user is not None, "vary by cookie"
        place = self.place(asked)
        assert not any(at == place and ran.tick < since and to < begun for at, since, to in self.outdated), "outdated"
        if not failed:
            self.judge_age(asked, ran, answer)

    def judge_age(self, asked: Ask, ran: Ran, answer: Any) -> None:
        words, seconds = set(ran.said.words), dict(ran.said.seconds)
        life = seconds.get("s-maxage", seconds.get("max-age", None if self.site.rules.ttl is None else TTL))
        assert life is not None
        age = ran.said.age + self.site.clock.wall() - ran.at
        assert answer["age"] in (None, str(int(age)))  # None: by the run itself, which others waited for
        assert asked.said != "max-age=20" or age <= 20
        assert asked.said != "min-fresh=20" or life - age >= 20
        if age < life:
            return
        event("stale")
        assert answer["x-cache"] == "STALE" and "s-maxage" not in seconds
        assert not words & {"must-revalidate", "proxy-revalidate"}
        windows = [seconds[name] for name in ("stale-while-revalidate", "stale-if-error") if name in seconds]
        assert age - life <= (max(windows) if windows else STALE_TTL)


@pytest.mark.parametrize("rules", [Rules(ttl=TTL), Rules(ttl=None, proxy=True)], ids=["site", "proxy"])
@pytest.mark.parametrize("options", [{}, {"stale_ttl": STALE_TTL, "swr": True}], ids=["fresh", "stale"])
@pytest.mark.parametrize(
    "examples", [30, pytest.param(200, marks=pytest.mark.slow), pytest.param(1000, marks=pytest.mark.nightly)]
)
def test_nobody_is_given_what_is_for_others(
    make_sites: Any, rules: Rules, options: dict[str, Any], examples: int
) -> None:
    @given(pool=pools, plan=rounds, answers=st.lists(saids, min_size=1, max_size=6))
    @settings(max_examples=examples, deadline=None)
    def told(pool: list[Ask], plan: list[tuple[list[int], int]], answers: list[Said]) -> None:
        asyncio.run(story(make_sites(), rules, options, pool, plan, answers))

    told()


async def story(
    sites: Any, rules: Rules, options: dict[str, Any], pool: list[Ask], plan: list[tuple[list[int], int]],
    answers: list[Said],
) -> None:  # fmt: skip
    try:
        world = World(sites(rules, **options), answers)
        for together, later in plan:
            await asyncio.gather(*[world.ask(pool[number % len(pool)]) for number in together])
            assert await world.site.service.async_port.wait_for_tasks(10)
            world.site.clock.advance(later)
    finally:
        await sites.aclose()
