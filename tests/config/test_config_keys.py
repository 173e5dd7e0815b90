"""Keys of encryption and signatures: where they come from, what is refused, and that protection is only tightened."""

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachekit import cache, process
from cachekit.cli.config import rows
from cachekit.codec.keyring import REREAD, Keyring, name_root
from cachekit.config.fields import KEYS, WEAK
from cachekit.config.model import json_schema
from cachekit.config.secret import Secret
from cachekit.config.settings import load, load_tree
from cachekit.config.spec import ONLY_TIGHTENED, KeySpec, ServiceSpec
from cachekit.config.tree import read_secret_file
from cachekit.errors import ConfigError
from cachekit.service import Service

A, B, C, D = (f"{digit}123456789abcdef" * 4 for digit in "89ab")
SINGLE = ("master_key", "signing_key", "name_key")
KEY = {"CACHEKIT_MASTER_KEY": A, "CACHEKIT_NAME_KEY": B}
ONLY_ON = "may be turned on here, but not off; take another profile where it is not wanted"
NO_MASTER_KEY = (
    "what is encrypted needs a master key; set CACHEKIT_MASTER_KEY or CACHEKIT_MASTER_KEY_FILE "
    "(`cachekit secrets generate` makes one)"
)
NO_SIGNING_KEY = (
    "what is signed needs a key; set CACHEKIT_SIGNING_KEY, CACHEKIT_MASTER_KEY or one of them with _FILE "
    "(`cachekit secrets generate` makes one)"
)


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


def warnings(environ: dict[str, str]) -> list[str]:
    return [text for text in load_tree([], environ=environ).warnings if not text.startswith("metrics")]


class TestSources:
    @pytest.mark.parametrize("key", SINGLE)
    def test_a_variable_holds_a_key(self, key: str) -> None:
        assert getattr(loaded("", {f"CACHEKIT_{key.upper()}": A}).keys, key) == bytes.fromhex(A)

    @pytest.mark.parametrize("key", SINGLE)
    @pytest.mark.parametrize("content", [A, A + "\n", A + "\r\n", f"  {A.upper()} \n"])
    def test_a_file_holds_a_key_and_a_line_break(self, project: Path, key: str, content: str) -> None:
        (project / "key").write_text(content)
        keys = loaded("", {f"CACHEKIT_{key.upper()}_FILE": "key"}).keys
        assert (getattr(keys, key), keys.files) == (bytes.fromhex(A), {key: "key"})

    @pytest.mark.parametrize("between", [",", ", ", " ", "\n", "\r\n", "\t", ",\n"])
    @pytest.mark.parametrize("suffix", ["", "_FILE"])
    def test_previous_keys_are_several(self, project: Path, between: str, suffix: str) -> None:
        value = f"{A}{between}{B}"
        (project / "keys").write_text(value + "\n")
        keys = loaded("", {f"CACHEKIT_PREVIOUS_KEYS{suffix}": "keys" if suffix else value, **KEY}).keys
        assert keys.previous_keys == (bytes.fromhex(A), bytes.fromhex(B))

    @pytest.mark.parametrize("key", KEYS)
    def test_code_may_give_a_key(self, key: str) -> None:
        value = getattr(loaded("", settings={key: [A] if key == "previous_keys" else A}).keys, key)
        assert value == ((bytes.fromhex(A),) if key == "previous_keys" else bytes.fromhex(A))

    def test_code_wins_over_the_environment(self) -> None:
        assert loaded("", KEY, settings={"master_key": C}).keys.master_key == bytes.fromhex(C)

    @pytest.mark.parametrize("key", KEYS)
    def test_a_file_that_cannot_be_used_is_a_problem_without_its_path(self, project: Path, key: str) -> None:
        variable = f"CACHEKIT_{key.upper()}_FILE"
        (project / "empty").write_text("\n")
        (project / "binary").write_bytes(b"\xff\xfe\x00")
        before = f"env {variable}: the file that it names"
        assert problems("", {variable: A}) == [f"{before} cannot be read: No such file or directory"]
        assert problems("", {variable: "empty"}) == [f"{before} is empty"]
        assert problems("", {variable: "binary"}) == [f"{before} cannot be read: not a text file"]
        assert problems("", {variable: "."}) == [f"{before} cannot be read: Is a directory"]

    def test_a_file_without_the_right_to_read_it_is_a_problem(self, project: Path) -> None:
        (project / "key").write_text(A)
        (project / "key").chmod(0)
        if _may_read(project / "key"):
            pytest.skip("root may read everything")
        (line,) = problems("", {"CACHEKIT_MASTER_KEY_FILE": "key"})
        assert line.endswith("cannot be read: Permission denied")

    @pytest.mark.parametrize("key", KEYS)
    def test_a_variable_and_a_file_of_one_key_are_a_problem(self, project: Path, key: str) -> None:
        (project / "key").write_text(A)
        name = f"CACHEKIT_{key.upper()}"
        assert problems("", {name: B, f"{name}_FILE": "key"}) == [
            f"env {name}_FILE: sets the same as {name}; keep one of them"
        ]

    def test_an_empty_variable_counts_as_unset(self) -> None:
        assert loaded("", {"CACHEKIT_MASTER_KEY": "", "CACHEKIT_MASTER_KEY_FILE": ""}).keys == KeySpec()

    @pytest.mark.parametrize("suffix", ["", "_file"])
    @pytest.mark.parametrize("key", KEYS)
    def test_in_a_file_a_key_is_refused_with_the_variable_to_use(self, key: str, suffix: str) -> None:
        assert problems(f"\n{key}{suffix} = '{A}'\n", KEY) == [
            f"cachekit.toml:2: {key}{suffix}: a secret does not belong in a file; "
            f"set CACHEKIT_{key.upper()} or CACHEKIT_{key.upper()}_FILE"
        ]


