"""Whatever happens, each call ends within its budget with the right fault, and nothing is done twice."""

import os
import ssl
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit.backends.redis import errors
from cachekit.backends.redis.resp import ReplyError
from cachekit.config.spec import TLSSpec
from cachekit.errors import BackendError, Fault
from cachekit.testing.faults import FaultProxy
from cachekit.testing.servers import Server, start_server

pytestmark = pytest.mark.server

BUDGET = 0.1
ROUNDS = 11  # an odd number, for the median
DOWN = Fault.DOWN


@pytest.fixture
def behind(caller: Callable[..., Any], proxy: FaultProxy) -> Any:
    """A backend whose server is the proxy, with a connection that works."""
    backend = caller(proxy.url, BUDGET)
    backend.within(5.0).get("test:v:{faults:warm}")
    return backend


def failure(operation: Callable[[], Any]) -> tuple[BackendError, float]:
    begun = time.monotonic()
    with pytest.raises(BackendError) as caught:
        operation()
    return caught.value, time.monotonic() - begun


def silent(proxy: FaultProxy) -> None:
    proxy.black_hole()


def hung_handshake(proxy: FaultProxy) -> None:
    proxy.hang()
    proxy.reset()


def dripping(proxy: FaultProxy) -> None:
    proxy.slow(20)


def dripping_handshake(proxy: FaultProxy) -> None:
    proxy.slow(20)
    proxy.reset()


def lost_replies(proxy: FaultProxy) -> None:
    proxy.drop_replies()


def cut_short(proxy: FaultProxy) -> None:
    proxy.truncate(9)


def late(proxy: FaultProxy) -> None:
    proxy.latency(1.0)


SILENCES = [
    silent,
    hung_handshake,
    dripping,
    *(pytest.param(fault, marks=pytest.mark.slow) for fault in (dripping_handshake, lost_replies, cut_short, late)),
]


@pytest.mark.timed
@pytest.mark.parametrize("fault", SILENCES, ids=lambda fault: fault.__name__)
def test_a_silent_server_costs_the_budget_and_no_more(
    caller: Callable[..., Any], proxy: FaultProxy, valkey: Server, fault: Callable[[FaultProxy], None]
) -> None:
    valkey.command("SET", "test:v:{faults:long}", "x" * 200)
    backend = caller(proxy.url, BUDGET)
    took = []
    for _ in range(ROUNDS):
        proxy.pass_()
        backend.within(5.0).get("test:v:{faults:warm}")
        fault(proxy)
        error, seconds = failure(lambda: backend.get("test:v:{faults:long}"))
        assert (error.fault, error.reason) == (DOWN, "timeout")
        took.append(seconds)
    assert statistics.median(took) <= BUDGET + 0.02, "late"
    assert max(took) <= BUDGET + 0.25, "late"


def test_a_slow_reply_that_comes_in_time_is_taken(behind: Any, proxy: FaultProxy, valkey: Server) -> None:
    valkey.command("SET", "test:v:{faults:slow}", "x" * 100)
    proxy.slow(400)
    assert behind.within(5.0).get("test:v:{faults:slow}") == b"x" * 100


@pytest.mark.timed
def test_a_large_value_is_sent_and_read_within_one_budget(behind: Any, proxy: FaultProxy, key: str) -> None:
    data = os.urandom(4 * 2**20)
    assert behind.within(5.0).store(key, data, 60_000, None) is True
    assert behind.within(5.0).get(key) == data
    proxy.black_hole()
    error, seconds = failure(lambda: behind.store(key, data, 60_000, None))
    assert error.reason == "timeout"
    assert seconds < BUDGET + 0.25, "late"


@pytest.mark.timed
def test_a_server_that_refuses_is_down_at_once(behind: Any, proxy: FaultProxy) -> None:
    proxy.refuse()
    for _ in range(3):
        error, seconds = failure(lambda: behind.get("test:v:{faults:warm}"))
        assert (error.fault, error.reason) == (DOWN, "connection")
        assert seconds < 0.1, "late"
    proxy.pass_()
    assert behind.within(5.0).get("test:v:{faults:warm}") is None


