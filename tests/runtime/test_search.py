"""The search for the best bound: where the answer is known, what each probe starts from, and which splits are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from prunelang import compile
from prunelang.compiler.graph import InvalidGraph, Search, from_json, listing, to_json, verify, walk
from prunelang.runtime.bracket import KEPT, Bracket
from prunelang.runtime.data.dataset import Dataset, Split
from prunelang.runtime.machine import Event, Interrupted, Machine, NumericalFailure
from prunelang.runtime.price import Price
from tests.runtime.solving import SIDE, linear, prepare, solve

# ── the bracket ──────────────────────────────────────────────────────────────────────────────────────────────────


def probes(bracket: Bracket, accepts: Callable[[int], bool]) -> Iterator[int]:
    while (level := bracket.next()) is not None:
        yield level
        bracket.take(level, accepts(level))


@pytest.mark.parametrize(("top", "least"), [(1, 0), (5, 0), (1000, 0), (1000, 900), (266_200, 0)])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("tolerance", [0.05, 1e-9])
def test_a_threshold_is_found_within_tolerance_from_either_side(
    top: int, least: int, share: float, tolerance: float
) -> None:
    threshold = least + round(share * (top - least))
    smallest = Bracket(top, least, tolerance)
    tried = list(probes(smallest, lambda x: x >= threshold))
    assert smallest.good is not None
    assert threshold <= smallest.good <= max(threshold + 1, threshold * (1 + tolerance)) or smallest.good == threshold
    assert len(tried) <= (16 if tolerance == 0.05 else 45)
    assert all(least <= x <= top for x in tried)
    largest = Bracket(top, least, tolerance, "largest")
    tried = list(probes(largest, lambda x: x <= threshold))
    assert largest.good is not None
    assert min(threshold - 1, threshold / (1 + tolerance)) <= largest.good <= threshold
    assert len(tried) <= (16 if tolerance == 0.05 else 45)


@pytest.mark.parametrize("sense", ["smallest", "largest"])
def test_where_nothing_is_accepted_the_ends_are_tried(sense: str) -> None:
    bracket = Bracket(1000, 10, 0.05, sense)  # type: ignore[arg-type]
    tried = list(probes(bracket, lambda x: False))
    assert bracket.good is None
    assert (1000 if sense == "smallest" else 10) in tried
    assert len(tried) == len(set(tried)), "from the same start a level is tried once"


def test_levels_fall_geometrically_until_one_fails() -> None:
    bracket = Bracket(4096, 0, 0.05)
    tried = list(probes(bracket, lambda x: x >= 100))
    assert tried[:4] == [1024, 256, 64, 128]


def test_a_rejection_from_a_worse_start_is_tried_again() -> None:
    """256 fails from the dense network, and holds from the one at 512."""
    bracket = Bracket(1024, 0, 0.5)
    seen: list[tuple[int, bool]] = []
    while (level := bracket.next()) is not None:
        accepted = level >= 512 or (bracket.good is not None and level >= 256)
        seen.append((level, accepted))
        bracket.take(level, accepted)
    assert seen[0] == (256, False)
    assert (256, True) in seen
    assert bracket.good == 256


# ── the reversed form where the answer is known ──────────────────────────────────────────────────────────────────

SHAPE = (4, 6)
EXACT = SHAPE[0] * SHAPE[1] / (2 * SIDE**2)  # the step size that solves ½‖W − A‖² on the support at once


def quadratic(folder: Path, target: Tensor, limit: float, solver: str, more: str = "") -> str:
    """``minimize ‖W‖₀ subject to ‖W − A‖² ≤ limit`` through a data term: X = SIDE·I in one batch."""
    o, n = target.shape
    x = SIDE * torch.eye(n)
    y = x @ target.float().t()
    np.savez(folder / "quadratic.npz", x_train=x.numpy(), y_train=y.numpy(), x_test=x.numpy(), y_test=y.numpy())
    head = linear(folder, o, n, n, "‖net.weights‖₀", "quadratic.npz")
    return f"""{head}
subject to
 fit: mse(net, on = train) ≤ {limit * SIDE**2 / (n * o)!r}
 {more}
