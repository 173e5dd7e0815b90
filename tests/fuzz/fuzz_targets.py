"""What is fuzzed, where it begins, and what must hold for every input: four functions of bytes.

Only `Damaged` and `ConfigError` may get out; reading stored bytes imports nothing; an input of a megabyte takes no more
than 64 MiB. What breaks one of these raises `Broken`, or whatever it was.
"""

import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "codec"))  # the golden files name classes of codec_models

import codec_models  # noqa: E402
import lz4.block  # noqa: E402
import zstandard  # noqa: E402

from cachekit.codec import envelope, seal, serializers  # noqa: E402
from cachekit.codec.codec import Codec  # noqa: E402
from cachekit.codec.compress import LZ4, ZSTD  # noqa: E402
from cachekit.codec.envelope import Damaged, Header, glance, pack, unpack  # noqa: E402
from cachekit.codec.keyring import Keyring  # noqa: E402
from cachekit.codec.seal import Lock, Locks  # noqa: E402
from cachekit.config.secret import Secret  # noqa: E402
from cachekit.config.settings import load_tree  # noqa: E402
from cachekit.config.spec import CodecSpec, KeySpec  # noqa: E402
from cachekit.errors import ConfigError  # noqa: E402

KEY = codec_models.KEY
MIB = 1 << 20
MOST_MEMORY = 64 * MIB
SECRET = "Hunter2-of-the-fuzzer"


class Broken(AssertionError):
    """An input broke a promise."""


