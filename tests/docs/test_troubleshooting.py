"""Every message that cachekit logs or raises about its use stands in docs/troubleshooting.md, and no other does.

The messages are read out of the source. What stands between their variable parts are the words that are compared; an
entry of the page shows a variable part as ``<name>``, and may end early with ``...``.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
DOCTOR = "cachekit/cli/doctor.py"
SOURCES = sorted((ROOT / "cachekit").rglob("*.py"))

LOGGED = {"warning", "error", "exception", "critical", "log", "warn"}
RAISED = {
    "ConfigError", "UncacheableArgument", "Unstorable", "UnsupportedOperation", "ImproperlyConfigured", "Warning",
    "MissingTenant", "TamperedEntry",
}  # fmt: skip
COLLECTED = {
    "problem",
    "problems",
    "warnings",
    "ignored",
    "missing",
}  # what the configuration gathers before it complains
LEAST = 2  # words; a message of fewer has its text from elsewhere
ENTRY = re.compile(r"^- (``.+?``|`[^`]+`)$", re.MULTILINE)

Words = tuple[str, ...]


def literal(node: ast.expr) -> str | None:
    """A text of the source with ``<>`` for each variable part, or None if it is no text."""
    if isinstance(node, ast.Constant):
        return re.sub(r"%[rsdg]", "<>", node.value) if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "<>" for part in node.values)  # type: ignore[misc]
    return None


def texts(node: ast.AST, named: Mapping[str, list[ast.expr]]) -> Iterator[str]:
    """The outermost texts in an expression: not those inside the variable parts of others.

    ``named`` are the constants and functions of the module, and the values they have or return.
    """
    text = literal(node) if isinstance(node, ast.expr) else None
    if text is not None:
        yield text
        return
    called_or_constant = node.func if isinstance(node, ast.Call) else node
    name = called_or_constant.id if isinstance(called_or_constant, ast.Name) else ""
    for child in (*named.get(name, ()), *ast.iter_child_nodes(node)):
        if child is not called_or_constant:
            yield from texts(child, {key: value for key, value in named.items() if key != name})


def names_of(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """The constants and functions of a module, and the expressions that they stand for."""
    found: dict[str, list[ast.expr]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = [node.value]
        elif isinstance(node, ast.FunctionDef) and getattr(node.returns, "id", "") == "str":
            returned = (each.value for each in ast.walk(node) if isinstance(each, ast.Return))
            found[node.name] = [value for value in returned if value is not None]
    return found


def called(node: ast.Call) -> tuple[str, str]:
    """What is called, and on what."""
    if isinstance(node.func, ast.Attribute):
        owner = node.func.value
        return node.func.attr, getattr(owner, "attr", getattr(owner, "id", ""))
    return getattr(node.func, "id", ""), ""


def messages_in(tree: ast.Module, *, collects: bool) -> Iterator[str]:
    """The messages of one module. One that ``collects`` what is wrong has them elsewhere, too."""
    named = names_of(tree)
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name, owner = called(node)
            if (name in LOGGED and owner in ("logger", "log", "warnings")) or name in RAISED:
                parts = node.args[:2]
            elif name == "wrong" or (collects and name == "ValueError"):
                parts = node.args[-1:]
            elif collects and name in ("append", "extend") and owner in COLLECTED:
                parts = node.args
        elif collects and isinstance(node, ast.Assign | ast.Yield):
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            if node.value is not None and (target is None or getattr(target, "id", "") in COLLECTED):
                parts = [node.value]
        for part in parts:
            yield from texts(part, named)


def words(text: str) -> Words:
    return tuple(re.findall(r"\w+", re.sub(r"<[^<>]*>", " ", text)))


def messages() -> dict[Words, str]:
    """The messages of the whole package by their words, each with the place where it is."""
    found: dict[Words, str] = {}
    for source in SOURCES:
        name = str(source.relative_to(ROOT))
        tree = ast.parse(source.read_text())
        if name == DOCTOR:  # its other functions print a report
            tree.body = [node for node in tree.body if getattr(node, "name", "") in ("examine", "advice")]
        for text in messages_in(tree, collects=name == DOCTOR or name.startswith("cachekit/config/")):
            if len(words(text)) >= LEAST:
                found.setdefault(words(text), f"{name}: {text}")
    return found


def entries(page: str) -> list[str]:
    return [span.strip("`").strip() for span in ENTRY.findall(page)]


def matches(entry: str, message: Words) -> bool:
    if entry.endswith("..."):
        wanted = words(entry)
        return len(wanted) >= LEAST and message[: len(wanted)] == wanted
    return words(entry) == message


def test_every_message_is_on_the_page() -> None:
    listed = entries(PAGE.read_text())
    missing = [place for message, place in messages().items() if not any(matches(entry, message) for entry in listed)]
    assert missing == []


def test_the_page_lists_no_message_that_is_gone() -> None:
    known = messages()
    assert [entry for entry in entries(PAGE.read_text()) if not any(matches(entry, message) for message in known)] == []


def test_every_message_on_the_page_has_an_answer() -> None:
    """What follows a message, or a group of them, is indented text: the cause and the remedy."""
    lines = PAGE.read_text().splitlines()
    ends = [at for at, line in enumerate(lines) if ENTRY.fullmatch(line) and not ENTRY.fullmatch(lines[at + 1])]
    assert [lines[at] for at in ends if not lines[at + 1].startswith("  ")] == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("logger.warning('%d of %r went wrong', 1, name)", "of <> went wrong"),
        ("logger.log(level, 'after %g s for %s', 3.0, name)", "after <> s for <>"),
        ("raise ConfigError(f'{name}: there is no such thing{hint}')", "<>: there is no such thing<>"),
        ("raise ConfigError('one' f' {x} two three')", "one <> two three"),
        ("raise Unstorable('this is ' + 'too much', 'size')", "this is"),
        ("yield f'{place}: it is not used'", None),
        ("logger.info('all is as it was')", None),
        ("def _why(x) -> str: return f'{x} is not good'\nraise ConfigError(_why(1))", "<> is not good"),
        ("WHY = 'it is not good'\nraise ConfigError(WHY)", "it is not good"),
    ],
)
def test_what_counts_as_a_message(source: str, message: str | None) -> None:
    found = [words(text) for text in messages_in(ast.parse(source), collects=False)]
    assert (words(message) in found) if message else not found
