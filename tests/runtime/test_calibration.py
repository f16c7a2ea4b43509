"""Budgets of synaptic operations end to end: rates, the count that stands for them, and what the certificate says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunelang
from prunelang.compiler.graph import Calibrate, Calibration, Tighten, walk
from prunelang.compiler.joint import CountBound
from prunelang.dsl.diagnostics import SpecError
from prunelang.execution import RunOptions, Session, Solution
from prunelang.runtime import registry
from prunelang.runtime.calibration import calibrate
from prunelang.runtime.data import Dataset
from prunelang.runtime.execute import run
from prunelang.runtime.machine import Machine
from prunelang.runtime.prox.joint import JointProjection
from prunelang.runtime.statistics import bernstein_reach
from prunelang.runtime.surrogates import Surrogate, resolved
from prunelang.runtime.weights import load_weights

pytest.importorskip("spikingjelly", reason="spiking networks need the extra `snn`")
from spikingjelly.activation_based import functional, neuron

T = 4


class Spiking(nn.Module):
    """64 → 24 → 12 → 10 over four steps; the first layer reads the image, the others spikes."""

    def __init__(self, odd: bool = False, norm: bool = False) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(64, 24), nn.Linear(24, 12), nn.Linear(12, 10)
        self.lif1, self.lif2 = neuron.LIFNode(v_threshold=0.5), neuron.LIFNode(v_threshold=0.5)
        self.odd = odd
        self.norm = nn.BatchNorm1d(12) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        current, total = self.fc1(x), torch.zeros(len(x), 10, dtype=x.dtype, device=x.device)
        for _ in range(T):
            hidden = self.lif2(self.norm(self.fc2(self.lif1(current))))
            total = total + (hidden @ self.fc3.weight.t() if self.odd else self.fc3(hidden))
        return total / T


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    before = dict(registry.models._entries)
    prunelang.register.model(name="tiny_spiking", input_shape=(64,))(Spiking)
    yield
    registry.models._entries = before


def spec(line: str, solver: str = "lc(steps = 6)", tail: str = "", model: str = "tiny_spiking()") -> str:
    return f"""
model net = {model}
data digits(batch = 64, validation = 40%)
minimize cross_entropy(net)
subject to
    {line}
