"""A value read before an invalidation is refused, whatever the invalidation covered."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from cachekit.l1 import versions as module
from cachekit.l1.versions import MAX_TAGS, STRIPES, Versions

KEY, TAGS, REGION = 12345, ("a", "b"), "r"


@pytest.fixture
def versions(twin: Any) -> Versions:
    made: Versions = twin.Versions()
    return made


BUMPS: list[tuple[str, Callable[[Versions, int], None]]] = [
    ("key", lambda versions, slot: versions.bump_key(KEY)),
    ("tag", lambda versions, slot: versions.bump_tags(["x", "b"])),
    ("slot", lambda versions, slot: versions.bump_slot(slot)),
    ("region", lambda versions, slot: versions.bump_region(REGION)),
    ("all", lambda versions, slot: versions.bump_all()),
]


@pytest.mark.parametrize("bump", [bump for _, bump in BUMPS], ids=[name for name, _ in BUMPS])
def test_an_event_that_covers_the_key_refuses_older_tickets_and_no_younger(
    versions: Versions, bump: Callable[[Versions, int], None]
) -> None:
    slot = versions.new_slot()
    before = versions.ticket()
    assert versions.allows(before, KEY, TAGS, slot, REGION)
    bump(versions, slot)
    assert not versions.allows(before, KEY, TAGS, slot, REGION)
    assert versions.allows(versions.ticket(), KEY, TAGS, slot, REGION)


def test_events_that_do_not_cover_the_key_change_nothing(versions: Versions) -> None:
    slot, other = versions.new_slot(), versions.new_slot()
    before = versions.ticket()
    versions.bump_key(KEY + 1)
    versions.bump_tags(["x"])
    versions.bump_slot(other)
    versions.bump_region("other")
    assert versions.allows(before, KEY, TAGS, slot, REGION)


def test_keys_that_share_a_stripe_refuse_each_others_tickets_only(versions: Versions) -> None:
    before = versions.ticket()
    versions.bump_key(KEY + STRIPES)
    assert not versions.allows(before, KEY, (), 1, REGION)
    assert versions.allows(before, KEY + 1, (), 1, REGION)
    assert versions.allows(0, 2**64 - 1, (), 1, REGION)  # any 64-bit hash has a stripe


def test_slots_are_unique_and_never_0(versions: Versions) -> None:
    slots = [versions.new_slot() for _ in range(100)]
    assert len(set(slots)) == 100
    assert 0 not in slots


def test_a_forgotten_tag_counts_as_invalidated_with_the_last_forgotten_one(versions: Versions) -> None:
    before = versions.ticket()
    versions.bump_tags(["first"])
    for number in range(2 * MAX_TAGS):
        versions.bump_tags([f"tag{number}"])
    assert not versions.allows(before, KEY, ["first"], 1, REGION)
    assert not versions.allows(before, KEY, ["never seen"], 1, REGION)
    assert versions.tag_event("first") < versions.tag_event(f"tag{2 * MAX_TAGS - 1}") == versions.ticket()
    assert versions.allows(versions.ticket(), KEY, ["first", "tag29"], 1, REGION)


def test_the_bound_on_tags_holds_in_pure_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TAGS", 10)
    versions = Versions()
    for number in range(31):
        versions.bump_tags([f"tag{number}"])
    assert len(versions._tags) <= 10


def test_the_bound_on_tags_never_lets_an_old_ticket_pass(versions: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TAGS", 7)  # the native core keeps its own bound
    bumped: dict[str, int] = {}
    for number in range(200):
        tag = f"tag{number * 7 % 23}"
        before = versions.ticket()
        versions.bump_tags([tag])
        bumped[tag] = before
        assert not any(versions.allows(ticket, KEY, [name], 1, REGION) for name, ticket in bumped.items())


def test_the_lock_can_be_taken_again_by_its_thread_and_replaced_after_a_fork(versions: Versions) -> None:
    old = versions.lock
    thread = threading.Thread(target=old.acquire)  # a thread that is gone in the child, with the lock
    thread.start()
    thread.join()
    versions.reset_lock()
    assert versions.lock is not old
    with versions.lock, versions.lock:
        versions.bump_key(KEY)
