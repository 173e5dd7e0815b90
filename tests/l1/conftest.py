"""Every implementation of the table runs through the same tests: they ask these fixtures for it."""

import gc
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType

import pytest
from l1_rig import TWINS, Rig


@pytest.fixture(autouse=True, scope="module")
def little_to_collect() -> Iterator[None]:
    """Many tests here ask the collector again and again: it need not look through the rest of the process each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(params=TWINS)
def twin(request: pytest.FixtureRequest) -> ModuleType:
    """The module of one implementation: Table, Memo, compile_memo, TWIN."""
    return import_module(f"cachekit.l1.{request.param}")


@pytest.fixture
def rig(twin: ModuleType) -> Callable[..., Rig]:
    """Makes a `Rig`."""
    return lambda **options: Rig(twin, **options)
