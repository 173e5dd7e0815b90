"""What is known about a class of another package: how to take its instances apart, and how L1 may copy them."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Block(NamedTuple):
    """For instances that are mostly one block of memory, which L1 does not take apart for a copy or a weight."""

    whole: Callable[[Any], bool]  # False: this instance holds objects; take it apart after all
    copy: Callable[[Any], Any]
    size: Callable[[Any], int]  # bytes, buffers included
    shared: bool = False  # instances cannot be changed, and ``copy`` gives them back


class Foreign(NamedTuple):
    """How to take an instance of such a class, or of one derived from it, apart and to put one together.

    The parts are one flat list of values that can be copied and stored. ``take`` raises for an instance that would not
    come back as it was. ``make`` may be given anything: it raises where the parts are not what ``take`` gives, and it
    needs no more memory than the parts have.
    """

    take: Callable[[Any], list[Any]]
    make: Callable[[Any, list[Any]], Any]
    block: Block | None = None
    leaf: bool = False  # instances are small and cannot be changed: callers share them
    name: str = ""  # of the class that stored bytes name, where theirs cannot be found again
