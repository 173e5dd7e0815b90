"""[[http.rules]]: what they mean, and that every mistake in one is told with its file and line."""

import json
from pathlib import Path

import pytest

from cachekit import ConfigError
from cachekit.config.settings import load_tree
from cachekit.config.spec import RuleSpec

GOOD = """\
[metrics]
path = "/figures"

[profiles.pages]
ttl = "1m"

[[http.rules]]
path = "/static/**"
profile = "pages"
ttl = "never"
vary = ["Accept-Language", "accept"]
statuses = { 404 = "30s" }
client_ttl = "10s"

[[http.rules]]
path = "/account/**"
name = "account"
cache = false

[[http.rules]]
path = "/me"
per_user = true
[http.rules.statuses]
410 = "1h"
"""


def read(tmp_path: Path, text: str, **variables: str) -> tuple[RuleSpec, ...]:
    file = tmp_path / "cachekit.toml"
    file.write_text(text)
    return load_tree([file], environ=variables).spec.http.rules


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    return [line.replace(str(tmp_path) + "/", "") for line in str(raised.value).splitlines()]


def test_rules_are_read_in_order(tmp_path: Path) -> None:
    first, second, third = read(tmp_path, GOOD)
    assert first == RuleSpec(
        path="/static/**", profile="pages", ttl=None, ttl_set=True, vary=("accept", "accept-language"),
        statuses=((404, 30.0),), client_ttl=10.0,
    )  # fmt: skip
    assert second == RuleSpec(path="/account/**", name="account", cache=False)
    assert third == RuleSpec(path="/me", per_user=True, statuses=((410, 3600.0),))


def test_all_mistakes_are_told_with_their_lines(tmp_path: Path) -> None:
    text = (
        GOOD.replace('profile = "pages"', 'profile = "pgaes"')
        .replace('path = "/account/**"', 'path = "account"')
        .replace("per_user = true", "per_usr = true")
        .replace('"1h"', '"5 parsecs"')
        .replace("404", "999")
    )
    assert sorted(problems(tmp_path, text)) == [
        "cachekit.toml:12: http.rules.0.statuses = <dict>: 999: not a status whose response can be kept; "
        "write { 404 = '30s' }",
        "cachekit.toml:16: http.rules.1.path = 'account': not a path; write '/articles/*', or '/static/**' for all "
        "below",
        "cachekit.toml:22: http.rules.2.per_usr: no such key; did you mean 'per_user'?",
        "cachekit.toml:23: http.rules.2.statuses = <dict>: 410: not a duration; write 30, '30s', '5m', '2h5m', '1d' "
        "or 'never'",
        "cachekit.toml:9: http.rules.0.profile = 'pgaes': no such profile; did you mean 'pages'?",
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('ttl = "1m"', "cachekit.toml:1: http.rules.0: needs 'path'"),
        ('path = "/"\nttl = 0', "cachekit.toml:3: http.rules.0.ttl = 0: 0 is ambiguous"),
        ('path = "/"\nvary = ["a b"]', "cachekit.toml:3: http.rules.0.vary = <list>: not names of request fields"),
        ('path = "/"\nclient_ttl = "never"', "cachekit.toml:3: http.rules.0.client_ttl = 'never': must have an end"),
        ('path = "/"\nstatuses = { 304 = "1m" }', "cachekit.toml:3: http.rules.0.statuses = <dict>: 304: not a status"),
        ('path = "/"\nstatuses = { 404 = "never" }', "cachekit.toml:3: http.rules.0.statuses = <dict>: 404: must have"),
        ('path = "/"\nname = "a/b"', "cachekit.toml:3: http.rules.0.name = 'a/b': "),
    ],
    ids=["path", "ttl", "vary", "client_ttl", "304", "never", "name"],
)
def test_each_value_is_checked(tmp_path: Path, line: str, problem: str) -> None:
    assert problems(tmp_path, f"[[http.rules]]\n{line}\n")[0].startswith(problem)


def test_rules_that_are_no_list_of_tables_are_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, "[http]\nrules = 3\n")[0].startswith("cachekit.toml:2: http.rules = 3: not a list of")


def test_the_rules_of_a_later_layer_replace_those_before(tmp_path: Path) -> None:
    variable = json.dumps([{"path": "/a", "statuses": {"404": "1s"}}])
    assert read(tmp_path, GOOD, CACHEKIT_HTTP__RULES=variable) == (RuleSpec(path="/a", statuses=((404, 1.0),)),)
    later = tmp_path / "later.toml"
    later.write_text('[[http.rules]]\npath = "/b"\nttl = "x"\n')
    first = tmp_path / "cachekit.toml"
    with pytest.raises(ConfigError, match=r"later\.toml:3: http\.rules\.0\.ttl = 'x'"):
        load_tree([first, later], environ={})


def test_a_line_inside_of_a_rule_does_not_mislead_what_comes_after(tmp_path: Path) -> None:
    text = GOOD + '[backends.default]\nurl = "redis://localhost"\nbudgt = "1s"\n'
    assert problems(tmp_path, text) == ["cachekit.toml:27: backends.default.budgt: no such key; did you mean 'budget'?"]
