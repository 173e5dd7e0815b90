"""Keys and values, a fragment of a template, on a server."""

import os

from flask import Flask, render_template_string
from flask_caching import Cache, make_template_fragment_key

config = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": os.environ["REDIS_URL"], "CACHE_KEY_PREFIX": "shop"}
app = Flask(__name__)
cache = Cache(config=config)
cache.init_app(app)

with app.test_request_context():
    cache.set("greeting", {"text": "hello"}, timeout=0)
    print(cache.get("greeting"), cache.get("nothing"), cache.has("greeting"))
    cache.set_many({"a": 1, "b": 2})
    print(cache.get_many("a", "b", "c"), cache.get_dict("a", "b"), cache.add("a", 5))
    cache.delete("a")
    print(cache.get("a"))
    template = "{% cache 60, 'part' %}{{ number }}{% endcache %}"
    print(render_template_string(template, number=1), render_template_string(template, number=2))
    cache.delete(make_template_fragment_key("part"))
    print(render_template_string(template, number=3))
