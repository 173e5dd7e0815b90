"""Where values come from: files, environment, code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cachekit.config.tree import Tree, build, find_files, needs_loading, read_file, scan_lines, variable_of


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project directory, which is also the working directory."""
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class TestSearch:
    def test_the_nearest_file_upward_is_found(self, project: Path) -> None:
        write(project / "cachekit.toml")
        nearer = write(project / "a" / "cachekit.toml")
        (project / "a" / "b").mkdir()
        assert find_files({}, project / "a" / "b").files == (nearer,)

    @pytest.mark.parametrize("mark", ["pyproject.toml", ".git", "manage.py"])
    def test_the_search_ends_at_the_project(self, tmp_path: Path, mark: str) -> None:
        write(tmp_path / "cachekit.toml")
        write(tmp_path / "project" / mark)
        (tmp_path / "project" / "src").mkdir()
        assert find_files({}, tmp_path / "project" / "src").files == ()
        inside = write(tmp_path / "project" / "cachekit.toml")
        assert find_files({}, tmp_path / "project" / "src").files == (inside,)

    def test_the_search_ends_at_home(self, tmp_path: Path) -> None:
        write(tmp_path / "cachekit.toml")
        home = tmp_path / "home"
        (home / "work").mkdir(parents=True)
        assert find_files({"HOME": str(home)}, home / "work").files == ()
        assert find_files({"HOME": "/nowhere"}, home / "work").files == (tmp_path / "cachekit.toml",)

    def test_a_file_in_a_directory_that_everybody_may_write_to_is_passed_over(self, project: Path) -> None:
        shared = project / "shared"
        write(shared / "cachekit.toml")
        above = write(project / "cachekit.toml")
        shared.chmod(0o1777)
        found = find_files({}, shared)
        assert found.files == (above,)
        assert "everybody may write to its directory; name it in CACHEKIT_CONFIG" in found.ignored[0]

    def test_a_file_that_everybody_may_write_to_is_passed_over(self, project: Path) -> None:
        write(project / "cachekit.toml").chmod(0o666)
        assert "everybody may write to it" in find_files({}, project).ignored[0]

    @pytest.mark.parametrize(("owner", "trusted"), [(0, True), (4711, False)])
    def test_a_file_of_another_owner_is_passed_over_except_of_root(
        self, project: Path, owner: int, trusted: bool
    ) -> None:
        file = write(project / "cachekit.toml")
        if os.getuid() == 0:
            os.chown(file, owner, 0)
        else:  # only root can give files away; then the process's own files stand for both
            trusted = True
        found = find_files({}, project)
        assert bool(found.files) is trusted
        assert any("belongs to another user" in line for line in found.ignored) is not trusted

    def test_cachekit_config_names_files_that_need_no_trust(self, project: Path) -> None:
        base, top = write(project / "base.toml"), write(project / "top.toml")
        base.chmod(0o666)
        write(project / "cachekit.toml")
        assert find_files({"CACHEKIT_CONFIG": f"base.toml{os.pathsep}top.toml"}).files == (
            base.relative_to(project),
            top.relative_to(project),
        )

    def test_a_file_that_cachekit_config_names_must_exist(self) -> None:
        assert find_files({"CACHEKIT_CONFIG": "/no/such.toml"}).missing == (
            "env CACHEKIT_CONFIG: /no/such.toml: no such file",
        )

    def test_a_deleted_working_directory_is_no_error(self, tmp_path: Path) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        code = (
            "import os, sys; os.rmdir(os.getcwd());"
            "from cachekit.config.tree import find_files; sys.exit(bool(find_files({}).files))"
        )
        assert subprocess.run([sys.executable, "-c", code], cwd=gone, check=False).returncode == 0


