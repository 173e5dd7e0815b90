"""Several servers that belong together, for tests: a primary with replicas and Sentinels, or a cluster."""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

from cachekit.testing.servers import HOST, Kind, ReplyError, Server, binary, free_port, launch, start_server

T = TypeVar("T")

SlotRange: TypeAlias = tuple[int, int, Server, tuple[Server, ...]]  # first, last, primary, replicas

SERVICE = "mymaster"
SLOTS = 16_384
SETTLE_SECONDS = 20.0  # on a busy machine; mostly two are enough
SOON = 0.02  # seconds between two looks
# A server that is shut down, paused or in the middle of a change does not answer, or says so.
AWAY = (OSError, EOFError, ReplyError, TypeError)


class Setup:
    """Servers that end together. Use it as a context manager or call `stop`; they also end with this process."""

    def __init__(self, password: str | None) -> None:
        self.password = password
        self.servers: list[Server] = []
        """Those that hold data, in the order of their start."""

    def settle(self, seconds: float = SETTLE_SECONDS) -> None:
        """Start again and resume what was killed or paused; return when all of it works together again."""
        for server in self._all():
            if server.running:
                server.resume()
            else:
                server.start()
                self._started(server)
        self._wait(self._settled, seconds, "did not come to rest")

    def stop(self) -> None:
        """End all of it."""
        for server in reversed(self._all()):
            server.stop()

    def _all(self) -> list[Server]:
        return list(self.servers)

    def _started(self, server: Server) -> None:
        """What has to be done after each start."""

    def _settled(self) -> bool:
        raise NotImplementedError

    def _wait(self, condition: Callable[[], T | None], seconds: float, complaint: str) -> T:
        """What the condition returns as soon as that is true."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(*AWAY):
                if found := condition():
                    return found
            if time.monotonic() > deadline:
                logs = "\n".join(f"{server.port}: {server.log()[-1500:]}" for server in self._all())
                raise RuntimeError(f"the servers {complaint} within {seconds:g} s. Their logs end with:\n{logs}")
            time.sleep(SOON)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class SentinelSetup(Setup):
    """A primary, its replicas, and Sentinels that watch them.

    ``servers`` are the former, ``sentinels`` the latter; each is a `Server`, so ``setup.primary.kill()`` and
    ``setup.sentinels[0].pause()`` do what they say. ``url`` is what cachekit connects to.
    """

    def __init__(self, service: str, password: str | None, sentinel_password: str | None) -> None:
        super().__init__(password)
        self.service = service
        self.sentinel_password = sentinel_password
        self.sentinels: list[Server] = []

    @property
    def url(self) -> str:
        """Of the service, passwords included."""
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        query = f"?sentinel_password={quote(self.sentinel_password, safe='')}" if self.sentinel_password else ""
        return f"redis+sentinel://{secret(self.password)}{hosts}/{self.service}/0{query}"

    @property
    def primary(self) -> Server:
        """The one that a Sentinel names now. RuntimeError when none answers."""
        for sentinel in self.sentinels:
            with contextlib.suppress(*AWAY):
                return self._named_by(sentinel)
        raise RuntimeError("no Sentinel answers")

    @property
    def replicas(self) -> list[Server]:
        """All servers but the primary."""
        primary = self.primary
        return [server for server in self.servers if server is not primary]

    def failover(self, seconds: float = SETTLE_SECONDS) -> Server:
        """Have a Sentinel make a replica the primary although nothing is wrong; the new primary."""
        old = self.primary

        def other() -> Server | None:
            # Asked as often as all name the old one. Refused as long as an earlier failover goes on, or no replica is
            # known to be in order; and one that was granted is undone where a Sentinel that has not heard of it yet
            # makes the new primary a replica again.
            if self._named_by_all() is old:
                with contextlib.suppress(*AWAY):
                    ask_quickly(self.sentinels[0], "SENTINEL", "FAILOVER", self.service)
            return self._other(old)

        return self._wait(other, seconds, "did not get another primary")

    def promoted(self, old: Server, seconds: float = SETTLE_SECONDS) -> Server:
        """Wait until the Sentinels name another primary than ``old`` and it takes writes; the new primary."""
        return self._wait(lambda: self._other(old), seconds, "did not get another primary")

    def _other(self, old: Server) -> Server | None:
        named = self._named_by_all()
        return named if named is not None and named is not old and is_primary(named) else None

    def _all(self) -> list[Server]:
        return [*self.servers, *self.sentinels]

    def _started(self, server: Server) -> None:
        for name, milliseconds in QUICK_SENTINEL.items() if server in self.sentinels else ():
            server.command("SENTINEL", "DEBUG", name, milliseconds)

    def _named_by(self, sentinel: Server) -> Server:
        answer = ask_quickly(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return next(server for server in self.servers if server.port == int(answer[1]))

    def _named_by_all(self) -> Server | None:
        """None while they disagree; those that were killed or paused have no say."""
        named: list[Server] = []
        for sentinel in self.sentinels:
            with contextlib.suppress(*AWAY):
                named.append(self._named_by(sentinel))
        return named[0] if named and all(one is named[0] for one in named) else None

    def _settled(self) -> bool:
        primary = self._named_by_all()
        if primary is None or not is_primary(primary):
            return False
        replicas = [server for server in self.servers if server is not primary]
        return all(follows(server, primary) for server in replicas) and all(map(self._knows_all, self.sentinels))

    def _knows_all(self, sentinel: Server) -> bool:
        told = pairs(ask_quickly(sentinel, "SENTINEL", "MASTER", self.service))
        replicas = [pairs(one) for one in ask_quickly(sentinel, "SENTINEL", "REPLICAS", self.service)]
        return (
            told["flags"] == "master"
            and int(told["num-other-sentinels"]) == len(self.sentinels) - 1
            and len(replicas) == len(self.servers) - 1
            and all(one["flags"] == "slave" and one["master-link-status"] == "ok" for one in replicas)
        )

    def __enter__(self) -> "SentinelSetup":
        return self


class ClusterSetup(Setup):
    """The nodes of a cluster, each a `Server`. ``url`` is what cachekit connects to.

    ``shards`` are lists of nodes with the same slots, one of which is the primary.
    """

    def __init__(self, password: str | None) -> None:
        super().__init__(password)
        self.shards: list[list[Server]] = []

    @property
    def url(self) -> str:
        """All nodes, password included."""
        hosts = ",".join(f"{HOST}:{server.port}" for server in self.servers)
        return f"redis+cluster://{secret(self.password)}{hosts}/"

    @property
    def primaries(self) -> list[Server]:
        """The nodes that serve slots now, as the first node that answers sees it."""
        return list(dict.fromkeys(primary for _, _, primary, _ in self._view()))

    def replicas_of(self, primary: Server) -> list[Server]:
        """The replicas of a node, as the first node that answers sees it."""
        replicas = next((replicas for _, _, owner, replicas in self._view() if owner is primary), ())
        return list(replicas)

    def slot(self, key: str | bytes) -> int:
        """The slot of a key."""
        return self._anyone(lambda server: int(ask_quickly(server, "CLUSTER", "KEYSLOT", key)))

    def primary_of(self, key: str | bytes | int) -> Server:
        """The node that serves a key, or a slot, now."""
        slot = key if isinstance(key, int) else self.slot(key)
        return next(primary for first, last, primary, _ in self._view() if first <= slot <= last)

    def failover(self, primary: Server, seconds: float = SETTLE_SECONDS) -> Server:
        """Have a replica of this node take over although nothing is wrong; the new primary."""
        replica = self.replicas_of(primary)[0]
        asked = "CLUSTER", "FAILOVER"
        self._wait(lambda: ask_quickly(replica, *asked) == "OK", seconds, "refused to fail over")
        return self.promoted(primary, seconds)

    def promoted(self, old: Server, seconds: float = SETTLE_SECONDS) -> Server:
        """Wait until a replica of ``old`` is primary and every node that answers knows it; the new primary."""
        shard = next(shard for shard in self.shards if old in shard)

        def other() -> Server | None:
            views = list(self._views())
            named = {primary for view in views for _, _, primary, _ in view if primary in shard}
            return named.pop() if len(named) == 1 and old not in named else None

        return self._wait(other, seconds, "did not get another primary")

    def start_move(self, slot: int, target: Server) -> None:
        """Begin to move a slot: its primary answers ASK from now on for keys that it does not have."""
        source = self.primary_of(slot)
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(source))
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(target))

    def end_move(self, slot: int, target: Server) -> None:
        """Move the slot's keys, and tell every primary that it belongs to ``target`` now."""
        source, new = self.primary_of(slot), node_id(target)
        login = ["AUTH", self.password] if self.password else []
        while source is not target and (keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 100)):
            source.command("MIGRATE", HOST, target.port, "", 0, 5000, *login, "KEYS", *keys)
        for server in (target, *(one for one in self.primaries if one is not target)):
            server.command("CLUSTER", "SETSLOT", slot, "NODE", new)

    def move(self, slot: int, target: Server) -> None:
        """Move a slot with its keys to another primary."""
        self.start_move(slot, target)
        self.end_move(slot, target)

    def _anyone(self, ask: Callable[[Server], T]) -> T:
        """The answer of the first node that gives one."""
        for server in self.servers:
            with contextlib.suppress(*AWAY):
                return ask(server)
        raise RuntimeError("no node of the cluster answers")

    def _view(self) -> list[SlotRange]:
        return self._anyone(self._view_of)

    def _views(self) -> Iterable[list[SlotRange]]:
        """Of those that answer."""
        for server in self.servers:
            with contextlib.suppress(*AWAY):
                yield self._view_of(server)

    def _view_of(self, server: Server) -> list[SlotRange]:
        ranges = ask_quickly(server, "CLUSTER", "SLOTS")
        return [
            (first, last, self._known(primary), tuple(map(self._known, replicas)))
            for first, last, primary, *replicas in ranges
        ]

    def _known(self, node: list[Any]) -> Server:
        return next(server for server in self.servers if server.port == node[1])

    def _settled(self) -> bool:
        """Every node has the same map of slots, with each shard complete, and sees the others."""
        views = [self._view_of(server) for server in self.servers]
        owners = [{(first, last): primary for first, last, primary, _ in view} for view in views]
        complete = all(
            any(shard[0] in {primary, *replicas} and len(shard) == 1 + len(replicas) for shard in self.shards)
            for view in views
            for _, _, primary, replicas in view
        )
        agreed = complete and all(one == owners[0] for one in owners)
        return agreed and all(map(self._whole, self.servers)) and all(map(self._in_order, self.shards))

    def _whole(self, server: Server) -> bool:
        facts = fields(ask_quickly(server, "CLUSTER", "INFO"))
        wanted = {"cluster_state": "ok", "cluster_slots_ok": SLOTS, "cluster_known_nodes": len(self.servers)}
        return all(facts[name] == str(value) for name, value in wanted.items())

    def _in_order(self, shard: list[Server]) -> bool:
        primaries = [server for server in shard if is_primary(server)]
        return len(primaries) == 1 and all(server is primaries[0] or follows(server, primaries[0]) for server in shard)

    def __enter__(self) -> "ClusterSetup":
        return self