def _may_read(path: Path) -> bool:
    try:
        path.read_text()
    except PermissionError:
        return False
    return True


class TestValues:
    @pytest.mark.parametrize("key", KEYS)
    @pytest.mark.parametrize("value", [A[1:], A + "0", "0x" + A[2:], A[:-1] + "g", A[:-1] + "\u0663", "password" * 8])
    def test_a_key_is_64_hexadecimal_digits_and_nothing_else(self, key: str, value: str) -> None:
        (line,) = problems("", {f"CACHEKIT_{key.upper()}": value})
        reason = "not a key of 64 hexadecimal digits; make one with `cachekit secrets generate`"
        assert line == f"env CACHEKIT_{key.upper()}: {key}: {reason}"

    @pytest.mark.parametrize("key", KEYS)
    @pytest.mark.parametrize("value", ["0" * 64, "deadbeef" * 8, "Ab" * 32, "01234" * 12 + "0123"])
    def test_a_key_that_is_obviously_not_random_is_refused_without_being_shown(self, key: str, value: str) -> None:
        assert len(set(value.casefold())) < WEAK
        (line,) = problems("", {f"CACHEKIT_{key.upper()}": value})
        reason = "not a random key; make one with `cachekit secrets generate`"
        assert line == f"env CACHEKIT_{key.upper()}: {key}: {reason}"

    def test_a_key_with_the_fewest_digits_is_taken(self) -> None:
        value = ("012345" * 11)[:64]
        assert loaded("", {"CACHEKIT_MASTER_KEY": value}).keys.master_key == bytes.fromhex(value)

    @pytest.mark.parametrize("value", [5, b"x", [A], {"x": A}])
    def test_another_type_is_refused_without_being_shown(self, value: object) -> None:
        assert problems("", settings={"master_key": value}) == [
            "configure(): master_key: not a key of 64 hexadecimal digits; make one with `cachekit secrets generate`"
        ]

    def test_one_bad_previous_key_is_a_problem(self) -> None:
        (line,) = problems("", {"CACHEKIT_PREVIOUS_KEYS": f"{A},{B[1:]}"})
        assert "not a key of 64" in line
        assert B[1:] not in line