class TestNeedsLoading:
    @pytest.mark.parametrize(
        "environ",
        [
            {},
            {"CACHEKIT_TTL": ""},
            {"REDIS_URL": ""},
            {"CACHEKIT_PURE": "1", "CACHEKIT_NATIVE": "1"},
            {"CACHEKIT_SERVICE_HOST": "10.0.0.1", "CACHEKIT_PORT": "tcp://10.0.0.1:6379"},
        ],
    )
    def test_nothing_to_load(self, project: Path, environ: dict[str, str]) -> None:
        assert not needs_loading(environ, project)

    @pytest.mark.parametrize("name", ["REDIS_URL", "CACHEKIT_REDIS_URL", "CACHEKIT_CONFIG", "CACHEKIT_ANYTHING"])
    def test_a_variable_needs_loading(self, project: Path, name: str) -> None:
        assert needs_loading({name: "x"}, project)

    def test_a_file_needs_loading_even_if_it_is_only_to_be_warned_about(self, project: Path) -> None:
        write(project / "cachekit.toml").chmod(0o666)
        assert needs_loading({}, project)

    def test_asking_imports_no_pydantic(self) -> None:
        code = "import sys, cachekit.config.tree as t; t.needs_loading(); sys.exit('pydantic' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def problems(environ: dict[str, str], **tables: object) -> list[str]:
    return build([], {}, environ, tables).problems


class TestEnvironment:
    def test_a_variable_finds_a_name_whatever_its_case_and_separators(self) -> None:
        environ = {"CACHEKIT_PROFILES__USER_TOKENS__L1__MAX_ENTRIES": "5"}
        tree = build([], {"User-tokens": {}}, environ, {})
        assert tree.get("profiles", "User-tokens", "l1", "max_entries") == "5"
        assert tree.origin(("profiles", "User-tokens", "l1", "max_entries")) == f"env {next(iter(environ))}"

    def test_a_name_that_ends_with_an_underscore_is_found(self) -> None:
        tree = build([], {"a_": {}}, {"CACHEKIT_PROFILES__A___TTL": "5"}, {})
        assert tree.get("profiles", "a_", "ttl") == "5"

    def test_a_name_that_is_declared_nowhere_is_a_problem_with_the_nearest_one(self) -> None:
        assert problems({"CACHEKIT_PROFILES__MINIML__TTL": "5"}) == [
            "env CACHEKIT_PROFILES__MINIML__TTL: profiles.miniml: no such profile; did you mean 'minimal'?"
        ]
        assert problems({"CACHEKIT_BACKENDS__QQQ__BUDGET": "5"}) == [
            "env CACHEKIT_BACKENDS__QQQ__BUDGET: backends.qqq: no such backend; "
            "set CACHEKIT_BACKENDS__QQQ__URL=... to declare it"
        ]

    def test_extends_declares_a_profile_and_url_a_backend(self) -> None:
        tree = build(
            [],
            {},
            {
                "CACHEKIT_PROFILES__A_B__TTL": "5",
                "CACHEKIT_PROFILES__A_B__EXTENDS": "default",
                "CACHEKIT_BACKENDS__X__BUDGET": "1s",
                "CACHEKIT_BACKENDS__X__URL": "redis://x",
            },
            {},
        )
        assert tree.problems == []
        assert tree.get("profiles", "a_b") == {"extends": "default", "ttl": "5"}
        assert tree.get("backends", "x") == {"url": "redis://x", "budget": "1s"}

    def test_a_variable_without_a_key_is_a_problem(self) -> None:
        assert problems({"CACHEKIT_PROFILES__DEFAULT": "5"}) == [
            "env CACHEKIT_PROFILES__DEFAULT: names no key; write CACHEKIT_PROFILES__NAME__TTL"
        ]

    @pytest.mark.parametrize(
        "name",
        [
            "CACHEKIT_SERVICE_HOST", "CACHEKIT_SERVICE_PORT", "CACHEKIT_SERVICE_PORT_HTTP", "CACHEKIT_PORT",
            "CACHEKIT_PORT_6379_TCP", "CACHEKIT_PORT_6379_TCP_ADDR", "CACHEKIT_PORT_53_UDP_PROTO",
            "CACHEKIT_API_SERVICE_HOST", "CACHEKIT_API_PORT_80_TCP_PORT",
        ],
    )  # fmt: skip
    def test_variables_of_kubernetes_are_not_settings(self, name: str) -> None:
        assert problems({name: "tcp://10.0.0.1:6379"}) == []

    def test_an_empty_variable_counts_as_unset(self) -> None:
        tree = build([], {}, {"CACHEKIT_NAMESPACE": "", "REDIS_URL": "", "CACHEKIT_TYPO": ""}, {})
        assert "namespace" not in tree.values
        assert tree.problems == []

    def test_two_variables_for_one_key_are_a_problem(self, tmp_path: Path) -> None:
        token = write(tmp_path / "token", "t")
        environ = {"CACHEKIT_METRICS__TOKEN": "t", "CACHEKIT_METRICS__TOKEN_FILE": str(token)}
        assert problems(environ) == [
            "env CACHEKIT_METRICS__TOKEN_FILE: sets the same as CACHEKIT_METRICS__TOKEN; keep one of them"
        ]

    def test_tables_with_foreign_keys_have_no_variables(self) -> None:
        environ = {"CACHEKIT_BACKENDS__DEFAULT__OPTIONS__X": "1"}
        assert problems(environ) == [f"env {next(iter(environ))}: options has no variable; set it in the file"]

    def test_a_key_has_this_variable(self) -> None:
        assert variable_of(("profiles", "user-tokens", "l1", "ttl")) == "CACHEKIT_PROFILES__USER_TOKENS__L1__TTL"


