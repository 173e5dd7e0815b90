"""What the tests of the table share: the list of implementations, a clock that they move, a table ready to use."""

import importlib.util
from types import ModuleType
from typing import Any

from cachekit.l1.values import admit
from cachekit.l1.views import NEVER

TWINS = ["pure", "native"] if importlib.util.find_spec("cachekit._native") else ["pure"]


class Clock:
    """Nanoseconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


class Rig:
    """A table with its surroundings, and short ways to use it."""

    def __init__(self, twin: ModuleType, **options: Any) -> None:
        self.clock = options.pop("clock", Clock())
        self.versions = options.pop("versions", None) or twin.Versions()
        defaults = {"region": "r", "max_entries": 100, "max_bytes": 1 << 30, "policy": "s3fifo"}
        self.table = twin.Table(versions=self.versions, clock=self.clock, **{**defaults, **options})
        self.slot = self.table.slot("f")

    def put(self, *args: Any, value: Any = "v", ttl: int = NEVER, **options: Any) -> bool:
        """Put under these arguments, with a ticket of now; ``ttl`` in ns."""
        until = NEVER if ttl == NEVER else self.clock() + ttl
        fields = {
            "khash": hash(args) & 0xFFFF,
            "fresh_until": until,
            "keep_until": until,
            "ticket": self.versions.ticket(),
            "admission": admit(value),
            **options,
        }
        return bool(self.table.put(fields.pop("slot", self.slot), args, value, **fields))

    def get(self, *args: Any, slot: int | None = None) -> Any:
        return self.table.get(self.slot if slot is None else slot, args)
