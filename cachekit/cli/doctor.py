"""``cachekit doctor``: versions, where the configuration came from, and whether each backend can be reached."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from cachekit.cli.config import ConfigOption, JsonOption
from cachekit.cli.output import printable

if TYPE_CHECKING:
    from rich.console import Console

    from cachekit.backends.base import Faces
    from cachekit.backends.redis.rights import Rights
    from cachekit.config.settings import Loaded
    from cachekit.config.spec import BackendSpec
    from cachekit.errors import BackendError

REMEDIES = {
    "auth": "check user and password: those in the URL, {variable}__USERNAME and {variable}__PASSWORD",
    "noperm": "let the user run the commands that cachekit needs: {grant}",
    "tls": "set {table} tls.ca to the authority that signed the server's certificate, and use the name it was made for",
    "client": "the server wants a certificate of its clients: set {table} tls.cert and tls.key",
    "plain": "the port does not speak TLS: write redis:// or valkey:// in place of rediss:// or valkeys://",
    "closed": "if the port speaks TLS, write rediss:// or valkeys://, and set {table} tls.cert and tls.key if it wants "
    "a certificate of its clients; see the server's log for what it refused",
    "timeout": "see whether a firewall drops the packets and whether the server hangs; {table} budget is {budget}",
    "connection": "see whether the server runs, and whether host and port are right",
    "loading": "wait until the server has read its data, and see its log",
    "protocol": "something else listens there: see host and port",
    "command": "see the number of the database in the URL and the server's log",
    "moved": "write redis+cluster:// in the URL of a cluster; with Sentinels, see which server they name",
    "silent": "being told of changes takes Redis 6 or newer, or Valkey, and its own address in place of a proxy's; "
    'otherwise set {table} coherence = "ttl"',
    "service": "see the name of the service after the hosts in the URL, and what SENTINEL MASTERS says",
}


def register(app: typer.Typer) -> None:
    """Add ``doctor`` to the application."""
    app.command()(doctor)


def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """See whether everything that is configured works.

    Each backend is asked once, for as long as its budget allows, and nothing
    is written. Warnings alone are no problem.

    Exit status 1: the configuration is wrong, or a backend does not answer, or
    it refuses a command that cachekit needs.

    Examples:
        cachekit doctor
        cachekit doctor --json
    """
    from cachekit.config.settings import load_tree
    from cachekit.errors import ConfigError

    report = Report(versions())
    try:
        loaded = load_tree(config)
    except ConfigError as error:
        report.problems.extend(str(error).splitlines())
    else:
        examine(loaded, report)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        show(report)
    raise typer.Exit(0 if report.ok else 1)


@dataclass
class Finding:
    """What one attempt at a backend showed. ``reason`` and ``remedy`` are empty when it answered and all is allowed.

    ``rights`` are "all", "some" without those in ``missing``, or "unknown". ``coherence`` begins with the state that an
    application will find: tracking, connecting or ttl.
    """

    name: str
    url: str
    origin: str
    reachable: bool = False
    milliseconds: float = 0.0
    reason: str = ""
    remedy: str = ""
    coherence: str = ""
    rights: str = "unknown"
    missing: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass
class Answer:
    """What a backend said. ``silence`` is why it does not tell of changes, None if it does or was not asked."""

    facts: dict[str, str]
    rights: "Rights | None" = None
    silence: "BackendError | None" = None


@dataclass
class Report:
    """Everything that the command says. Holds no secret."""

    versions: dict[str, str]
    namespace: str = ""
    files: tuple[str, ...] = ()
    variables: list[str] = field(default_factory=list)
    backends: list[Finding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the configuration is valid, and every backend answered and allows what is needed."""
        return not self.problems and all(backend.reachable and not backend.missing for backend in self.backends)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"ok": self.ok} | asdict(self)


