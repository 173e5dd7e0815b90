"""From files, environment and code to a validated configuration."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachekit.config import fields
from cachekit.config.model import (
    BackendTable,
    BreakerTable,
    HttpTable,
    L1Table,
    MetricsTable,
    ProfileTable,
    RuleTable,
    Settings,
    TLSTable,
    json_schema,
)
from cachekit.config.settings import load, load_tree
from cachekit.config.spec import FreshnessSpec, RegionSpec, ServiceSpec, default_service
from cachekit.config.tree import FILE_ONLY
from cachekit.config.units import DURATION_HINT
from cachekit.errors import ConfigError

ROOT = Path(__file__).parents[2]
Problems = Callable[..., list[str]]
URL = '[backends.default]\nurl = "redis://h"\n'


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project directory, which is also the working directory."""
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(text: str = "", /, environ: dict[str, str] | None = None, **kinds: Any) -> ServiceSpec:
    Path("cachekit.toml").write_text(text)
    return load(environ=environ or {}, **kinds)


def problems(text: str = "", /, environ: dict[str, str] | None = None, **kinds: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, environ, **kinds)
    return str(caught.value).splitlines()


def warnings(text: str = "", /, environ: dict[str, str] | None = None) -> tuple[str, ...]:
    Path("cachekit.toml").write_text(text)
    return load_tree(environ=environ or {}).warnings


class TestOrder:
    def test_nothing_configured_is_the_default_service(self) -> None:
        assert load([], environ={}) == default_service()

    def test_each_layer_wins_over_the_one_below(self) -> None:
        definitions = {"users": {"ttl": "2s"}}
        environ = {"CACHEKIT_PROFILES__USERS__TTL": "4s"}
        code = {"profiles": {"users": {"ttl": "5s"}}}
        file = '[profiles.users]\nttl = "3s"\n'
        assert loaded("[profiles.users]\n").regions["users"].ttl == 300
        assert loaded("", definitions=definitions).regions["users"].ttl == 2
        assert loaded(file, definitions=definitions).regions["users"].ttl == 3
        assert loaded(file, environ, definitions=definitions).regions["users"].ttl == 4
        assert loaded(file, environ, definitions=definitions, settings=code).regions["users"].ttl == 5

    def test_a_profile_of_a_file_merges_over_the_built_in_one(self) -> None:
        dev = loaded('[profiles.dev]\njitter = "1s"\n').regions["dev"]
        assert (dev.ttl, dev.jitter, dev.codec.on_unstorable) == (30, 1, "raise")

    def test_the_environment_applies_before_inheritance(self) -> None:
        regions = loaded(
            '[profiles.own]\nttl = "1s"\n[profiles.other]\n', {"CACHEKIT_PROFILES__DEFAULT__TTL": "9s"}
        ).regions
        assert (regions["own"].ttl, regions["other"].ttl, regions["minimal"].ttl) == (1, 9, 9)

    def test_redis_url_wins_over_the_file_and_configure_over_both(self) -> None:
        environ = {"REDIS_URL": "redis://e"}
        assert loaded(URL, environ).backends["default"].url == "redis://e"
        assert loaded(URL, environ).backends["default"].url_origin == "env REDIS_URL"
        code = {"backends": {"default": {"url": "redis://c"}}}
        assert loaded(URL, environ, settings=code).backends["default"].url == "redis://c"

    def test_several_files_are_merged_base_first(self, project: Path) -> None:
        Path("base.toml").write_text('[profiles.users]\nttl = "1s"\njitter = "2s"\n')
        Path("prod.toml").write_text('[profiles.users]\nttl = "3s"\n')
        for spec in (
            load(environ={"CACHEKIT_CONFIG": "base.toml:prod.toml"}),
            load([Path("base.toml"), Path("prod.toml")], environ={}),
        ):
            assert (spec.regions["users"].ttl, spec.regions["users"].jitter) == (3, 2)
            assert spec.files == ("base.toml", "prod.toml")

    def test_a_missing_file_is_a_problem(self) -> None:
        with pytest.raises(ConfigError, match=r"env CACHEKIT_CONFIG: no.toml: no such file"):
            load(environ={"CACHEKIT_CONFIG": "no.toml"})
        with pytest.raises(ConfigError, match=r"no.toml: cannot be read: No such file"):
            load([Path("no.toml")], environ={})


