"""Block coordinate descent on a whole network: its splitting from the start to the end, and the way back.

γ, ρ, τ and α get their units, Θ starts from a projection, and a refused iteration raises α. Nothing here knows of
graphs: the executor and the emitted script run the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import exp, isfinite, log
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # torch documents it and does not export it

from prunelang.compiler.forms import Composition, LowRank, TensorTrain
from prunelang.runtime.blocks import compressed, starts
from prunelang.runtime.blocks.chunks import Store
from prunelang.runtime.blocks.compressed import Compression
from prunelang.runtime.blocks.cores import balanced
from prunelang.runtime.blocks.decrease import Penalties
from prunelang.runtime.blocks.iteration import Splitting, Step
from prunelang.runtime.blocks.layers import Layer, forward
from prunelang.runtime.blocks.objective import Weights
from prunelang.runtime.blocks.sparse import sparse_block
from prunelang.runtime.factors import named

WEIGHTS = 1e-3  # of α, for W and Θ: their blocks are regressions on all samples, which hold them already
RAISE, MOST = 2.0, 1e6  # α after a refusal; beyond `MOST` times the first, numbers are too coarse to fall on


@dataclass(frozen=True)
class Chain:
    """The layers from the input to the output, with the state-dict names of their kernels and biases."""

    layers: tuple[Layer, ...]
    weights: tuple[str, ...]
    biases: tuple[str, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        return tuple(t for pair in zip(self.weights, self.biases, strict=True) for t in pair)


@dataclass(frozen=True)
class Counted:
    """At most `count` non-zero entries over all of `tensors`."""

    tensors: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class Composed:
    """Tensors made of factors: `project` gives the factors of the nearest ones, by name."""

    compositions: tuple[Composition, ...]
    project: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


Onto: TypeAlias = Sequence[Counted | Composed]


@dataclass
class Descent:
    """A splitting under way: its penalties, and how often a step was refused. α starts at `first`.

    Where an iteration has no solution or L is not finite: `ArithmeticError`, and the network is as before it.
    """

    chain: Chain
    splitting: Splitting
    penalties: Penalties
    first: float
    refused: int = 0
    stalled: bool = False

    @classmethod
    @torch.no_grad()
    def start(
        cls,
        chain: Chain,
        net: Mapping[str, Tensor],
        X: Tensor,
        Y: Tensor,
        onto: Onto,
        *,
        gamma: float,
        rho: float,
        omega: float,
        alpha: float,
        start: Literal["samples", "weights"],
        seed: int,
        store: Store = "device",
        chunk: int | None = None,
    ) -> Descent:
        """``W ← drawn from the samples, or as it is; Θ ← Π_C(W); U_i ← W_i V_{i−1} + b_i; V_i ← σ_i(U_i)``.

        `net` has the network's tensors by name; Y holds classes, or a row of targets for each sample.
        """
        weights = [(net[w].detach(), net[b].detach()) for w, b in zip(chain.weights, chain.biases, strict=True)]
        device, dtype = weights[0][0].device, weights[0][0].dtype
        Y = rows_of(Y, chain, X.dtype)
        if start == "samples":
            drawn = starts.drawn(chain.layers, X, Y, seed)
            weights = [(W.to(device, torch.float64), b.to(device, torch.float64)) for W, b in drawn]
        sizes = tuple(float(W.double().square().mean()) for W, _ in weights)
        held = tuple(_compressions(onto, chain, weights, sizes, dtype))
        targets = {i: T.reshape(weights[i][0].shape) for c in held for i, T in c.targets().items()}
        if start == "samples":
            weights = [(targets.get(i, W), b) for i, (W, b) in enumerate(weights)]
        splitting = Splitting(chain.layers, weights, X, Y, held, rows=chunk, store=store, device=device, dtype=dtype)
        if len(chain.layers) - 1 not in targets:
            with solvable():
                splitting.fit_last()
        return cls(chain, splitting, _penalties(splitting, sizes, gamma, rho, omega, alpha), alpha)

    @property
    def alpha(self) -> float:
        return self.first * RAISE**self.refused

    def iterate(self, tau: float, inner: int) -> Step | None:
        """One iteration. A refused one is tried again at the next, with a larger α; at the end of that nothing moves,
        and there is None."""
        if self.stalled:
            return None
        self.splitting.inner = inner
        with solvable():
            done = self.splitting.iterate(replace(self.penalties, tau=tuple(tau * x for x in self.penalties.tau)))
        if not isfinite(done.before) or (done.accepted and not isfinite(done.objective)):
            raise ArithmeticError("the objective is not finite")
        if not done.accepted:
            self.refused += 1
            self.penalties = self.penalties.raised(RAISE)
            self.stalled = self.alpha > MOST * self.first
        return done

    @torch.no_grad()
    def follow_(self, net: Mapping[str, Tensor]) -> None:
        """The network gets the weights of the splitting."""
        names = zip(self.chain.weights, self.chain.biases, self.splitting.weights, strict=True)
        for w, b, (W, bias) in names:
            net[w].copy_(W)
            net[b].copy_(bias)

    @torch.no_grad()
    def join_(self, net: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
        """``W_i ← Δ_i(Θ_i)``. Of `masks`, what is counted gets the kept positions, what is composed all of them."""
        self.follow_(net)
        for i, target in self.splitting.targets().items():
            net[self.chain.weights[i]].copy_(target)
        counted = [c for c in self.splitting.compressions if isinstance(c, compressed.Sparse)]
        kept = {self.chain.weights[i] for c in counted for i in c.layers}
        for name, mask in masks.items():
            if name in kept:
                torch.ne(net[name], 0, out=mask)
            else:
                mask.fill_(True)

    def factors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Θ of the composed layers in the network's type, under the names that files have."""
        found: dict[str, Tensor] = {}
        for c in self.splitting.compressions:
            if isinstance(c, compressed.Sparse):
                continue
            if isinstance(c, compressed.LowRank):
                arrays = {"U": c.U, "V": c.V}
            else:
                assert isinstance(c, compressed.Train)
                arrays = {f"G{k}": G for k, G in enumerate(c.cores, 1)}
            tensor = self.chain.weights[c.layers[0]]
            found |= {named(tensor, 0, symbol): x.to(dtype).contiguous() for symbol, x in arrays.items()}
        return found

    def error(self, *, composed: bool = False) -> float:
        """``½‖f(X) − Y‖²/n`` of the network itself, layer after layer, with W or with Δ(Θ), in float64."""
        s = self.splitting
        weights = list(s.weights)
        for i, target in s.targets().items() if composed else ():
            weights[i] = (target.double(), weights[i][1])
        total = 0.0
        for j in range(len(s.X)):
            out = forward(s.layers, weights, s.X.old(j).double())
            total += float((out.flatten(1) - s.Y.old(j).double()).square().sum())
        return total / (2 * s.samples)


