"""Which server the connections lead to: noticed when one is opened, told when it is another than before."""

import os
import threading
from collections.abc import Callable
from typing import NamedTuple


class Identity(NamedTuple):
    """A server: where a connection ended, and what it says it is ("" when it does not tell), see `commands.identified`.

    Two runs are two servers, since what the first knew of us is gone; so is one run that has taken over the data of
    another. One run behind two addresses is one server.
    """

    address: str
    who: str = ""

    def same(self, other: "Identity") -> bool:
        if self.who.strip("0") and other.who.strip("0"):
            return self.who == other.who
        return self.address == other.address


class Peer:
    """What is known of one node. ``known`` is the server that the newest connection reached: compare it with `is`."""

    __slots__ = ("_peers", "known")

    def __init__(self, peers: "Peers | None" = None) -> None:
        self._peers = peers
        self.known: Identity | None = None

    def met(self, found: Identity) -> Identity:
        """A connection has reached this server; returns what stands for it in `known`.

        When it is another than before, those who must know have been told as soon as this returns, in any thread.
        """
        if self._peers is None:
            self.known = found
            return found
        with self._peers.lock():
            known = self.known
            if known is not None and known.same(found):
                if found.who and not known.who:  # the right to ask was given meanwhile
                    self.known = found
                return self.known or found
            self.known = found
            if known is not None and self._peers.on_move is not None:
                self._peers.on_move()
            return found


class Peers:
    """All nodes of a backend, by name: "" for the one of a single server. Shared by all its connections."""

    def __init__(self) -> None:
        self.on_move: Callable[[], object] | None = None
        self._nodes: dict[str, Peer] = {}
        self._locks: dict[int, threading.RLock] = {}

    def node(self, name: str = "") -> Peer:
        return self._nodes.get(name) or self._nodes.setdefault(name, Peer(self))

    def lock(self) -> threading.RLock:
        """Of this process, since another thread may have held the parent's at the fork.

        It is held while `on_move` runs, so that nobody uses a connection to a server whose news is on its way only.
        """
        pid = os.getpid()
        return self._locks.get(pid) or self._locks.setdefault(pid, threading.RLock())
