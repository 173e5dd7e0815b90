"""The way of a command through a cluster: to the node that has its slot, and on to where that sends it."""

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar, cast

from cachekit.backends.redis import aio, transport
from cachekit.backends.redis.address import Address, Cluster
from cachekit.backends.redis.commands import Command, dialogue, heads, judged, read_info, scan, with_heads
from cachekit.backends.redis.errors import Redirect, from_reply, no_cluster, timed_out
from cachekit.backends.redis.peers import Peers
from cachekit.backends.redis.resp import ReplyError, Word, pack
from cachekit.backends.redis.slots import EPOCH, MAP, SLOTS, Node, Piece, SlotMap, draw, merge, split
from cachekit.backends.redis.walk import async_walk, walk
from cachekit.errors import BackendError, Fault

T = TypeVar("T")

MOVES: Final = 5  # how often one command is sent on
ASKED: Final = 8  # nodes that are asked for the map, besides those of the URL
SHARE: Final = 3  # the part of what is left of the time that one of them gets
LOST: Final = ("connection", "timeout", "loading", "protocol")  # reasons to ask whether a node still has its slots
ASKING: Final = pack(("ASKING",))


@dataclass(frozen=True, slots=True)
class Send:
    """A step: one command to one node; its result is the command's."""

    node: Node
    command: Command[Any]
    deadline: float
    asking: bool = False  # whether the node does not have the slot yet, and another has sent us here


@dataclass(frozen=True, slots=True)
class SendAll:
    """A step: several plain commands to one node in one packet; its result is a list of theirs and of failures."""

    node: Node
    commands: Sequence[Command[Any]]
    deadline: float


Steps = Generator[Send | SendAll, Any, T]


