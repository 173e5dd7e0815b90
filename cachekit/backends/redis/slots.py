"""Slots of a cluster: which one a key has, which node serves it, and a command as one command for each slot."""

from binascii import crc_hqx
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from cachekit.backends.redis import commands, scripts
from cachekit.backends.redis.address import Address
from cachekit.backends.redis.commands import Command
from cachekit.backends.redis.resp import Word

T = TypeVar("T")

SLOTS: Final = 16_384

# Commands whose words but the first are keys; those with several keys, and how to ask for some of them.
OF_SEVERAL: Final[dict[Word, Callable[[Sequence[Any]], Command[Any]]]] = {
    "MGET": commands.get_many, "DEL": commands.clear, "TOUCH": commands.keep,
}  # fmt: skip
OF_KEYS: Final = frozenset({"GET", "PTTL", *OF_SEVERAL})
# Scripts of any number of values, each with its lease.
OF_PAIRS: Final = (scripts.INVALIDATE, scripts.EXPIRE_SOFT)


def slot_of(key: Word) -> int:
    """As the server computes it: of what is within the first braces, if that is not empty."""
    data = key if type(key) is bytes else str(key).encode()
    start = data.find(b"{") + 1
    if start:
        end = data.find(b"}", start)
        if end > start:
            data = data[start:end]
    return crc_hqx(data, 0) % SLOTS


class Node:
    """One server of a cluster. Two are the same if they are the same object."""

    __slots__ = ("address", "name")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.name = str(address)

    def __repr__(self) -> str:
        return self.name


class Range(NamedTuple):
    """Of slots, with the host and port of each node that has them, the primary first. "" is the host that was asked."""

    first: int
    last: int
    nodes: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Who serves what. ``epoch`` is the cluster's when the map was drawn, if it may be asked for."""

    owners: list[Node | None]  # by slot
    replicas: tuple[Node, ...] = ()
    epoch: int | None = None

    @property
    def primaries(self) -> list[Node]:
        return list(dict.fromkeys(node for node in self.owners if node is not None))

    def but(self, slot: int, owner: Node) -> "SlotMap":
        """A copy with one slot of another node."""
        return SlotMap([*self.owners[:slot], owner, *self.owners[slot + 1 :]], self.replicas, self.epoch)


def draw(ranges: Sequence[Range], node: Callable[[str, int], Node], epoch: int | None) -> SlotMap:
    """The map that a node tells."""
    owners: list[Node | None] = [None] * SLOTS
    replicas: list[Node] = []
    for first, last, nodes in ranges:
        primary, *others = (node(host, port) for host, port in nodes)
        owners[first : last + 1] = [primary] * (last + 1 - first)
        replicas += others
    return SlotMap(owners, tuple(dict.fromkeys(replicas)), epoch)


# The questions to a node.


def read_ranges(reply: Any) -> list[Range]:
    return [Range(first, last, tuple(map(read_place, nodes))) for first, last, *nodes in reply]


def read_place(node: Any) -> tuple[str, int]:
    # A node that does not know its own name says nothing, or "?".
    host = (node[0] or b"").decode()
    return "" if host == "?" else host, int(node[1])


def read_epoch(reply: Any) -> int:
    return int(commands.read_info(reply)["cluster_current_epoch"])


MAP: Final = Command(("CLUSTER", "SLOTS"), read_ranges)
EPOCH: Final = Command(("CLUSTER", "INFO"), read_epoch)


# Commands and their slots.


class Piece(NamedTuple):
    """What a command asks of one slot (None: of any node), and where its results belong among those of the whole."""

    slot: int | None
    command: Command[Any]
    positions: Sequence[int] = ()


def split(command: Command[Any]) -> list[Piece]:
    """A piece for each slot, in the order of the keys."""
    keys, step = keys_of(command)
    if not keys:
        return [Piece(None, command)]
    if len(keys) == step:
        return [Piece(slot_of(keys[0]), command)]
    by_slot: dict[int, list[int]] = {}
    for position in range(0, len(keys), step):
        by_slot.setdefault(slot_of(keys[position]), []).append(position)
    if len(by_slot) == 1:
        return [Piece(slot, command) for slot in by_slot]
    return [Piece(slot, part_of(command, positions), positions) for slot, positions in by_slot.items()]


def keys_of(command: Command[Any]) -> tuple[Sequence[Word], int]:
    """The keys, and how many of them belong together in one slot."""
    words, script = command.words, command.script
    if script is None:
        return (words[1:], 1) if words[0] in OF_KEYS else ((), 1)
    step = 1 if script is scripts.STAMPS else 2 if script in OF_PAIRS else command.keys
    return words[: command.keys], step


def part_of(command: Command[Any], positions: Sequence[int]) -> Command[Any]:
    """The same for the keys at these positions."""
    words = command.words
    if command.script is scripts.STAMPS:
        ttl, fresh = words[command.keys], words[command.keys + 1 :]
        asked: tuple[Word, ...] = (*(words[at] for at in positions), ttl, *(fresh[at] for at in positions))
        count = len(positions)
        return Command(asked, lambda reply: commands.read_stamps(reply, count), scripts.STAMPS, count)
    if command.script in OF_PAIRS:
        pairs = tuple(word for at in positions for word in words[at : at + 2])
        return Command(pairs, command.read, command.script, len(pairs))
    return OF_SEVERAL[words[0]]([words[1 + at] for at in positions])


def merge(pieces: Sequence[Piece], results: Sequence[Any]) -> Any:
    """The result of the whole."""
    if not isinstance(results[0], list):
        return results[0]  # they do not differ
    whole: list[Any] = [None] * sum(len(piece.positions) for piece in pieces)
    for piece, result in zip(pieces, results, strict=True):
        for at, value in zip(piece.positions, result, strict=True):
            whole[at] = value
    return whole