class TestInheritance:
    def test_a_profile_extends_default_unless_it_says_otherwise(self) -> None:
        regions = loaded(
            "[profiles.default]\nttl = 7\n[profiles.a]\n[profiles.b]\nextends = 'dev'\n[profiles.c]\nextends = 'none'\n"
        ).regions
        assert [regions[name].ttl for name in "abc"] == [7, 30, 300]

    def test_tables_merge_and_lists_replace(self) -> None:
        regions = loaded(
            "[profiles.default]\ntags = ['x']\nl1.max_entries = 5\n[profiles.a]\ntags = ['y']\nl1.ttl = '5s'\n"
        ).regions
        assert (regions["a"].tags, regions["a"].l1.max_entries, regions["a"].l1.ttl) == (("y",), 5, 5)

    @pytest.mark.parametrize(
        ("extends", "problem"),
        [
            ("usrs", "no such profile; did you mean 'users'?"),
            ("a", "extends itself: a -> a"),
        ],
    )
    def test_extends_names_another_profile(self, extends: str, problem: str) -> None:
        (line,) = problems(f"[profiles.a]\nextends = '{extends}'\n[profiles.users]\n")
        assert line == f"cachekit.toml:2: profiles.a.extends = '{extends}': {problem}"

    def test_profiles_that_extend_each_other_are_a_problem(self) -> None:
        (line,) = problems("[profiles.a]\nextends = 'b'\n[profiles.b]\nextends = 'a'\n")
        assert line == "cachekit.toml:4: profiles.b.extends = 'a': extends itself: a -> b -> a"

    def test_a_wrong_value_is_told_once_not_for_every_heir(self) -> None:
        assert problems("[profiles.default]\nttl = 0\n") == [
            "cachekit.toml:2: profiles.default.ttl = 0: 0 is ambiguous; write 'never' for no end, or a duration above 0"
        ]


class TestMessages:
    def test_all_problems_are_told_together(self) -> None:
        found = problems(
            '[profiles.Users]\nl1.max_entires = 5\nextends = "dve"\n[backends.b]\nurl = "http://h"\n',
            {"CACHEKIT_PROFILES__USERS__TTL": "5 parsecs", "CACHEKIT_TYPO": "1"},
        )
        assert sorted(found) == sorted([
            "cachekit.toml:2: profiles.Users.l1.max_entires: no such key; did you mean 'max_entries'?",
            "env CACHEKIT_PROFILES__USERS__TTL: profiles.Users.ttl = '5 parsecs': "
            "not a duration; write 30, '30s', '5m', '2h5m', '1d' or 'never'",
            "cachekit.toml:3: profiles.Users.extends = 'dve': no such profile; did you mean 'dev'?",
            "cachekit.toml:5: backends.b.url = 'http://h': "
            "no such scheme; use one of redis, rediss, valkey, valkeys, unix, memcached, file, memory; "
            "for several servers with +sentinel, +cluster",
            "env CACHEKIT_TYPO: typo: no such key",
        ])  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("namspace = 'x'", "1: namspace: no such key; did you mean 'namespace'?"),
            ("_env_file = 'x'", "1: _env_file: no such key"),
            ("profiles = 5", "1: profiles: not a table"),
            ("backends = 'redis://h'", "1: backends: not a table"),
            ("[profiles]\nusers = 5", "2: profiles.users: not a table"),
            ("[profiles.a]\nl1 = 'off'", "2: profiles.a.l1: not a table"),
            ("[[backends]]", ": backends: not a table"),
            ("[profiles.a]\ntimeout = 5", "2: profiles.a.timeout: no such key; did you mean 'ttl'?"),
            ("[profiles.a]\nmaxsize = 5", "2: profiles.a.maxsize: no such key; did you mean 'l1.max_entries'?"),
            ("[backends.a.breaker]\nwindo = 5", "2: backends.a.breaker.windo: no such key; did you mean 'window'?"),
            ("[metrics]\ntokn = 5", "2: metrics.tokn: no such key"),
            ("namespace = 'a:b'", "1: namespace = 'a:b': not a name"),
            ("enabled = 'perhaps'", "1: enabled = 'perhaps': not a boolean"),
            ("[metrics]\nallow = ['x']", "2: metrics.allow = <list>: not a list of networks"),
            ("[backends.a]\nmax_connections = 0", "2: backends.a.max_connections = 0: not a whole number from 1"),
            ("[backends.a]\nbudget = 'never'", "2: backends.a.budget = 'never': must have an end"),
            ("[backends.a]\nbudget_min = '1s'", "2: backends.a.budget_min: longer than budget (0.25 s)"),
            ("[backends.a.breaker]\nopen_for = '1m'", "2: backends.a.breaker.open_for: longer than open_max (30 s)"),
            ("[backends.a.breaker]\nratio = 1.5", "2: backends.a.breaker.ratio = 1.5: not a ratio"),
            ("[backends.a]\ntype = 'reddis'", "2: backends.a.type = 'reddis': no such backend type; did you mean"),
            ("[backends.a]\nurl_env = ['redis://x']", "2: backends.a.url_env = <list>: not names of environment"),
            ("[backends.a]\ncredential_provider = 'x'", "2: backends.a.credential_provider = 'x': not a dotted path"),
        ],
    )  # fmt: skip
    def test_a_problem_names_line_key_value_and_reason(self, text: str, problem: str) -> None:
        line = problems(text + "\n")[0]
        assert line.startswith(f"cachekit.toml:{problem}" if problem[0] != ":" else "cachekit.toml")
        assert problem in line

    def test_a_name_that_is_spelt_twice_is_a_problem_across_layers(self) -> None:
        assert "the same name as 'default' (built-in)" in problems("[profiles.Default]\n")[0]