class TestNeeded:
    @pytest.mark.parametrize(
        ("text", "place", "reason"),
        [
            ("[profiles.a]\nencrypt = true\n", "cachekit.toml:2: profiles.a", NO_MASTER_KEY),
            ("[profiles.a]\nsign = true\n", "cachekit.toml:2: profiles.a", NO_SIGNING_KEY),
            ("\n[profiles.secure]\nttl = 5\n", "cachekit.toml:2: profiles.secure", NO_MASTER_KEY),
            ("\n[profiles.a]\nextends = 'secure'\n", "cachekit.toml:2: profiles.a", NO_MASTER_KEY),
        ],
    )
    def test_a_profile_without_its_key_is_a_problem_with_its_place(self, text: str, place: str, reason: str) -> None:
        assert problems(text) == [f"{place}: {reason}"]

    def test_an_inherited_wish_is_told_where_it_was_made(self) -> None:
        lines = problems("[profiles.default]\nsign = true\n[profiles.a]\nttl = 5\n")
        assert lines == [f"cachekit.toml:2: profiles.{name}: {NO_SIGNING_KEY}" for name in ("default", "a")]

    def test_a_variable_that_asks_for_it_is_named(self) -> None:
        environ = {"CACHEKIT_PROFILES__A__ENCRYPT": "on"}
        assert problems("[profiles.a]\n", environ) == [
            f"env CACHEKIT_PROFILES__A__ENCRYPT: profiles.a: {NO_MASTER_KEY}"
        ]

    def test_a_profile_from_code_that_asks_for_it_is_named(self) -> None:
        assert problems("", definitions={"a": {"encrypt": True}}) == [f"define('a'): profiles.a: {NO_MASTER_KEY}"]

    @pytest.mark.parametrize("key", ["master_key", "signing_key"])
    def test_signing_is_content_with_either_key(self, key: str) -> None:
        assert loaded("[profiles.a]\nsign = true\n", {f"CACHEKIT_{key.upper()}": A}).regions["a"].codec.sign

    @pytest.mark.parametrize("name", ["signing_key", "name_key", "previous_keys"])
    def test_encrypting_is_content_with_the_master_key_only(self, name: str) -> None:
        assert problems("[profiles.a]\nencrypt = true\n", {f"CACHEKIT_{name.upper()}": A}) == [
            f"cachekit.toml:2: profiles.a: {NO_MASTER_KEY}"
        ]

    def test_the_built_in_secure_profile_needs_no_key_until_it_is_used(self) -> None:
        spec = loaded("[profiles.a]\nttl = 5\n")
        assert spec.regions["secure"].codec.encrypt
        service = Service(spec)
        service.start()
        with pytest.raises(ConfigError, match=r"profile 'secure': what is encrypted needs a master key"):
            service.region("secure").get("a")

    @pytest.mark.parametrize("profile", ["secure", "signed"])
    def test_a_decorated_function_without_its_key_is_a_problem_at_start(self, profile: str) -> None:
        options = {"profile": "default", "sign": True} if profile == "signed" else {"profile": "secure"}

        @cache(**options)  # type: ignore[call-overload,untyped-decorator]
        def f(x: int) -> int:
            return x

        with pytest.raises(ConfigError) as caught:
            Service(loaded("")).start()
        reason = NO_SIGNING_KEY if profile == "signed" else NO_MASTER_KEY
        assert str(caught.value).endswith(f"f: profile {options['profile']!r}: {reason}")
        Service(loaded("", KEY)).start()

    def test_check_import_tells_it_too(self, project: Path) -> None:
        (project / "views.py").write_text("from cachekit import cache\n@cache.secure\ndef f(x): return x\n")
        words = ["config", "check", "--import", "views"]
        done = subprocess.run(
            [sys.executable, "-c", "from cachekit.cli import main; main()", *words],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.startswith(f"views.f: profile 'secure': {NO_MASTER_KEY}")


class TestTogether:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("encrypt = true\ncounters = true", "counters: a number that the server adds to can be neither encrypted"),
            ("sign = true\ncounters = true", "counters: a number that the server adds to can be neither encrypted nor"),
            ("fail_closed = true", "fail_closed: needs sign or encrypt: a checksum can be forged"),
        ],
    )
    def test_what_does_not_go_together_is_a_problem_with_its_place(self, text: str, problem: str) -> None:
        (line,) = problems(f"[profiles.a]\n{text}\n", KEY)
        assert line.startswith(f"cachekit.toml:{1 + len(text.splitlines())}: profiles.a.{problem}")

    @pytest.mark.parametrize("protection", ["encrypt", "sign"])
    def test_fail_closed_goes_with_either(self, protection: str) -> None:
        assert loaded(f"[profiles.a]\nfail_closed = true\n{protection} = true\n", KEY).regions["a"].codec.fail_closed

    def test_fail_closed_may_be_said_where_the_protection_is_inherited(self) -> None:
        text = "[profiles.a]\nextends = 'secure'\nfail_closed = true\n"
        assert loaded(text, KEY).regions["a"].codec.fail_closed

    def test_counters_of_all_profiles_spare_no_secure_one(self) -> None:
        lines = problems("[profiles.default]\ncounters = true\n[profiles.secure]\nttl = 5\n", KEY)
        assert [line.partition(": a number")[0] for line in lines] == ["cachekit.toml:2: profiles.secure.counters"]

    @pytest.mark.parametrize("options", [{"encrypt": True, "counters": True}, {"fail_closed": True}])
    def test_a_decorator_is_judged_alike(self, options: dict[str, Any]) -> None:
        @cache(**options)  # type: ignore[call-overload,untyped-decorator]
        def f(x: int) -> int:
            return x

        with pytest.raises(ConfigError, match=r"f: (counters: a number|fail_closed: needs sign or encrypt)"):
            Service(loaded("", KEY)).start()