@pytest.mark.parametrize(
    ("reply", "fault", "reason"),
    [
        ("-LOADING Redis is loading the dataset in memory", DOWN, "loading"),
        ("-CLUSTERDOWN Hash slot not served", DOWN, "loading"),
        ("-MASTERDOWN Link with MASTER is down", DOWN, "loading"),
        ("-BUSY Redis is busy running a script", DOWN, "loading"),
        ("-ERR max number of clients reached", DOWN, "connection"),
        ("-OOM command not allowed when used memory > 'maxmemory'.", Fault.READONLY, "oom"),
        ("-READONLY You can't write against a read only replica.", Fault.READONLY, "readonly"),
        ("-MISCONF Redis is configured to save RDB snapshots", Fault.READONLY, "readonly"),
        ("-NOREPLICAS Not enough good replicas to write.", Fault.READONLY, "readonly"),
        ("-NOAUTH Authentication required.", Fault.CONFIG, "auth"),
        ("-WRONGPASS invalid username-password pair", Fault.CONFIG, "auth"),
        ("-DENIED Redis is running in protected mode", Fault.CONFIG, "auth"),
        ("-NOPERM this user has no permissions to run the 'get' command", Fault.CONFIG, "noperm"),
        ("-ERR unknown command 'GET', with args beginning with:", Fault.CONFIG, "noperm"),
        ("-WRONGTYPE Operation against a key holding the wrong kind of value", Fault.COMMAND, "command"),
        ("-TRYAGAIN Multiple keys request during rehashing of slot", DOWN, "loading"),
        ("-MOVED 3999 127.0.0.1:6381", Fault.CONFIG, "moved"),
        ("-ASK 3999 127.0.0.1:6381", Fault.CONFIG, "moved"),
        ("-ERR something else", Fault.COMMAND, "command"),
        (":5", DOWN, "protocol"),
        ("*1\r\n:5", DOWN, "protocol"),
        ("HTTP/1.1 400 Bad Request\r\n", DOWN, "protocol"),
        ("$x", DOWN, "protocol"),
    ],
)
def test_each_reply_of_a_sick_server_is_one_fault_and_reason(
    behind: Any, proxy: FaultProxy, valkey: Server, reply: str, fault: Fault, reason: str
) -> None:
    proxy.reply(reply.encode() + b"\r\n")
    requests = proxy.requests
    error, _ = failure(lambda: behind.within(5.0).get("test:v:{faults:warm}"))
    assert (error.fault, error.reason) == (fault, reason)
    assert proxy.requests == requests + 1  # asked once
    proxy.pass_()
    valkey.command("SET", "test:v:{faults:warm}", "back")
    assert behind.within(5.0).get("test:v:{faults:warm}") == b"back"
    valkey.command("DEL", "test:v:{faults:warm}")


def test_a_wrapped_error_of_an_old_server_keeps_its_meaning() -> None:
    text = "ERR Error running script (call to f_6b1): @user_script:3: @user_script: 3: -OOM command not allowed"
    assert errors.from_reply(ReplyError(text)).reason == "oom"
    assert errors.from_reply(ReplyError("ERR Error running script: something")).fault is Fault.COMMAND


def test_more_than_the_answer_is_never_taken_for_the_next_one(behind: Any, proxy: FaultProxy, valkey: Server) -> None:
    valkey.command("SET", "test:v:{faults:right}", "right")
    proxy.reply(b"$5\r\nfirst\r\n$5\r\nwrong\r\n")
    assert behind.get("test:v:{faults:warm}") == b"first"
    proxy.pass_()
    assert behind.within(5.0).get("test:v:{faults:right}") == b"right"


# Sent again, or not.


def test_a_read_on_a_connection_that_was_reset_meanwhile_is_sent_again(behind: Any, proxy: FaultProxy) -> None:
    for _ in range(5):
        proxy.reset()
        assert behind.within(5.0).get("test:v:{faults:warm}") is None


@pytest.mark.parametrize("operation", ["incr", "store_if", "store with token"])
def test_what_must_not_be_done_twice_looks_before_it_is_sent(
    behind: Any, proxy: FaultProxy, key: str, operation: str
) -> None:
    token = os.urandom(16)
    if operation == "store with token":
        behind.within(5.0).get_or_lease(key, token, 60_000)
    proxy.reset()
    patient = behind.within(5.0)
    answer = {
        "incr": lambda: patient.incr(key, 1, None),
        "store_if": lambda: patient.store_if(key, b"1", None, None, True),
        "store with token": lambda: patient.store(key, b"1", None, token),
    }[operation]()
    assert answer == 1
    assert behind.get(key) == b"1"


@pytest.mark.parametrize("eof", [False, True], ids=["silence", "connection closed"])
def test_an_increment_whose_reply_is_lost_is_never_sent_again(
    behind: Any, proxy: FaultProxy, valkey: Server, key: str, eof: bool
) -> None:
    behind.within(5.0).incr(key, 1, None)
    if eof:
        proxy.truncate(0, eof=True)
    else:
        proxy.drop_replies()
    requests = proxy.requests
    error, _ = failure(lambda: behind.incr(key, 1, None))
    assert (error.fault, error.reason) == (DOWN, "connection" if eof else "timeout")
    assert proxy.requests == requests + 1
    proxy.pass_()
    assert valkey.command("GET", key) == b"2"