class TestValues:
    def test_every_key_can_be_set_in_the_environment(self) -> None:
        values = {
            "backend": "none", "ttl": "2h5m", "jitter": "5%", "negative_ttl": "never", "cache_none": "no",
            "tags": "a, b", "serializer": "json", "compression": "none", "compress_above": "2KiB",
            "counters": "no", "max_value_bytes": "1000", "on_unstorable": "raise", "isolation": "share",
            "lease": "on", "lease_wait": "2s", "stale_ttl": "1h", "stale_on_error": "off",
            "stale_unless": "KeyError, app.Gone", "stale_throttle": "1m", "stale_without_proof": "10s", "swr": "on",
            "early_refresh": "1.5", "soft_timeout": "200ms", "hard_timeout": "30s", "outage": "fallback",
            "encrypt": "on", "sign": "yes", "fail_closed": "1", "require_tenant": "true", "rewrap": "off",
            "l1__mode": "off", "l1__max_entries": "7", "l1__max_bytes": "1MiB", "l1__ttl": "5s", "l1__policy": "lru",
        }  # fmt: skip
        assert {key for key in values if not key.startswith("l1__")} == set(fields.PROFILE) - set(FILE_ONLY)
        assert {key.removeprefix("l1__") for key in values if key.startswith("l1__")} == set(fields.L1)
        environ = {f"CACHEKIT_PROFILES__USERS__{key.upper()}": value for key, value in values.items()}
        environ["CACHEKIT_MASTER_KEY"] = "0123456789abcdef" * 4
        users = loaded("[profiles.users]\n", environ).regions["users"]
        assert (users.ttl, users.jitter, users.jitter_is_share, users.negative_ttl_set) == (7500, 0.05, True, True)
        assert (users.tags, users.counters, users.cache_none) == (("a", "b"), False, False)
        assert (users.l1.mode, users.l1.max_entries, users.l1.max_bytes, users.l1.ttl) == ("off", 7, 2**20, 5)
        assert (users.codec.compression, users.codec.compress_above) == ("none", 2048)
        assert (users.codec.encrypt, users.codec.sign, users.codec.fail_closed, users.codec.rewrap) == (1, 1, 1, 0)
        assert (users.require_tenant, users.counters_set) == (True, True)
        assert users.freshness == FreshnessSpec(
            stale_ttl=3600, stale_on_error=False, stale_unless=("builtins.KeyError", "app.Gone"), stale_throttle=60,
            stale_without_proof=10, swr=True, early_refresh=1.5, soft_timeout=0.2, hard_timeout=30, outage="fallback",
        )  # fmt: skip

    def test_every_key_of_a_backend_reaches_the_spec(self) -> None:
        spec = loaded(
            "[backends.b]\nurl = 'rediss://h'\nusername = 'u'\nmax_connections = 7\nbudget = '100ms'\n"
            "budget_min = '5ms'\nadaptive = false\ncoherence = 'ttl'\nmax_staleness = '1s'\ndisconnected_ttl = 0\n"
            "heartbeat = '200ms'\nreplay_window = '2m'\npending_invalidations = 5\noptions = { x = { y = 1 } }\n"
            "credential_provider = 'a.b:c'\ntls = { ca = 'ca', cert = 'c', key = 'k', check_hostname = false }\n"
            "breaker = { failures = 1, ratio = 1, window = '1s', open_for = '1s', open_max = '2s' }\n",
            {"CACHEKIT_BACKENDS__B__PASSWORD": "p"},
        ).backends["b"]
        assert (spec.username, spec.password, spec.max_connections, spec.budget) == ("u", "p", 7, 0.1)
        assert (spec.budget_min, spec.adaptive, spec.coherence, spec.max_staleness) == (0.005, False, "ttl", 1)
        assert (spec.disconnected_ttl, spec.heartbeat, spec.replay_window) == (0, 0.2, 120)
        assert (spec.pending_invalidations, spec.options, spec.credential_provider) == (5, {"x": {"y": 1}}, "a.b:c")
        assert (spec.tls.ca, spec.tls.cert, spec.tls.key, spec.tls.check_hostname) == ("ca", "c", "k", False)
        assert (spec.breaker.failures, spec.breaker.ratio, spec.breaker.open_max) == (1, 1, 2)
        assert spec.url_origin == "cachekit.toml:2"

    def test_the_service_and_metrics_reach_the_spec(self) -> None:
        spec = loaded(
            "namespace = 'shop'\nenabled = false\nstrict = true\n[metrics]\nenabled = false\npath = '/m'\n",
            {"CACHEKIT_METRICS__ALLOW": "10.0.0.0/8,::1", "CACHEKIT_METRICS__TOKEN": "t"},
        )
        assert (spec.namespace, spec.namespace_given, spec.enabled, spec.strict) == ("shop", True, False, True)
        assert (spec.metrics.enabled, spec.metrics.path, spec.metrics.token) == (False, "/m", "t")
        assert spec.metrics.allow == ("10.0.0.0/8", "::1")

    def test_a_region_knows_the_table_that_declared_it(self) -> None:
        regions = loaded("\n[profiles.users]\n", definitions={"lib": {"ttl": 5}}).regions
        assert regions["users"].origin == "cachekit.toml:2"
        assert regions["lib"].origin == "define('lib')"
        assert regions["dev"].origin == "built-in"