# Each layer turns something of profile "a" on or off: (what the loader is given, where messages say that it was).
Layer = Callable[[dict[str, Any], str, bool], str]


def in_define(given: dict[str, Any], key: str, on: bool) -> str:
    given["definitions"] = {"a": {**FITS, key: on}}
    return "define('a')"


def in_base(given: dict[str, Any], key: str, on: bool) -> str:
    return _in_file("base.toml", key, on)


def in_later(given: dict[str, Any], key: str, on: bool) -> str:
    return _in_file("later.toml", key, on)


def _in_file(name: str, key: str, on: bool) -> str:
    Path(name).write_text(f"[profiles.a]\n{key} = {str(on).lower()}\n")
    return f"{name}:2"


def in_layer(given: dict[str, Any], key: str, on: bool) -> str:
    given["layers"] = {"settings.CACHEKIT": {"profiles": {"a": {key: on}}}}
    return "settings.CACHEKIT"


def in_environment(given: dict[str, Any], key: str, on: bool) -> str:
    given["environ"][f"CACHEKIT_PROFILES__A__{key.upper()}"] = "on" if on else "off"
    return f"env CACHEKIT_PROFILES__A__{key.upper()}"


def in_configure(given: dict[str, Any], key: str, on: bool) -> str:
    given["settings"] = {"profiles": {"a": {key: on}}}
    return "configure()"


FITS = {"ttl": 5}
LAYERS: list[Layer] = [in_define, in_base, in_later, in_layer, in_environment, in_configure]
PAIRS = [(low, high) for at, low in enumerate(LAYERS) for high in LAYERS[at + 1 :]]


@pytest.fixture
def given() -> dict[str, Any]:
    """What the loader is given: files without anything in them that matters here, and keys."""
    for name in ("base.toml", "later.toml"):
        Path(name).write_text("[profiles.a]\n")
    return {"environ": dict(KEY)}


def load_given(given: dict[str, Any], key: str) -> ServiceSpec:
    if key == "fail_closed":  # which needs a protection
        given["environ"]["CACHEKIT_PROFILES__DEFAULT__SIGN"] = "on"
    return load([Path("base.toml"), Path("later.toml")], **given)


def is_on(spec: ServiceSpec, name: str, key: str) -> bool:
    region = spec.regions[name]
    return bool(getattr(region if key == "require_tenant" else region.codec, key))


