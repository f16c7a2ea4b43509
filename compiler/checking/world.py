"""What every part of the checker sees: source, findings, names, the network, and what is registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final, cast

from prunelang.compiler import catalog as built_in
from prunelang.compiler.arguments import Signature as Arguments
from prunelang.compiler.catalog import DataFacts, ModelFacts
from prunelang.compiler.checking.reporter import Reporter
from prunelang.compiler.checking.scope import Scope
from prunelang.compiler.checking.selectors import Selectors
from prunelang.compiler.checking.values import WRONG, Value, Wrong
from prunelang.dsl import tree
from prunelang.dsl.printer import format_expr
from prunelang.dsl.spans import Source, Span
from prunelang.dsl.tree import Call, Comparison, Expr, Membership, Name, Node

MAX_INSTANCES: Final = 200_000
"""Most constraints, or summands, that ∀ and Σ may unroll to."""


@dataclass(frozen=True)
class Catalog:
    """Networks, data sets and losses that a spec may name. A loss's signature holds its options alone."""

    models: Mapping[str, ModelFacts] = field(default_factory=lambda: built_in.MODELS)
    data: Mapping[str, DataFacts] = field(default_factory=lambda: built_in.DATA)
    losses: Mapping[str, Arguments] = field(default_factory=dict)


class TableError(Exception):
    """A network that cannot be built as the spec asks: `message` is a sentence in the user's words."""

    def __init__(self, message: str, hint: str | None = None, code: str = "P543") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


Locals = Mapping[str, Value]
NO_LOCALS: Final[Locals] = {}


@dataclass
class World:
    """The state of one check. `selectors` is None as long as, or because, there is no shape table."""

    source: Source
    report: Reporter
    scope: Scope
    catalog: Catalog
    evaluator: Callable[[World, Expr, Locals], Value]  # `expressions.evaluate`
    selectors: Selectors | None = None
    trained: str | None = None  # name of the network that is trained
    building: bool = False  # arguments of networks and data are being read: no network can be asked anything yet
    body: Span | None = None  # of the constraint under check, for fix-its that rewrite it
    memo: dict[int, Value] = field(default_factory=dict)  # by node: values that do not depend on ∀ and Σ variables
    free: dict[int, frozenset[str]] = field(default_factory=dict)

    def evaluate(self, expr: Expr, local: Locals) -> Value:
        """The value of an argument, for the readers that the evaluator of expressions itself is built on."""
        return self.evaluator(self, expr, local)

    def text(self, node: Node) -> str:
        """The source of a node; its canonical text where it has no span."""
        return self.source.slice(node.span) or canonical_text(node)

    def needs_table(self, span: Span) -> Wrong:
        """The value of what asks the network for something that is not known."""
        if self.building:
            return self.report.error("P542", span, "arguments of networks and data sets cannot depend on a network")
        return WRONG

    def names_in(self, expr: Expr) -> frozenset[str]:
        """Every identifier in `expr`, computed once per node."""
        key = id(expr)
        if key not in self.free:
            found: set[str] = set()
            if isinstance(expr, Name):
                found.add(expr.id)
            for child in children(expr):
                found |= self.names_in(child)
            self.free[key] = frozenset(found)
        return self.free[key]


def children(expr: Expr) -> tuple[Expr, ...]:
    """The expressions directly inside one, in order."""
    out: list[Expr] = []
    for name in _fields(type(expr).__name__):
        item = getattr(expr, name)
        if isinstance(item, tuple):
            out.extend(item)
        elif isinstance(item, Node):
            out.append(item)  # type: ignore[arg-type]
    if isinstance(expr, Call):
        return tuple(a.value for a in expr.arguments)
    return tuple(out)


@cache
def _fields(kind: str) -> tuple[str, ...]:
    fields: tuple[str, ...] = tuple(getattr(tree, kind).__dataclass_fields__)
    return tuple(n for n in fields if n in ("value", "left", "right", "items", "patterns", "domain", "body"))


def canonical_text(node: Node) -> str:
    """The text that the formatter would write."""
    if isinstance(node, Membership):
        return f"{format_expr(node.value)} ∈ {format_expr(node.domain)}"
    if isinstance(node, Comparison):
        signs = zip(node.relations, node.sides[1:], strict=True)
        return format_expr(node.sides[0]) + "".join(f" {sign} {format_expr(side)}" for sign, side in signs)
    return format_expr(cast(Expr, node))
