"""What the text of each construct means as a tree."""

from __future__ import annotations

from fractions import Fraction

import pytest

from prunelang.dsl.diagnostics import SpecError
from prunelang.dsl.parser import parse, parse_bytes, parse_tolerant
from prunelang.dsl.spans import Source
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
    Stage,
    Statement,
    SubjectTo,
    SumOver,
    Text,
    Truth,
)


def n(value: int | str, unit: str | None = None) -> Number:
    return Number(Fraction(value), unit)


def x(name: str = "x") -> Name:
    return Name(name)


def call(function: str, *positional: Expr, **options: Expr) -> Call:
    named = [Argument(name, value) for name, value in options.items()]
    return Call(function, (*(Argument(None, p) for p in positional), *named))


def expression(text: str) -> Expr:
    (let,) = parse(f"let z = {text}\n").statements
    assert isinstance(let, Let)
    return let.value


def constraint(text: str) -> Constraint:
    (block,) = parse(f"subject to\n  {text}\n").statements
    assert isinstance(block, SubjectTo)
    return block.constraints[0]


STATEMENTS: list[tuple[str, Statement]] = [
    ("language 1", Language(1)),
    ("model net = f()", Model("net", call("f"))),
    ('model κ = f(3) from "a/b" frozen', Model("kappa", call("f", n(3)), "a/b", True)),
    ("model net = f() frozen", Model("net", call("f"), None, True)),
    ("data mnist(batch = 256)", Data(None, call("mnist", batch=n(256)))),
    ("data d = mnist()", Data("d", call("mnist"))),
    ("freeze net.biases", Freeze(Attribute(x("net"), "biases"))),
    ("let y = x", Let("y", x())),
    ("param κ = 5%", Param("kappa", n(5, "%"))),
    ("param a = -1 in [-2, 3]", Param("a", Negate(n(1)), Negate(n(2)), n(3))),
    ('param a = "csr"', Param("a", Text("csr"))),
    ("param a = true", Param("a", Truth(True))),
    ("param a = [1, [2]]", Param("a", ListOf((n(1), ListOf((n(2),)))))),
    ("minimize x", Objective("minimize", x())),
    ("maximize x", Objective("maximize", x())),
    (
        "pretrain with sgd() for 20 epochs",
        Stage("pretrain", None, call("sgd"), n(20, "epochs"), None),
    ),
    (
        "finetune minimizing x with sgd() for 1 epoch until saturated()",
        Stage("finetune", x(), call("sgd"), n(1, "epoch"), call("saturated")),
    ),
    (
        "finetune with sgd() for ramp(40, 20, 0, 1) epochs",
        Stage(
            "finetune",
            None,
            call("sgd"),
            Binary("*", call("ramp", n(40), n(20), n(0), n(1)), n(1, "epochs")),
            None,
        ),
    ),
    (
        "finetune with sgd() until saturated",
        Stage("finetune", None, call("sgd"), None, call("saturated")),
    ),
    ("prune tamade(δ = 1%)", Prune(call("tamade", delta=n(1, "%")))),
    ("prune reachability()", Prune(call("reachability"))),
    ("solve auto", Solve(Name("auto"), None, None, None)),
    ("solve lc(μ = 1) for E", Solve(call("lc", mu=n(1)), None, x("E"), None)),
    (
        'report x, "t": y, a.dual, b[fc1].value',
        Report(
            (
                ReportItem(None, x()),
                ReportItem("t", x("y")),
                ReportItem(None, Attribute(x("a"), "dual")),
                ReportItem(None, Attribute(Select(x("b"), (x("fc1"),)), "value")),
            )
        ),
    ),
    ("report for.dual", Report((ReportItem(None, Attribute(x("for"), "dual")),))),
]


@pytest.mark.parametrize(("text", "tree"), STATEMENTS, ids=[t for t, _ in STATEMENTS])
def test_statements(text: str, tree: Statement) -> None:
    assert parse(text).statements == (tree,)


