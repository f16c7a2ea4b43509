"""Formulas as MathML Core, which browsers set without any script."""

from __future__ import annotations

from html import escape

from prunelang.notation import formula as f

STRETCHY = frozenset("()[]{}‖")


def math(node: f.Formula, *, display: bool = False) -> str:
    """A whole ``<math>`` element; the names, numbers and signs in it are escaped."""
    shown = ' display="block"' if display else ""
    return f"<math{shown}><mrow>{element(node)}</mrow></math>"


def element(node: f.Formula) -> str:
    """What stands inside ``<math>``."""
    match node:
        case f.Symbol(text):
            return f"<mi>{escape(text)}</mi>"
        case f.Word(text, function):
            # several letters are upright by themselves; a single one has to be told
            upright = ' mathvariant="normal"' if len(text) == 1 else ""
            apply = "<mo>\N{FUNCTION APPLICATION}</mo>" if function else ""
            return f"<mi{upright}>{escape(text)}</mi>{apply}"
        case f.Number(text):
            return f"<mn>{escape(text)}</mn>"
        case f.Sign(text):
            return f"<mo>{escape(text)}</mo>"
        case f.Row(parts):
            return f"<mrow>{''.join(map(element, parts))}</mrow>"
        case f.Sub(base, below):
            return f"<msub>{_one(base)}{_one(below)}</msub>"
        case f.Sup(base, above):
            return f"<msup>{_one(base)}{_one(above)}</msup>"
        case f.Under(base, below):
            return f"<munder>{_one(base)}{_one(below)}</munder>"
        case f.Fraction(above, below):
            return f"<mfrac>{_one(above)}{_one(below)}</mfrac>"
        case f.Fence(opening, body, closing):
            return f"<mrow>{_fence(opening)}{element(body)}{_fence(closing)}</mrow>"


def _one(node: f.Formula) -> str:
    return f"<mrow>{element(node)}</mrow>"


def _fence(sign: str) -> str:
    return f'<mo stretchy="false">{escape(sign)}</mo>'
