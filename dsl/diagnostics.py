"""Diagnostics as values: what is wrong, where, why, and what would mend it.

The checker collects them; one function renders them. Codes are stable: P1xx syntax, P2xx meaning, P3xx proofs about
budgets, P4xx solvers and stages, P5xx data, weights and files, P6xx runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prunelang.dsl.spans import Source, Span

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class FixIt:
    """Replace the text at `span` by `text`."""

    span: Span
    text: str


@dataclass(frozen=True)
class Label:
    """A second place that the message speaks of, with what it says there."""

    span: Span
    message: str


@dataclass(frozen=True)
class Diagnostic:
    """One finding. `message` is a sentence in the user's words; `hint` says what to do; `notes` hold the arithmetic."""

    code: str
    severity: Severity
    message: str
    span: Span
    label: str | None = None
    secondary: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    hint: str | None = None
    fixit: FixIt | None = None
    expected: tuple[str, ...] = ()
    found: str | None = None
    conflict: tuple[str, ...] = ()
    certificate: Mapping[str, Any] = field(default_factory=dict)
    relaxations: tuple[Mapping[str, Any], ...] = ()

    def to_json(self, source: Source) -> dict[str, Any]:
        start, end = source.position(self.span.start), source.position(self.span.end)
        out: dict[str, Any] = {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "file": source.name,
            "range": {
                "start": {"line": start.line, "column": start.column},
                "end": {"line": end.line, "column": end.column},
            },
        }
        optional = {
            "notes": list(self.notes),
            "hint": self.hint,
            "expected": list(self.expected),
            "found": self.found,
            "fixit": None
            if self.fixit is None
            else {"start": self.fixit.span.start, "end": self.fixit.span.end, "text": self.fixit.text},
            "conflict": list(self.conflict),
            "certificate": dict(self.certificate),
            "relaxations": [dict(r) for r in self.relaxations],
        }
        out.update({k: v for k, v in optional.items() if v})
        return out


class SpecError(Exception):
    """A spec that cannot be accepted; holds every diagnostic that was found, and renders them all."""

    def __init__(self, diagnostics: Iterable[Diagnostic], source: Source) -> None:
        self.diagnostics = tuple(diagnostics)
        self.source = source
        super().__init__(render(self.diagnostics, source))


def suggest(name: str, candidates: Iterable[str], count: int = 3, cutoff: float = 0.6) -> list[str]:
    """The candidates nearest to `name`, nearest first; `cutoff` in [0, 1] is the least similarity."""
    from difflib import get_close_matches  # only ever needed once something is wrong

    return get_close_matches(name, list(dict.fromkeys(candidates)), n=count, cutoff=cutoff)


def did_you_mean(name: str, candidates: Iterable[str]) -> str | None:
    """``did you mean `a` or `b`?``, or None when nothing is near."""
    near = suggest(name, candidates)
    if not near:
        return None
    return "did you mean " + " or ".join(f"`{n}`" for n in near) + "?"


def render(diagnostics: Iterable[Diagnostic], source: Source) -> str:
    """All diagnostics as text, in the order of the file, each with its line, a caret and what would help."""
    ordered = sorted(diagnostics, key=lambda d: (d.span.start, d.severity != "error"))
    return "\n".join(_render(d, source) for d in ordered)


def _render(d: Diagnostic, source: Source) -> str:
    at = source.position(d.span.start)
    lines = [f"{source.name}:{at.line}:{at.column}: {d.severity}[{d.code}]: {visible(d.message)}"]
    marks = sorted([Label(d.span, d.label or ""), *d.secondary], key=lambda m: m.span.start)
    width = max(len(str(source.position(m.span.start).line)) for m in marks)
    lines.append(" " * width + " |")
    shown = None
    for mark in marks:
        number = source.position(mark.span.start).line
        text, under = _excerpt(mark, "^" if mark.span == d.span else "-", source)
        if (number, text) != shown:
            lines.append(f"{number:>{width}} | {text}".rstrip())
            shown = number, text
        lines.append(f"{'':>{width}} | {under}{' ' + visible(mark.message) if mark.message else ''}")
    lines.extend(f"{'':>{width}} = {note}" for note in d.notes)
    if d.hint:
        lines.append(f"{'':>{width}} = help: {visible(d.hint)}")
    return "\n".join(lines)


_WIDEST = 160  # characters of a line that are shown


def _excerpt(mark: Label, caret: str, source: Source) -> tuple[str, str]:
    """The line that a mark starts on, and the carets under its part of it; of a long line, the part around the mark."""
    start, end = source.position(mark.span.start), source.position(mark.span.end)
    text = visible(source.line(start.line))
    first = min(start.column - 1, len(text))
    last = end.column - 1 if end.line == start.line else len(text)
    cut = 0
    if len(text) > _WIDEST:
        cut = max(0, min(first - _WIDEST // 2, len(text) - _WIDEST))
        text = ("…" if cut else "") + text[cut + bool(cut) : cut + _WIDEST] + ("…" if cut + _WIDEST < len(text) else "")
    first, last = first - cut, min(last - cut, len(text))
    pad = "".join("\t" if c == "\t" else " " for c in text[:first])
    return text, pad + caret * max(1, last - first)


def visible(text: str) -> str:
    """`text` with every character that cannot be shown on a line replaced by one that can."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\t\n" or (c.isspace() and c > "\x7f") else "\ufffd" for c in text)
