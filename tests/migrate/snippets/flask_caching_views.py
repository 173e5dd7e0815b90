"""Views under a path, with and without the query."""

from flask import Flask, request
from flask_caching import Cache

app = Flask(__name__)
app.config.from_mapping({"CACHE_TYPE": "SimpleCache", "CACHE_DEFAULT_TIMEOUT": 300})
cache = Cache(app)
runs = []


@app.route("/")
@cache.cached(timeout=50)
def index():
    runs.append(request.headers.get("Authorization"))
    return f"page {len(runs)}"


@app.route("/works")
@cache.cached(timeout=50, query_string=True)
def works():
    runs.append(request.args.get("limit"))
    return f"works {request.args.get('limit')}"


client = app.test_client()
print(client.get("/").text, client.get("/?a=1").text, client.get("/", headers={"Authorization": "ann"}).text)
print([client.get(f"/works?limit={limit}").text for limit in (1, 2, 1)], runs)
with app.app_context():
    cache.delete("view//")
print(client.get("/").text, len(runs))
