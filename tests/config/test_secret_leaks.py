"""No key, root or derived key appears anywhere: errors, tracebacks with local variables, logs, reprs, copies, commands.

The keys are constants of this module, so that no frame of a test holds them: what a traceback shows is the package's.
"""

import base64
import copy
import dataclasses
import faulthandler
import functools
import json
import logging
import pickle
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from rich.pretty import pretty_repr
from typer.testing import CliRunner

import cachekit
from cachekit import cache, process
from cachekit.cli import build
from cachekit.codec.keyring import Keyring, derive, name_root
from cachekit.config.secret import Hidden, Secret
from cachekit.config.settings import load, load_tree
from cachekit.config.spec import BackendSpec, KeySpec, MetricsSpec, default_service
from cachekit.engine import keys
from cachekit.errors import CacheKitError, ConfigError, MissingTenant, TamperedEntry
from cachekit.metrics.endpoint import respond
from cachekit.service import Service
from cachekit.testing.servers import Server

MASTER, OLD, SIGNING, NAMES = (bytes(range(start, 256, 8)) for start in (3, 1, 5, 7))
KEYS: Final = {
    "CACHEKIT_MASTER_KEY": MASTER.hex(), "CACHEKIT_PREVIOUS_KEYS": OLD.hex(), "CACHEKIT_SIGNING_KEY": SIGNING.hex(),
    "CACHEKIT_NAME_KEY": NAMES.hex(),
}  # fmt: skip
SPACE = "leaks"
FILE = f"""
namespace = "{SPACE}"
[backends.default]
budget = "10s"  # the machine may be busy
adaptive = false
[profiles.secure]
fail_closed = true
[profiles.open]
encrypt = true
[profiles.signed]
sign = true
fail_closed = true
[profiles.tenants]
extends = "secure"
require_tenant = true
"""


def secrets() -> Iterator[bytes]:
    """Every key of this service, its roots, and what is derived of them."""
    ring = Keyring(spec_of_keys(), SPACE)
    yield from (MASTER, OLD, SIGNING, NAMES, name_root(Secret(MASTER)), derive(Secret(MASTER), "signing"))
    assert ring.name_key is not None
    yield ring.name_key
    tenants = ("", keys.whose("acme", ring.name_key, "tenants").digest)
    for use in ("seal", "sign"):
        for root in ring._roots[use]:  # type: ignore[index]
            yield root.secret
            yield from (
                ring.derive(root, use, region, tenant)  # type: ignore[arg-type]
                for region in ("secure", "open", "signed", "tenants")
                for tenant in tenants
            )


def spec_of_keys() -> KeySpec:
    return KeySpec(master_key=MASTER, previous_keys=(OLD,), signing_key=SIGNING, name_key=NAMES)  # type: ignore[arg-type]


@functools.cache
def forms() -> frozenset[str]:
    """How each of them may be written, each shortened to half of its length."""
    found = set()
    for secret in secrets():
        raw = bytes(secret)
        half = raw[:16]
        found |= {half.hex(), half.hex().upper(), repr(half)[2:-1], raw.decode("latin-1")[:16], str(list(half))[1:-1]}
        found |= {base64.b64encode(raw).decode()[:20], base64.urlsafe_b64encode(raw).decode()[:20]}
    return frozenset(found)


def leaks(text: str) -> list[str]:
    return [form for form in forms() if form in text]


def shown(error: BaseException) -> str:
    """An error as loggers with local variables show it, with everything that led to it."""
    seen: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    text = ""
    while todo:
        each = todo.pop()
        if each is None or each in seen:
            continue
        seen.append(each)
        text += "".join(traceback.TracebackException.from_exception(each, capture_locals=True).format())
        text += f"{each!r} {each} {each.args!r} {vars(each)!r}"
        todo += [each.__cause__, each.__context__]
    return text


