"""What is rewritten, and what is left as it is with a comment.

How it could break: something is rewritten that would not be the same program; a comment is missing, or comes again with
every run; a name of the module is taken for another; the rest of the file changes: its encoding, line ends, comments.
"""

from pathlib import Path
from textwrap import dedent

import pytest

from cachekit.migrate import NotPython, migrate

pytestmark = pytest.mark.slow

PATH = Path("/project/shop.py")
UNLIMITED = 'l1={"max_entries": 1_000_000_000, "max_bytes": "1024GiB"}'


def after(source: str) -> str:
    """The module rewritten, and once more, which must change nothing."""
    text = migrate(dedent(source).encode(), PATH)
    assert migrate(text, PATH) == text
    compile(text, "shop.py", "exec")
    return text.decode()


def notes(text: str) -> list[str]:
    return [line.partition("# cachekit: ")[2] for line in text.splitlines() if "# cachekit: " in line]


def without_notes(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if "# cachekit: " not in line)


def lru(most: object) -> str:
    return f'l1={{"policy": "lru", "max_entries": {most}, "max_bytes": "1024GiB"}}'


@pytest.mark.parametrize(
    ("imports", "decorator", "result"),
    [
        ("import functools", "functools.lru_cache", f'cache(ttl=None, backend=None, isolation="share", {lru(128)})'),
        (
            "from functools import lru_cache as remember",
            "remember(64, True)",
            f'cache(ttl=None, backend=None, isolation="share", {lru(64)})',
        ),
        ("from functools import cache", "cache", f'cache(ttl=None, backend=None, isolation="share", {UNLIMITED})'),
        (
            "import settings\nfrom functools import lru_cache",
            "lru_cache(maxsize=settings.SIZE)",
            f'cache(ttl=None, backend=None, isolation="share", {lru("settings.SIZE")})',
        ),
        (
            "from cachetools import TTLCache, cached",
            "cached(TTLCache(10, ttl=60))",
            f'cache.minimal(ttl=60, backend=None, isolation="share", {lru(10)})',
        ),
        (
            "import cachetools, cachetools.keys",
            "cachetools.cached(cache={}, key=cachetools.keys.methodkey)",
            f'cache(ttl=None, backend=None, isolation="share", {UNLIMITED}, ignore=("x",))',
        ),
        (
            "from cachetools.func import ttl_cache",
            "ttl_cache()",
            f'cache.minimal(ttl=600, backend=None, isolation="share", {lru(128)})',
        ),
    ],
)
def test_a_decorator_becomes(imports: str, decorator: str, result: str) -> None:
    text = after(f"{imports}\n@{decorator}\ndef f(x): ...\n")
    assert f"\n@cachekit.{result}\ndef f(x): ...\n" in text
    assert notes(text) == []
    assert "import cachekit\n" in text


@pytest.mark.parametrize(
    ("imports", "decorator", "result"),
    [
        ("from aiocache import cached", "cached()", f'ttl=None, backend=None, isolation="share", {UNLIMITED}'),
        ("import aiocache", "aiocache.cached(5)", f'ttl=5, backend=None, isolation="share", {UNLIMITED}'),
        ("from aiocache import RedisCache, cached", "cached(ttl=5, cache=RedisCache, endpoint='a')", "ttl=5"),
        (
            "from aiocache import Cache, cached_stampede",
            "cached_stampede(lease=3, ttl=5, cache=Cache.REDIS)",
            'ttl=5, lease="auto"',
        ),
    ],
)
def test_a_coroutine_function_of_aiocache_becomes(imports: str, decorator: str, result: str) -> None:
    text = after(f"{imports}\n@{decorator}\nasync def f(x): ...\n")
    first, *rest = result.split(", lease")
    lease = "".join(f", lease{each}" for each in rest)
    assert f"@cachekit.cache.minimal({first}, cache_none=False{lease})\n" in text
    assert "aiocache" not in without_notes(text)


