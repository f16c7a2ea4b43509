"""One form fitted to tensors by least squares: ``Θ = argmin ‖v − Δ(Θ)‖²``, and ``Δ(Θ)`` back from its factors.

Fits take float64 and return factors in the tensors' own type; what they make is measured from those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from prunelang.compiler.forms import (
    Box,
    Codebook,
    Composition,
    Fixed,
    LowRank,
    Modes,
    Nuclear,
    Sparse,
    TensorTrain,
    even,
)
from prunelang.runtime.prox import box, codebook, fixed
from prunelang.runtime.prox.low_rank import spectrum
from prunelang.runtime.prox.nuclear import project_nuclear_
from prunelang.runtime.prox.tensor_train import Train, modes_of, refine, squared_distance, to_tensor, tt_svd
from prunelang.runtime.prox.tensor_train import compose as compose_train

Factors: TypeAlias = dict[str, Tensor]
Sizes: TypeAlias = Mapping[tuple[str, int], tuple[int, ...]]  # (tensor, form) → ranks, or entries of a sparse form


@dataclass(frozen=True)
class Fitted:
    """Factors of one form, what they make in float64, and how far their loss may lie above the least one."""

    factors: Factors
    made: list[Tensor]
    gap: float = 0.0


def fit(
    composition: Composition,
    i: int,
    targets: Sequence[Tensor],
    dtype: torch.dtype,
    sizes: Sizes,
    warm: Mapping[str, Tensor],
    skipped: Tensor | None = None,
) -> Fitted:
    """Form i fitted to `targets` (float64, of the composition's shapes).

    `sizes` hold ranks and counts that budgets have chosen; `warm` factors may be a start. Positions that are `skipped`
    (a mask of the concatenation) do not matter to a form that treats entry by entry.
    """
    form, first, gap = composition.forms[i], composition.tensors[0], 0.0
    factors: Factors = {}

    def name(symbol: str, tensor: str = first) -> str:
        return f"{tensor}:{i}.{symbol}"

    match form:
        case LowRank(rank):
            (r,) = sizes.get((first, i), (even(composition.shapes[0]) if rank is None else rank,))
            u, v = spectrum(matrix_of(targets[0]).to(dtype)).factors(r)
            factors = {name("U"): u.to(dtype), name("V"): v.to(dtype)}
        case TensorTrain(modes=modes, ranks=ranks):
            old = [warm[name(f"G{k}")] for k in range(1, len(modes) + 1)] if name("G1") in warm else []
            train, gap = _train(matrix_of(targets[0]).to(dtype), form, sizes.get((first, i), ranks), old)
            factors = {name(f"G{k}"): c.to(dtype) for k, c in enumerate(train.cores, 1)}
        case Codebook() | Fixed():
            factors = _coded(composition, i, torch.cat([t.reshape(-1) for t in targets]), dtype, skipped)
        case Sparse():
            factors = _sparse(composition, i, targets, dtype, sizes)
        case Box() | Nuclear():
            raise ValueError(f"a {type(form).__name__} has no factors")
    return Fitted(factors, expand(composition, i, factors, torch.float64), gap)


def fit_single(composition: Composition, tensors: Mapping[str, Tensor], warm: Mapping[str, Tensor]) -> Fitted:
    """The one form of a composition fitted to its tensors as they are, at the size that the form states."""
    own = [tensors[t].detach() for t in composition.tensors]
    targets = [t.to(torch.float64, copy=True) for t in own]
    return fit(composition, 0, targets, own[0].dtype, {}, warm)


@torch.no_grad()
def project_whole_(composition: Composition, tensors: Sequence[Tensor]) -> float:
    """The forms without factors, in place; the squared distance that the tensors moved."""
    before = [t.detach().to(torch.float64, copy=True) for t in tensors]
    match composition.forms[0]:
        case Box(lo=lo, hi=hi):
            box.Box(lo, hi).project_(tensors)
        case Nuclear(radius=radius):
            project_nuclear_(tensors[0].detach(), radius)
    return sum(float((b - t.detach().double()).square().sum()) for b, t in zip(before, tensors, strict=True))


def expand(composition: Composition, i: int, factors: Mapping[str, Tensor], dtype: torch.dtype) -> list[Tensor]:
    """``Δ_i(Θ_i)`` of each tensor in the type `dtype`, differentiable in all factors but codes and positions."""
    first = composition.tensors[0]

    def get(symbol: str, tensor: str = first) -> Tensor:
        f = factors[f"{tensor}:{i}.{symbol}"]
        return f.to(dtype) if f.is_floating_point() else f.long()

    match composition.forms[i]:
        case LowRank():
            return [(get("U") @ get("V")).view(composition.shapes[0])]
        case TensorTrain(modes=modes):
            cores = [get(f"G{k}") for k in range(1, len(modes) + 1)]
            whole = compose_train(cores) if all(c.numel() for c in cores) else cores[0].new_zeros(composition.shapes[0])
            return [whole.reshape(composition.shapes[0])]
        case Codebook():
            return [get("centres")[get("codes", t)] for t in composition.tensors]
        case Fixed(values=values, scaled=scaled):
            at = get("codes")
            c = torch.tensor(values, dtype=dtype, device=at.device)
            c = get("scale") * c if scaled else c
            return [c[get("codes", t)] for t in composition.tensors]
        case Sparse():
            made = []
            for t, shape in zip(composition.tensors, composition.shapes, strict=True):
                v = get("values", t)
                made.append(v.new_zeros(prod(shape)).index_copy(0, get("indices", t), v).view(shape))
            return made
    return []


def matrix_of(tensor: Tensor) -> Tensor:
    """``shape[0] × ∏ shape[1:]``; a vector is one column."""
    return tensor.reshape(tensor.shape[0], -1)


def sizes_of(composition: Composition, factors: Mapping[str, Tensor]) -> dict[tuple[str, int], tuple[int, ...]]:
    """Ranks and counts of factors, by tensor and form."""
    sizes = dict[tuple[str, int], tuple[int, ...]]()
    for i, form in enumerate(composition.forms):
        match form:
            case LowRank():
                first = composition.tensors[0]
                sizes[first, i] = (factors[f"{first}:{i}.U"].shape[1],)
            case TensorTrain(modes=modes):
                first = composition.tensors[0]
                sizes[first, i] = tuple(factors[f"{first}:{i}.G{k}"].shape[3] for k in range(1, len(modes)))
            case Sparse():
                sizes |= {(t, i): (len(factors[f"{t}:{i}.indices"]),) for t in composition.tensors}
    return sizes


def positions(composition: Composition, factors: Mapping[str, Tensor]) -> Tensor | None:
    """Mask, over the concatenation, of the positions that a sparse part holds; None where none has been fitted."""
    held = None
    for i in (i for i, f in enumerate(composition.forms) if isinstance(f, Sparse)):
        if f"{composition.tensors[0]}:{i}.indices" in factors:
            masks = []
            for t, shape in zip(composition.tensors, composition.shapes, strict=True):
                at = factors[f"{t}:{i}.indices"]
                mask = torch.zeros(prod(shape), dtype=torch.bool, device=at.device)
                masks.append(mask.index_fill_(0, at, True))
            held = torch.cat(masks) if held is None else held | torch.cat(masks)
    return held


def _train(matrix: Tensor, form: TensorTrain, ranks: Sequence[int] | None, old: list[Tensor]) -> tuple[Train, float]:
    """TT-SVD refined, or the previous train refined where that is nearer; the gap by ‖A − TT-SVD‖² ≤ (d − 1)·least."""
    if ranks is not None and 0 in ranks:
        return Train(_nothing(matrix, form.modes), float(matrix.double().square().sum())), 0.0
    start = tt_svd(matrix, form.modes, ranks)
    best = refine(start, matrix)
    if [c.shape for c in old] == [c.shape for c in best.cores] and len(old) > 2:
        wide = tuple(c.double() for c in old)
        warm = refine(Train(wide, squared_distance(wide, to_tensor(matrix, modes_of(wide)))), matrix)
        best = min(best, warm, key=lambda t: t.loss)
    return best, max(0.0, best.loss - start.loss / (len(form.modes) - 1)) if len(form.modes) > 2 else 0.0


def _nothing(matrix: Tensor, modes: Modes) -> tuple[Tensor, ...]:
    """The cores of the train of ranks 0, which is 0."""
    ranks = [1, *(0 for _ in modes[1:]), 1]
    wide = matrix.new_empty(0, dtype=torch.float64)
    return tuple(wide.new_empty(ranks[k], m, n, ranks[k + 1]) for k, (m, n) in enumerate(modes))


def _coded(composition: Composition, i: int, v: Tensor, dtype: torch.dtype, skipped: Tensor | None) -> Factors:
    """Codes of each tensor, and the centres or the scale that they share."""
    form, first = composition.forms[i], composition.tensors[0]
    seen = v if skipped is None or bool(skipped.all()) else v[~skipped]
    factors: Factors = {}
    match form:
        case Codebook(size=size):
            c = factors[f"{first}:{i}.centres"] = codebook.centres(seen, size, dtype)
            picked = codebook.codes(v, c)
        case Fixed(values=values, scaled=True):
            s = factors[f"{first}:{i}.scale"] = fixed.scale(seen, values, dtype)
            picked, size = fixed.scaled_codes(v, s, values), len(values)
        case Fixed(values=values):
            picked, size = fixed.nearest(v, values, dtype), len(values)
        case _:
            raise ValueError(f"a {type(form).__name__} has no codes")
    stored = picked.to(torch.uint8 if size <= 256 else torch.uint16)
    parts = torch.split_with_sizes(stored, [prod(shape) for shape in composition.shapes])
    shaped = zip(composition.tensors, composition.shapes, parts, strict=True)
    return factors | {f"{t}:{i}.codes": p.view(shape) for t, shape, p in shaped}


def _sparse(composition: Composition, i: int, targets: Sequence[Tensor], dtype: torch.dtype, sizes: Sizes) -> Factors:
    """The largest entries: of all tensors together, or as many of each as `sizes` say. Ties go to the lowest index."""
    form = composition.forms[i]
    assert isinstance(form, Sparse)
    flat = [t.reshape(-1) for t in targets]
    if (composition.tensors[0], i) in sizes:
        kept = [largest(f, sizes[t, i][0]) for t, f in zip(composition.tensors, flat, strict=True)]
    else:
        together = torch.cat(flat)
        mask = torch.zeros_like(together, dtype=torch.bool)
        mask[largest(together, len(together) if form.count is None else form.count)] = True
        kept = [m.nonzero().view(-1) for m in torch.split_with_sizes(mask, [len(f) for f in flat])]
    factors: Factors = {}
    for t, f, at in zip(composition.tensors, flat, kept, strict=True):
        factors |= {f"{t}:{i}.values": f[at].to(dtype), f"{t}:{i}.indices": at}
    return factors


def largest(v: Tensor, count: int) -> Tensor:
    """Ascending positions of the `count` largest |v| that are not zero; of equal ones the first."""
    size = v.abs()
    if count >= len(v):
        return size.nonzero().view(-1)
    if count <= 0:
        return size.nonzero().view(-1)[:0]
    threshold = size.kthvalue(len(v) - count + 1).values
    above = size > threshold
    ties = (size == threshold).logical_and_(threshold > 0).nonzero().view(-1)[: count - int(above.sum())]
    return above.index_fill_(0, ties, True).nonzero().view(-1)
