"""Names: what declares them, which are reserved, and which may be read where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from prunelang.compiler.checking.reporter import Reporter
from prunelang.compiler.checking.values import WRONG, Value
from prunelang.compiler.functions import SPLITS
from prunelang.compiler.schedule import CLOCKS
from prunelang.dsl.names import to_unicode
from prunelang.dsl.spans import Span

What = Literal["model", "data", "let", "param"]

STATEMENT_WORDS: Final = (
    "language", "model", "data", "freeze", "let", "param", "minimize", "maximize", "subject", "pretrain", "finetune",
    "solve", "prune", "report",
)  # fmt: skip
CLAUSE_WORDS: Final = ("with", "for", "until", "from", "in", "except", "forall", "true", "false")
CONSTANTS: Final = ("base", "pi", "dense", "auto")
RESERVED: Final = frozenset((*STATEMENT_WORDS, *CLAUSE_WORDS, *CONSTANTS, *CLOCKS, *SPLITS))


def reserved_because(name: str) -> str:
    """Why a name cannot be declared."""
    if name in CLOCKS:
        return "a clock"
    if name in SPLITS:
        return "a split of the data"
    if name in CONSTANTS:
        return "a fixed value of the language"
    return "a word of the language"


@dataclass(frozen=True)
class Binding:
    name: str
    what: What
    compute: Callable[[], Value]  # called at most once, when the name is first read
    at: int  # index of the statement
    span: Span


class Scope:
    """All declared names. A name is known from the statement after its declaration on."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._bindings: dict[str, Binding] = {}
        self._values: dict[str, Value] = {}
        self.at = 0  # the statement under check

    def declare(self, name: str, what: What, compute: Callable[[], Value], span: Span) -> None:
        """Bind a name to what `compute` will give. A reserved or doubled one is reported; what was first stays."""
        if not self.admissible(name, span):
            return
        known = self._bindings.get(name)
        if known is not None:
            self._report.error(
                "P203",
                span,
                f"`{to_unicode(name)}` is already the name of a {known.what}",
                hint="choose another name: nothing may be declared twice",
            )
            return
        self._bindings[name] = Binding(name, what, compute, self.at, span)

    def admissible(self, name: str, span: Span) -> bool:
        """Whether a name may be declared at all; reports it if not."""
        if name in RESERVED:
            self._report.error(
                "P204", span, f"`{name}` cannot be declared: it is {reserved_because(name)}", hint="choose another name"
            )
            return False
        return True

    def __contains__(self, name: str) -> bool:
        return name in self._bindings

    def binding(self, name: str) -> Binding | None:
        return self._bindings.get(name)

    def names(self) -> list[str]:
        return list(self._bindings)

    def look_up(self, name: str, span: Span) -> Value | None:
        """The value of a declared name, None when there is none; reading it too early is reported."""
        binding = self._bindings.get(name)
        if binding is None:
            return None
        if binding.at >= self.at and binding.what in ("let", "param"):
            self._report.error(
                "P202",
                span,
                f"`{to_unicode(name)}` is used before it is declared",
                hint="move its declaration above this line",
            )
            return WRONG
        return self.value(name)

    def value(self, name: str) -> Value:
        """The value of a declared name, computed as of its own statement."""
        if name not in self._values:
            binding, here = self._bindings[name], self.at
            self.at = binding.at
            self._values[name] = binding.compute()
            self.at = here
        return self._values[name]
