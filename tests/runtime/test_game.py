"""Levels on the host, in a script and on a device select the same items; prices of budgets come from the game's z."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

import prunelang
from prunelang.compiler.graph import Multipliers
from prunelang.runtime.game import Chosen, DeviceEntries, Entries
from prunelang.runtime.minimax import HostEntries, prices
from prunelang.runtime.price import Price
from tests.runtime.solving import solve

GDA = "solve gda({}) with sgd(lr = 0.1, momentum = 0.9) for 3 epochs\n"
HEAD = "model net = mlp([64, 12, 10])\ndata digits(batch = 128)\nminimize cross_entropy(net){}\nsubject to\n    {}\n"


def with_ties(seed: int, dtype: torch.dtype) -> list[Tensor]:
    """Few different magnitudes, none of them 0, in three tensors; one of them has none."""
    random = torch.Generator().manual_seed(seed)
    halves = torch.randint(1, 5, (3, 5), generator=random) * torch.randint(0, 2, (3, 5), generator=random).mul(2).sub(1)
    others = torch.randint(1, 4, (9,), generator=random)
    return [halves.to(dtype) / 2, others.to(dtype) / 2, torch.empty(0, dtype=dtype)]


def selected(kind: Callable[[Sequence[Tensor]], Chosen], weights: list[Tensor], s: float) -> list[Tensor]:
    """τ′, Σ, ‖·‖² and τ, the shrunk weights, and the confined weights with their moments."""
    found: list[Tensor] = []
    out = tuple(torch.zeros((), dtype=torch.float64) for _ in range(4))
    for act in ("shrink", "confine"):
        own, moments = [w.clone() for w in weights], [torch.ones_like(w) for w in weights]
        level = kind(own)
        level.select(s, (out[0], out[1], out[2], out[3]))
        if act == "shrink":
            level.shrink(torch.tensor(0.7, dtype=torch.float64), 0.25)
        else:
            level.confine([moments])
        found += [*own, *moments]
    return [*out, *found]


def oracle(weights: list[Tensor], s: float) -> tuple[tuple[float, float, float, float], Tensor]:
    """τ′, Σ, ‖·‖², τ, and what is selected, of equal magnitudes the last, by sorting."""
    flat = torch.cat([w.flatten() for w in weights]).double()
    order = flat.abs().argsort(descending=True, stable=True)
    kept = flat.numel() - int(torch.tensor(s - 0.25, dtype=torch.float64).ceil())
    gone = torch.ones(flat.numel(), dtype=torch.bool)
    gone[order[:kept]] = False
    squares = flat.square()
    tau = float(squares[gone].amax()) if bool(gone.any()) else 0.0
    return (float(squares[order[kept - 1]]), float(squares[gone].sum()), float(squares.sum()), tau), gone


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("s", [0.0, 0.5, 1.0, 7.3, 11.0, 17.0, 22.9])
@pytest.mark.parametrize("seed", range(4))
def test_levels_select_what_sorting_selects_ties_included(seed: int, s: float, dtype: torch.dtype) -> None:
    weights = with_ties(seed, dtype)
    expected, gone = oracle(weights, s)
    host, script = selected(HostEntries, weights, s), selected(Entries, weights, s)
    assert all(torch.equal(a, b) for a, b in zip(host, script, strict=True)), "bit for bit"
    device = selected(DeviceEntries, weights, s)
    for found in (host, device):
        assert tuple(float(x) for x in found[:4]) == pytest.approx(expected, rel=1e-6)
        shrunk, confined, moments = (torch.cat([t.flatten() for t in found[i : i + 3]]) for i in (4, 10, 13))
        flat = torch.cat([w.flatten() for w in weights])
        assert torch.allclose(shrunk, torch.where(gone, flat / (1 + 2 * 0.25 * 0.7), flat), rtol=1e-6)
        assert torch.equal(confined, torch.where(gone, 0, flat))
        assert torch.equal(moments, (~gone).to(dtype))


# ── prices ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_price_of_a_budget_is_its_multiplier_over_its_scale() -> None:
    two = "sparsity: ‖net.weights‖₀ ≤ 20%\n    file: bytes(net, format = csr) ≤ 1500 B"
    machine = solve(HEAD.format("", two) + GDA.format("")).machine
    (node,) = (s for s in machine.graph.state if isinstance(s, Multipliers))
    z = dict(zip((r.label for r in node.resources), machine.values["z"][0].tolist(), strict=True))
    dense = {"sparsity": 888, "file": 9 * 888 + node.resources[1].constant}  # a value of 8 bytes and its column
    assert {r.label: r.dense for r in node.resources} == dense
    assert prices(machine) == {k: Price(v / dense[k], "surrogate") for k, v in z.items()}
    assert machine.prices == prices(machine)
    assert all(v > 0 for v in z.values())


def test_what_the_objective_prices_has_no_price() -> None:
    text = HEAD.format(' + 1e-3·‖net["fc2"].weights‖₀', 'sparsity: ‖net["fc1"].weights‖₀ ≤ 20%')
    assert solve(text + GDA.format("")).machine.prices.keys() == {"sparsity"}


def test_a_projection_that_comes_first_leaves_no_price() -> None:
    text = HEAD.format("", "sparsity: ‖net.weights‖₀ ≤ 20%")
    assert solve(text + GDA.format("mode = sequential")).machine.prices == {}


def test_prices_are_in_the_certificate_the_report_and_the_history(tmp_path: Path) -> None:
    text = HEAD.format("", "sparsity: ‖net.weights‖₀ ≤ 20%") + GDA.format("") + 'report "price": sparsity.dual\n'
    solution = prunelang.compile(text).run(tmp_path)
    (line,) = solution.certificate.constraints
    assert line.price is not None
    assert line.price > 0
    assert (line.price_kind, line.price_spread) == ("surrogate", None)
    assert solution.reported("price") == line.price
    assert f"{line.price:.3g} (surrogate)" in (tmp_path / "report.md").read_text(encoding="utf-8")
