"""One module of a program: what its names mean, what is to be changed in it, and the changed source.

Rules look at the tree as it was and plan; `Module.rewritten` carries everything out at once.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import libcst as cst
from libcst import matchers as m
from libcst.codemod import CodemodContext
from libcst.codemod.visitors import AddImportsVisitor, RemoveImportsVisitor
from libcst.metadata import (
    Assignment,
    GlobalScope,
    MetadataWrapper,
    ParentNodeProvider,
    QualifiedNameProvider,
    QualifiedNameSource,
    Scope,
    ScopeProvider,
)

from cachekit.migrate import NOTE

N = TypeVar("N", bound=cst.CSTNode)
Change: TypeAlias = Callable[[Any], Any]

# Relative imports are relative to something; what, does not matter.
PACKAGE: Final[dict[str, Any]] = {"full_module_name": "package.module", "full_package_name": "package"}
UNKNOWN: Final = object()  # the value of an expression that only a run would tell
STATEMENTS: Final = (
    cst.SimpleStatementLine, cst.FunctionDef, cst.ClassDef, cst.If, cst.For, cst.While, cst.With, cst.Try, cst.TryStar,
    cst.Match,
)  # fmt: skip


class Undecided(Exception):
    """This cannot be rewritten without changing what the program does. The text becomes the comment beside it."""


class Module:
    """A parsed module and the plan for it."""

    def __init__(self, tree: cst.Module, body: ast.Module, path: Path) -> None:
        self.path = path
        self.wrapper = MetadataWrapper(tree)
        self.context = CodemodContext(wrapper=self.wrapper, **PACKAGE)
        self.tree = self.wrapper.module
        self._names = self.wrapper.resolve(QualifiedNameProvider)
        self._scopes = self.wrapper.resolve(ScopeProvider)
        self._parents = self.wrapper.resolve(ParentNodeProvider)
        self._changes: dict[cst.CSTNode, Change] = {}
        self._notes: dict[cst.CSTNode, list[str]] = {}
        self._constants = _constants(body)

    # Looking

    def find(self, kind: type[N], inside: cst.CSTNode | None = None) -> list[N]:
        """Every node of a kind, from top to bottom."""
        of_kind: Any = m.MatchIfTrue(lambda node: isinstance(node, kind))
        found: Any = m.findall(inside or self.tree, of_kind)
        return list(found)

    def full_name(self, node: cst.CSTNode) -> str:
        """What an expression names, if only imports gave it that name; else nothing."""
        lazy: Any = self._names.get(node)
        found = list(lazy()) if callable(lazy) else list(lazy or ())
        only = len(found) == 1 and found[0].source is QualifiedNameSource.IMPORT
        return str(found[0].name) if only else ""

    def code(self, node: cst.CSTNode) -> str:
        """The source of an expression."""
        return self.tree.code_for_node(node).strip()

    def callee(self, node: cst.BaseExpression) -> str:
        """The source of an expression that is to be called."""
        text = self.code(node)
        return text if isinstance(node, cst.Name | cst.Attribute | cst.Call) else f"({text})"

    def parent(self, node: cst.CSTNode) -> cst.CSTNode:
        """The node around this one."""
        return self._parents[node]

    def statement(self, node: cst.CSTNode) -> cst.CSTNode:
        """The statement that a node belongs to."""
        while not isinstance(node, STATEMENTS):
            node = self._parents[node]
        return node

    def line_of(self, node: cst.CSTNode) -> cst.SimpleStatementLine | None:
        """The line on which a statement without a body stands alone; None if it shares it, and so cannot just go."""
        statement = self.statement(node)
        alone = isinstance(statement, cst.SimpleStatementLine) and len(statement.body) == 1
        return statement if alone else None  # type: ignore[return-value]

    def decorated(self) -> Iterator[tuple[cst.Decorator, str, cst.FunctionDef]]:
        """Every decorator that is an imported name or a call of one, that name, and the function below it."""
        for function in self.find(cst.FunctionDef):
            for decorator in function.decorators:
                made = decorator.decorator
                yield decorator, self.full_name(made.func if isinstance(made, cst.Call) else made), function

    def calls(self) -> Iterator[tuple[cst.Call, str]]:
        """Every call of an imported name that is not a decorator, and that name."""
        for call in self.find(cst.Call):
            if not isinstance(self._parents[call], cst.Decorator):
                yield call, self.full_name(call.func)

    def is_global(self, node: cst.CSTNode) -> bool:
        """Whether a statement stands at the top of the module, or in an ``if`` there."""
        return isinstance(self._scopes.get(node), GlobalScope)

    def uses(self, name: str, at: cst.CSTNode) -> list[cst.CSTNode]:
        """Where the variable that a statement assigns is used afterwards."""
        scope: Scope | None = self._scopes.get(at)
        assigned = list(scope[name]) if scope is not None else []
        return [use.node for each in assigned if isinstance(each, Assignment) for use in each.references]

    def assigned_once(self, name: str, at: cst.CSTNode) -> bool:
        """Whether nothing but one statement gives a variable its value."""
        scope: Scope | None = self._scopes.get(at)
        return scope is not None and len(list(scope[name])) == 1

    def attributes(self, function: cst.FunctionDef) -> Iterator[str]:
        """The attributes of a function that this module uses."""
        for use in self.uses(function.name.value, function):
            around = self._parents[use]
            if isinstance(around, cst.Attribute) and around.value is use:
                yield around.attr.value

    def value(self, node: cst.CSTNode) -> object:
        """The value of a literal, of arithmetic with such, or of a constant of this module; else `UNKNOWN`."""
        try:
            return _value(ast.parse(self.code(node), mode="eval").body, self._constants)
        except (SyntaxError, ArithmeticError, TypeError):
            return UNKNOWN

    # Planning

    def change(self, node: cst.CSTNode, change: Change) -> None:
        """Have a node changed: ``change`` gets it with the changes inside of it, and returns what takes its place."""
        self._changes[node] = change

    def replace(self, node: cst.CSTNode, text: str) -> None:
        """Have an expression replaced; imports that only it used go."""
        expression = cst.parse_expression(text, self.tree.config_for_parsing)
        self.change(node, lambda _: expression)
        self.forget(node)

    def remove(self, statement: cst.CSTNode) -> None:
        """Have a statement removed; imports that only it used go."""
        self.change(statement, lambda _: cst.RemoveFromParent())
        self.forget(statement)

    def forget(self, node: cst.CSTNode) -> None:
        """Have imports removed that only this expression used."""
        RemoveImportsVisitor.remove_unused_import_by_node(self.context, node)

    def need(self, module: str, name: str | None = None) -> None:
        """Have something imported. Raises `Undecided` if another thing has its name."""
        called = name or module.partition(".")[0]
        scope = self._scopes.get(self.tree.body[0])
        for each in scope[called] if scope is not None else ():
            if not each.get_qualified_names_for(called) <= {_imported(module, name)}:
                raise Undecided(f"this module uses the name {called!r} for something else")
        AddImportsVisitor.add_needed_import(self.context, module, name)

    def note(self, node: cst.CSTNode, text: str) -> None:
        """Have a comment put above the statement that a node belongs to, unless it stands there."""
        statement = self.statement(node)
        notes = self._notes.setdefault(statement, [])
        # What stands above the first statement belongs to the module.
        lines = [
            *getattr(statement, "leading_lines", ()),
            *(self.tree.header if statement is self.tree.body[0] else ()),
        ]
        there = {line.comment.value for line in lines if line.comment is not None}
        if NOTE + text not in there and text not in notes:
            notes.append(text)

    def rewritten(self) -> cst.Module:
        """The module as planned."""
        if not self._changes and not any(self._notes.values()):
            return self.tree
        tree = self.tree.visit(_Carrier(self._changes, self._notes))
        for visitor in (AddImportsVisitor, RemoveImportsVisitor):
            if visitor.CONTEXT_KEY in self.context.scratch:
                tree = visitor(CodemodContext(scratch=self.context.scratch, **PACKAGE)).transform_module(tree)
        return tree


def _imported(module: str, name: str | None) -> Any:
    from libcst.metadata import QualifiedName

    return QualifiedName(f"{module}.{name}" if name else module, QualifiedNameSource.IMPORT)


class _Carrier(cst.CSTTransformer):
    """Carries a plan out."""

    def __init__(self, changes: dict[cst.CSTNode, Change], notes: dict[cst.CSTNode, list[str]]) -> None:
        super().__init__()
        self.changes = changes
        self.notes = notes

    def on_leave(self, original_node: Any, updated_node: Any) -> Any:
        changed = self.changes.get(original_node)
        result = updated_node if changed is None else changed(updated_node)
        notes = self.notes.get(original_node)
        return _with_notes(result, notes) if notes else result


def _with_notes(statement: Any, notes: list[str]) -> Any:
    if isinstance(statement, cst.FlattenSentinel):
        first, *others = statement
        return cst.FlattenSentinel([_with_notes(first, notes), *others])
    added = [cst.EmptyLine(comment=cst.Comment(NOTE + note)) for note in notes]
    return statement.with_changes(leading_lines=[*statement.leading_lines, *added])


def _constants(body: ast.Module) -> dict[str, ast.expr]:
    """The variables of a module that one simple assignment at its top gives a value."""
    found: dict[str, ast.expr] = {}
    stored = [node.id for node in ast.walk(body) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    for node in body.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and stored.count(target.id) == 1:
                found[target.id] = node.value
    return found


def _value(node: ast.expr, constants: dict[str, ast.expr]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in constants:
        return _value(constants[node.id], {key: value for key, value in constants.items() if key != node.id})
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _value(node.operand, constants)
        return UNKNOWN if inner is UNKNOWN else -inner
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        left, right = _value(node.left, constants), _value(node.right, constants)
        if isinstance(left, int | float) and isinstance(right, int | float):
            return left + right if isinstance(node.op, ast.Add) else left * right
    return UNKNOWN
