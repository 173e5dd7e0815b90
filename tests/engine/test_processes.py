"""Forks, threads, event loops: no wrong answer, no error, whoever inherits what."""

import asyncio
import os
import random
import subprocess
import sys
import textwrap
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

from cachekit import cache

KEYS = 10_000


def answer(key: int) -> dict[str, int]:
    return {"key": key, "square": key * key}


def hammer(call: Any, keys: list[int], wrong: list[object]) -> None:
    for key in keys:
        try:
            if call(key) != answer(key):
                wrong.append(key)
        except BaseException:
            wrong.append(traceback.format_exc())


def shuffled(seed: int, share: int) -> list[int]:
    keys = random.Random(seed).sample(range(KEYS), share)
    return keys


@pytest.mark.parametrize("l1", [pytest.param("on", marks=pytest.mark.slow), "off"])
def test_forks_with_busy_threads_give_no_wrong_answer(make_service: Any, l1: str) -> None:
    make_service("server", l1=l1)

    @cache(version=1, profile="users")
    def load(key: int) -> dict[str, int]:
        return answer(key)

    hammer(load, shuffled(0, 1000), [])
    wrong: list[object] = []
    stop = threading.Event()

    def busy(seed: int) -> None:
        keys = shuffled(seed, KEYS // 10)
        while not stop.is_set():
            hammer(load, keys[:200], wrong)
            random.Random(seed).shuffle(keys)

    threads = [threading.Thread(target=busy, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    children = []
    for seed in range(8):
        pid = os.fork()
        if pid == 0:
            child_wrong: list[object] = []
            workers = [
                threading.Thread(target=hammer, args=(load, shuffled(seed * 10 + n, KEYS // 16), child_wrong))
                for n in range(2)
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(60)
            if child_wrong:
                os.write(2, str(child_wrong[0]).encode())
            os._exit(1 if child_wrong or any(worker.is_alive() for worker in workers) else 0)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    stop.set()
    for thread in threads:
        thread.join(30)
    assert codes == [0] * 8
    assert wrong == []


@pytest.mark.parametrize("l1", [pytest.param("on", marks=pytest.mark.slow), "off"])
def test_four_event_loops_with_jitter_give_no_wrong_answer(make_service: Any, l1: str) -> None:
    make_service("server", l1=l1)

    @cache(version=1, profile="users")
    async def load(key: int) -> dict[str, int]:
        await asyncio.sleep(random.random() / 1000)
        return answer(key)

    wrong: list[object] = []

    async def client(seed: int) -> None:
        rng = random.Random(seed)
        for key in rng.sample(range(KEYS), KEYS // 64):
            if rng.random() < 0.05:
                await asyncio.sleep(rng.random() / 500)
            try:
                if await load(key) != answer(key):
                    wrong.append(key)
            except BaseException:
                wrong.append(traceback.format_exc())

    async def clients(seed: int) -> None:
        await asyncio.gather(*(client(seed * 100 + n) for n in range(16)))

    loops = [threading.Thread(target=asyncio.run, args=(clients(seed),)) for seed in range(4)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(60)
    assert wrong == []
    for function in (wrong.clear,):
        function()
    asyncio.run(clients(9))
    asyncio.run(clients(10))
    assert wrong == []


def test_a_second_asyncio_run_finds_the_values_of_the_first(make_service: Any) -> None:
    make_service("server", l1="off")
    runs = []

    @cache(version=1, profile="users")
    async def load(key: int) -> int:
        runs.append(key)
        return key

    assert asyncio.run(load(1)) == asyncio.run(load(1)) == 1
    assert runs == [1]


def test_two_processes_share_entries_through_one_server(cachekit_server: Any, tmp_path: Path) -> None:
    """The first process computes, the second one hits L2; without a configuration the same module works alone."""
    (tmp_path / "app.py").write_text(
        textwrap.dedent("""
        import sys
        from cachekit import cache

        @cache(version=1, profile="users")
        def get_user(user_id: int) -> dict:
            print("computed", end=" ")
            return {"id": user_id, "tags": ("a", frozenset({1}))}

        if __name__ == "__main__":
            value = get_user(7)
            assert value == {"id": 7, "tags": ("a", frozenset({1}))} and type(value["tags"]) is tuple
            info = get_user.cache_info()
            print("l2" if info.l2_hits else "own")
        """)
    )
    (tmp_path / "cachekit.toml").write_text(
        'namespace = "shop"\n[backends.default]\nurl = "redis://127.0.0.1:1"\nbudget = "10s"\nadaptive = false\n'
        '[profiles.users]\nttl = "1h"\n'
    )
    (tmp_path / "pyproject.toml").write_text("")

    def run(**extra: str) -> str:
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("CACHEKIT_", "REDIS_"))}
        environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        done = subprocess.run(
            [sys.executable, "app.py"], cwd=tmp_path, env=environ | extra, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    cachekit_server.command("FLUSHALL")
    assert run(REDIS_URL=cachekit_server.url) == "computed own"
    assert run(REDIS_URL=cachekit_server.url) == "l2"
    assert run(CACHEKIT_PROFILES__USERS__BACKEND="none") == "computed own"
    assert run(REDIS_URL="redis://127.0.0.1:1") == "computed own", "a dead server changes nothing but the speed"


SHOP = """
import multiprocessing, sys
from dataclasses import dataclass
from enum import Enum
from cachekit import cache

class Colour(Enum):
    RED = 1

@dataclass
class User:
    name: str
    colour: Colour

@cache(profile="users")
def load(name: str) -> User:
    print("computed", end=" ")
    return User(name, Colour.RED)

def main():
    user = load("ann")
    assert type(user) is User and user.colour is Colour.RED, type(user).__module__
    print("l2" if load.cache_info().l2_hits else "own", flush=True)
"""


@pytest.fixture
def shop(cachekit_server: Any, tmp_path: Path) -> Any:
    """Runs Python where there is a program ``shop.py`` with the function and classes above."""
    (tmp_path / "shop.py").write_text(SHOP + 'if __name__ == "__main__":\n    main()\n')
    (tmp_path / "cachekit.toml").write_text(
        f'namespace = "shop"\n[backends.default]\nurl = "{cachekit_server.url}"\n[profiles.users]\nttl = "1h"\n'
    )
    cachekit_server.command("FLUSHALL")

    def run(*arguments: str) -> str:
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("CACHEKIT_", "REDIS_"))}
        environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        run.log = done.stderr  # type: ignore[attr-defined]
        return done.stdout.strip()

    run.folder, run.log = tmp_path, ""  # type: ignore[attr-defined]
    return run


def test_classes_of_a_program_are_those_of_its_file_imported(shop: Any) -> None:
    assert shop("shop.py") == "computed own"
    assert shop("-c", "import shop; shop.main()") == "l2"
    assert shop("-m", "shop") == "l2"
    (shop.folder / "spawns.py").write_text(
        SHOP + 'if __name__ == "__main__":\n    for method in ("spawn", "forkserver"):\n'
        "        worker = multiprocessing.get_context(method).Process(target=main)\n"
        "        worker.start(); worker.join()\n    main()\n"
    )
    assert shop("spawns.py").splitlines() == ["computed own", "l2", "l2"]


def test_a_class_of_another_program_does_not_come_back(shop: Any) -> None:
    """Each program gives the same function of a shared module its own class."""
    (shop.folder / "shared.py").write_text(
        "from cachekit import cache\nkinds = []\n\n@cache(profile='users')\ndef make(x: int):\n    return kinds[0](x)\n"
    )
    program = (
        "import shared\nfrom dataclasses import dataclass\n\n@dataclass\nclass User:\n    name: int\n\n"
        "shared.kinds.append(User)\nassert shared.make(1) == User(1)\nprint(shared.make.cache_info().l2_hits)\n"
    )
    for name in ("one", "two"):
        (shop.folder / f"{name}.py").write_text(program)
    assert [shop("-m", name) for name in ("one", "one", "two")] == ["0", "1", "0"]


def test_a_program_that_starts_itself_by_name_gets_the_classes_of_what_it_starts(shop: Any) -> None:
    (shop.folder / "starts.py").write_text(SHOP + 'if __name__ == "__main__":\n    import starts\n    starts.main()\n')
    assert [shop("starts.py"), shop("starts.py"), shop("starts.py")] == ["computed own", "l2", "l2"]


@pytest.mark.parametrize("order", ["main(); starts.main()", "starts.main(); main()", "main(); starts.main(); main()"])
def test_a_function_called_by_both_names_gives_the_classes_of_each(shop: Any, order: str) -> None:
    (shop.folder / "starts.py").write_text(SHOP + f'if __name__ == "__main__":\n    import starts\n    {order}\n')
    for _ in range(2):
        shop("starts.py")  # which looks at the classes
        assert "put it into a module of its own" in shop.log