NOT_ONE = "not an exception; write 'package.module.NotFound', or 'KeyError' for a built-in one"
NO_TABLE = "not a table; write { 'package.module.NotFound' = '30s' }"
NO_STALE_TTL = "needs stale_ttl, the time for which a value may be given past its TTL"


class TestFreshness:
    def test_remembered_exceptions_are_a_table_whose_names_keep_their_case(self) -> None:
        text = (
            "[profiles.default.negative_exceptions]\n'app.errors.NotFound' = '30s'\nKeyError = 5\n"
            "[profiles.users.negative_exceptions]\napp.errors.NotFound = '1m'\napp.Errors.notfound = '2s'\n"
            "[profiles.others]\n"
        )
        regions = loaded(text).regions
        assert dict(regions["others"].freshness.negative_exceptions) == {
            "app.errors.NotFound": 30.0, "builtins.KeyError": 5.0,
        }  # fmt: skip
        assert dict(regions["users"].freshness.negative_exceptions) == {
            "app.errors.NotFound": 60.0, "builtins.KeyError": 5.0, "app.Errors.notfound": 2.0,
        }  # fmt: skip

    def test_remembered_exceptions_merge_across_layers(self) -> None:
        Path("base.toml").write_text("[profiles.users.negative_exceptions]\n'a.B' = 1\n'a.C' = 1\n")
        Path("prod.toml").write_text("[profiles.users.negative_exceptions]\n'a.C' = 2\n")
        spec = load(
            [Path("base.toml"), Path("prod.toml")],
            environ={},
            definitions={"users": {"negative_exceptions": {"a.D": 3}}},
            settings={"profiles": {"users": {"negative_exceptions": {KeyError: 4}}}},
        )
        assert dict(spec.regions["users"].freshness.negative_exceptions) == {
            "a.D": 3.0, "a.B": 1.0, "a.C": 2.0, "builtins.KeyError": 4.0,
        }  # fmt: skip

    def test_a_remembered_exception_has_no_variable(self) -> None:
        variable = "CACHEKIT_PROFILES__USERS__NEGATIVE_EXCEPTIONS"
        for name in (variable, f"{variable}__KEYERROR"):
            assert problems("[profiles.users]\n", {name: "5"}) == [
                f"env {name}: negative_exceptions has no variable; set it in the file"
            ]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("stale_ttl = 'never'", "stale_ttl = 'never': must have an end; write a duration such as '250ms' or '30s'"),
            ("early_refresh = -1", "early_refresh = -1: must be 'auto', 'off' or a number above 0"),
            ("soft_timeout = 'soon'", f"soft_timeout = 'soon': not a duration; {DURATION_HINT}"),
            ("outage = 'stale'", "outage = 'stale': must be one of 'call', 'fallback'"),
            ("stale_unless = ['NotFound']", f"stale_unless = <list>: {NOT_ONE}"),
            ("negative_exceptions = ['a.B']", f"negative_exceptions = <list>: {NO_TABLE}"),
            ("negative_exceptions = { 'a.B' = '5 parsecs' }",
             f"negative_exceptions = <dict>: a.B: not a duration; {DURATION_HINT}"),
            ("negative_exceptions = { NotFound = 5 }", f"negative_exceptions = <dict>: {NOT_ONE}"),
            ("soft_timeout = '2s'\nhard_timeout = '1s'", "soft_timeout: longer than hard_timeout (1 s)"),
            ("swr = true", f"swr: {NO_STALE_TTL}"),
            ("stale_on_error = true", f"stale_on_error: {NO_STALE_TTL}"),
        ],
    )  # fmt: skip
    def test_a_problem_names_place_and_reason(self, text: str, problem: str) -> None:
        assert problems(f"[profiles.users]\n{text}\n[profiles.heir]\nextends = 'users'\n") == [
            f"cachekit.toml:2: profiles.users.{problem}"
        ]

    def test_what_an_heir_breaks_is_told_of_the_heir(self) -> None:
        text = "[profiles.default]\nswr = true\nstale_ttl = '1h'\nsoft_timeout = '5s'\n[profiles.a]\n"
        assert loaded(text).regions["a"].freshness.swr
        assert problems(text + "stale_ttl = 0\nhard_timeout = '2s'\n") == [
            "cachekit.toml:4: profiles.a.soft_timeout: longer than hard_timeout (2 s)",
            f"cachekit.toml:2: profiles.a.swr: {NO_STALE_TTL}",
        ]

    def test_a_variable_is_judged_with_the_rest(self) -> None:
        environ = {"CACHEKIT_PROFILES__USERS__SWR": "yes"}
        (line,) = problems("[profiles.users]\n", environ)
        assert line.startswith("env CACHEKIT_PROFILES__USERS__SWR: profiles.users.swr: needs stale_ttl")
        assert loaded("[profiles.users]\nstale_ttl = 5\n", environ).regions["users"].freshness.swr