EXPRESSIONS: list[tuple[str, Expr]] = [
    ("1e-4", n("1/10000")),
    ("266_200", n(266200)),
    ("0.5 pp", n("1/2", "pp")),
    ("30 MMACs", n(30, "MMACs")),
    ("40k", n(40, "k")),
    ("k", x("k")),
    ('"a\\"b\\\\c"', Text('a"b\\c')),
    ("[784, 300]", ListOf((n(784), n(300)))),
    ("[]", ListOf(())),
    ("{-1, 0, 1}", Braces((Negate(n(1)), n(0), n(1)))),
    ('net["conv*", "b?"]', Select(x("net"), (Text("conv*"), Text("b?")))),
    ("net.weights", Attribute(x("net"), "weights")),
    ("f(x, on = validation)", call("f", x(), on=x("validation"))),
    ("f(a = 1,)", call("f", a=n(1))),
    ("‖x‖₀", Norm("0", x())),
    ("norm0(x)", Norm("0", x())),
    ("‖x‖₁", Norm("1", x())),
    ("‖x‖∞", Norm("inf", x())),
    ("norminf(x)", Norm("inf", x())),
    ("‖x‖₂²", Binary("^", Norm("2", x()), n(2))),
    ("norm2(x)^2", Binary("^", Norm("2", x()), n(2))),
    ("‖‖x‖₂ * y‖₁", Norm("1", Binary("*", Norm("2", x()), x("y")))),
    ("Σ_{l ∈ S} ‖l‖₀", SumOver("l", x("S"), Norm("0", x("l")))),
    ("sum(norm0(l) for l in S)", SumOver("l", x("S"), Norm("0", x("l")))),
    ("Σ_{l ∈ S} l * y", Binary("*", SumOver("l", x("S"), x("l")), x("y"))),
    ("Σ_{l ∈ S} l^2", SumOver("l", x("S"), Binary("^", x("l"), n(2)))),
    ("‖Σ_{l ∈ S} ‖l‖₁‖₂", Norm("2", SumOver("l", x("S"), Norm("1", x("l"))))),
    ("sum(x)", call("sum", x())),
    ("a + b * c", Binary("+", x("a"), Binary("*", x("b"), x("c")))),
    ("a - b - c", Binary("-", Binary("-", x("a"), x("b")), x("c"))),
    ("a / b / c", Binary("/", Binary("/", x("a"), x("b")), x("c"))),
    ("a ^ b ^ c", Binary("^", x("a"), Binary("^", x("b"), x("c")))),
    ("-a ^ b", Negate(Binary("^", x("a"), x("b")))),
    ("a ^ -b", Binary("^", x("a"), Negate(x("b")))),
    ("-a * b", Binary("*", Negate(x("a")), x("b"))),
    ("a · b × c", Binary("*", Binary("*", x("a"), x("b")), x("c"))),
    ("a | b + c", Binary("|", x("a"), Binary("+", x("b"), x("c")))),
    ("a | b except c | d", Binary("except", Binary("|", x("a"), x("b")), Binary("|", x("c"), x("d")))),
]


@pytest.mark.parametrize(("text", "tree"), EXPRESSIONS, ids=[t for t, _ in EXPRESSIONS])
def test_expressions(text: str, tree: Expr) -> None:
    assert expression(text) == tree


@pytest.mark.parametrize("text", ["κ", "kappa", "𝜅", "ϰ"])
def test_spellings_of_one_name(text: str) -> None:
    assert expression(text) == x("kappa")
    assert expression(f"{text}_fc") == x("kappa_fc")


CONSTRAINTS: list[tuple[str, Constraint]] = [
    ("x ≤ 3", Constraint(None, (), Comparison((x(), n(3)), ("≤",)))),
    ("x >= 3", Constraint(None, (), Comparison((x(), n(3)), ("≥",)))),
    ("a: 1 ≤ x <= 3", Constraint("a", (), Comparison((n(1), x(), n(3)), ("≤", "≤")))),
    ("with: x ∈ dense", Constraint("with", (), Membership(x(), x("dense")))),
    ("κ: x in dense", Constraint("kappa", (), Membership(x(), x("dense")))),
    ("∀ l ∈ S: l ≤ 1", Constraint(None, (ForAll("l", x("S")),), Comparison((x("l"), n(1)), ("≤",)))),
    (
        "a: forall l in S: ∀ m ∈ T: l ≤ m",
        Constraint("a", (ForAll("l", x("S")), ForAll("m", x("T"))), Comparison((x("l"), x("m")), ("≤",))),
    ),
]


@pytest.mark.parametrize(("text", "tree"), CONSTRAINTS, ids=[t for t, _ in CONSTRAINTS])
def test_constraints(text: str, tree: Constraint) -> None:
    assert constraint(text) == tree


@pytest.mark.parametrize(
    "text",
    [
        "minimize x s.t. a ≤ 3\n  b ≤ 4",
        "minimize x\ns.t. a ≤ 3\nb ≤ 4",
        "minimize x subject to\n  a ≤ 3\n  b ≤ 4",
        "minimize x\nsubject to a ≤\n\n 3\n\n# c\n  b\n    ≤ 4",
        "minimize\tx\r\nsubject   to\r\n a ≤ 3\r\n b ≤ 4\r\n",
        "\ufeff\n\nminimize x # c\nsubject to # c\n a ≤ 3 # c\n b ≤ 4 # c",
        "minimize (x\n)\nsubject to\n (a\n) ≤ 3\n b ≤ (\n4)",
    ],
)
def test_layouts_of_one_spec(text: str) -> None:
    block = SubjectTo(
        (
            Constraint(None, (), Comparison((x("a"), n(3)), ("≤",))),
            Constraint(None, (), Comparison((x("b"), n(4)), ("≤",))),
        )
    )
    assert parse(text).statements == (Objective("minimize", x()), block)


