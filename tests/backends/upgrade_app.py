"""The module of test_upgrade_path.py: an application and its tests, which know nothing of where values are kept.

The environment alone says whether that is nowhere but in the process, a file, one Redis, a cluster, and encrypted.
"""

import asyncio
import datetime
import decimal
import enum
import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cachekit import MISS, Outcome, cache, invalidate_tags, region

runs: list[Any] = []
source: dict[int, str] = {}


class Colour(enum.Enum):
    RED = "red"


@dataclass
class User:
    id: int
    name: str
    since: datetime.datetime
    roles: set[str] = field(default_factory=set)


@cache(ttl=300, tags=lambda user_id: [f"user:{user_id}"])
def user(user_id: int) -> User:
    runs.append(user_id)
    name = source.get(user_id, "first")
    return User(user_id, name, datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC), {"admin"})


@cache(ttl=300)
async def prices(currency: str) -> dict[str, Any]:
    runs.append(currency)
    return {
        "amount": decimal.Decimal("12.30"),
        "colour": Colour.RED,
        "id": uuid.UUID(int=7),
        "bytes": b"\0\xff",
        "tuple": (1, 2.5, None, True),
        "big": 2**70,
        "days": [datetime.date(2024, 1, 1), datetime.timedelta(seconds=5)],
    }


@cache.invalidates(tags=lambda user_id, name: [f"user:{user_id}"])
def rename(user_id: int, name: str) -> None:
    source[user_id] = name


@pytest.fixture(autouse=True)
def empty() -> None:
    region("default").clear()
    user.invalidate_all()
    asyncio.run(_aclear())
    runs.clear()
    source.clear()


async def _aclear() -> None:
    await prices.invalidate_all()


def test_a_function_runs_once() -> None:
    assert user(1) == user(1)
    assert runs == [1]
    assert type(user(1)) is User


def test_an_async_function_runs_once() -> None:
    async def both() -> tuple[Any, Any]:
        return await prices("EUR"), await prices("EUR")

    first, second = asyncio.run(both())
    assert first == second
    assert runs == ["EUR"]


def test_what_is_invalidated_is_computed_anew() -> None:
    for invalidate in (
        lambda: user.invalidate(1),
        lambda: invalidate_tags("user:1"),
        lambda: user.invalidate_all(),
        lambda: rename(1, "second") or Outcome.DONE,
    ):
        user(1)
        runs.clear()
        assert invalidate() is Outcome.DONE
        user(1)
        assert runs == [1]
    assert user(1).name == "second"


def test_callers_cannot_change_what_is_kept() -> None:
    user(1).roles.add("guest")
    assert user(1).roles == {"admin"}


def test_keys_and_values() -> None:
    users = region("default")
    users.set(("a", 1), {"x": {1, 2}}, ttl=60)
    assert users.get(("a", 1)) == {"x": {1, 2}}
    assert users.get("absent", MISS) is MISS
    assert users.add(("a", 1), None) is False
    assert users.get_or_set("n", lambda: None) is None
    assert users.delete(("a", 1)) is Outcome.DONE
    assert users.get(("a", 1)) is None


def shape(value: Any) -> Any:
    """A value with its types, as text that can be compared between processes."""
    if isinstance(value, dict):
        return {"dict": [[shape(key), shape(each)] for key, each in sorted(value.items())]}
    if isinstance(value, (list, tuple, set)):
        return {type(value).__name__: [shape(each) for each in value]}
    if isinstance(value, User):
        return {"User": [shape(each) for each in vars(value).values()]}
    return {type(value).__name__: repr(value)}


def test_values_and_types_are_written_down() -> None:
    """Once from a call that runs the function, once from one that finds its value, L1 left out."""

    async def get() -> Any:
        return [shape(await prices("EUR")), shape(await prices.using(skip_l1=True)("EUR"))]

    found = [shape(user(1)), shape(user.using(skip_l1=True)(1)), *asyncio.run(get())]
    Path(os.environ["UPGRADE_REPORT"]).write_text(json.dumps(found))
