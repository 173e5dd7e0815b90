"""What became of an invalidation."""

from enum import Enum


class Outcome(Enum):
    """`DONE`: L2 has it. `QUEUED`: this process obeys, L2 hears of it before its next use. `FAILED`: it never will."""

    DONE = "done"
    QUEUED = "queued"
    FAILED = "failed"