@pytest.mark.parametrize(
    ("source", "note"),
    [
        ("@lru_cache(maxsize=0)\ndef f(x): ...", "a cache with room for nothing"),
        ("@lru_cache\nasync def f(x): ...", "coroutines were cached"),
        ("@lru_cache\ndef f(x): yield x", "a generator is used up"),
        ("@lru_cache(**options)\ndef f(x): ...", "write the options out"),
        ("f = lru_cache(maxsize=3)(len)", "only functions with a decorator"),
        ("cachekit = 1\n@lru_cache\ndef f(x): ...", "this module uses the name 'cachekit'"),
        ("@cached(LFUCache(3))\ndef f(x): ...", "cachekit evicts by"),
        ("@cached(TTLCache(3, 60, timer=clock))\ndef f(x): ...", "TTLCache's timer= has no counterpart"),
        ("@cached(LRUCache(3, getsizeof=len))\ndef f(x): ...", "LRUCache's getsizeof= has no counterpart"),
        ("@cached(TTLCache(3, 0))\ndef f(x): ...", "a time to live is more than 0"),
        ("@cached(make())\ndef f(x): ...", "decide which limits"),
        ("@cached({})\ndef f(x): ...\nf.cache.clear()", "f.cache has no counterpart"),
        ("c = LRUCache(3)\n@cached(c)\ndef f(x): ...\nc.clear()", "c is used elsewhere"),
        ("c = LRUCache(3)\n@cached(c)\ndef f(x): ...\n@cached(c)\ndef g(x): ...", "c is used elsewhere"),
        ("class A:\n    @cachedmethod(get)\n    def f(self, x): ...", "one cache for all instances"),
        ("@aiocached(alias='default')\nasync def f(x): ...", "aiocache's alias= has no counterpart"),
        ("@aiocached(plugins=[1], cache=Cache.REDIS)\nasync def f(x): ...", "aiocache's plugins= has no counterpart"),
        ("@aiocached(key='k')\nasync def f(): ...\n@aiocached(key='k')\nasync def g(): ...", "this key is used"),
        ("@aiocached()\nasync def f(x): ...\nf(1, cache_read=False)", "cache_read= of a call"),
        ("@aiocached(serializer=Mine())\nasync def f(x): ...", "another serializer"),
        ("class A:\n    @aiocached(key_builder=k)\n    async def f(self, x): ...", "key_builder= of a method"),
        ("@multi_cached('ids')\nasync def f(ids): ...", "several keys of one call"),
        ("c = Cache(Cache.MEMORY)", "keys and values without a function"),
        ("class A(B, k='k'): ...\n@aiocached(key='k')\nasync def f(): ...\nc.get('k')", "this key is used"),
        ("r = make_region()", "decide where entries are kept"),
        ("r = make_region().configure('dogpile.cache.dbm')", "there is no counterpart of the backend"),
        ("r = make_region().configure('dogpile.cache.memory')\nuse(r)", "r is given to others"),
        ("r = make_region().configure('dogpile.cache.memory')\nr.get_multi(['a'])", "r.get_multi() has no counterpart"),
        ("r = make_region().configure('dogpile.cache.memory')\nr.invalidate(hard=False)", "invalidate(hard=False)"),
        (
            "r = make_region().configure('dogpile.cache.memory')\n@r.cache_on_arguments(expiration_time=now)\n"
            "def f(x): ...",
            "expiration_time= is known only at run time",
        ),
        ("def f():\n    r = make_region().configure('dogpile.cache.memory')", "only a region that one variable"),
        ("r = make_region()\nif late: r.configure('dogpile.cache.memory')", "write one statement on a line"),
        ("if late: c = LRUCache(3)\n@cached(c)\ndef f(x): ...", "c is used elsewhere"),
        ("register(make_region())", "only a region that a variable"),
        ("@app.get('/')\n@fastapi(expire=None)\nasync def f(): ...", "expire= is not known here"),
        ("@app.get('/')\n@fastapi(expire=9, key_builder=k)\nasync def f(): ...", "key_builder=: host, path"),
        ("@app.post('/')\n@fastapi(expire=9)\nasync def f(): ...", "fastapi_cache kept GET alone"),
        ("@fastapi(expire=9)\ndef f(): ...", "this function became a coroutine function"),
        ("FastAPICache.init(backend)", "remove this when nothing decorates"),
        ("from django_redis import get_redis_connection as c\nc('default')", "commands on the server itself"),
        ("import flask_caching", "write: from cachekit.integrations.flask import Cache"),
        ("from flask_caching.backends import FileSystemCache", "cachekit.integrations.flask has"),
    ],
)
def test_what_would_be_another_program_stays_and_is_commented(source: str, note: str) -> None:
    imports = {
        "lru_cache": "from functools import lru_cache\n",
        "cached(": "from cachetools import LFUCache, LRUCache, TTLCache, cached, cachedmethod\n",
        "cachedmethod": "from cachetools import cachedmethod\n",
        "aiocached": "from aiocache import Cache, cached as aiocached\n",
        "Cache(Cache": "from aiocache import Cache\n",
        "multi_cached": "from aiocache import multi_cached\n",
        "make_region": "from dogpile.cache import make_region\n",
        "FastAPICache": "from fastapi_cache import FastAPICache\n",
        "fastapi(": "from fastapi_cache.decorator import cache as fastapi\n",
    }
    source = "".join(line for word, line in imports.items() if word in source) + source + "\n"
    text = after(source)
    assert without_notes(text) == source
    assert notes(text)
    assert all(each.startswith(note) or note in each for each in notes(text))


