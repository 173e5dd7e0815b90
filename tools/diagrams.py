"""Draw the diagrams of docs/images, readable on light and dark pages.

.venv/bin/python tools/diagrams.py            draw them
.venv/bin/python tools/diagrams.py --check    only tell whether they are up to date
"""

import argparse
import random
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path

from cachekit.config.spec import BackendSpec
from cachekit.l2.budget import Budget

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
STYLE = """
  svg { color-scheme: light dark; font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; }
  .page { fill: #ffffff; stroke: #d1d9e0; }
  text { fill: #1f2328; }
  .strong { font-weight: 600; }
  .quiet { fill: #59636e; font-size: 12px; }
  .box { fill: #f6f8fa; stroke: #8c959f; }
  .box.ours { fill: #fff1e5; stroke: #d9570d; }
  .line { stroke: #59636e; fill: none; }
  .line.ours { stroke: #d9570d; stroke-width: 2; }
  .dashed { stroke-dasharray: 4 4; }
  .head { fill: #59636e; }
  .dot { fill: #9db4d0; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #30363d; }
    text { fill: #e6edf3; }
    .quiet { fill: #9198a1; }
    .box { fill: #161b22; stroke: #6e7681; }
    .box.ours { fill: #33200f; stroke: #f0883e; }
    .line { stroke: #9198a1; }
    .line.ours { stroke: #f0883e; }
    .head { fill: #9198a1; }
    .dot { fill: #46648a; }
  }
"""
HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
    'orient="auto-start-reverse"><path class="head" d="M0 0 8 4 0 8z"/></marker></defs>'
)


class Drawing:
    """Boxes, arrows and texts on a page of so many points."""

    def __init__(self, title: str, width: int, height: int) -> None:
        self.title, self.width, self.height = title, width, height
        self.parts: list[str] = []

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> None:
        self.parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>')

    def box(self, x: float, y: float, width: float, height: float, *lines: str, kind: str = "") -> None:
        """The first line is its name."""
        self.parts.append(
            f'<rect class="box {kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>'
        )
        top = y + height / 2 - 9 * (len(lines) - 1) + 4.5
        for number, line in enumerate(lines):
            self.text(x + width / 2, top + 18 * number, line, "quiet" if number else "strong")

    def line(self, *points: tuple[float, float], arrow: bool = True, kind: str = "") -> None:
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        end = ' marker-end="url(#head)"' if arrow else ""
        self.parts.append(f'<polyline class="line {kind}" points="{path}"{end}/>')

    def svg(self) -> str:
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" aria-labelledby="title">',
            f'<title id="title">{escape(self.title)}</title>', f"<style>{STYLE}</style>", HEAD,
            f'<rect class="page" x="0.5" y="0.5" width="{self.width - 1}" height="{self.height - 1}" rx="8"/>',
            *self.parts, "</svg>", "",
        ])  # fmt: skip


def data_flow() -> Drawing:
    drawing = Drawing("The way of a call through both tiers", 860, 330)
    names = (
        ("L1", "fresh here?"), ("flight", "somebody computes it?"), ("L2", "fresh there?"),
        ("lease", "may I compute it?"), ("your function", "runs once"),
    )  # fmt: skip
    for number, (name, question) in enumerate(names):
        x = 24 + 165 * number
        drawing.box(x, 60, 150, 60, name, question, kind="ours" if number == 4 else "")
        if number:
            drawing.line((x - 15, 90), (x - 1, 90))
    drawing.text(24, 36, "a call that misses goes to the right", "quiet", "start")
    for number, answer in enumerate(("a hit", "their result, a copy", "put into L1", "woken, then L2 again")):
        x = 99 + 165 * number
        drawing.line((x, 120), (x, 168), kind="dashed")
        drawing.text(x, 186, answer, "quiet")
    drawing.line((759, 120), (759, 240), (611, 240))
    drawing.box(456, 215, 154, 50, "store in L2", "unless invalidated since")
    drawing.line((456, 240), (291, 240))
    drawing.box(136, 215, 154, 50, "put into L1", "unless invalidated since")
    drawing.line((136, 240), (25, 240))
    drawing.text(24, 300, "every caller who waited gets a copy of its own", "quiet", "start")
    return drawing


def circuit_breaker() -> Drawing:
    drawing = Drawing("The three states of the breaker", 860, 260)
    drawing.box(40, 90, 170, 70, "closed", "L2 is asked")
    drawing.box(345, 90, 170, 70, "open", "L2 is not asked")
    drawing.box(650, 90, 170, 70, "half open", "one call tries")
    drawing.line((210, 110), (344, 110))
    drawing.text(277, 82, "5 failures in a row,", "quiet")
    drawing.text(277, 98, "or half of 20 in 10 s", "quiet")
    drawing.line((515, 110), (649, 110))
    drawing.text(582, 98, "after 2 s", "quiet")
    drawing.line((650, 140), (516, 140))
    drawing.text(582, 160, "it fails: twice the", "quiet")
    drawing.text(582, 176, "pause, at most 30 s", "quiet")
    drawing.line((735, 160), (735, 220), (125, 220), (125, 161))
    drawing.text(430, 212, "it succeeds", "quiet")
    drawing.line((80, 90), (80, 48), (170, 48), (170, 89))
    drawing.text(125, 40, "answers", "quiet")
    return drawing


