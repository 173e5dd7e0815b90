"""What an application has of us, and which application's a request or web socket belongs to."""

import threading
from collections.abc import Mapping
from os import PathLike
from typing import Any, Final, TypeAlias, cast

from starlette.requests import HTTPConnection

from cachekit.process import application_service, default_service
from cachekit.regions import Region, region
from cachekit.service import Service

Config: TypeAlias = "str | PathLike[str] | Mapping[str, Any] | None"

SCOPE_KEY: Final = "cachekit"


class Installed:
    """The service of one application, and its regions."""

    def __init__(self, app: Any, config: Config) -> None:
        self.app = app
        self._config = config
        self._own: Service | None = None
        self._regions: dict[str, Region] = {}
        self._lock = threading.RLock()

    def service(self) -> Service:
        """The application's own service, or the process's; reads the configuration on first use."""
        if self._config is None:
            return default_service()
        if self._own is None:
            with self._lock:
                if self._own is None:
                    self._own = application_service(self._config)
        return self._own

    def own_service(self) -> Service | None:
        """The application's own service; None if it uses the process's."""
        return None if self._config is None else self.service()

    def region(self, name: str) -> Region:
        """The region of this name in `service`; the same name gives the same object."""
        if self._config is None:
            return region(name)
        return self._regions.get(name) or self._regions.setdefault(name, self.service().region(name))


def service_of(connection: HTTPConnection) -> Service:
    """The service of the application that handles this request or web socket: its own, that of the application it is
    mounted in, or the process's."""
    installation = _installation_of(connection)
    return default_service() if installation is None else installation.service()


def own_service(connection: HTTPConnection) -> Service | None:
    """As `service_of`, but None for the process's."""
    installation = _installation_of(connection)
    return None if installation is None else installation.own_service()


def get_region(connection: HTTPConnection, name: str = "default") -> Region:
    """The region of `service_of` the request or web socket; an unknown name is a `ConfigError` on first use."""
    installation = _installation_of(connection)
    return region(name) if installation is None else installation.region(name)


def _installation_of(connection: HTTPConnection) -> Installed | None:
    app, around = connection.scope.get("app"), connection.scope.get(SCOPE_KEY)
    if around is not None and around.app is app:  # nearly always; the state of an application takes long to look into
        return cast(Installed, around)
    return installed_in(app) or around


def installed_in(app: Any) -> Installed | None:
    there = getattr(getattr(app, "state", None), "cachekit_installation", None)
    return there if isinstance(there, Installed) else None  # the name may also be the application's own