class TestBuiltIn:
    def test_minimal_costs_least(self) -> None:
        minimal = loaded("").regions["minimal"]
        assert (minimal.jitter, minimal.lease, minimal.freshness) == (0, "off", FreshnessSpec(early_refresh="off"))

    def test_production_gives_stale_values_and_waits_half_a_minute(self) -> None:
        assert loaded("").regions["production"] == RegionSpec(
            name="production", backend="none", origin="built-in", needs_namespace=True,
            freshness=FreshnessSpec(stale_ttl=3600, swr=True, hard_timeout=30),
        )  # fmt: skip

    def test_test_computes_nothing_behind_anybodys_back(self) -> None:
        test = loaded("").regions["test"]
        assert test.backend == "none"
        assert test.freshness == FreshnessSpec(early_refresh="off")

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("[profiles.production]\nttl = '1h'\n", "cachekit.toml:3: profiles.production"),
            ("[profiles.users]\nextends = 'production'\n", "cachekit.toml:3: profiles.users"),
        ],
    )
    def test_production_with_a_server_needs_a_namespace(self, text: str, place: str) -> None:
        (line,) = problems(URL + text)
        assert line == (
            f"{place}: what is made for production needs a namespace of its own; set namespace, or CACHEKIT_NAMESPACE"
        )
        assert loaded("namespace = 'shop'\n" + URL + text).regions["production"].backend == "default"
        assert loaded(URL + text, {"CACHEKIT_NAMESPACE": "cachekit"}).namespace_given
        assert not loaded(text).namespace_given  # without a server nobody shares anything
        assert loaded(URL + text + "backend = 'none'\n").regions["production"]

    def test_production_that_nobody_uses_needs_nothing(self) -> None:
        assert not loaded(URL).namespace_given


