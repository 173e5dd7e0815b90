"""``cachekit stats``: what the caches of a running application do, read from its metrics page."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cachekit.cli.config import ConfigOption, JsonOption
from cachekit.cli.output import fail, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

TIMEOUT = 5.0  # seconds without a byte
LARGEST = 32 * 1024 * 1024  # bytes of a page; one of ours has some hundred lines
EVERY = 1.0  # seconds between two readings
BREAKER = ("closed", "half open", "open")
COHERENCE = ("ttl", "connecting", "tracking")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def register(app: typer.Typer) -> None:
    """Add ``stats`` to the application."""
    app.command()(stats)


def stats(
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="The page. Otherwise metrics.path at http://127.0.0.1:8000."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Read it every second and show rates.")] = False,
    token: Annotated[
        str | None,
        typer.Option(
            "--token", metavar="TOKEN", help="Bearer token. Other users see it in `ps`: prefer CACHEKIT_METRICS__TOKEN."
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the caches of a running application do.

    Read from its metrics page. With --watch and --json each second is a line.

    Exit status 1: there is no such page, or it cannot be read.

    Examples:
        cachekit stats --url http://127.0.0.1:8000
        cachekit stats --watch
    """
    from cachekit.config.settings import load_tree
    from cachekit.errors import ConfigError

    try:
        metrics = load_tree(config).spec.metrics
        page = Page(url or "http://127.0.0.1:8000", metrics.path, token or metrics.token)
        first = page.read()
        if not watch:
            _show(page, Reading(first), as_json=as_json)
        elif as_json:
            for reading in readings(page, first):
                _show(page, reading, as_json=True, watch=True)
        else:
            _watch(page, first)
    except (ConfigError, Unreadable) as error:
        fail(str(error), as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


# What a page holds.


@dataclass
class Counts:
    """Of one function, of a region's direct use, or summed over a region; since the start or per second."""

    l1_hits: float = 0
    l2_hits: float = 0
    misses: float = 0
    waited: float = 0
    loads: float = 0
    errors: float = 0
    stale: float = 0

    @property
    def share(self) -> float | None:
        """Hits per call, waiting calls included; None without calls."""
        hits = self.l1_hits + self.l2_hits
        calls = hits + self.misses + self.waited
        return hits / calls if calls else None

    def __add__(self, other: "Counts") -> "Counts":
        theirs = asdict(other)
        return Counts(**{name: value + theirs[name] for name, value in asdict(self).items()})

    def since(self, before: "Counts", seconds: float) -> "Counts":
        """What was added per second. Less than before means that the application was started again."""
        then = asdict(before)
        now = asdict(self)
        if any(now[name] < then[name] for name in now):
            then = dict.fromkeys(now, 0)
        return Counts(**{name: (value - then[name]) / seconds for name, value in now.items()})


@dataclass
class Region:
    """One region of the application."""

    entries: float = 0
    bytes: float = 0
    functions: dict[str, Counts] = field(default_factory=dict)

    @property
    def total(self) -> Counts:
        """All functions and direct use."""
        return sum(self.functions.values(), Counts())


@dataclass
class Backend:
    """One store of the application, as it found it."""

    up: bool = False
    breaker: str = ""
    budget: float = 0.0  # seconds
    coherence: str = ""  # of an application that does not tell, nothing
    pending: float = 0  # invalidations that it has not heard


@dataclass
class Stats:
    """One reading of the page."""

    taken: float  # monotonic seconds
    regions: dict[str, Region] = field(default_factory=dict)
    backends: dict[str, Backend] = field(default_factory=dict)


@dataclass
class Reading:
    """What to show: the stats, those before them, and why they could not be read again."""

    stats: Stats
    before: Stats | None = None
    problem: str = ""

    def rates(self, region: str, function: str | None = None) -> Counts | None:
        """Per second, of a function or of a whole region."""
        if self.before is None:
            return None
        now, then = self.stats.regions[region], self.before.regions.get(region, Region())
        seconds = self.stats.taken - self.before.taken
        if function is None:
            return now.total.since(then.total, seconds)
        return now.functions[function].since(then.functions.get(function, Counts()), seconds)


FIELDS = {
    ("cachekit_cache_hits_total", "l1"): "l1_hits",
    ("cachekit_cache_hits_total", "l2"): "l2_hits",
    ("cachekit_cache_misses_total", ""): "misses",
    ("cachekit_cache_waited_total", ""): "waited",
    ("cachekit_cache_loads_total", ""): "loads",
    ("cachekit_cache_errors_total", ""): "errors",
    ("cachekit_cache_stale_total", ""): "stale",
}


def parse(text: str, taken: float) -> Stats:
    """The stats of a page in the text format. Raises `ValueError` if it is none."""
    from prometheus_client.parser import text_string_to_metric_families

    stats = Stats(taken)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("cachekit_backend_"):
                _add_backend(stats, sample.name, sample.labels, sample.value)
            elif "region" in sample.labels:
                _add_region(stats, sample.name, sample.labels, sample.value)
    return stats


def _add_region(stats: Stats, name: str, labels: dict[str, str], value: float) -> None:
    counter = FIELDS.get((name, labels.get("tier", "")))
    gauge = {"cachekit_cache_entries": "entries", "cachekit_cache_bytes": "bytes"}.get(name)
    if counter is None and gauge is None:
        return
    region = stats.regions.setdefault(labels["region"], Region())
    if gauge is not None:
        setattr(region, gauge, value)
    elif counter is not None:
        counts = region.functions.setdefault(labels.get("function", ""), Counts())
        setattr(counts, counter, getattr(counts, counter) + value)  # loads and errors have several samples


def _add_backend(stats: Stats, name: str, labels: dict[str, str], value: float) -> None:
    backend = stats.backends.setdefault(labels.get("backend", ""), Backend())
    if name == "cachekit_backend_up":
        backend.up = value == 1
    elif name == "cachekit_backend_breaker_state":
        backend.breaker = _named(BREAKER, value)
    elif name == "cachekit_backend_budget_seconds":
        backend.budget = value
    elif name == "cachekit_backend_coherence":
        backend.coherence = _named(COHERENCE, value)
    elif name == "cachekit_backend_pending_invalidations":
        backend.pending = value


def _named(names: tuple[str, ...], value: float) -> str:
    return names[int(value)] if value in range(len(names)) else "unknown"


# Reading it.


class Unreadable(Exception):
    """Why the page cannot be read, and what to do. Holds no secret."""


class Page:
    """The metrics page of an application."""

    def __init__(self, url: str, path: str, token: str | None) -> None:
        from urllib.parse import urlsplit

        from cachekit.config.urls import redact_url

        self.shown = redact_url(url)
        try:
            parts = urlsplit(url)
            self._host = parts.hostname or ""
            usable = parts.scheme in ("http", "https") and bool(self._host) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise Unreadable(f"{self.shown}: not an address; write http://127.0.0.1:8000{path}")
        if "@" in parts.netloc:
            raise Unreadable(f"{self.shown}: user and password do not belong there; give --token")
        if parts.path in ("", "/"):
            url, self.shown = f"{url.rstrip('/')}{path}", f"{self.shown.rstrip('/')}{path}"
        self._url = url
        self._token = (token or "").strip()

    def read(self) -> Stats:
        """One reading. Raises `Unreadable`."""
        text = self._fetch().decode("utf-8", "replace")
        try:
            stats = parse(text, time.monotonic())
        except (ValueError, KeyError):
            raise Unreadable(f"{self.shown}: what answers there is not a metrics page; see --url") from None
        if "cachekit_" not in text:
            how = "see docs/features/prometheus-metrics.md for how it joins"
            raise Unreadable(f"{self.shown}: a metrics page without cachekit; {how}")
        return stats

    def _fetch(self) -> bytes:
        from http.client import HTTPException
        from urllib.error import HTTPError, URLError

        problem = ""
        try:
            with self._open() as answer:
                body: bytes = answer.read(LARGEST + 1)
            if len(body) <= LARGEST:
                return body
            problem = "what answers there is too large for a metrics page; see --url"
        except HTTPError as error:
            problem = _refused(error.code)
            error.close()
        except URLError as error:
            reason = getattr(error.reason, "strerror", None) or type(error.reason).__name__
            problem = f"nothing answers ({reason}); see that the application runs, and --url"
        except (OSError, HTTPException) as error:
            problem = f"no answer to understand ({type(error).__name__}); see that the application runs, and --url"
        except ValueError:  # of what a header may hold; the message would hold the token
            problem = "the address or the token has characters that no request may carry"
        raise Unreadable(f"{self.shown}: {problem}")

    def _open(self) -> Any:
        from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

        class Stay(HTTPRedirectHandler):
            def redirect_request(self, *_: object) -> None:
                return None  # the token is for this address alone

        handlers = [Stay(), *([ProxyHandler({})] if self._host in LOOPBACK else [])]
        request = Request(self._url, headers={"Accept": "text/plain"})
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        return build_opener(*handlers).open(request, timeout=TIMEOUT)


def _refused(status: int) -> str:
    if status == 401:
        return "it wants another token; set CACHEKIT_METRICS__TOKEN, or give --token"
    if status == 403:
        return "this machine is in no network of metrics.allow; give a token, or add the network"
    if status == 404:
        return "no metrics there; see metrics.path and metrics.enabled of the application, and --url"
    return f"it answers with status {status}; see --url"


def readings(page: Page, first: Stats) -> Iterator[Reading]:
    """The first stats, then new ones every second; the last ones with a problem while there are none."""
    reading = Reading(first)
    while True:
        yield reading
        time.sleep(EVERY)
        try:
            reading = Reading(page.read(), reading.stats)
        except Unreadable as error:
            reading = Reading(reading.stats, None, str(error))


# Showing it.


def _watch(page: Page, first: Stats) -> None:
    console = _console()
    if not console.is_terminal:  # a file or a pipe: one table below the other
        for reading in readings(page, first):
            console.print(render(reading))
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, screen=True) as live:
        for reading in readings(page, first):
            live.update(render(reading), refresh=True)


