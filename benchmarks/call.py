"""What a whole cached call costs, as a user writes it: `@cache` and a real server.

    python benchmarks/call.py [--json] [--rounds N]

L1 hits are compared with `functools.lru_cache` without a TTL, L2 hits with redis-py's GET and msgpack decode of the
same value. TTL, statistics and a metrics collector are on; every piece is checked to be what it says.
"""

import argparse
import asyncio
import functools
import json
import subprocess
import sys
from typing import Any

import msgpack
import redis
import redis.asyncio
from interleave import ROUNDS, Row, awaited, awake, interleave, loop, report

from cachekit import cache, configure
from cachekit.metrics import attach, exposition
from cachekit.process import default_service
from cachekit.testing.servers import start_server

BOUNDS = {
    "L1 int": 4.0, "L1 str": 4.0, "L1 two arguments": 2.5, "L1 method": 2.5, "L1 int, Redis configured": 4.0,
    "L2 sync": 1.10, "L2 async": 1.10, "import cachekit": None,
}  # fmt: skip
RECORD = {
    f"field_{number}": value
    for number, value in enumerate([1, "two", 3.0, True, None, "six" * 5, 7, "8", 9, "x" * 120])
}
runs = 0


def plain(x: Any) -> Any:
    return x


def pair(x: Any, y: Any) -> Any:
    return x


class Theirs:
    @functools.lru_cache  # noqa: B019  # it is what we compare with
    def method(self, x: int) -> int:
        return x


class Ours:
    @cache(profile="local", ignore=("self",))
    def method(self, x: int) -> int:
        return x


@cache(profile="remote")
def fetch(key: int) -> dict[str, Any]:
    global runs
    runs += 1
    return RECORD


@cache(profile="remote")
async def afetch(key: int) -> dict[str, Any]:
    global runs
    runs += 1
    return RECORD


def import_ms(rounds: int = 15) -> Row:
    """CPU of `import cachekit` above that of a bare interpreter: the minimum of interleaved fresh processes."""

    def cpu(code: str) -> float:
        program = f"import time; a=time.process_time(); {code}; print(time.process_time()-a)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return float(done.stdout)

    names = {"import cachekit": "import cachekit", "from cachekit import cache": "from cachekit import cache"}
    best = {name: min(cpu(code) for _ in range(rounds)) for name, code in names.items()}
    ms = best["import cachekit"] * 1000
    assert ms <= 20, f"import cachekit: {ms:.1f} ms"
    return Row("import cachekit", ms * 1e6, ms / 20, "20 ms"), Row(
        "from cachekit import cache",
        best["from cachekit import cache"] * 1e9,
        best["from cachekit import cache"] / 0.02,
        "20 ms",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=2 * ROUNDS)
    options = parser.parse_args()
    with awake(), start_server("valkey") as server, asyncio.Runner() as runner:
        rows = measure(server.url, runner, options.rounds)
    rows += import_ms()
    print(report(rows, as_json=options.json))
    over = [
        f"{row.name} {row.ratio:.2f}x > {BOUNDS[row.name]}x" for row in rows if row.ratio > (BOUNDS.get(row.name) or 99)
    ]
    if over:
        print(
            json.dumps({"over the bound": over}) if options.json else "over the bound: " + "; ".join(over),
            file=sys.stderr,
        )
        sys.exit(1)


def measure(url: str, runner: asyncio.Runner, rounds: int) -> list[Row]:
    profiles = {"remote": {"l1": {"mode": "off"}}, "both": {"ttl": "1h"}}
    configure(namespace="bench", backends={"default": {"url": url}}, profiles=profiles)
    attach(default_service())
    local, local_pair, both = cache.local(plain), cache.local(pair), cache(profile="both")(plain)
    lru, lru_pair, ours, theirs = functools.lru_cache(plain), functools.lru_cache(pair), Ours(), Theirs()
    client = redis.Redis.from_url(url)
    aclient = redis.asyncio.Redis.from_url(url)
    client.set("plain", msgpack.packb(RECORD))

    async def get() -> Any:
        return msgpack.unpackb(await aclient.get("plain"))

    pieces = {
        "lru_cache int": loop("f(7)", {"f": lru}),
        "L1 int": loop("f(7)", {"f": local}),
        "L1 int, Redis configured": loop("f(7)", {"f": both}),
        "lru_cache str": loop("f('user:1234')", {"f": lru}),
        "L1 str": loop("f('user:1234')", {"f": local}),
        "lru_cache two arguments": loop("f(7, 'de')", {"f": lru_pair}),
        "L1 two arguments": loop("f(7, 'de')", {"f": local_pair}),
        "lru_cache method": loop("o.method(7)", {"o": theirs}),
        "L1 method": loop("o.method(7)", {"o": ours}),
        "redis-py GET + msgpack": loop("u(g('plain'))", {"u": msgpack.unpackb, "g": client.get}, 300),
        "L2 sync": loop("f(7)", {"f": fetch}, 300),
        "redis.asyncio GET + msgpack": awaited(runner, get),
        "L2 async": awaited(runner, lambda: afetch(7)),
    }
    references = {name: name for name in pieces}
    references |= {name: "lru_cache " + name[3:].split(",")[0] for name in pieces if name.startswith("L1")}
    references |= {"L2 sync": "redis-py GET + msgpack", "L2 async": "redis.asyncio GET + msgpack"}
    for measured in pieces.values():
        measured()
    assert fetch(7) == runner.run(afetch(7)) == msgpack.unpackb(client.get("plain")) == RECORD
    before = runs
    rows = interleave(pieces, references, rounds)
    assert runs == before, "every L2 call was a hit"
    for function in (local, local_pair, Ours.method):
        assert function.cache_info().l1_hits > rounds * 1000, "every L1 call was a hit"
    assert fetch.cache_info().l2_hits >= rounds * 300
    assert afetch.cache_info().l2_hits >= rounds * 200
    assert b"cachekit_cache_hits_total" in exposition(default_service())[1]
    client.close()
    runner.run(aclient.aclose())
    return rows


if __name__ == "__main__":
    main()
