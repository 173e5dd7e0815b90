"""The raw configuration: files, environment and code merged into one tree that knows where each value came from.

Standard library only: whether there is anything to load is asked before pydantic is imported.
"""

import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cachekit.config.fields import KEYS, dotted
from cachekit.config.options import ONLY_ON
from cachekit.config.spec import BUILT_IN, NO_BACKEND, ONLY_TIGHTENED
from cachekit.config.units import check_name, fold, nearest, parse_bool, parse_list

Keys = tuple[str, ...]

FILE_NAME = "cachekit.toml"
PREFIX = "CACHEKIT_"
URL_VARIABLES = ("CACHEKIT_REDIS_URL", "REDIS_URL")  # of the backend "default", the first that is set wins
NOT_SETTINGS = ("CACHEKIT_CONFIG", "CACHEKIT_PURE", "CACHEKIT_NATIVE")
NAMED = ("profiles", "backends")  # tables of tables with names of the user's choice
PROJECT_MARKS = ("pyproject.toml", ".git", "manage.py")
MISSING = object()
FILE_ONLY = ("options", "negative_exceptions")  # tables whose keys are not ours
BUILT_IN_ORIGIN = "built-in"
CODE_ORIGIN = "configure()"
ENV_ORIGIN = "env CACHEKIT_BACKENDS__"

# Kubernetes gives each container variables for every service beside it, here of "cachekit" or "cachekit-api":
_KUBERNETES = re.compile(
    r"CACHEKIT_(?:[A-Z0-9]+_)*"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)
_WHERE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)")
_BARE_OR_QUOTED = r"""(?:[A-Za-z0-9_-]+|"[^"\\]*"|'[^']*')"""
_KEY_LINE = re.compile(rf"\s*({_BARE_OR_QUOTED}(?:\s*\.\s*{_BARE_OR_QUOTED})*)\s*=")
_HEADER = rf"\[\s*{_BARE_OR_QUOTED}(?:\s*\.\s*{_BARE_OR_QUOTED})*\s*\]"
_HEADER_LINE = re.compile(rf"\s*({_HEADER}|\[{_HEADER}\])\s*(?:#.*)?")


def is_secret(keys: Keys) -> bool:
    """Whether this key holds a secret: never in a file, a message, a log or the output of ``config show``."""
    name = keys[-1].removesuffix("_file") if keys else ""
    if len(keys) == 1:
        return name in KEYS
    return (keys[0] == "metrics" and name == "token") or (keys[0] == "backends" and name == "password")


def member(node: Any, key: str) -> Any:
    """What a table or a list has under a key, in a list its number; `MISSING` if nothing."""
    if isinstance(node, dict):
        return node.get(key, MISSING)
    if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
        return node[int(key)]
    return MISSING