pretrain with sgd(lr = {EXACT}) for 3 epochs
solve {solver}
finetune with sgd(lr = {EXACT}) for 3 epochs
"""


def target() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64).float().double()


def fewest(a: Tensor, limit: float) -> int:
    """Sorting: the smallest k with the k largest squares all but `limit` of the sum."""
    squares = a.flatten().square().sort(descending=True).values
    return next(k for k in range(len(squares) + 1) if float(squares[k:].sum()) <= limit)


LC = f"lc(method = penalty, μ = 0.01, steps = 2, probes = 40, tolerance = 0.0001) with sgd(lr = {EXACT}) for 2 epochs"
ISTA = f"ista(probes = 40, tolerance = 0.0001) with sgd(lr = {0.01 * EXACT}) for 4 epochs"


@pytest.mark.parametrize("solver", [LC, ISTA], ids=["lc", "ista"])
@pytest.mark.parametrize("limit", [0.5, 4.0, 15.0])
def test_the_fewest_weights_are_those_that_sorting_finds(tmp_path: Path, solver: str, limit: float) -> None:
    a = target()
    ran = solve(quadratic(tmp_path, a, limit, solver), tmp_path)
    expected = fewest(a, limit)
    assert int(ran.w().count_nonzero()) == expected
    assert float((ran.w().double() - a).square().sum()) <= limit
    assert ran.stages("found")[0]["value"] == expected
    assert int(ran.kept["fc1.weight"].sum()) == expected


def test_further_constraints_hold_in_every_probe(tmp_path: Path) -> None:
    """At most two of each row's six: then the fewest are found among supports that fit."""
    a = target()
    rows: list[int] = []

    def watch(machine: Machine, event: Event) -> None:
        if event["event"] == "probed":
            rows.append(int((machine.tensors["fc1.weight"] != 0).sum(1).max()))

    text = quadratic(tmp_path, a, 14.0, LC, "∀ l ∈ net.layers: l.weights ∈ n_of_m(2, 6)")
    ran = solve(text, tmp_path, observe=watch)
    assert rows
    assert max(rows) <= 2
    thinned = torch.zeros_like(a)
    keep = a.abs().topk(2, dim=1).indices
    thinned.scatter_(1, keep, a.gather(1, keep))
    left = float((a - thinned).square().sum())
    assert int(ran.w().count_nonzero()) == fewest(thinned, 14.0 - left)


def test_a_cost_with_one_price_is_searched_in_positions(tmp_path: Path) -> None:
    text = quadratic(tmp_path, target(), 4.0, LC).replace("minimize ‖net.weights‖₀", "minimize sparse_macs(net)")
    ran = solve(text, tmp_path)
    assert int(ran.w().count_nonzero()) == fewest(target(), 4.0)


def test_each_probe_starts_from_the_smallest_accepted_network(tmp_path: Path) -> None:
    after: dict[int, Tensor] = {}
    accepted: list[int] = []
    starts: list[tuple[int | None, Tensor]] = []

    def watch(machine: Machine, event: Event) -> None:
        w = machine.tensors["fc1.weight"].detach().clone()
        if event["event"] == "entering":
            after[0] = w
        if event["event"] == "probe":
            starts.append((min(accepted, default=0), w))
            assert machine.optimizers == {}
            assert machine.cache == {}
            assert machine.levels["κ"] == event["value"]
        if event["event"] == "probed":
            after[event["value"]] = w
            accepted.extend([event["value"]] if event["accepted"] else [])

    solve(quadratic(tmp_path, target(), 4.0, LC), tmp_path, observe=watch)
    assert len(starts) > 3
    assert len({level for level, _ in starts}) > 2
    for level, w in starts:
        assert level is not None
        assert torch.equal(w, after[level])


def test_no_more_probes_than_allowed(tmp_path: Path) -> None:
    ran = solve(quadratic(tmp_path, target(), 4.0, LC.replace("probes = 40", "probes = 3")), tmp_path)
    assert len(ran.stages("probed")) == 3
    assert int(ran.w().count_nonzero()) == min(e["value"] for e in ran.stages("probed") if e["accepted"])


