"""A memcached for tests, from the Debian package: gone when the test process is."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from cachekit.testing.servers import end, free_port, start_guard

HOST = "127.0.0.1"


class Memcached:
    """One server on a free port. It can be paused, killed and started again, empty."""

    def __init__(self, *args: str) -> None:
        path = shutil.which("memcached") or "/usr/bin/memcached"
        assert os.access(path, os.X_OK), "no memcached; run tools/system-packages"
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="cachekit-memcached-"))
        user = ["-u", "nobody"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        self._command = [path, "-l", HOST, "-p", str(self.port), "-U", "0", *user, *args]
        self.start()
        atexit.register(self.stop)

    @property
    def url(self) -> str:
        return f"memcached://{HOST}:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, start_new_session=True, stderr=subprocess.DEVNULL)
        self._guard = start_guard(self.process.pid, self.directory)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((HOST, self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "memcached does not answer"
                assert self.process.poll() is None, "memcached ended"
                time.sleep(0.01)

    def stop(self) -> None:
        end(self._guard, signal.SIGKILL)
        self.process.send_signal(signal.SIGCONT)
        end(self.process, signal.SIGTERM)
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.stop)

    def restart(self) -> None:
        """Empty."""
        self.stop()
        self.directory.mkdir(exist_ok=True)
        self.start()
        atexit.register(self.stop)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def command(self, text: bytes) -> bytes:
        """Send one command and return what comes within a moment."""
        with socket.create_connection((HOST, self.port), 5) as connection:
            connection.sendall(text + b"\r\n")
            return connection.recv(1 << 20)