@pytest.fixture
def service(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service with every kind of key, the default one of the process, configured by file and environment."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "cachekit.toml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CACHEKIT_REDIS_URL", server.url)
    with redis.Redis.from_url(server.url) as client:  # what another test has tampered with
        for key in client.scan_iter(f"{SPACE}:*"):
            client.delete(key)
    service = Service(load())
    before = process.replace_default(service)
    yield service
    process.replace_default(before)
    service.close()


@cache.secure(tags=lambda user: [f"user:{user}"])
def secret_name(user: Any) -> Any:
    return f"name of {user}"


@cache(profile="tenants")
def of_tenant(user: Any) -> Any:
    return f"name of {user}"


@cache(profile="signed")
async def signed_name(user: Any) -> Any:
    return f"name of {user}"


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """`start` judges the functions above, too."""
    for function in (secret_name, of_tenant, signed_name):
        function.__cachekit_function__.follow()  # type: ignore[attr-defined]


def tamper(server: Server, region: str) -> None:
    """Flip the last bit of everything in a region."""
    with redis.Redis.from_url(server.url) as client:
        for key in client.scan_iter(f"{SPACE}:v:{{{region}:*"):
            data = client.get(key)
            assert isinstance(data, bytes)
            client.set(key, data[:-1] + bytes([data[-1] ^ 1]))


async def use(service: Service, server: Server) -> list[BaseException]:
    """Use everything once, and provoke every error that has to do with keys."""
    caught: list[BaseException] = []

    def fails(kind: type[BaseException], call: Callable[[], Any]) -> None:
        with pytest.raises(kind) as failure:
            call()
        caught.append(failure.value)

    assert secret_name(1) == "name of 1"
    assert await signed_name(1) == "name of 1"
    fails(MissingTenant, lambda: of_tenant(1))
    with cachekit.tenant("acme"):
        of_tenant(1)
        service.region("tenants").set("a", "b")
    service.region("open").set("a", [1])
    service.region("signed").set("a", [1])
    for region in ("secure", "signed", "tenants", "open"):
        tamper(server, region)
        for _, table in service.tables():
            table.clear()
    fails(TamperedEntry, lambda: secret_name(1))
    with pytest.raises(TamperedEntry) as failure:
        await signed_name(1)
    caught.append(failure.value)
    with cachekit.tenant("acme"):
        fails(TamperedEntry, lambda: of_tenant(1))
        fails(TamperedEntry, lambda: service.region("tenants").get("a"))
    fails(TamperedEntry, lambda: service.region("signed").get("a"))
    assert service.region("open").get("a") is None
    fails(CacheKitError, lambda: service.region("secure").incr("n"))
    fails(CacheKitError, lambda: secret_name(object()))
    fails(TypeError, lambda: service.region("secure").get(object()))  # type: ignore[arg-type]
    fails(TypeError, lambda: service.region("secure").set("a", 1, tags=[5]))  # type: ignore[list-item]
    fails(ConfigError, lambda: service.region("scure"))
    fails(ZeroDivisionError, lambda: service.region("secure").get_or_set("z", lambda: 1 // 0))
    service.region("secure").set("unstorable", object())
    return caught


async def test_no_error_and_no_log_line_shows_a_key(
    service: Service, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    events: list[object] = []
    service.observers.append(events.append)
    for error in await use(service, server):
        text = shown(error)
        assert "cachekit" in text
        assert leaks(text) == [], text
    assert leaks(caplog.text) == []
    assert events
    assert leaks(repr(events)) == []


@pytest.mark.parametrize("profile", ["secure", "signed"])
def test_a_failure_while_a_key_is_derived_or_used_shows_none(
    service: Service, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool of cryptography that breaks: the frames above it hold keys in their variables."""
    region = service.region(profile)
    region.set("a", 1)
    raised = []
    for target in ("cryptography.hazmat.primitives.kdf.hkdf.HKDF.derive", "os.urandom", "hmac.digest"):
        with monkeypatch.context() as patch:

            def broken(*args: object) -> bytes:
                raise RuntimeError("broken")

            patch.setattr(target, broken)
            try:
                service.keyring().present("seal")
                Keyring(spec_of_keys(), SPACE)
                region.set("b", 1)
            except RuntimeError as error:
                raised.append(error)
    assert len(raised) > 1
    for error in raised:
        assert leaks(shown(error)) == []


def test_a_configuration_that_is_refused_shows_none(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_default", None)
    monkeypatch.setattr(process, "_loaded", None)
    monkeypatch.setenv("CACHEKIT_NONSENSE", "1")
    for call in (
        load,
        load_tree,
        process.default_service,
        lambda: process.configure(),
        lambda: process.configure(**settings()),
        lambda: process.application_service({**settings()}),
        lambda: process.framework_service([], {"app.config['CACHEKIT']": {**settings()}}),
        lambda: adopt_settings(),
    ):
        with pytest.raises(ConfigError) as caught:
            call()
        assert leaks(shown(caught.value)) == []


def adopt_settings() -> None:
    """As Django's integration does, in a process that has loaded its configuration."""
    process._default = Service(default_service())
    process._loaded = (process._default, None, {})
    process.adopt_project(process.Project(layers={"settings.CACHEKIT": {**settings()}}))


def settings() -> Any:
    """Of code, which may hold keys."""
    return Hidden(master_key=MASTER.hex(), signing_key=SIGNING.hex())


def test_configure_remembers_its_settings_without_showing_them(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    for name in ("_default", "_configured", "_loaded"):
        monkeypatch.setattr(process, name, None)
    process.configure(**settings())
    process.configure(**settings())  # the same again is no error
    with pytest.raises(ConfigError, match="with other settings") as caught:
        process.configure(master_key=OLD.hex())
    assert leaks(shown(caught.value).replace(OLD.hex(), "", 1)) == []  # the frame of this test is not the package's
    assert leaks(repr([process._configured, process._loaded, process._default])) == []
    process._default.close()  # type: ignore[union-attr]


# What can be reached.


def reachable(start: object) -> Iterator[object]:
    """Every object that can be reached by attributes, items, closures and bound methods; not classes and modules."""
    seen: set[int] = set()
    alive: list[object] = []  # so that no id is used twice
    todo: list[object] = [start]
    while todo:
        each = todo.pop()
        if id(each) in seen or isinstance(each, (type, types.ModuleType, types.FrameType)):
            continue
        seen.add(id(each))
        alive.append(each)
        yield each
        todo.extend(parts(each))


def parts(each: object) -> Iterator[object]:
    if isinstance(each, dict):
        yield from each.keys()
        yield from each.values()
    elif isinstance(each, (list, tuple, set, frozenset)):
        yield from each
    for klass in type(each).__mro__:
        slots = klass.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            name = f"_{klass.__name__.lstrip('_')}{name}" if name.startswith("__") and name[-1] != "_" else name
            if name not in ("__weakref__", "__dict__"):
                yield getattr(each, name, None)
    yield getattr(each, "__dict__", None)
    yield getattr(each, "__self__", None)
    yield from (cell.cell_contents for cell in getattr(each, "__closure__", None) or () if cell_is_full(cell))
    if isinstance(each, functools.partial):
        yield from (each.func, each.args, each.keywords)


def cell_is_full(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # an empty one raises
    except ValueError:
        return False
    return True


async def test_nothing_that_a_service_holds_shows_a_key(service: Service, server: Server) -> None:
    await use(service, server)
    count, kinds = 0, set()
    for each in reachable([service, secret_name, of_tenant, signed_name, process._loaded, process._configured]):
        count += 1
        kinds.add(type(each).__name__)
        text = f"{each!r} {each!s}"
        if type(each).__format__ is not object.__format__:
            text += format(each)
        assert leaks(text) == [], type(each)
    assert {"Keyring", "KeySpec", "Root", "Locks", "Sealer", "Signer", "Secret", "Tiers"} <= kinds, kinds
    assert count > 1000


def outcome(way: Callable[[Any], object], each: object) -> str:
    """What came of it, or the error."""
    try:
        result = way(each)
    except TypeError as error:
        return repr(error)  # its frames hold objects that are half copied
    return result if isinstance(result, str) else repr(result)


async def test_nothing_that_holds_keys_is_pickled_or_copied_with_them(service: Service, server: Server) -> None:
    await use(service, server)
    held = [
        each
        for each in reachable(service)
        if type(each).__name__
        in ("Keyring", "KeySpec", "Root", "Locks", "Sealer", "Signer", "Secret", "Tiers", "BackendSpec", "MetricsSpec")
    ]
    for each in [service, service.spec, *held]:
        for way in (lambda held: pickle.dumps(held).decode("latin-1"), copy.copy, copy.deepcopy):
            assert leaks(outcome(way, each)) == []
    for each in held:
        with pytest.raises(TypeError):
            pickle.dumps(each)
    for each in (BackendSpec(password="a password"), MetricsSpec(token="a token")):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(each)
    assert copy.deepcopy(service.spec.keys.master_key) is service.spec.keys.master_key


def test_a_part_of_a_secret_is_one() -> None:
    secret = Secret(b"of nobody else's business" * 10)
    assert (type(secret[:5]), secret[:5], secret[::-1][0], secret[0]) == (Secret, b"of no", ord("s"), ord("o"))
    assert "business" not in pretty_repr([secret, {"key": secret}], max_string=40)
    assert "***" in pretty_repr(secret, max_string=40)


def test_a_spec_as_a_dict_shows_none(service: Service) -> None:
    for text in (
        repr(dataclasses.asdict(service.spec)),
        repr(dataclasses.astuple(service.spec)),
        json.dumps(dataclasses.asdict(service.spec), default=str),
        json.dumps(dataclasses.asdict(service.spec), default=repr),
        f"{service.spec} {service.spec.keys} {service.spec.keys.master_key} {service.spec.keys.master_key:>5}",
        "%s %r" % (service.spec.keys.master_key, service.spec.keys.previous_keys),  # noqa: UP031  # as loggers do
    ):
        assert leaks(text) == []
        assert "***" in text
    with pytest.raises(TypeError):
        json.dumps(dataclasses.asdict(service.spec.keys))


async def test_no_page_and_no_report_shows_a_key(service: Service, server: Server, tmp_path: Path) -> None:
    await use(service, server)
    assert leaks(repr(service.health())) == []
    assert leaks(respond(service).body.decode()) == []
    assert leaks(repr(service.region("secure").info()) + repr(secret_name.cache_info())) == []
    assert leaks(str(secret_name.key(1)) + repr(secret_name) + repr(secret_name.cache_parameters())) == []
    with (tmp_path / "stacks").open("w+") as stacks:
        faulthandler.dump_traceback(stacks, all_threads=True)
        stacks.seek(0)
        assert leaks(stacks.read()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["config", "show"], ["config", "show", "--json"], ["config", "show", "--origin"],
        ["config", "show", "--origin", "--json"],
        ["config", "check"], ["config", "check", "--json"], ["config", "schema"], ["doctor"], ["doctor", "--json"],
        ["secrets", "check"], ["secrets", "check", "--json"], ["secrets", "check", "--probe", "--json"],
        ["secrets", "rotate", "--json"], ["secrets", "rotate", "--dry-run"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_command_shows_a_key(service: Service, words: list[str]) -> None:
    secret_name(2)
    result = CliRunner().invoke(build(), words)
    assert result.exit_code == 0, result.output
    assert result.output
    assert leaks(result.output + result.stderr) == []


def test_the_search_finds_what_it_looks_for() -> None:
    for secret in (MASTER, OLD, SIGNING, NAMES):
        for text in (secret.hex(), secret.hex().upper(), repr(secret), base64.b64encode(secret).decode()):
            assert leaks(f"x {text} y")
    assert len(forms()) > 100
    held = types.SimpleNamespace(key=MASTER)
    assert any(leaks(repr(each)) for each in reachable([lambda: held]))
    with pytest.raises(RuntimeError) as caught:
        local_that_is_shown()
    assert leaks(shown(caught.value))


def local_that_is_shown() -> None:
    key = MASTER
    raise RuntimeError(len(key))