@dataclass(slots=True)
class Tree:
    """Merged raw values, the origin of each, and the problems found on the way."""

    values: dict[str, Any] = field(default_factory=dict, repr=False)  # with passwords
    origins: dict[Keys, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict, repr=False)  # where keys of encryption were read
    former: list[tuple[str, str]] = field(default_factory=list)  # profiles, and what a lower layer had them extend

    def get(self, *keys: str) -> Any:
        """The value at these keys, or None."""
        node: Any = self.values
        for key in keys:
            node = member(node, key)
        return None if node is MISSING else node

    def names(self, kind: str) -> list[str]:
        """The profiles or the backends in the tree."""
        table = self.values.get(kind)
        return list(table) if isinstance(table, dict) else []

    def origin(self, keys: Iterable[str]) -> str:
        """Where the value came from; for a key that is not there, where the nearest table around it came from."""
        path = tuple(keys)
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path, "")

    def put(self, keys: Keys, value: object, origin: str) -> None:
        """Set one value. Tables on the way are made; a plain value on the way gives way to a table."""
        node = self.values
        for depth, key in enumerate(keys[:-1], 1):
            if not isinstance(node.get(key), dict):
                node[key] = {}
                self.origins[keys[:depth]] = origin
            node = node[key]
        tightened = keys[0] == "profiles" and keys[-1] in ONLY_TIGHTENED and _truth(node.get(keys[-1], False))
        if tightened and not _truth(value):
            self.problems.append(f"{origin}: {'.'.join(keys)} = false: {ONLY_ON}")
            return
        node[keys[-1]] = value
        self.origins[keys] = origin

    def parent(self, name: str) -> str | None:
        """The profile that this one extends."""
        extends = self.get("profiles", name, "extends")
        if extends is None:
            return None if name == "default" else "default"
        return None if extends == "none" else str(extends)

    @contextmanager
    def layer(self) -> Iterator[None]:
        """Note which profiles extend another one after this layer than before."""
        before = {name: self.parent(name) for name in self.names("profiles")}
        yield
        self.former += [(name, parent) for name, parent in before.items() if parent and parent != self.parent(name)]

    def merge(self, table: Mapping[Any, Any], origin: Callable[[Keys], str], at: Keys = ()) -> None:
        """Lay a table over the tree: tables merge key by key, everything else replaces."""
        for key, value in table.items():
            keys = (*at, dotted(key) if isinstance(key, type) else str(key))  # in code, a class of exceptions
            if isinstance(value, Mapping):
                if not isinstance(self.get(*keys), dict):
                    self.put(keys, {}, origin(keys))
                self.origins[keys] = origin(keys)
                self.merge(value, origin, keys)
            elif isinstance(value, (list, tuple)) and value and all(isinstance(item, Mapping) for item in value):
                self.put(keys, [dict(item) for item in value], origin(keys))
                self._place_members(keys, value, origin)
            else:
                self.put(keys, value, origin(keys))

    def _place_members(self, at: Keys, tables: Iterable[Mapping[Any, Any]], origin: Callable[[Keys], str]) -> None:
        """Where the keys of a list of tables came from, which replaces the one before."""
        for keys in [keys for keys in self.origins if keys[: len(at)] == at and keys != at]:
            del self.origins[keys]
        for number, table in enumerate(tables):
            inside = (*at, str(number))
            self.origins[inside] = origin(inside)
            for key in table:
                self.origins[(*inside, str(key))] = origin((*inside, str(key)))


def _truth(value: object) -> bool:
    try:
        return parse_bool(value)
    except ValueError:  # told when the tree is validated
        return True


# --- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """Files to read, base first, and why others were passed over."""

    files: tuple[Path, ...] = ()
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def find_files(environ: Mapping[str, str], start: Path | None = None) -> Found:
    """The files that ``CACHEKIT_CONFIG`` names; without it, the nearest ``cachekit.toml`` from ``start`` upward."""
    named = environ.get("CACHEKIT_CONFIG", "")
    if named:
        files = [Path(name).expanduser() for name in named.split(os.pathsep) if name]
        missing = tuple(f"env CACHEKIT_CONFIG: {file}: no such file" for file in files if not file.is_file())
        return Found(files=tuple(files), missing=missing)
    ignored: list[str] = []
    for directory in _search(environ, start):
        candidate = directory / FILE_NAME
        if not candidate.is_file():
            continue
        distrust = _distrust(candidate)
        if not distrust:
            return Found((candidate,), tuple(ignored))
        ignored.append(f"{candidate}: ignored: {distrust}; name it in CACHEKIT_CONFIG to use it")
    return Found(ignored=tuple(ignored))


def _search(environ: Mapping[str, str], start: Path | None) -> Iterator[Path]:
    home = environ.get("HOME") or environ.get("USERPROFILE")
    last = Path(home).resolve() if home else None
    try:
        here = (start or Path.cwd()).resolve()
    except OSError:  # the working directory was deleted
        return
    for directory in (here, *here.parents):
        yield directory
        if directory == last or any((directory / mark).exists() for mark in PROJECT_MARKS):
            return


