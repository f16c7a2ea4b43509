"""Problems that Python builds: every tree of the language through the operators, and the checks of a file."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import prunelang
from prunelang import Problem, words
from prunelang.building.expressions import Condition, Expression, braces, call, each, name, node_of, quoted, total
from prunelang.compiler.functions import FUNCTIONS, SETS, TESTS
from prunelang.compiler.optimizers import OPTIMIZERS
from prunelang.compiler.pruners.base import pruners
from prunelang.compiler.solvers.base import solvers
from prunelang.dsl import tree
from prunelang.dsl.diagnostics import SpecError
from prunelang.dsl.formatter import format_spec
from prunelang.dsl.parser import parse
from tests.dsl.strategies import expressions, specs

SPECS = sorted((Path(__file__).parents[2] / "specs").glob("*.prune"))
BINARY: dict[str, Any] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "^": lambda a, b: a**b,
    "|": lambda a, b: a | b,
    "except": lambda a, b: a.without(b),
}


def built(node: tree.Expr) -> Expression:
    """The same tree, made with what the module offers."""
    match node:
        case tree.Name(id=identifier):
            return name(identifier)
        case tree.Text(value=value):
            return quoted(value)
        case tree.Attribute(value=value, name=attribute) if attribute.isidentifier() and not _own(attribute):
            found = getattr(built(value), attribute)
            assert isinstance(found, Expression)
            return found
        case tree.Select(value=value, patterns=patterns):
            chosen = tuple(p.value if isinstance(p, tree.Text) else built(p) for p in patterns)
            return built(value)[chosen]
        case tree.Braces(items=items):
            return braces(*map(built, items))
        case tree.Norm(order=order, value=value):
            return call(f"norm{order}", built(value))
        case tree.Negate(value=value):
            return -built(value)
        case tree.Binary(operator=operator, left=left, right=right):
            found = BINARY[operator](built(left), built(right))
            assert isinstance(found, Expression)
            return found
        case tree.ListOf(items=items):
            return Expression(node_of([built(x) for x in items]))
        case tree.Truth(value=value):
            return Expression(node_of(value))
        case tree.Number(value=value, unit=None):
            return Expression(node_of(value))
    return Expression(node)


def _own(attribute: str) -> bool:
    """Names that expressions have methods under, or that Python keeps."""
    kept = attribute.startswith("__") or attribute.endswith("_")
    return kept or attribute == "node" or hasattr(Expression, attribute)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(expressions)
def test_every_expression_can_be_built(node: tree.Expr) -> None:
    assert built(node).node == node


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs(), st.sampled_from(["unicode", "ascii"]))
def test_a_text_comes_back(spec: tree.Spec, style: Any) -> None:
    text = format_spec(spec, style=style)
    problem = Problem.from_prune(text)
    assert problem.spec == spec
    assert problem.to_prune(style=style) == format_spec(problem.spec, style=style)
    assert parse(problem.to_prune(style=style)) == spec


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_the_specs_come_back(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert parse(Problem.from_prune(text).to_prune()) == parse(text)


def problem() -> Problem:
    p = Problem("mlp([64, 32, 10])", "digits(batch = 64)")
    net, budget = p.net, p.param("κ", "20%", "1%", "50%")
    p.minimize(words.cross_entropy(net) + 1e-4 * words.norm2(net["fc2"].biases) ** 2)
    p.subject_to("sparsity", words.norm0(net["fc1"].weights) <= budget)
    p.subject_to("codes", net["fc2"].weights.in_(words.codebook(4)))
    p.subject_to(each(net.layers, lambda layer: words.norm0(layer.weights) <= "90%"))
    p.subject_to(words.bytes_(net).between("100 B", "20 KB"))
    p.subject_to(total(net.layers, lambda layer: words.norm0(layer.weights)) >= 3)
    p.pretrain(words.sgd(lr=0.1), epochs=3, minimizing=words.mse(net))
    p.solve(words.lc(steps=10), words.sgd(lr=0.1 * 0.98**words.k, momentum=0.9), epochs=1)
    p.prune(words.tamade(δ="1%"))
    p.finetune(words.adam(lr=words.ramp(1e-2, Fraction(1, 1000), 0, Decimal("0.5"))), steps=40)
    p.finetune(epochs=20, until=words.saturated(window="5 epochs", on="train"))
    p.report(words.accuracy(net), words.bytes_(net, format="csr"), stored=words.norm0(net.weights))
    return p


TEXT = """model net = mlp([64, 32, 10])
data  digits(batch = 64)