def test_a_region_is_rewritten_as_a_whole_or_not_at_all() -> None:
    source = """\
        from dogpile.cache import make_region
        r = make_region().configure("dogpile.cache.memory")
        @r.cache_on_arguments()
        def f(x): ...
        r.get_or_create("k", f, should_cache_fn=bool)
        """
    assert without_notes(after(source)) == dedent(source)


def test_a_look_up_that_finds_nothing_is_pointed_out() -> None:
    text = after("""\
        from dogpile.cache import make_region
        from dogpile.cache.api import NO_VALUE
        r = make_region().configure("dogpile.cache.memory", expiration_time=-1)
        if r.get("k") is NO_VALUE:
            pass
        """)
    assert 'if r.get("k", cachekit.MISS) is cachekit.MISS:' in text
    assert 'cachekit.define("shop.r", extends="minimal", ttl=None, backend="none"' in text
    assert notes(text) == [
        "a look-up without a result is cachekit.MISS: compare with `is`, for it is not false as NO_VALUE was"
    ]
    assert "dogpile" not in text


def test_a_statement_that_shares_its_line_does_not_take_the_line_with_it() -> None:
    text = after("""\
        from fastapi_cache import FastAPICache
        from fastapi_cache.decorator import cache
        if late: FastAPICache.init(backend)
        @app.get("/")
        @cache(expire=9)
        async def f(): ...
        """)
    assert "if late: FastAPICache.init(backend)\n" in text
    assert notes(text)[0] == "remove this when nothing decorates with fastapi_cache any more"


def test_a_region_is_named_by_its_module_and_packages(tmp_path: Path) -> None:
    source = b"from dogpile.cache import make_region\nr = make_region().configure('dogpile.cache.memory')\n"
    (tmp_path / "shop" / "users").mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "users" / "__init__.py").touch()
    for name, region in {"caches.py": "shop.users.caches.r", "__init__.py": "shop.users.r"}.items():
        assert f'cachekit.region("{region}")' in migrate(source, tmp_path / "shop" / "users" / name).decode()
    assert 'cachekit.region("caches.r")' in migrate(source, tmp_path / "caches.py").decode()


def test_imports_inside_of_functions_and_names_of_other_scopes() -> None:
    text = after("""\
        def f():
            from functools import lru_cache
            @lru_cache
            def g(lru_cache): return lru_cache
            return g
        """)
    assert "            @cachekit.cache(ttl=None" in text.replace("    @", "            @", 1)
    assert "functools" not in text


def test_the_connection_of_a_decorator_is_pointed_out_only_where_it_is_dropped() -> None:
    assert notes(after("from aiocache import Cache, cached\n@cached(cache=Cache.REDIS)\nasync def f(): ...\n")) == [
        "the server is that of REDIS_URL or cachekit.toml; so are namespace= and the like",
        "popular values are kept in the process, too; l1 = {mode = 'off'} asks the server each time",
        "hits came back through JSON, tuples as lists; now they are what the function returned",
    ]


def test_flask_keeps_its_defaults_and_says_so() -> None:
    text = after("""\
        from flask_caching import Cache
        cache = Cache(config={"CACHE_TYPE": "FileSystemCache"})
        """)
    assert "from cachekit.integrations.flask import Cache\n" in text
    assert 'Cache(config={"CACHE_TYPE": "FileSystemCache"}, flask_caching_defaults=True)' in text
    assert len(notes(text)) == 3
    assert "there is no such store here" in notes(text)[-1]


def test_options_of_django_redis_that_mean_something_stay_and_are_commented() -> None:
    text = after("""\
        CACHES = {
            "default": {
                "BACKEND": "django_redis.cache.RedisCache",
                "TIMEOUT": None,
                "OPTIONS": {"CLIENT_CLASS": "django_redis.client.DefaultClient", "PASSWORD": SECRET},
            },
            "other": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        }
        """)
    assert '"BACKEND": "cachekit.integrations.django.CacheKitCache",\n' in text
    assert '"OPTIONS": {"PASSWORD": SECRET, "extends": "minimal"},\n' in text
    assert "locmem" in text
    assert text.count("TIMEOUT") == 1
    assert "OPTIONS['PASSWORD'] is django-redis's" in notes(text)[-1]