class Target(NamedTuple):
    """One thing to fuzz."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    imports: bool = False  # whether it may import


# --- what must hold --------------------------------------------------------------------------------------------------

_imported: list[str] = []
_watching = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event == "import":
        _imported.append(str(arguments[0]))


sys.addaudithook(_audit)  # cannot be removed again


def check(target: Target, data: bytes) -> None:
    """Run a target, and raise `Broken` if it imported something. What it raises itself gets out as well."""
    global _watching
    _imported.clear()
    _watching = not target.imports
    try:
        target.run(data)
    finally:
        _watching = False
    if _imported:
        raise Broken(f"imported {_imported}")


@contextmanager
def little_memory() -> Iterator[None]:
    """Within it no more than `MOST_MEMORY` can be had beyond what the process has; then MemoryError."""
    with open("/proc/self/statm") as file:  # noqa: PTH123  # the quickest way
        size = int(file.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + MOST_MEMORY, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def read(step: Callable[..., Any], *arguments: Any) -> Any:
    """What a step makes of stored bytes; None if they are damaged."""
    try:
        with little_memory():
            return step(*arguments)
    except Damaged as damage:
        cause: BaseException | None = damage
        while cause is not None:
            if isinstance(cause, MemoryError):
                raise Broken(f"more than {MOST_MEMORY} bytes") from damage
            cause = cause.__cause__ or cause.__context__
        return None


# --- the envelope ----------------------------------------------------------------------------------------------------


def run_envelope(data: bytes) -> None:
    """The bytes as they are, and under a checksum that fits."""
    for entry in (data, with_checksum(data)):
        read(glance, entry[:200])
        found = read(unpack, entry, KEY)
        if found is None:
            continue
        header, payload = found
        again = unpack(pack(header, bytes(payload), KEY), KEY)
        if (again[0], bytes(again[1])) != (header, bytes(payload)):
            raise Broken("written again it is another entry")


def with_checksum(data: bytes) -> bytes:
    """The entry with the checksum that its bytes ask for, if it is long enough to have one."""
    end = int.from_bytes(data[6:8], "little")
    if end < 68 or len(data) < end + 8:
        return data
    head = unmarked(data[:end])
    payload = data[end + 8 :]
    return data[:end] + envelope._digest(KEY, head, payload).to_bytes(8, "little") + payload


def golden() -> Iterator[bytes]:
    for file in sorted((ROOT / "tests" / "codec" / "golden").glob("*.bin")):
        yield file.read_bytes()


# --- locks around it -------------------------------------------------------------------------------------------------

_keyring = Keyring(KeySpec(master_key=Secret(bytes(range(32)))), "shop")
SEAL, SIGN = (Locks(_keyring, "users", use).of("") for use in ("seal", "sign"))


def run_locks(data: bytes) -> None:
    """The bytes as they are, and closed by a lock: read by the native core, and without it."""
    for lock in (SEAL, SIGN):
        for entry in (data, closed(data, lock)):
            found, without = read(unpack, entry, KEY, lock), read(in_python, unpack, entry, KEY, lock)
            if found != without:
                raise Broken("the native core reads something else")
            if found is None:
                continue
            header, payload = found
            if entry is data and unmarked(data) not in SEALED:
                raise Broken("opened what nobody closed")
            if unpack(pack(header, bytes(payload), KEY, lock), KEY, lock)[1] != payload:
                raise Broken("closed again it is another entry")


def unmarked(data: bytes) -> bytes:
    """The entry without the stale mark, the one byte that may be set without the key."""
    return data[: envelope.STALE_MARK] + b"\0" + data[envelope.STALE_MARK + 1 :]


def in_python(step: Callable[..., Any], *arguments: Any) -> Any:
    core, envelope.core, seal.core = envelope.core, None, None
    try:
        return step(*arguments)
    finally:
        envelope.core = seal.core = core


def closed(data: bytes, lock: Lock) -> bytes:
    """The entry as the lock would close it, if its header is long enough for that."""
    end = int.from_bytes(data[6:8], "little")
    if end < 68 + lock.extra or len(data) < end:
        return data
    flags = data[4] & ~(envelope.SEALED | envelope.SIGNED) | lock.flag
    mark = lock.key_id + data[end - lock.extra + 4 : end]
    head = data[:4] + bytes((flags, 0)) + data[6 : end - lock.extra] + mark
    return data[:4] + bytes((flags, data[5])) + head[6:] + lock.close(mark, KEY.encode() + head, data[end:])


def lock_seeds() -> Iterator[bytes]:
    yield from SEALED
    yield from golden()


with mock.patch("os.urandom", side_effect=[number.to_bytes(12) for number in range(6)]):
    # The nonces of every run are the same: what an earlier one has learnt is not what nobody closed.
    SEALED = [
        pack(each, payload, KEY, lock)
        for lock in (SEAL, SIGN)
        for each in (codec_models.header(), codec_models.header(tags=((b"a" * 8, b"1" * 8),), etag='"x"'))
        for payload in (b"", b"payload", b"p" * 40_000)
    ]


# --- what is in it ---------------------------------------------------------------------------------------------------

CODES = (serializers.TREE, serializers.MARKED, 3, 4, 0, 200)
CODECS = {name: Codec(CodecSpec(serializer=name, compression="zstd")) for name in ("msgpack", "json")}
_quick = serializers._quick


def run_decoder(data: bytes) -> None:
    """One byte says how to read the rest, the next how often to repeat it: bombs are found by small inputs."""
    if len(data) < 2:
        return
    how, times, payload = data[0], data[1], data[2:]
    if times >= 240 and payload:
        count = 1 << (times - 240)
        if times == 255:  # seldom, since it takes long
            count = MIB // len(payload)
        payload = payload * count
        if how % 2:  # as the items of one list
            payload = b"\xdd" + count.to_bytes(4, "big") + payload
    entry = pack(header(CODES[how % len(CODES)], how // len(CODES) % 4), payload, KEY)
    serializers._quick = None if how & 128 else _quick
    try:
        for codec in CODECS.values():
            read(codec.loads, entry, KEY)
    finally:
        serializers._quick = _quick


def header(code: int, compression: int) -> Header:
    return codec_models.header(codec=code, compression=compression)


def decoder_seeds() -> Iterator[bytes]:
    for entry in golden():
        found, payload = unpack(entry, KEY)
        if found.codec not in CODES:
            continue
        plain = bytes(payload)
        if found.compression:
            plain = CODECS["msgpack"]._compressor.expand(found.compression, plain)
        at = CODES.index(found.codec)
        yield bytes((at, 0)) + plain
        yield bytes((at + 128 - 128 % len(CODES) + len(CODES), 0)) + plain
        yield bytes((at + len(CODES) * LZ4, 0)) + lz4.block.compress(plain)
        yield bytes((at + len(CODES) * ZSTD, 0)) + zstandard.ZstdCompressor().compress(plain)
    for unit in (
        b"\x90",
        b"\x80",
        b"\x81\xa1a\x90",
        b"\x92\xc7\x00\x26\xc0",
        b"\x91\xc7\x00\x24",
        b"[],",
        b'{"":',
        b"[",
    ):
        for at in range(3):
            yield bytes((at, 250)) + unit


# --- configuration ---------------------------------------------------------------------------------------------------

_directory = tempfile.TemporaryDirectory(prefix="cachekit-fuzz-")
_FILE = Path(_directory.name) / "cachekit.toml"


def run_configuration(data: bytes) -> None:
    """A file, then variables: ``text NUL NAME=value NUL NAME=value ...``, the names without their prefix."""
    text, *variables = data.split(b"\0")
    environ = {"CACHEKIT_BACKENDS__DEFAULT__PASSWORD": SECRET, "CACHEKIT_METRICS__TOKEN": SECRET}
    for variable in variables:
        name, _, value = variable.decode("utf-8", "surrogateescape").partition("=")
        if not name.upper().endswith("_FILE"):  # whoever sets those may read any file, devices too
            environ[f"CACHEKIT_{name}"] = value
    _FILE.write_bytes(text)
    try:
        with little_memory():
            loaded = load_tree([_FILE], environ=environ)
    except ConfigError as error:
        told = str(error)
    else:
        told = "\n".join([*loaded.warnings, repr(loaded.spec)])
    if SECRET in told and SECRET.encode() not in data:
        raise Broken("a secret is told")


def configuration_seeds() -> Iterator[bytes]:
    yield (ROOT / "cachekit.toml.example").read_bytes()
    yield b"[profiles.users]\nttl = '5m'\nserializer = 'json'\n\0PROFILES__USERS__TTL=1h\0NAMESPACE=shop"
    yield b"[backends.default]\nurl = 'redis://h'\ntls.ca = 'x'\n[profiles.a]\nextends = 'b'\n"
    yield b"\0PROFILES__NEW__EXTENDS=default\0BACKENDS__X__URL=redis+sentinel://h:1,g:2/name/0"
    yield b"\0PROFILES__DEFAULT__L1__TTL=5s\0PROFILES__USERS__JITTER=10%"
    yield b"[profiles.users.negative_exceptions]\n'a.b' = '5s'\n[metrics]\nallow = ['::1']\n"


TARGETS = {
    "envelope": Target(run_envelope, golden),
    "locks": Target(run_locks, lock_seeds),
    "decoder": Target(run_decoder, decoder_seeds),
    "configuration": Target(run_configuration, configuration_seeds, imports=True),
}


def warm_up(target: Target) -> None:
    """What a process loads once is loaded by the seeds."""
    for seed in target.seeds():
        target.run(seed)
