"""Any tree ends in a plan or in `SpecError`; checking is fast, and linear in the number of layers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from prunelang.compiler.check import check
from prunelang.dsl.diagnostics import SpecError
from prunelang.dsl.formatter import format_expr
from prunelang.dsl.parser import parse
from prunelang.dsl.spans import Source
from prunelang.dsl.tree import Binary, Expr, Let, Number, Spec
from tests.compiler.checking import CATALOG, HEAD, codes, plan_of, plan_of_tree, table_of
from tests.dsl.strategies import expressions, specs
from tests.hostile import COUNT
from tests.timing import growth, seconds

COMMON = settings(deadline=None, suppress_health_check=list(HealthCheck))
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(300 + COUNT // 10)  # COUNT grows to tens of thousands


def ends_well(spec: Spec, text: str = "") -> None:
    """A plan, or an error of the spec whose diagnostics stand inside its text; no other exception."""
    try:
        check(spec, Source(text), table_of=table_of, catalog=CATALOG)
        return
    except SpecError as refusal:
        diagnostics = refusal.diagnostics
    assert any(d.severity == "error" for d in diagnostics)
    if text:
        assert all(0 <= d.span.start <= d.span.end <= len(text) for d in diagnostics)


def test_hostile_texts_end_in_a_plan_or_in_errors_and_cause_nothing_else() -> None:
    """Within a second each, without importing torch, opening a file, running code or starting a process."""
    command = [sys.executable, "-m", "tests.compiler.fuzzing", str(COUNT)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    print(run.stdout)
    assert result["longest"][0] < 1.0
    assert (result["events"], result["torch"]) == ({}, False)
    least = {"parser": COUNT // 3, "checker": COUNT // 20, "plan": COUNT // 200}
    assert all(result["endings"][way] >= n for way, n in least.items()), "the mutations no longer reach everything"


@settings(COMMON, max_examples=COUNT // 3)
@given(specs())
def test_any_tree(spec: Spec) -> None:
    ends_well(spec)


WORDS = st.sampled_from(
    """net; net.weights; net.layers; net["fc1"]; net["fc?"].weights; teacher; 5%; 3; 0.5; 1e-4; 10 KB; 3 MMACs; 2 pp
    base; p; k; epoch; dense; sparse(5%); low_rank(3); {-1, 0, 1}; box(-1, 1); codebook(2); κ; half; macs(net)
    bytes(net); sparse_macs(net); bytes(net, format = coded); accuracy(net); cross_entropy(net); mse(net)
    nonzeros(net); pi
    true
    rank(net["fc1"].weights); ‖net.weights‖₀; ‖net.weights‖₁; ‖net.weights‖₂²; norminf(net.biases); size(net.weights)
    start(net.weights); ramp(100%, 5%, 0, 1); ramp(1, 0, 0 epochs, 3 epochs); steps(1, [0.5, 2]); floor(2.5); log(0)
    train; "text"; [1, 2]; Σ_{l ∈ net.layers} ‖l.weights‖₀; description_length(net); synops(net); drr(net.weights, 5)
    20 epochs; 5 steps""".replace("\n", ";").split(";")
).map(str.strip)
SIDES = st.recursive(
    WORDS,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/", "^", "|", "except"]), inner),
        st.builds("(0 - {})".format, inner),
        st.builds("min({}, {})".format, inner, inner),
        st.builds("‖{}‖₀".format, inner),
        st.builds("sum({} for m in {})".format, inner, inner),
    ),
    max_leaves=4,
)
LINES = st.one_of(
    st.builds("{} ≤ {}".format, SIDES, SIDES),
    st.builds("{} ≤ {} ≤ {}".format, SIDES, SIDES, SIDES),
    st.builds("{} ∈ {}".format, SIDES, SIDES),
    st.builds("∀ l ∈ {}: ‖l.weights‖₀ ≤ {}".format, SIDES, SIDES),
    st.builds("∀ l ∈ net.layers: {} ∈ {}".format, SIDES, SIDES),
)
CLAUSES = st.one_of(
    st.builds("solve lc(mu = {}, steps = {})".format, SIDES, SIDES),
    st.builds("solve auto with sgd(lr = {}, momentum = {}) for {}".format, SIDES, SIDES, SIDES),
    st.builds("prune tamade(δ = {}, on = {})".format, SIDES, SIDES),
    st.builds("prune reachability(draws = {})".format, SIDES),
    st.builds("finetune minimizing {} until saturated(window = {})".format, SIDES, SIDES),
    st.builds("report {}, {}".format, SIDES, SIDES),
    st.builds("freeze {}".format, SIDES),
)


@settings(COMMON, max_examples=COUNT)
@given(st.lists(LINES, min_size=1, max_size=3), st.lists(CLAUSES, max_size=2), SIDES, SIDES)
def test_specs_that_almost_make_sense(lines: list[str], clauses: list[str], objective: str, named: str) -> None:
    text = "\n".join(
        [
            "model net = lenet_300_100()",
            'model teacher = lenet_300_100() from "t.safetensors" frozen',
            "data mnist()",
            "param κ = 5% in [1%, 50%]",
            f"let half = {named.replace('half', 'κ')}",
            f"minimize cross_entropy(net) + {objective}",
            "subject to",
            *(f"    {line}" for line in lines),
            *clauses,
        ]
    )
    ends_well(parse(text + "\n"), text + "\n")


@settings(COMMON, max_examples=COUNT // 3)
@given(expressions)
@example(Number(10**300))
def test_any_expression_as_a_bound(expr: Expr) -> None:
    text = f"{HEAD}let x = {format_expr(expr)}\nsubject to\n    ‖net.weights‖₀ ≤ x\nsolve auto\n"
    try:
        spec = parse(text)
    except SpecError:
        return
    ends_well(spec)


def test_a_tree_too_deep_to_follow_is_reported() -> None:
    deep: Expr = reduce(lambda tree, _: Binary("+", tree, Number(1)), range(5000), Number(1))  # type: ignore[arg-type]
    base = parse(HEAD + "solve auto\n")
    with pytest.raises(SpecError) as caught:
        plan_of_tree(Spec((*base.statements, Let("deep", deep))))
    assert [d.code for d in caught.value.diagnostics if d.severity == "error"] == ["P234"]


def checking(text: str) -> Callable[[], object]:
    spec = parse(text)
    return lambda: check(spec, Source(text), table_of=table_of, catalog=CATALOG)


def test_resnet50_is_checked_in_no_time() -> None:
    text = """model net = resnet50()