def versions() -> dict[str, str]:
    """Of everything that decides how the cache behaves."""
    import platform
    from importlib.metadata import version

    from cachekit.l1.table import TWIN

    return {
        "cachekit": f"{version('cachekit')} ({TWIN})",
        "python": f"{platform.python_version()} ({platform.python_implementation()}, {platform.system()})",
        "redis-py": version("redis"),
        "hiredis": version("hiredis"),
    }


def examine(loaded: "Loaded", report: Report) -> None:
    """Add what there is to say about a valid configuration."""
    import os

    from cachekit.config.tree import URL_VARIABLES, setting_variables

    spec = loaded.spec
    report.namespace, report.files = spec.namespace, spec.files
    report.variables = [*setting_variables(os.environ), *(name for name in URL_VARIABLES if os.environ.get(name))]
    report.warnings.extend(loaded.warnings)
    if not spec.enabled:
        report.warnings.append("enabled: false: every function runs at every call; remove it to cache again")
    report.backends.extend(reach(backend, spec.namespace) for backend in spec.backends.values())


def reach(spec: "BackendSpec", namespace: str) -> Finding:
    """Ask a backend once, within its budget."""
    from time import perf_counter

    from cachekit.backends.registry import open_backend
    from cachekit.config.urls import redact_url
    from cachekit.errors import BackendError, ConfigError

    finding = Finding(spec.name, redact_url(spec.url) if spec.url else f"({spec.type})", spec.url_origin)
    started, user = perf_counter(), "default"
    try:
        faces = open_backend(spec)  # loads the driver, which is no part of the attempt
        user = getattr(getattr(faces.sync, "address", None), "username", None) or user
        started = perf_counter()
        answer = _ask(faces, namespace, spec)
    except ConfigError as error:
        finding.reason = _one_line(str(error), spec)
    except BackendError as error:
        finding.reason = _one_line(f"{error.reason}: {error}", spec)
        finding.remedy = remedy(error, spec, user, namespace)
    except Exception as error:  # a third-party backend that raises what it should not
        finding.reason = _one_line(f"{type(error).__name__}: {error}", spec)
    else:
        finding.reachable = True
        finding.facts = answer.facts
        _judge(answer.rights, finding, user, namespace, spec)
        finding.coherence = _coherence(faces.listens, answer.silence, spec)
        if answer.silence is not None:
            finding.warnings.append(_silent(answer.silence, spec, user, namespace))
        finding.warnings.extend(advice(finding.facts, tracking=finding.coherence.startswith("tracking")))
    finding.milliseconds = round((perf_counter() - started) * 1000, 1)
    return finding


def _judge(rights: "Rights | None", finding: Finding, user: str, namespace: str, spec: "BackendSpec") -> None:
    """What the server's user may not do, and the line that changes it."""
    if rights is None or rights.missing is None:
        return
    finding.rights, finding.missing = ("some" if rights.missing else "all"), list(rights.missing)
    if rights.missing:
        finding.remedy = REMEDIES["noperm"].format(grant=_grant(rights.user or user, namespace, spec))


def _coherence(listens: bool, silence: "BackendError | None", spec: "BackendSpec") -> str:
    """The state that an application will find, and what it means."""
    from cachekit.errors import Fault

    least = f"L1 entries live at most {spec.max_staleness:g} s"
    if spec.coherence == "ttl" or not listens:
        return f"ttl: {least}"
    if silence is None:
        return "tracking: the server tells L1 of changes at once"
    lasting = silence.fault in (Fault.CONFIG, Fault.COMMAND)  # the server will answer the same the next time
    return f"ttl: {least}" if lasting else f"connecting: until that works {least}"


def _silent(error: "BackendError", spec: "BackendSpec", user: str, namespace: str) -> str:
    """Why a server does not tell of changes, and what to do."""
    why = _one_line(f"{error.reason}: {error}", spec)
    # A command that is unknown: the server is too old, or what answers in its place does not pass it on.
    if error.reason == "command" or "unknown command" in why.casefold():
        what = REMEDIES["silent"].format(table=f"[backends.{spec.name}]")
    else:
        what = remedy(error, spec, user, namespace)
    return f"the server does not tell of changes ({why}); {what}"


