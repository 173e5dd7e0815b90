"""A key has the slot that the server gives it, and a command of keys of several slots is one command for each."""

from typing import Any

import pytest

from cachekit.backends.redis import commands
from cachekit.backends.redis.address import Address
from cachekit.backends.redis.commands import Command
from cachekit.backends.redis.errors import Redirect, from_reply
from cachekit.backends.redis.resp import ReplyError
from cachekit.backends.redis.slots import Node, draw, merge, read_ranges, slot_of, split
from cachekit.errors import BackendError, Fault

A, B, C = "n:v:{a}", "n:v:{b}", "n:v:{c}"


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("123456789", 12739),  # of the specification
        ("", 0), ("foo{bar}{zap}", 5061), ("foo{{bar}}zap", 4015), ("foo{}{bar}", 8363), ("foo{bar", 15278),
        (b"foo{bar}", 5061), ("bar", 5061),
    ],
)  # fmt: skip
def test_the_slot_is_of_what_is_within_the_first_braces(key: Any, slot: int) -> None:
    assert slot_of(key) == slot


def test_a_value_and_its_lease_have_one_slot() -> None:
    for identity in ("x", "a}b", "{", "}", "é"):
        (piece,) = split(commands.get_or_lease(f"n:v:{{region:{identity}}}", b"t" * 16, 1000))
        assert all(slot_of(key) == piece.slot for key in piece.command.words[:2])


@pytest.mark.parametrize(
    "command",
    [
        commands.get(A), commands.store(A, b"{b}", None, None), commands.store(A, b"x", None, b"{c}" * 4),
        commands.lease(A, b"t" * 16, 1000, b"{b}", False), commands.incr(A, 1, None, b"{b}", True),
        commands.touch(A, None), commands.remaining(A), commands.release(A, b"t"), commands.renew(A, b"t", 5),
        commands.get_many([A, A]), commands.stamps(["n:t:{a}:1", "n:t:{a}:2"], [b"{b}", b"{c}"], 5),
        commands.invalidate([A, "n:v:{a}2"])[0], commands.expire_soft([A, "n:v:{a}2"])[0],
        commands.clear(["n:t:{a}:1", "n:t:{a}:2"]), commands.keep([A]),
    ],
)  # fmt: skip
def test_what_is_of_one_slot_goes_as_it_is(command: Command[Any]) -> None:
    (piece,) = split(command)
    assert (piece.slot, piece.command) == (slot_of("a"), command)


def test_what_has_no_key_is_for_any_node() -> None:
    (piece,) = split(commands.INFO)
    assert piece.slot is None
    (piece,) = split(Command(("EVAL", "return 1", "0", A), commands.ignore))
    assert piece.slot is None


def test_values_of_several_slots_are_asked_for_by_slot_and_put_back_in_order() -> None:
    pieces = split(commands.get_many([A, B, A, C, B]))
    assert [piece.command.words for piece in pieces] == [("MGET", A, A), ("MGET", B, B), ("MGET", C)]
    assert merge(pieces, [[b"1", b"3"], [b"2", b"5"], [None]]) == [b"1", b"2", b"3", None, b"5"]


def test_stamps_of_several_slots_keep_their_fresh_values() -> None:
    pieces = split(commands.stamps([A, B, A], [b"1", b"2", b"3"], 1000))
    assert [piece.command.words for piece in pieces] == [(A, A, 1000, b"1", b"3"), (B, 1000, b"2")]
    assert [piece.command.keys for piece in pieces] == [2, 1]
    assert pieces[0].command.read([b"x", b"y"]) == [b"x", b"y"]
    with pytest.raises(TypeError):
        pieces[0].command.read([b"x"])
    assert merge(pieces, [[b"1", b"3"], [b"2"]]) == [b"1", b"2", b"3"]


def test_invalidations_and_clears_are_by_slot() -> None:
    lease = {key: key.replace(":v:", ":l:") for key in (A, B)}
    for whole in (*commands.invalidate([A, B, A]), *commands.expire_soft([A, B, A])):
        pieces = split(whole)
        assert [piece.command.words for piece in pieces] == [(A, lease[A], A, lease[A]), (B, lease[B])]
        assert [piece.command.keys for piece in pieces] == [4, 2]
        assert [piece.command.script for piece in pieces] == [whole.script] * 2
    assert [piece.command.words for piece in split(commands.clear([B, A, B]))] == [("DEL", B, B), ("DEL", A)]
    assert [piece.command.words for piece in split(commands.keep([B, A]))] == [("TOUCH", B), ("TOUCH", A)]


def test_a_map_is_drawn_from_what_a_node_tells() -> None:
    reply = [
        [0, 5, [b"one", 7000, b"id", []], [b"two", 7000, b"id"]],
        [6, 16382, [None, 7001, b"id"], [b"?", 7002, b"id"], [b"", 7003, b"id"]],
    ]
    nodes: dict[tuple[str, int], Node] = {}

    def node(host: str, port: int) -> Node:
        return nodes.setdefault((host, port), Node(Address("tcp", host or "asked", port)))

    drawn = draw(read_ranges(reply), node, 7)
    assert [str(drawn.owners[slot]) for slot in (0, 5, 6, 16382, 16383)] == [
        "one:7000", "one:7000", "asked:7001", "asked:7001", "None",
    ]  # fmt: skip
    assert [*map(str, drawn.primaries)] == ["one:7000", "asked:7001"]
    assert [*map(str, drawn.replicas)] == ["two:7000", "asked:7002", "asked:7003"]
    changed = drawn.but(5, drawn.primaries[1])
    assert [str(changed.owners[slot]) for slot in (4, 5)] == ["one:7000", "asked:7001"]
    assert drawn.owners[5] is drawn.primaries[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("MOVED 3999 127.0.0.1:6381", (False, 3999, "127.0.0.1", 6381)),
        ("ASK 0 host.example:1", (True, 0, "host.example", 1)),
        ("MOVED 1 ::1:6381", (False, 1, "::1", 6381)),
        ("MOVED 1 :6381", (False, 1, "", 6381)),
        ("MOVED 1 ?:6381", (False, 1, "", 6381)),
    ],
)
def test_a_node_sends_on_to_another(text: str, told: tuple[bool, int, str, int]) -> None:
    redirect = from_reply(ReplyError(text))
    assert isinstance(redirect, Redirect)
    assert (redirect.asking, redirect.slot, redirect.host, redirect.port) == told
    assert redirect.fault is Fault.CONFIG
    assert "redis+cluster://" in str(redirect)


@pytest.mark.parametrize("text", ["MOVED", "ASK x y:1", "MOVED 1 host", "MOVED 1 host:port"])
def test_nonsense_is_no_direction(text: str) -> None:
    error = from_reply(ReplyError(text))
    assert type(error) is BackendError
    assert (error.fault, error.reason) == (Fault.DOWN, "protocol")