class Routes:
    """What is known of a cluster: shared by both faces and all threads, each of which may replace the map."""

    def __init__(self, place: Cluster, peers: Peers) -> None:
        self.place = place
        self.map = SlotMap([None] * SLOTS)
        self._peers = peers
        self._nodes: dict[str, Node] = {}
        self._seeds = [self.node(address.host, address.port) for address in place.nodes]
        self._doubted: set[Node] = set()  # that failed since they last served a command

    def node(self, host: str, port: int) -> Node:
        node = Node(self.place.at(host, port))
        return self._nodes.setdefault(node.name, node)

    # Procedures.

    def run(self, command: Command[T], deadline: float) -> Steps[T]:
        """The result of a command, whose keys may have several slots."""
        pieces = split(command)
        if len(pieces) == 1:
            return cast(T, (yield from self._one(pieces[0], deadline)))
        results = yield from self._together(pieces, deadline)
        for number, piece in enumerate(pieces):
            if number not in results:
                results[number] = yield from self._one(piece, deadline)
        return cast(T, merge(pieces, [results[number] for number in range(len(pieces))]))

    def refresh(self, deadline: float, first: Node | None = None) -> Steps[SlotMap]:
        """The map as one of the nodes tells it now, if possible ``first``."""
        failure: BackendError | None = None
        asked = self._to_ask(first)
        for left in range(len(asked), 0, -1):
            node, now = asked[-left], monotonic()
            if now >= deadline:
                break
            try:
                found = yield from self._told_by(node, now + (deadline - now) / min(left, SHARE))
            except BackendError as error:
                failure = failure or error
                self._doubt(node, error)
            else:
                self._adopt(found)
                return found
        raise failure or timed_out("the cluster's map")

    def scan(self, prefix: str, cursor: str, count: int, deadline: float) -> Steps[tuple[str, list[tuple[str, bytes]]]]:
        """A page of one primary after the other, by name; the cursor is the server's own and that name."""
        own, _, name = cursor.partition("@")
        known = self.map if cursor and any(self.map.owners) else (yield from self.refresh(deadline))
        left = sorted((node for node in known.primaries if node.name >= name), key=lambda node: node.name)
        if not left:
            return "", []
        node = left[0]
        if node.name != name:  # it has left, and so has what was still to be read there
            own = ""
        try:
            own, names = yield Send(node, scan(prefix, own, count), deadline)
            answers = (yield SendAll(node, heads(names), deadline)) if names else []
        except BackendError as error:
            self._doubt(node, error)
            raise
        following = f"{own}@{node.name}" if own else f"@{left[1].name}" if len(left) > 1 else ""
        return following, with_heads(names, answers)

    def _one(self, piece: Piece, deadline: float) -> Steps[Any]:
        """The result of a command with one slot, wherever that is."""
        command, moves, again, asking = piece.command, 0, False, False
        node = yield from self._locate(piece.slot, deadline)
        while True:
            try:
                result = yield Send(node, command, deadline, asking)
            except Redirect as redirect:
                moves += 1
                if moves > MOVES:
                    raise BackendError(Fault.DOWN, "moved", f"sent on from node to node: {redirect}") from redirect
                node, asking = self.node(redirect.host or node.address.host, redirect.port), redirect.asking
                if not asking:
                    yield from self._learn(redirect.slot, node, deadline)
            except BackendError as error:
                self._doubt(node, error)
                # It may have been executed, and only its answer got lost.
                if again or asking or node not in self._doubted or not command.repeatable:
                    raise
                again, node = True, (yield from self._another(piece.slot, node, error, deadline))
            else:
                self._doubted.discard(node)
                return result

    def _together(self, pieces: Sequence[Piece], deadline: float) -> Steps[dict[int, Any]]:
        """The results of plain commands, by their number, as far as the first attempt gives them."""
        results: dict[int, Any] = {}
        by_node: dict[Node, list[int]] = {}
        for number, piece in enumerate(pieces):
            if piece.command.script is None:
                node = yield from self._locate(piece.slot, deadline)
                by_node.setdefault(node, []).append(number)
        for node, numbers in by_node.items():
            try:
                answers = yield SendAll(node, [pieces[number].command for number in numbers], deadline)
            except BackendError as error:
                self._doubt(node, error)
                if node not in self._doubted:
                    raise
            else:
                found = zip(numbers, answers, strict=True)
                results.update((number, answer) for number, answer in found if not isinstance(answer, BackendError))
        return results

    def _locate(self, slot: int | None, deadline: float) -> Steps[Node]:
        """The node to ask; the map is asked for if there is none, or the node did not answer the last time."""
        node = self._owner(self.map, slot)
        if node is not None and node not in self._doubted:
            return node
        found = self._owner((yield from self.refresh(deadline)), slot)
        if found is None:
            raise BackendError(Fault.DOWN, "loading", f"no node of the cluster serves slot {slot}")
        return found

    def _owner(self, known: SlotMap, slot: int | None) -> Node | None:
        if slot is not None:
            return known.owners[slot]
        primaries = known.primaries
        return next((node for node in primaries if node not in self._doubted), primaries[0] if primaries else None)

    def _another(self, slot: int | None, node: Node, error: BackendError, deadline: float) -> Steps[Node]:
        """The node that has taken over from one that failed; raises the failure if none has."""
        try:
            other = yield from self._locate(slot, deadline)
        except BackendError:
            raise error from None
        if other is node:
            raise error
        return other

    def _learn(self, slot: int, owner: Node, deadline: float) -> Steps[None]:
        """A slot has moved; probably others have, too."""
        if self.map.owners[slot] is owner:
            return  # another thread has learnt it meanwhile
        now = monotonic()
        try:
            yield from self.refresh(now + (deadline - now) / 2, owner)
        except BackendError:
            pass  # what we were told is enough for this command
        if self.map.owners[slot] is not owner:
            self._adopt(self.map.but(slot, owner))

    def _told_by(self, node: Node, deadline: float) -> Steps[SlotMap]:
        ranges, epoch = yield SendAll(node, (MAP, EPOCH), deadline)
        if isinstance(ranges, BackendError):
            raise no_cluster(node.name, ranges)
        if not ranges:
            raise BackendError(Fault.DOWN, "loading", f"{node}: knows of no node that serves slots")
        seen = None if isinstance(epoch, BackendError) else epoch
        return draw(ranges, lambda host, port: self.node(host or node.address.host, port), seen)

    # State.

    def _to_ask(self, first: Node | None) -> list[Node]:
        """In this order; those that failed last."""
        known = [*self.map.primaries, *self.map.replicas]
        some = random.sample(known, min(ASKED, len(known)))  # so that not all processes ask the same one
        nodes = dict.fromkeys([*([first] if first else []), *some, *self._seeds])
        return sorted(nodes, key=self._doubted.__contains__)

    def _doubt(self, node: Node, error: BackendError) -> None:
        if error.reason in LOST:
            self._doubted.add(node)

    def _adopt(self, found: SlotMap) -> None:
        """Use this map. If it is another than before, what was heard of the changes so far is not enough.

        That is told before anybody uses it, and again, since meanwhile others still use the old one.
        """
        with self._peers.lock():
            moved = any(self.map.owners) and found.owners != self.map.owners
            tell = self._peers.on_move if moved else None
            if tell is not None:
                tell()
            self.map = found
            if tell is not None:
                tell()


class Router:
    """Runs commands in a cluster, with connections to each node."""

    def __init__(self, routes: Routes, limit: int, peers: Peers) -> None:
        self.routes = routes
        self._limit = limit
        self._peers = peers
        self._pools: dict[Node, transport.Pools] = {}

    def run(self, command: Command[T], deadline: float) -> T:
        return walk(self.routes.run(command, deadline), self._take)

    def refresh(self, deadline: float) -> SlotMap:
        return walk(self.routes.refresh(deadline), self._take)

    def scan(self, prefix: str, cursor: str, count: int, deadline: float) -> tuple[str, list[tuple[str, bytes]]]:
        return walk(self.routes.scan(prefix, cursor, count, deadline), self._take)

    def close(self) -> None:
        for pools in list(self._pools.values()):
            pools.close()

    def _take(self, step: Send | SendAll) -> Any:
        pool = (self._pools.get(step.node) or self._begin(step.node)).here()
        if isinstance(step, SendAll):
            return transport.run(pool, step.commands[0], step.deadline, partial(at_once, step.commands))
        if step.asking:
            return transport.run(pool, step.command, step.deadline, permitted)
        return transport.run(pool, step.command, step.deadline)

    def _begin(self, node: Node) -> transport.Pools:
        peer = self._peers.node(node.name)
        opener = partial(transport.open_wire, node.address, peer)
        return self._pools.setdefault(node, transport.Pools(self._limit, opener, peer))


