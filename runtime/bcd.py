"""Block coordinate descent: a network split into its layers, its iterations with their certificate, and the way back.

What the blocks are is in `prunelang.runtime.blocks`. Here the network is read as a chain, γ, ρ, τ and α get their
units, Θ starts from a projection, refusals raise α, and every iteration leaves its line in the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from prunelang.compiler.forms import Composition, LowRank, TensorTrain
from prunelang.compiler.graph import Activations, Join, Part, Split, Sweep
from prunelang.compiler.joint import CountBound
from prunelang.runtime.blocks import compressed
from prunelang.runtime.blocks.compressed import Compression
from prunelang.runtime.blocks.cores import balanced
from prunelang.runtime.blocks.decrease import Penalties
from prunelang.runtime.blocks.iteration import Splitting, Step
from prunelang.runtime.blocks.layers import forward
from prunelang.runtime.chains import Chain, chain_of
from prunelang.runtime.composed import project_composed
from prunelang.runtime.compress import bounds_of, project_part
from prunelang.runtime.factors import named
from prunelang.runtime.machine import Machine, NumericalFailure

GAIN = 0.05  # of a random start, times √(2/fan_in): what the layers hold is learned, not drawn
WARM = 3  # iterations before scales are measured and Θ starts: activations have their size then
RAISE, MOST = 2.0, 1e6  # α after a refusal; beyond `MOST` times the first, numbers are too coarse to fall on


@dataclass
class Run:
    """A splitting under way: its chain and proximal weights, and how often a step was refused."""

    chain: Chain
    splitting: Splitting
    penalties: Penalties
    first: float  # α as the solver was given it
    refused: int = 0
    stalled: bool = False


# ── the start ────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def split(step: Split, m: Machine) -> None:
    node = m.nodes[step.activations]
    assert isinstance(node, Activations)
    X, Y = data(m)
    chain = chain_of(m.model, tuple(X.shape[1:]))
    weights = [(m.tensors[w].detach(), m.tensors[b].detach()) for w, b in zip(chain.weights, chain.biases, strict=True)]
    if step.start == "random":
        weights = _drawn(weights, m.feed.seed)
    dtype = weights[0][0].dtype
    splitting = Splitting(
        chain.layers, weights, X, Y, rows=node.chunk, store=node.store, device=weights[0][0].device, dtype=dtype
    )
    plain = _penalties(step, splitting)
    for _ in range(WARM if step.start == "random" else 0):
        splitting.iterate(plain)
    run = Run(chain, splitting, _penalties(step, splitting), step.alpha)
    splitting.restart(_compressions(step, run, m))
    m.splittings[step.activations] = run
    m.levels[step.level] = step.alpha
    m.composed = False
    _follow(run, m)


def data(m: Machine) -> tuple[Tensor, Tensor]:
    """All training samples, and one row of targets for each: classes one-hot."""
    X, Y = m.feed.split.inputs, m.feed.split.targets
    if not Y.is_floating_point():
        classes = m.model(X[:1]).shape[-1]
        Y = F.one_hot(Y, classes)
    return X, Y.to(X.dtype).reshape(len(X), -1)


def _drawn(weights: Sequence[tuple[Tensor, Tensor]], seed: int) -> list[tuple[Tensor, Tensor]]:
    """Kernels normal with deviation ``GAIN √(2/fan_in)``, biases 0; drawn on the host, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for W, b in weights:
        normal = torch.randn(W.shape, generator=generator, dtype=torch.float64).to(W)
        made.append((normal * (GAIN * (2.0 / prod(W.shape[1:])) ** 0.5), torch.zeros_like(b)))
    return made


def _penalties(step: Split, splitting: Splitting) -> Penalties:
    """γ and ρ as given: they weigh squares of activations against squares of targets. τ and the α of weights, which
    weigh squares of kernels, times ρ and the mean square of the layer's inputs; the α of activations times γ."""
    n = len(splitting.layers)
    inputs = splitting.mean_squares()
    return Penalties(
        gamma=(step.gamma,) * n,
        rho=(step.rho,) * n,
        tau=tuple(step.tau * step.rho * v for v in inputs),
        activations=(step.alpha * step.gamma,) * n,
        weights=tuple(step.alpha * step.rho * v for v in inputs),
        factors=tuple(step.alpha * step.rho * v for v in inputs),
    )


def _compressions(step: Split, run: Run, m: Machine) -> Iterator[Compression]:
    """``Θ ← Π_C(W)`` part by part."""
    place = {t: i for i, t in enumerate(run.chain.weights)}
    for number, part in enumerate(step.onto.parts):
        out = [run.splitting.weights[place[t]][0].to(m.tensors[t].dtype, copy=True) for t in part.tensors]
        key = (id(step), number)
        if part.compositions:
            factors = project_composed(part, out, None, m, key)
            for c in part.compositions:
                yield _factored(c, place[c.tensors[0]], factors)
        else:
            project_part(part, out, None, m, key)
            pairs = zip(part.tensors, out, strict=True)
            yield compressed.Sparse(_count(part, m), {place[t]: x.double() for t, x in pairs})