def _ask(faces: "Faces", namespace: str, spec: "BackendSpec") -> Answer:
    """The backend's own facts, or one read from a backend that offers none; the rights there, where it can tell; and
    whether it tells of changes, where that is wanted."""
    import asyncio
    import inspect

    budget = spec.budget
    face: Any = faces.aio if faces.sync is None else faces.sync
    checks = "check" in face.capabilities

    async def ask() -> Answer:
        try:
            answer = face.check(budget=budget) if checks else face.get(f"{namespace}:v:{{doctor}}", budget=budget)
            if inspect.isawaitable(answer):
                answer = await answer
            keys = [f"{namespace}:{kind}:{{doctor}}" for kind in ("v", "l", "t")]  # values, leases, stamps
            rights = face.rights(keys, budget=budget) if hasattr(face, "rights") else None
            silence = _silence(faces, namespace, spec) if faces.listens and spec.coherence != "ttl" else None
        finally:
            closing = face.close()
            if inspect.isawaitable(closing):
                await closing
        facts = dict(answer) if checks else {}
        return Answer(facts | (_limits(rights.settings) if rights else {}), rights, silence)

    return asyncio.run(ask())


def _silence(faces: "Faces", namespace: str, spec: "BackendSpec") -> "BackendError | None":
    """Why the backend does not tell of changes; None if it does."""
    import time

    from cachekit.errors import BackendError

    assert faces.sync is not None
    prefixes = [f"{namespace}:t:{{"]  # stamps
    try:
        faces.sync.listen(prefixes, heartbeat=spec.heartbeat, clock=time.monotonic, budget=spec.budget).close()
    except BackendError as error:
        return error
    return None


def _limits(settings: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in settings.items()}


def remedy(error: "BackendError", spec: "BackendSpec", user: str, namespace: str) -> str:
    """What to do about a failure."""
    from cachekit.config.tree import variable_of

    kind, text = error.reason, str(error).casefold()
    if kind == "tls" and any(sign in text for sign in ("does not speak", "wrong_version", "record layer")):
        kind = "plain"
    elif kind == "tls" and "certificate required" in text.replace("_", " "):
        kind = "client"
    elif kind == "connection" and any(sign in text for sign in ("closed", "reset", "end of file", "eof")):
        kind = "closed"
    return REMEDIES.get(kind, "see the server's log").format(
        table=f"[backends.{spec.name}]",
        variable=variable_of(("backends", spec.name)),
        budget=f"{spec.budget * 1000:g} ms",
        grant=_grant(user, namespace, spec) if kind == "noperm" else "",
    )


def _grant(user: str, namespace: str, spec: "BackendSpec") -> str:
    from cachekit.backends.redis.rights import grant

    return grant(user, namespace, spec.url.partition("://")[0].casefold().partition("+")[2])


def advice(facts: Mapping[str, str], *, tracking: bool = False) -> Iterator[str]:
    """What a server's own settings will lead to, and where it tells of changes."""
    policy, limit = facts.get("maxmemory_policy", ""), facts.get("maxmemory", "")
    if limit == "0":
        yield "the server has no memory limit; set maxmemory, and maxmemory-policy volatile-lru"
    elif policy == "noeviction":
        yield "a full server refuses to store (noeviction); set maxmemory-policy volatile-lru"
    elif policy.endswith("-random"):
        yield f"a full server forgets popular entries like any other ({policy}); set maxmemory-policy volatile-lru"
    elif policy.startswith("allkeys"):
        yield f"a full server evicts stamps and what has no ttl as well ({policy}); set maxmemory-policy volatile-lru"
    unlimited = "normal 0 0 0" in facts.get("client_output_buffer_limit", "")
    if tracking and facts.get("maxmemory_clients") == "0" and unlimited:
        yield "a stalled reader of changes is never disconnected (maxmemory-clients 0); set maxmemory-clients 10%"
    if facts.get("role") in ("slave", "replica"):
        yield "this is a replica, which takes no writes; give the URL of its primary"
    if facts.get("mode") == "cluster" and facts.get("topology") != "cluster":
        yield "this is a node of a cluster; give a URL with redis+cluster:// in place of redis://"


