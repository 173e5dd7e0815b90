"""An application for several processes: a page that takes half a second, and says in a file that it was made."""

import os
import time
from pathlib import Path

from flask import Flask

from cachekit.integrations.flask import CacheKit

RUNS = Path(os.environ["PAGES_RUNS"])

app = Flask(__name__)
backend = {"url": os.environ["PAGES_URL"], "budget": "10s", "adaptive": False}  # the machine may be busy
cache = CacheKit(app, config={"namespace": "pages", "backends": {"default": backend}})


@app.route("/")
@cache.cached(timeout="1m")
def index() -> str:
    with RUNS.open("a") as runs:
        runs.write(f"{os.getpid()}\n")
    time.sleep(0.5)
    return "the same for all"


@app.route("/pid")
def pid() -> str:
    return str(os.getpid())
