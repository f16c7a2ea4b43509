"""What tensors may be made of, as plain data: low rank, tensor trains, codebooks, fixed values, sums of them.

    form              stored factors                         numbers stored
    low rank r        U (m × r), V (r × n)                   r(m + n)
    tensor train      G_k (r_{k−1} × m_k × n_k × r_k)        Σ_k r_{k−1} m_k n_k r_k,  r_0 = r_d = 1
    codebook k        centres c (k), codes a ∈ {0 … k−1}ⁿ    k + n; a code takes ⌈log₂ k⌉ bits
    fixed values      codes, and one scale if it is learned   n (+ 1)
    sparse n          values, positions                      n
    box, nuclear      the tensor itself                      its size

A composition is a sum of forms, ``w = Σ_i Δ_i(Θ_i)`` (Idelbayev & Carreira-Perpiñán, More General and Effective Model
Compression via an Additive Combination of Compressions, ECML 2021). Vector forms act on the concatenation of its
tensors, matrix forms on the matrix ``shape[0] × ∏ shape[1:]`` of a single one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any, Final, TypeAlias

Modes: TypeAlias = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class LowRank:
    """``W = U V`` with U m × r and V r × n. `rank` is the largest r; None leaves it to the budgets."""

    rank: int | None = None


@dataclass(frozen=True)
class TensorTrain:
    """``W[(i₁ … i_d), (j₁ … j_d)] = G₁[i₁, j₁] ⋯ G_d[i_d, j_d]``: i_k runs over m_k rows, j_k over n_k columns.

    Row and column factors are interleaved: core k holds the pair (m_k, n_k) (Oseledets 2011; Novikov et al. 2015).
    `ranks` are the largest r_1 … r_{d−1}; None leaves them to the budgets.
    """

    modes: Modes
    ranks: tuple[int, ...] | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """``m_k n_k``, the lengths of the tensor that the train is of."""
        return tuple(m * n for m, n in self.modes)


@dataclass(frozen=True)
class Codebook:
    """At most `size` different values over all tensors of the composition, learned."""

    size: int


@dataclass(frozen=True)
class Fixed:
    """Entries take one of `values`; with `scaled` times one learned scale for all tensors."""

    values: tuple[float, ...]
    scaled: bool = False


@dataclass(frozen=True)
class Sparse:
    """At most `count` non-zero entries over all tensors; None leaves it to the budgets."""

    count: int | None = None


@dataclass(frozen=True)
class Box:
    """``lo ≤ w ≤ hi``."""

    lo: float
    hi: float


@dataclass(frozen=True)
class Nuclear:
    """``‖W‖_* ≤ radius``: the sum of the singular values."""

    radius: float


Form: TypeAlias = LowRank | TensorTrain | Codebook | Fixed | Sparse | Box | Nuclear
FORMS = (LowRank, TensorTrain, Codebook, Fixed, Sparse, Box, Nuclear)
MATRIX = (LowRank, TensorTrain, Nuclear)


@dataclass(frozen=True)
class Composition:
    """``w = Σ_i Δ_i``, one form each. More than one tensor is for vector forms alone."""

    tensors: tuple[str, ...]
    forms: tuple[Form, ...]
    shapes: tuple[tuple[int, ...], ...]  # of the tensors

    @property
    def factored(self) -> bool:
        """Whether it is saved as factors: all but a box, a nuclear ball, or one set of values alone, which the tensor
        itself shows."""
        return len(self.forms) > 1 or isinstance(self.forms[0], LowRank | TensorTrain)

    @property
    def size(self) -> int:
        return sum(prod(s) for s in self.shapes)


# ── what budgets choose between ──────────────────────────────────────────────────────────────────────────────────


def even(shape: tuple[int, ...]) -> int:
    """⌊mn / (m + n)⌋, at least 1: the largest rank that stores no more numbers than the matrix, where a rank that is
    left to budgets ends."""
    m, n = shape[0], prod(shape[1:])
    return max(1, m * n // max(1, m + n))


def least(composition: Composition, i: int) -> int:
    """The least rank, or number of entries, that budgets leave to form i.

    1 for a matrix or a train: at rank 0 nothing would pass through its layer. Of a sum the first form has it, and none
    where codes are part of it; a sparse form alone may lose all entries.
    """
    forms = composition.forms
    if i > 0 or any(isinstance(f, Codebook | Fixed) for f in forms):
        return 0
    match forms[0]:
        case LowRank(rank):
            return 1 if rank is None else min(rank, 1)
        case TensorTrain(ranks=ranks):
            return 1 if ranks is None else min((1, *ranks))
        case Sparse(count):
            return 0 if len(forms) == 1 or len(composition.tensors) > 1 else 1 if count is None else min(count, 1)
    return 0


# ── as JSON ──────────────────────────────────────────────────────────────────────────────────────────────────────

WORDS: Final[Mapping[type[Any], str]] = {
    LowRank: "low_rank", TensorTrain: "tt", Codebook: "codebook", Fixed: "values", Sparse: "sparse",
}  # fmt: skip


def unbounded(form: Form) -> Form:
    """Without a bound on what its factors show themselves: ranks and the number of entries."""
    match form:
        case LowRank():
            return LowRank()
        case TensorTrain():
            return replace(form, ranks=None)
        case Sparse():
            return Sparse()
    return form


def to_json(composition: Composition) -> dict[str, Any]:
    """Raises ValueError for forms that keep no factors."""
    lost = next((f for f in composition.forms if type(f) not in WORDS), None)
    if lost is not None:
        raise ValueError(f"a {type(lost).__name__} keeps no factors: the tensor itself shows it")
    forms = [{"form": WORDS[type(f)], **asdict(f)} for f in composition.forms]
    return {"tensors": list(composition.tensors), "shapes": [list(s) for s in composition.shapes], "forms": forms}


def from_json(data: Any) -> Composition:
    """Errors: AttributeError, KeyError, TypeError and ValueError for what no composition is."""
    shapes = tuple(tuple(map(_natural, s)) for s in data["shapes"])
    tensors = tuple(data["tensors"])
    if not tensors or not data["forms"] or len(shapes) != len(tensors) or not all(type(t) is str for t in tensors):
        raise ValueError("tensors, shapes and forms do not belong together")
    return Composition(tensors, tuple(map(_form, data["forms"])), shapes)


def _form(data: Mapping[str, Any]) -> Form:
    match data:
        case {"form": "low_rank", "rank": rank}:
            return LowRank(None if rank is None else _natural(rank))
        case {"form": "tt", "modes": [_, *_] as modes, "ranks": ranks}:
            pairs = tuple((_natural(m), _natural(n)) for m, n in modes)
            return TensorTrain(pairs, None if ranks is None else tuple(map(_natural, ranks)))
        case {"form": "codebook", "size": size}:
            return Codebook(_natural(size))
        case {"form": "values", "values": [_, *_] as values, "scaled": bool(scaled)}:
            return Fixed(tuple(float(v) for v in values), scaled)
        case {"form": "sparse", "count": count}:
            return Sparse(None if count is None else _natural(count))
    raise ValueError(f"no form is {json.dumps(data)[:80]}")


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.80} is no natural number")
    return value