@pytest.mark.parametrize("sign", ["+", "-", "*", "·", "×", "/", "^"])
@pytest.mark.parametrize("layout", ["let z = a {}\n b", "let z = a\n\n # c\n {} b", "let z = (a\n{}\nb)"])
def test_a_line_goes_on_after_and_before_an_operator(sign: str, layout: str) -> None:
    (let,) = parse(layout.format(sign)).statements
    assert let == Let("z", expression(f"a {sign} b"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("let z = a |\n b", "let z = a | b"),
        ("let z = a except\n b", "let z = a except b"),
        ("let z = a\n except b", "let z = a except b"),
        ("let z =\n 3", "let z = 3"),
        ("report a,\n b", "report a, b"),
        ("param a = 3\n in [1, 2]", "param a = 3 in [1, 2]"),
        ('model m = f()\n from "w"\n', 'model m = f() from "w"'),
        ("solve s()\n with o()\n for 3 steps\n until t()", "solve s() with o() for 3 steps until t()"),
        ("subject to\n a:\n ∀ l\n ∈ S:\n l\n ≤ 3", "subject to\n a: ∀ l ∈ S: l ≤ 3"),
        ("let z = ‖a\n‖₀", "let z = ‖a‖₀"),
        ("let z = Σ_{l ∈\nS\n} 3", "let z = Σ_{l ∈ S} 3"),
    ],
)
def test_where_a_line_goes_on(one: str, other: str) -> None:
    assert parse(one) == parse(other)


@pytest.mark.parametrize(
    "text",
    [
        "let z = a\n | b",  # no line starts with `|`
        "solve lc() with\n sgd()",
        "forall l in S: x ≤ 3",
        "let x = a b",
        "minimize x s.t.",
        "solve lc",
        "prune tamade",
        "prune tamade() for 3 epochs",
        "prune",
        "let prune = 3",
        "language 1.5",
        "language 1 MB",
        "model net = f",
        "model net = f() frozen frozen",
        "data d = 3",
        "param x = y",
        "subject to\n a ≤ b ≤ c ≤ d",
        "let x = norm0()",
        "let x = norm2(a, by = row)",
        "let x = f(a for l in S)",
        "let x = {}",
        "let x = net[]",
        "let x = f(,)",
        "let pi = 3",
        "let x = Σ_{lr ∈ S} 3",
        "subject to\n ∀ epoch ∈ S: x ≤ 3",
        "model data = f()",
        "report",
    ],
)
def test_what_is_no_spec(text: str) -> None:
    with pytest.raises(SpecError):
        parse(text)


def test_prune_may_name_what_any_word_may() -> None:
    text = "subject to\n  prune: x ≤ 3\nsolve s(prune = 1)\nreport prune.value, x.prune\n"
    block, solve, report = parse(text).statements
    assert isinstance(block, SubjectTo)
    assert block.constraints[0].label == "prune"
    assert solve == Solve(call("s", prune=n(1)), None, None, None)
    items = (ReportItem(None, Attribute(x("prune"), "value")), ReportItem(None, Attribute(x(), "prune")))
    assert report == Report(items)


def test_a_line_that_starts_with_a_sign_goes_on() -> None:
    assert parse("subject to\n x ≤ 3\n - y\n") == parse("subject to\n x ≤ 3 - y\n")


def test_spans_cover_their_text() -> None:
    text = "# c\nminimize f(x) + 2 * ‖net.weights‖₂²\nsubject to\n  size: x ≤ 3\nsolve lc()\n"
    source = Source(text)
    spec = parse(text)
    objective, block, solve = spec.statements
    assert isinstance(objective, Objective)
    assert isinstance(block, SubjectTo)
    assert source.slice(objective.span) == "minimize f(x) + 2 * ‖net.weights‖₂²"
    assert isinstance(objective.value, Binary)
    assert source.slice(objective.value.left.span) == "f(x)"
    assert source.slice(objective.value.right.span) == "2 * ‖net.weights‖₂²"
    (only,) = block.constraints
    assert source.slice(block.span) == "subject to\n  size: x ≤ 3"
    assert source.slice(only.span) == "size: x ≤ 3"
    assert only.label_span is not None
    assert source.slice(only.label_span) == "size"
    assert source.slice(solve.span) == "solve lc()"
    assert source.slice(spec.comments[0].span) == "# c"
    assert spec.span.end == len(text)


def test_comments_know_whether_they_own_their_line() -> None:
    comments = parse("# a\nlet x = 3 # b\n  # c  \nlet y = f( # d\n # e\n 3)").comments
    assert [(c.text, c.own_line) for c in comments] == [
        ("# a", True),
        ("# b", False),
        ("# c", True),
        ("# d", False),
        ("# e", True),
    ]


def test_a_tolerant_parse_never_raises_and_keeps_what_is_good() -> None:
    spec, diagnostics = parse_tolerant("let x = 3\nlet y = \nlet z = 4\n")
    assert [s.name for s in spec.statements if isinstance(s, Let)] == ["x", "z"]
    assert [d.code for d in diagnostics] == ["P100"]
    assert parse_tolerant("") == (parse(""), ())


def test_bytes_with_a_mark_are_text() -> None:
    assert parse_bytes(b"\xef\xbb\xbflet x = 3\n") == parse("let x = 3")
    _, (found,) = parse_tolerant("\ufefflet 3")
    source = Source("\ufefflet 3")
    assert (source.position(found.span.start).line, source.position(found.span.start).column) == (1, 5)
    assert source.line(1) == "let 3"
