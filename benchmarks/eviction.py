"""Which share of the requests of a trace the table answers, against S3-FIFO and LRU of the same size.

    python benchmarks/eviction.py [--json] [--traces DIR] [--only NAME] [--long]

A trace is a file ``NAME.xz`` or ``NAME.ids.zst`` in DIR (default: ``$CACHEKIT_TRACES``, else the one of the tests); the
README in `tests/l1/traces` describes its contents. ``NAME.sizes.zst`` or ``NAME.sizes.xz`` has the bytes of each
request in the same way; without it values are given weights whose logarithm is distributed normally. Rows are bound by
entries, then by bytes: as many as so many values of mean weight occupy. Traces of more than a million requests run with
the native twin only, or with ``--long``.

Exits 1 if

* on any trace, the hits are not the same, one by one, as those of the policies written plainly: bound by entries
  S3-FIFO as published, bound by bytes ours, and LRU with the policy ``lru``;
* on a trace for which we know that of libCacheSim 0.3.5, the mean over the sizes, bound by entries, is more than 0.3
  points from it, or, bound by bytes, is not at least 1 point more than that of S3-FIFO as published.
"""

import argparse
import json
import lzma
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from cachekit.l1 import table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "l1"))  # the plain policies, and the rig around a table

from l1_eviction import NO_BOUND, TRACES, Kept, Lru, S3Fifo, lognormal, ratio, run, unpack
from l1_rig import Rig

LONG = 1_000_000  # requests
PUBLISHED = {  # entries, and the mean hit ratio of S3-FIFO
    "web07": ([200, 820, 2000, 5100], 54.68),
    "orm-night": ([860, 3500, 8600, 22000], 84.84),
    "arc-OLTP": ([1000, 2000, 5000, 15000], 52.44),
    "multi3": ([75, 300, 750, 1900], 37.03),
    "adaptsize-cdn": ([400, 1600, 4000, 10000], 30.32),
}


