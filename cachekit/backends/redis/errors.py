"""Translation: what a socket, TLS, redis-py or the server says becomes a `BackendError`, and nothing else leaves."""

import re
import ssl
from collections.abc import Sequence
from typing import Final

from cachekit.backends.redis.resp import ProtocolError, ReplyError
from cachekit.errors import BackendError, Fault

# The first word of an error reply -> what it says about the server. All others: the command failed, the server is well.
CODES: Final[dict[str, tuple[Fault, str]]] = {
    "LOADING": (Fault.DOWN, "loading"),
    "CLUSTERDOWN": (Fault.DOWN, "loading"),
    "MASTERDOWN": (Fault.DOWN, "loading"),
    "TRYAGAIN": (Fault.DOWN, "loading"),  # the keys of a slot are on their way to another node, and not all are there
    "BUSY": (Fault.DOWN, "loading"),
    "OOM": (Fault.READONLY, "oom"),
    "READONLY": (Fault.READONLY, "readonly"),
    "MISCONF": (Fault.READONLY, "readonly"),
    "NOREPLICAS": (Fault.READONLY, "readonly"),
    "NOAUTH": (Fault.CONFIG, "auth"),
    "WRONGPASS": (Fault.CONFIG, "auth"),
    "DENIED": (Fault.CONFIG, "auth"),
    "NOPERM": (Fault.CONFIG, "noperm"),
}
# Errors without a code of their own, by what they begin with.
PHRASES: Final[tuple[tuple[str, Fault, str], ...]] = (
    ("ERR max number of clients", Fault.DOWN, "connection"),
    ("ERR unknown command", Fault.CONFIG, "noperm"),  # EVALSHA and TIME renamed away by the operator
    ("ERR ACL failure", Fault.CONFIG, "noperm"),
    ("ERR The user executing the script can't run", Fault.CONFIG, "noperm"),
    ("ERR invalid password", Fault.CONFIG, "auth"),
    ("ERR operation not permitted", Fault.CONFIG, "auth"),
    ("ERR AUTH", Fault.CONFIG, "auth"),
    ("ERR Client sent AUTH", Fault.CONFIG, "auth"),
    ("ERR wrong number of arguments for 'auth'", Fault.CONFIG, "auth"),
    ("ERR DB index", Fault.CONFIG, "command"),
)
# Servers before 7 wrap what happened inside a script: "ERR Error running script (...): ... -OOM command not allowed".
INSIDE_SCRIPT: Final = re.compile(r"-(" + "|".join(CODES) + r")\b")


class Redirect(BackendError):
    """Another node of a cluster has this slot (or with ``asking``: has some of its keys). ``host`` may be unknown ("").

    Who does not know that it is a cluster cannot follow, hence the fault and the message.
    """

    def __init__(self, text: str) -> None:
        super().__init__(
            Fault.CONFIG, "moved", f"{text}: this is a node of a cluster; write redis+cluster:// in its URL"
        )
        code, slot, place = text.split()[:3]
        host, _, port = place.rpartition(":")
        self.asking = code == "ASK"
        self.slot, self.host, self.port = int(slot), "" if host == "?" else host, int(port)


class Dead(Exception):
    """The connection broke. ``unheard``: not one byte of the reply had arrived. Internal to the transports."""

    def __init__(self, cause: BaseException | str, unheard: bool) -> None:
        super().__init__(str(cause) or type(cause).__name__)
        if isinstance(cause, BaseException):
            self.__cause__ = cause  # asyncio hands it over instead of raising it
        self.unheard = unheard


def from_reply(error: ReplyError) -> BackendError:
    """What an error reply of the server means."""
    text = str(error)
    if error.code in ("MOVED", "ASK"):
        try:
            return Redirect(text)
        except ValueError:
            return BackendError(Fault.DOWN, "protocol", text)
    known = CODES.get(error.code)
    if known is None and text.startswith("ERR Error running script") and (found := INSIDE_SCRIPT.search(text)):
        known = CODES[found[1]]
    if known is None:
        known = next(((fault, reason) for start, fault, reason in PHRASES if text.startswith(start)), None)
    fault, reason = known or (Fault.COMMAND, "command")
    return BackendError(fault, reason, text)


def timed_out(what: str) -> BackendError:
    return BackendError(Fault.DOWN, "timeout", f"{what}: no time left")


def not_redis(error: ProtocolError) -> BackendError:
    return BackendError(Fault.DOWN, "protocol", f"the answer is not the Redis protocol: {error}")


# Which of the first two an end is depends on how far the handshake was.
ENDED: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, TimeoutError)


def broken(error: Dead) -> BackendError:
    return BackendError(Fault.DOWN, "connection", str(error))


def while_connecting(error: BaseException, address: str) -> BackendError:
    """An exception that opening a connection raised; redis-py's hides the socket's in its context."""
    causes = list(chain(error))
    for cause in causes:
        if isinstance(cause, BackendError):
            return cause
    for cause in causes:
        # An end of file in the middle of the handshake is a server that went away, not a certificate that is wrong.
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ENDED):
            return BackendError(Fault.CONFIG, "tls", f"{address}: {cause}")
    if any(isinstance(cause, TimeoutError) for cause in causes) or type(error).__name__ == "TimeoutError":
        return BackendError(Fault.DOWN, "timeout", f"{address}: no connection in time")
    return BackendError(Fault.DOWN, "connection", f"{address}: {error}")


def no_cluster(node: str, error: BackendError) -> BackendError:
    """A node did not tell the map of its cluster."""
    if error.fault is not Fault.COMMAND:
        return error
    return BackendError(Fault.CONFIG, "command", f"{node}: {error}; write redis:// in its URL if it is no cluster")


def replica(role: str) -> BackendError:
    return BackendError(Fault.DOWN, "moved", f"the server is no primary, it says: {role}")


def unknown_service(sentinel: str, service: str) -> BackendError:
    return BackendError(Fault.CONFIG, "service", f"{sentinel} knows no service {service!r}: see the name in the URL")


def no_primary(service: str, failures: Sequence[BackendError]) -> BackendError:
    """No Sentinel led to a primary. One that knows it and cannot tell matters more than one that has no idea."""
    worst = next((failure for failure in failures if failure.fault is not Fault.CONFIG), failures[0])
    told = "; ".join(dict.fromkeys(map(str, failures)))
    return BackendError(worst.fault, worst.reason, f"no Sentinel led to a primary of {service!r}: {told}")


def no_credentials(error: Exception) -> BackendError:
    # Only the name of the class: what somebody else's code says may hold a secret.
    return BackendError(Fault.DOWN, "auth", f"the credential provider raised {type(error).__name__}")


def no_tls(address: str) -> BackendError:
    return BackendError(Fault.CONFIG, "tls", f"{address}: the server does not speak TLS there; redis:// or valkey://?")


def chain(error: BaseException | None) -> list[BaseException]:
    """An exception and what it was raised from or while handling."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