def _show(page: Page, reading: Reading, *, as_json: bool, watch: bool = False) -> None:
    if as_json:
        typer.echo(json.dumps(as_dict(page.shown, reading), indent=None if watch else 2))
    else:
        _console().print(render(reading))


def as_dict(url: str, reading: Reading) -> dict[str, Any]:
    """What ``--json`` prints."""
    regions: dict[str, Any] = {}
    for name, region in reading.stats.regions.items():
        functions = {
            function: _counts(counts, reading.rates(name, function)) for function, counts in region.functions.items()
        }
        size = {"entries": region.entries, "bytes": region.bytes}
        regions[name] = {**_counts(region.total, reading.rates(name)), **size, "functions": functions}
    backends = {name: asdict(backend) for name, backend in reading.stats.backends.items()}
    problem = {"problem": reading.problem} if reading.problem else {}
    return {"url": url, "regions": regions, "backends": backends, **problem}


def _counts(counts: Counts, rates: Counts | None) -> dict[str, Any]:
    table: dict[str, Any] = {**asdict(counts), "hit_share": counts.share}
    return table if rates is None else {**table, "per_second": asdict(rates)}


def render(reading: Reading) -> "RenderableType":
    """Two tables, regions with their functions and backends, and the problem if there is one."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    if reading.stats.regions:
        parts.append(_regions_table(reading))
    else:
        parts.append(Text("no region was used yet"))
    if reading.stats.backends:
        parts += [Text(""), _backends_table(reading.stats)]
    if reading.problem:
        parts += [Text(""), Text(printable(reading.problem), style="red")]
    return Group(*parts)


def _regions_table(reading: Reading) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("region, function", overflow="fold")
    rates = ("hits/s", "misses/s", "loads/s", "errors/s") if reading.before is not None else ()
    stale = ("stale",) if any(region.total.stale for region in reading.stats.regions.values()) else ()
    for name in ("L1\nhits", "L2\nhits", "misses", "waited", "hit\nshare", "loads", "errors", *stale, *rates):
        table.add_column(name, justify="right", no_wrap=True)
    for name, region in sorted(reading.stats.regions.items()):
        title = Text(printable(f"{name}: {region.entries:.0f} entries, {_size(region.bytes)}"))
        table.add_row(title, *_cells(region.total, *stale), *_rates(reading.rates(name)), style="bold")
        for function, counts in sorted(region.functions.items()):
            cells = [*_cells(counts, *stale), *_rates(reading.rates(name, function))]
            table.add_row(Text(printable(f"  {function or '(direct use)'}")), *cells)
    return table


def _cells(counts: Counts, *more: str) -> list[str]:
    """The columns that are always there, and some that are not."""
    share = "–" if counts.share is None else f"{counts.share:.1%}"
    numbers = {name: f"{value:.0f}" for name, value in asdict(counts).items()}
    first = [numbers[name] for name in ("l1_hits", "l2_hits", "misses", "waited")]
    return [*first, share, *(numbers[name] for name in ("loads", "errors", *more))]


def _rates(rates: Counts | None) -> list[str]:
    if rates is None:
        return []
    return [f"{value:.1f}" for value in (rates.l1_hits + rates.l2_hits, rates.misses, rates.loads, rates.errors)]


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _backends_table(stats: Stats) -> "Table":
    from rich.table import Table
    from rich.text import Text

    waiting = ("pending",) if any(backend.pending for backend in stats.backends.values()) else ()
    columns = ("backend", "state", "breaker", "budget", "coherence", *waiting)
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for name, backend in sorted(stats.backends.items()):
        state = Text("up" if backend.up else "down", style="green" if backend.up else "red")
        cells = [f"{backend.budget * 1000:.0f} ms", backend.coherence or "–", f"{backend.pending:.0f}"]
        table.add_row(Text(printable(name)), state, Text(printable(backend.breaker)), *cells[: len(columns) - 3])
    return table


def _console() -> "Console":
    from rich.console import Console

    return Console()
