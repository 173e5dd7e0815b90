"""The native encoder, where there is a native core: the bytes that `serializers.Encoder` would lead to, or nothing.

It deals with the usual types by itself and asks `take` about all others. Where anything is out of the ordinary it gives
up, and the thorough encoder says what is wrong.
"""

from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID, SafeUUID

from cachekit.codec.classes import UNSET, layouts, plan_for, plan_of, rebuild, take_apart
from cachekit.codec.containers import CONTAINERS, build, take_container
from cachekit.codec.scalars import ENCODE, enum_parts
from cachekit.l1.table import core

Taken = tuple[int, bytes, list[Any] | None]


def take(value: Any) -> Taken:
    """Code and bytes of a scalar; code, bytes and items of anything else. May raise anything."""
    cls = type(value)
    scalar = ENCODE.get(cls)
    if scalar is not None:
        return scalar[0], scalar[1](value), None
    container = CONTAINERS.get(cls)
    if container is not None:
        return container, b"", take_container(container, value)
    if isinstance(value, Enum):
        return *enum_parts(value), None
    plan = plan_for(cls)
    if plan.foreign is not None:
        return plan.kind, plan.marker, plan.foreign.take(value)
    fields, others = take_apart(plan, value)
    items = list(fields)
    for item in others.items():
        items += item
    return plan.kind, plan.marker, items


def install(read: Any, read_marker: Any, marker: type, max_depth: int) -> Any:
    """The core, told about the codec; None: there is none."""
    if core is not None:
        known = (Decimal, UUID, SafeUUID.unknown, UNSET, layouts, marker)
        core.install_codec(known, (take, read, read_marker, plan_of, build, rebuild), max_depth)
    return core
