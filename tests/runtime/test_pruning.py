"""The bracket of `tamade` against all thresholds tried one by one, and prune stages in whole runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prunelang.progress import removed
from prunelang.runtime.machine import Event, Machine
from prunelang.runtime.pruning import Crossing, bracket_
from tests.runtime.solving import Ran, solve

HEAD = """
model net = mlp([64, 16, 10])
data digits(batch = 128, validation = 20%)
minimize cross_entropy(net)
"""
TRAIN = "with sgd(lr = 0.1, momentum = 0.9) for 3 epochs"


def bracketed(
    w: Sequence[Tensor], f: Callable[[Sequence[Tensor]], float], delta: float
) -> tuple[Crossing, list[float]]:
    """The crossing, and every value that was measured on the way."""
    measured: list[float] = []

    def measure() -> float:
        measured.append(f(w))
        return measured[-1]

    masks = [torch.ones_like(t, dtype=torch.bool) for t in w]
    found = bracket_(w, masks, measure, delta)
    for t, mask in zip(w, masks, strict=True):
        assert torch.equal(mask, t != 0)
    return found, measured


magnitudes = st.lists(st.sampled_from([0.0, -1.0, 1.0, 2.0, -2.0, 3.0, 5.0, -8.0, 13.0]), min_size=2, max_size=12)


@settings(max_examples=200, deadline=None)
@given(magnitudes, st.lists(st.floats(0, 4), min_size=13, max_size=13), st.sampled_from([0.0, 0.1, 1.0]))
def test_the_bracket_is_a_pair_of_neighbours_of_which_one_holds(
    entries: list[float], losses: list[float], delta: float
) -> None:
    """The loss here is any function at all of how many weights are left."""
    whole = torch.tensor(entries, dtype=torch.float64)
    w = [whole[:2].clone(), whole[2:].clone()]

    def f(tensors: Sequence[Tensor]) -> float:
        return losses[sum(int(t.count_nonzero()) for t in tensors)]

    sizes = sorted(set(whole.abs().tolist()) - {0.0})
    left = [int((whole.abs() >= s).sum()) for s in sizes] + [0]  # after cutting below each magnitude, then all
    found, measured = bracketed(w, f, delta)
    dense = losses[left[0]] if sizes else losses[0]
    assert found.dense == dense
    assert found.bound == pytest.approx(dense + delta * dense)
    at = left.index(found.kept)
    assert torch.equal(torch.cat(w), torch.where(whole.abs() >= (sizes[at : at + 1] or [math.inf])[0], whole, 0))
    assert found.below == losses[left[at]] <= found.bound
    assert found.below in measured
    assert found.evaluations == len(measured)
    if found.above is None:
        assert found.kept == 0
    else:
        assert found.above == losses[left[at + 1]] > found.bound
        assert found.above in measured
        assert found.epsilon == sizes[at]


def test_equal_magnitudes_go_together_and_measuring_takes_logarithmically_many_passes() -> None:
    w = [torch.arange(1000, dtype=torch.float64).div(2).floor()]
    found, measured = bracketed(w, lambda t: float(t[0][:400].count_nonzero() == 0), 0.0)
    assert found.kept == 2 * (500 - 199)
    assert found.epsilon == 199
    assert len(measured) <= 2 + math.ceil(math.log2(500))


def test_a_loss_that_is_no_number_does_not_hold() -> None:
    w = [torch.tensor([1.0, 2.0, 3.0])]
    found, _ = bracketed(w, lambda t: 0.0 if t[0].count_nonzero() >= 2 else math.nan, 1.0)
    assert found.kept == 2
    assert found.above is not None
    assert math.isnan(found.above)


def test_a_negative_loss_may_rise_by_a_share_of_its_size() -> None:
    w = [torch.tensor([1.0, 2.0, 3.0])]
    found, _ = bracketed(w, lambda t: -10.0 + float(3 - t[0].count_nonzero()), 0.1)
    assert found.kept == 2
    assert found.bound == -9.0


def test_nothing_is_removed_from_zeros() -> None:
    found, measured = bracketed([torch.zeros(3)], lambda t: 1.0, 0.1)
    assert (found.kept, found.epsilon, found.above, len(measured)) == (0, 0.0, None, 1)


# ── whole runs ───────────────────────────────────────────────────────────────────────────────────────────────────


def pruned(ran: Ran) -> list[Event]:
    return [e for e in ran.events if e["event"] == "pruned"]


def test_tamade_measures_what_it_says(tmp_path: Path) -> None:
    """The crossing is measured again, from the weights that were pruned and the weight that would be next."""
    before: dict[str, Tensor] = {}
    after: dict[str, Tensor] = {}

    def note(machine: Machine, event: Event) -> None:
        if event["event"] == "begin" and event["stage"] == "prune":
            before.update({n: t.detach().clone() for n, t in machine.tensors.items()})

    ran = solve(f"{HEAD}pretrain {TRAIN}\nprune tamade(δ = 5%)\n", tmp_path, observe=note)
    (event,) = pruned(ran)
    after.update({n: t.detach().clone() for n, t in ran.machine.tensors.items()})
    data = ran.session.data["validation"]

    def f(tensors: dict[str, Tensor]) -> float:
        h = torch.relu(data.inputs @ tensors["fc1.weight"].t() + tensors["fc1.bias"])
        out = h @ tensors["fc2.weight"].t() + tensors["fc2.bias"]
        return float(torch.nn.functional.cross_entropy(out, data.targets))

    kernels = ("fc1.weight", "fc2.weight")
    assert event["split"] == "validation"
    assert event["f(0)"] == pytest.approx(f(before))
    assert event["bound"] == pytest.approx(1.05 * f(before))
    assert event["f(epsilon)"] == pytest.approx(f(after))
    assert event["f(epsilon)"] <= event["bound"] < event["f(next)"]
    for n in kernels:
        assert torch.equal(after[n], torch.where(before[n].abs() >= event["epsilon"], before[n], 0))
        assert torch.equal(ran.kept[n], after[n] != 0)
    sizes = torch.cat([after[n].abs().flatten() for n in kernels])
    smallest = sizes[sizes > 0].min()
    further = {n: torch.where(t.abs() > smallest, t, 0) if n in kernels else t for n, t in after.items()}
    assert event["f(next)"] == pytest.approx(f(further))
    assert torch.equal(before["fc1.bias"], after["fc1.bias"])


def test_a_finetune_without_any_solve_keeps_what_was_pruned(tmp_path: Path) -> None:
    ran = solve(f"{HEAD}pretrain {TRAIN}\nprune tamade(δ = 20%)\nfinetune {TRAIN}\n", tmp_path)
    (event,) = pruned(ran)
    left = sum(int(k.sum()) for k in ran.kept.values())
    assert left == event["kept"] < 64 * 16 + 16 * 10
    assert all(not ran.w(n)[~k].any() for n, k in ran.kept.items())


def test_penalties_are_no_part_of_the_loss_and_kept_zeros_of_a_solve_go(tmp_path: Path) -> None:
    head = HEAD.replace("cross_entropy(net)", "cross_entropy(net) + 1e-3·‖net.weights‖₁")
    solved = f"{head}pretrain {TRAIN}\nsolve lc(steps = 3) {TRAIN}\n"
    ran = solve(f"{solved}prune tamade(δ = 0, on = train)\n", tmp_path)
    plain = solve(solved, tmp_path)
    (event,) = pruned(ran)
    data = plain.session.data["train"]
    out = plain.session.model(data.inputs).detach()
    assert event["f(0)"] == pytest.approx(float(torch.nn.functional.cross_entropy(out, data.targets)))
    assert all(torch.equal(k, ran.w(n) != 0) for n, k in ran.kept.items())


def test_tensors_that_must_keep_positions_are_left_alone_and_the_listing_says_so(tmp_path: Path) -> None:
    from prunelang import compile
    from prunelang.compiler.graph import listing

    text = (
        f'{HEAD}subject to\n ‖net.weights‖₀ ≤ 50%\n net["fc2"].weights ∈ dense\npretrain {TRAIN}\n'
        f"solve lc(steps = 2) {TRAIN}\nprune tamade(δ = 50%)\nprune reachability()\n"
        "prune reachability(method = random_gradient, draws = 2)\n"
    )
    seen: list[Tensor] = []

    def note(machine: Machine, event: Event) -> None:
        if event["event"] == "begin" and event["stage"] == "prune":
            seen.append(machine.tensors["fc2.weight"].detach().clone())

    ran = solve(text, tmp_path, observe=note)
    assert bool(ran.kept["fc2.weight"].all())
    assert all(torch.equal(ran.w("fc2.weight"), w) for w in seen)
    assert sum(e["removed"] for e in pruned(ran)) > 0
    assert listing(compile(text).graph).count("W on m except fc2.weight:") == 3


def test_reachability_leaves_the_outputs_and_says_what_moved(tmp_path: Path) -> None:
    outputs: list[Tensor] = []

    def note(machine: Machine, event: Event) -> None:
        if event["event"] in ("begin", "pruned"):
            outputs.append(machine.model.eval()(ran_inputs).detach().clone())

    ran_inputs = torch.rand(50, 64, dtype=torch.float64)
    text = (
        f"{HEAD}subject to\n ‖net.weights‖₀ ≤ 2%\npretrain {TRAIN}\nsolve lc(steps = 3) {TRAIN}\nprune reachability()\n"
    )
    ran = solve(text, tmp_path, observe=note)
    (event,) = pruned(ran)
    assert event["removed"] > 0
    assert event["kept"] == sum(int(k.sum()) for k in ran.kept.values())
    torch.testing.assert_close(outputs[-1], outputs[-2], rtol=1e-12, atol=1e-12)


def test_random_draws_follow_the_seed_of_the_run(tmp_path: Path) -> None:
    text = f"{HEAD.replace('128', '4')}pretrain {TRAIN}\nprune reachability(method = random_gradient, draws = 1)\n"
    first, again, other = (solve(text, tmp_path, seed=s) for s in (0, 0, 1))
    assert all(torch.equal(k, again.kept[n]) for n, k in first.kept.items())
    assert any(not torch.equal(k, other.kept[n]) for n, k in first.kept.items())


def test_a_network_that_cannot_be_traced_is_left_as_it_is_and_the_history_says_why(tmp_path: Path) -> None:
    ran: list[Machine] = []

    def decides(machine: Machine) -> None:
        forward = machine.model.forward

        def other(x: Tensor) -> Tensor:
            out: Tensor = forward(x) if x.sum() > 0 else forward(x) + 1
            return out

        machine.model.forward = other
        ran.append(machine)

    found = solve(f"{HEAD}pretrain {TRAIN}\nprune reachability()\n", tmp_path, before=decides)
    (event,) = pruned(found)
    assert event["removed"] == 0
    assert "depends on the input" in event["nothing because"]
    assert removed(event).startswith("nothing removed: what is computed depends")


def test_the_bar_says_what_went_and_what_it_cost() -> None:
    measured = {"split": "validation", "f(0)": 0.5, "f(epsilon)": 0.504, "bound": 0.505}
    assert removed({"removed": 12000, "kept": 345}) == "12 000 weights removed, 345 left"
    assert removed({"removed": 1, "kept": 2, **measured}).endswith("loss on validation 0.5000 → 0.5040 ≤ 0.5050")


@pytest.mark.parametrize("stage", ["solve ista(D = 0.5) with sgd(lr = 0.1) for 2 epochs", "prune tamade(δ = 900%)"])
def test_without_a_count_what_is_under_dense_keeps_all_positions(stage: str) -> None:
    text = (
        "model net = mlp([64, 8, 10])\ndata digits(batch = 64)\nminimize cross_entropy(net)\n"
        f'subject to net["fc2"].weights ∈ dense\n{stage}\n'
    )
    ran = solve(text)
    assert int(ran.w("fc2.weight").count_nonzero()) == 80
    assert int(ran.w("fc1.weight").count_nonzero()) < 256
