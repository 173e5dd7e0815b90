"""Two services on one real server, of which one writes and the other reads, with the bytes in between within reach."""

import asyncio
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import replace
from typing import Any

from cachekit.config.spec import BackendSpec, CodecSpec, KeySpec, L1Spec, RegionSpec, ServiceSpec, built_in_regions
from cachekit.service import Service
from cachekit.testing.servers import Server

MASTER, OTHER = (hashlib.sha256(name).hexdigest() for name in (b"a master key", b"another master key"))
VALUE = {"name": "Ada", "n": 2**70, "tags": ("a", 1)}
numbers = itertools.count()


class Side:
    """One service, and a cached function of it that is blocking or async; `call` and the like hide which."""

    def __init__(self, service: Service, runner: asyncio.Runner | None) -> None:
        self.service = service
        self.runner = runner
        self.runs = 0
        self.during: Callable[[], object] = lambda: None  # what happens while the function runs

        def load(key: int) -> Any:
            self.runs += 1
            self.during()
            return VALUE

        async def aload(key: int) -> Any:
            return load(key)

        self.source: Callable[[int], Any] = load if runner is None else aload
        self.source.__qualname__ = "load"
        self.f = self.in_region("users")

    def in_region(self, name: str, **options: Any) -> Any:
        return self.service.region(name).cached(version=1, **options)(self.source)

    def call(self, key: int = 1) -> Any:
        return self.wait(self.f(key))

    def wait(self, made: Any) -> Any:
        return (
            made
            if self.runner is None or not asyncio.iscoroutine(made)
            else self.runner.run(self.of(made), context=copy_context())
        )

    @staticmethod
    async def of(made: Any) -> Any:
        return await made

    def region(self, method: str, *args: Any, **named: Any) -> Any:
        """A method of the region, or its twin."""
        region = self.service.region("users")
        if self.runner is None:
            return getattr(region, method)(*args, **named)
        return self.wait(getattr(region, f"a{method}")(*args, **named))

    def reasons(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for tally in self.service.tallies():
            for (_, reason), count in tally.errors.items():
                total[reason] += count
        return total

    def close(self) -> None:
        if self.runner is not None:
            self.runner.run(self.service.aclose())
        self.service.close()


class Rig:
    """A writer and readers; every one of them with an L1 that is always empty, unless ``l1`` says otherwise."""

    def __init__(self, server: Server, *, use: str = "encrypt", fail_closed: bool = False, face: str = "sync",
                 **fields: Any) -> None:  # fmt: skip
        self.server = server
        self.namespace = f"sealed{next(numbers)}"
        self.runner = asyncio.Runner() if face == "async" else None
        self.codec = CodecSpec(**{use: True} if use else {}, fail_closed=fail_closed)
        self.fields = fields
        self.sides: list[Side] = []
        self.writer = self.side()
        self.reader = self.side()

    def spec(self, **changes: Any) -> ServiceSpec:
        region = built_in_regions()["default"].but(**{"l1": L1Spec(mode="off"), "codec": self.codec, **self.fields})
        regions: dict[str, RegionSpec] = {name: region.but(name=name) for name in ("users", "others")}
        for name, codec in (
            ("plain", CodecSpec()), ("signed", CodecSpec(sign=True)), ("sealed", CodecSpec(encrypt=True)),
        ):  # fmt: skip
            regions[name] = region.but(name=name, codec=codec)
        spec = ServiceSpec(
            namespace=self.namespace, namespace_given=True, keys=KeySpec(master_key=MASTER), regions=regions,
            backends={"default": BackendSpec(url=self.server.url, budget=10.0, adaptive=False)},
        )  # fmt: skip
        return replace(spec, **changes)

    def side(self, *, clock: Any = None, **changes: Any) -> Side:
        made = Side(Service(self.spec(**changes), clock=clock), self.runner)
        self.sides.append(made)
        return made

    def get(self, key: Any) -> bytes:
        data: bytes = self.server.command("GET", str(key))
        return data

    def put(self, key: Any, data: bytes) -> None:
        self.server.command("SET", str(key), data, "PX", "600000")

    def close(self) -> None:
        for side in self.sides:
            side.close()
        if self.runner is not None:
            self.runner.close()