def test_a_read_is_sent_again_once_and_not_for_ever(behind: Any, proxy: FaultProxy) -> None:
    proxy.truncate(0, eof=True)
    requests = proxy.requests
    error, _ = failure(lambda: behind.get("test:v:{faults:warm}"))
    assert (error.fault, error.reason) == (DOWN, "connection")
    assert proxy.requests <= requests + 4  # the read, and the greeting of another connection, which is three commands


def test_a_read_that_timed_out_is_not_sent_again(behind: Any, proxy: FaultProxy) -> None:
    proxy.drop_replies()
    requests = proxy.requests
    failure(lambda: behind.get("test:v:{faults:warm}"))
    assert proxy.requests == requests + 1


def test_a_lease_whose_reply_is_lost_is_still_held_by_its_token(behind: Any, proxy: FaultProxy, key: str) -> None:
    token = os.urandom(16)
    behind.within(5.0).get_or_lease("test:v:{faults:script}", token, 5000)
    proxy.drop_replies()
    failure(lambda: behind.get_or_lease(key, token, 60_000))
    proxy.pass_()
    assert behind.within(5.0).get_or_lease(key, token, 60_000).kind == "held"
    assert behind.within(5.0).get_or_lease(key, os.urandom(16), 60_000).kind == "busy"


def test_a_connection_on_which_a_call_timed_out_is_not_used_again(behind: Any, proxy: FaultProxy, key: str) -> None:
    patient = behind.within(5.0)
    patient.store(key, b"right", None, None)
    for _ in range(5):
        proxy.latency(2 * BUDGET)
        failure(lambda: behind.get("test:v:{faults:warm}"))
        proxy.pass_()
        assert patient.get(key) == b"right"


def test_a_server_that_became_a_replica_is_looked_for_again(
    caller: Callable[..., Any], proxy: FaultProxy, key: str
) -> None:
    backend = caller(proxy.url)
    backend.get(key)
    connections = proxy.connections
    proxy.reply(b"-READONLY You can't write against a read only replica.\r\n")
    failure(lambda: backend.store(key, b"value", None, None))
    proxy.pass_()
    assert backend.store(key, b"value", None, None) is True
    assert proxy.connections > connections


def test_restarting_the_server_costs_a_read_nothing(caller: Callable[..., Any], key: str) -> None:
    with start_server("valkey") as server:
        backend = caller(server.url)
        assert backend.incr(key, 5, None) == 5
        server.restart()
        assert backend.get(key) is None
        server.restart()
        assert backend.incr(key, 1, None) == 1


# Wrong settings: one attempt, said at once.


@pytest.fixture(scope="module")
def locked() -> Iterator[Server]:
    with start_server("valkey", password="right/pass word?") as server:
        yield server


@pytest.fixture(scope="module")
def secure() -> Iterator[Server]:
    with start_server("redis", tls=True) as server:
        yield server


def is_wrong_at_once(backend: Any, reason: str) -> BackendError:
    error, seconds = failure(lambda: backend.get("test:v:{faults:wrong}"))
    assert (error.fault, error.reason) == (Fault.CONFIG, reason), str(error)
    assert seconds < 1.0, "late"
    return error


def test_a_password_from_the_url_or_the_settings_lets_us_in(caller: Callable[..., Any], locked: Server) -> None:
    bare = f"redis://127.0.0.1:{locked.port}"
    assert caller(locked.url).get("test:v:{faults:in}") is None
    assert caller(bare, password=locked.password).get("test:v:{faults:in}") is None
    assert caller(bare, username="default", password=locked.password).get("test:v:{faults:in}") is None


@pytest.mark.timed
@pytest.mark.parametrize("options", [{"password": "wrong"}, {}, {"username": "nobody", "password": "wrong"}])
def test_a_wrong_password_is_told_after_one_attempt(
    caller: Callable[..., Any], locked: Server, options: dict[str, str]
) -> None:
    with FaultProxy("127.0.0.1", locked.port) as proxy:
        backend = caller(proxy.url, **options)
        error = is_wrong_at_once(backend, "auth")
        assert proxy.connections == 1
        assert "wrong" not in str(error).replace("WRONGPASS", "").replace("wrong number", "")