def test_a_floor_out_of_reach_is_tried_and_said(tmp_path: Path) -> None:
    a = target()
    text = quadratic(tmp_path, a, 1.0, LC, "‖net.weights‖₀ ≤ 3")
    ran = solve(text, tmp_path)
    assert fewest(a, 1.0) > 3
    assert not any(e["accepted"] for e in ran.stages("probed"))
    assert int(ran.w().count_nonzero()) <= 3
    assert ran.stages("found")[0]["accepted"] == 0


def test_a_probe_that_diverges_is_a_rejection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prunelang.runtime import search

    original = search.verdicts

    def failing(floors: object, m: Machine) -> object:
        if 0 < m.levels["κ"] < 8:
            raise NumericalFailure("it exploded", "solve")
        return original(floors, m)  # type: ignore[arg-type]

    monkeypatch.setattr(search, "verdicts", failing)
    ran = solve(quadratic(tmp_path, target(), 15.0, LC), tmp_path)
    assert fewest(target(), 15.0) < 8
    assert int(ran.w().count_nonzero()) == 8
    assert bool(ran.w().isfinite().all())

    def always(floors: object, m: Machine) -> object:
        if m.levels["κ"]:
            raise NumericalFailure("it exploded", "solve")
        return original(floors, m)  # type: ignore[arg-type]

    monkeypatch.setattr(search, "verdicts", always)
    with pytest.raises(NumericalFailure, match="exploded"):
        solve(quadratic(tmp_path, target(), 15.0, LC), tmp_path)


def test_an_interruption_hands_back_the_best_so_far(tmp_path: Path) -> None:
    machines: list[Machine] = []
    accepted: list[int] = []

    def watch(machine: Machine, event: Event) -> None:
        machines[:] = [machine]
        if event["event"] == "probed" and event["accepted"]:
            accepted.append(event["value"])

    with pytest.raises(Interrupted):
        solve(quadratic(tmp_path, target(), 4.0, LC), tmp_path, observe=watch, stop=lambda: len(accepted) == 2)
    assert int(machines[0].tensors["fc1.weight"].count_nonzero()) == min(accepted)
    assert int(machines[0].values["m"][0].sum()) == min(accepted)


# ── splits ───────────────────────────────────────────────────────────────────────────────────────────────────────

DIGITS = """
model net = mlp([64, 16, 10])
data digits(batch = 64, validation = 40%)
minimize ‖net.weights‖₀
subject to
 floor: accuracy(net) ≥ 80%
 near: accuracy(net) ≥ base - 15 pp
pretrain with sgd(lr = 0.1, momentum = 0.9) for 10 epochs
solve SOLVER with sgd(lr = 0.1, momentum = 0.9) for 2 epochs
finetune with sgd(lr = 0.05, momentum = 0.9) for 2 epochs
"""


