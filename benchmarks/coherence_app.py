"""What the processes of coherence.py run."""

import socket
import threading
import time
from typing import Any

from cachekit import cache, configure, health, region
from cachekit.l2.reach import Reach

SET = b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$200\r\n%b\r\n$2\r\nPX\r\n$5\r\n60000\r\n"

heard: dict[str, float] = {}


@cache(profile="users", version=1)
def load(key: int) -> int:
    time.sleep(0.05)
    return key


def begin(url: str, namespace: str, lease: str) -> None:
    profile = {"ttl": "1h", "jitter": 0, "lease": lease}
    configure(namespace=namespace, backends={"default": {"url": url}}, profiles={"users": profile}, replace=True)
    deadline = time.monotonic() + 20
    while health().backends["default"].coherence != "tracking" and time.monotonic() < deadline:
        region("users").get("warm")
        time.sleep(0.01)
    assert health().backends["default"].coherence == "tracking"


def note_changes() -> None:
    """From now on, write down when each change was heard of."""
    changed = Reach.changed

    def noted(self: Reach, name: str) -> None:
        changed(self, name)
        heard[name] = time.monotonic()

    Reach.changed = noted  # type: ignore[method-assign]


def invalidate(count: int) -> dict[str, float]:
    """Delete so many keys, now and then; when each deletion began."""
    began = {}
    users = region("users")
    for number in range(count):
        key = f"k{number}"
        began[key] = time.monotonic()
        users.delete(key)
        time.sleep(0.002)
    return began


def when_heard(prefix: str) -> dict[str, float]:
    return {name[len(prefix) : -1]: at for name, at in heard.items() if name.startswith(prefix)}


def write(port: int, prefix: str, rate: int, seconds: float) -> int:
    """So many SETs a second of other keys of the region; how many there were."""
    sock = socket.create_connection(("127.0.0.1", port))
    value, sent, step, began = b"x" * 200, 0, rate // 200, time.monotonic()
    drain = threading.Thread(target=_drain, args=(sock,), daemon=True)
    drain.start()
    while (now := time.monotonic()) < began + seconds:
        if sent < (now - began) * rate:
            for number in range(sent, sent + step):
                name = f"{prefix}filler{number % 5000}}}".encode()
                sock.sendall(SET % (len(name), name, value))
            sent += step
        else:
            time.sleep(0.0005)
    sock.close()
    return sent


def _drain(sock: socket.socket) -> None:
    try:
        while sock.recv(65_536):
            pass
    except OSError:
        pass


def many(count: int, key: int) -> list[float]:
    """Seconds that each of so many threads waited for a cold key."""
    seconds: list[float] = []
    barrier = threading.Barrier(count)

    def one() -> None:
        barrier.wait()
        began = time.monotonic()
        load(key)
        seconds.append(time.monotonic() - began)

    threads: list[Any] = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds
