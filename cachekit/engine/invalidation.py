"""Removing entries: L2 first, then this process, in a `finally`; what L2 could not hear is queued."""

from collections.abc import Callable, Iterable
from typing import Final

from cachekit.engine import keys
from cachekit.engine.outcome import Outcome
from cachekit.engine.ports import Port
from cachekit.engine.tiers import Call, Tiers, logger
from cachekit.l1.table import Versions
from cachekit.l2.remote import Remote, Unavailable

_SEVERITY: Final = (Outcome.DONE, Outcome.QUEUED, Outcome.FAILED)


async def invalidate_keys(tiers: Tiers, calls: list[Call], port: Port, *, soft: bool = False) -> Outcome:
    """Remove entries. L2 first, then this process, so that no load can bring the old value back in between.

    ``soft``: mark them as stale instead, which they may still be of use as; where L2 cannot hear of it they are removed
    there later.
    """
    remote = tiers.remote
    texts = [call.key for call in calls if call.key is not None]
    outcome = Outcome.DONE if remote is None or not texts else Outcome.QUEUED
    epoch = 0 if remote is None else remote.coherence.epoch
    try:
        if remote is not None and texts:
            marks = soft and remote.offers("expire_soft")
            outcome = await _tell(remote, "expire_soft" if marks else "invalidate", texts, port)
    finally:
        with tiers.versions.lock:
            if remote is not None and texts:
                outcome = _note(remote, outcome, epoch, texts, [], tiers.region_stamp, port)
            for call in calls:
                forget(tiers, call, soft=soft)
    return outcome


def forget(tiers: Tiers, call: Call, *, soft: bool = False) -> None:
    """This process's part of an invalidation."""
    tiers.unstored.over(call.ident)
    tiers.pauses.over(call.ident)
    if call.elsewhere and tiers.remote is None:  # which entry it is nobody can tell
        tiers.versions.bump_region(tiers.spec.name)
        for table in tiers.tables:
            table.clear()
        return
    tiers.versions.bump_key(call.khash)
    for table in tiers.tables:
        if soft:
            table.mark_stale(call.khash)
        else:
            table.drop_key(call.khash)


async def clear_stamps(
    remotes: Iterable[Remote], stamps: list[str], versions: Versions, local: Callable[[], object], port: Port
) -> Outcome:
    """Outdate everything under these stamps: delete them in every L2, then run ``local`` for this process.

    The worst outcome counts.
    """
    outcomes = dict.fromkeys(remotes, Outcome.QUEUED)  # also of those that an interruption leaves out
    epochs = {remote: remote.coherence.epoch for remote in outcomes}
    try:
        for remote in outcomes:
            outcomes[remote] = await _tell(remote, "clear", stamps, port)
    finally:
        with versions.lock:
            for remote, outcome in outcomes.items():
                outcomes[remote] = _note(remote, outcome, epochs[remote], [], stamps, "", port)
                remote.cells.forget(stamps)
                if outcomes[remote] is Outcome.DONE:
                    remote.cleared()
            local()
    return worst(outcomes.values())


async def clear_own(tiers: Tiers, digests: list[bytes], remotes: Iterable[Remote], port: Port) -> Outcome:
    """Outdate everything under tags of cachekit's own.

    Entries carry these from the beginning on, under stamps from before the source was read, so the clock of the tags
    that only a value tells of need not move.
    """

    def local() -> None:
        tiers.versions.bump_tags([digest.hex() for digest in digests])  # tagged entries are judged when they are hit

    stamps = [keys.tag_stamp(tiers.namespace, digest) for digest in digests]
    return await clear_stamps(remotes, stamps, tiers.versions, local, port)


def _note(
    remote: Remote, outcome: Outcome, epoch: int, texts: list[str], stamps: list[str], region_stamp: str, port: Port
) -> Outcome:
    """Locked: keep what L2 could not hear, remember what it did. What was lost in between counts as not heard."""
    if outcome is Outcome.DONE and epoch != remote.coherence.epoch:
        outcome = Outcome.QUEUED
    if outcome is Outcome.QUEUED:
        remote.queue(texts, stamps, region_stamp)
    elif outcome is Outcome.DONE:
        remote.outbox.done(texts, stamps, region_stamp, port.now())
    return outcome


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The one that counts when several backends were told."""
    return max([Outcome.DONE, *outcomes], key=_SEVERITY.index)


async def _tell(remote: Remote, operation_name: str, names: list[str], port: Port) -> Outcome:
    """Have L2 do it: DONE, QUEUED when it cannot be reached, FAILED when it will never do it."""
    if operation_name == "clear" and not remote.offers("clear"):
        if remote.once("no clear"):
            logger.error(
                "backend %r cannot clear tags, functions or regions; only this process forgot", remote.spec.name
            )
        return Outcome.FAILED
    try:
        await remote.do(port, operation_name, names)
    except Unavailable as error:
        return Outcome.FAILED if error.final else Outcome.QUEUED
    return Outcome.DONE
