"""One whole iteration: every block once, last layer first, then L in float64 and the verdict on its decrease."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from prunelang.runtime.blocks.chunks import Chunks, Store, fitting_rows
from prunelang.runtime.blocks.compressed import Compression
from prunelang.runtime.blocks.decrease import Penalties, constants
from prunelang.runtime.blocks.hidden import gain, v_convolution, v_linear
from prunelang.runtime.blocks.layers import Convolution, Layer
from prunelang.runtime.blocks.objective import chunk_value, distance
from prunelang.runtime.blocks.outputs import u_last, v_last
from prunelang.runtime.blocks.relu import u_hidden
from prunelang.runtime.blocks.starts import fitted
from prunelang.runtime.blocks.weights import Gram, Ridge

ALLOWANCE = 64 * 2.0**-52  # share of L that float64 sums may be off by


@dataclass(frozen=True)
class Step:
    """What an iteration did. `moved` is ``‖ΔP‖²``, by block in `blocks`; `decrease` the least λ of any block.

    `residual`: the largest relative residual of a conjugate gradient solve, 0 without one. Where not `accepted`,
    everything is as before the iteration, and `objective` is the value that was refused.
    """

    before: float
    objective: float
    moved: float
    decrease: float
    promised: float  # Σ_blocks λ_block ‖ΔP_block‖², at least decrease · moved
    residual: float
    blocks: dict[str, float]

    @property
    def accepted(self) -> bool:
        """``L(P^k) ≤ L(P^{k−1}) − λ‖ΔP‖²``, up to 64 ε L; False for NaN."""
        return self.objective <= self.before - self.decrease * self.moved + ALLOWANCE * self.before


class Splitting:
    """The variables U, V, W, b, Θ of one network and one data set, and their iteration.

    `weights` holds W (as the network stores it) and b of every layer; X and Y stay where they are and are read in
    chunks of `rows` samples. U and V start as the network's own pre-activations and activations, Θ as given. W and Θ of
    a layer that is compressed alone take `inner` turns in an iteration.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        weights: Sequence[tuple[Tensor, Tensor]],
        X: Tensor,
        Y: Tensor,
        compressions: Sequence[Compression] = (),
        *,
        rows: int | None = None,
        store: Store = "device",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        folder: Path | None = None,
        tolerance: float = 1e-5,
        most: int = 100,
        inner: int = 1,
    ) -> None:
        self.inner = inner
        self.layers, self.samples, self.tolerance, self.most = tuple(layers), len(X), tolerance, most
        self.device = torch.device(device)
        self.weights = [(W.to(device, torch.float64), b.to(device, torch.float64)) for W, b in weights]
        self.compressions = tuple(compressions)
        rows = min(rows or fitting_rows(max(map(_width, self.layers)), dtype), max(1, self.samples))

        def made(layer: Layer, single: bool = False) -> Chunks:
            return Chunks(
                self.samples, layer.output_shape, rows,
                store=store, device=device, dtype=dtype, folder=folder, single=single,
            )  # fmt: skip

        self.X, self.Y = Chunks.of(X, rows, device), Chunks.of(Y, rows, device)
        self.U, self.V = [made(x) for x in self.layers], [made(x) for x in self.layers]
        self.Z = [made(x, single=True) for x in self.layers]
        self.dtype, self._value, self._data_gram = dtype, None, None
        self._fill()

    _value: tuple[Penalties, float] | None
    _data_gram: Tensor | None

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def targets(self) -> dict[int, Tensor]:
        """``Δ_i(Θ_i)`` of the compressed layers, of the shape of W_i."""
        made = {i: T for c in self.compressions for i, T in c.targets().items()}
        return {i: T.reshape(self.weights[i][0].shape) for i, T in made.items()}

    def value(self, p: Penalties) -> float:
        """L, in float64, at the present variables."""
        if self._value is None or not _same_objective(self._value[0], p):
            with exact_products():
                self._value = p, float(self._valued(p, new=False))
        return self._value[1]

    def mean_squares(self) -> tuple[float, ...]:
        """The mean square of an entry of what each layer is given: of X, V_1, …, V_{N−1}."""
        found = []
        for i, layer in enumerate(self.layers):
            total = sum(float(_squares(self._input(i, j))) for j in range(len(self.X)))
            found.append(total / (self.samples * prod(layer.input_shape)))
        return tuple(found)

    @torch.no_grad()
    def fit_last(self) -> None:
        """The last layer's W and b by least squares, and U, V as the network has them then."""
        i = len(self.layers) - 1
        inputs = (self._input(i, j) for j in range(len(self.X)))
        targets = (self.Y.old(j).to(self.dtype) for j in range(len(self.X)))
        with exact_products():
            self.weights[i] = fitted(self.layers[i], inputs, targets, self.samples)
        self._value = None
        self._fill()

    # ── the iteration ────────────────────────────────────────────────────────────────────────────────────────────

    @torch.no_grad()
    def iterate(self, p: Penalties) -> Step:
        """One pass over all blocks. Without the decrease that theory promises, everything stays as it was."""
        before = self.value(p)
        weights, compressions = self.weights, self.compressions
        with exact_products():
            moved, residual = self._sweep(p)
            after = self._valued(p, new=True)
        numbers = torch.stack([after, residual.double(), *moved.values()]).tolist()
        blocks = dict(zip(moved, numbers[2:], strict=True))
        lam = constants(p, [(c.layers, c.convex) for c in self.compressions], self.inner)
        promised = sum(lam[name] * x for name, x in blocks.items())
        step = Step(before, numbers[0], sum(blocks.values()), min(lam.values()), promised, numbers[1], blocks)
        if step.accepted:
            for kept in (*self.U, *self.V):
                kept.accept()
            self._value = p, step.objective
            return step
        self.weights, self.compressions, self._value = weights, compressions, None
        return step

    def _sweep(self, p: Penalties) -> tuple[dict[str, Tensor], Tensor]:
        moved: dict[str, Tensor] = {}
        residual = torch.zeros((), dtype=torch.float64, device=self.device)
        self.weights, self.compressions = list(self.weights), tuple(self.compressions)
        targets = self.targets()
        for i in reversed(range(len(self.layers))):
            sums = Gram(self.layers[i], self.device, self._known_gram() if i == 0 else None)
            K = self._gain(i, p)
            dV, dU = residual.new_zeros(()), residual.new_zeros(())
            for j in range(len(self.X)):
                V, left = self._activations(i, j, p, K)
                U = self._pre_activations(i, j, V, p)
                self.V[i].write(j, V)
                self.U[i].write(j, U)
                dV += distance(V, self.V[i].old(j))
                dU += distance(U, self.U[i].old(j))
                sums.add(self._input(i, j), U - self.Z[i].old(j))
                residual = torch.maximum(residual, left)
            moved |= {f"V{i + 1}": dV / self.samples, f"U{i + 1}": dU / self.samples}
            moved |= self._weigh(i, sums, targets.get(i), p)
        return moved | self._compress([c for c in self.compressions if len(c.layers) > 1], p), residual

    def _weigh(self, i: int, sums: Gram, target: Tensor | None, p: Penalties) -> dict[str, Tensor]:
        """W and b of a layer; in turns with its Θ, where it is compressed alone."""
        W, b = self.weights[i]
        ridge = Ridge.of(
            W, b, sums, self.samples,
            rho=p.rho[i], alpha=p.weights[i], tau=p.tau[i] if target is not None else 0.0, omega=p.omega[i],
        )  # fmt: skip
        self.weights[i] = ridge.solved(target)
        moved: dict[str, Tensor] = {}
        alone = [c for c in self.compressions if c.layers == (i,)]
        for c in alone:
            new, _ = c.updated({i: self.weights[i][0]}, p)
            for _ in range(self.inner - 1):
                self.weights[i] = ridge.solved(new.targets()[i].reshape(W.shape))
                new, _ = new.updated({i: self.weights[i][0]}, p)
            moved[f"Θ{i + 1}"] = c.distance(new)
            self._replace({c: new})
        return moved | {f"W{i + 1}": distance(self.weights[i][0], W), f"b{i + 1}": distance(self.weights[i][1], b)}

    def _replace(self, new: Mapping[Compression, Compression]) -> None:
        self.compressions = tuple(new.get(c, c) for c in self.compressions)

    def _activations(self, i: int, j: int, p: Penalties, K: Tensor | None) -> tuple[Tensor, Tensor]:
        """V_i of a chunk, and the residual of its solve."""
        U, V = self.U[i].old(j), self.V[i].old(j)
        gamma, alpha, none = p.gamma[i], p.activations[i], self._none
        if i == len(self.layers) - 1:
            return v_last(self.Y.old(j), U, V, gamma=gamma, alpha=alpha), none
        U_next, (W, b) = self.U[i + 1].new(j), self.weights[i + 1]
        if K is not None:
            return v_linear(U, V, U_next, W, b, K, gamma=gamma, alpha=alpha), none
        found = v_convolution(
            self.layers[i + 1], U, V, U_next, W, b,
            gamma=gamma, rho=p.rho[i + 1], alpha=alpha, tolerance=self.tolerance, most=self.most,
        )  # fmt: skip
        return found.V, found.residual.double()

    def _pre_activations(self, i: int, j: int, V: Tensor, p: Penalties) -> Tensor:
        step = u_last if i == len(self.layers) - 1 else u_hidden
        return step(V, self.Z[i].old(j), self.U[i].old(j), gamma=p.gamma[i], rho=p.rho[i], alpha=p.activations[i])

    def _gain(self, i: int, p: Penalties) -> Tensor | None:
        """What `v_linear` solves for V_i with; None for the last layer, and in front of a convolution."""
        if i == len(self.layers) - 1 or isinstance(self.layers[i + 1], Convolution):
            return None
        K = gain(self.weights[i + 1][0], gamma=p.gamma[i], rho=p.rho[i + 1], alpha=p.activations[i])
        return K.to(self.dtype)

    def _compress(self, joint: Sequence[Compression], p: Penalties) -> dict[str, Tensor]:
        """Θ that several layers share: after all of their weights."""
        W = {i: W for i, (W, _) in enumerate(self.weights)}
        updates = {c: c.updated(W, p) for c in joint}
        self._replace({c: new for c, (new, _) in updates.items()})
        return {f"Θ{c.layers[0] + 1}": moved for c, (_, moved) in updates.items()}

    # ── passes over the data ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def _none(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64, device=self.device)

    def _input(self, i: int, j: int) -> Tensor:
        """V_{i−1} of a chunk before the iteration."""
        return self.X.old(j).to(self.dtype) if i == 0 else self.V[i - 1].old(j)

    @torch.no_grad()
    def _fill(self) -> None:
        with exact_products():
            for j in range(len(self.X)):
                V = self._input(0, j)
                for i, (layer, (W, b)) in enumerate(zip(self.layers, self.weights, strict=True)):
                    Z = layer.apply(W, b, V)
                    self.U[i].write(j, Z)
                    V = Z if i == len(self.layers) - 1 else torch.relu(Z)
                    self.V[i].write(j, V)
        for kept in (*self.U, *self.V):
            kept.accept()

    @torch.no_grad()
    def _valued(self, p: Penalties, *, new: bool) -> Tensor:
        """L in float64 on the device; leaves ``Z_i = A_i(V_{i−1})`` behind."""
        total = self._none
        for j in range(len(self.X)):
            U, V = ([c.new(j) if new else c.old(j) for c in kind] for kind in (self.U, self.V))
            value, Z = chunk_value(self.layers, self.weights, self._input(0, j), self.Y.old(j), U, V, p)
            total += value
            for kept, z in zip(self.Z, Z, strict=True):
                kept.write(j, z)
        total /= self.samples
        for i, target in self.targets().items():
            total += distance(self.weights[i][0], target) * (p.tau[i] / 2)
        for (W, _), omega in zip(self.weights, p.omega, strict=True):
            total += W.square().sum() * (omega / 2)
        return total

    def _known_gram(self) -> Tensor:
        """Of the data, which never change: once, in float64."""
        if self._data_gram is None:
            sums = Gram(self.layers[0], self.device)
            for j in range(len(self.X)):
                sums.add_rows(self.layers[0].rows(self._input(0, j).double()))
            self._data_gram = sums.gram
        return self._data_gram


def _width(layer: Layer) -> int:
    """Numbers of one sample that a layer's steps hold at once: its rows, its input and output in both types."""
    places = prod(layer.output_shape[1:])
    return places * layer.features + 3 * (prod(layer.input_shape) + prod(layer.output_shape))


def _squares(x: Tensor) -> Tensor:
    return x.double().square().sum()


def _same_objective(p: Penalties, q: Penalties) -> bool:
    return (p.gamma, p.rho, p.tau, p.omega) == (q.gamma, q.rho, q.tau, q.omega)


@contextmanager
def exact_products() -> Iterator[None]:
    """No TF32 on devices that have it: its 10 bits would drown the residuals that the blocks are made of."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
