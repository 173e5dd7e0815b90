"""Write docs/api-reference.md from the signatures and docstrings in the source, without importing any of it.

    python3 tools/api_reference.py            write the page
    python3 tools/api_reference.py --check    only tell whether it is up to date

A name is public when its module's ``__all__`` has it, or `PARTS` below. A docstring may also stand below a variable or
a field; a comment behind a field does as well.
"""

import argparse
import ast
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "api-reference.md"
WIDTH = 100

# Module, and its public names if it has no `__all__`.
PARTS: dict[str, tuple[str, ...]] = {
    "cachekit": (),
    "cachekit.testing": (),
    "cachekit.testing.plugin": ("cachekit_isolated", "cachekit_clock", "cachekit_server"),
    "cachekit.metrics": (),
    "cachekit.integrations.starlette": ("CacheKit", "get_region", "service_of"),
    "cachekit.integrations.fastapi": (),
    "cachekit.integrations.flask": (),
    "cachekit.integrations.django": (),
    "cachekit.integrations.django.models": ("tags_of", "connect", "invalidate", "ainvalidate"),
    "cachekit.integrations.django.admin": ("add_page",),
    "cachekit.backends.base": ("BaseBackend", "AsyncBaseBackend", "Faces", "Leased"),
    "cachekit.codec.base": ("Serializer",),
}
# What public functions return, and what belongs to a class that is made of several.
BESIDE: dict[str, tuple[str, ...]] = {
    "cachekit": (
        "cachekit.signatures.Options", "cachekit.context.Entry", "cachekit.engine.keys.EntryKey",
        "cachekit.service.Health", "cachekit.service.BackendHealth",
    ),
    "cachekit.testing": ("cachekit.testing.conformance.Setup",),
    "cachekit.backends.base": ("cachekit.errors.BackendError", "cachekit.errors.Fault"),
}  # fmt: skip
MADE_FOR_YOU = {
    "AsyncCachedFunction", "CallFailed", "Process", "ProcessEnded", "Running",
    "CacheInfo", "CacheKitCache", "CachedFunction", "EntryKey", "Entry", "MetricsServer",
    "Region", "Server", "Health", "BackendHealth", "Setup", "Unstorable",
}  # fmt: skip
INTERNAL = {
    "CachedFunction.of", "EntryKey.of", "EntryKey.slot", "EntryKey.args", "EntryKey.stamp_names", "EntryKey.tiers",
    "FrozenClock.START_NS", "Region.follow",
}  # fmt: skip
SAID_ELSEWHERE = {"AsyncBaseBackend", "CacheKitCache"}  # methods without a docstring are as in a base or a twin
PROVIDED_BY = {"cache": "cachekit.decorator._Cache"}  # the methods of an object

Function = ast.FunctionDef | ast.AsyncFunctionDef
SECTIONS = re.compile(r"(Args|Raises|Returns|Yields):")


class Found(NamedTuple):
    """A name where it is defined: the module, the statement, and the string below it."""

    module: str
    node: ast.stmt
    text: str


# --- finding ---------------------------------------------------------------------------------------------------------


@cache
def source_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"), path.with_suffix(".pyi"))
    return next(candidate for candidate in candidates if candidate.is_file())


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(source_of(module).read_text())


@cache
def lines_of(module: str) -> list[str]:
    return source_of(module).read_text().splitlines()


