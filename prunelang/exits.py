"""Exit codes: one table for all commands."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from prunelang.dsl.diagnostics import Diagnostic


class Exit(IntEnum):
    """What a command's exit code says."""

    DONE = 0
    SPEC = 1
    USAGE = 2
    INFEASIBLE = 3
    VIOLATED = 4
    NUMERICAL = 5
    RESUME_REFUSED = 6
    FORMATTING = 7
    BUG = 70
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        return MEANINGS[self]


MEANINGS: dict[Exit, str] = {
    Exit.DONE: "done, and every constraint verified",
    Exit.SPEC: "errors in the spec, its data or its files",
    Exit.USAGE: "the command line is wrong",
    Exit.INFEASIBLE: "proved infeasible before training",
    Exit.VIOLATED: "a constraint is violated, or cannot be verified",
    Exit.NUMERICAL: "numerical failure: a number that is not finite, or divergence",
    Exit.RESUME_REFUSED: "resume refused: another meaning, or no whole checkpoint",
    Exit.FORMATTING: "`fmt --check` found files to format",
    Exit.BUG: "a bug of prunelang",
    Exit.INTERRUPTED: "interrupted, with the last good state saved",
}


def exit_of(diagnostics: Iterable[Diagnostic]) -> Exit:
    """3 when the only errors are proofs of infeasibility (P3xx), 1 for any other error, else 0."""
    errors = [d for d in diagnostics if d.severity == "error"]
    if not errors:
        return Exit.DONE
    return Exit.INFEASIBLE if all(d.code.startswith("P3") for d in errors) else Exit.SPEC


def worst(exits: Iterable[Exit]) -> Exit:
    """The exit code for several files: errors before proofs of infeasibility before none."""
    found = set(exits)
    return Exit.SPEC if Exit.SPEC in found else max(found, default=Exit.DONE)


def table() -> str:
    """The table for ``--help``."""
    return "\n".join(f"  {code:>3}  {code.meaning}" for code in Exit)