class TestURLs:
    def url(self, environ: dict[str, str], **default: object) -> tuple[object, str]:
        tree = build([], {}, environ, {})
        if default:
            tree = Tree()
            tree.merge({"backends": {"default": default}}, lambda keys: "cachekit.toml:1")
            from cachekit.config.tree import read_environment, read_urls

            read_environment(tree, environ)
            read_urls(tree, environ)
        return tree.get("backends", "default", "url"), tree.origin(("backends", "default", "url"))

    def test_redis_url_is_the_url_of_the_default_backend_and_wins_over_the_file(self) -> None:
        assert self.url({"REDIS_URL": "redis://e"}) == ("redis://e", "env REDIS_URL")
        assert self.url({"REDIS_URL": "redis://e"}, url="redis://file") == ("redis://e", "env REDIS_URL")

    def test_our_own_variables_win_over_redis_url(self) -> None:
        both = {"REDIS_URL": "redis://r", "CACHEKIT_REDIS_URL": "redis://c"}
        assert self.url(both)[0] == "redis://c"
        nested = {**both, "CACHEKIT_BACKENDS__DEFAULT__URL": "redis://n"}
        assert self.url(nested) == ("redis://n", "env CACHEKIT_BACKENDS__DEFAULT__URL")

    def test_url_env_replaces_the_variables_that_are_listened_to(self) -> None:
        environ = {"REDIS_URL": "redis://queue", "CACHE_URL": "redis://cache"}
        assert self.url(environ, url_env=["CACHE_URL"]) == ("redis://cache", "env CACHE_URL")
        assert self.url(environ, url_env=[]) == (None, "cachekit.toml:1")

    def test_a_variable_that_url_env_names_is_not_unknown(self) -> None:
        assert self.url({"CACHEKIT_MY_URL": "redis://c"}, url_env=["CACHEKIT_MY_URL"])[0] == "redis://c"


class TestNames:
    def test_two_names_that_are_equal_to_the_environment_are_a_problem(self) -> None:
        found = problems({}, profiles={"user-tokens": {}, "User.Tokens": {}})
        assert len(found) == 1
        assert "profiles.User.Tokens: the same name as 'user-tokens' (configure())" in found[0]

    @pytest.mark.parametrize("kind", ["profiles", "backends"])
    def test_none_is_reserved(self, kind: str) -> None:
        assert problems({}, **{kind: {"none": {}}}) == [f"configure(): {kind}.none: 'none' is a reserved name"]

    def test_a_name_that_cannot_be_a_name_is_a_problem(self) -> None:
        assert "profiles.a:b: not a name" in problems({}, profiles={"a:b": {}})[0]


