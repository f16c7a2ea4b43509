"""Params of a spec as options of its script: ``--κ 2%`` in the place of ``prune emit --set κ=2%``.

A param is worked into counts, schedules and texts long before a script is written. So the script is emitted several
times with the param moved, and every number that moved with it is traced back: it must be ⌊κ·n⌋, ⌈κ·n⌉ or a multiple
of κ, with one n or one factor for all values that were tried. A param is offered as an option only if that explains
every difference, and only between the values that were tried; any other stays written out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from prunelang.dsl.names import to_unicode

NUMBER = re.compile(r"(?<![\w.])\d+(?:[.]\d+)?(?:e[+-]?\d+)?(?![\w]|[.]\d)|(?<![\w.])\d{1,3}(?: \d{3})+(?![\w])")
SCALES = (
    Fraction(1, 2),
    Fraction(5, 8),
    Fraction(7, 9),
    Fraction(8, 9),
    Fraction(10, 9),
    Fraction(9, 7),
    Fraction(3, 2),
    2,
)
"""What a param is moved by: fractions that round numbers of a spec share no factor with."""


@dataclass(frozen=True)
class Param:
    """A param with the value in force, exact; a percentage is a share."""

    name: str
    value: Fraction
    percent: bool

    @property
    def variable(self) -> str:
        return to_unicode(self.name)

    def text(self, value: Fraction) -> str:
        """A value as the language writes it."""
        shown = value * 100 if self.percent else value
        return f"{decimal(shown)}{'%' if self.percent else ''}"

    def tried(self) -> Iterator[Fraction]:
        """Other values that can be written exactly; a whole number stays one, a share stays one."""
        for scale in SCALES:
            moved = self.value * scale
            if self.value.denominator == 1 and not self.percent:
                moved = Fraction(round(moved))
            moved = Fraction(f"{float(moved):.9g}")
            if moved not in (0, self.value) and not (self.percent and moved > 1):
                yield moved


@dataclass(frozen=True)
class Option:
    """A param that the script takes as an option, from `low` to `high`."""

    param: Param
    variable: str
    low: str
    high: str

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((f"--{self.param.variable}", f"--{self.param.name}")))


@dataclass(frozen=True)
class Options:
    """What changes in a script: its options, and lines of its main function by number."""

    options: tuple[Option, ...] = ()
    lines: Mapping[int, str] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()  # params that are written out


def decimal(value: Fraction) -> str:
    """A finite decimal, without an exponent."""
    if value.denominator == 1:
        return str(value.numerator)
    from decimal import Decimal, localcontext

    with localcontext() as context:
        context.prec = 60
        return f"{(Decimal(value.numerator) / Decimal(value.denominator)).normalize():f}"


def found(
    params: Sequence[Param],
    main: str,
    emitted: Callable[[Mapping[str, str]], str | None],
    taken: Iterable[str],
    totals: frozenset[int],
) -> Options:
    """The options of a script with this `main` function. `emitted` gives it for other values of params, None where they
    cannot be; `taken` are names that it uses, `totals` counts that a share may be of."""
    names, lines = set(taken), main.split("\n")
    if not params:
        return Options()
    options: list[Option] = []
    edits: dict[int, list[_Edit]] = {}
    fixed: list[str] = []
    for param in params:
        variable = param.variable if param.variable not in names else f"{param.variable}_"
        traced = _traced(param, variable, lines, emitted, totals)
        if traced is None or variable in names:
            fixed.append(param.name)
            continue
        names.add(variable)
        option, own = traced
        options.append(option)
        for edit in own:
            edits.setdefault(edit.line, []).append(edit)
    if any(len({e.start for e in own}) < len(own) for own in edits.values()):
        return Options(fixed=tuple(p.name for p in params))  # two params in one number
    return Options(tuple(options), {i: _rewritten(lines[i], own) for i, own in edits.items()}, tuple(fixed))


# ── one param ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Edit:
    """An expression in the place of a number."""

    line: int
    start: int
    end: int
    text: str


def _traced(
    param: Param,
    variable: str,
    lines: list[str],
    emitted: Callable[[Mapping[str, str]], str | None],
    totals: frozenset[int],
) -> tuple[Option, list[_Edit]] | None:
    """The option and where it is read; None where a difference has no explanation, or there is none at all."""
    values, texts = [param.value], [lines]
    for value in param.tried():
        text = emitted({param.name: param.text(value)})
        if text is not None and _alike(lines, other := text.split("\n")):
            values.append(value)
            texts.append(other)
    if len(values) < 4:
        return None
    edits: list[_Edit] = []
    for i, versions in enumerate(zip(*texts, strict=True)):
        if len(set(versions)) == 1:
            continue
        spans = [[(m.start(), m.end(), m[0]) for m in NUMBER.finditer(v)] for v in versions]
        for numbers in zip(*spans, strict=True):
            shown = [n[2] for n in numbers]
            if len(set(shown)) == 1:
                continue
            start, end, _ = numbers[0]
            where = _where(lines[i], start)
            text = _formula(shown, values, variable, totals)
            if where == "comment":
                text = "…" if text is None else variable
            if text is None or where == "string":
                return None
            edits.append(_Edit(i, start, end, f"{{{text}}}" if where == "text" else text))
    if not edits:
        return None
    low, high = min(values), max(values)
    return Option(param, variable, param.text(low), param.text(high)), edits


def _alike(first: list[str], second: list[str]) -> bool:
    """Whether two texts differ in numbers alone."""
    return len(first) == len(second) and all(
        a == b or NUMBER.sub("0", a) == NUMBER.sub("0", b) for a, b in zip(first, second, strict=True)
    )


def _where(line: str, at: int) -> str:
    """What a place in a line of Python is: code, a comment, the text of an f-string, or another string."""
    quote, formatted, depth = "", False, 0
    for i, c in enumerate(line[:at]):
        if quote:
            if formatted and c in "{}":
                depth += 1 if c == "{" else -1
            elif c == quote and not depth:
                quote = ""
        elif c == "#":
            return "comment"
        elif c in "\"'":
            quote, formatted, depth = c, line[i - 1 : i] == "f", 0
    if not quote or (formatted and depth > 0):
        return "code"
    return "text" if formatted else "string"


def _formula(shown: list[str], values: list[Fraction], variable: str, totals: frozenset[int]) -> str | None:
    """An expression in the variable with these values."""
    if all(re.fullmatch(r"\d+(?: \d{3})*", s) for s in shown):
        found = [int(s.replace(" ", "")) for s in shown]
        if all(n == v for n, v in zip(found, values, strict=True)):
            return f"int({variable})"
        n = _total(found, values, totals)
        if n is not None:
            return f"int({variable} * {n})"
        n = _total([-n for n in found], [-v for v in values], totals)
        return None if n is None else f"-int(-{variable} * {n} // 1)"
    ratio = Fraction(shown[0]) / values[0]
    factor = Fraction(f"{float(ratio):.12g}")
    if any(float(s) != float(factor * v) for s, v in zip(shown, values, strict=True)):
        return None
    if factor == 1:
        return f"float({variable})"
    whole = factor.denominator == 1
    return f"float({factor if whole else f'Fraction({factor.numerator}, {factor.denominator})'} * {variable})"


def _total(counts: list[int], values: list[Fraction], totals: frozenset[int]) -> int | None:
    """The n with ⌊v·n⌋ = count for every value: the only one, or the only one among the known totals."""
    spans = [sorted((Fraction(a) / v, Fraction(a + 1) / v)) for a, v in zip(counts, values, strict=True)]
    low, high = max(s[0] for s in spans), min(s[1] for s in spans)
    first, last = math.ceil(low), math.floor(high)
    if last - first > 1_000_000:
        return None
    fits = [n for n in totals if first <= n <= last] or list(range(first, min(last, first + 2) + 1))
    fits = [n for n in fits if all(math.floor(v * n) == a for a, v in zip(counts, values, strict=True))]
    return fits[0] if len(fits) == 1 else None


def _rewritten(line: str, edits: list[_Edit]) -> str:
    for edit in sorted(edits, key=lambda e: -e.start):
        line = line[: edit.start] + edit.text + line[edit.end :]
    return line
