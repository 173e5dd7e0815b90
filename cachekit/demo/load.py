"""A seeded load over HTTP, popular questions far more often than others, as people ask."""

import http.client
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlencode

from cachekit.demo.processes import DemoError, Worker
from cachekit.demo.worker import HOST

EACH = 40  # different questions of each kind
SKEW = 1.0  # of Zipf's law: the second question comes half as often as the first, the third a third
PATIENCE = 30.0  # seconds for one answer

NAMES = (
    "san", "berg", "ville", "new", "vienn", "york", "paris", "lond", "berlin", "tok", "roma", "mosc", "delhi", "cairo",
    "lima", "oslo", "prag", "lisb", "madrid", "rio", "santa", "port", "grad", "abad", "burg", "ham", "ford", "haven",
    "hill", "lake", "kyo", "shang", "guang", "nai", "lagos", "accra", "sydney", "auck", "toron", "monte",
)  # fmt: skip
COUNTRIES = (
    "US", "CN", "IN", "BR", "DE", "JP", "FR", "GB", "RU", "MX", "ID", "PH", "TR", "IT", "ES", "NG", "PK", "AR", "PL",
    "UA", "EG", "ZA", "CO", "IR", "TH", "KR", "MY", "VN", "AU", "CA", "NL", "BE", "SE", "AT", "CH", "PT", "GR", "CZ",
    "RO", "HU",
)  # fmt: skip


class Question(NamedTuple):
    """One request: the region that answers it, and its path."""

    region: str
    path: str

    @property
    def uncached(self) -> str:
        """The path that computes the answer without a cache."""
        return f"{self.path}{'&' if '?' in self.path else '?'}cached=false"


class Answer(NamedTuple):
    """What came back."""

    framework: str
    question: Question
    seconds: float
    status: int
    body: bytes


def questions(rng: random.Random) -> list[Question]:
    """All different ones, the most popular first."""
    places = [(round(rng.uniform(-45, 65), 2), round(rng.uniform(-120, 150), 2)) for _ in range(EACH)]
    found = [Question("nearest", "/nearest?" + urlencode({"lat": lat, "lon": lon})) for lat, lon in places]
    found += [Question("names", "/search?" + urlencode({"q": name})) for name in NAMES[:EACH]]
    found += [Question("rankings", f"/ranking/{country}") for country in COUNTRIES[:EACH]]
    rng.shuffle(found)
    return found


def draw(count: int, seed: int) -> list[Question]:
    """The load: ``count`` questions by Zipf's law. The same seed gives the same ones."""
    rng = random.Random(seed)
    known = questions(rng)
    return rng.choices(known, [1 / rank**SKEW for rank in range(1, len(known) + 1)], k=count)


@dataclass
class Progress:
    """How many answers have come so far; a thread counts, another one shows."""

    wanted: int
    done: int = 0


def ask(
    workers: Sequence[Worker],
    wanted: Sequence[Question],
    *,
    cached: bool,
    watch: Callable[[Progress], object] = lambda progress: None,
) -> list[Answer]:
    """Ask every question, one client per worker, each its share; ``watch`` is called about four times a second.

    One client per worker, so that an answer's time is the answer's own and not the queue before it.
    """
    progress, lock, stop = Progress(len(wanted)), threading.Lock(), threading.Event()
    answers: list[Answer] = []
    failures: list[str] = []

    def client(worker: Worker, share: Sequence[Question]) -> None:
        try:
            for answer in talk(worker, share, cached=cached):
                with lock:
                    answers.append(answer)
                    progress.done += 1
                if stop.is_set():
                    return
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"the {worker.framework} worker does not answer: {error or type(error).__name__}")

    clients = [
        threading.Thread(target=client, args=(worker, wanted[first :: len(workers)]), daemon=True)
        for first, worker in enumerate(workers)
    ]
    for thread in clients:
        thread.start()
    try:
        for thread in clients:
            while thread.is_alive():
                thread.join(0.25)
                watch(progress)
    finally:
        stop.set()  # also on Ctrl-C
    if failures:
        raise DemoError(failures[0])
    return answers


def talk(worker: Worker, share: Sequence[Question], *, cached: bool) -> Iterator[Answer]:
    """Ask one worker on one connection."""
    connection = http.client.HTTPConnection(HOST, worker.port, timeout=PATIENCE)
    try:
        for question in share:
            started = time.perf_counter()
            connection.request("GET", question.path if cached else question.uncached)
            response = connection.getresponse()
            body = response.read()
            yield Answer(worker.framework, question, time.perf_counter() - started, response.status, body)
    finally:
        connection.close()