def _distrust(file: Path) -> str:
    """Why a file found by searching may be somebody else's, or an empty text."""
    if not hasattr(os, "getuid"):  # no owners and modes of this kind on Windows
        return ""
    details = file.stat()
    if details.st_uid not in (0, os.getuid()):
        return "it belongs to another user"
    if file.parent.stat().st_mode & stat.S_IWOTH:
        return "everybody may write to its directory"
    if details.st_mode & stat.S_IWOTH:
        return "everybody may write to it"
    return ""


def short(path: Path) -> str:
    """A path as messages show it: relative to the working directory where it lies below."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def read_file(tree: Tree, path: Path) -> None:
    """Lay a file over the tree. What is wrong with the file itself becomes a problem of the tree."""
    name = short(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        document = tomllib.loads(text)
    except UnicodeDecodeError:
        tree.problems.append(f"{name}: not UTF-8 text")
    except tomllib.TOMLDecodeError as error:
        where = _WHERE.search(str(error))
        line = f":{where[1]}" if where and where[1] else ""
        tree.problems.append(f"{name}{line}: not valid TOML: {_WHERE.sub('', str(error))}")
    except OSError as error:
        tree.problems.append(f"{name}: cannot be read: {error.strerror}")
    else:
        lines = scan_lines(text, document)
        _refuse_secrets(tree, document, name, lines)
        tree.merge(document, lambda keys: _place(name, lines, keys))


def _place(name: str, lines: Mapping[Keys, int], keys: Keys) -> str:
    while keys and keys not in lines:  # a key of an inline table is on the line of the table
        keys = keys[:-1]
    return f"{name}:{lines[keys]}" if keys else name


def scan_lines(text: str, document: Mapping[str, Any]) -> dict[Keys, int]:
    """The line of each table header and key, by a small scan, since `tomllib` does not tell.

    A line inside a text of several lines may look like a header or a key. What the scan finds must therefore be in the
    document, and only once; after a header that is not, nothing is believed any more.
    """
    lines: dict[Keys, int] = {}
    twice: set[Keys] = set()
    table: Keys = ()
    lists: dict[Keys, int] = {}  # of tables, and which one is being read
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER_LINE.fullmatch(line):
            table = keys = _numbered(_keys_of(header[1].strip("[]").join("[]")), lists, header[1].startswith("[["))
        elif key := _KEY_LINE.match(line):
            keys = table + _keys_of(f"{key[1]} = 0")
        else:
            continue
        if not _exists(document, keys):
            return {} if header else {known: at for known, at in lines.items() if known not in twice}
        for depth in range(len(table) or 1, len(keys) + 1):  # a dotted key makes tables without a header
            if depth < len(keys):
                lines.setdefault(keys[:depth], number)
            elif lines.setdefault(keys, number) != number:
                twice.add(keys)
    return {keys: number for keys, number in lines.items() if keys not in twice}


def _numbered(keys: Keys, lists: dict[Keys, int], begins: bool) -> Keys:
    """The keys of a header with the numbers of the lists on their way; it ``begins`` another member of the last."""
    if begins:
        lists[keys] = lists.get(keys, -1) + 1
    found: Keys = ()
    for depth in range(1, len(keys) + 1):
        found = (*found, keys[depth - 1])
        if keys[:depth] in lists:
            found = (*found, str(lists[keys[:depth]]))
    return found


def _keys_of(snippet: str) -> Keys:
    keys: list[str] = []
    try:
        node: Any = tomllib.loads(snippet)
    except tomllib.TOMLDecodeError:
        return ("",)  # nothing that exists
    while isinstance(node, dict) and node:
        key, node = next(iter(node.items()))
        keys.append(key)
    return tuple(keys)


def _exists(document: Mapping[str, Any], keys: Keys) -> bool:
    node: Any = document
    for key in keys:
        node = member(node, key)
    return node is not MISSING


def _refuse_secrets(tree: Tree, document: Mapping[str, Any], name: str, lines: Mapping[Keys, int]) -> None:
    """Take secrets out of a file's values, so that nothing later can show them, and say where they belong."""
    for keys in [keys for keys in _leaves(document) if is_secret(keys)]:
        node: Any = document
        for key in keys[:-1]:
            node = node[key]
        del node[keys[-1]]
        variable = variable_of((*keys[:-1], keys[-1].removesuffix("_file")))
        tree.problems.append(
            f"{_place(name, lines, keys)}: {'.'.join(keys)}: a secret does not belong in a file; "
            f"set {variable} or {variable}_FILE"
        )