def _factored(c: Composition, layer: int, factors: dict[str, Tensor]) -> Compression:
    (form,) = c.forms
    tensor = c.tensors[0]
    if isinstance(form, LowRank):
        U, V = balanced([factors[named(tensor, 0, x)].double() for x in ("U", "V")])
        return compressed.LowRank(layer, U, V)
    assert isinstance(form, TensorTrain)
    cores = [factors[named(tensor, 0, f"G{k}")].double() for k in range(1, len(form.modes) + 1)]
    return compressed.Train(layer, form.modes, tuple(balanced(cores)))


def _count(part: Part, m: Machine) -> int:
    (bound,) = bounds_of(part, m)
    assert isinstance(bound, CountBound) and bound.upper is not None
    return bound.upper - bound.constant


# ── iterations ───────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def sweep(step: Sweep, m: Machine) -> None:
    """One iteration. A refused one is tried again at the next, with a larger α; at the end of that nothing moves."""
    run: Run = m.splittings[step.activations]
    if run.stalled:
        return
    done = run.splitting.iterate(run.penalties)
    if not all(map(_finite, (done.before, done.objective if done.accepted else 0.0))):
        raise NumericalFailure("the objective is not finite", f"iteration {m.clocks['k']:g}")
    alpha = m.levels[step.level]
    if done.accepted:
        _follow(run, m)
        m.last_loss = done.objective
        m.keep_good()
    else:
        run.refused += 1
        run.penalties = run.penalties.raised(RAISE)
        m.levels[step.level] = alpha * RAISE
        run.stalled = alpha * RAISE > MOST * run.first
    m.observe(_line(done, alpha, m, run))


def _line(done: Step, alpha: float, m: Machine, run: Run) -> dict[str, object]:
    return {
        "event": "iteration",
        "stage": "solve",
        "k": m.clocks["k"],
        "p": m.clocks["p"],
        "before": done.before,
        "objective": done.objective,
        "moved": done.moved,
        "decrease": done.decrease,
        "promised": done.promised,
        "accepted": done.accepted,
        "refused": run.refused,
        "alpha": alpha,
        "residual": done.residual,
    }


def _finite(x: float) -> bool:
    return x == x and abs(x) != float("inf")


def _follow(run: Run, m: Machine) -> None:
    """The network has the weights of the splitting."""
    names = zip(run.chain.weights, run.chain.biases, run.splitting.weights, strict=True)
    for w, b, (W, bias) in names:
        m.tensors[w].copy_(W)
        m.tensors[b].copy_(bias)


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def join(step: Join, m: Machine) -> None:
    """``W_i ← Δ_i(Θ_i)``: kept positions, factors, and what the step costs."""
    run: Run = m.splittings[step.activations]
    _follow(run, m)
    before = error(run.splitting)
    place = dict(enumerate(run.chain.weights))
    for i, target in run.splitting.targets().items():
        m.tensors[place[i]].copy_(target)
    composed = [c for part in step.onto.parts for c in part.compositions]
    if step.support:
        for name, mask in zip(m.names(step.support), m.values[step.support], strict=True):
            own = any(name in c.tensors for c in composed)
            mask.fill_(True) if own else torch.ne(m.tensors[name], 0, out=mask)
    if step.factors:
        m.install(dict(_factors(composed, run, m)))
        m.composed = True
    after = error(run.splitting, composed=True)
    found = {"event": "joined", "stage": "solve", "squares": before, "squares_composed": after}
    m.observe({**found, "refused": run.refused, "stalled": run.stalled})
    del m.splittings[step.activations]


def _factors(composed: Sequence[Composition], run: Run, m: Machine) -> Iterator[tuple[str, Tensor]]:
    """Θ in the type of the network, under the names that files have."""
    made = {c.layers[0]: c for c in run.splitting.compressions}
    for c in composed:
        tensor = c.tensors[0]
        held = made[run.chain.weights.index(tensor)]
        if isinstance(held, compressed.LowRank):
            arrays = {"U": held.U, "V": held.V}
        else:
            assert isinstance(held, compressed.Train)
            arrays = {f"G{k}": G for k, G in enumerate(held.cores, 1)}
        for symbol, x in arrays.items():
            yield named(tensor, 0, symbol), x.to(m.tensors[tensor].dtype).contiguous()


def error(splitting: Splitting, *, composed: bool = False) -> float:
    """``½‖f(X) − Y‖²/n`` of the network itself, layer after layer, with W or with Δ(Θ), in float64."""
    weights = list(splitting.weights)
    for i, target in splitting.targets().items() if composed else ():
        weights[i] = (target.double(), weights[i][1])
    total = 0.0
    for j in range(len(splitting.X)):
        out = forward(splitting.layers, weights, splitting.X.old(j).double())
        total += float((out.flatten(1) - splitting.Y.old(j).double()).square().sum())
    return total / (2 * splitting.samples)


__all__ = ["Run", "data", "error", "join", "split", "sweep"]
