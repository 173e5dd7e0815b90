"""``manage.py cachekit`` shows and removes what its words say, and asks before it removes."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from cachekit.testing.servers import Server

OURS = "cachekit.integrations.django.CacheKitCache"


@pytest.fixture
def project(use: Callable[..., None], cachekit_server: Server) -> Callable[..., None]:
    """A project with two regions on a server, and one that only this process has."""

    def settings(**values: Any) -> None:
        profiles = {
            "users": {"ttl": "5m"},
            "alone": {"backend": "none"},
            "tenants": {"require_tenant": True},
            **values.pop("profiles", {}),
        }
        backends = {"default": {"url": values.pop("url", cachekit_server.url)}}
        aliases = {"default": {"BACKEND": OURS}, "users": {"BACKEND": OURS, "LOCATION": "users"}}
        use(CACHES=aliases, CACHEKIT={"backends": backends, "profiles": profiles}, **values)

    settings()
    return settings


def manage(*words: str) -> str:
    from django.core.management import call_command

    out = io.StringIO()
    call_command("cachekit", *words, stdout=out, stderr=out)
    return out.getvalue()


def fails(*words: str) -> str:
    from django.core.management import CommandError

    with pytest.raises(CommandError) as caught:
        manage(*words)
    return str(caught.value)


def answer(monkeypatch: pytest.MonkeyPatch, text: str | None) -> list[str]:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        if text is None:
            raise EOFError
        return text

    monkeypatch.setattr("builtins.input", ask)
    return asked


def test_clear_removes_what_is_named_once_it_is_confirmed(
    project: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cachekit import region, tenant

    def fill() -> None:
        region().set("k", 1)
        region("users").set("k", 1)
        with tenant("acme"):
            region("tenants").set("k", 1)

    def there() -> list[str]:
        names = [name for name in ("default", "users") if region(name).get("k") is not None]
        with tenant("acme"):
            return [*names, *(["tenants"] if region("tenants").get("k") is not None else [])]

    fill()
    asked = answer(monkeypatch, "n")
    assert fails("clear", "users") == "nothing was removed"
    assert asked == ["This will remove everything in users. Go on? [y/N] "]
    answer(monkeypatch, None)
    assert "--no-input" in fails("clear", "users")
    assert there() == ["default", "users", "tenants"]
    answer(monkeypatch, "y")
    assert "users" in manage("clear", "users")
    assert there() == ["default", "tenants"]
    assert json.loads(manage("clear", "tenants", "--no-input", "--json")) == [{"name": "tenants", "outcome": "done"}]
    assert there() == ["default"]
    fill()
    outcomes = {row["name"]: row["outcome"] for row in json.loads(manage("clear", "--all", "--no-input", "--json"))}
    assert there() == []
    assert (outcomes["users"], outcomes["secure"]) == ("done", "unusable")
    assert "only they can remove" in outcomes["alone"]
    assert "name the regions" in fails("clear", "--no-input")
    assert "did you mean 'users'" in fails("clear", "usres", "--no-input")


def test_invalidate_removes_what_has_a_tag(project: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    from cachekit import region

    region().set("a", 1, tags=["red"])
    region("users").set("b", 1, tags=["blue"])
    region("users").set("c", 1, tags=["green"])
    asked = answer(monkeypatch, "no")
    assert fails("invalidate", "red", "blue") == "nothing was removed"
    assert asked == ["This will remove every entry with a tag of red, blue. Go on? [y/N] "]
    answer(monkeypatch, "yes")
    assert "blue" in manage("invalidate", "red", "blue")
    assert (region().get("a"), region("users").get("b"), region("users").get("c")) == (None, None, 1)
    assert "begins with '#'" in fails("invalidate", "#f", "--no-input")


def test_without_a_server_there_is_nothing_to_invalidate_from_here(use: Callable[..., None]) -> None:
    use()
    assert "only they can remove" in fails("invalidate", "red", "--no-input")


def test_what_a_store_could_not_be_told_is_a_failure(project: Callable[..., None]) -> None:
    project(url="redis://127.0.0.1:1/0")
    for words in (("clear", "users"), ("invalidate", "red")):
        assert "could not be told" in fails(*words, "--no-input")


def test_entries_lists_what_lies_in_the_stores(project: Callable[..., None]) -> None:
    from cachekit import cache, region

    @cache(profile="users")
    def load_user(user_id: int) -> dict[str, int]:
        return {"id": user_id}

    load_user(7)
    region().set("page", "x", ttl=None)
    region().set("old", "x", tags=["red"])
    region().set("stale", "x")
    region().mark_stale("stale")
    from django.core.cache import cache as djangos

    djangos.set("count", 1)
    djangos.incr("count")
    manage("invalidate", "red", "--no-input")
    found = json.loads(manage("entries", "--json"))
    rows = {row["key"].partition(":v:")[2]: row for row in found["entries"]}
    assert not found["more"]
    states = {key: row["state"] for key, row in rows.items() if row["region"] == "default"}
    assert states == {
        "{default:=page}": "fresh", "{default:=old}": "outdated", "{default:=stale}": "stale",
        "{default:=:1:count}": "number",
    }  # fmt: skip
    (call,) = [row for row in rows.values() if row["region"] == "users"]
    assert "load_user#" in call["function"]
    assert 0 < call["fresh_until"] <= 330
    assert -60 < call["created"] <= 0
    assert rows["{default:=page}"]["kept_until"] is None
    text = manage("entries", "users")
    assert "load_user" in text.replace("\n", "")
    assert "page" not in text
    assert "--limit 0" in manage("entries", "--limit", "1")
    assert len(json.loads(manage("entries", "--limit", "0", "--json"))["entries"]) == 5
    assert json.loads(manage("entries", "--limit", "2", "--json"))["more"]
    assert "no server" in manage("entries", "alone")
    assert "there is no profile 'nix'" in fails("entries", "nix")


def test_more_entries_than_a_page_are_all_listed(project: Callable[..., None]) -> None:
    from cachekit import region

    region().set_many({f"k{number}": number for number in range(450)})
    keys = [row["key"] for row in json.loads(manage("entries", "--limit", "0", "--json"))["entries"]]
    assert len(set(keys)) == 450


def test_entries_of_aliases_with_one_server_are_listed_once(use: Callable[..., None], cachekit_server: Server) -> None:
    from django.core.cache import caches

    names = ("default", "other")
    aliases = {name: {"BACKEND": OURS, "LOCATION": cachekit_server.url, "KEY_PREFIX": name} for name in names}
    use(CACHES=aliases, CACHEKIT={"backends": {f"django.{name}": {} for name in names}})
    for name in names:
        caches[name].set("k", "x")
    regions = [row["region"] for row in json.loads(manage("entries", "--json"))["entries"]]
    assert sorted(regions) == ["django.default", "django.other"]


def test_entries_says_when_a_store_does_not_answer(project: Callable[..., None]) -> None:
    project(url="redis://127.0.0.1:1/0")
    assert "could not be read: connection" in fails("entries")


def test_stats_shows_regions_and_stores(project: Callable[..., None]) -> None:
    found = json.loads(manage("stats", "--json"))
    regions = {row["region"]: row for row in found["regions"]}
    assert (regions["users"]["aliases"], regions["users"]["ttl"]) == ("users", 300.0)
    (backend,) = found["backends"]
    assert (backend["backend"], backend["state"], backend["breaker"]) == ("default", "up", "closed")
    text = manage("stats")
    assert "users" in text
    assert "closed" in text
    project(url="redis://127.0.0.1:1/0")
    (backend,) = json.loads(manage("stats", "--json"))["backends"]
    assert backend["state"] == "down"


def test_stats_reads_the_page_of_a_running_application(project: Callable[..., None]) -> None:
    from cachekit import metrics, region

    with_region = region("users")
    with_region.get("k")
    server = metrics.serve(0)
    try:
        address = server if isinstance(server, str) else f"http://127.0.0.1:{server.port}"
        assert json.loads(manage("stats", "--url", address, "--json"))["regions"]["users"]["misses"] == 1
        assert "users" in manage("stats", "--url", address)
    finally:
        server.close()
    assert "nothing answers" in fails("stats", "--url", "http://127.0.0.1:1")


def test_check_asks_the_servers_and_says_what_is_wrong(project: Callable[..., None]) -> None:
    text = manage("check")
    assert "answered in" in text
    assert json.loads(manage("check", "--json"))["ok"]
    project(url="redis://:geheim@127.0.0.1:1/0")
    with pytest.raises(SystemExit) as ended:
        manage("check")
    assert ended.value.code == 1
    with pytest.raises(SystemExit):
        manage("check", "--json")


def checks(deploy: bool) -> dict[str, str]:
    from django.core.checks import run_checks

    found = run_checks(tags=["caches"], include_deployment_checks=deploy)
    return {message.id: f"{message.msg} {message.hint}" for message in found if message.id.startswith("cachekit")}


def test_a_deployment_is_told_of_servers_that_do_not_answer(project: Callable[..., None]) -> None:
    assert checks(deploy=True) == {}
    project(url="redis://:geheim@127.0.0.1:1/0")
    assert checks(deploy=False) == {}
    found = checks(deploy=True)["cachekit.W011"]
    assert "'default'" in found
    assert "connection" in found
    assert "see whether the server runs" in found
    assert "geheim" not in found


def test_a_deployment_is_told_of_copies_that_hear_of_nothing(use: Callable[..., None], cachekit_server: Server) -> None:
    aliases = {
        "default": {"BACKEND": OURS},
        "alone": {"BACKEND": OURS, "LOCATION": "alone"},
        "no copies": {"BACKEND": OURS, "LOCATION": "no-copies"},
    }
    backend = {"url": cachekit_server.url, "coherence": "ttl", "max_staleness": 2}
    profiles = {"alone": {"backend": "none"}, "no-copies": {"l1": {"mode": "off"}}}
    use(CACHES=aliases, CACHEKIT={"backends": {"default": backend}, "profiles": profiles})
    found = checks(deploy=True)
    assert found.keys() == {"cachekit.W012", "cachekit.I011"}
    assert "CACHES['alone']" in found["cachekit.W012"]
    assert "up to 2 s" in found["cachekit.I011"]
    assert checks(deploy=False) == {}
    use()
    assert "CACHES['default']" in checks(deploy=True)["cachekit.W012"]


def test_a_deployment_is_told_of_pickles(
    use: Callable[..., None], monkeypatch: pytest.MonkeyPatch, cachekit_server: Server
) -> None:
    monkeypatch.setenv("CACHEKIT_SIGNING_KEY", "0123456789abcdef" * 4)
    backends = {"default": {"url": cachekit_server.url}}
    use(CACHEKIT={"backends": backends, "profiles": {"old": {"serializer": "pickle", "sign": True}}})
    assert "Region 'old' stores pickles" in checks(deploy=True)["cachekit.W013"]


def test_aliases_that_share_their_entries_are_told(use: Callable[..., None], cachekit_server: Server) -> None:
    both = {"default": {"BACKEND": OURS}, "other": {"BACKEND": OURS}}
    use(CACHES=both)
    assert "CACHES['default'] and CACHES['other']" in checks(deploy=False)["cachekit.W014"]
    for apart in ({"KEY_PREFIX": "x"}, {"VERSION": 2}, {"LOCATION": "minimal"}):
        use(CACHES={**both, "other": {"BACKEND": OURS, **apart}})
        assert "cachekit.W014" not in checks(deploy=False)
