"""``cachekit inspect``: what lies in a store under one key, down to the last field of its header."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cachekit.cli.config import ConfigOption, JsonOption
from cachekit.cli.output import printable, say_json
from cachekit.cli.stores import Refused, check_regions, complete_region, face_of, opened, region_of, whole_keys

if TYPE_CHECKING:
    from cachekit.codec.envelope import Header
    from cachekit.config.spec import ServiceSpec
    from cachekit.service import Service

CODECS: Final = {1: "msgpack", 2: "msgpack with types"}
COMPRESSIONS: Final = ("none", "lz4", "zstd")
SECURE: Final = "the entry is encrypted: its value is not shown here; ask the application for it"


def register(app: typer.Typer) -> None:
    """Add ``inspect`` to the application."""
    app.command()(inspect)


def inspect(
    key: Annotated[
        list[str],
        typer.Argument(
            metavar="[REGION] KEY", help="The whole key, or that of a region.", autocompletion=complete_region
        ),
    ],
    value: Annotated[bool, typer.Option("--value", help="Show the value too; never one that is encrypted.")] = False,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="TENANT", help="Whose, with REGION KEY.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the store has under a key.

    KEY is the whole text of a key, as `f.key(...)` gives it, or together with
    REGION what `region.get` takes. Nothing is written.

    Exit status 1: nothing lies there, it cannot be read, or --value must not
    be shown.

    Examples:
        cachekit inspect users 7
        cachekit inspect "shop:v:{users:=7}" --value --json
    """
    if len(key) > 2 or (tenant is not None and len(key) != 2):
        raise typer.BadParameter("write the whole key, or a region and its key; --tenant goes with the latter")
    with opened(config, as_json=as_json) as service:
        region = key[0] if len(key) == 2 else region_of(key[0], service.spec)
        check_regions([region], service.spec)
        found = Found(service, key if len(key) == 1 else whole_keys(service, region, key[1], tenant))
        facts = dict(found.facts())
        if value and "problem" not in facts:
            facts["value"] = found.value()
    if as_json:
        say_json(facts)
    else:
        _print_facts(facts)
    raise typer.Exit(1 if "problem" in facts else 0)


