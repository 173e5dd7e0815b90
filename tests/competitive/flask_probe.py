"""An application for `Cache` of Flask-Caching, or ours with its defaults: what a row of requests is answered, as text.

python flask_probe.py peer | ours
"""

import sys

from flask import Flask, abort, request

if sys.argv[1] == "peer":
    from flask_caching import Cache

    cache = Cache(config={"CACHE_TYPE": "SimpleCache"})
else:
    from cachekit.integrations.flask import Cache  # type: ignore[assignment]

    cache = Cache(config={"CACHE_TYPE": "SimpleCache"}, flask_caching_defaults=True)  # type: ignore[call-arg]

app = Flask("probe")
runs = 0


def counted():
    global runs
    runs += 1


def page():
    counted()
    who = request.headers.get("Authorization"), request.headers.get("Cookie")
    return f"{request.method} {request.host} {request.full_path} {who}"


def failing():
    counted()
    return "down", 500, {"Set-Cookie": "sid=1"}


def missing():
    counted()
    abort(404)


@cache.cached(key_prefix="values")
def values():
    counted()
    return [1]


@cache.memoize()
def nothing():
    counted()


VIEWS = {
    "/page": (page, {}),
    "/query": (page, {"query_string": True}),
    "/prefix": (page, {"key_prefix": "all"}),
    "/prefix-too": (page, {"key_prefix": "all"}),
    "/failing": (failing, {}),
    "/missing": (missing, {}),
    "/filtered": (page, {"response_filter": lambda response: False}),
    "/unless": (page, {"unless": lambda: True}),
    "/forced": (page, {"forced_update": lambda: True}),
    "/keyed": (page, {"make_cache_key": lambda *args, **kwargs: "key"}),
    "/values": (lambda: str(values()), {"unless": lambda: True}),
}
REQUESTS = [
    ("/page", {}), ("/page?x=1", {}), ("/page", {"method": "POST"}), ("/page", {"method": "HEAD"}),
    ("/page", {"headers": {"Authorization": "bob", "Cookie": "sid=bob"}}), ("/page", {"base_url": "http://evil.test"}),
    ("/query?a=1&b=2", {}), ("/query?b=2&a=1", {}), ("/query", {}), ("/prefix", {}), ("/prefix-too", {}),
    *[(path, {}) for path in ("/failing", "/missing", "/filtered", "/unless", "/forced", "/keyed", "/values")] * 2,
]  # fmt: skip

for path, (view, options) in VIEWS.items():
    app.add_url_rule(path, path, cache.cached(**options)(view), methods=["GET", "POST"])
cache.init_app(app)
client = app.test_client(use_cookies=False)
for path, options in REQUESTS:
    answer = client.open(path, **options)
    print(path, options, answer.status_code, repr(answer.text), answer.headers.get("Set-Cookie"), runs)
with app.app_context():
    nothing(), nothing()
print("memoize", runs)
