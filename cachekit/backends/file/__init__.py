"""A store in one file of this host: several processes share it, and it outlives them."""

from pathlib import Path

from cachekit.backends.base import Faces
from cachekit.config.spec import BackendSpec
from cachekit.config.urls import check_url_of, file_path

LEAST_BYTES = 8 * 1024 * 1024  # what listeners have still to read may take a part of it


def open_file(spec: BackendSpec) -> Faces:
    """The file at ``spec.url``, which is made when first used. Callers in event loops wait in worker threads.

    ConfigError when the settings are wrong, or what lies there must not be used.
    """
    import sqlite3  # 5 ms

    from cachekit.backends.file.backend import MAX_BYTES, POLL, FileBackend
    from cachekit.backends.file.database import OLDEST, look_at
    from cachekit.backends.settings import Options
    from cachekit.errors import BackendError, ConfigError

    if sqlite3.sqlite_version_info < OLDEST:
        raise ConfigError(f"[backends.{spec.name}] type: 'file' needs SQLite 3.35, and this Python has an older one")
    options = Options(spec, "max_bytes", "poll")
    limit, poll = options.size("max_bytes", MAX_BYTES, least=LEAST_BYTES), options.duration("poll", POLL)
    try:
        check_url_of("file", spec.url)
        path = Path(file_path(spec.url))
        look_at(path)
    except (ValueError, BackendError) as error:
        problem = str(error)
    else:
        return Faces(FileBackend(path, limit, poll), None)
    raise ConfigError(f"[backends.{spec.name}] url: cannot be used as a file of cachekit's: {problem}")
