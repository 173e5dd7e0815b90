"""What the server's user may do, found without doing it, and the rights that it needs."""

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cachekit.backends.redis.commands import Command, ignore
from cachekit.errors import BackendError, Fault

# Everything that is sent or called in a script; K is a key. Words as in use, since rights may differ by them.
NEEDED: Final = (
    "GET K", "MGET K", "GETRANGE K 0 1", "SET K 0 PX 1", "SETRANGE K 5 1", "DEL K", "EXISTS K", "INCRBY K 1",
    "PEXPIRE K 1", "PERSIST K", "PTTL K", "TOUCH K", "EVALSHA 0 1 K", "EVAL 0 1 K", "TIME",
)  # fmt: skip
# Things work without these, less well: a database other than 0; which server it is, for the doctor and to notice that
# it has become another; being told of changes; giving back the space of what was cleared.
ALSO: Final = ("SELECT", "INFO", "PING", "HELLO", "CLIENT|TRACKING", "SCAN")
# By the ending of the URL's scheme.
OF_SEVERAL: Final = {"sentinel": ("ROLE",), "cluster": ("CLUSTER|SLOTS", "CLUSTER|INFO", "ASKING")}

# What becomes of a client that does not read. Before version 7 there is no first one, and nobody may ask for several.
SETTINGS: Final = ("CONFIG", "GET", "maxmemory-clients", "client-output-buffer-limit")

# Without keys, so that rights on keys do not keep it from answering. It answers the numbers of what is refused: a name
# that the server does not know (renamed away) is refused, too.
PROBE: Final = """
if not redis.acl_check_cmd then return redis.error_reply('ERR older than version 7') end
local refused = {}
for number, line in ipairs(ARGV) do
    local words = {}
    for word in string.gmatch(line, '%S+') do words[#words + 1] = word end
    local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
    if not (known and allowed) then refused[#refused + 1] = number end
end
return refused
"""


@dataclass(frozen=True, slots=True)
class Rights:
    """``missing`` are names of commands; None: the server does not tell. ``user`` and ``settings`` may be empty for the
    same reason."""

    user: str
    missing: tuple[str, ...] | None
    settings: Mapping[str, str] = field(default_factory=dict)


def grant(user: str, namespace: str, topology: str = "") -> str:
    """The line that gives a user what is needed, and nothing else; ``topology`` is sentinel or cluster."""
    lines = (*NEEDED, *ALSO, *OF_SEVERAL.get(topology, ()))
    commands = " ".join(f"+{line.split()[0].lower()}" for line in lines)
    return f"ACL SETUSER {user} ~{namespace}:* {commands}"


def questions(keys: Sequence[str]) -> Generator[Command[Any], Any, Rights]:
    """The whole exchange: yields commands, is sent their results or thrown a `BackendError`."""
    rights = yield from of_user(keys)
    try:
        settings = yield Command(SETTINGS, read_settings)
    except BackendError as error:
        passed_over(error)
        return rights
    return replace(rights, settings=settings)


def read_settings(reply: Sequence[bytes]) -> dict[str, str]:
    words = [word.decode(errors="replace") for word in reply]
    return dict(zip(words[::2], words[1::2], strict=True))


def of_user(keys: Sequence[str]) -> Generator[Command[Any], Any, Rights]:
    yield Command(("TIME",), ignore)  # asked for with each new connection: refused, there is none to ask on
    user = ""
    try:
        user = (yield Command(("ACL", "WHOAMI"), lambda reply: reply.decode())) or ""
    except BackendError as error:
        passed_over(error)
    lines = [re.sub(r"\bK\b", key, line) for line in NEEDED for key in keys]
    try:
        # Not by its digest: whether that is allowed is one of the questions.
        command = Command(("EVAL", PROBE, "0", *lines), lambda reply: [lines[number - 1] for number in reply])
        refused = yield command
    except BackendError as error:
        passed_over(error)
        return Rights(user, (yield from one_by_one(user, lines, refused=error.reason == "noperm")))
    return Rights(user, names(refused))


def one_by_one(
    user: str, lines: Sequence[str], *, refused: bool
) -> Generator[Command[Any], Any, tuple[str, ...] | None]:
    """For a user who may run no scripts, but may ask ``ACL DRYRUN``."""
    missing, otherwise = [], ("EVAL",) if refused else None
    for line in lines if user else ():
        words = ("ACL", "DRYRUN", user, *line.split())
        try:
            answer = yield Command(words, lambda reply: reply)
        except BackendError as error:
            passed_over(error)
            if error.reason == "noperm" or "unknown" in str(error).casefold():
                return otherwise
            answer = "not found"
        if answer not in ("OK", b"OK"):
            missing.append(line)
    return names(missing) if user else otherwise


def passed_over(error: BackendError) -> None:
    """A refusal is an answer; a server that is away is none."""
    if error.fault is not Fault.COMMAND and error.reason != "noperm":
        raise error


def names(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line.split()[0] for line in lines))
