"""Proofs in words: numbers with their thousands apart, functions and sets by the names that the language gives them."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from prunelang.compiler.problem import Named
from prunelang.compiler.proofs.conflicts import Change
from prunelang.compiler.proofs.lines import Line
from prunelang.dsl.numbers import grouped

_FUNCTIONS = {"norm0": "nonzeros", "entries": "kept positions", "group_norm0": "groups", "sum": "the sum"}


def number(n: Fraction | int | float) -> str:
    """``1 275 145``; what is no integer stays as it is."""
    return grouped(int(n)) if isinstance(n, int) or n == int(n) else str(float(n))


def amount(n: Fraction | int, unit: str) -> str:
    return f"{number(n)} {unit}" if unit else number(n)


def function(line: Line) -> str:
    """``nonzeros``; of a set that says what tensors are made of, its name: ``∈ codebook + sparse``."""
    match line.constraint.set:
        case Named(name=made_of, parts=parts):
            return f"∈ {' + '.join(p.name for p in parts if isinstance(p, Named)) or made_of}"
    name = line.constraint.function.name
    return _FUNCTIONS.get(name, name)


def tensor(name: str) -> str:
    """A kernel goes by the name of its layer."""
    return name.removesuffix(".weight")


def listed(labels: Iterable[str], most: int = 4) -> str:
    """`a`, `b` and `c`; or `a`, `b`, `c`, `d` and 12 more."""
    quoted = [f"`{x}`" for x in labels]
    if len(quoted) > most + 1:
        quoted = [*quoted[:most], f"{number(len(quoted) - most)} more"]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def asked(line: Line, dense: int | None) -> str:
    """What a line asks, as integers: ``≤ 13 310 of 266 200``."""
    unit, of = line.constraint.function.unit, f" of {number(dense)}" if dense else ""
    ends = ("≥", line.low), ("≤", line.high)
    text = ", ".join(f"{sign} {number(end)}" for sign, end in ends if end is not None)
    return f"{text}{of} {unit}".strip() if text else line.constraint.text


def percentage(value: int, dense: int | None, up: bool) -> str | None:
    """A share of `dense` that rounds to the safe side, with at least three digits of it: ``8.07%``."""
    if not dense or not 0 <= value <= dense:
        return None
    for digits in range(2, 12):
        scale = 100 * 10**digits
        share = -(-value * scale // dense) if up else value * scale // dense
        if share >= 100 or value == 0:
            whole, rest = divmod(share, 10**digits)
            return f"{whole}.{rest:0{digits}d}".rstrip("0").rstrip(".") + "%"
    return None


def sum_of(terms: Iterable[tuple[str, int, int]], constant: int) -> str:
    """``9 408 (conv1) + 2 048 000 (fc)``, largest first beyond six terms, with a rest."""
    items = [(c * n, f"{number(n) if c == 1 else f'{number(c)}·{number(n)}'} ({tensor(t)})") for t, n, c in terms]
    if len(items) > 6:
        items.sort(key=lambda x: -x[0])
        rest = sum(v for v, _ in items[3:])
        items = [*items[:3], (rest, f"{number(rest)} ({number(len(items) - 3)} more tensors)")]
    texts = [text for _, text in items] + ([f"{number(constant)} (fixed)"] if constant else [])
    return " + ".join(texts)


def change(c: Change, line: Line, dense: int | None) -> tuple[str, dict[str, Any]]:
    """One way out, for people and for programs."""
    label = line.label
    if c.to is not None:
        share = percentage(c.to, dense, c.relation == "≤")
        text = f"{label} {c.relation} {amount(c.to, line.constraint.function.unit)}" + (f" ({share})" if share else "")
        data = {"constraint": label, "relation": c.relation, "to": c.to}
        return text, {**data, "percent": share} if share else data
    if c.pattern is not None:
        pattern = f"n_of_m({c.pattern[0]}, {c.pattern[1]})"
        return f"`{label}` as {pattern}", {"constraint": label, "to": pattern}
    if c.drop:
        return f"drop {listed(map(tensor, c.drop))} from `{label}`", {"constraint": label, "drop": list(c.drop)}
    return f"drop `{label}`", {"constraint": label, "drop": True}