@pytest.mark.timed
def test_a_password_for_a_server_without_one_is_told(caller: Callable[..., Any], valkey: Server) -> None:
    is_wrong_at_once(caller(f"redis://:secret@127.0.0.1:{valkey.port}"), "auth")


class Rotating:
    """A credential provider whose token service may be away."""

    token = "right"
    asked = 0

    def get_credentials(self) -> tuple[str, str]:
        type(self).asked += 1
        if self.token != "right":
            raise OSError("the service refused the key hush")
        return "rotating", self.token


def test_each_connection_asks_the_credential_provider_whose_failure_is_a_fault(
    caller: Callable[..., Any], valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    valkey.command("ACL", "SETUSER", "rotating", "on", ">right", "~test:*", "+@all")
    backend = caller(f"redis://127.0.0.1:{valkey.port}", credential_provider=f"{__name__}.Rotating")
    asked = Rotating.asked
    assert backend.get("test:v:{faults:acl}") is None
    assert Rotating.asked == asked + 1
    monkeypatch.setattr(Rotating, "token", "away")
    assert backend.get("test:v:{faults:acl}") is None
    backend.close()
    error, _ = failure(lambda: backend.get("test:v:{faults:acl}"))
    assert (error.fault, error.reason) == (DOWN, "auth")
    assert "hush" not in str(error)
    valkey.command("ACL", "DELUSER", "rotating")


def test_a_user_without_permissions_is_told(caller: Callable[..., Any], valkey: Server) -> None:
    valkey.command("ACL", "SETUSER", "reader", "on", ">pw", "~test:*", "+get", "+time")
    backend = caller(f"redis://reader:pw@127.0.0.1:{valkey.port}")
    assert backend.get("test:v:{faults:acl}") is None
    for operation in (lambda: backend.store("test:v:{a:b}", b"1", None, None), lambda: backend.get("other:v:{a:b}")):
        error, _ = failure(operation)
        assert (error.fault, error.reason) == (Fault.CONFIG, "noperm")
    valkey.command("ACL", "DELUSER", "reader")


def test_a_script_whose_command_is_not_permitted_is_told(caller: Callable[..., Any], server: Server) -> None:
    server.command("ACL", "SETUSER", "halfway", "on", ">pw", "~test:*", "+@all", "-set")
    backend = caller(f"redis://halfway:pw@127.0.0.1:{server.port}")
    error, _ = failure(lambda: backend.store("test:v:{a:b}", b"1", None, None))
    assert (error.fault, error.reason) == (Fault.CONFIG, "noperm"), str(error)
    server.command("ACL", "DELUSER", "halfway")


def test_check_works_without_the_permission_to_ask(caller: Callable[..., Any], valkey: Server) -> None:
    valkey.command("ACL", "SETUSER", "noinfo", "on", ">pw", "~test:*", "+@all", "-info")
    facts = caller(f"redis://noinfo:pw@127.0.0.1:{valkey.port}").check()
    assert facts == {"address": f"127.0.0.1:{valkey.port}", "tls": "no"}
    valkey.command("ACL", "DELUSER", "noinfo")


@pytest.mark.timed
def test_a_database_that_does_not_exist_is_told(caller: Callable[..., Any], valkey: Server) -> None:
    is_wrong_at_once(caller(f"redis://127.0.0.1:{valkey.port}/99"), "command")


def test_databases_are_told_apart(caller: Callable[..., Any], valkey: Server, key: str) -> None:
    zero, one = (caller(f"redis://127.0.0.1:{valkey.port}/{number}") for number in (0, 1))
    zero.store(key, b"zero", None, None)
    one.store(key, b"one", None, None)
    assert [zero.get(key), one.get(key)] == [b"zero", b"one"]


def test_tls_with_the_right_authority_works(caller: Callable[..., Any], secure: Server, key: str) -> None:
    backend = caller(secure.url, tls=TLSSpec(ca=secure.ca))
    data = os.urandom(300_000)
    assert backend.store(key, data, 60_000, None) is True
    assert backend.get(key) == data
    assert backend.check()["tls"] == "yes"


@pytest.mark.timed
def test_tls_by_name_checks_the_name(caller: Callable[..., Any], secure: Server, key: str) -> None:
    named = caller(f"rediss://localhost:{secure.port}", tls=TLSSpec(ca=secure.ca))
    assert named.get(key) is None
    is_wrong_at_once(caller(f"rediss://127.1:{secure.port}", tls=TLSSpec(ca=secure.ca)), "tls")


@pytest.mark.timed
def test_an_untrusted_authority_is_told_after_one_attempt(caller: Callable[..., Any], secure: Server) -> None:
    with FaultProxy("127.0.0.1", secure.port) as proxy:
        is_wrong_at_once(caller(proxy.url.replace("redis:", "rediss:")), "tls")
        assert proxy.connections == 1


@pytest.mark.timed
def test_tls_to_a_plain_port_is_told_although_the_server_says_nothing(
    caller: Callable[..., Any], server: Server
) -> None:
    """It waits for the end of a line that never comes; a second connection asks whether it understands plain words."""
    with FaultProxy("127.0.0.1", server.port) as proxy:
        is_wrong_at_once(caller(proxy.url.replace("redis:", "rediss:"), 0.25), "tls")
        assert proxy.connections == 2


@pytest.mark.timed
def test_a_plain_client_at_a_tls_port_fails_at_once(caller: Callable[..., Any], secure: Server) -> None:
    error, seconds = failure(lambda: caller(secure.url.replace("rediss:", "redis:")).get("test:v:{faults:plain}"))
    assert error.fault is DOWN
    assert seconds < 1.0, "late"


@pytest.mark.timed
@pytest.mark.parametrize("fault", ["black_hole", "hang", "slow"])
def test_a_tls_handshake_that_hangs_costs_the_budget(caller: Callable[..., Any], secure: Server, fault: str) -> None:
    with FaultProxy("127.0.0.1", secure.port) as proxy:
        backend = caller(proxy.url.replace("redis:", "rediss:"), BUDGET, tls=TLSSpec(ca=secure.ca))
        proxy.slow(200) if fault == "slow" else getattr(proxy, fault)()
        took = []
        for _ in range(5):
            error, seconds = failure(lambda: backend.get("test:v:{faults:tls}"))
            assert (error.fault, error.reason) == (DOWN, "timeout"), str(error)
            took.append(seconds)
        assert statistics.median(took) <= BUDGET + 0.02, "late"
        assert max(took) <= BUDGET + 0.25, "late"


@pytest.mark.timed
@pytest.mark.slow  # needs redis-server, which make test-all installs
def test_a_client_certificate_is_shown_to_a_server_that_wants_one(caller: Callable[..., Any], key: str) -> None:
    with start_server("redis", tls="mutual", password="hush") as strict:
        tls = TLSSpec(ca=strict.ca, cert=strict.client_cert, key=strict.client_key)
        backend = caller(strict.url, tls=tls)
        assert backend.store(key, b"value", None, None) is True
        assert backend.get(key) == b"value"
        error, seconds = failure(lambda: caller(strict.url, tls=TLSSpec(ca=strict.ca)).get(key))
        # The server closes at once, and mostly we can read why before we notice.
        assert (error.fault, error.reason) in {(Fault.CONFIG, "tls"), (DOWN, "connection")}
        assert seconds < 1.0, "late"


def test_a_server_that_goes_away_during_the_handshake_is_down_and_not_misconfigured(
    caller: Callable[..., Any], secure: Server
) -> None:
    with FaultProxy("127.0.0.1", secure.port) as proxy:
        proxy.truncate(100, eof=True)
        error, _ = failure(
            lambda: caller(proxy.url.replace("redis:", "rediss:"), tls=TLSSpec(ca=secure.ca)).get("k:v:{a}")
        )
        assert (error.fault, error.reason) == (DOWN, "connection"), str(error)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), (DOWN, "connection")),
        (ssl.SSLZeroReturnError(6, "TLS/SSL connection has been closed (EOF)"), (DOWN, "connection")),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), (Fault.CONFIG, "tls")),
        (ssl.SSLError(1, "wrong version number"), (Fault.CONFIG, "tls")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_which_errors_of_tls_mean_that_something_is_set_up_wrong(error: Exception, expected: Any) -> None:
    found = errors.while_connecting(error, "h:1")
    assert (found.fault, found.reason) == expected


def test_a_unix_socket_works_and_a_missing_one_is_down(caller: Callable[..., Any], tmp_path: Any, key: str) -> None:
    path = f"/tmp/ck-{os.getpid()}.sock"
    with start_server("valkey", args=["--unixsocket", path]):
        backend = caller(f"unix://{path}?db=2")
        assert backend.incr(key, 1, None) == 1
        assert backend.get(key) == b"1"
    error, _ = failure(lambda: caller(f"unix://{path}").get(key))
    assert (error.fault, error.reason) == (DOWN, "connection")


def test_a_name_that_does_not_exist_is_down(caller: Callable[..., Any]) -> None:
    error, _ = failure(lambda: caller("redis://no-such-host.invalid").get("test:v:{faults:name}"))
    assert (error.fault, error.reason) in {(DOWN, "connection"), (DOWN, "timeout")}
