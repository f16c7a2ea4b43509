"""Block coordinate descent: a network split into its layers, its iterations with their certificate, and the way back.

What the blocks are is in `prunelang.runtime.blocks`. Here the network is read as a chain, γ, ρ, τ and α get their
units, Θ starts from a projection, refusals raise α, and every iteration leaves its line in the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import exp, log

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # torch documents it and does not export it

from prunelang.compiler.forms import Composition, LowRank, TensorTrain
from prunelang.compiler.graph import Activations, Join, Part, Split, Sweep
from prunelang.compiler.joint import CountBound
from prunelang.runtime.blocks import compressed, starts
from prunelang.runtime.blocks.compressed import Compression
from prunelang.runtime.blocks.cores import balanced
from prunelang.runtime.blocks.decrease import Penalties
from prunelang.runtime.blocks.iteration import Splitting, Step
from prunelang.runtime.blocks.layers import forward
from prunelang.runtime.blocks.sparse import sparse_block
from prunelang.runtime.chains import Chain, chain_of
from prunelang.runtime.composed import project_composed
from prunelang.runtime.compress import bounds_of
from prunelang.runtime.factors import named
from prunelang.runtime.machine import Interrupted, Machine, NumericalFailure

WEIGHTS = 1e-3  # of α, for W and Θ: their blocks are regressions on all samples, which hold them already
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
    X, Y = _data(m)
    chain = chain_of(m.model, tuple(X.shape[1:]))
    weights = [(m.tensors[w].detach(), m.tensors[b].detach()) for w, b in zip(chain.weights, chain.biases, strict=True)]
    like = weights[0][0]
    if step.start == "samples":
        drawn = starts.drawn(chain.layers, X, Y, m.feed.seed)
        weights = [(W.to(like.device, torch.float64), b.to(like.device, torch.float64)) for W, b in drawn]
    sizes = tuple(float(W.double().square().mean()) for W, _ in weights)
    held = tuple(_compressions(step, chain, weights, sizes, m))
    targets = {i: T.reshape(weights[i][0].shape) for c in held for i, T in c.targets().items()}
    if step.start == "samples":
        weights = [(targets.get(i, W), b) for i, (W, b) in enumerate(weights)]
    splitting = Splitting(
        chain.layers, weights, X, Y, held,
        rows=node.chunk, store=node.store, device=like.device, dtype=like.dtype,
    )  # fmt: skip
    if len(chain.layers) - 1 not in targets:
        with _solvable("the start"):
            splitting.fit_last()
    m.splittings[step.activations] = run = Run(chain, splitting, _penalties(step, splitting, sizes), step.alpha)
    m.levels[step.level] = step.alpha
    m.composed = False
    _follow(run, m)


def _data(m: Machine) -> tuple[Tensor, Tensor]:
    """All training samples, and one row of targets for each: classes one-hot."""
    X, Y = m.feed.split.inputs, m.feed.split.targets
    if not Y.is_floating_point():
        classes = m.model(X[:1]).shape[-1]
        Y = F.one_hot(Y, classes)
    return X, Y.to(X.dtype).reshape(len(X), -1)


def _penalties(step: Split, splitting: Splitting, sizes: Sequence[float]) -> Penalties:
    """γ and ρ in `starts.units`. What weighs squares of kernels, times ρ and the mean square of the layer's inputs:
    ω, the α of W and Θ (a thousandth of the one of activations, which is times γ), and τ, here for τ = 1.

    Layers that share a count are measured each by the mean square of its kernel at the start (`sizes`), so that none
    gets all of it because its weights are the larger ones; together their τ are as large as without.
    """
    inputs = splitting.mean_squares()
    s = starts.units(splitting.layers, splitting.weights)
    kernels = tuple(step.rho * x * v for x, v in zip(s, inputs, strict=True))
    proximal = tuple(WEIGHTS * step.alpha * x for x in kernels)
    tau = list(kernels)
    for c in splitting.compressions:
        if len(c.layers) > 1:
            mean = exp(sum(log(kernels[i] * sizes[i]) for i in c.layers) / len(c.layers))
            tau[c.layers[0] :] = [mean / sizes[i] if i in c.layers else tau[i] for i in range(c.layers[0], len(tau))]
    return Penalties(
        gamma=tuple(step.gamma * x for x in s),
        rho=tuple(step.rho * x for x in s),
        tau=tuple(tau),
        activations=tuple(step.alpha * step.gamma * x for x in s),
        weights=proximal,
        factors=tuple(WEIGHTS * step.alpha * x for x in tau),
        omega=tuple(step.omega * x for x in kernels),
    )


def _compressions(
    step: Split, chain: Chain, weights: Sequence[tuple[Tensor, Tensor]], sizes: Sequence[float], m: Machine
) -> Iterator[Compression]:
    """``Θ ← Π_C(W)`` part by part, every tensor of a count measured by its own size."""
    place = {t: i for i, t in enumerate(chain.weights)}
    for number, part in enumerate(step.onto.parts):
        out = [weights[place[t]][0].to(m.tensors[t].dtype, copy=True) for t in part.tensors]
        key = (id(step), number)
        if part.compositions:
            factors = project_composed(part, out, None, m, key)
            for c in part.compositions:
                yield _factored(c, place[c.tensors[0]], factors)
        else:
            W, count = [x.double() for x in out], _count(part, m)
            ones = [1 / (sizes[place[t]] or 1.0) for t in part.tensors]
            S = sparse_block(W, W, count, tau=ones, alpha=[0.0] * len(W))
            yield compressed.Sparse(count, dict(zip((place[t] for t in part.tensors), S, strict=True)))


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


@contextmanager
def _solvable(where: str) -> Iterator[None]:
    """A system that has no Cholesky factor holds numbers that are not finite, or too far apart."""
    try:
        yield
    except LinAlgError as error:
        raise NumericalFailure("the system of a block cannot be solved", where) from error


# ── iterations ───────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def sweep(step: Sweep, m: Machine) -> None:
    """One iteration. A refused one is tried again at the next, with a larger α; at the end of that nothing moves."""
    if m.stop():
        raise Interrupted
    run: Run = m.splittings[step.activations]
    if run.stalled:
        return
    tau = m.levels[step.tau]
    run.splitting.inner = step.inner
    with _solvable(f"iteration {m.clocks['k']:g}"):
        done = run.splitting.iterate(replace(run.penalties, tau=tuple(tau * x for x in run.penalties.tau)))
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
    m.observe(_line(done, alpha, tau, m, run))


def _line(done: Step, alpha: float, tau: float, m: Machine, run: Run) -> dict[str, object]:
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
        "tau": tau,
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


__all__ = ["Run", "error", "join", "split", "sweep"]
