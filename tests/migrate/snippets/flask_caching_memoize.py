"""Functions by their arguments, removed one by one or all."""

from flask import Flask
from flask_caching import Cache

cache = Cache()
runs = []


@cache.memoize(timeout=50)
def add(first, second):
    runs.append((first, second))
    return first + second


@cache.memoize(0)
def find(name):
    runs.append(name)
    return None


def create_app():
    app = Flask(__name__)
    cache.init_app(app, config={"CACHE_TYPE": "SimpleCache"})
    return app


with create_app().app_context():
    print(add(1, 2), add(1, 2), add(2, 1), runs)
    cache.delete_memoized(add, 1, 2)
    print(add(1, 2), add(2, 1), runs)
    cache.delete_memoized(add)
    print(add(1, 2), add(2, 1), len(runs))
    print(find("nobody"), find("nobody"), len(runs))