class Trace(NamedTuple):
    """The requests, and what each key weighs."""

    name: str
    requests: Sequence[int]
    weights: dict[int, int]

    @property
    def sizes(self) -> Sequence[int]:
        """In entries: as published, or shares of all keys."""
        keys = len(self.weights)
        if self.name in PUBLISHED:
            return PUBLISHED[self.name][0]
        return [max(1, keys * share // 100) for share in (1, 4, 10, 25)]


class Row(NamedTuple):
    """Hit ratios in % at one size. ``exact``: the table has the hits of the plain policies, one by one."""

    trace: str
    bound: str
    size: int
    table: float
    s3fifo: float
    lru: float
    exact: bool


def read(path: Path) -> Sequence[int]:
    packed = path.read_bytes()
    if path.suffix == ".zst":
        import zstandard  # only these files need it

        return unpack(zstandard.ZstdDecompressor().decompress(packed))
    return unpack(lzma.decompress(packed))


def traces(folder: Path, only: str | None) -> Iterator[Trace]:
    for path in sorted([*folder.glob("*.ids.zst"), *folder.glob("*.xz")]):
        name = path.name.partition(".")[0]
        if ".sizes." in path.name or name != (only or name):
            continue
        requests = read(path)
        sizes = [other for other in folder.glob(f"{name}.sizes.*") if other.suffix in (".zst", ".xz")]
        if sizes:
            yield Trace(name, requests, dict(zip(requests, read(sizes[0]), strict=True)))
        else:
            yield Trace(name, requests, {key: lognormal(key) for key in dict.fromkeys(requests)})


def kept(**options: Any) -> Kept:
    return Kept(partial(Rig, table), **options)


def alike(ours: Sequence[bool], plain: Sequence[bool]) -> bool:
    """The same hits. The native table knows ghosts by 32 bits, and may once in a while take one for another."""
    others = sum(a != b for a, b in zip(ours, plain, strict=True))
    return others == 0 if table.TWIN == "pure" else others * 10_000 <= len(ours)


def by_entries(trace: Trace, size: int) -> Row:
    ours = run(kept(max_entries=size), trace.requests)
    plain = run(S3Fifo(size, sized=False), trace.requests)
    lru = run(Lru(size), trace.requests)
    exact = alike(ours, plain) and run(kept(max_entries=size, policy="lru"), trace.requests) == lru
    return Row(trace.name, "entries", size, ratio(ours), ratio(plain), ratio(lru), exact)


def by_bytes(trace: Trace, size: int) -> Row:
    max_bytes = size * sum(trace.weights.values()) // len(trace.weights)

    def hits(cache: Any) -> Sequence[bool]:
        return run(cache, trace.requests, trace.weights.__getitem__)

    ours = hits(kept(max_entries=NO_BOUND, max_bytes=max_bytes))
    plain = hits(S3Fifo(NO_BOUND, max_bytes, sized=False))
    lru = hits(Lru(NO_BOUND, max_bytes))
    exact = alike(ours, hits(S3Fifo(NO_BOUND, max_bytes))) and lru == hits(
        kept(max_entries=NO_BOUND, max_bytes=max_bytes, policy="lru")
    )
    return Row(trace.name, "bytes", size, ratio(ours), ratio(plain), ratio(lru), exact)


def failures(name: str, rows: Sequence[Row]) -> Iterator[str]:
    """What is wrong with the rows of one trace."""
    yield from (
        f"{name}, {row.size} by {row.bound}: not the hits of the plain policies" for row in rows if not row.exact
    )
    if name not in PUBLISHED:
        return
    ours = {bound: mean([row.table for row in rows if row.bound == bound]) for bound in ("entries", "bytes")}
    if abs(ours["entries"] - PUBLISHED[name][1]) > 0.3:
        yield f"{name} by entries: {ours['entries']:.2f} %, S3-FIFO has {PUBLISHED[name][1]} %"
    plain = mean([row.s3fifo for row in rows if row.bound == "bytes"])
    if ours["bytes"] < plain + 1:
        yield f"{name} by bytes: {ours['bytes']:.2f} %, S3-FIFO has {plain:.2f} %"


def show(rows: Sequence[Row]) -> Iterator[str]:
    """Lines for people, with the mean of each trace and bound."""
    yield f"{'trace':16}{'bound':10}{'size':>8}{'table':>9}{'S3-FIFO':>9}{'LRU':>9}"
    for bound in ("entries", "bytes"):
        some = [row for row in rows if row.bound == bound]
        for row in some:
            yield f"{row.trace:16}{bound:10}{row.size:>8}{row.table:9.2f}{row.s3fifo:9.2f}{row.lru:9.2f}"
        means = [mean(column) for column in zip(*[row[3:6] for row in some], strict=True)]
        yield f"{some[0].trace:16}{bound:10}{'mean':>8}" + "".join(f"{value:9.2f}" for value in means)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--traces", type=Path, default=Path(os.environ.get("CACHEKIT_TRACES", TRACES)), metavar="DIR")
    parser.add_argument("--only", metavar="NAME", help="one trace of them")
    parser.add_argument("--long", action="store_true", help="long traces also in pure Python")
    options = parser.parse_args()

    rows: list[Row] = []
    wrong: list[str] = []
    for trace in traces(options.traces, options.only):
        if len(trace.requests) > LONG and table.TWIN == "pure" and not options.long:
            print(f"{trace.name}: {len(trace.requests)} requests, left out; --long", file=sys.stderr)
            continue
        some = [by_entries(trace, size) for size in trace.sizes] + [by_bytes(trace, size) for size in trace.sizes]
        rows += some
        wrong += failures(trace.name, some)
        if not options.json:
            print("\n".join(show(some)), flush=True)
    assert rows, f"no traces in {options.traces}"
    if options.json:
        print(json.dumps({"twin": table.TWIN, "rows": [row._asdict() for row in rows], "wrong": wrong}, indent=1))
    else:
        print("\n".join([f"twin: {table.TWIN}", *wrong]))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
