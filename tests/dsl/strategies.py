"""Random whole specs, made as trees: everything that the grammar can say, and nothing that it cannot.

The tests of other layers take `specs` and `expressions` from here.
"""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from prunelang.dsl.names import KEYWORDS, RESERVED
from prunelang.dsl.numbers import MAX_DIGITS, MAX_EXPONENT, UNITS
from prunelang.dsl.scanner import CONTROL
from prunelang.dsl.tree import (
    Argument,
    Attribute,
    Binary,
    Braces,
    Call,
    Comparison,
    Constraint,
    Data,
    Expr,
    ForAll,
    Freeze,
    Language,
    Let,
    ListOf,
    Membership,
    Model,
    Name,
    Negate,
    Norm,
    Number,
    Objective,
    Param,
    Prune,
    Report,
    ReportItem,
    Select,
    Solve,
    Spec,
    Stage,
    SubjectTo,
    SumOver,
    Text,
    Truth,
)
from prunelang.dsl.tree_builder import NORMS

_PLAIN = ["x", "net", "kappa", "kappa_fc", "mu1", "Sigma_2", "alphabet", "weights", "naïve", "層", "_", "a_lambda"]
_SOFT = ["auto", "frozen", "minimizing", "epochs", "steps", "sum", "inf", "to", "t", "s"]

declared_names = st.sampled_from(_PLAIN + _SOFT) | st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True).filter(
    lambda name: name not in RESERVED
)
names = declared_names | st.sampled_from([*sorted(RESERVED - KEYWORDS), *NORMS])
words = names | st.sampled_from(sorted(KEYWORDS))
"""Labels, options and attributes."""
functions = names.filter(lambda name: name not in NORMS)
"""Of calls in expressions: ``norm0(w)`` is a `Norm` there."""
units = st.sampled_from(UNITS)


@st.composite
def numbers(draw: st.DrawFn) -> Number:
    digits = draw(st.integers(0, 10**MAX_DIGITS - 1) | st.integers(0, 300))
    room = MAX_EXPONENT - MAX_DIGITS
    exponent = draw(st.integers(-room, room) | st.integers(-4, 4))
    return Number(digits * Fraction(10) ** exponent, draw(st.none() | units))


texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8).filter(lambda t: not CONTROL.search(t))
truths = st.booleans().map(Truth)

literals: st.SearchStrategy[Expr] = st.recursive(
    numbers() | numbers().map(Negate) | texts.map(Text) | truths,
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda items: ListOf(tuple(items))),
    max_leaves=4,
)


def _tuples(inner: st.SearchStrategy[Expr], least: int = 0) -> st.SearchStrategy[tuple[Expr, ...]]:
    return st.lists(inner, min_size=least, max_size=3).map(tuple)


def _arguments(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[tuple[Argument, ...]]:
    return st.lists(st.builds(Argument, st.none() | words, inner), max_size=3).map(tuple)


def _compound(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    return st.one_of(
        st.builds(ListOf, _tuples(inner)),
        st.builds(Braces, _tuples(inner, 1)),
        st.builds(Attribute, inner, words),
        st.builds(Select, inner, _tuples(inner, 1)),
        st.builds(Call, functions, _arguments(inner)),
        st.builds(Norm, st.sampled_from(["0", "1", "2", "inf"]), inner),
        st.builds(Binary, st.just("^"), st.builds(Norm, st.just("2"), inner), st.just(Number(Fraction(2)))),
        st.builds(Negate, inner),
        st.builds(Binary, st.sampled_from(["+", "-", "*", "/", "^", "|", "except"]), inner, inner),
        st.builds(SumOver, declared_names, inner, inner),
    )


expressions: st.SearchStrategy[Expr] = st.recursive(
    numbers() | texts.map(Text) | truths | names.map(Name), _compound, max_leaves=5
)
calls = st.builds(Call, names, _arguments(expressions))
foralls = st.lists(st.builds(ForAll, declared_names, expressions), max_size=2).map(tuple)
durations = expressions | st.builds(
    Binary,
    st.just("*"),
    expressions,
    st.builds(Number, st.just(Fraction(1)), st.sampled_from(["epoch", "epochs", "step", "steps"])),
)


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    sides = draw(st.lists(expressions, min_size=2, max_size=3))
    return Comparison(tuple(sides), tuple(draw(st.sampled_from("≤≥")) for _ in sides[1:]))


constraints = st.builds(
    Constraint, st.none() | words, foralls, comparisons() | st.builds(Membership, expressions, expressions)
)
_clauses = (st.none() | calls, st.none() | durations, st.none() | calls)


@st.composite
def params(draw: st.DrawFn) -> Param:
    low, high = draw(st.just((None, None)) | st.tuples(literals, literals))
    return Param(draw(declared_names), draw(literals), low, high)


@st.composite
def reserved_labels(draw: st.DrawFn) -> Attribute:
    """A label that is spelled like a word of the language: `report` alone can name it."""
    label: Expr = Name(draw(st.sampled_from(sorted(KEYWORDS))))
    if draw(st.booleans()):
        label = Select(label, (draw(expressions),))
    return Attribute(label, draw(words))


statements = st.one_of(
    st.builds(Model, declared_names, calls, st.none() | texts, st.booleans()),
    st.builds(Data, st.none() | declared_names, calls),
    st.builds(Freeze, expressions),
    st.builds(Let, declared_names, expressions),
    params(),
    st.builds(Objective, st.sampled_from(["minimize", "maximize"]), expressions),
    st.builds(SubjectTo, st.lists(constraints, min_size=1, max_size=3).map(tuple)),
    st.builds(Stage, st.sampled_from(["pretrain", "finetune"]), st.none() | expressions, *_clauses),
    st.builds(Solve, calls | st.just(Name("auto")), *_clauses),
    st.builds(Prune, calls),
    st.builds(
        Report,
        st.lists(st.builds(ReportItem, st.none() | texts, expressions | reserved_labels()), min_size=1, max_size=3).map(
            tuple
        ),
    ),
)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    first = [Language(1)] if draw(st.booleans()) else []
    return Spec((*first, *draw(st.lists(statements, max_size=5))))