class Found:
    """An entry as it lies in the store, and what can be said of it."""

    def __init__(self, service: "Service", texts: list[str]) -> None:
        from cachekit.codec.opening import Opener, place_of

        self.spec: ServiceSpec = service.spec
        self.keyring = service.keyring()
        self.opener = Opener(self.keyring)
        place = place_of(texts[0])
        assert place is not None
        self.place = place
        self.face, self.budget = face_of(self.place.region, service)
        for text in texts:
            data = self.face.get(text, budget=self.budget)
            if data is not None:
                self.key, self.data = text, data
                return
        raise Refused(f"nothing lies under {texts[0]}")

    def facts(self) -> Iterator[tuple[str, Any]]:
        """Name and value of each, as JSON has them."""
        from cachekit.codec.envelope import FORMAT, Damaged
        from cachekit.l2.operation import NUMBER

        yield "key", self.key
        yield "region", self.place.region
        yield "bytes", len(self.data)
        yield from self._left()
        number = NUMBER.fullmatch(self.data)
        if number is not None:
            yield from {"format": "a number that the server adds to", "value": int(number[1])}.items()
            return
        yield "format", FORMAT
        yield from self._protection()
        try:
            self._check_protection()
            header, payload, _ = self.opener.open(self.key, self.data)
        except Damaged as damage:
            yield "problem", f"the bytes are not an entry that can be read here: {damage.reason}"
            return
        self.header, self.payload = header, payload
        yield "stored_value_bytes", len(payload)
        yield "codec", CODECS.get(header.codec, str(header.codec))
        yield "compression", dict(enumerate(COMPRESSIONS)).get(header.compression, str(header.compression))
        yield from self._times(header)
        yield "load_ms", header.load_ms
        yield "negative", header.negative
        yield "stamps", self._stamps(header)
        yield "etag", header.etag
        yield "last_modified", header.last_modified
        yield "id", header.id.hex()
        yield "fingerprint", None if header.fingerprint is None else header.fingerprint.hex()

    def _left(self) -> Iterator[tuple[str, Any]]:
        if "remaining" in self.face.capabilities:
            left = self.face.remaining(self.key, budget=self.budget)
            yield "left_on_server_seconds", None if left is None else left / 1000

    def _protection(self) -> Iterator[tuple[str, Any]]:
        from cachekit.codec.envelope import SEALED, closed_by
        from cachekit.codec.opening import USES

        use, key_id = closed_by(self.data) or (0, b"")
        if not use:
            yield "protection", "none"
            return
        yield "protection", "encrypted" if use == SEALED else "signed"
        yield "key_id", key_id.hex()
        yield "closed_by", self.keyring.known(USES[use]).get(key_id, "a key that is not known here")

    def _check_protection(self) -> None:
        """What is not closed where it should be is no entry: anybody could have written it."""
        from cachekit.codec.envelope import SEALED, SIGNED, Damaged, closed_by

        codec = self.spec.regions[self.place.region].codec
        wanted = SEALED if codec.encrypt else SIGNED if codec.sign else None
        closed = closed_by(self.data)
        if wanted is not None and closed is not None and closed[0] != wanted:
            raise Damaged("unsealed")

    def _times(self, header: "Header") -> Iterator[tuple[str, Any]]:
        from time import time

        now = time() * 1000
        state = "stale" if header.stale or header.soft <= now else "fresh"
        yield "state", "ended" if header.hard <= now else state
        yield "marked_as_stale", header.stale
        for name, at in (("created", header.created), ("fresh_until", header.soft), ("kept_until", header.hard)):
            yield name, _moment(at, now)

    def _stamps(self, header: "Header") -> dict[str, str]:
        """Those that the entry was computed under, and whether they still hold."""
        from cachekit.engine import keys
        from cachekit.l2.stamps import NO_STAMP

        namespace, region = self.place.namespace, self.place.region
        fn_id = self._function(header)
        names = {"region": (keys.region_stamp(namespace, region), header.region_stamp)}
        if fn_id:
            names[f"function {fn_id}"] = (keys.function_stamp(namespace, region, fn_id), header.function_stamp)
        for digest, stamp in header.tags:
            names[f"tag {digest.hex()}"] = (keys.tag_stamp(namespace, digest), stamp)
        names = {name: pair for name, pair in names.items() if pair[1] != NO_STAMP}
        if "get_many" not in self.face.capabilities or not names:
            return dict.fromkeys(names, "not known")
        current = self.face.get_many([name for name, _ in names.values()], budget=self.budget)
        return {
            name: "holds" if now == then else "cleared, or lost by the server"
            for (name, (_, then)), now in zip(names.items(), current, strict=True)
        }

    def _function(self, header: "Header") -> str:
        from cachekit.l2.stamps import NO_STAMP

        if header.function_stamp == NO_STAMP:
            return ""
        fn_id, _, _ = self.place.ident.rpartition(":")
        tenants = [digest for digest in self.place.tenants if digest and fn_id.endswith(f":{digest}")]
        return fn_id.removesuffix(f":{tenants[0]}") if tenants else fn_id

    def value(self) -> str:
        """As text. Raises `Refused`."""
        from cachekit.codec.codec import Codec
        from cachekit.codec.envelope import SEALED, Damaged, closed_by

        region = self.spec.regions[self.place.region]
        closed = closed_by(self.data)
        if region.codec.encrypt or (closed is not None and closed[0] == SEALED):
            raise Refused(SECURE)
        if closed is None:
            return self.data.partition(b"@")[0].decode()  # a number
        from rich.pretty import pretty_repr

        try:
            return pretty_repr(Codec(region.codec).decode(self.header, self.payload), max_width=100)
        except Damaged as damage:
            raise Refused(f"the value cannot be read here: {damage.reason}") from None


def _moment(at: int, now: float) -> dict[str, Any] | None:
    """A time and how far off it is, below 0 if it has passed; None: never."""
    from cachekit.codec.envelope import NEVER

    if at >= NEVER:
        return None
    moment = {"at": f"{at} ms", "seconds": round((at - now) / 1000, 3)}
    with suppress(ValueError, OverflowError, OSError):  # beyond the calendar
        moment["at"] = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
    return moment


def _print_facts(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    for name, value in facts.items():
        style = "red" if name == "problem" else ""
        for number, line in enumerate(_lines(name, value)):
            title = "" if number else name.replace("_", " ")
            console.print(Text.assemble((f"{title:<24} ", "bold"), (printable(line), style)))


def _lines(name: str, value: object) -> list[str]:
    from cachekit.config.units import format_duration

    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if value is None:
        return ["never"] if name.endswith("_until") else []
    if not isinstance(value, dict):
        return str(value).splitlines()
    if "seconds" not in value:
        return [f"{key}: {state}" for key, state in value.items()]
    off = float(round(abs(value["seconds"])))
    return [f"{value['at']} ({format_duration(off)} {'left' if value['seconds'] > 0 else 'ago'})"]