def start_sentinel(
    kind: Kind = "valkey",
    *,
    replicas: int = 1,
    sentinels: int = 3,
    password: str | None = None,
    sentinel_password: str | None = None,
    service: str = SERVICE,
    args: Sequence[str] = (),
) -> SentinelSetup:
    """Start a primary with replicas, and Sentinels that know all of it when this returns.

    A primary that is gone is replaced after about 2 s if a majority of the Sentinels sees it; one may be enough.
    ``password`` is that of the servers with data, ``args`` are further options of their command lines. Errors are as of
    `start_server`.
    """
    setup = SentinelSetup(service, password, sentinel_password)
    try:
        primary = start_server(kind, password=password, args=[*replication(password), *args])
        setup.servers.append(primary)
        for _ in range(replicas):
            follow = ["--replicaof", f"{HOST} {primary.port}", *replication(password), *args]
            setup.servers.append(start_server(kind, password=password, args=follow))
        setup._wait(lambda: all(follows(one, primary) for one in setup.servers[1:]), SETTLE_SECONDS, "did not follow")
        for _ in range(sentinels):
            setup.sentinels.append(launch(sentinel_of(kind, setup, primary, sentinels // 2 + 1)))
            setup._started(setup.sentinels[-1])
        setup.settle()
    except BaseException:
        setup.stop()
        raise
    return setup


# Else they look for each other and for replicas every 2 to 10 s.
QUICK_SENTINEL = {"info-period": 200, "publish-period": 200, "ask-period": 200}


def sentinel_of(kind: Kind, setup: SentinelSetup, primary: Server, quorum: int) -> Callable[[int], Server]:
    """Makes a Sentinel for a port."""
    lines = [
        f"monitor {setup.service} {HOST} {primary.port} {quorum}",
        f"down-after-milliseconds {setup.service} 700",
        f"failover-timeout {setup.service} 3000",
        *([f"auth-pass {setup.service} {quoted(setup.password)}"] if setup.password else []),
    ]
    own = setup.sentinel_password
    command = [binary(kind), "sentinel.conf", "--sentinel"]

    def make(port: int) -> Server:
        first = [f"port {port}", f"bind {HOST}", *([f"requirepass {quoted(own)}"] if own else [])]
        text = "\n".join([*first, *(f"sentinel {line}" for line in lines), ""])
        return Server(command, port, password=own, files={"sentinel.conf": text})

    return make


def start_cluster(
    kind: Kind = "valkey",
    *,
    primaries: int = 3,
    replicas: int = 0,
    password: str | None = None,
    args: Sequence[str] = (),
) -> ClusterSetup:
    """Start a cluster whose nodes know each other and serve all slots when this returns.

    ``replicas`` is the number of each primary. A primary that is gone is replaced after about 2 s, if there are at
    least 3 of them. ``args`` are further options of the nodes' command lines. Errors are as of `start_server`.
    """
    for _ in range(2):
        # Once in some hundred times nodes that met all at once never agree on who is whose replica.
        with contextlib.suppress(RuntimeError):
            return one_cluster(kind, primaries, replicas, password, args)
    return one_cluster(kind, primaries, replicas, password, args)


def one_cluster(kind: Kind, primaries: int, replicas: int, password: str | None, args: Sequence[str]) -> ClusterSetup:
    """As `start_cluster`, tried once."""
    setup = ClusterSetup(password)
    try:
        buses = {}
        for _ in range(primaries * (1 + replicas)):
            bus = free_port()
            setup.servers.append(start_server(kind, password=password, args=[*cluster_options(bus, password), *args]))
            buses[setup.servers[-1]] = bus
        setup.shards = [setup.servers[number::primaries] for number in range(primaries)]
        give_slots(setup.servers, primaries)
        for server in setup.servers[1:]:
            server.command("CLUSTER", "MEET", HOST, setup.servers[0].port, buses[setup.servers[0]])
        for shard in setup.shards:
            for replica in shard[1:]:
                reproduce(setup, replica, shard[0])
        setup.settle()
    except BaseException:
        setup.stop()
        raise
    return setup


def cluster_options(bus: int, password: str | None) -> list[str]:
    return [
        *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port", str(bus)),
        *("--cluster-node-timeout", "1000", "--cluster-allow-replica-migration", "no"),
        # However long its primary was silent, a replica may take over.
        *("--cluster-replica-validity-factor", "0"),
        *replication(password),
    ]


def give_slots(servers: Sequence[Server], primaries: int) -> None:
    """Equal shares for the first ones. Every node gets an epoch of its own; they would quarrel about it otherwise."""
    for number, server in enumerate(servers):
        server.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        if number < primaries:
            first, end = SLOTS * number // primaries, SLOTS * (number + 1) // primaries
            server.command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)


def reproduce(setup: ClusterSetup, replica: Server, primary: Server) -> None:
    """Make it a replica; it refuses until it has heard of its primary."""
    asked = "CLUSTER", "REPLICATE", node_id(primary)
    setup._wait(lambda: replica.command(*asked) == "OK", SETTLE_SECONDS, "did not meet")


def replication(password: str | None) -> list[str]:
    """Options of those that may become a replica."""
    # A replica that has never heard of its primary's position is left out of CLUSTER SLOTS.
    options = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--repl-timeout", "5"]
    return [*options, "--masterauth", password] if password else options


def node_id(server: Server) -> str:
    """Its name within the cluster."""
    name: bytes = server.command("CLUSTER", "MYID")
    return name.decode()


def ask_quickly(server: Server, *words: str | bytes | int) -> Any:
    """As `Server.command`, without patience for one that is paused."""
    return server.command(*words, timeout=1.0) if server.running else None


def is_primary(server: Server) -> bool:
    return bool(ask_quickly(server, "ROLE")[0] == b"master")


def follows(server: Server, primary: Server) -> bool:
    """Whether it is a replica of this one and up to date."""
    role = ask_quickly(server, "ROLE")
    return bool(role[0] == b"slave" and role[2] == primary.port and role[3] == b"connected")


def pairs(flat: Sequence[bytes]) -> dict[str, str]:
    """Names and values in turn."""
    texts = [text.decode() for text in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def fields(info: bytes) -> dict[str, str]:
    """Lines of ``name:value``."""
    return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)


def quoted(text: str | None) -> str:
    """A word of a configuration file."""
    escaped = (text or "").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def secret(password: str | None) -> str:
    """In front of the hosts of a URL."""
    return f":{quote(password, safe='')}@" if password else ""
