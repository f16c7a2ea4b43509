"""The graph as data: the codec knows every node, the verifier catches every breach, listings read as the paper."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from prunelang.compiler import graph as package
from prunelang.compiler.forms import Box, Codebook, Composition, Fixed, LowRank, Nuclear, Sparse, TensorTrain
from prunelang.compiler.graph import (
    Allocate,
    Ascend,
    AscendBudgets,
    AscendResidual,
    Assign,
    Batches,
    Block,
    Calibrate,
    Calibration,
    Certify,
    Combination,
    Compose,
    Copy,
    Coupling,
    Data,
    Descend,
    Dual,
    Evaluate,
    Factor,
    Factors,
    Feasible,
    Finish,
    Floor,
    Forget,
    Graph,
    InvalidGraph,
    Items,
    Latent,
    Layers,
    Level,
    Loss,
    Optimizer,
    Outer,
    Part,
    Penalty,
    Phase,
    Piece,
    Priced,
    Project,
    Quadratic,
    Resource,
    Rest,
    Restore,
    Rise,
    Saturated,
    Snapshot,
    State,
    Steer,
    SteerPenalty,
    Step,
    Support,
    Tighten,
    Weights,
    from_json,
    listing,
    to_json,
    verify,
    walk,
)
from prunelang.compiler.lowering import lower
from prunelang.compiler.problem import FactorCost, FactorTerm
from prunelang.compiler.schedule import Apply, Clock, Ramp, constant
from tests.compiler.checking import HEAD, plan_of
from tests.golden_support import GOLDEN, golden

__all__ = ["golden"]

ONE = constant(1)
K = Clock("k")


def concrete(module: Any, base: type) -> list[type]:
    found = (v for v in vars(module).values() if isinstance(v, type) and issubclass(v, base))
    return sorted((v for v in found if v is not base), key=lambda v: v.__name__)


def every(base: type) -> list[type]:
    """The nodes of all modules of the package, each from the one that defines it."""
    names = [info.name for info in pkgutil.iter_modules(package.__path__)]
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    return [node for m in modules for node in concrete(m, base) if node.__module__ == m.__name__]


NODES = [*every(State), *every(Step)]


# ── codec ────────────────────────────────────────────────────────────────────────────────────────────────────────

PART = Part(
    tensors=("a", "b"),
    labels=("n", "m"),
    text="‖w‖₀ ≤ 3",
    bounds=({"kind": "CountBound", "name": "n", "coefficients": {"a": 1}, "upper": 3, "lower": None},),
    balls=(("norm2", 0.1),),
    exactness="gap",
    keeps="project each step",
)
SAMPLES: dict[str, Any] = {
    "str": "W",
    "int": 3,
    "float": 0.1,
    "tuple[str, ...]": ("a", "b"),
    "str | None": "μ",
    "Combination": Combination(((1, "W", None), (-1, "λ", "μ"))),
    "Feasible": Feasible((PART,)),
    "Schedule": Ramp(ONE, Apply("neg", (K,)), constant("0.1"), ONE, "epochs", "cosine"),
    "Schedule | None": K,
    "tuple[Loss, ...]": (Loss("distill", ONE, (("teacher", "big"), ("T", 4.0)), "distill(net, big)"),),
    "tuple[Quadratic, ...]": (Quadratic("W", "t", "μ"),),
    "tuple[Step, ...]": (Assign("t", Combination(())), Certify()),
    "Mapping[str, Schedule | bool]": {"lr": K, "nesterov": True},
    "float | None": 0.1,
    "int | None": 3,
    "Kappa": "κ",
    "Kappa | None": 3,
    "tuple[Coupling, ...]": (Coupling("W", "w", "γ", "u", K, "O", "A", "r", 2.0),),
    "bool": True,
    "tuple[Floor, ...]": (Floor("a", "accuracy", "select", "≥", "-1/200", "1", (("T", 4.0),), "%"),),
    "tuple[Penalty, ...]": (Penalty("W", "drr", "α", 5.0), Penalty("W", "norm1", K)),
    "Saturated | None": Saturated("L", 20, 0.5),
    "Rise": Rise("lats", 0.5, None, "Ση"),
    "Floor": Floor("a", "synops", "calibration", "≤", "0", "3/10", (), "SynOps"),
    "Feasible | None": Feasible((PART,)),
    "tuple[int, ...]": (0, 2),
    "tuple[Items, ...]": (Items("fc1", ("a", "b"), 9, 2), Items("conv1", ("a",), 4, 1, (Piece("a", 1, 3, 2),))),
    "tuple[Resource, ...]": (Resource("m", "macs", ((2, (0, 1)),), ((0, (("csr", 6, 10),)),), 3, 40, 80, "MACs", "B"),),
    "tuple[Schedule | None, ...]": (K,),
    "Order": "nupi",
    "Allocate": Allocate("s", "y", "z", "I", 0.5, 0.1, 0.2),
    "AscendResidual": AscendResidual("y", "I", "O", 0.1, 0.2, 0.3, 0.4),
    "AscendBudgets": AscendBudgets("z", "s", "y", 1.0, 0.8),
    "tuple[Composition, ...]": (
        Composition(("a", "b"), (Codebook(4), Sparse(9), Fixed((-1.0, 0.0), True)), ((4, 2), (2, 3))),
        Composition(("c",), (LowRank(None), TensorTrain(((2, 2), (2, 1)), (3,))), ((4, 2),)),
        Composition(("d",), (Box(-1.0, 0.5),), ((4,),)),
        Composition(("e",), (Nuclear(2.5),), ((4, 2),)),
    ),
    "Priced | None": Priced(FactorCost("params", "", 7, (FactorTerm("a", 0, ((6, (0,)),)),), 99), K),
    "Store": "host",
    "Variable": "Θ",
    "tuple[Block, ...]": (Block("P", "V"), Block("P", "Θ", ("a",))),
    "tuple[Layers | Block, ...]": (Layers((Block("P", "U"),)), Block("P", "Θ", ("a",))),
}


def sample(node: type) -> Any:
    """A node with every field set to something that is not its default."""
    values = {}
    for f in fields(node):
        kind = str(f.type)
        values[f.name] = (
            next(iter(get_type_hints(node)[f.name].__args__)) if kind.startswith("Literal") else SAMPLES[kind]
        )
    return node(**values)


@pytest.mark.parametrize("node", NODES, ids=lambda n: n.__name__)
def test_every_node_survives_the_codec(node: type) -> None:
    made = sample(node)
    graph = Graph("t", (made,), ()) if issubclass(node, State) else Graph("t", (), (made,))
    again = from_json(json.loads(json.dumps(to_json(graph), ensure_ascii=False)))
    assert again == graph
    assert again.digest() == graph.digest()
    assert made.line()
    assert all(isinstance(n, str) for n in made.reads())


def test_the_digest_tells_graphs_apart() -> None:
    first = Graph("t", (Level("d"),), ())
    assert first.digest() != replace(first, state=(Level("e"),)).digest()
    assert len({Graph("t", (sample(n),), ()).digest() for n in NODES}) == len(NODES)


def test_other_versions_and_unknown_nodes_are_refused() -> None:
    data = to_json(Graph("t", (), ()))
    with pytest.raises(ValueError, match="format_version 2"):
        from_json({**data, "format_version": 2})
    with pytest.raises(KeyError):
        from_json({**data, "state": [{"node": "os.system", "name": "x"}]})


def test_graph_names_are_all_exported() -> None:
    from prunelang.compiler import graph

    assert {n.__name__ for n in NODES} <= set(graph.__all__)


# ── verifier ─────────────────────────────────────────────────────────────────────────────────────────────────────

W, REST = Weights("W", ("a",), 4), Rest("rest", ("b",))
DATA = Data("data", "digits()", 8, 3, 0)
O = Optimizer("O", ("W", "rest"), "sgd", {"lr": constant("0.1")})  # noqa: E741 (the name of the listing)
DESCEND = Descend(("W", "rest"), (Loss("mse", ONE),), "O")
LOOP = Batches(ONE, "epochs", (DESCEND,), "data", "O")
W_ITSELF = Combination(((1, "W", None),))
START = (W, REST, DATA, O, Support("m", "W"))
FINISH = Finish("W", W_ITSELF, Feasible(()), "m")


def graph_of(*program: Step, extra: tuple[State, ...] = (), without: tuple[State, ...] = ()) -> Graph:
    nodes = tuple(s for s in (*START, *extra) if s not in without)
    return Graph("t", nodes, (Phase("solve", program), Certify()))


def test_a_small_graph_is_valid() -> None:
    verify(graph_of(LOOP, FINISH))


WATCH = Evaluate("L", "validation", (Loss("mse", ONE),))
THETA, MU = Copy("θ", "W"), Level("μ", K)
FEW = Floor("few", "synops", "calibration", "≤", "9")
BUDGET = Calibration("B", FEW, ("a",), "certify")
MEASURED = Feasible((replace(PART, tensors=("a",), bounds=({"kind": "CountBound", "name": "few", "measured": "B"},)),))
G = Factors("G", "W", (Composition(("a",), (LowRank(2),), ((4, 3),)),))
MADE = Factor("G", "W", Feasible(()))
BY_FACTORS = Optimizer("O", ("G", "rest"), "sgd", {"lr": constant("0.1")})
TRAINED = replace(
    LOOP,
    body=(replace(DESCEND, of=("G", "rest"), latents=("G",)), Compose("W", "G")),
    settle=(Compose("W", "G", exact=True),),
)


def factored(*program: Step, made_of: Factors = G, by: Optimizer = BY_FACTORS) -> Graph:
    return graph_of(*program, FINISH, extra=(made_of, by), without=(O,))


def test_a_small_graph_with_factors_is_valid() -> None:
    verify(factored(MADE, TRAINED))


BROKEN: dict[str, tuple[Graph, str]] = {
    "factors of other tensors": (
        factored(MADE, made_of=replace(G, compositions=(replace(G.compositions[0], tensors=("z",)),))),
        "`G` composes `z`, which is not in `W`",
    ),
    "a tensor made twice": (
        factored(MADE, made_of=replace(G, compositions=G.compositions * 2)),
        "`G` composes `a` twice",
    ),
    "factors of something else": (
        graph_of(Assign("θ", W_ITSELF), MADE, Compose("θ", "G"), FINISH, extra=(G, THETA)),
        "composes other weights than `G` is of",
    ),
    "factors that no step composes": (
        factored(MADE, replace(TRAINED, body=TRAINED.body[:1])),
        "its loop composes nothing of it",
    ),
    "factors that no epoch composes": (
        factored(MADE, replace(TRAINED, settle=())),
        "its loop composes nothing of it",
    ),
    "weights that move beside their factors": (
        factored(
            MADE,
            replace(TRAINED, body=(replace(DESCEND, of=("W", "G", "rest"), latents=("G",)), Compose("W", "G"))),
            by=replace(BY_FACTORS, of=("W", "G", "rest")),
        ),
        "moves `a` itself and what it is made of",
    ),
    "factors read before they are made": (factored(TRAINED), "reads `G` before anything wrote it"),
    "a budget of nothing": (
        graph_of(LOOP, Calibrate("B", "W"), FINISH, extra=(replace(BUDGET, tensors=("a", "z")),)),
        "`B` counts `z`, which is in no weights",
    ),
    "a calibration of no budget": (
        graph_of(LOOP, Calibrate("d", "W"), FINISH, extra=(Level("d"),)),
        "calibrates `d`, which is no budget",
    ),
    "a budget that nobody measured": (
        graph_of(LOOP, Project("W", W_ITSELF, MEASURED, "m"), FINISH, extra=(BUDGET,)),
        "reads `B` before anything wrote it",
    ),
    "a tightening of nothing": (
        graph_of(LOOP, Calibrate("B", "W"), FINISH, Tighten("W", MEASURED, "m", ("B",), (), 3), extra=(BUDGET,)),
        "has nothing to do",
    ),
    "a name twice": (graph_of(LOOP, FINISH, extra=(Level("W"),)), "`W` is declared twice"),
    "state of nothing": (graph_of(LOOP, FINISH, extra=(Copy("θ", "V"),)), "`θ` refers to `V`"),
    "a copy of itself": (graph_of(LOOP, FINISH, extra=(Copy("θ", "θ"),)), "share storage with itself"),
    "a dual of itself": (graph_of(LOOP, FINISH, extra=(Dual("λ", "λ"),)), "share storage with itself"),
    "two roles": (graph_of(LOOP, FINISH, extra=(Rest("more", ("a",)),)), "tensor `a` has two roles"),
    "a step on nothing": (graph_of(LOOP, Assign("x", W_ITSELF), FINISH), "names `x`"),
    "read before written": (
        graph_of(LOOP, Assign("W", Combination(((1, "θ", None),))), FINISH, extra=(THETA,)),
        "reads `θ` before anything wrote it",
    ),
    "a level read before set": (
        graph_of(Assign("θ", W_ITSELF), Ascend("θ", "d", W_ITSELF), FINISH, extra=(THETA, Level("d"))),
        "reads `d` before",
    ),
    "waiting in a step": (
        graph_of(
            Batches(ONE, "epochs", (DESCEND, Project("θ", W_ITSELF, Feasible(()))), "data", "O"), FINISH, extra=(THETA,)
        ),
        "makes the host wait",
    ),
    "waiting in a nested loop": (
        graph_of(Batches(ONE, "epochs", (DESCEND, Outer(2, (FINISH,))), "data", "O"), FINISH),
        "makes the host wait",
    ),
    "another's tensors": (
        graph_of(
            LOOP,
            FINISH,
            extra=(Optimizer("O", ("rest",), "sgd", {"lr": ONE}),),
            without=(O,),
        ),
        "descends on `W`, which `O` does not hold",
    ),
    "a test of what nobody evaluates": (
        graph_of(Assign("L", Combination(())), replace(LOOP, until=Saturated("L", 9)), FINISH, extra=(Level("L"),)),
        "which no epoch evaluates",
    ),
    "a window of one epoch": (
        graph_of(replace(LOOP, each_epoch=(WATCH,), until=Saturated("L", 1)), FINISH, extra=(Level("L"),)),
        "two epochs at least",
    ),
    "more restored than kept": (
        graph_of(
            Forget("best"), LOOP, Restore("best", ("W", "rest"), "solve"), FINISH, extra=(Snapshot("best", ("W",)),)
        ),
        "does not fit `best`",
    ),
    "a state that nobody kept": (
        graph_of(LOOP, Restore("best", ("W",), "solve"), FINISH, extra=(Snapshot("best", ("W",)),)),
        "reads `best` before anything wrote it",
    ),
    "no finish": (graph_of(LOOP), "does not finish feasible"),
    "no certificate": (Graph("t", START, (Phase("solve", (LOOP, FINISH)),)), "does not end by certifying"),
    "nothing at all": (Graph("t", (), ()), "does not end by certifying"),
    "k without an outer loop": (
        graph_of(LOOP, FINISH, extra=(replace(O, options={"lr": K}),), without=(O,)),
        "option `lr` of `O` uses the clock `k`",
    ),
    "a duration in epochs of its own": (
        graph_of(replace(LOOP, duration=Clock("epoch")), FINISH),
        "the duration uses the clock `epoch`",
    ),
    "a level that follows steps": (
        graph_of(Outer(2, (LOOP,), ("μ",)), FINISH, extra=(Level("μ", Clock("step")),)),
        "level `μ` uses the clock `step`",
    ),
    "a level that nobody sets": (graph_of(LOOP, FINISH, extra=(MU,)), "no outer loop sets it"),
    "a loss that follows lr": (
        graph_of(replace(LOOP, body=(replace(DESCEND, losses=(Loss("mse", Clock("lr")),)),)), FINISH),
        "the weight of mse uses the clock `lr`",
    ),
    "a penalty that follows lr": (
        graph_of(replace(LOOP, body=(replace(DESCEND, penalties=(Penalty("W", "drr", Clock("lr"), 5.0),)),)), FINISH),
        "uses the clock `lr`",
    ),
    "a penalty of a level that nobody sets": (
        graph_of(
            replace(LOOP, body=(replace(DESCEND, penalties=(Penalty("W", "norm1", "α"),)),)),
            FINISH,
            extra=(Level("α"),),
        ),
        "reads `α` before anything wrote it",
    ),
    "a residue of everything": (
        graph_of(
            *(Assign(name, Combination(())) for name in ("α", "a", "c")),
            Assign("θ", W_ITSELF),
            SteerPenalty("α", "a", "c", "W", "θ", "O", 0.5, 1.0, 5.0, 9),
            FINISH,
            extra=(Level("α"), Level("a"), Level("c"), THETA),
        ),
        "the residue in (0, 1)",
    ),
    "a reach of nothing": (
        graph_of(
            Assign("θ", W_ITSELF),
            Assign("d", Combination(())),
            Steer("d", "θ", 3, Rise("s_lats", 0.0)),
            FINISH,
            extra=(Latent("θ", "W", "d"), Level("d")),
        ),
        "reach must be in (0, 1]",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_every_rule_catches_its_breach(name: str) -> None:
    graph, finding = BROKEN[name]
    with pytest.raises(InvalidGraph) as error:
        verify(graph)
    assert any(finding in f for f in error.value.findings), error.value.findings
    assert "bug in prunelang" in str(error.value)


def test_a_breach_is_the_only_finding() -> None:
    """The rules do not echo each other, so that a finding names its cause."""
    alone = {n: len(error_of(g).findings) for n, (g, _) in BROKEN.items()}
    assert {n for n, count in alone.items() if count > 1} <= {
        "state of nothing",
        "a copy of itself",
        "another's tensors",
        "factors read before they are made",
    }


def error_of(graph: Graph) -> InvalidGraph:
    with pytest.raises(InvalidGraph) as error:
        verify(graph)
    return error.value


def test_walk_visits_nested_steps_in_the_order_of_the_listing() -> None:
    loop = replace(LOOP, each_epoch=(Assign("W", W_ITSELF),))
    assert [type(s).__name__ for s in walk((Outer(2, (loop, FINISH)), Certify()))] == [
        "Outer",
        "Batches",
        "Descend",
        "Assign",
        "Finish",
        "Certify",
    ]


# ── listings ─────────────────────────────────────────────────────────────────────────────────────────────────────

TRAIN = "with sgd(lr = 0.1 * 0.98^k, momentum = 0.9, nesterov = true) for 20 epochs\n"
LISTINGS = {
    "lc": HEAD + "subject to\n  sparsity: ‖net.weights‖₀ ≤ 5%\nsolve lc(μ = 9e-5 * 1.1^k, steps = 40) " + TRAIN,
    "lc_penalty_method": HEAD + "subject to\n  ‖net.weights‖₁ ≤ 9\nsolve lc(steps = 9, method = penalty) " + TRAIN,
    "lc_penalty_form": HEAD.rstrip()
    + " + 1e-4 * ‖net.weights‖₁\n"
    + "solve lc(μ = 1e-3, steps = 40) with adam() for 100 steps\nfinetune with adamw() for 3 epochs\n",
    "admm": HEAD
    + 'subject to\n  pattern: net["fc1", "fc2"].weights ∈ n_of_m(2, 4)\n  size: bytes(net) ≤ 300 KB\n'
    + "pretrain for 10 epochs\nsolve admm(ρ = 0.01) with sgd(lr = 0.05) for 10 steps\n"
    + "finetune with sgd(lr = 0.01) for 2 epochs\n",
    "ista": HEAD
    + "subject to\n  ∀ l ∈ net.layers: ‖l.weights‖₀ ≤ 10%\n"
    + "solve ista(reach = 0.5) with sgd(lr = ramp(0.1, 0.001, 0, 1, shape = cosine)) for 30 epochs\n"
    + "finetune for 5 epochs\n",
    "ista_lats": HEAD
    + "subject to\n  ‖net.weights‖₀ ≤ 5%\n"
    + "solve ista(threshold = lats) with sgd(lr = 0.1 * 0.9^epoch, momentum = 0.9) for 30 epochs\n",
    "ista_str": HEAD
    + "subject to\n  ‖net.weights‖₀ ≤ 5%\nsolve ista(threshold = str) with sgd(lr = 0.1) for 30 epochs\n",
    "ista_str_without_a_count": HEAD
    + "solve ista(threshold = str, s = -10) with sgd(lr = 0.1, weight_decay = 1e-4) for 30 epochs\n",
    "ista_fixed": HEAD
    + "subject to\n  ‖net.weights‖₀ ≤ 5%\nsolve ista(threshold = fixed) with sgd(lr = 0.1) for 30 epochs\n",
    "ista_penalty_form": HEAD.rstrip()
    + " + 1e-4 * ‖net.weights‖₁\nsolve ista() with sgd(lr = 0.1, momentum = 0.9) for 30 epochs\n",
    "ista_pgh_to_an_end_of_its_own": HEAD
    + "subject to\n  ‖net.weights‖₀ ≤ 5%\n"
    + "solve ista(threshold = pgh, D = 0.02, reach = 0.8) with adam() for 30 epochs\n",
    "balls": HEAD
    + 'subject to\n  a: ‖net["fc1"].weights‖₂² ≤ 4\n  b: net["fc2"].weights ∈ box(-0.1, 0.1)\n'
    + "solve lc(steps = 10) with sgd(lr = 0.1) for 1 epochs\nfinetune with sgd(lr = 0.1) for 1 epochs\n",
    "nothing_to_compress": HEAD + "solve lc(steps = 10) with sgd(lr = 0.1) for 1 epochs\nfinetune for 1 epochs\n",
    "until": HEAD
    + "subject to\n  ‖net.weights‖₀ ≤ 5%\n  a: accuracy(net, on = validation) ≥ base - 0.5 pp\n"
    + "pretrain with sgd(lr = 0.1) for 99 epochs until saturated(window = 20 epochs)\n"
    + "solve ista() with sgd(lr = 0.1) for 60 epochs until saturated(on = train)\nprune reachability()\n"
    + "finetune with sgd(lr = 0.1) for 9 epochs\n",
    "lc_synops": HEAD.replace("lenet_300_100()", "spiking()")
    + "subject to\n  events: synops(net) ≤ 0.3 * base\n  few: ‖net.weights‖₀ ≤ 50%\n"
    + "solve lc(μ = 0.1, steps = 9) with sgd(lr = 0.1) for 1 epochs\nfinetune with sgd(lr = 0.1) for 1 epochs\n",
    "lc_factors": HEAD
    + 'subject to\n  made: ∀ l ∈ net["fc1", "fc2"]: l.weights ∈ low_rank()\n  size: params(net) ≤ 10%\n'
    + '  coded: net["fc3"].weights ∈ codebook(4)\n'
    + "solve lc(μ = 0.1, steps = 9) with sgd(lr = 0.1) for 1 epochs\nfinetune with sgd(lr = 0.1) for 1 epochs\n",
    "lc_price_of_ranks": HEAD.rstrip()
    + ' + 1e-6 * params(net)\nsubject to\n  net["fc1"].weights ∈ low_rank()\n'
    + "solve lc(μ = 0.1 * 1.1^k, steps = 9) with sgd(lr = 0.1) for 1 epochs\n",
    "factors": HEAD
    + 'subject to\n  net["fc1"].weights ∈ tt(4)\n  net["fc2"].weights ∈ low_rank(4) + sparse(1%)\n'
    + "solve factors(start = random) with sgd(lr = 0.1) for 5 epochs\n",
    "two_solves": HEAD
    + "subject to\n  ‖net.weights‖₀ ≤ 5%\nsolve lc(μ = 0.1, steps = 2) with sgd(lr = 0.1) for 1 epochs\n"
    + "solve lc(μ = 0.2, steps = 2) with sgd(lr = 0.1) for 1 epochs\n",
}


@pytest.mark.parametrize("name", LISTINGS)
def test_listings(name: str, golden: Callable[[Path, str], None]) -> None:
    graph = lower(plan_of(LISTINGS[name]), train_size=60_000)
    assert from_json(json.loads(json.dumps(to_json(graph)))) == graph
    golden(GOLDEN / "graph" / f"{name}.txt", listing(graph))


def test_every_golden_listing_has_its_spec() -> None:
    assert {p.stem for p in (GOLDEN / "graph").glob("*.txt")} == set(LISTINGS)