@pytest.mark.parametrize("key", ONLY_TIGHTENED)
class TestOnlyTightened:
    @pytest.mark.parametrize(("low", "high"), PAIRS)
    def test_no_later_layer_turns_it_off(self, given: dict[str, Any], low: Layer, high: Layer, key: str) -> None:
        low(given, key, True)
        place = high(given, key, False)
        with pytest.raises(ConfigError) as caught:
            load_given(given, key)
        assert str(caught.value) == f"{place}: profiles.a.{key} = false: {ONLY_ON}"

    @pytest.mark.parametrize(("low", "high"), PAIRS)
    def test_every_later_layer_may_turn_it_on(self, given: dict[str, Any], low: Layer, high: Layer, key: str) -> None:
        low(given, key, False)
        high(given, key, True)
        assert is_on(load_given(given, key), "a", key)

    @pytest.mark.parametrize("layer", LAYERS)
    def test_off_is_taken_where_nobody_turned_it_on(self, given: dict[str, Any], layer: Layer, key: str) -> None:
        layer(given, key, False)
        assert not is_on(load_given(given, key), "a", key)

    def test_a_profile_that_extends_cannot_turn_it_off(self, given: dict[str, Any], key: str) -> None:
        Path("base.toml").write_text(f"[profiles.a]\n{key} = true\n[profiles.heir]\nextends = 'a'\n")
        Path("later.toml").write_text(f"[profiles.heir]\n{key} = false\n")
        with pytest.raises(ConfigError) as caught:
            load_given(given, key)
        assert str(caught.value) == f"later.toml:2: profiles.heir.{key} = false: {ONLY_ON}"

    @pytest.mark.parametrize("extends", ["default", "none", "other"])
    def test_extending_another_profile_cannot_turn_it_off(self, given: dict[str, Any], key: str, extends: str) -> None:
        sign = "sign = true\n" if key == "fail_closed" else ""
        Path("base.toml").write_text(
            f"[profiles.strict]\n{sign}{key} = true\n[profiles.other]\n[profiles.a]\nextends = 'strict'\n"
        )
        given["environ"]["CACHEKIT_PROFILES__A__EXTENDS"] = extends
        with pytest.raises(ConfigError) as caught:
            load([Path("base.toml")], **given)
        assert (
            f"env CACHEKIT_PROFILES__A__EXTENDS: profiles.a.extends = '{extends}': would turn off {key}, which "
            f"'strict' has turned on; it {ONLY_ON}"
        ) in str(caught.value).splitlines()

    def test_extending_another_profile_that_has_it_too_is_allowed(self, given: dict[str, Any], key: str) -> None:
        sign = "sign = true\n" if key == "fail_closed" else ""
        text = f"[profiles.x]\n{sign}{key} = true\n[profiles.y]\n{sign}{key} = true\n[profiles.a]\nextends = 'x'\n"
        Path("base.toml").write_text(text)
        given["environ"]["CACHEKIT_PROFILES__A__EXTENDS"] = "y"
        assert is_on(load([Path("base.toml")], **given), "a", key)

    def test_a_decorator_cannot_turn_it_off(self, given: dict[str, Any], key: str) -> None:
        in_base(given, key, True)
        service = Service(load_given(given, key))

        @cache(profile="a", **{key: False})  # type: ignore[call-overload,untyped-decorator]
        def f(x: int) -> int:
            return x

        with pytest.raises(ConfigError, match=rf"f: {key} = false: may be turned on here, but not off"):
            service.start()

    def test_a_decorator_may_turn_it_on(self, given: dict[str, Any], key: str) -> None:
        service = Service(load_given(given, key))

        @cache(profile="a", **{key: True})  # type: ignore[call-overload,untyped-decorator]
        def f(x: int) -> int:
            return x

        service.start()

    def test_a_late_definition_cannot_turn_it_off(
        self, given: dict[str, Any], key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        in_base(given, key, True)
        monkeypatch.setattr(process, "_default", Service(load_given(given, key)))
        monkeypatch.setattr(process, "_definitions", {})
        with pytest.raises(ConfigError, match=rf"define\('late'\): {key} = false: may be turned on here, but not off"):
            process.define("late", extends="a", **{key: False})


class TestSecureProfile:
    @pytest.mark.parametrize("where", ["file", "environment", "configure"])
    def test_no_layer_turns_the_encryption_of_the_built_in_profile_off(self, where: str) -> None:
        off: dict[str, Any] = {"profiles": {"secure": {"encrypt": False}}}
        place, arguments = {
            "file": ("cachekit.toml:2", ("[profiles.secure]\nencrypt = false\n", KEY, {})),
            "environment": (
                "env CACHEKIT_PROFILES__SECURE__ENCRYPT", ("", {**KEY, "CACHEKIT_PROFILES__SECURE__ENCRYPT": "0"}, {})
            ),
            "configure": ("configure()", ("", KEY, {"settings": off})),
        }[where]  # fmt: skip
        text, environ, kinds = arguments
        assert problems(text, environ, **kinds) == [f"{place}: profiles.secure.encrypt = false: {ONLY_ON}"]

    def test_a_table_of_the_file_merges_over_it(self) -> None:
        secure = loaded("[profiles.secure]\nttl = '1m'\nfail_closed = true\n", KEY).regions["secure"]
        assert (secure.ttl, secure.codec.encrypt, secure.codec.fail_closed) == (60, True, True)
        assert (secure.freshness.early_refresh, secure.freshness.stale_ttl) == ("off", 0)

    def test_extending_nothing_leaves_it_encrypted(self) -> None:
        assert loaded("[profiles.secure]\nextends = 'none'\n", KEY).regions["secure"].codec.encrypt


class TestWarnings:
    NO_NAME_KEY = (
        "name_key: not set; a rotation of the master key will change names: each secure entry is computed once more; "
        "pin it with `cachekit secrets generate --name-key`"
    )

    def test_both_keys_are_no_warning(self) -> None:
        assert warnings({**KEY, "CACHEKIT_PREVIOUS_KEYS": C}) == []

    def test_a_master_key_alone_is_one(self) -> None:
        assert warnings({"CACHEKIT_MASTER_KEY": A}) == [self.NO_NAME_KEY]

    def test_previous_keys_alone_are_one(self) -> None:
        assert warnings({"CACHEKIT_PREVIOUS_KEYS": A}) == [
            "previous_keys: set without master_key or signing_key; nothing is opened or verified with them"
        ]
        assert warnings({"CACHEKIT_PREVIOUS_KEYS": A, "CACHEKIT_SIGNING_KEY": B}) == []

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
    def test_a_file_that_others_may_read_is_one(self, project: Path, mode: int) -> None:
        (project / "key").write_text(A)
        environ = {"CACHEKIT_MASTER_KEY_FILE": "key", "CACHEKIT_NAME_KEY": B}
        (project / "key").chmod(mode)
        (line,) = warnings(environ)
        assert line == (
            "env CACHEKIT_MASTER_KEY_FILE: the file that it names can be read by others than its owner; chmod 600, or "
            "defaultMode: 0400 for a secret of Kubernetes"
        )
        (project / "key").chmod(0o400)
        assert warnings(environ) == []


def test_the_schema_has_the_switches_and_no_key() -> None:
    schema = json_schema()
    assert not KEYS.keys() & schema["properties"].keys()
    profile = schema["$defs"]["ProfileTable"]["properties"]
    assert {profile[key]["type"] for key in (*ONLY_TIGHTENED, "rewrap")} == {"boolean"}


def test_the_effective_switches_are_shown_with_their_origins_and_no_key() -> None:
    Path("cachekit.toml").write_text("[profiles.a]\nextends = 'secure'\nfail_closed = true\n")
    known = load_tree(environ={**KEY, "CACHEKIT_PROFILES__A__REQUIRE_TENANT": "yes"})
    shown = {keys: (value, known.origin(keys)) for keys, value in rows(known)}
    assert shown["profiles", "a", "encrypt"] == ("true", "built-in")
    assert shown["profiles", "a", "fail_closed"] == ("true", "cachekit.toml:3")
    assert shown["profiles", "a", "require_tenant"] == ("true", "env CACHEKIT_PROFILES__A__REQUIRE_TENANT")
    assert shown["profiles", "a", "sign"] == ("false", "default")
    assert shown["profiles", "a", "rewrap"] == ("true", "default")
    assert not {keys[0] for keys in shown} & KEYS.keys()


class TestReadAgain:
    """Keys of files are read again when an entry comes under a key that is not known."""

    def keyring(self, now: list[float]) -> Keyring:
        keys = loaded("", {"CACHEKIT_MASTER_KEY_FILE": "master", "CACHEKIT_PREVIOUS_KEYS_FILE": "previous"}).keys
        return Keyring(keys, "ns", lambda: now[0])

    @pytest.fixture(autouse=True)
    def files(self, project: Path) -> None:
        (project / "master").write_text(A)
        (project / "previous").write_text(B)

    def ident(self, key: str) -> bytes:
        return Keyring(KeySpec(master_key=key), "ns").present("seal").id  # type: ignore[arg-type]

    def test_a_new_key_is_found_and_the_present_one_follows(
        self, project: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        keyring = self.keyring([0.0])
        caplog.set_level(logging.INFO, "cachekit")
        version = keyring.version
        (project / "master").write_text(C + "\n")
        (project / "previous").write_text(f"{A}\n{B}\n")
        assert keyring.present("seal").id == self.ident(A)  # nobody has asked
        found = keyring.find("seal", self.ident(C))
        assert found is not None
        assert keyring.present("seal").id == found.id == self.ident(C)
        assert keyring.find("seal", self.ident(A)) is not None
        assert keyring.version > version
        assert caplog.messages == ["keys were read again: master_key, previous_keys"]

    def test_names_stay_what_they_were_until_the_next_start(self, project: Path) -> None:
        """Regions have taken the key of names; what clears a tag must find theirs."""
        keyring = self.keyring([0.0])
        names, all_names = keyring.name_key, keyring.name_keys
        (project / "master").write_text(C)
        assert keyring.find("seal", self.ident(C)) is not None
        assert (keyring.name_key, keyring.name_keys) == (names, all_names)

    def test_tags_are_cleared_by_the_names_of_previous_keys_too(self) -> None:
        def names(**keys: Any) -> tuple[Secret, ...]:
            return Keyring(KeySpec(**keys), "ns").name_keys

        assert names() == ()
        assert names(master_key=A, previous_keys=(B,)) == (*names(master_key=A), *names(master_key=B))
        pinned = name_root(A).hex()
        assert names(master_key=C, previous_keys=(A,), name_key=pinned) == names(master_key=A)

    def test_they_are_read_once_a_second_at_most_unless_they_changed(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[str] = []
        monkeypatch.setattr(
            "cachekit.codec.keyring.read_secret_file", lambda path: (read.append(path), read_secret_file(path))[1]
        )
        now = [0.0]
        keyring = self.keyring(now)
        counts = []
        for now[0] in (0.0, REREAD - 0.01, REREAD):
            assert keyring.find("seal", self.ident(C)) is None
            counts.append(len(read))
        assert counts == [2, 2, 4]  # two files each time
        (project / "master").write_text(C)
        assert keyring.find("seal", self.ident(C)) is not None

    @pytest.mark.parametrize("content", [None, "", A[1:], "0" * 64])
    def test_a_file_that_has_become_unusable_changes_nothing(
        self, project: Path, caplog: pytest.LogCaptureFixture, content: str | None
    ) -> None:
        keyring = self.keyring([0.0])
        if content is None:
            (project / "master").unlink()
        else:
            (project / "master").write_text(content)
        assert keyring.find("seal", self.ident(C)) is None
        assert keyring.present("seal").id == self.ident(A)
        (line,) = caplog.messages
        assert line.startswith("a file of keys ")
        assert line.endswith("; the keys known so far are used")
        assert "master" not in line.replace("the keys known", "")
        assert not content or content not in line
