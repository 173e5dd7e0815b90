"""The file backend keeps the contract of backends, and a listener in another process is as good as one in this."""

import tempfile

from cachekit.backends.base import LISTEN, BaseBackend
from cachekit.backends.file import open_file
from cachekit.backends.records import STEPS
from cachekit.config.spec import BackendSpec
from cachekit.testing import BackendContract

DIRECTORY = tempfile.TemporaryDirectory(prefix="cachekit-file-")


class TestFile(BackendContract):
    offers = STEPS | {"get_many", "stamps", "keep", "clear", "scan", "expire_soft", "check", LISTEN}
    shortest_ttl_ms = 100

    def make_backend(self) -> BaseBackend:
        sync = open_file(
            BackendSpec(type="file", url=f"file://{DIRECTORY.name}/cache.db", options={"max_bytes": "8MiB"})
        ).sync
        assert sync is not None
        return sync
