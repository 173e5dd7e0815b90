"""What the processes of test_file_processes.py run that are killed: every operation on one file, without a pause.

    python file_hammer.py PATH SEED

It writes a line for each answer that is wrong, and "ready" once it works.
"""

import hashlib
import os
import random
import sys
import traceback
from pathlib import Path

from cachekit.backends.file.backend import FileBackend
from cachekit.errors import BackendError

KEYS = 60
MINUTE = 60_000
BUDGET = 5.0


def value(key: str, rng: random.Random) -> bytes:
    """Bytes that say themselves whether they are whole and this key's."""
    payload = rng.randbytes(rng.choice((10, 1_000, 20_000)))
    return hashlib.sha256(key.encode() + payload).digest() + payload


def judge(key: str, data: bytes | None) -> None:
    if data is not None and data[:32] != hashlib.sha256(key.encode() + data[32:]).digest():
        print(f"{key}: not what was stored there", flush=True)


def step(backend: FileBackend, rng: random.Random) -> None:
    key, token = f"hammer:v:{{r:{rng.randrange(KEYS)}}}", os.urandom(16)
    stamp = f"hammer:t:{{r}}:{rng.randrange(KEYS)}"
    what = rng.randrange(6)
    if what == 0:
        backend.invalidate([key], budget=BUDGET)
    elif what == 1:
        backend.store(key, value(key, rng), MINUTE, None, budget=BUDGET)
    elif what == 2:
        judge(key, backend.get(key, budget=BUDGET))
    elif what == 3:
        backend.stamps([stamp], [token[:8]], MINUTE, budget=BUDGET)
        backend.clear([stamp], budget=BUDGET)
    else:
        leased = backend.lease(key, token, 50, None, what == 5, budget=BUDGET)
        if leased.kind == "held" and what == 5:
            backend.invalidate([key], budget=BUDGET)
            if backend.store(key, b"stale", MINUTE, token, budget=BUDGET):
                print(f"{key}: stored after an invalidation", flush=True)
        elif leased.kind == "held":
            backend.store(key, value(key, rng), MINUTE, token, budget=BUDGET)


def main() -> None:
    rng, backend = random.Random(sys.argv[2]), FileBackend(Path(sys.argv[1]), 1024 * 1024, 0.05)
    step(backend, rng)
    print("ready", flush=True)
    while True:
        try:
            step(backend, rng)
        except BackendError as error:
            print(f"{error.reason}: {error}", flush=True)
        except BaseException:
            print(traceback.format_exc(), flush=True)


if __name__ == "__main__":
    main()
