"""Rules for the responses of a whole application: which one a path falls under, and the pages of each."""

import re
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from cachekit.config.spec import HttpSpec, RuleSpec
from cachekit.errors import ConfigError
from cachekit.http.control import LONGEST
from cachekit.http.policy import Rules

P = TypeVar("P")

MODULE: Final = "http"  # in metrics rules are called http.NAME


class Rule(NamedTuple, Generic[P]):
    """What becomes of responses."""

    pages: P
    per_user: bool


class Rulebook(Generic[P]):
    """The rules of the configuration, and of the middleware itself for what none of them matches.

    ``make`` makes the pages of a rule, of its name, its rules and its profile. ``own`` is the middleware's own rule.
    """

    def __init__(
        self, make: Callable[[str, Rules, str], P], profile: str, rules: Rules, *, may_know_users: bool
    ) -> None:
        self._make = make
        self._profile = profile
        self._may_know_users = may_know_users
        self._proxy = rules.proxy
        self.own = Rule(make("default", rules, profile), True)
        self._read: HttpSpec | None = None  # what the patterns below are made of
        self._patterns: list[tuple[re.Pattern[str], Rule[P] | None]] = []

    def rule(self, spec: HttpSpec, path: str) -> Rule[P] | None:
        """The first rule that matches a path; None if it says that nothing is kept."""
        if spec is not self._read:  # another configuration, or the first request
            self._patterns = [(pattern(each.path), self._rule(each)) for each in spec.rules]
            self._read = spec
        for wanted, rule in self._patterns:
            if wanted.fullmatch(path):
                return rule
        return self.own

    def _rule(self, spec: RuleSpec) -> Rule[P] | None:
        if not spec.cache:
            return None
        if spec.per_user and not self._may_know_users:
            raise ConfigError(
                f"http.rules: {spec.path}: per_user = true needs CacheMiddleware(per_user=...), which says who it is"
            )
        ttl = (float(LONGEST) if spec.ttl is None else spec.ttl) if spec.ttl_set else None
        rules = Rules(
            ttl, tuple(sorted(spec.vary)), dict(spec.statuses), client_ttl=spec.client_ttl, per_user=spec.per_user,
            proxy=self._proxy,
        )  # fmt: skip
        return Rule(self._make(spec.name or spec.path, rules, spec.profile or self._profile), spec.per_user)


def pattern(path: str) -> re.Pattern[str]:
    """The paths that a rule means: ``*`` is any part of one segment, ``**`` is anything."""
    parts = re.split(r"(\*\*|\*)", path)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts), re.DOTALL)
