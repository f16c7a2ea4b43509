"""Tensor trains of matrices: reshaping, decomposition with error control, rounding, refinement, composition.

A matrix W of ∏ m_k rows and ∏ n_k columns is the tensor ``A[(i₁ j₁), …, (i_d j_d)] = W[(i₁ … i_d), (j₁ … j_d)]`` with
modes of s_k = m_k n_k, and a train is ``A[x₁ … x_d] = G₁[x₁] ⋯ G_d[x_d]`` with cores r_{k−1} × m_k × n_k × r_k.

TT-SVD cuts one mode after another off by a truncated singular value decomposition (Oseledets, Tensor-Train
Decomposition, SIAM J. Sci. Comput. 33, 2011). With A_k the k-th unfolding and tails its discarded energies,

    max_k tails_{r_k}(A_k) ≤ min ‖A − TT‖² ≤ ‖A − TT-SVD‖² ≤ Σ_k tails_{r_k}(A_k) ≤ (d − 1) · min ‖A − TT‖²

so that its distance is at most √(d−1) times the least one. Alternating least squares then never increases it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from prunelang.compiler.forms import Modes
from prunelang.runtime.prox.low_rank import left_basis, tails_of
from prunelang.runtime.prox.scan import check_finite

Cores = tuple[Tensor, ...]


@dataclass(frozen=True)
class Train:
    """Cores in float64 and the squared distance ``‖W − TT‖_F²`` from the matrix that they approximate."""

    cores: Cores
    loss: float

    @property
    def ranks(self) -> tuple[int, ...]:
        """r_1 … r_{d−1}."""
        return tuple(c.shape[0] for c in self.cores[1:])


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def to_tensor(matrix: Tensor, modes: Modes) -> Tensor:
    """The matrix (any tensor whose entries in row-major order are the matrix's) as the s_1 × … × s_d tensor."""
    d = len(modes)
    split = matrix.reshape([m for m, _ in modes] + [n for _, n in modes])
    mixed = split.permute([axis for k in range(d) for axis in (k, d + k)])
    return mixed.reshape([m * n for m, n in modes])


def from_tensor(tensor: Tensor, modes: Modes) -> Tensor:
    """The inverse of `to_tensor`: a ∏ m_k × ∏ n_k matrix."""
    d = len(modes)
    mixed = tensor.reshape([length for pair in modes for length in pair])
    split = mixed.permute([2 * k for k in range(d)] + [2 * k + 1 for k in range(d)])
    return split.reshape(prod(m for m, _ in modes), prod(n for _, n in modes))


def modes_of(cores: Sequence[Tensor]) -> Modes:
    """The modes (m_k, n_k) of given cores."""
    return tuple((c.shape[1], c.shape[2]) for c in cores)


def compose(cores: Sequence[Tensor]) -> Tensor:
    """The matrix of a train, differentiable in the cores.

    Left and right halves are multiplied out and met at the bond that makes the whole cheapest.
    """
    sizes = [c.shape[1] * c.shape[2] for c in cores]
    ranks = [c.shape[0] for c in cores] + [1]
    b = min(range(1, len(cores) + 1), key=lambda b: _multiplications(sizes, ranks, b))
    whole = _left(cores[:b])
    if b < len(cores):
        whole = whole @ _right(cores[b:])
    return from_tensor(whole, modes_of(cores))


def _multiplications(sizes: list[int], ranks: list[int], b: int) -> int:
    """Multiply-adds of composing with the halves met at bond b."""
    d = len(sizes)
    left = sum(prod(sizes[: k + 1]) * ranks[k] * ranks[k + 1] for k in range(1, b))
    right = sum(prod(sizes[k:]) * ranks[k] * ranks[k + 1] for k in range(b, d - 1))
    return left + right + (prod(sizes) * ranks[b] if b < d else 0)


def _left(cores: Sequence[Tensor]) -> Tensor:
    """``s_1 ⋯ s_k × r_k``: the product of the first cores (which start at rank 1)."""
    made = cores[0].reshape(-1, cores[0].shape[3])
    for c in cores[1:]:
        made = (made @ c.reshape(c.shape[0], -1)).reshape(-1, c.shape[3])
    return made


def _right(cores: Sequence[Tensor]) -> Tensor:
    """``r_{k−1} × s_k ⋯ s_d``: the product of the last cores (which end at rank 1)."""
    made = cores[-1].reshape(cores[-1].shape[0], -1)
    for c in reversed(cores[:-1]):
        made = (c.reshape(-1, c.shape[3]) @ made).reshape(c.shape[0], -1)
    return made


def interfaces(cores: Sequence[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """``L`` (s_1 ⋯ s_{k−1} × r_{k−1}) and ``R`` (r_k × s_{k+1} ⋯ s_d) around core k = 0 … d−1.

    ``A = L G_k R`` along its three groups of modes, so W is linear in G_k: the unfolding of A with mode k in front is
    ``G_(k) P`` with ``P = Lᵀ ⊗ R``, G_(k) being s_k × r_{k−1} r_k.
    """
    one = cores[0].new_ones(1, 1)
    return (_left(cores[:k]) if k else one), (_right(cores[k + 1 :]) if k + 1 < len(cores) else one)


# ── decomposition ────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def tt_svd(matrix: Tensor, modes: Modes, ranks: int | Sequence[int] | None = None, error: float | None = None) -> Train:
    """TT-SVD with ranks at most `ranks`, and as small as ``‖W − TT‖_F ≤ error`` permits where an error is given.

    Without ranks they are bounded by the shape alone. With an error alone every cut may discard ``error² / (d − 1)``.
    With both, the ranks win. Raises `NonFinite` for NaN or ±∞.
    """
    check_finite([matrix])
    d, exact = len(modes), matrix.dtype == torch.float64
    tensor = to_tensor(matrix.detach().double(), modes)
    wanted = [ranks] * (d - 1) if ranks is None or isinstance(ranks, int) else list(ranks)
    allowance = 0.0 if error is None else error**2 / max(d - 1, 1)
    rest, r, cores = tensor.reshape(1, -1), 1, list[Tensor]()
    for (m, n), most in zip(modes[:-1], wanted, strict=True):
        unfolded = rest.reshape(r * m * n, -1)
        basis, energies = left_basis(unfolded, exact)
        found = len(energies) if error is None else _least_rank(energies, allowance)
        r_next = found if most is None else min(found, most)
        kept = basis[:, :r_next]
        cores.append(kept.reshape(r, m, n, r_next))
        rest, r = kept.T @ unfolded, r_next
    cores.append(rest.reshape(r, *modes[-1], 1))
    return Train(tuple(cores), squared_distance(cores, tensor))


def _least_rank(energies: Tensor, allowance: float) -> int:
    """The smallest r with ``Σ_{i > r} energies_i ≤ allowance``."""
    return int((tails_of(energies) > allowance).sum())


@torch.no_grad()
def unfolding_tails(matrix: Tensor, modes: Modes) -> list[Tensor]:
    """For every bond k the discarded energies ``tails_r(A_k)``, r = 0 … q_k, of the k-th unfolding, in float64.

    Their maximum over k bounds the squared distance to the trains of given ranks from below, their sum that of TT-SVD
    from above.
    """
    exact = matrix.dtype == torch.float64
    tensor = to_tensor(matrix.detach().double(), modes)
    return [tails_of(_energies(tensor.reshape(prod(tensor.shape[:k]), -1), exact)) for k in range(1, len(modes))]


def _energies(unfolded: Tensor, exact: bool) -> Tensor:
    if exact:
        sigma: Tensor = torch.linalg.svdvals(unfolded)
        return sigma.square()
    gram = unfolded @ unfolded.T if unfolded.shape[0] <= unfolded.shape[1] else unfolded.T @ unfolded
    rising: Tensor = torch.linalg.eigvalsh(gram)
    return rising.flip(0).clamp_min(0.0)


@torch.no_grad()
def squared_distance(cores: Sequence[Tensor], tensor: Tensor) -> float:
    """``‖A − TT‖²`` in float64, from the difference itself: no cancellation where it is small."""
    wide = [c.double() for c in cores]
    difference = to_tensor(compose(wide), modes_of(wide)) - tensor
    return float(difference.square().sum())


# ── orthogonalisation and rounding ───────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def orthogonalise(cores: Sequence[Tensor], centre: int) -> Cores:
    """The same train with orthonormal columns left of core `centre` (0 … d−1) and orthonormal rows right of it.

    Ranks above what the shape permits shrink to it. The whole norm is then that of the centre.
    """
    left = _left_orthogonal(cores[: centre + 1])
    right = flipped(_left_orthogonal(flipped([left[-1], *cores[centre + 1 :]])))
    return (*left[:-1], *right)


def flipped(cores: Sequence[Tensor]) -> list[Tensor]:
    """The train of the tensor with its modes in reverse order."""
    return [c.permute(3, 1, 2, 0) for c in reversed(cores)]


def _left_orthogonal(cores: Sequence[Tensor]) -> list[Tensor]:
    """All but the last core with orthonormal columns, by QR from left to right."""
    made, carry = list[Tensor](), None
    for c in cores:
        core = c if carry is None else torch.tensordot(carry, c, 1)
        made.append(core)
        if len(made) < len(cores):
            q, carry = torch.linalg.qr(core.reshape(-1, core.shape[3]))
            made[-1] = q.reshape(*core.shape[:3], q.shape[1])
    return made


@torch.no_grad()
def round_train(cores: Sequence[Tensor], ranks: int | Sequence[int] | None = None, error: float | None = None) -> Train:
    """A train of smaller ranks near a given one, without its matrix: orthogonalise, then truncate from left to right.

    The bounds of `tt_svd` hold with the train in place of W, and so does the meaning of `ranks` and `error`; the loss
    is the squared distance of the two trains.
    """
    d, wide = len(cores), [c.double() for c in cores]
    wanted = [ranks] * (d - 1) if ranks is None or isinstance(ranks, int) else list(ranks)
    allowance = 0.0 if error is None else error**2 / max(d - 1, 1)
    work, loss = list(orthogonalise(wide, 0)), 0.0
    for k, most in zip(range(d - 1), wanted, strict=True):
        core = work[k]
        unfolded = core.reshape(-1, core.shape[3])
        basis, energies = left_basis(unfolded, exact=True)
        found = len(energies) if error is None else _least_rank(energies, allowance)
        r = found if most is None else min(found, most)
        loss += float(energies[r:].sum())
        work[k] = basis[:, :r].reshape(*core.shape[:3], r)
        work[k + 1] = torch.tensordot(basis[:, :r].T @ unfolded, work[k + 1], 1)
    return Train(tuple(work), loss)


# ── refinement ───────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def refine(train: Train, matrix: Tensor, sweeps: int = 2, tolerance: float = 1e-4) -> Train:
    """Alternating least squares from a train of the same ranks, until a sweep wins less than `tolerance` of the loss.

    With orthonormal neighbours the best core is a projection, ``G_k = Lᵀ A Rᵀ``. A sweep goes right and back left.
    Returns the best train met, so the loss is never above the one passed in (Holtz, Rohwedder & Schneider, The
    Alternating Linear Scheme for Tensor Optimization in the Tensor Train Format, SIAM J. Sci. Comput. 34, 2012).
    """
    modes = modes_of(train.cores)
    tensor = to_tensor(matrix.detach().double(), modes)
    mirror = tensor.permute(list(reversed(range(tensor.ndim)))).contiguous()
    best, cores = train, list(train.cores)
    if train.loss == 0.0 or not all(train.ranks):
        return train
    cores = list(orthogonalise(cores, 0))
    for _ in range(sweeps):
        there = _half_sweep(cores, tensor)
        cores = flipped(_half_sweep(flipped(there), mirror))
        found = Train(tuple(cores), squared_distance(cores, tensor))
        won = best.loss - found.loss
        best = found if won > 0 else best
        if won <= tolerance * best.loss:
            break
    return best


def _half_sweep(cores: Sequence[Tensor], tensor: Tensor) -> list[Tensor]:
    """Every core but the last from left to right; right-orthonormal cores come in, left-orthonormal ones go out.

    The last core is updated too, and holds the norm: it is the first of the way back.
    """
    rights = _right_interfaces(cores)
    rest, made = tensor.reshape(1, -1), list[Tensor]()
    for k, c in enumerate(cores):
        unfolded = rest.reshape(c.shape[0] * c.shape[1] * c.shape[2], -1)
        core = unfolded @ rights[k].T
        if k + 1 < len(cores):
            core, _ = torch.linalg.qr(core)
            rest = core.T @ unfolded
        made.append(core.reshape(c.shape))
    return made


def _right_interfaces(cores: Sequence[Tensor]) -> list[Tensor]:
    """For each core the product of those right of it, r_k × s_{k+1} ⋯ s_d."""
    made = [cores[-1].new_ones(1, 1)]
    for c in reversed(cores[1:]):
        made.append((c.reshape(-1, c.shape[3]) @ made[-1]).reshape(c.shape[0], -1))
    return made[::-1]