class TestBackends:
    def test_without_any_url_every_region_is_in_the_process_alone(self) -> None:
        spec = loaded("[backends.default]\nmax_connections = 5\n")
        assert spec.backends == {}
        assert {region.backend for region in spec.regions.values()} == {"none"}

    def test_with_a_url_the_default_region_uses_it(self) -> None:
        spec = loaded(URL)
        assert spec.regions["default"].backend == "default"
        assert spec.regions["local"].backend == "none"

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("[backends.b]\n", "this backend has no URL; set backends.b.url"),
            ("[backends.bb]\nurl = 'redis://h'\n", "no such backend; did you mean 'bb'?"),
            ("", "no such backend"),
        ],
    )
    def test_a_profile_must_name_a_backend_that_works(self, text: str, problem: str) -> None:
        (line,) = problems(f"[profiles.a]\nbackend = 'b'\n{text}")
        assert line == f"cachekit.toml:2: profiles.a.backend = 'b': {problem}"

    def test_an_inherited_backend_is_told_where_it_was_named(self) -> None:
        lines = problems("[profiles.a]\nbackend = 'zz'\n[profiles.b]\nextends = 'a'\n")
        assert {line.partition(": ")[0] for line in lines} == {"cachekit.toml:2"}

    def test_a_wrong_url_is_one_problem_not_also_a_missing_one(self) -> None:
        assert len(problems("[backends.b]\nurl = 5\n[profiles.a]\nbackend = 'b'\n")) == 1

    def test_a_backend_of_an_installed_type_needs_no_url(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = project / "site" / "mystore-1.0.dist-info"
        package.mkdir(parents=True)
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mystore\nVersion: 1.0\n")
        (package / "entry_points.txt").write_text("[cachekit.backends]\nmystore = mystore:open_store\n")
        monkeypatch.syspath_prepend(str(project / "site"))
        spec = loaded("[backends.b]\ntype = 'mystore'\nurl = 'any://thing'\n[backends.c]\ntype = 'mystore'\n")
        assert [backend.url for backend in spec.backends.values()] == ["any://thing", ""]


class TestWarnings:
    def quiet(self) -> str:
        return "namespace = 'shop'\n[metrics]\nallow = ['::1']\n"

    def test_a_careful_configuration_has_none(self) -> None:
        assert warnings(self.quiet() + URL) == ()

    @pytest.mark.parametrize(
        ("text", "warning"),
        [
            ("[metrics]\nallow = ['::1']\n" + URL, "namespace: not set"),
            ("namespace = 'shop'\n", "metrics: /metrics is open to everybody"),
            ("{}[backends.default]\nurl = 'redis://:p@h'\n", "cachekit.toml:5: backends.default.url: holds a password"),
            ("{}[backends.b]\nbudget = '1s'\n", "cachekit.toml:4: backends.b: has no URL and is not used"),
            ("{}" + URL + "tls.ca = 'x'\n", "cachekit.toml:6: backends.default.tls: not used"),
        ],
    )
    def test_what_may_surprise_is_a_warning(self, text: str, warning: str) -> None:
        (found,) = warnings(text.replace("{}", self.quiet()))
        assert found.startswith(warning)

    def test_a_password_in_a_url_of_the_environment_is_no_warning(self) -> None:
        assert warnings(self.quiet(), {"REDIS_URL": "redis://:p@h"}) == ()

    def test_a_file_that_is_passed_over_is_a_warning_and_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        Path("cachekit.toml").write_text("")
        Path("cachekit.toml").chmod(0o666)
        assert "everybody may write to it" in load_tree(environ={}).warnings[0]
        load(environ={})
        assert "everybody may write to it" in caplog.text


def test_loading_logs_the_file_and_where_the_url_came_from(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cachekit")
    loaded(URL, {"REDIS_URL": "redis://:5ENT1NEL@e"})
    assert "cachekit.toml" in caplog.text
    assert "redis://***@e from env REDIS_URL" in caplog.text


def test_origins_are_known_through_inheritance() -> None:
    Path("cachekit.toml").write_text("[profiles.default]\nttl = 5\n[profiles.a]\n[profiles.b]\nextends = 'a'\n")
    known = load_tree(environ={"CACHEKIT_PROFILES__A__TAGS": "x"})
    assert known.origin(("profiles", "b", "ttl")) == "cachekit.toml:2"
    assert known.origin(("profiles", "b", "tags")) == "env CACHEKIT_PROFILES__A__TAGS"
    assert known.origin(("profiles", "b", "jitter")) == "default"
    assert known.origin(("profiles", "minimal", "jitter")) == "built-in"


def test_the_example_loads_without_problems_or_warnings() -> None:
    keys = {"CACHEKIT_MASTER_KEY": "0123456789abcdef" * 4, "CACHEKIT_NAME_KEY": "fedcba9876543210" * 4}
    known = load_tree([ROOT / "cachekit.toml.example"], environ=keys)
    assert known.warnings == ()
    assert known.spec.regions["rates"].l1.max_entries == 50_000


def test_every_key_of_the_model_has_a_parser_and_the_reverse() -> None:
    tables = {
        BackendTable: (fields.BACKEND, {"tls", "breaker"}), BreakerTable: (fields.BREAKER, set()),
        TLSTable: (fields.TLS, set()), MetricsTable: (fields.METRICS, set()), L1Table: (fields.L1, set()),
        ProfileTable: (fields.PROFILE, {"extends", "l1"}),
        HttpTable: (fields.HTTP, set()), RuleTable: (fields.RULE, set()),
        Settings: (fields.SERVICE, {"metrics", "http", "backends", "profiles"}),
    }  # fmt: skip
    for table, (parsers, others) in tables.items():
        assert set(table.model_fields) == set(parsers) | others, table


def test_the_schema_knows_every_key_and_no_secret() -> None:
    schema = json_schema()
    assert set(schema["$defs"]["ProfileTable"]["properties"]) == {*fields.PROFILE, "extends", "l1"}
    assert "password" not in schema["$defs"]["BackendTable"]["properties"]
    assert "master_key" not in schema["properties"]
    profile = schema["$defs"]["ProfileTable"]["properties"]
    assert profile["jitter"]["default"] == "10%"


def test_the_schema_says_what_the_keys_of_freshness_take() -> None:
    profile = json_schema()["$defs"]["ProfileTable"]["properties"]
    assert profile["negative_exceptions"]["type"] == "object"
    assert profile["negative_exceptions"]["default"] == {}
    assert profile["stale_unless"]["type"] == "array"
    assert {each.get("type") for each in profile["early_refresh"]["anyOf"]} == {"string", "number"}
    assert profile["early_refresh"]["default"] == "auto"
    assert profile["outage"]["enum"] == ["call", "fallback"]
    assert "auto" in str(profile["soft_timeout"])
    assert profile["stale_on_error"]["type"] == "boolean"  # TOML has no null


def test_no_variable_reaches_the_model_past_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMESPACE", "stray")
    monkeypatch.setenv("CACHEKIT_NAMESPACE", "stray")
    assert load([], environ={}).namespace == "cachekit"
