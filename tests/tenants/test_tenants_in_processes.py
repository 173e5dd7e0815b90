"""Tenants in real processes: what one stores the other finds, what one clears the other forgets, forks keep both."""

import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from cachekit.testing import Processes
from cachekit.testing.servers import Server, start_server

pytestmark = [pytest.mark.server, pytest.mark.slow]

HERE = Path(__file__).parent
KEY = sha256(b"master").hexdigest()


@pytest.fixture
def own_server() -> Iterator[Server]:
    with start_server("valkey") as server:
        yield server


def soon(condition: Callable[[], bool]) -> None:
    """Within the bound of max_staleness, on a busy machine."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
def test_what_one_process_clears_for_a_tenant_the_other_forgets(own_server: Server, encrypt: bool) -> None:
    with Processes(2, env={"PYTHONPATH": str(HERE)}) as processes:
        one, other = processes
        for process in processes:
            process.call("tenant_fork_app:begin", own_server.url, {"encrypt": True} if encrypt else {}, KEY)
        for what in ("clear", "invalidate_all"):
            of = {who: one.call("tenant_fork_app:ask", who) for who in ("a", "b")}
            nobody = one.call("tenant_fork_app:ask_nobody")
            assert [other.call("tenant_fork_app:ask", who) for who in ("a", "b")] == [of["a"], of["b"]]
            assert [of["a"][0], of["b"][0], nobody[0]] == ["a", "b", None]
            assert other.call("tenant_fork_app:ask_nobody") == nobody
            assert one.call("tenant_fork_app:clear", "a", what) == "DONE"
            assert one.call("tenant_fork_app:peek", "a") is None
            soon(lambda: other.call("tenant_fork_app:peek", "a") is None)
            for process in processes:
                assert process.call("tenant_fork_app:peek", "b") == of["b"]
                assert process.call("tenant_fork_app:ask_nobody") == nobody
            assert other.call("tenant_fork_app:clear", None, what) == "DONE"
            assert other.call("tenant_fork_app:peek", "b") is None
            soon(lambda: one.call("tenant_fork_app:peek", "b") is None)


@pytest.mark.parametrize("profile", [{}, {"encrypt": True}, {"backend": "none"}], ids=["plain", "encrypted", "l1"])
def test_a_child_forked_inside_of_a_tenant_is_still_in_it(own_server: Server, profile: dict[str, Any]) -> None:
    with Processes(1, env={"PYTHONPATH": str(HERE)}) as processes:
        (parent,) = processes
        parent.call("tenant_fork_app:begin", own_server.url, profile, KEY)
        nobody, of_a = parent.call("tenant_fork_app:ask_nobody"), parent.call("tenant_fork_app:ask", "a")
        saw = parent.call("tenant_fork_app:fork_inside", "a")
        assert [saw[where][0] for where in ("inside", "outside", "other")] == ["a", None, "other"]
        if "backend" not in profile:
            assert (saw["inside"], saw["outside"]) == (of_a, nobody)
