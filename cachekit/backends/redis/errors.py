"""Translation: what a socket, TLS, redis-py or the server says becomes a `BackendError`, and nothing else leaves."""

import re
import ssl
from typing import Final

from cachekit.backends.redis.resp import ProtocolError, ReplyError
from cachekit.errors import BackendError, Fault

# The first word of an error reply -> what it says about the server. All others: the command failed, the server is well.
CODES: Final[dict[str, tuple[Fault, str]]] = {
    "LOADING": (Fault.DOWN, "loading"),
    "CLUSTERDOWN": (Fault.DOWN, "loading"),
    "MASTERDOWN": (Fault.DOWN, "loading"),
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


class Dead(Exception):
    """The connection broke. ``unheard``: not one byte of the reply had arrived. Internal to the transports."""

    def __init__(self, cause: BaseException | str, unheard: bool) -> None:
        super().__init__(str(cause) or type(cause).__name__)
        self.unheard = unheard


def from_reply(error: ReplyError) -> BackendError:
    """What an error reply of the server means."""
    text = str(error)
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
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | TimeoutError):
            return BackendError(Fault.CONFIG, "tls", f"{address}: {cause}")
    if any(isinstance(cause, TimeoutError) for cause in causes) or type(error).__name__ == "TimeoutError":
        return BackendError(Fault.DOWN, "timeout", f"{address}: no connection in time")
    return BackendError(Fault.DOWN, "connection", f"{address}: {error}")


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
