"""What the file backend costs, compared with a file for each entry and with the other journal of SQLite, in one run.

    python benchmarks/file_backend.py [--json] [--rounds N]

A server on loopback is beside them, for whoever chooses between the two.
"""

import argparse
import importlib.util
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interleave import ROUNDS, awake, interleave, loop, report

from cachekit.backends.base import BaseBackend
from cachekit.backends.file.backend import FileBackend
from cachekit.backends.redis import open_redis
from cachekit.config.spec import BackendSpec
from cachekit.testing.servers import Server, start_server

EXAMPLE = Path(__file__).parents[1] / "examples" / "directory_backend" / "cachekit_directory.py"
KEY = "bench:v:{users:app.views.get_user:1:9f3c2b7a}"
VALUE = b"x" * 1_000
CALLS = 100
BOUNDS = {"get": 2.0, "store": 1.0}
REFERENCES = {
    **dict.fromkeys(["get", "get, a file each", "get, server"], "get, a file each"),
    **dict.fromkeys(["store", "store, other journal", "store, a file each", "store, server"], "store, a file each"),
}


def directory_backend(path: Path) -> BaseBackend:
    spec = importlib.util.spec_from_file_location("cachekit_directory", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path.mkdir()
    made: BaseBackend = module.DirectoryBackend(path)
    return made


def other_journal(path: Path) -> FileBackend:
    """The same tables, with the journal that SQLite has by itself."""
    backend = FileBackend(path, 1 << 28, 0.05)
    backend.get(KEY, budget=5.0)
    backend.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    connection.close()
    return backend


def pieces(directory: Path, server: Server) -> dict[str, Callable[[], float]]:
    backends: dict[str, Any] = {
        "": FileBackend(directory / "wal.db", 1 << 28, 0.05),
        ", other journal": other_journal(directory / "delete.db"),
        ", a file each": directory_backend(directory / "entries"),
        ", server": open_redis(BackendSpec(url=server.url)).sync,
    }
    found = {}
    for suffix, backend in backends.items():
        backend.store(KEY, VALUE, None, None, budget=5.0)
        assert backend.get(KEY, budget=5.0) == VALUE
        names = {"ours": backend, "key": KEY, "value": VALUE}
        found[f"get{suffix}"] = loop("ours.get(key, budget=0.25)", names, CALLS)
        found[f"store{suffix}"] = loop("ours.store(key, value, 60_000, None, budget=5.0)", names, CALLS)
    return {name: found[name] for name in REFERENCES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with awake(), start_server("valkey") as server, tempfile.TemporaryDirectory() as directory:
        rows = interleave(pieces(Path(directory), server), REFERENCES, options.rounds)
    print(report(rows, as_json=options.json))
    over = [
        f"{row.name}: {row.ratio:.2f}x, bound {BOUNDS[row.name]}"
        for row in rows
        if row.ratio > BOUNDS.get(row.name, 1e9)
    ]
    if over:
        raise SystemExit("above its bound: " + "; ".join(over))


if __name__ == "__main__":
    main()
