"""The targets of the fuzzers hold for their seeds and for changes of these, and a broken promise is noticed.

The fuzzers themselves run in ``make fuzz`` for half a minute, and here for ten in ``make test-nightly``.
"""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fuzz_targets
import pytest
from fuzz_targets import MIB, TARGETS, Broken, Target, check, read, warm_up
from run_fuzz import NAMES

HERE = Path(__file__).parent


def changed(seeds: list[bytes], count: int) -> Iterator[bytes]:
    rng = random.Random(20261127)
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data) + 1)
            part = rng.choice(seeds)
            start = rng.randrange(len(part) + 1)
            data[at : at + rng.randint(0, 3)] = rng.choice([rng.randbytes(rng.randint(0, 3)), part[start : start + 9]])
        if data[1:2] == b"\xff":  # repeated up to a megabyte, which takes long
            data[1] = 254
        yield bytes(data)


@pytest.mark.parametrize(
    ("name", "count"), [("envelope", 3000), ("locks", 1500), ("decoder", 1500), ("configuration", 150)]
)
def test_nothing_else_gets_out_and_nothing_is_imported(name: str, count: int) -> None:
    target = TARGETS[name]
    warm_up(target)
    seeds = list(target.seeds())
    assert len(seeds) > 4
    for data in (*seeds, b"", b"\0", *changed(seeds, count)):
        check(target, data)


def test_the_seeds_of_the_decoder_are_values() -> None:
    """Otherwise they would lead into the first check and no further."""
    found = []

    def loads(*arguments: object) -> None:
        found.append(read(*arguments))  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fuzz_targets, "read", loads)
        for seed in TARGETS["decoder"].seeds():
            TARGETS["decoder"].run(seed)
    assert sum(value is not None for value in found) > 20


def test_the_runner_knows_every_target() -> None:
    assert set(NAMES) == set(TARGETS)


def test_another_exception_gets_out() -> None:
    def run(data: bytes) -> None:
        read(lambda: {}[data])

    with pytest.raises(KeyError):
        check(Target(run, lambda: iter(())), b"")


def test_an_import_is_noticed() -> None:
    def run(data: bytes) -> None:
        import this_module_is_nowhere  # type: ignore[import-not-found]  # noqa: F401

    with pytest.raises((Broken, ImportError)):
        check(Target(run, lambda: iter(())), b"")

    def quietly(data: bytes) -> None:
        try:
            run(data)
        except ImportError:
            pass

    with pytest.raises(Broken, match="this_module_is_nowhere"):
        check(Target(quietly, lambda: iter(())), b"")
    check(Target(quietly, lambda: iter(()), imports=True), b"")


def test_memory_is_noticed_also_where_the_shortage_of_it_counts_as_damage() -> None:
    def step(size: int) -> None:
        try:
            bytearray(size)
        except Exception as error:
            raise fuzz_targets.Damaged("payload") from error

    read(step, 32 * MIB)
    with pytest.raises(Broken, match="bytes"):
        read(step, 512 * MIB)


@pytest.mark.nightly
def test_ten_minutes_of_fuzzing() -> None:
    """All targets side by side; needs the extra ``fuzz``."""
    subprocess.run([sys.executable, str(HERE / "run_fuzz.py"), "--seconds", "600"], check=True, timeout=1200)
