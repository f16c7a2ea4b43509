"""Pruners as data: what they may take from, their graphs, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from prunelang.compiler.graph import (
    Bracket,
    Descend,
    Finish,
    Graph,
    InvalidGraph,
    Loss,
    Phase,
    Reach,
    Recalibrate,
    Support,
    from_json,
    listing,
    to_json,
    verify,
    walk,
)
from prunelang.compiler.lowering import lower
from prunelang.compiler.options import facts
from prunelang.compiler.pruners.base import pruners, removable
from prunelang.compiler.runnability import runnability
from prunelang.compiler.schedule import constant
from tests.compiler.checking import HEAD, plan_of

TRAIN = "with sgd(lr = 0.1) for 2 epochs"
SPEC = f"{HEAD}subject to\n ‖net.weights‖₀ ≤ 10%\npretrain {TRAIN}\nsolve lc(steps = 2) {TRAIN}\n"


def graph_of(text: str) -> Graph:
    return lower(plan_of(text), train_size=1000)


def phases(graph: Graph) -> list[Phase]:
    return [s for s in walk(graph.program) if isinstance(s, Phase)]


def test_the_pruners_and_their_defaults() -> None:
    assert set(pruners()) == {"tamade", "reachability"}
    assert {n: str(f.default) for n, f in facts(pruners()["tamade"]).items()} == {"delta": "0.01", "on": "validation"}
    assert {n: f.default for n, f in facts(pruners()["reachability"]).items()} == {"method": "structural", "draws": 3}
    assert all(p.doc and p.reference for p in pruners().values())


@pytest.mark.parametrize(
    ("constraint", "may"),
    [
        ('‖net["fc1"].weights‖₀ ≤ 5%', True),
        ('100 ≤ ‖net["fc1"].weights‖₀ ≤ 5%', False),
        ('‖net["fc1"].weights‖₀ ≥ 100', False),
        ('net["fc1"].weights ∈ dense', False),
        ('net["fc1"].weights ∈ n_of_m(2, 4)', True),
        ('net["fc1"].weights ∈ blocks(4, 4)', False),
        ('group_norm0(net["fc1"].weights, by = row) ≤ 50%', True),
        ('‖net["fc1"].weights‖₁ ≤ 300', True),
        ('‖net["fc1"].weights‖₂² ≤ 25', True),
        ('net["fc1"].weights ∈ box(-0.5, 0.5)', True),
        ('net["fc1"].weights ∈ box(0.1, 0.5)', False),
        ('net["fc1"].weights ∈ codebook(4)', False),
        ("bytes(net) ≤ 50 KB", True),
        ("sparse_macs(net) ≤ 10%", True),
    ],
)
def test_what_may_lose_positions(constraint: str, may: bool) -> None:
    from prunelang.compiler.bridges import bridge
    from prunelang.compiler.solvers.lc import TAKES

    plan = plan_of(f"{HEAD}subject to\n {constraint}\n ‖net.weights‖₀ ≤ 90%\nsolve lc()\n")
    taken, spared = removable(bridge(plan.problem, TAKES).problem, ("fc1.weight", "fc2.weight"))
    assert ("fc1.weight" in taken, "fc1.weight" in spared) == (may, not may)
    assert "fc2.weight" in taken


def test_a_prune_narrows_the_support_and_what_the_solve_reached_is_asserted() -> None:
    graph = graph_of(f"{SPEC}prune tamade(δ = 2%)\nprune reachability()\nfinetune {TRAIN}\n")
    _, _, first, second, last = phases(graph)
    (bracket,) = [s for s in first.body if isinstance(s, Bracket)]
    (reach,) = [s for s in second.body if isinstance(s, Reach)]
    assert (bracket.split, bracket.delta, bracket.support) == ("validation", 0.02, "m")
    assert bracket.tensors == reach.tensors
    assert (reach.method, reach.draws, reach.losses) == ("structural", 0, ())
    assert all(any(isinstance(s, Finish) for s in p.body) for p in (first, second))
    assert [s.support for s in walk((last,)) if isinstance(s, Descend)] == ["m"]
    assert "bracket W on m: largest ε with f(|W| ≥ ε) ≤ f + 0.02·|f|, f = cross_entropy(net) on validation" in listing(
        graph
    )


def test_without_a_solve_nothing_is_asserted_and_finetune_keeps_the_support() -> None:
    graph = graph_of(f"{HEAD}pretrain {TRAIN}\nprune reachability(method = random_gradient)\nfinetune {TRAIN}\n")
    before, pruned, last = phases(graph)
    assert not any(isinstance(s, Finish) for s in walk(graph.program))
    assert [s.support for s in walk((before, last)) if isinstance(s, Descend)] == [None, "m"]
    (reach,) = [s for s in pruned.body if isinstance(s, Reach)]
    assert (reach.draws, [x.name for x in reach.losses]) == (3, ["cross_entropy"])
    assert reach.tensors == ("fc1.weight", "fc2.weight", "fc3.weight")
    assert "remove where ∇(cross_entropy(net)) = 0 on 3 random batches" in listing(graph)


@pytest.mark.parametrize(
    ("call", "anew"),
    [("tamade()", True), ("reachability()", False), ("reachability(method = random_gradient)", True)],
)
def test_statistics_are_taken_anew_unless_the_network_computes_the_same(call: str, anew: bool) -> None:
    head = "model net = tied()\ndata anything()\nminimize cross_entropy(net)\n"
    graph = graph_of(f"{head}pretrain {TRAIN}\nprune {call}\n")
    assert any(isinstance(s, Recalibrate) for s in phases(graph)[-1].body) == anew


def test_a_constraint_on_validation_makes_tamade_read_the_half_that_choices_read() -> None:
    text = SPEC.replace("10%\n", "10%\n accuracy(net, on = validation) ≥ 50%\n")
    graph = graph_of(f"{text}prune tamade()\nprune tamade(on = train)\n")
    assert [s.split for s in walk(graph.program) if isinstance(s, Bracket)] == ["select", "train"]


def test_nothing_to_remove_is_refused() -> None:
    found = runnability(plan_of(f"{HEAD}subject to\n net.weights ∈ blocks(4, 4)\nsolve lc()\nprune tamade()\n"))
    assert [d.code for d in found] == ["P445"]
    assert "`tamade` has nothing to remove: `fc1.weight`" in found[0].message


def test_draws_without_random_gradients_are_refused() -> None:
    found = runnability(plan_of(f"{SPEC}prune reachability(draws = 3)\n"))
    assert [d.code for d in found] == ["P446"]
    assert not runnability(plan_of(f"{SPEC}prune reachability(method = random_gradient, draws = 3)\n"))


# ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────

LOSS = Loss("cross_entropy", constant(2), (), "2·cross_entropy(net)")
NODES = (
    Bracket("W", "m", ("a",), (LOSS,), "validation", 0.1, ("b",)),
    Reach("W", "m", ("a",), "rest", "data", spared=("b",)),
    Reach("W", "m", ("a",), "rest", "data", "random_gradient", 2, (LOSS,), ("b",)),
)


@pytest.mark.parametrize("node", NODES)
def test_the_codec_and_the_line(node: Bracket | Reach) -> None:
    graph = Graph("t", (), (node,))
    again = from_json(json.loads(json.dumps(to_json(graph), ensure_ascii=False)))
    assert again == graph
    assert again.digest() == graph.digest()
    assert node.line().split()[1:6] == ["W", "on", "m", "except", "b:"]
    assert node.sync == "host"


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"support": "rest"}, "which is no support of `W`"),
        ({"tensors": ("fc9.weight",)}, "names `fc9.weight`, which is not in `W`"),
        ({"spared": ("fc1.weight",)}, "removes from `fc1.weight` and spares it"),
        ({"delta": -0.1}, "δ is negative"),
        ({"delta": float("nan")}, "δ is negative"),
    ],
)
def test_the_verifier_catches_every_breach(change: dict[str, object], finding: str) -> None:
    graph = graph_of(f"{SPEC}prune tamade()\n")
    assert any(isinstance(s, Support) for s in graph.state)

    def broken(phase: Phase) -> Phase:
        body = tuple(replace(s, **change) if isinstance(s, Bracket) else s for s in phase.body)
        return replace(phase, body=body)

    program = tuple(broken(s) if isinstance(s, Phase) else s for s in graph.program)
    with pytest.raises(InvalidGraph) as caught:
        verify(replace(graph, program=program))
    assert any(finding in f for f in caught.value.findings)


@pytest.mark.parametrize("change", [{"draws": 1}, {"method": "random_gradient"}])
def test_draws_belong_to_random_gradients(change: dict[str, object]) -> None:
    graph = graph_of(f"{SPEC}prune reachability()\n")
    *others, last, end = graph.program
    assert isinstance(last, Phase)
    body = tuple(replace(s, **change) if isinstance(s, Reach) else s for s in last.body)
    with pytest.raises(InvalidGraph, match="draws"):
        verify(replace(graph, program=(*others, replace(last, body=body), end)))


@pytest.mark.parametrize("solver", ["lc(steps = 2)", "ista()"])
def test_a_solve_with_nothing_to_compress_trains_the_kernels_that_a_prune_will_thin(solver: str) -> None:
    graph = graph_of(f"{HEAD}solve {solver} {TRAIN}\nprune tamade()\nsolve {solver} {TRAIN}\n")
    first, _, second = phases(graph)
    trained = [(d.of, d.support) for p in (first, second) for d in walk(p.body) if isinstance(d, Descend)]
    assert trained == [(("W", "rest"), None), (("W", "rest"), "m")]
    assert all(isinstance(p.body[-1], Finish) for p in (first, second))


def test_kernels_that_are_all_under_dense_leave_a_prune_nothing() -> None:
    text = f"{HEAD}subject to\n net.weights ∈ dense\npretrain {TRAIN}\nprune tamade()\n"
    assert [d.code for d in runnability(plan_of(text))] == ["P445"]
