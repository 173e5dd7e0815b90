"""``cachekit secrets``: make keys, see which are used where, and bring entries under the present one."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cachekit.cli.config import ConfigOption, JsonOption
from cachekit.cli.output import fail, progress, say, say_json, show_table
from cachekit.cli.stores import RATE, RateOption, Refused, check_regions, complete_region, pace

if TYPE_CHECKING:
    from cachekit.backends.base import BaseBackend
    from cachekit.config.settings import Loaded
    from cachekit.config.spec import BackendSpec, ServiceSpec
    from cachekit.l2.rewrap import Seen

SAMPLE = 10_000  # keys of a backend that `check --probe` looks at
HELP = """Make keys of encryption and signatures, see which are in use, and rotate them.

Examples:
    cachekit secrets generate
    cachekit secrets check
"""
AGAIN = "run `cachekit secrets rotate` again"


def register(app: typer.Typer) -> None:
    """Add ``secrets`` to the application."""
    secrets = typer.Typer(help=HELP, no_args_is_help=True)
    secrets.command()(generate)
    secrets.command()(check)
    secrets.command()(rotate)
    app.add_typer(secrets, name="secrets")


# Making keys.


def generate(
    name_key: Annotated[
        bool, typer.Option("--name-key", help="The key that keeps the names which the present master key makes.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print new keys as lines for the environment.

    With --name-key nothing new is made: what is printed pins the names of keys
    and tags, so that a rotation of the master key does not change them.

    Exit status 1: there is no master key whose names could be pinned.

    Examples:
        cachekit secrets generate >> .env
        cachekit secrets generate --name-key
    """
    from secrets import token_hex

    if name_key:
        made = {"CACHEKIT_NAME_KEY": _present_names(config, as_json)}
    else:
        made = {"CACHEKIT_MASTER_KEY": token_hex(32), "CACHEKIT_NAME_KEY": token_hex(32)}
    if as_json:
        say_json(made)
    else:
        for variable, key in made.items():
            typer.echo(f"{variable}={key}")


def _present_names(config: Any, as_json: bool) -> str:
    from cachekit.codec.keyring import name_root

    keys = _load(config, as_json).spec.keys
    if keys.name_key is not None:
        fail("CACHEKIT_NAME_KEY is set already: names do not depend on the master key", as_json=as_json)
    if keys.master_key is None:
        fail(
            "there is no master key whose names could be kept; set CACHEKIT_MASTER_KEY or CACHEKIT_MASTER_KEY_FILE",
            as_json=as_json,
        )
    return name_root(keys.master_key).hex()


# Seeing keys.


@dataclass
class KeyFact:
    """A key that is configured: where it comes from, and the ids by which entries name it. They are no secret."""

    key: str
    origin: str
    seals: str = ""
    signs: str = ""


@dataclass
class RegionFact:
    """A region that needs a key."""

    region: str
    protection: str
    needs: str
    key_id: str
    fail_closed: bool
    require_tenant: bool
    backend: str
    entries: dict[str, int] = field(default_factory=dict)  # on the server, by id of the key, or why not


@dataclass
class Facts:
    """Everything that `check` says. Holds no secret."""

    keys: list[KeyFact] = field(default_factory=list)
    regions: list[RegionFact] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sampled: int = 0
    complete: bool = True  # the sample was everything


