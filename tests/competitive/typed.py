"""Programs that decorate a function and use it wrongly: which mistakes does a type checker see?"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# What a user writes to decorate.
DECORATIONS = {
    "cachekit": ("from cachekit import cache", "@cache(ttl=60)"),
    "lru_cache": ("from functools import lru_cache", "@lru_cache(maxsize=100)"),
    "cachetools": ("from cachetools import TTLCache, cached", "@cached(TTLCache(100, 60))"),
    "aiocache": ("from aiocache import cached", "@cached(ttl=60)"),
    "redis-cache": (
        "from redis import Redis\nfrom redis_cache import RedisCache\ncache = RedisCache(redis_client=Redis())",
        "@cache.cache(ttl=60)",
    ),
    "dogpile.cache": (
        "from dogpile.cache import make_region\nregion = make_region().configure('dogpile.cache.memory')",
        "@region.cache_on_arguments()",
    ),
    "cashews": ("from cashews import cache\ncache.setup('mem://')", "@cache(ttl=60)"),
    "Flask-Caching": ("from flask_caching import Cache\ncache = Cache()", "@cache.memoize(60)"),
    "fastapi-cache2": ("from fastapi_cache.decorator import cache", "@cache(expire=60)"),
    "cachekit.io": ("from cachekit import cache", "@cache(ttl=60)"),
}
PROGRAM = """{start}

{decorator}
async def doubled(number: int) -> float:
    return 2.0 * number

async def main() -> None:
    result: bytes = await doubled(1)
    await doubled("one")
"""


def a_type_checker_sees(name: str, python: Path | str, directory: Path) -> str:
    """What mypy says of the two mistakes, with the types that the library has in that environment."""
    start, decorator = DECORATIONS[name]
    text = PROGRAM.format(start=start, decorator=decorator)
    if name in ("lru_cache", "cachetools", "redis-cache", "dogpile.cache", "Flask-Caching"):  # for functions first
        text = text.replace("async def doubled", "def doubled").replace("await ", "")
    program = directory / "program.py"
    program.write_text(text)
    # An editable install is none to mypy, so it is shown where ours lies.
    environment = os.environ | ({"MYPYPATH": str(ROOT)} if name == "cachekit" else {})
    command = [sys.executable, "-m", "mypy", "--python-executable", str(python), "--ignore-missing-imports"]
    done = subprocess.run(
        [*command, "--cache-dir", str(directory / "cache"), program.name],
        cwd=directory,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    lines = [int(line) for line in re.findall(r"^program\.py:(\d+): error", done.stdout, re.MULTILINE)]
    result, argument = text.count("\n") - 1, text.count("\n")
    return {(True, True): "both", (True, False): "the result", (False, True): "the argument"}.get(
        (result in lines, argument in lines), "nothing"
    )
