"""Collects diagnostics. The same finding at the same place is kept once, however many layers it repeats for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeAlias

from prunelang.compiler.checking.values import WRONG, Wrong
from prunelang.dsl.diagnostics import Diagnostic, FixIt, Severity
from prunelang.dsl.spans import Source, Span

Key: TypeAlias = tuple[str, Span, str]


class Reporter:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.unrolling = False  # the same text is read for many layers: messages that differ in a name are one finding
        self._found: dict[Key, Diagnostic] = {}
        self._repeats: dict[Key, int] = {}

    def report(self, diagnostic: Diagnostic) -> None:
        key = (diagnostic.code, diagnostic.span, "" if self.unrolling else diagnostic.message)
        if key in self._found:
            self._repeats[key] = self._repeats.get(key, 0) + 1
        else:
            self._found[key] = diagnostic

    def error(
        self, code: str, span: Span, message: str, *, hint: str | None = None, fix: str | None = None, **more: Any
    ) -> Wrong:
        """Report an error; `fix` is the text that would replace `span`. Returns the value of what is wrong."""
        self._add("error", code, span, message, hint, fix, more)
        return WRONG

    def warning(self, code: str, span: Span, message: str, *, hint: str | None = None, **more: Any) -> None:
        self._add("warning", code, span, message, hint, None, more)

    def _add(
        self,
        severity: Severity,
        code: str,
        span: Span,
        message: str,
        hint: str | None,
        fix: str | None,
        more: dict[str, Any],
    ) -> None:
        fixit = None if fix is None else FixIt(more.pop("fix_span", span), fix)
        if hint is None and fix is not None:
            hint = f"write `{fix}`"
        self.report(Diagnostic(code, severity, message, span, hint=hint, fixit=fixit, **more))

    @property
    def failed(self) -> bool:
        return any(d.severity == "error" for d in self._found.values())

    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """In the order of the file."""
        out = [self._counted(key, d) for key, d in self._found.items()]
        return tuple(sorted(out, key=lambda d: (d.span.start, d.severity != "error")))

    def _counted(self, key: Key, diagnostic: Diagnostic) -> Diagnostic:
        more = self._repeats.get(key, 0)
        if not more:
            return diagnostic
        return replace(
            diagnostic, notes=(*diagnostic.notes, f"and the same {more} more {'time' if more == 1 else 'times'}")
        )


def listing(names: Iterable[str], limit: int = 8) -> str:
    """``a, b, c and 5 more``: names for a message, never a page of them."""
    all_names = list(names)
    shown = all_names[:limit]
    rest = len(all_names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