def exported(module: str) -> list[str]:
    """The names in ``__all__``, or for a module that makes it of a dict, its keys."""
    values = {
        target.id: node.value
        for node in parsed(module).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    wanted = values["__all__"]
    if isinstance(wanted, ast.Call) and isinstance(wanted.args[0], ast.Name):
        wanted = values[wanted.args[0].id]
    return sorted(ast.literal_eval(wanted))


def find(module: str, name: str) -> Found:
    """Where a name is defined, through any number of imports."""
    body = list(flat(parsed(module).body))
    for at, node in enumerate(body):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return find(node.module, alias.name)
        if name in defined_by(node) and not is_overload(node):
            return Found(module, node, docstring(node) or string_below(body, at))
    raise LookupError(f"{module} has no {name}")


def flat(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If):
            yield from flat([*node.body, *node.orelse])
        else:
            yield node


def defined_by(node: ast.stmt) -> set[str]:
    if isinstance(node, Function | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def docstring(node: ast.AST) -> str:
    return (ast.get_docstring(node) or "") if isinstance(node, Function | ast.ClassDef | ast.Module) else ""


def string_below(body: list[ast.stmt], at: int) -> str:
    below = body[at + 1] if at + 1 < len(body) else None
    if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
        return textwrap.dedent(below.value.value).strip()
    return ""


def decorators(node: ast.stmt) -> set[str]:
    names = getattr(node, "decorator_list", [])
    return {ast.unparse(name.func if isinstance(name, ast.Call) else name) for name in names}


def is_overload(node: ast.stmt) -> bool:
    return "overload" in decorators(node)


# --- signatures ------------------------------------------------------------------------------------------------------


class Unquoted(ast.NodeTransformer):
    """Annotations without the quotes that delay them."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str):
            return ast.parse(node.value, mode="eval").body
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if ast.unparse(node.value) == "Literal":
            return node
        return self.generic_visit(node)


def annotation(node: ast.expr | None) -> str:
    return "" if node is None else ast.unparse(Unquoted().visit(ast.parse(ast.unparse(node), mode="eval").body))


def parameters(node: Function, *, bound: bool) -> list[str]:
    """Each parameter as it is written, ``/`` and ``*`` included, without self."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    found = [one(argument, default) for argument, default in zip(positional, defaults, strict=True)]
    if arguments.posonlyargs:
        found.insert(len(arguments.posonlyargs), "/")
    found = found[1:] if bound else found
    if found[:1] == ["/"]:
        found = found[1:]
    if arguments.vararg:
        found.append("*" + one(arguments.vararg, None))
    elif arguments.kwonlyargs:
        found.append("*")
    found += [one(each, default) for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return [*found, "**" + one(arguments.kwarg, None)] if arguments.kwarg else found


def one(argument: ast.arg, default: ast.expr | None) -> str:
    text = f"{argument.arg}: {annotation(argument.annotation)}" if argument.annotation else argument.arg
    if default is None:
        return text
    shown = "..." if ast.unparse(default) == "NOT_GIVEN" else ast.unparse(default)
    return f"{text} = {shown}" if argument.annotation else f"{text}={shown}"


def signature(name: str, node: Function, *, bound: bool = False, made: bool = False) -> str:
    """The first line of a definition, over several lines if it is long."""
    returns = f" -> {annotation(node.returns)}" if node.returns and not made else ""
    start = "async def " if isinstance(node, ast.AsyncFunctionDef) else "" if made else "def "
    words = parameters(node, bound=bound)
    line = f"{start}{name}({', '.join(words)}){returns}"
    if len(line) <= WIDTH or not words:
        return line
    return f"{start}{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){returns}"


# --- Markdown --------------------------------------------------------------------------------------------------------


def markdown(text: str) -> str:
    """A docstring as Markdown: literals, sections with their items, examples."""
    blocks = re.split(r"\n\s*\n", text.strip()) if text.strip() else []
    done: list[str] = []
    while blocks:
        block = blocks.pop(0)
        first, *rest = block.splitlines()
        if SECTIONS.fullmatch(first.strip()):
            done.append(items(first.strip(), rest))
        elif first.startswith((">>>", "    ")):
            done.append("```text\n" + textwrap.dedent(block) + "\n```")
        else:
            done.append(re.sub(r"::$", ":", prose(" ".join(map(str.strip, block.splitlines())))))
    return "\n\n".join(done)


def prose(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text)


def items(title: str, lines: list[str]) -> str:
    """``Args:`` and the like: an item begins at the least indentation, deeper lines go on."""
    text = textwrap.dedent("\n".join(lines))
    found = re.sub(r"\n\s+", " ", text).splitlines()
    shown = [re.sub(r"^(\w+): ", r"`\1`: ", prose(line)) for line in found]
    return f"{title}\n\n" + "\n".join(f"- {line}" for line in shown)


def fenced(text: str) -> str:
    return f"```text\n{text}\n```"


def indented(text: str) -> str:
    return textwrap.indent(text, "  ")


# --- rendering -------------------------------------------------------------------------------------------------------


def entry(found: Found, name: str) -> str:
    """One public name with all that belongs to it."""
    node = found.node
    if isinstance(node, ast.ClassDef):
        return of_class(found, name, node)
    if isinstance(node, Function):
        is_fixture = "pytest.fixture" in decorators(node)
        shown = f"{name}: {produced(node)}" if is_fixture else signature(name, node)
        return joined(fenced(shown), markdown(found.text))
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
        return f"Another name of `{node.value.id}`."
    shown = ""
    if isinstance(node, ast.AnnAssign) and annotation(node.annotation) == "TypeAlias" and node.value:
        shown = fenced(f"{name} = {annotation(node.value)}")
    methods = ""
    if name in PROVIDED_BY:
        module, _, provider = PROVIDED_BY[name].rpartition(".")
        methods = members(find(module, provider), provider)
    return joined(shown, markdown(found.text), methods)


def produced(node: Function) -> str:
    """What a fixture gives: the type in ``Iterator[T]``, or what it returns."""
    return re.sub(r"^Iterator\[(.*)\]$", r"\1", annotation(node.returns))


def joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def of_class(found: Found, name: str, node: ast.ClassDef) -> str:
    bases = [annotation(base) for base in node.bases if not ast.unparse(base).startswith("_")]
    bases = [base for base in bases if not base.startswith("Generic")]
    shown = f"class {name}({', '.join(bases)})" if bases else f"class {name}"
    made = next((each for each in node.body if isinstance(each, Function) and each.name == "__init__"), None)
    if made is not None and name not in MADE_FOR_YOU:
        shown += "\n\n" + signature(name, made, bound=True, made=True)
    text = markdown(found.text)
    between = "Members:" if text.rpartition("\n")[2].startswith("- ") else ""  # else two lists would be one
    return joined(fenced(shown), text, between, members(found, name))


def members(found: Found, name: str) -> str:
    """Fields, properties and methods of a class as a list, with what its private bases in the same module have."""
    node = found.node
    assert isinstance(node, ast.ClassDef)
    shown: list[str] = []
    for base in node.bases:
        private = ast.unparse(base)
        if re.fullmatch(r"_[A-Z]\w*", private) and any(
            private in defined_by(each) for each in parsed(found.module).body
        ):
            shown.append(members(find(found.module, private), private))
    body = [each for each in node.body if not is_overload(each)]
    twins = {each.name[1:] for each in body if isinstance(each, ast.AsyncFunctionDef) and is_twin(each)}
    for at in range(len(body)):
        text = member(found.module, name, body, at, twins)
        if text:
            shown.append(text)
    return "\n".join(filter(None, shown))


def is_twin(node: ast.AsyncFunctionDef) -> bool:
    """An async method that has nothing to say but what its blocking twin says."""
    return docstring(node) == f"As `{node.name[1:]}`."


def member(module: str, owner: str, body: list[ast.stmt], at: int, twins: set[str]) -> str:
    node = body[at]
    if isinstance(node, Function):
        return "" if is_hidden(node, owner) else of_method(node, node.name in twins)
    names = [name for name in defined_by(node) if not name.startswith("_") and f"{owner}.{name}" not in INTERNAL]
    if not isinstance(node, ast.AnnAssign | ast.Assign) or not names:
        return ""
    kind = f": {annotation(node.annotation)}" if isinstance(node, ast.AnnAssign) else ""
    value = "" if node.value is None or isinstance(node.value, ast.Call) else f" = {ast.unparse(node.value)}"
    return item(f"{names[0]}{kind}{value}", prose(string_below(body, at)) or comment(module, node))


def is_hidden(node: Function, owner: str) -> bool:
    marks = " ".join(decorators(node))
    return (
        node.name.startswith(("_", "test_"))
        or "setter" in marks
        or "fixture" in marks
        or f"{owner}.{node.name}" in INTERNAL
        or (isinstance(node, ast.AsyncFunctionDef) and is_twin(node))
        or (owner in SAID_ELSEWHERE and not docstring(node))
    )


def of_method(node: Function, has_twin: bool) -> str:
    text = joined(markdown(docstring(node)), f"For coroutines: `a{node.name}`." if has_twin else "")
    if "property" in decorators(node):
        return item(f"{node.name}: {annotation(node.returns)}", text)
    shown = signature(node.name, node, bound="staticmethod" not in decorators(node))
    if "\n" in shown:
        return joined(f"- `{node.name}`", indented(fenced(shown)), indented(text))
    return item(shown.removeprefix("def ").replace("async def ", "await "), text)


def item(shown: str, text: str) -> str:
    return f"- `{shown}`\n{indented(text)}" if text else f"- `{shown}`"


def comment(module: str, node: ast.stmt) -> str:
    _, mark, text = lines_of(module)[(node.end_lineno or node.lineno) - 1].partition("  # ")
    return text if mark and "type:" not in text and "noqa" not in text else ""


def group(module: str, name: str) -> str:
    """Errors go below the rest, so that the page begins with what is used."""
    return "errors" if find(module, name).module == "cachekit.errors" else ""


def section(module: str, listed: dict[tuple[str, str], str]) -> str:
    names = list(PARTS[module]) or exported(module)
    names = sorted(names, key=lambda name: (group(module, name), module != "cachekit.backends.base" and name.lower()))
    shown = [f"## {module}", markdown(docstring(parsed(module)))]
    for name, found in (
        *((name, find(module, name)) for name in names),
        *((path.rpartition(".")[2], find(*path.rpartition(".")[::2])) for path in BESIDE.get(module, ())),
    ):
        place = (found.module, defined_by(found.node).copy().pop())
        if place in listed:
            shown += [f"### {name}", f"The same as `{listed[place]}`."]
            continue
        listed[place] = f"{module}.{name}"
        shown += [f"### {name}", entry(found, name)]
    return joined(*shown)


def page() -> str:
    """The whole page."""
    listed: dict[tuple[str, str], str] = {}
    sections = [section(module, listed) for module in PARTS]
    contents = "\n".join(f"- [`{module}`](#{module.replace('.', '').lower()})" for module in PARTS)
    head = (
        "# API reference\n\n"
        "Every public name with its signature and docstring, made from the source by `tools/api_reference.py`.\n"
        "`make docs` makes it anew, so changes belong into the docstrings.\n\n"
        "`For coroutines` names the twin of a method that is awaited and otherwise the same. `...` as a default means\n"
        "that the profile decides.\n"
    )
    return "\n".join((head, contents, "", "\n\n".join(sections), ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    wanted = page()
    if parser.parse_args().check:
        if not PAGE.is_file() or PAGE.read_text() != wanted:
            sys.exit(f"{PAGE.relative_to(ROOT)} is not up to date; run make docs")
        return
    PAGE.write_text(wanted)
    print(f"{PAGE.relative_to(ROOT)}: {len(wanted.splitlines())} lines")


if __name__ == "__main__":
    main()