data anything()
minimize cross_entropy(net)
subject to
    sparsity: ‖net.weights‖₀ ≤ 5%
    compute: sparse_macs(net) ≤ 30%
    file: bytes(net) ≤ 10 MB
solve lc() with sgd(lr = 0.1 * 0.98^k, momentum = 0.9) for 20 epochs
"""
    assert seconds(checking(text)) < 0.15  # 20 ms on a quiet machine


def test_time_is_linear_in_the_number_of_layers() -> None:
    def work(layers: int) -> Callable[[], object]:
        body = "each: ∀ l ∈ net.layers: ‖l.weights‖₀ ≤ 50%\n    all: Σ_{l ∈ net.layers} ‖l.weights‖₀ ≤ 30%"
        return checking(
            f"model net = chain(layers = {layers})\ndata anything()\nminimize cross_entropy(net)\n"
            f"subject to\n    {body}\nsolve lc()\nreport each.dual\n"
        )

    assert growth(work, small=150, factor=8, repeats=3) < 14


def test_overrides_cannot_smuggle_statements() -> None:
    text = HEAD + "param n = 5\nsubject to\n‖net.weights‖₀ ≤ n\nsolve auto\n"
    for value in (
        "3\nreport error(net)",
        "3 in [0, 1]",
        "n",
        "size(net.weights)",
        "",
        "3 # comment",
        "\x00",
        "(" * 500,
    ):
        assert codes(text, {"n": value}) == ["P221"] or value == "3 # comment"
    assert plan_of(text, n="3 # comment").parameters["n"] == "3"
