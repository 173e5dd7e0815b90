"""A worker of Celery whose broker is in its own memory: one task, which leaves a refresh behind."""

import sys

import ending_app
from celery import Celery

app = Celery("ending", broker="memory://", backend="cache+memory://")
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)


@app.task(name="ask")
def ask() -> None:
    ending_app.ask()
    ending_app.wait("begun")


if __name__ == "__main__":
    ask.delay()
    app.worker_main(["worker", "--concurrency=1", "--without-gossip", "--without-mingle", *sys.argv[1:]])
