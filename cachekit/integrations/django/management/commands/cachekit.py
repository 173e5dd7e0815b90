"""``manage.py cachekit``: check, look into and empty the caches of the project, with its own configuration."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any

from django.core.checks import ERROR, Tags, run_checks
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cachekit.cli import doctor
from cachekit.cli.stats import Page, Reading, Unreadable, as_dict, render
from cachekit.config.units import format_duration
from cachekit.engine.outcome import Outcome
from cachekit.errors import BackendError, CacheKitError, ConfigError
from cachekit.integrations.django.deployment import check_deployment
from cachekit.integrations.django.project import aliases_of
from cachekit.l2.listing import list_stores
from cachekit.process import default_service
from cachekit.regions import invalidate_tags, region

ALONE = "processes have entries of their own, which only they can remove"
LIMIT = 50  # entries that are shown unless told otherwise


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """The group; one method per command."""

    help = "Check, look into and empty the caches of the project."
    requires_system_checks: tuple[str, ...] = ()  # `check` runs them and shows what they find

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True, title="commands")

        def command(name: str, help: str) -> Any:
            made = commands.add_parser(name, help=help, description=help)
            made.add_argument("--json", action="store_true", dest="as_json", help="Print JSON.")
            return made

        def removing(name: str, help: str) -> Any:
            made = command(name, help)
            made.add_argument(
                "--no-input", "--noinput", action="store_false", dest="interactive", help="Do not ask for confirmation."
            )
            return made

        command("check", "Check settings, and ask every server once. Exit status 1 if anything is wrong.")
        stats = command("stats", "Show the regions, and how their stores do.")
        stats.add_argument("--url", help="Counts of the application whose metrics page this is.")
        stats.add_argument("--token", help="Its bearer token; CACHEKIT_METRICS__TOKEN is used otherwise.")
        entries = command("entries", "List what lies in the stores.")
        entries.add_argument("region", nargs="?", help="This region alone.")
        entries.add_argument("--limit", type=int, default=LIMIT, help="At most so many; 0: all. Default: %(default)s.")
        clear = removing("clear", "Remove everything in regions, of all tenants, and nothing else.")
        clear.add_argument("regions", nargs="*", metavar="region")
        clear.add_argument("--all", action="store_true", dest="everything", help="Every region of the configuration.")
        invalidate = removing("invalidate", "Remove every entry with one of these tags, in all regions.")
        invalidate.add_argument("tags", nargs="+", metavar="tag")

    def handle(self, *args: Any, command: str, **options: Any) -> None:
        self.options = options
        run: Callable[[], None] = getattr(self, f"do_{command}")
        try:
            run()
        except CacheKitError as error:
            raise CommandError(str(error)) from None

    # The commands

    def do_check(self) -> None:
        report = self._report()
        if self.options["as_json"]:
            self._print(json.dumps(report.as_dict(), indent=2))
        else:
            doctor.show(report, self._console())
        if not report.ok:
            sys.exit(1)

    def do_stats(self) -> None:
        if self.options["url"]:
            self._counts(self.options["url"])
            return
        regions, service = self._region_rows(), default_service()
        for row in regions:
            self._ask(row["region"])  # so that its store has something to show
        backends = [{"backend": name, **asdict(each)} for name, each in sorted(service.health().backends.items())]
        if self.options["as_json"]:
            self._print(json.dumps({"regions": regions, "backends": backends}, indent=2))
            return
        self._table(regions)
        columns = ("backend", "state", "breaker", "coherence", "budget_ms", "pending", "last_error")
        self._table([{column: row[column] for column in columns} for row in backends])

    def do_entries(self) -> None:
        service, limit, wanted = default_service(), self.options["limit"], self.options["region"]
        backends = {service.region_spec(wanted).backend} if wanted else set(service.spec.backends)
        remotes = [remote for name in sorted(backends) if (remote := service.remote(name)) is not None]
        found = list_stores(remotes, service.spec.namespace, wanted, time.time())
        try:
            rows = [entry._asdict() for entry in islice(found, limit + 1 if limit > 0 else None)]
        except BackendError as error:
            raise CommandError(f"the store could not be read: {error.reason}; see `cachekit check`") from None
        more = limit > 0 and len(rows) > limit
        rows = rows[:limit] if more else rows
        if self.options["as_json"]:
            self._print(json.dumps({"entries": rows, "more": more}, indent=2))
            return
        for row in rows:
            left = row.pop("fresh_until")
            row["bytes"] = "gone" if row["bytes"] is None else row["bytes"]
            row["fresh for"] = "" if row["created"] is None else _ahead(left)
            del row["created"], row["kept_until"]
        self._table(rows, empty="no entries" if remotes else f"no server: {ALONE}")
        if more:
            self._print(f"... and more; --limit 0 lists all, {limit} is the limit now")

    def do_clear(self) -> None:
        service = default_service()
        names = sorted(service.spec.regions) if self.options["everything"] else self.options["regions"]
        if not names:
            raise CommandError("name the regions to clear, or give --all")
        for name in names:
            service.region_spec(name)
        self._confirm(f"remove everything in {', '.join(names)}")
        self._outcomes({name: self._cleared(name) for name in names})

    def _cleared(self, name: str) -> str:
        try:
            outcome = region(name).clear(all_tenants=True)
        except ConfigError:
            if not self.options["everything"]:
                raise
            return "unusable"  # it wants a key that is not here, and so has no entries from here
        return outcome.name.lower() if default_service().remotes_of(name) else ALONE

    def do_invalidate(self) -> None:
        from cachekit.engine.keys import check_tag

        tags = self.options["tags"]
        try:
            for tag in tags:
                check_tag(tag)
        except ValueError as error:
            raise CommandError(str(error)) from None
        if not default_service().remotes_in_use():
            raise CommandError(f"no region has a server: {ALONE}")
        self._confirm(f"remove every entry with a tag of {', '.join(tags)}")
        self._outcomes({tag: invalidate_tags(tag).name.lower() for tag in tags})

    # What they share

    def _report(self) -> doctor.Report:
        service = default_service()
        report = doctor.Report(doctor.versions(), service.spec.namespace, service.spec.files)
        try:
            service.start()
        except ConfigError as error:
            report.problems.extend(str(error).splitlines())
        for message in [*run_checks(tags=[Tags.caches]), *check_deployment(None)]:
            text = f"{message.id}: {message.msg}{f' {message.hint}' if message.hint else ''}"
            (report.problems if message.level >= ERROR else report.warnings).append(text)
        report.backends.extend(doctor.reach(spec, service.spec.namespace) for spec in service.spec.backends.values())
        return report

    def _region_rows(self) -> list[dict[str, Any]]:
        names = aliases_of()
        return [
            {
                "region": name, "aliases": ", ".join(names.get(name, [])), "backend": spec.backend, "ttl": spec.ttl,
                "stale_ttl": spec.freshness.stale_ttl, "l1": spec.l1.mode,
            }
            for name, spec in sorted(default_service().spec.regions.items())
        ]  # fmt: skip

    def _ask(self, name: str) -> None:
        try:
            region(name).get("manage.py cachekit stats")
        except CacheKitError:  # it wants a key or a tenant
            return

    def _counts(self, url: str) -> None:
        metrics = default_service().spec.metrics
        try:
            page = Page(url, metrics.path, self.options["token"] or metrics.token)
            reading = Reading(page.read())
        except Unreadable as error:
            raise CommandError(str(error)) from None
        if self.options["as_json"]:
            self._print(json.dumps(as_dict(page.shown, reading), indent=2))
        else:
            self._console().print(render(reading))

    def _confirm(self, what: str) -> None:
        if not self.options["interactive"]:
            return
        try:
            answer = input(f"This will {what}. Go on? [y/N] ")
        except EOFError:
            raise CommandError("nobody is there to confirm: give --no-input") from None
        if answer.strip().lower() not in ("y", "yes"):
            raise CommandError("nothing was removed")

    def _outcomes(self, outcomes: Mapping[str, str]) -> None:
        """What became of each. Exit status 1 if a store could not be told."""
        rows = [{"name": name, "outcome": outcome} for name, outcome in outcomes.items()]
        if self.options["as_json"]:
            self._print(json.dumps(rows, indent=2))
        else:
            self._table(rows)
        if {Outcome.QUEUED.name.lower(), Outcome.FAILED.name.lower()} & set(outcomes.values()):
            raise CommandError("a store could not be told; see `manage.py cachekit check`")

    def _table(self, rows: Iterable[Mapping[str, Any]], empty: str = "none") -> None:
        rows = list(rows)
        if not rows:
            self._print(empty)
            return
        table = Table(*rows[0], box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(Text(_cell(value), overflow="fold") for value in row.values()))
        self._console().print(table)

    def _console(self) -> Console:
        return Console(file=self.stdout, no_color=self.options["no_color"] or None, soft_wrap=False, highlight=False)

    def _print(self, text: str) -> None:
        self.stdout.write(text)


def _cell(value: Any) -> str:
    return "never" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _ahead(seconds: float | None) -> str:
    if seconds is None:
        return "ever"
    return format_duration(float(round(seconds))) if seconds > 0 else "over"