def test_comments_and_spread_entries_of_settings_stay() -> None:
    text = after("""\
        CACHES = {
            "default": {
                "BACKEND": "django_redis.cache.RedisCache",  # fast
                # the address
                "LOCATION": URL,  # of the cache
                "OPTIONS": {"CLIENT_CLASS": "django_redis.client.DefaultClient"},
            },
            "other": {"BACKEND": "django_redis.cache.RedisCache", **COMMON},
        }
        """)
    for comment in ("  # fast\n", "        # the address\n", "  # of the cache\n"):
        assert comment in text
    assert '"OPTIONS": {"extends": "minimal"},\n        "TIMEOUT": 300,\n    },\n' in text
    assert '"other": {"BACKEND": "cachekit.integrations.django.CacheKitCache", **COMMON},' in text
    assert any("what is made elsewhere" in each for each in notes(text))


def test_flask_is_rewritten_only_if_all_that_is_imported_exists_here() -> None:
    text = after("from flask_caching import Cache, Unknown\ncache = Cache(app)\n")
    assert without_notes(text) == "from flask_caching import Cache, Unknown\ncache = Cache(app)\n"


def test_settings_of_fastapi_cache_that_are_not_the_backend_stay() -> None:
    text = after("""\
        from fastapi_cache import FastAPICache
        from fastapi_cache.decorator import cache
        FastAPICache.init(backend, prefix="shop", enable=False)
        @app.get("/")
        @cache(expire=9, namespace="")
        async def f(): ...
        """)
    assert 'FastAPICache.init(backend, prefix="shop", enable=False)\n' in text
    assert '@cached_response(profile="minimal", ttl=9, client_ttl=9)\n' in text
    assert notes(text)[0].startswith("what these options said")


def test_a_return_annotation_that_fastapi_did_not_see_is_pointed_out() -> None:
    route = "from fastapi_cache.decorator import cache\n@app.get('/'{})\n@cache(expire=5)\nasync def f(){}: ...\n"
    assert len(notes(after(route.format("", " -> int")))) == 3
    assert len(notes(after(route.format(", response_model=int", " -> int")))) == 2
    assert len(notes(after(route.format("", "")))) == 2


def test_names_are_those_that_imports_give() -> None:
    source = "def lru_cache(f): return f\n@lru_cache\ndef functools(x): ...\n"
    assert after(source) == source
    source = "class functools:\n    lru_cache = staticmethod(id)\n@functools.lru_cache\ndef f(x): ...\n"
    assert after(source) == source
    source = "from functools import wraps\nfrom mine import lru_cache\n@lru_cache\ndef f(x): ...\n"
    assert after(source) == source


def test_imports_that_are_still_used_stay() -> None:
    text = after("""\
        from __future__ import annotations
        from functools import lru_cache, wraps
        from .conf import SIZE, other
        @lru_cache(maxsize=SIZE)
        def f(x): ...
        @lru_cache(maxsize=0)
        def g(x): ...
        """)
    assert "from functools import lru_cache, wraps\n" in text
    assert "from .conf import SIZE, other\n" in text
    assert text.startswith("from __future__ import annotations\n")


def test_the_rest_of_a_file_stays_as_it_is() -> None:
    source = (
        "# -*- coding: latin-1 -*-\r\nfrom functools import lru_cache\r\n\r\n"
        "@lru_cache  # Größe\r\ndef f(x) :\r\n\treturn  x # ü\r\n"
    ).encode("latin-1")
    text = migrate(source, PATH)
    assert text.startswith(b"# -*- coding: latin-1 -*-\r\nimport cachekit\r\n")
    assert text.endswith("  # Größe\r\ndef f(x) :\r\n\treturn  x # ü\r\n".encode("latin-1"))
    assert text.count(b"\n") == text.count(b"\r\n")


@pytest.mark.parametrize(
    "source", [b"functools(", b"\xff\xfe functools", b"# coding: none\nfunctools", b"x = " + b"(" * 3000 + b"functools"]
)
def test_what_is_no_python_is_an_error_that_says_so(source: bytes) -> None:
    with pytest.raises(NotPython):
        migrate(source, PATH)