def distributed_locking() -> Drawing:
    drawing = Drawing("Two processes that miss one key at the same time", 860, 400)
    lanes = {"first": 150.0, "server": 430.0, "second": 710.0}
    for name, title in (("first", "process A"), ("server", "Redis or Valkey"), ("second", "process B")):
        drawing.box(lanes[name] - 80, 20, 160, 36, title)
        drawing.line((lanes[name], 56), (lanes[name], 380), arrow=False, kind="dashed")

    def say(y: float, begin: str, end: str, text: str) -> None:
        drawing.line((lanes[begin], y), (lanes[end], y))
        drawing.text((lanes[begin] + lanes[end]) / 2, y - 7, text, "quiet")

    say(92, "first", "server", "value of the key, or the lease?")
    say(122, "server", "first", "no value; the lease is yours")
    say(152, "second", "server", "value of the key, or the lease?")
    say(182, "server", "second", "no value; somebody has the lease")
    drawing.box(70, 196, 160, 60, "the function runs", "the lease is renewed", kind="ours")
    drawing.box(630, 196, 160, 60, "waits", "at most lease_wait")
    say(290, "first", "server", "store, if the lease is still mine")
    say(320, "server", "second", "the key has changed")
    say(350, "second", "server", "value of the key?")
    say(376, "server", "second", "the value")
    return drawing


def adaptive_timeouts() -> Drawing:
    """Made by the budget itself, of drawn times: a quick server, a slower one, one that hangs, a quick one again."""
    drawing = Drawing("The budget follows what operations take", 860, 330)
    left, right, top, bottom, most = 70, 830, 40, 270, 0.3
    budget, rng = Budget(BackendSpec(name="default")), random.Random(7)
    count, line = 1800, []

    def at(number: int, seconds: float) -> tuple[float, float]:
        return (left + (right - left) * number / count, bottom - (bottom - top) * min(seconds, most) / most)

    for number in range(count):
        mean = 0.002 if number < 300 or number >= 755 else 0.02 if number < 750 else 9.0
        took = mean * rng.lognormvariate(0, 0.5)
        given = budget.next()
        budget.observe(min(took, given), censored=took > given)
        if number % 5 == 0:
            x, y = at(number, min(took, given))
            drawing.parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="1.6"/>')
            line.append((round(x, 1), round(at(number, given)[1], 1)))
    for milliseconds in (0, 20, 100, 250):
        y = at(0, milliseconds / 1000)[1]
        drawing.line((left, y), (right, y), arrow=False, kind="dashed")
        drawing.text(left - 8, y + 4, f"{milliseconds} ms", "quiet", "end")
    drawing.line(*line, arrow=False, kind="ours")
    for number, text in ((150, "quick"), (525, "ten times slower, then five that hang"), (1280, "quick again")):
        drawing.text(at(number, 0)[0], bottom + 22, text, "quiet")
    drawing.text(
        left, bottom + 46, "line: the budget of the next operation; dots: operations, in their order", "quiet", "start"
    )
    return drawing


def zero_knowledge_encryption() -> Drawing:
    drawing = Drawing("What the process has and what the server has", 860, 270)
    drawing.box(24, 24, 470, 222, kind="")
    drawing.text(44, 50, "your process", "strong", "start")
    drawing.box(544, 24, 292, 222, kind="")
    drawing.text(564, 50, "the server, its disks, its backups", "strong", "start")
    drawing.box(44, 68, 170, 56, "value", "as the function returned it", kind="ours")
    drawing.box(300, 68, 174, 56, "AES-256-GCM", "bound to key and header")
    drawing.box(44, 166, 170, 56, "master key", "from the environment", kind="ours")
    drawing.box(300, 166, 174, 56, "HKDF-SHA256", "namespace, region, tenant")
    drawing.line((214, 96), (299, 96))
    drawing.text(256, 88, "compressed", "quiet")
    drawing.line((214, 194), (299, 194))
    drawing.line((387, 166), (387, 125))
    drawing.line((474, 96), (563, 96))
    drawing.box(564, 68, 252, 56, "sealed bytes", "and times, stamps, size, id of the key")
    drawing.box(564, 166, 252, 56, "names", "digests of keys and tags")
    return drawing


DIAGRAMS: tuple[Callable[[], Drawing], ...] = (
    data_flow, circuit_breaker, distributed_locking, adaptive_timeouts, zero_knowledge_encryption,
)  # fmt: skip


def files() -> dict[Path, str]:
    """Every diagram by its file."""
    return {FOLDER / f"{draw.__name__.replace('_', '-')}.svg": draw().svg() for draw in DIAGRAMS}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for file, text in files().items():
        if not check:
            file.write_text(text)
        elif file.read_text() != text:
            sys.exit(f"{file.name} is not what {Path(__file__).name} draws: run make docs")


if __name__ == "__main__":
    main()
