"""Fields that are lists: Cache-Control, Vary, entity tags (RFC 9110 section 5.6, RFC 9111 section 5.2)."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

Directives: TypeAlias = Mapping[str, tuple[str | None, ...]]  # every value that was given, None for a bare name

NONE: Final[Directives] = {}
LONGEST: Final = 2**31  # RFC 9111 section 1.2.2: seconds beyond it count as this many
FORBIDDING: Final = frozenset({"no-cache", "no-store", "private"})
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_TOKENS: Final = re.compile(_TOKEN)
_DIRECTIVE: Final = re.compile(rf"({_TOKEN})(?:[ \t]*=[ \t]*({_TOKEN}|{_QUOTED})?)?")
_ITEM: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.?)*(?P<end>"|\Z))+', re.DOTALL)  # in one pass, whatever is sent


def directives(values: Iterable[str]) -> Directives:
    """The directives of all Cache-Control lines, names in lower case.

    What begins with a name is that directive, whatever follows (an argument that cannot be read is an empty one), and
    what follows may still forbid: who writes ``public; no-store`` means no-store.
    """
    found: dict[str, tuple[str | None, ...]] = {}
    for value in values:
        for item in items(value):
            for name, argument in _directives_of(item):
                found[name] = (*found.get(name, ()), argument)
    return found or NONE


def _directives_of(item: str) -> Iterator[tuple[str, str | None]]:
    match = _DIRECTIVE.match(item)
    rest = item if match is None else item[match.end() :]
    if match is not None:
        argument = "" if rest else match[2]
        if argument is not None and argument.startswith('"'):
            argument = re.sub(r"\\(.)", r"\1", argument[1:-1])
        yield match[1].lower(), argument
    for token in _TOKENS.findall(rest):
        if token.lower() in FORBIDDING:
            yield token.lower(), ""


def items(value: str) -> Iterator[str]:
    """The members of a list, without those that are empty; a comma inside of quotes parts nothing.

    Where a quote does not end, all commas part: nobody hides a no-store behind it.
    """
    found = list(_ITEM.finditer(value)) if '"' in value else []
    whole = found and all(match["end"] != "" for match in found)
    for item in [match[0] for match in found] if whole else value.split(","):
        if item := item.strip(" \t"):
            yield item


def seconds(found: Directives, name: str) -> int | None:
    """The seconds of a directive; None if it is not there.

    Of several the least counts, and what is no number counts as 0: rather stale than wrong (RFC 9111 section 4.2.1).
    """
    values = found.get(name)
    return None if values is None else min(map(_seconds, values))


def _seconds(value: str | None) -> int:
    said = None if value is None else number(value)
    return 0 if said is None else said


def number(text: str) -> int | None:
    """Seconds as fields write them: digits and nothing else; None for anything else."""
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0") or "0"
    return min(int(digits), LONGEST) if len(digits) <= 10 else LONGEST  # int() refuses thousands of them


def names(values: Iterable[str]) -> tuple[str, ...]:
    """The names in a list such as Vary or of a directive, in lower case, each once, sorted."""
    return tuple(sorted({item.lower() for value in values for item in items(value)}))
