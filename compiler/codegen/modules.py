"""Modules of prunelang as text: what each defines, what it imports, and which names a definition needs."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from prunelang.compiler.codegen.sources import Symbol

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
BUILTINS = frozenset(dir(builtins)) | {"__file__", "__name__"}


@dataclass(frozen=True, order=True)
class External:
    """An import of something that is not prunelang's: ``import module [as bound]``, or ``from module import name``."""

    module: str
    name: str  # empty for the module as a whole
    bound: str


@dataclass(frozen=True)
class Whole:
    """A module of prunelang imported as a whole."""

    module: str


@dataclass(frozen=True)
class Use:
    """A place in a definition that names something at the top level; `end` is past it, columns count UTF-8 bytes."""

    name: str
    attribute: str | None  # of a module that was imported as a whole
    line: int
    start: int
    end: int


class Module:
    """One file, read as text and never imported."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = _read(name)
        self.lines = self.text.splitlines()
        self.definitions: dict[str, ast.stmt] = {}
        self.imports: dict[str, External | Symbol | Whole] = {}
        for statement in ast.parse(self.text).body:
            self._collect(statement)

    def _collect(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Import() | ast.ImportFrom():
                self.imports.update(_imported(statement))
            case ast.If(test=ast.Name("TYPE_CHECKING"), body=body):
                for inner in body:
                    self._collect(inner)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                self.definitions[name] = statement
            case ast.Assign(targets=[ast.Name(name)]) | ast.AnnAssign(target=ast.Name(name)):
                self.definitions[name] = statement
            case ast.Assign(targets=[ast.Tuple(elts=names)]):
                self.definitions.update({n.id: statement for n in names if isinstance(n, ast.Name)})

    def extent(self, definition: ast.stmt) -> tuple[int, int]:
        """First and last line (from 1): decorators and the comment right above belong to a definition."""
        first = min([definition.lineno, *(d.lineno for d in getattr(definition, "decorator_list", []))])
        while first > 1 and self.lines[first - 2].startswith("#") and not self.lines[first - 2].startswith("# ──"):
            first -= 1
        assert definition.end_lineno is not None
        return first, definition.end_lineno

    def own_names(self, definition: ast.stmt) -> Iterator[Use]:
        """Where a definition states its own name, or names."""
        match definition:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                start = len("def " if isinstance(definition, ast.FunctionDef) else "class ")
                yield Use(name, None, definition.lineno, start, start + len(name.encode()))
            case ast.Assign(targets=[target]) | ast.AnnAssign(target=target):
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                yield from (_use(n, n.id, None) for n in names if isinstance(n, ast.Name))

    def uses(self, definition: ast.stmt) -> Iterator[Use]:
        """Every use of a name of this module's top level, its own imports included."""
        for node in _free(definition):
            name = node.value if isinstance(node, ast.Attribute) else node
            assert isinstance(name, ast.Name)
            whole = isinstance(self.imports.get(name.id), Whole)
            if isinstance(node, ast.Attribute) and whole:
                yield _use(node, name.id, node.attr)
            elif isinstance(node, ast.Name) and not whole and (name.id in self.definitions or name.id in self.imports):
                yield _use(node, name.id, None)

    def meant(self, node: ast.expr) -> External | Symbol | None:
        """What a name at the top level of this module stands for, or one of a module imported as a whole."""
        match node:
            case ast.Name(id=name) if name in self.definitions:
                return Symbol(self.name, name)
            case ast.Name(id=name):
                found = self.imports.get(name)
                return None if isinstance(found, Whole) else found
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                whole = self.imports.get(owner)
                return Symbol(whole.module, name) if isinstance(whole, Whole) else None
        return None


@cache
def module(name: str) -> Module:
    return Module(name)


def _read(name: str) -> str:
    top, *path = name.split(".")
    folder = files(top)
    for part in path[:-1]:
        folder = folder / part
    file = folder / f"{path[-1]}.py"
    if not file.is_file():
        file = folder / path[-1] / "__init__.py"
    return file.read_text(encoding="utf-8")


def _imported(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, External | Symbol | Whole]]:
    if isinstance(statement, ast.Import):
        for a in statement.names:
            bound = a.asname or a.name.partition(".")[0]
            yield bound, External(a.name, "", bound)
        return
    assert statement.module is not None
    own = statement.module.split(".")[0] == "prunelang"
    for a in statement.names:
        bound = a.asname or a.name
        if statement.module == "__future__" or a.name == "TYPE_CHECKING":
            continue
        if not own:
            yield bound, External(statement.module, a.name, bound)
        elif _is_module(f"{statement.module}.{a.name}"):
            yield bound, Whole(f"{statement.module}.{a.name}")
        else:
            yield bound, Symbol(statement.module, a.name)


def _is_module(name: str) -> bool:
    try:
        _read(name)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _use(node: ast.Name | ast.Attribute, name: str, attribute: str | None) -> Use:
    assert node.end_lineno == node.lineno
    assert node.end_col_offset is not None
    return Use(name, attribute, node.lineno, node.col_offset, node.end_col_offset)


# ── scopes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _free(node: ast.AST, bound: frozenset[str] = frozenset()) -> Iterator[ast.Name | ast.Attribute]:
    """Names read that no enclosing function binds; ``a.b`` once as a whole and once as ``a``."""
    if isinstance(node, (*FUNCTIONS, ast.Lambda)):
        yield from _free_of_function(node, bound)
        return
    if isinstance(node, COMPREHENSIONS):
        bound = bound | {n for g in node.generators for n in _stored(g.target)}
    match node:
        case ast.Name(ctx=ast.Load()) if node.id not in bound:
            yield node
        case ast.Attribute(value=ast.Name() as owner) if owner.id not in bound:
            yield node
    for child in ast.iter_child_nodes(node):
        yield from _free(child, bound)


def _free_of_function(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, bound: frozenset[str]
) -> Iterator[ast.Name | ast.Attribute]:
    a = node.args
    arguments = [x for x in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if x]
    outside: list[ast.AST] = [d for d in (*a.defaults, *a.kw_defaults, *(x.annotation for x in arguments)) if d]
    body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else list(node.body)
    if not isinstance(node, ast.Lambda):
        outside += [*node.decorator_list, *([node.returns] if node.returns else [])]
    for part in outside:
        yield from _free(part, bound)
    inner = bound | {x.arg for x in arguments} | {n for part in body for n in _stored(part)}
    for part in body:
        yield from _free(part, inner)


def _stored(node: ast.AST) -> Iterator[str]:
    """Names that a piece of a function's body binds in that function."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        yield node.name
        return
    if isinstance(node, (ast.Lambda, *COMPREHENSIONS)):
        return
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            yield name
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.ExceptHandler(name=str(name)):
            yield name
        case ast.Import() | ast.ImportFrom():
            yield from (alias.asname or alias.name for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _stored(child)
