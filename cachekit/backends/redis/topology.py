"""Where the primaries are: one server, the one that Sentinel names, or those of a cluster. Shared by both faces.

The push listener holds a connection to every primary, sends the topology's question with each heartbeat, and lets it
judge the answer; the data connections ask it where a command belongs.
"""

from typing import Any, Protocol

from cachekit.backends.redis.address import Address
from cachekit.backends.redis.resp import Word


class Topology(Protocol):
    """What the listener needs to know. All methods may be called from any thread; times are of `time.monotonic`."""

    @property
    def question(self) -> tuple[Word, ...]:
        """A command that goes along with each heartbeat and tells whether the primaries are still the same, or ()."""

    def primaries(self, deadline: float) -> list[Address]:
        """All primaries as of now, asked anew. Blocks until ``deadline`` at most. Raises `BackendError`."""

    def judge(self, answer: Any) -> None:
        """Raises `BackendError` (Fault.DOWN, "moved") when the answer to `question` tells of a change.

        An answer that is an error because the right to ask is missing is no news.
        """

    def watchers(self) -> list[tuple[Address, tuple[Word, ...]]]:
        """Connections that only listen, with what to send on each: a message on one may mean that a primary changed."""

    def concerns(self, message: bytes) -> bool:
        """Whether what a watcher heard is about one of our primaries."""


class Single:
    """One server at one address."""

    question: tuple[Word, ...] = ()

    def __init__(self, address: Address) -> None:
        self.address = address

    def primaries(self, deadline: float) -> list[Address]:
        return [self.address]

    def judge(self, answer: Any) -> None:
        """There is no question."""

    def watchers(self) -> list[tuple[Address, tuple[Word, ...]]]:
        return []

    def concerns(self, message: bytes) -> bool:
        return True