@pytest.mark.parametrize("solver", ["lc(steps = 3, probes = 6)", "ista(probes = 6)"])
def test_digits_with_an_accuracy_floor(solver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few weights, the floor confirmed; the search reads `select`, the last test `certify`, and nothing `test`."""
    read: list[str] = []
    original = Dataset.__getitem__

    def spy(self: Dataset, split: str) -> Split:
        read.append(split)
        return original(self, split)

    by_event: dict[str, set[str]] = {}

    def watch(machine: Machine, event: Event) -> None:
        by_event.setdefault(str(event["event"]), set()).update(read)
        read.clear()

    monkeypatch.setattr(Dataset, "__getitem__", spy)
    ran = solve(DIGITS.replace("SOLVER", solver), tmp_path, dtype="float32", observe=watch)
    found = ran.stages("found")[0]
    assert found["value"] <= 296, "a quarter of the weights is enough"
    assert found["passed"] >= 1
    assert int(sum(ran.w(n).count_nonzero() for n in ("fc1.weight", "fc2.weight"))) <= found["value"]
    assert by_event["probed"] == {"select"}
    assert by_event["base"] == {"select"}
    assert by_event["tested"] == {"certify"}
    assert "test" not in set().union(*by_event.values(), read)


def test_the_last_test_stops_at_the_first_that_fails(tmp_path: Path) -> None:
    ran = solve(DIGITS.replace("SOLVER", "lc(steps = 3, probes = 12)"), tmp_path, dtype="float32")
    tested, found = ran.stages("tested"), ran.stages("found")[0]
    levels = [e["value"] for e in tested]
    assert levels == sorted(levels, reverse=True)
    assert len(tested) <= KEPT
    assert all(e["accepted"] for e in tested[:-1])
    passed = [e["value"] for e in tested if e["accepted"]]
    assert found["value"] == (passed[-1] if passed else levels[0])
    assert found["passed"] == len(passed)


# ── the graph ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_listing_shows_the_search_with_its_body() -> None:
    program = compile(DIGITS.replace("SOLVER", "ista()"))
    text = listing(program.graph)
    assert "base ← accuracy on select\n" in text
    assert "search the smallest κ in 0 … 1 184: accuracy on select ≥ 0.8 ∧ accuracy on select ≥ base − 0.15" in text
    assert "    solve:\n" in text
    assert "steer d: ‖θ‖₀ above it → κ at p = 0.5" in text
    assert "finish W ← W ∈ {‖net.weights‖₀ ≤ κ}" in text
    assert from_json(to_json(program.graph)) == program.graph


def test_a_probe_executes_numbers() -> None:
    graph = compile(DIGITS.replace("SOLVER", "ista()")).graph
    search = next(s for s in walk(graph.program) if isinstance(s, Search))
    assert "κ" not in str(search.at(40)).replace("≤ κ", "").replace("minimize", "")
    assert any(getattr(s, "kappa", None) == 40 for s in walk(search.at(40)))


def test_plans_without_floors_lower_as_before() -> None:
    session = prepare(
        DIGITS.replace("‖net.weights‖₀\n", "cross_entropy(net)\n", 1).replace("SOLVER", "lc(steps = 2)"), Path()
    )
    assert not any(isinstance(s, Search) for s in walk(session.graph.program))


def test_a_level_without_its_search_is_an_invalid_graph() -> None:
    graph = compile(DIGITS.replace("SOLVER", "ista()")).graph
    search = next(s for s in graph.program if isinstance(s, Search))
    outside = [s for step in graph.program for s in (search.body if step is search else (step,))]
    with pytest.raises(InvalidGraph, match="reads `κ` before anything wrote it"):
        verify(replace(graph, program=tuple(outside)))
    undeclared = replace(graph, state=tuple(s for s in graph.state if s.name != "κ"))
    with pytest.raises(InvalidGraph, match="names `κ`, which is not declared"):
        verify(undeclared)


def test_pruning_after_the_solve_belongs_to_the_body(tmp_path: Path) -> None:
    """What `prune` removes, and a stage that stops early, are part of every probe."""
    text = DIGITS.replace("SOLVER", "lc(steps = 2, probes = 3)")
    text = (
        text.replace("finetune", "prune tamade(δ = 1%)\nfinetune", 1).rstrip() + " until saturated(window = 2 epochs)\n"
    )
    ran = solve(text, tmp_path, dtype="float32")
    assert len(ran.stages("pruned")) == 3
    kept = sum(int(k.sum()) for k in ran.kept.values())
    assert kept <= ran.stages("found")[0]["value"]
    assert all(not bool(ran.w(n)[~k].any()) for n, k in ran.kept.items())


def test_a_state_comes_back_with_the_gaps_and_prices_of_its_own_projections(tmp_path: Path) -> None:
    from prunelang.runtime.search import State

    machine = solve(quadratic(tmp_path, target(), 4.0, LC.replace("probes = 40", "probes = 1")), tmp_path).machine
    machine.gaps, machine.prices = {("a",): 0.5}, {"b": Price(2.0, "multiplier")}
    kept = State.of(machine, 7)
    machine.gaps[("a",)] = 0.25
    machine.prices.clear()
    kept.restore(machine)
    assert (machine.gaps, machine.prices) == ({("a",): 0.5}, {"b": Price(2.0, "multiplier")})


def test_a_value_that_is_no_number_meets_no_floor_and_is_never_the_safest() -> None:
    from prunelang.compiler.graph import Floor
    from prunelang.runtime.floors import judge

    verdict = judge(Floor("fit", "mse", "train", "≤", "1"), float("nan"), None)
    assert (verdict.met, verdict.margin) == (False, -float("inf"))