param κ = 20% in [1%, 50%]

minimize   cross_entropy(net) + 1e-4 * ‖net["fc2"].biases‖₂²
subject to
    sparsity: ‖net["fc1"].weights‖₀ ≤ κ
    codes:    net["fc2"].weights ∈ codebook(4)
    ∀ layer ∈ net.layers: ‖layer.weights‖₀ ≤ 90%
    100 B ≤ bytes(net) ≤ 20 KB
    Σ_{layer ∈ net.layers} ‖layer.weights‖₀ ≥ 3

pretrain minimizing mse(net) with sgd(lr = 0.1) for 3 epochs
solve    lc(steps = 10) with sgd(lr = 0.1 * 0.98^k, momentum = 0.9) for 1 epochs
prune    tamade(δ = 1%)
finetune with adam(lr = ramp(0.01, 0.001, 0, 0.5)) for 40 steps
finetune for 20 epochs until saturated(window = 5 epochs, on = train)

report accuracy(net), bytes(net, format = csr), "stored": ‖net.weights‖₀
"""


def test_the_text_of_a_problem() -> None:
    assert problem().to_prune() == TEXT
    assert parse(TEXT) == problem().spec


def test_what_a_file_is_checked_for() -> None:
    p = Problem("mlp([64, 32, 10])", "digits()")
    p.minimize(words.cross_entropy(p.net))
    p.subject_to("most", words.norm0(p.net.weights) <= "5%")
    p.subject_to("least", words.norm0(p.net["fc1"].weights) >= "10%")
    p.solve()
    with pytest.raises(SpecError) as caught:
        p.compile()
    (found,) = caught.value.diagnostics
    assert found.code == "P310"
    assert caught.value.source.slice(found.span) == "‖net.weights‖₀ ≤ 5%"


def test_a_problem_is_run_and_bound_as_a_file_is() -> None:
    p = Problem("mlp([64, 12, 10])", "digits(batch = 256)")
    p.minimize(words.cross_entropy(p.net))
    p.subject_to("small", words.norm0(p.net.weights) <= p.param("c", "20%"))
    p.solve(words.lc(steps=2), words.sgd(lr=0.1), epochs=1)
    program = p.compile(params={"c": "10%"})
    assert program.problem == prunelang.compile(p.to_prune(), params={"c": "10%"}).problem


def test_words_are_those_of_the_registries() -> None:
    expected = {*FUNCTIONS, *SETS, *TESTS, *OPTIMIZERS, *solvers(), *pruners(), "mlp", "digits", "given"}
    assert expected <= words.words()
    for word in words.words():
        found = getattr(words, word)(name("x"))
        text = f"let y = {word}(x)\n"
        (let,) = parse(text).statements
        assert isinstance(let, tree.Let)
        assert found.node == let.value, word
    assert words.words() <= set(dir(words))


def test_mistakes_of_python() -> None:
    p = Problem("mlp([64, 12, 10])")
    with pytest.raises(AttributeError, match="did you mean `cross_entropy`"):
        words.cross_entropie  # noqa: B018
    with pytest.raises(TypeError, match="between"):
        1 <= words.norm0(p.net.weights) <= 2  # noqa: B015
    with pytest.raises(TypeError, match="truth value"):
        bool(p.net)
    with pytest.raises(TypeError, match="each"):
        list(p.net.layers)
    with pytest.raises(TypeError, match="condition"):
        p.subject_to("a", p.net)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no expression"):
        node_of(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="one of epochs, steps"):
        p.finetune(epochs=1, steps=2)
    with pytest.raises(TypeError, match="no call"):
        p.prune("tamade")
    with pytest.raises(TypeError, match="one layer"):
        each(p.net.layers, lambda a, b: a <= b)  # type: ignore[misc, arg-type, return-value]
    with pytest.raises(SpecError):
        p.minimize("cross_entropy(")
    assert isinstance(words.norm0(p.net.weights) <= 1, Condition)
