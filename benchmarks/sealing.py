"""What encryption and signatures cost: a hit in L2 of a value of 1 KiB, and the bytes around it.

    python benchmarks/sealing.py [--json] [--rounds N]

Profiles that differ in nothing else, over a real server, in turns. Nothing is compressed, so that all decode the same
bytes. Every call is checked to have been a hit in L2 and to give the same value.
"""

import argparse
import asyncio
import hashlib
import json
import os
import sys
from typing import Any

from interleave import ROUNDS, Row, awaited, awake, interleave, loop, report

from cachekit import cache, configure
from cachekit.metrics import attach
from cachekit.process import default_service
from cachekit.testing.servers import Server, start_server

BOUNDS = {"encrypted, sync": 1.05, "encrypted, async": 1.05}
OVERHEAD = {"plain": 76, "encrypted": 100, "signed": 88}  # bytes beside the payload, without tags and validators
RECORD = {f"field_{number:02}": f"{number:02} some text" for number in range(46)}
COMMON: dict[str, Any] = {"l1": {"mode": "off"}, "compression": "none", "early_refresh": "off", "ttl": "1h"}
PROFILES = {"plain": COMMON, "encrypted": {**COMMON, "encrypt": True}, "signed": {**COMMON, "sign": True}}
CALLS = 25  # in one round; few, so that among many rounds there are some that nothing disturbs
BACKEND: dict[str, Any] = {"budget": "10s", "adaptive": False}  # of which a busy machine takes nothing away
runs = 0


def fetch(key: int) -> dict[str, Any]:
    global runs
    runs += 1
    return RECORD


async def afetch(key: int) -> dict[str, Any]:
    return fetch(key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=30 * ROUNDS)
    options = parser.parse_args()
    os.environ["CACHEKIT_MASTER_KEY"] = hashlib.sha256(os.urandom(32)).hexdigest()
    with awake(), start_server("valkey") as server, asyncio.Runner() as runner:
        rows, sizes = measure(server, runner, options.rounds)
    if options.json:
        print(json.dumps({**json.loads(report(rows, as_json=True)), "bytes around the payload": sizes}))
    else:
        print(report(rows, as_json=False))
        for name, size in sizes.items():
            print(f"{name}: {size} bytes around the payload")
    over = [
        f"{row.name} {row.ratio:.3f}x > {BOUNDS[row.name]}x" for row in rows if row.ratio > BOUNDS.get(row.name, 99)
    ]
    over += [f"{name} {size} bytes, not {OVERHEAD[name]}" for name, size in sizes.items() if size != OVERHEAD[name]]
    if over:
        print("over the bound: " + "; ".join(over), file=sys.stderr)
        sys.exit(1)


def measure(server: Server, runner: asyncio.Runner, rounds: int) -> tuple[list[Row], dict[str, int]]:
    configure(namespace="bench", backends={"default": BACKEND | {"url": server.url}}, profiles=PROFILES)
    attach(default_service())
    pieces, sizes, functions = {}, {}, []
    for name in PROFILES:
        f, g = cache(profile=name)(fetch), cache(profile=name)(afetch)
        functions += [f, g]
        assert f(7) == runner.run(g(7)) == RECORD
        assert f(7) == runner.run(g(7)) == RECORD
        sizes[name] = len(server.command("GET", str(f.key(7)))) - PAYLOAD
        pieces[f"{name}, sync"] = loop("f(7)", {"f": f}, CALLS)
        pieces[f"{name}, async"] = awaited(runner, lambda g=g: g(7), CALLS)
    references = {name: "plain," + name.partition(",")[2] for name in pieces}
    for measured in pieces.values():
        measured()
    before = runs
    rows = interleave(pieces, references, rounds)
    assert runs == before, "every call was a hit"
    assert all(f.cache_info().l2_hits >= rounds * CALLS for f in functions)
    return rows, sizes


def payload() -> int:
    from cachekit.codec import serializers

    return len(serializers.dump(RECORD, plain=True, limit=2**20)[1])


PAYLOAD = payload()
assert 960 <= PAYLOAD <= 1088, PAYLOAD

if __name__ == "__main__":
    main()
