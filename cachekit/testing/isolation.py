"""A default service for one test: nothing configured, nothing shared, nothing left over."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

from cachekit.config.spec import DEFAULT_NAMESPACE, RegionSpec, ServiceSpec, built_in_regions
from cachekit.l2.remote import Remote
from cachekit.process import replace_default
from cachekit.service import Clock, Service


class IsolatedService(Service):
    """Knows every region by the settings of the profile `test`, all of them may count, and has no backends.

    Profiles that only the application's configuration declares, and backends named by decorators, exist here too, so
    that decorated functions need no change. Backend *objects* given to a decorator are used as they are.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._test = built_in_regions()["test"].but(counters=True)
        regions = {"test": self._test}
        super().__init__(ServiceSpec(namespace=DEFAULT_NAMESPACE, regions=regions), clock=clock)

    def region_spec(self, name: str) -> RegionSpec:
        return self._test.but(name=name)

    def made_from(self, file: str | PathLike[str]) -> bool:
        return True  # so that no integration makes a service of its own from a file that it found

    def remote(self, name: str) -> Remote | None:
        return None


@contextmanager
def isolated(clock: Clock | None = None) -> Iterator[Service]:
    """Put an empty service in the place of the default one, and that one back afterwards."""
    service = IsolatedService(clock=clock)
    before = replace_default(service)
    try:
        yield service
    finally:
        left = replace_default(before)
        service.close()
        if left is not None and left is not service:  # the test called configure(replace=True)
            left.close()
