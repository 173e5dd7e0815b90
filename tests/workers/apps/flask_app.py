import work
from flask import Flask

from cachekit.integrations.flask import CacheKit

app = Flask(__name__)
CacheKit(app)
work.answer(0)  # before gunicorn forks: what it counts belongs to no worker


@app.get("/work/<int:n>")
def answer(n: int) -> dict[str, int]:
    return work.answer(n)


@app.get("/many/<int:start>/<int:count>")
def many(start: int, count: int) -> str:
    return str(work.many(start, count))