def permitted(wire: transport.Wire, command: Command[T], deadline: float) -> T:
    """As `transport.converse`, with the permission that a node needs for a slot that is on its way to it."""

    def ask(packed: bytes) -> Any:
        return first_asked(wire.ask(ASKING + packed, deadline, 2))

    return walk(dialogue(command, wire.clock, deadline), ask)


def first_asked(replies: Sequence[Any]) -> Any:
    asked, reply = replies
    if isinstance(asked, ReplyError):
        raise from_reply(asked)
    return reply


def at_once(commands: Sequence[Command[Any]], wire: transport.Wire, _: Command[Any], deadline: float) -> list[Any]:
    """As `transport.converse`, with several plain commands."""
    return each(commands, wire.ask(packed(commands), deadline, len(commands)))


def packed(commands: Sequence[Command[Any]]) -> bytes:
    return b"".join(pack(command.words) for command in commands)


def each(commands: Sequence[Command[Any]], replies: Any) -> list[Any]:
    """What the replies mean; a failure is a result here."""
    return list(map(outcome, commands, replies if len(commands) > 1 else [replies]))


def outcome(command: Command[Any], reply: Any) -> Any:
    try:
        return judged(reply, command.read)
    except BackendError as error:
        return error


class AsyncRouter:
    """As `Router`, in coroutines."""

    def __init__(self, routes: Routes, limit: int, peers: Peers) -> None:
        self.routes = routes
        self._limit = limit
        self._peers = peers
        self._pools: dict[Node, aio.AsyncPools] = {}

    async def run(self, command: Command[T], deadline: float) -> T:
        return await async_walk(self.routes.run(command, deadline), self._take)

    async def scan(self, prefix: str, cursor: str, count: int, deadline: float) -> tuple[str, list[tuple[str, bytes]]]:
        return await async_walk(self.routes.scan(prefix, cursor, count, deadline), self._take)

    def close(self) -> None:
        for pools in list(self._pools.values()):
            pools.close()

    async def _take(self, step: Send | SendAll) -> Any:
        pool = (self._pools.get(step.node) or self._begin(step.node)).here()
        if isinstance(step, SendAll):
            return await aio.run(pool, step.commands[0], step.deadline, partial(async_at_once, step.commands))
        if step.asking:
            return await aio.run(pool, step.command, step.deadline, async_permitted)
        return await aio.run(pool, step.command, step.deadline)

    def _begin(self, node: Node) -> aio.AsyncPools:
        peer = self._peers.node(node.name)
        opener = partial(aio.open_wire, node.address, peer)
        return self._pools.setdefault(node, aio.AsyncPools(self._limit, opener, peer))


async def async_permitted(wire: aio.AsyncWire, command: Command[T], deadline: float) -> T:
    async def ask(packed: bytes) -> Any:
        return first_asked(await wire.ask(ASKING + packed, deadline, 2))

    return await async_walk(dialogue(command, wire.clock, deadline), ask)


async def async_at_once(
    commands: Sequence[Command[Any]], wire: aio.AsyncWire, _: Command[Any], deadline: float
) -> list[Any]:
    return each(commands, await wire.ask(packed(commands), deadline, len(commands)))


class ClusterTopology:
    """A `topology.Topology`: every primary, as long as the cluster is whole and its epoch the same."""

    question: tuple[Word, ...] = ("CLUSTER", "INFO")

    def __init__(self, router: Router) -> None:
        self._router = router
        self._epoch: int | None = None

    def primaries(self, deadline: float) -> list[Address]:
        found = self._router.refresh(deadline)
        self._epoch = found.epoch
        return [node.address for node in found.primaries]

    def judge(self, answer: Any) -> None:
        if isinstance(answer, ReplyError):
            error = from_reply(answer)
            if error.reason == "noperm":
                return
            raise error
        told = judged(answer, read_info)
        state, epoch = told.get("cluster_state"), judged(told, lambda told: int(told["cluster_current_epoch"]))
        if state != "ok":
            raise BackendError(Fault.DOWN, "moved", f"the cluster's state is {state}")
        # A node that is behind has not heard yet of what the one that drew the map knew.
        if self._epoch is not None and epoch > self._epoch:
            raise BackendError(Fault.DOWN, "moved", f"the cluster's epoch is {epoch} and was {self._epoch}")

    def watchers(self) -> list[tuple[Address, tuple[Word, ...]]]:
        return []

    def concerns(self, message: bytes) -> bool:
        return True