class TestFiles:
    def read(self, project: Path, text: str) -> Tree:
        tree = Tree()
        read_file(tree, write(project / "cachekit.toml", text))
        return tree

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("namespace = \n", "cachekit.toml:1: not valid TOML: Invalid value"),
            ("a = 1\n\n[x\n", "cachekit.toml:3: not valid TOML"),
            ("a = 1\na = 2\n", "cachekit.toml:2: not valid TOML"),
            ("a = '''", "cachekit.toml: not valid TOML"),
        ],
    )
    def test_a_syntax_error_names_file_and_line(self, project: Path, text: str, problem: str) -> None:
        assert self.read(project, text).problems[0].startswith(problem)

    def test_a_file_that_is_not_utf_8_is_a_problem(self, project: Path) -> None:
        (project / "cachekit.toml").write_bytes(b'a = "\xff"')
        tree = Tree()
        read_file(tree, project / "cachekit.toml")
        assert tree.problems == ["cachekit.toml: not UTF-8 text"]

    def test_a_byte_order_mark_is_no_problem(self, project: Path) -> None:
        assert self.read(project, "\ufeffnamespace = 'x'").values == {"namespace": "x"}

    def test_origins_name_the_line_of_each_key(self, project: Path) -> None:
        tree = self.read(
            project,
            'namespace = "x"\n\n[profiles."users"] # who\nttl = 5\nl1.ttl = 3\n'
            'tags = [\n  "a",\n]\n[profiles.a.l1]\nttl = 1\n[profiles.b]\nl1 = { ttl = 4 }\n',
        )
        lines = {
            ("namespace",): 1, ("profiles", "users"): 3, ("profiles", "users", "ttl"): 4,
            ("profiles", "users", "l1", "ttl"): 5, ("profiles", "users", "tags"): 6, ("profiles", "a", "l1"): 9,
            ("profiles", "a", "l1", "ttl"): 10, ("profiles", "b", "l1", "ttl"): 12,
        }  # fmt: skip
        assert {keys: tree.origin(keys) for keys in lines} == {k: f"cachekit.toml:{n}" for k, n in lines.items()}

    @pytest.mark.parametrize("quotes", ['"""', "'''"])
    def test_a_text_of_several_lines_never_gives_a_wrong_line(self, quotes: str) -> None:
        text = (
            f"x = {quotes}\n[profiles.b]\nttl = 1\n[nowhere]\n{quotes}\n[profiles.a]\nttl = 2\n[profiles.b]\nttl = 3\n"
        )
        lines = scan_lines(text, {"x": "", "profiles": {"a": {"ttl": 2}, "b": {"ttl": 3}}})
        assert lines.get(("profiles", "b", "ttl")) in (None, 9)
        assert lines.get(("profiles", "a", "ttl")) in (None, 7)

    def test_later_files_win_key_by_key(self, project: Path) -> None:
        base = write(project / "base.toml", "[profiles.a]\nttl = 1\nl1 = { ttl = 1, mode = 'on' }\ntags = ['x', 'y']\n")
        top = write(project / "top.toml", "[profiles.a]\ntags = ['z']\n[profiles.a.l1]\nttl = 2\n")
        tree = build([base, top], {}, {}, {})
        assert tree.get("profiles", "a") == {"ttl": 1, "l1": {"ttl": 2, "mode": "on"}, "tags": ["z"]}
        assert tree.origin(("profiles", "a", "l1", "ttl")) == "top.toml:4"
        assert tree.origin(("profiles", "a", "l1", "mode")) == "base.toml:3"

    def test_a_broken_file_is_the_only_problem_told(self, project: Path) -> None:
        broken = write(project / "cachekit.toml", "[profiles.a\n")
        assert len(build([broken], {}, {"CACHEKIT_PROFILES__A__TTL": "5"}, {}).problems) == 1