def _leaves(table: Mapping[str, Any], at: Keys = ()) -> Iterator[Keys]:
    for key, value in table.items():
        keys = (*at, key)
        if isinstance(value, Mapping) and not is_secret(keys):
            yield from _leaves(value, keys)
        else:
            yield keys


# --- environment -----------------------------------------------------------------------------------------------------


def variable_of(keys: Iterable[str]) -> str:
    """The environment variable of a key."""
    return PREFIX + "__".join(fold(key).upper() for key in keys)


def setting_variables(environ: Mapping[str, str]) -> list[str]:
    """The variables that set something: ours, not empty, and not those of the build or of Kubernetes."""
    return sorted(
        name
        for name, value in environ.items()
        if name.startswith(PREFIX)
        and value
        and name not in (*NOT_SETTINGS, *URL_VARIABLES)
        and not _KUBERNETES.fullmatch(name)
    )


def read_environment(tree: Tree, environ: Mapping[str, str]) -> None:
    """Lay the ``CACHEKIT_*`` variables over the tree."""
    listened = {name for backend in tree.names("backends") for name in _url_env(tree, backend)}
    variables = [name for name in setting_variables(environ) if name not in listened]
    # New names first, so that the other variables of a new profile or backend find it.
    variables.sort(key=lambda name: (not name.upper().endswith(("__EXTENDS", "__URL", "__TYPE")), name))
    set_by: dict[Keys, str] = {}
    for variable in variables:
        keys = _keys_of_variable(tree, variable)
        if keys is None:
            continue
        value: str | None = environ[variable]
        if is_secret(keys) and keys[-1].endswith("_file"):
            keys = (*keys[:-1], keys[-1].removesuffix("_file"))
            value = _read_secret(tree, variable, environ[variable], keys)
        if keys[2:3] and keys[2] in FILE_ONLY:
            tree.problems.append(f"env {variable}: {keys[2]} has no variable; set it in the file")
        elif keys in set_by:
            tree.problems.append(f"env {variable}: sets the same as {set_by[keys]}; keep one of them")
        elif value is not None:
            set_by[keys] = variable
            tree.put(keys, value, f"env {variable}")


def _keys_of_variable(tree: Tree, variable: str) -> Keys | None:
    # The last underscores of three belong to the name before: `A___TTL` is key `ttl` of `a_`.
    first, *rest = re.split(r"__(?=[^_])", variable.removeprefix(PREFIX).casefold())
    if first not in NAMED:
        return (first, *rest)
    if len(rest) < 2:
        example = variable_of((first, "name", "ttl" if first == "profiles" else "url"))
        tree.problems.append(f"env {variable}: names no key; write {example}")
        return None
    name, *keys = rest
    known = [*tree.names(first), *(() if first == "profiles" else ("default",))]
    found = next((candidate for candidate in known if fold(candidate) == name), None)
    if found is None and keys in (["extends"], ["url"], ["type"]) and (keys == ["extends"]) == (first == "profiles"):
        found = name
    if found is None:
        meant = nearest(name, known)
        declare = "EXTENDS=default" if first == "profiles" else "URL=..."
        hint = f"did you mean '{meant}'?" if meant else f"set {variable_of((first, name))}__{declare} to declare it"
        tree.problems.append(f"env {variable}: {first}.{name}: no such {first[:-1]}; {hint}")
        return None
    return (first, found, *keys)


