"""The value of "nothing there": ``None`` can be cached, so a look-up that finds nothing answers `MISS`."""

from enum import Enum
from typing import Final


class Miss(Enum):
    """The class of `MISS`. An enum of one member, so that type checkers narrow ``value is not MISS``."""

    MISS = "MISS"

    def __repr__(self) -> str:
        return "MISS"

    __str__ = __repr__


MISS: Final = Miss.MISS
"""What a look-up gives that found nothing. Compare with ``is``."""