def check(
    probe: Annotated[
        bool, typer.Option("--probe", help="Count entries on the servers by the key they lie under.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which keys are configured, where they come from, and which regions need which.

    Keys are shown by the ids that entries carry.

    Exit status 1: a key that is needed is missing, or a probe found entries
    under an unknown one.

    Examples:
        cachekit secrets check
        cachekit secrets check --probe --json
    """
    from cachekit.config.settings import load_tree
    from cachekit.errors import ConfigError

    facts = Facts()
    try:
        loaded = load_tree(config)
    except ConfigError as error:
        facts.problems.extend(str(error).splitlines())
    else:
        _examine(loaded, facts)
        if probe:
            _probe(loaded.spec, facts)
    if as_json:
        say_json({"ok": not facts.problems} | asdict(facts))
    else:
        _print_facts(facts, probe=probe)
    raise typer.Exit(1 if facts.problems else 0)


def _examine(loaded: "Loaded", facts: Facts) -> None:
    from cachekit.codec.keyring import Keyring
    from cachekit.config.settings import key_warnings

    spec = loaded.spec
    facts.warnings.extend(key_warnings(spec.keys))
    keyring = Keyring(spec.keys, spec.namespace)
    seals = {name: ident.hex() for ident, name in keyring.known("seal").items()}
    signs = {name: ident.hex() for ident, name in keyring.known("sign").items()}
    names = [name for name in ("master_key", "signing_key", "name_key") if getattr(spec.keys, name) is not None]
    for name in [*names, *[f"previous_keys[{at}]" for at in range(len(spec.keys.previous_keys))]]:
        signing = [signs[each] for each in (name, f"{name}, derived") if each in signs]
        origin = loaded.origin((name.partition("[")[0],))
        facts.keys.append(KeyFact(name, origin, seals.get(name, ""), " ".join(signing)))
    facts.regions.extend(_regions(spec, next(iter(seals.values()), ""), next(iter(signs.values()), "")))


def _regions(spec: "ServiceSpec", seals: str, signs: str) -> Iterator[RegionFact]:
    keys = spec.keys
    for name, region in spec.regions.items():
        codec = region.codec
        if codec.encrypt:
            needs, key_id = "master_key", seals if keys.master_key is not None else ""
        elif codec.sign:
            needs = "signing_key" if keys.signing_key is not None else "master_key"
            key_id = signs if keys.signing_key is not None or keys.master_key is not None else ""
        else:
            continue
        protection = "encrypted" if codec.encrypt else "signed"
        yield RegionFact(name, protection, needs, key_id, codec.fail_closed, region.require_tenant, region.backend)


def _probe(spec: "ServiceSpec", facts: Facts) -> None:
    from cachekit.errors import BackendError, ConfigError

    counts: Counter[tuple[str, str, str]] = Counter()  # by region, id of the key, and why they cannot be read
    for backend in spec.backends.values():
        looked = 0
        try:
            for page in map(list, _walk(spec, backend, write=False).pages()):
                looked += len(page)
                found = [seen for seen in page if seen.outcome not in ("plain", "replaced")]
                counts.update((seen.region, seen.key_id.hex(), seen.reason) for seen in found)
                if looked >= SAMPLE:
                    facts.complete = False
                    break
        except (BackendError, ConfigError, Refused) as error:
            facts.problems.append(f"backend {backend.name}: {error}")
        facts.sampled += looked
    _note(facts, counts)


def _note(facts: Facts, counts: "Counter[tuple[str, str, str]]") -> None:
    by_name = {each.region: each for each in facts.regions}
    for (name, ident, reason), count in sorted(counts.items()):
        region = by_name.get(name)
        if region is None:  # a function of a plain region that is protected by its decorator
            region = by_name[name] = RegionFact(name, "by decorators", "", "", False, False, "")
            facts.regions.append(region)
        shown = reason if reason not in ("", "key") else ident
        region.entries[shown] = region.entries.get(shown, 0) + count
        if reason == "key":
            facts.problems.append(f"region {name}: {count} entries lie under the key {ident}, which is not known here")
        elif reason:
            facts.warnings.append(f"region {name}: {count} entries cannot be read ({reason})")


def _print_facts(facts: Facts, *, probe: bool) -> None:
    if facts.keys:
        show_table(["key", "from", "seals as", "signs as"], [list(asdict(each).values()) for each in facts.keys])
    elif not facts.problems:
        say("no key is configured; `cachekit secrets generate` makes some")
    if facts.regions:
        columns = ["region", "protection", "needs", "under", "fail closed", "tenant"]
        columns += ["on the server"] if probe else []
        typer.echo()
        show_table(columns, [_region_row(each, probe=probe) for each in facts.regions])
    if probe:
        say(f"\n{facts.sampled} entries looked at{'' if facts.complete else ', there are more'}")
    for problem in facts.problems:
        say(f"error: {problem}", "red")
    for warning in facts.warnings:
        say(f"warning: {warning}", "yellow")


def _region_row(region: RegionFact, *, probe: bool) -> list[str]:
    row = [
        region.region,
        region.protection,
        region.needs,
        region.key_id or ("" if region.protection == "by decorators" else "no key: not usable"),
    ]
    row += ["yes" if region.fail_closed else "no", "required" if region.require_tenant else ""]
    entries = ", ".join(f"{ident}: {count}" for ident, count in region.entries.items())
    return [*row, entries] if probe else row


# Bringing entries under the present key.


@dataclass
class Report:
    """What a walk did, and what is left."""

    looked_at: int = 0
    rewrapped: int = 0
    older: int = 0  # what would have been, had it not been a dry run
    current: int = 0
    replaced: int = 0  # by somebody else, or gone, meanwhile
    plain: int = 0
    unreadable: dict[str, int] = field(default_factory=dict)  # by reason
    unknown_keys: dict[str, int] = field(default_factory=dict)  # by id
    by_key: dict[str, int] = field(default_factory=dict)  # older ids, and how many entries were found under them
    problems: list[str] = field(default_factory=list)
    complete: bool = True

    def add(self, seen: "Seen") -> None:
        """Count one entry."""
        self.looked_at += 1
        if seen.outcome == "unreadable":
            self.unreadable[seen.reason] = self.unreadable.get(seen.reason, 0) + 1
            if seen.reason == "key":
                self.unknown_keys[seen.key_id.hex()] = self.unknown_keys.get(seen.key_id.hex(), 0) + 1
            return
        setattr(self, seen.outcome, getattr(self, seen.outcome) + 1)
        if seen.outcome in ("older", "rewrapped"):
            self.by_key[seen.key_id.hex()] = self.by_key.get(seen.key_id.hex(), 0) + 1

    @property
    def ok(self) -> bool:
        """Whether everything was looked at, and nothing lies under a key that nobody knows."""
        return self.complete and not self.problems and not self.unknown_keys

    def verdict(self, *, dry_run: bool, regions: list[str]) -> str:
        """Whether the older keys may go."""
        where = f" of {', '.join(regions)}" if regions else ""
        if not self.complete or self.problems:
            return f"not everything was looked at: {AGAIN}, and keep the older keys until then"
        if dry_run and self.older:
            return f"{self.older} entries{where} lie under older keys, which are still needed"
        if self.replaced:
            return f"{self.replaced} entries{where} were replaced meanwhile: {AGAIN} to see what they lie under"
        if self.unknown_keys:
            return "entries under unknown keys are left: add their keys to CACHEKIT_PREVIOUS_KEYS, or let them expire"
        return (
            f"no entry{where} is left under an older key: "
            + ("look at the other regions before you remove one" if regions else
               "once every process has the present one, CACHEKIT_PREVIOUS_KEYS may go")
        )  # fmt: skip


def rotate(
    region: Annotated[
        list[str] | None,
        typer.Argument(metavar="[REGION]...", help="These only; otherwise all.", autocompletion=complete_region),
    ] = None,
    rate: RateOption = RATE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and store nothing.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store what lies under an older key under the present one.

    Values, times, tags and stamps stay as they are. It may be interrupted and
    run again, and the cache used meanwhile.

    Exit status 1: entries under unknown keys are left, or not everything could
    be looked at.

    Examples:
        cachekit secrets rotate --dry-run
        cachekit secrets rotate users --rate 500
    """
    from cachekit.config.spec import NEEDS_MASTER_KEY

    spec = _load(config, as_json).spec
    if spec.keys.master_key is None and spec.keys.signing_key is None:
        fail(NEEDS_MASTER_KEY, as_json=as_json)
    check_regions(region or [], spec)
    report = Report()
    with progress("looking", shown=not as_json) as tell:
        try:
            for backend in spec.backends.values():
                _rotate(spec, backend, region or [], report, rate, tell, write=not dry_run)
        except KeyboardInterrupt:
            report.complete = False
    verdict = report.verdict(dry_run=dry_run, regions=region or [])
    if as_json:
        say_json({"ok": report.ok, "verdict": verdict} | asdict(report))
    else:
        _print_report(report, verdict, dry_run=dry_run)
    raise typer.Exit(0 if report.ok else 1)


def _rotate(
    spec: "ServiceSpec", backend: "BackendSpec", regions: list[str], report: Report, rate: int,
    tell: Callable[[str], object], *, write: bool,
) -> None:  # fmt: skip
    from cachekit.errors import BackendError, ConfigError

    before, wait = report.looked_at, pace(rate)
    try:
        for page in _walk(spec, backend, regions, write=write).pages():
            for seen in page:
                report.add(seen)
            tell(f"{report.looked_at} looked at, {report.rewrapped + report.older} under older keys")
            wait(report.looked_at - before)
    except (BackendError, ConfigError, Refused) as error:
        report.problems.append(f"backend {backend.name}: {error}")


def _walk(spec: "ServiceSpec", backend: "BackendSpec", regions: list[str] | None = None, *, write: bool) -> Any:
    from cachekit.codec.keyring import Keyring
    from cachekit.codec.opening import Opener
    from cachekit.l2.rewrap import NEEDED, Rewrap

    face = _open(backend)
    if missing := NEEDED - face.capabilities:
        raise Refused(f"it does not offer {', '.join(sorted(missing))}, so entries cannot be found there or replaced")
    protected = {name for name, region in spec.regions.items() if region.codec.encrypt or region.codec.sign}
    opener = Opener(Keyring(spec.keys, spec.namespace))
    # A command is in no hurry: the budget of an application's calls is not its own.
    return Rewrap(face, max(1.0, backend.budget), spec.namespace, opener, protected, regions or (), write=write)


def _open(backend: "BackendSpec") -> "BaseBackend":
    from cachekit.backends.registry import open_backend

    face = open_backend(backend).sync
    if face is None:
        raise Refused("it has coroutines only, which this command cannot use")
    return face


# For people.


def _print_report(report: Report, verdict: str, *, dry_run: bool) -> None:
    rows = [["looked at", report.looked_at]]
    rows += [["under older keys", report.older]] if dry_run else [["stored under the present key", report.rewrapped]]
    rows += [["under the present key already", report.current], ["replaced meanwhile", report.replaced]]
    rows += [["neither sealed nor signed", report.plain]]
    rows += [[f"unreadable: {reason}", count] for reason, count in sorted(report.unreadable.items())]
    rows += [[f"under the unknown key {ident}", count] for ident, count in sorted(report.unknown_keys.items())]
    for text, count in rows:
        say(f"{count:>9}  {text}")
    for problem in report.problems:
        say(f"error: {problem}", "red")
    say(verdict, "green" if report.ok else "yellow")


def _load(config: Any, as_json: bool) -> "Loaded":
    from cachekit.config.settings import load_tree
    from cachekit.errors import ConfigError

    try:
        return load_tree(config)
    except ConfigError as error:
        fail(str(error), as_json=as_json)