def _read_secret(tree: Tree, variable: str, path: str, keys: Keys) -> str | None:
    try:
        secret = read_secret_file(path)
    except ValueError as error:
        tree.problems.append(f"env {variable}: the file that it names {error}")
        return None
    if len(keys) == 1:
        tree.files[keys[0]] = path
    return secret


def read_secret_file(path: str) -> str:
    """The secret in a file, or ValueError. Without the path: somebody may have written the secret itself there."""
    try:
        secret = Path(path).read_text(encoding="utf-8").strip("\r\n")
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read: {getattr(error, 'strerror', None) or 'not a text file'}") from None
    if not secret:
        raise ValueError("is empty")
    return secret


def _url_env(tree: Tree, backend: str) -> tuple[str, ...]:
    names = tree.get("backends", backend, "url_env")
    if names is None:
        return URL_VARIABLES if backend == "default" else ()
    try:
        return parse_list(names)
    except ValueError:  # reported when the tree is validated
        return ()


def read_urls(tree: Tree, environ: Mapping[str, str]) -> None:
    """Give each backend the URL of the first variable that it listens to: above files, below its own ``__URL``."""
    for backend in {"default": None} | dict.fromkeys(tree.names("backends")):
        keys = ("backends", backend, "url")
        if tree.get(*keys) is not None and tree.origin(keys).startswith((ENV_ORIGIN, CODE_ORIGIN)):
            continue
        for variable in _url_env(tree, backend):
            if environ.get(variable):
                tree.put(keys, environ[variable], f"env {variable}")
                break


# --- all of it -------------------------------------------------------------------------------------------------------


def needs_loading(environ: Mapping[str, str] | None = None, start: Path | None = None) -> bool:
    """Whether there is any file or variable to read. If not, `spec.default_service()` is the configuration."""
    environ = os.environ if environ is None else environ
    if setting_variables(environ) or any(environ.get(name) for name in ("CACHEKIT_CONFIG", *URL_VARIABLES)):
        return True
    found = find_files(environ, start)
    return bool(found.files or found.ignored)


def build(
    files: Iterable[Path],
    definitions: Mapping[str, Mapping[str, Any]],
    environ: Mapping[str, str],
    settings: Mapping[str, Any],
    layers: Mapping[str, Mapping[str, Any]] = {},
) -> Tree:
    """The tree of all layers, low to high, with the names in it checked.

    ``layers`` are tables of a framework's own configuration, by the name that messages call them: above the files,
    below the environment.
    """
    tree = Tree()
    tree.merge({"profiles": BUILT_IN}, lambda keys: BUILT_IN_ORIGIN)
    with tree.layer():
        tree.merge({"profiles": definitions}, lambda keys: f"define({keys[1]!r})" if len(keys) > 1 else "define()")
    for file in files:
        with tree.layer():
            read_file(tree, file)
    if any(": not valid TOML" in problem or ": cannot be read" in problem for problem in tree.problems):
        return tree  # what follows would only complain about what the unread file holds
    for name, table in layers.items():
        with tree.layer():
            tree.merge(table, lambda keys, name=name: name)  # type: ignore[misc]  # bound now
    with tree.layer():
        read_environment(tree, environ)
    with tree.layer():
        tree.merge(settings, lambda keys: CODE_ORIGIN)
    read_urls(tree, environ)
    for kind in NAMED:
        _check_names(tree, kind)
    return tree


def _check_names(tree: Tree, kind: str) -> None:
    spelt: dict[str, str] = {}
    for name in tree.names(kind):
        place = f"{tree.origin((kind, name))}: {kind}.{name}"
        other = spelt.setdefault(fold(name), name)
        problem = ""
        if other != name:
            where = tree.origin((kind, other))
            problem = f"the same name as '{other}' ({where}) to the environment, which knows no case, '-' or '.'"
        elif fold(name) == NO_BACKEND:
            problem = f"'{NO_BACKEND}' is a reserved name"
        else:
            try:
                check_name(name)
            except ValueError as error:
                problem = str(error)
        if problem:
            tree.problems.append(f"{place}: {problem}")
            del tree.values[kind][name]
