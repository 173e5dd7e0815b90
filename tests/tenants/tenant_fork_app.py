"""What the processes of test_tenants_in_processes.py run."""

import json
import os
import signal
from typing import Any

from cachekit import MISS, cache, configure, region, tenant
from cachekit.context import TENANT


@cache(profile="users", version=1)
def load(key: int) -> list[Any]:
    return [TENANT.get(), os.getpid()]


def begin(url: str, profile: dict[str, Any], key: str) -> None:
    os.environ["CACHEKIT_MASTER_KEY"] = key
    backends = {"default": {"url": url, "budget": "5s", "adaptive": False}}
    configure(namespace="tenants", backends=backends, profiles={"users": {"jitter": 0, **profile}}, replace=True)


def ask(who: str) -> list[Any]:
    with tenant(who):
        return load(1)


def peek(who: str) -> Any:
    with tenant(who):
        value = load.peek(1)
        return None if value is MISS else value


def ask_nobody() -> list[Any]:
    return load(1)


def clear(who: str | None, what: str) -> str:
    if who is None:
        return region("users").clear().name if what == "clear" else load.invalidate_all().name
    with tenant(who):
        return region("users").clear().name if what == "clear" else load.invalidate_all().name


def fork_inside(who: str) -> dict[str, Any]:
    """What a child sees that was forked inside of a block, and then outside of it."""
    read, write = os.pipe()
    with tenant(who):
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)
            inside = load(1)
            os.write(write, json.dumps({"inside": inside}).encode() + b"\n")
            os._exit(0)
        told = json.loads(os.read(read, 10_000))
    os.waitpid(pid, 0)
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        told["outside"] = load(1)
        with tenant("other"):
            told["other"] = load(1)
        os.write(write, json.dumps(told).encode() + b"\n")
        os._exit(0)
    told = json.loads(os.read(read, 10_000))
    os.waitpid(pid, 0)
    return told  # type: ignore[no-any-return]