def rows_of(Y: Tensor, chain: Chain, dtype: torch.dtype) -> Tensor:
    """One row of targets for each sample: classes one-hot."""
    if not Y.is_floating_point():
        Y = F.one_hot(Y, chain.layers[-1].output_shape[0])
    return Y.to(dtype).reshape(len(Y), -1)


@torch.no_grad()
def require_chain(net: nn.Module, chain: Chain, x: Tensor) -> None:
    """Raises `ValueError` unless the network does on samples `x` what the chain of its layers does."""
    tensors, training = dict(net.named_parameters()), net.training
    made = net.eval()(x).double()
    net.train(training)
    weights = [(tensors[w].double(), tensors[b].double()) for w, b in zip(chain.weights, chain.biases, strict=True)]
    found = forward(chain.layers, weights, x.double()).view_as(made)
    if not torch.allclose(found, made, rtol=1e-3, atol=1e-3 * float(made.abs().max())):
        raise ValueError("the network is another one than the chain of its layers that this was written for")


@contextmanager
def solvable() -> Iterator[None]:
    """A system that has no Cholesky factor holds numbers that are not finite, or too far apart: `ArithmeticError`."""
    try:
        yield
    except LinAlgError as error:
        raise ArithmeticError("the system of a block cannot be solved") from error


# ── the start ────────────────────────────────────────────────────────────────────────────────────────────────────


def _penalties(
    splitting: Splitting, sizes: Sequence[float], gamma: float, rho: float, omega: float, alpha: float
) -> Penalties:
    """γ and ρ in `starts.units`. What weighs squares of kernels, times ρ and the mean square of the layer's inputs:
    ω, the α of W and Θ (a thousandth of the one of activations, which is times γ), and τ, here for τ = 1.

    Layers that share a count are measured each by the mean square of its kernel at the start (`sizes`), so that none
    gets all of it because its weights are the larger ones; together their τ are as large as without.
    """
    inputs = splitting.mean_squares()
    s = starts.units(splitting.layers, splitting.weights)
    kernels = tuple(rho * x * v for x, v in zip(s, inputs, strict=True))
    tau = list(kernels)
    for c in splitting.compressions:
        if len(c.layers) > 1:
            mean = exp(sum(log(kernels[i] * sizes[i]) for i in c.layers) / len(c.layers))
            tau[c.layers[0] :] = [mean / sizes[i] if i in c.layers else tau[i] for i in range(c.layers[0], len(tau))]
    return Penalties(
        gamma=tuple(gamma * x for x in s),
        rho=tuple(rho * x for x in s),
        tau=tuple(tau),
        activations=tuple(alpha * gamma * x for x in s),
        weights=tuple(WEIGHTS * alpha * x for x in kernels),
        factors=tuple(WEIGHTS * alpha * x for x in tau),
        omega=tuple(omega * x for x in kernels),
    )


def _compressions(
    onto: Onto, chain: Chain, weights: Weights, sizes: Sequence[float], dtype: torch.dtype
) -> Iterator[Compression]:
    """``Θ ← Π_C(W)`` part by part, every tensor of a count measured by its own size."""
    place = {t: i for i, t in enumerate(chain.weights)}
    for part in onto:
        if isinstance(part, Composed):
            tensors = [t for c in part.compositions for t in c.tensors]
            factors = part.project({t: weights[place[t]][0].to(dtype, copy=True) for t in tensors})
            for c in part.compositions:
                yield _factored(c, place[c.tensors[0]], factors)
        else:
            W = [weights[place[t]][0].to(dtype, copy=True).double() for t in part.tensors]
            ones = [1 / (sizes[place[t]] or 1.0) for t in part.tensors]
            S = sparse_block(W, W, part.count, tau=ones, alpha=[0.0] * len(W))
            yield compressed.Sparse(part.count, dict(zip((place[t] for t in part.tensors), S, strict=True)))


def _factored(c: Composition, layer: int, factors: Mapping[str, Tensor]) -> Compression:
    (form,) = c.forms
    tensor = c.tensors[0]
    if isinstance(form, LowRank):
        U, V = balanced([factors[named(tensor, 0, x)].double() for x in ("U", "V")])
        return compressed.LowRank(layer, U, V)
    assert isinstance(form, TensorTrain)
    cores = [factors[named(tensor, 0, f"G{k}")].double() for k in range(1, len(form.modes) + 1)]
    return compressed.Train(layer, form.modes, tuple(balanced(cores)))
