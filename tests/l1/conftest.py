"""Every implementation of the table runs through the same tests: they ask these fixtures for it."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import pytest
from l1_rig import TWINS, Rig


@pytest.fixture(params=TWINS)
def twin(request: pytest.FixtureRequest) -> ModuleType:
    """The module of one implementation: Table, Memo, compile_memo, TWIN."""
    return import_module(f"cachekit.l1.{request.param}")


@pytest.fixture
def rig(twin: ModuleType) -> Callable[..., Rig]:
    """Makes a `Rig`."""
    return lambda **options: Rig(twin, **options)