pretrain with adam(lr = 5e-3) for 4 epochs
solve {solver} with adam(lr = 3e-3) for 1 epochs
{tail}
"""


def ran(text: str, folder: Path) -> tuple[Solution, list[dict[str, object]]]:
    events: list[dict[str, object]] = []
    solution = prunelang.compile(text).run(folder, observe=lambda e: events.append(dict(e)))
    return solution, events


def operations(folder: Path, data: Dataset, split: str) -> np.ndarray:
    """Synaptic operations of every sample with the saved weights, spike by spike and weight by weight."""
    net = Spiking()
    table = prunelang.compile(spec("synops(net) ≤ 0.3 * base")).plan.table
    arrays = load_weights(folder / "weights.safetensors", table)
    net.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in arrays.items()})
    spikes: dict[str, Tensor] = {"lif1": torch.zeros(0), "lif2": torch.zeros(0)}
    with torch.no_grad():
        x = data[split].inputs
        functional.reset_net(net.eval())
        current = net.fc1(x)
        seen = {name: torch.zeros(len(x), n) for name, n in (("lif1", 24), ("lif2", 12))}
        for _ in range(T):
            spikes["lif1"] = net.lif1(current)
            spikes["lif2"] = net.lif2(net.fc2(spikes["lif1"]))
            for name, s in spikes.items():
                seen[name] += s
    fans = {"lif1": (net.fc2.weight != 0).sum(0), "lif2": (net.fc3.weight != 0).sum(0)}
    return sum((seen[name].double() @ fans[name].double()) for name in seen).numpy()


def test_lc_ends_with_a_budget_that_holds_with_confidence(tmp_path: Path) -> None:
    tail = "finetune with adam(lr = 1e-3) for 2 epochs\nreport synops(net), spikes(net), energy(net)"
    solution, events = ran(spec("events: synops(net) ≤ 0.4 * base", tail=tail), tmp_path)
    (line,) = solution.certificate.constraints
    assert (line.satisfied, line.confirmed, line.split, line.samples) == (True, True, "certify", 288)
    assert "0.4·base ≤ -" in line.statement
    assert "with 95 % confidence (paired, empirical Bernstein, 288 samples on certify)" in line.statement
    session = Session(prunelang.compile(spec("synops(net) ≤ 0.4 * base")).plan, Path(), RunOptions(tmp_path))
    recounted = operations(tmp_path, session.data, "certify")
    assert float(Fraction(str(line.got))) == pytest.approx(recounted.mean(), rel=1e-12)
    assert recounted.mean() <= 0.4 * float(Fraction(str(line.base)))
    calibrated = [e for e in events if e["event"] == "calibrated"]
    assert len(calibrated) >= 7  # at the start and in each of six outer iterations
    titles = {item.title: item for item in solution.certificate.report}
    macs = titles["multiply-adds of analog inputs beside synops(net)"].value
    assert macs == 64 * 24  # the image is read once, by a layer whose weights all stay
    assert titles["energy(net)"].value == pytest.approx(4.6 * macs + 0.9 * float(titles["synops(net)"].value))


def test_gda_prices_the_budget_and_ends_inside_it(tmp_path: Path) -> None:
    text = spec("events: synops(net) ≤ 0.4 * base", "gda()").replace("for 1 epochs", "for 6 epochs")
    solution, events = ran(text, tmp_path)
    (line,) = solution.certificate.constraints
    assert (line.satisfied, line.confirmed, line.price_kind) == (True, True, "surrogate")
    calibrated = [e for e in events if e["event"] == "calibrated"]
    assert len(calibrated) >= 1 + 6 + 4  # at the start, in each epoch, before the projection
    solve = [e for e in events if e["event"] == "epoch" and e["stage"] == "solve"]
    (counted,) = solve[-1]["constraints"]
    assert counted["label"] == "surrogate of events"
    assert counted["bound"] == pytest.approx(calibrated[5 + 1]["limit"], rel=1e-3)  # of that epoch, in operations


def test_other_constraints_stand_beside_the_budget(tmp_path: Path) -> None:
    lines = 'net["fc3"].weights ∈ dense\n    ‖net["fc2"].weights‖₀ ≤ 60%\n    synops(net) ≤ 0.6 * base'
    solution, _ = ran(spec(lines), tmp_path)
    assert solution.feasible
    found = {line.label: line for line in solution.certificate.constraints}
    assert int(found['‖net["fc2"].weights‖₀'].got) <= 172
    assert found['net["fc3"].weights'].satisfied


def test_statistics_of_normalisation_are_those_of_the_network_that_is_measured(tmp_path: Path) -> None:
    text = spec("synops(net) ≤ 0.4 * base", "lc(steps = 2)", model="tiny_spiking(norm = true)")
    program = prunelang.compile(text)
    (tighten,) = (s for s in walk(program.graph.program) if isinstance(s, Tighten))
    assert tighten.recalibrate > 0
    solution, events = ran(text, tmp_path)
    assert solution.feasible
    rounds = [e["rounds"] for e in events if e["event"] == "tightened"]
    assert len(rounds) == 1
    assert rounds[0] < tighten.rounds


def test_an_absolute_bound(tmp_path: Path) -> None:
    solution, events = ran(spec("synops(net) ≤ 150 SynOps"), tmp_path)
    (line,) = solution.certificate.constraints
    assert line.satisfied
    assert line.statement.startswith("synops ≤ ")
    assert "(empirical Bernstein, 288 samples on certify)" in line.statement
    assert [e["floors"][0]["met"] for e in events if e["event"] == "tightened"] == [True]


def test_a_bound_that_nothing_drove_is_still_decided(tmp_path: Path) -> None:
    text = spec("‖net.weights‖₀ ≤ 95%\n    spikes(net) ≤ 0.01 * base", "lc(steps = 1)")
    solution, events = ran(text, tmp_path)
    found = {line.label: line for line in solution.certificate.constraints}
    assert found["spikes(net)"].satisfied is False
    assert "spikes − 0.01·base ≤ " in found["spikes(net)"].statement
    assert not any(e["event"] in ("calibrated", "tightened") for e in events)


# ── the count that stands for it ─────────────────────────────────────────────────────────────────────────────────


def machine(line: str, folder: Path) -> tuple[Session, Machine]:
    program = prunelang.compile(spec(line))
    session = Session(program.plan, folder, RunOptions(folder))
    with torch.no_grad():
        for p in session.model.parameters():
            p.mul_(4.0)  # it fires, so that a budget can be confirmed
    return session, session.machine(lambda event: None, lambda: False)


def test_rates_times_kept_weights_are_the_operations_that_were_measured(tmp_path: Path) -> None:
    session, m = machine("synops(net) ≤ 0.5 * base", tmp_path)
    with torch.no_grad():
        m.tensors["fc2.weight"][torch.rand(12, 24) < 0.5] = 0.0
    node = m.nodes["B"]
    assert isinstance(node, Calibration)
    calibrate(Calibrate("B", "W"), m)
    found = m.calibrations["B"]
    activity = session.activity("calibration")
    kept = {t: int(torch.count_nonzero(m.tensors[t])) for t in found.rates}
    assert set(found.rates) == {"fc2.weight", "fc3.weight"}  # the image is no spikes
    assert sum(rate * kept[t] for t, rate in found.rates.items()) == pytest.approx(activity.synops.mean(), rel=1e-12)
    # Half of the operations at half of the weights: no spread is left around 0.5 · base, only the ranges of both.
    reach = bernstein_reach(0.0, (0.5 + 0.5) * activity.most_synops, 288)
    assert found.limit == pytest.approx(0.5 * activity.synops.mean() - reach)


def test_rates_are_those_of_the_copy_that_is_asked_for_and_move_half_way(tmp_path: Path) -> None:
    session, m = machine("synops(net) ≤ 0.5 * base", tmp_path)
    calibrate(Calibrate("B", "W"), m)
    first = m.calibrations["B"]
    for theta, w in zip(m.values["θ"], m.values["W"], strict=True):
        theta.copy_(0.97 * w.detach())
    before = {n: t.detach().clone() for n, t in m.tensors.items()}
    calibrate(Calibrate("B", "θ"), m)
    assert all(torch.equal(t.detach(), before[n]) for n, t in m.tensors.items())
    with torch.no_grad():
        for t, theta in zip(m.values["W"], m.values["θ"], strict=True):
            t.copy_(theta)
    there = session.activity("calibration").by_tensor["fc2.weight"] / (12 * 24)
    old = first.rates["fc2.weight"]
    assert old != there
    assert m.calibrations["B"].rates["fc2.weight"] == pytest.approx(min(max(np.sqrt(old * there), old / 2), 2 * old))
    assert m.calibrations["B"].start is first.start


def test_a_bound_takes_its_numbers_from_the_calibration() -> None:
    known = Surrogate({"a": 0.5, "b": 0.5, "c": 0.0}, 10.0, np.zeros(1), 1.0)
    assert known.coefficients == {"a": 500, "b": 501, "c": 1}  # none alike, none free
    bound = CountBound("s", {"a": 7, "b": 8, "c": 9, "analog": 3}, 0, None, 99, "B")
    found = resolved(bound, known)
    assert (found.coefficients, found.upper) == ({"a": 500, "b": 501, "c": 1}, 10_000)
    empty = resolved(bound, Surrogate({}, 10.0, np.zeros(1), 1.0))
    values = torch.randn(3, 4)
    outcome = JointProjection([empty], {"a": (3, 4)}).project_([values])
    assert bool(outcome.masks[0].all())  # no spikes reach anything: nothing has to go


def test_what_the_graph_holds(tmp_path: Path) -> None:
    graph = prunelang.compile(spec("synops(net) ≤ 0.5 * base")).graph
    steps = list(walk(graph.program))
    assert sum(isinstance(s, Calibrate) for s in steps) == 2
    (tighten,) = (s for s in steps if isinstance(s, Tighten))
    assert tighten.bounds == ("B",)
    assert prunelang.compiler.graph.from_json(json.loads(json.dumps(prunelang.compiler.graph.to_json(graph)))) == graph
    undriven = prunelang.compile(spec("synops(net) ≤ 0.5 * base\n    ‖net.weights‖₀ ≤ 50%", "ista()")).graph
    assert not any(isinstance(s, Calibrate | Tighten) for s in walk(undriven.program))


def test_epochs_after_the_solve_end_inside_the_budget_and_bring_nothing_back(tmp_path: Path) -> None:
    text = spec("synops(net) ≤ 0.4 * base", "lc(steps = 2)", "finetune with adam(lr = 3e-2) for 4 epochs")
    kept: list[dict[str, Tensor]] = []
    missing: list[bool] = []
    session = Session(prunelang.compile(text).plan, tmp_path, RunOptions(tmp_path))

    def note(event: Mapping[str, Any]) -> None:
        if event["event"] == "tightened":
            masks = dict(zip(m.names("m"), m.values["m"], strict=True))
            kept.append({name: mask.clone() for name, mask in masks.items()})
            missing.append(any(bool((m.tensors[n].detach()[~mask] != 0).any()) for n, mask in masks.items()))

    m = session.machine(note, lambda: False)
    run(m)
    assert len(kept) == 1 + 4  # after the solve, and after each epoch
    assert not any(missing)
    for before, after in pairwise(kept):
        assert all(bool((before[name] | ~after[name]).all()) for name in before)  # only ever fewer
    assert sum(int(x.sum()) for x in kept[-1].values()) < sum(int(x.sum()) for x in kept[0].values())


def test_a_search_holds_outcomes_against_the_budget(tmp_path: Path) -> None:
    text = spec("accuracy(net) ≥ 50%\n    events: synops(net) ≤ 0.6 * base", "lc(steps = 2, probes = 4)")
    solution, events = ran(text.replace("minimize cross_entropy(net)", "minimize ‖net.weights‖₀"), tmp_path)
    probes = [e for e in events if e["event"] == "probed"]
    assert {f["label"] for e in probes for f in e["floors"]} == {"accuracy(net)", "events"}
    assert all(f["bound"] is not None for e in probes for f in e["floors"])
    assert not any(e["event"] == "calibrated" for e in events)  # a search measures, and drives its own count
    assert "paired, empirical Bernstein" in solution.certificate.constraints[1].statement


def test_too_few_samples_are_said_before_anything_is_removed(tmp_path: Path) -> None:
    text = spec("events: synops(net) ≤ 0.05 * base").replace("validation = 40%", "validation = 2%")
    solution, _ = ran(text, tmp_path)
    found = re.match(
        r"`events` cannot be confirmed on \d+ samples, whatever the weights: it takes (\d+);", solution.failure or ""
    )
    assert found is not None
    needed = int(found[1])
    session = Session(prunelang.compile(text).plan, tmp_path, RunOptions(tmp_path))
    arrays = load_weights(tmp_path / "weights.safetensors", session.plan.table)
    session.model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in arrays.items()})
    base = session.activity("calibration")
    limit, width = 0.05 * base.synops.mean(), 0.05 * base.most_synops
    assert bernstein_reach(0.0, width, needed) <= limit < bernstein_reach(0.0, width, needed - 1)
    assert all(bool((t != 0).all()) for n, t in session.model.state_dict().items() if n.endswith("weight"))


def test_explain_says_what_is_followed(tmp_path: Path) -> None:
    text = spec("a: synops(net) ≤ 0.4 * base\n    b: spikes(net) ≤ 0.9 * base")
    shown = prunelang.compile(text).explain("solver")
    assert "follows `a` by Σ c_t · nnz(t)" in shown
    assert "does not follow `b`, which is decided on certify" in shown


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_layer_that_is_not_counted_is_refused_before_anything_trains(tmp_path: Path) -> None:
    text = spec("synops(net) ≤ 0.5 * base", model="tiny_spiking(odd = true)")
    with pytest.raises(SpecError, match="P478") as refused:
        prunelang.compile(text).run(tmp_path)
    assert "`fc3.weight` is not read by a linear layer" in refused.value.diagnostics[0].message


def test_a_script_measures_rates_too() -> None:
    script = prunelang.compile(spec("few: synops(net) ≤ 0.5 * base")).to_python()
    assert "B = renewed(B_of, B, found, counted, len(" in script
    assert "judge = Judge(" in script
    assert '"calibration": (calibration_x, calibration_y)' in script