def _one_line(text: str, spec: "BackendSpec") -> str:
    """For the report: no line breaks, and none of the backend's secrets, whoever put them into the message."""
    from cachekit.config.urls import HIDDEN

    for secret in _secrets(spec):
        text = text.replace(secret, HIDDEN)
    return " ".join(text.split())


def _secrets(spec: "BackendSpec") -> Iterable[str]:
    from urllib.parse import parse_qs, unquote, urlsplit

    try:
        url = urlsplit(spec.url)
        query = parse_qs(url.query)
        found = {spec.password, url.password, *query.get("password", ()), *query.get("sentinel_password", ())}
    except ValueError:
        found = {spec.password, spec.url}
    return sorted({text for secret in found if secret for text in (secret, unquote(secret))}, key=len, reverse=True)


# --- for people ------------------------------------------------------------------------------------------------------


def show(report: Report, console: "Console | None" = None) -> None:
    """Print a report, to the standard output if no other is given."""
    from rich.console import Console

    console = console or Console(soft_wrap=True, highlight=False)
    _lines(console, "versions", [f"{name} {number}" for name, number in report.versions.items()])
    if report.namespace:
        _lines(console, "configuration", _configuration(report))
    for backend in report.backends:
        _print_backend(console, backend)
    if report.namespace and not report.backends:
        _lines(console, "backend", ["none: entries live in this process only; set REDIS_URL to share them"])
    for problem in report.problems:
        _say(console, "error", problem, "red")
    for warning in report.warnings:
        _say(console, "warning", warning, "yellow")
    console.print()
    if report.ok:
        warned = len(report.warnings) + sum(len(backend.warnings) for backend in report.backends)
        _say(console, "ok", f"all is well{f', {warned} to look at' if warned else ''}", "green")
    else:
        _say(console, "failed", "see the lines in red and what they suggest", "red")


def _configuration(report: Report) -> Iterator[str]:
    yield ", ".join(report.files) or "no file"
    if report.variables:
        yield f"environment: {', '.join(report.variables)}"
    yield f"namespace: {report.namespace}"


def _print_backend(console: "Console", backend: Finding) -> None:
    origin = f" ({backend.origin})" if backend.origin else ""
    name = f"backend {backend.name}"
    if not backend.reachable:
        _say(console, name, f"{backend.url}{origin}", "")
        _say(console, "error", f"not usable after {backend.milliseconds:g} ms: {backend.reason}", "red")
        if backend.remedy:
            _say(console, "remedy", backend.remedy, "yellow")
        return
    answered = f"answered in {backend.milliseconds:g} ms"
    lines = [f"{backend.url}{origin}", answered, f"coherence {backend.coherence}", *_server(backend.facts)]
    _lines(console, name, [*lines, *([f"rights {backend.rights}"] if not backend.missing else [])])
    if backend.missing:
        _say(console, "error", f"the server's user may not run: {', '.join(backend.missing)}", "red")
        _say(console, "remedy", backend.remedy, "yellow")
    for warning in backend.warnings:
        _say(console, "warning", warning, "yellow")


def _server(facts: Mapping[str, str]) -> Iterator[str]:
    if "server" in facts:
        described = [facts["server"], facts.get("version", ""), facts.get("mode", ""), facts.get("role", "")]
        yield f"server {' '.join(filter(None, described))}"
    rest = [f"{name} {value}" for name, value in facts.items() if name.startswith("maxmemory")]
    if rest:
        yield ", ".join(rest)


def _lines(console: "Console", name: str, lines: Iterable[str]) -> None:
    for line in lines:
        _say(console, name, line, "")
        name = ""


def _say(console: "Console", name: str, text: str, style: str) -> None:
    from rich.text import Text

    console.print(Text.assemble((f"{name:<16} ", "bold"), (printable(text), style)))
