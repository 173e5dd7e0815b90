"""django-redis: entries of ``CACHES``."""

from typing import Final

import libcst as cst

from cachekit.migrate.module import Module
from cachekit.migrate.options import KEPT

BACKEND: Final = "django_redis.cache.RedisCache"
OURS: Final = '"cachekit.integrations.django.CacheKitCache"'
CLIENT: Final = "django_redis.client.DefaultClient"
# What needs no option here; whatever else is in OPTIONS stays, and is checked when Django starts.
DROPPED: Final = {"CLIENT_CLASS": CLIENT, "IGNORE_EXCEPTIONS": True, "PICKLE_VERSION": None}
NOTE: Final = "values are not pickled, and an empty cache is found: sessions end, unless they are kept elsewhere, too"
OPTION: Final = "OPTIONS[{}] is django-redis's: docs/django.md says what stands for it"
ELSEWHERE: Final = "what is made elsewhere needs TIMEOUT (300, unless set) and OPTIONS with 'extends': 'minimal'"
RAW: Final = "commands on the server itself need a client of their own: redis.Redis.from_url(...)"


def plan(module: Module) -> None:
    """Plan the changes of one module."""
    for table in module.find(cst.Dict):
        entries = _entries(module, table)
        backend = entries.get("BACKEND")
        if backend is not None and module.value(backend.value) == BACKEND:
            _plan_alias(module, table, entries)
    for call, name in module.calls():
        if name == "django_redis.get_redis_connection":
            module.note(call, RAW)


def _entries(module: Module, table: cst.Dict) -> dict[str, cst.DictElement]:
    """Those whose key is a text."""
    found = [each for each in table.elements if isinstance(each, cst.DictElement)]
    return {key: each for each in found if isinstance(key := module.value(each.key), str)}


def _plan_alias(module: Module, table: cst.Dict, entries: dict[str, cst.DictElement]) -> None:
    module.replace(entries["BACKEND"].value, OURS)
    module.note(table, NOTE)
    module.note(table, KEPT)
    if any(isinstance(each, cst.StarredDictElement) for each in table.elements):
        module.note(table, ELSEWHERE)
        return
    options = entries.get("OPTIONS")
    if options is not None and isinstance(options.value, cst.Dict):
        _plan_options(module, options.value)
    elif options is not None:
        module.note(table, ELSEWHERE)
    added = [] if options is not None else [('"OPTIONS"', '{"extends": "minimal"}')]
    if "TIMEOUT" not in entries:
        added.append(('"TIMEOUT"', "300"))  # Django's own; left out, ours is that of the profile
    module.change(table, lambda updated: _with_entries(updated, added))


def _plan_options(module: Module, options: cst.Dict) -> None:
    for name, element in _entries(module, options).items():
        if name in DROPPED and (DROPPED[name] is None or module.value(element.value) == DROPPED[name]):
            module.change(element, lambda _: cst.RemoveFromParent())
        elif name.isupper():
            module.note(options, OPTION.format(repr(name)))
    module.change(options, lambda updated: _with_entries(updated, [('"extends"', '"minimal"')]))


def _with_entries(table: cst.Dict, added: list[tuple[str, str]]) -> cst.Dict:
    """The dict with others behind its last entry, on lines of their own if its entries have such."""
    if not added:
        return table
    made = [cst.DictElement(cst.parse_expression(key), cst.parse_expression(value)) for key, value in added]
    if not table.elements:
        return table.with_changes(elements=made)
    *before, last = table.elements
    between = _between(before[0].comma if before else cst.MaybeSentinel.DEFAULT)
    entries = [each.with_changes(comma=between) for each in (last, *made)]
    entries[-1] = entries[-1].with_changes(comma=last.comma)
    return table.with_changes(elements=[*before, *entries])


def _between(comma: cst.Comma | cst.MaybeSentinel) -> cst.Comma:
    """What parts two entries, without the comments that may stand there."""
    space = comma.whitespace_after if isinstance(comma, cst.Comma) else None
    if not isinstance(space, cst.ParenthesizedWhitespace):
        return cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    return cst.Comma(whitespace_after=space.with_changes(first_line=cst.TrailingWhitespace(), empty_lines=[]))
