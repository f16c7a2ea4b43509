"""`Problem`: the canonical form of a spec, *function in set*, in exact integers.

Everything after checking reasons about this and nothing else: bounds and proofs, bridges, solvers, the certificate.
No sugar is left: selectors are tensor names, percentages are integers, ∀ is unrolled, labels and spans are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import prod
from typing import Any, Final, Literal, TypeAlias

from prunelang.dsl.spans import NOWHERE, Span

CONFIDENCE: Final = Fraction(95, 100)
"""Of every statement on a measured constraint: how often it is true, over draws of the split that it was made on."""

# ── functions ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Count:
    """A weighted count of kept positions: ``Σ_t coefficient_t · nnz(t) + constant``.

    ‖·‖₀, `nonzeros`, `sparse_macs`, `sparse_flops` and `bytes` in the formats dense, bitmask and csr all are one.
    Coefficients are non-negative integers; a tensor that is counted but cannot shrink is part of the constant.
    """

    name: str  # the function that the user wrote: "norm0", "sparse_macs", "bytes", … or "sum"
    coefficients: Mapping[str, int]  # tensor name → cost of one kept position, > 0
    constant: int  # cost that no zero removes
    unit: str  # "", "MACs", "FLOPs", "B"
    options: tuple[tuple[str, str], ...] = ()  # e.g. (("format", "csr"),)


@dataclass(frozen=True)
class Choice:
    """`bytes(format = best)`: each tensor in its cheapest format, ``Σ_t min_f (a_f·nnz + c_f) + constant``."""

    name: str
    alternatives: Mapping[str, tuple[tuple[str, int, int], ...]]  # tensor → (format, bytes per nonzero, fixed bytes)
    constant: int
    unit: str = "B"
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class GroupCount:
    """The number of groups (filters, channels, rows, …) that hold a non-zero entry, summed over tensors."""

    name: str  # "group_norm0"
    tensors: tuple[str, ...]
    by: str  # "filter" | "channel" | "row" | "column" | "head"
    unit: str = ""


@dataclass(frozen=True)
class Structural:
    """A cost of the remaining shapes (`params`, `macs`, `flops`): falls only when whole members of groups go.

    ``Σ_t costs[t] · ∏_d remaining_d(t) + rest`` with `dense` at the dense shapes, which fixes the rest: what no group
    touches. Under unstructured constraints it never falls.
    """

    name: str
    layers: tuple[str, ...]
    dense: int
    unit: str
    tensors: tuple[str, ...] = ()  # every trained tensor of its groups: all of a member is zero, or it is kept
    groups: tuple[str, ...] = ()  # the coupling groups, by name, whose members lower it when they go
    costs: tuple[tuple[str, int], ...] = ()  # per remaining entry of each tensor that a group touches


@dataclass(frozen=True)
class FactorTerm:
    """What one form of a composition costs in its sizes x: ``constant + Σ c·∏ x_i + min (a·x_0 + b)``.

    x = (r,) of a low rank, (r_1, …, r_{d−1}) of a train, (n,) of the entries of `tensor` in a sparse form, which has a
    term for each of its tensors; all other forms cost the same whatever is learned, and are part of a constant.
    A `form` of −1 stands for a tensor in no composition, with x = (its non-zero entries,).
    """

    tensor: str  # the first of the composition; of a sparse form, each of its tensors
    form: int  # place in the sum
    monomials: tuple[tuple[int, tuple[int, ...]], ...] = ()  # (c, places i of x)
    constant: int = 0
    ways: tuple[tuple[str, int, int], ...] = ()  # (format, a, b): the cheapest counts

    def value(self, x: Sequence[int]) -> int:
        cheapest = min((a * x[0] + b for _, a, b in self.ways), default=0)
        return self.constant + sum(c * prod(x[i] for i in places) for c, places in self.monomials) + cheapest


@dataclass(frozen=True)
class FactorCost:
    """`params`, `macs`, `flops` or `bytes` where some tensors are stored as factors: ``constant + Σ entries``."""

    name: str
    unit: str
    constant: int
    entries: tuple[FactorTerm, ...]
    dense: int  # what the network costs without factors, where percentages refer to
    options: tuple[tuple[str, str], ...] = ()

    def within(self, tensors: Collection[str]) -> FactorCost:
        """What it is of these tensors alone: a cost is a sum over tensors."""
        return replace(self, constant=0, entries=tuple(e for e in self.entries if e.tensor in tensors))

    def value(self, sizes: Mapping[tuple[str, int], Sequence[int]]) -> int:
        """The cost at the sizes x of every (tensor, form)."""
        return self.constant + sum(e.value(sizes[e.tensor, e.form]) for e in self.entries)


@dataclass(frozen=True)
class Budget:
    """``cost ≤ most``: one bound that ranks and counts are chosen under."""

    label: str
    cost: FactorCost
    most: int


@dataclass(frozen=True)
class VectorNorm:
    """``‖w‖_p`` of the concatenation (`power` 2 for ``‖w‖₂²``), `group_norm1`, `entropy`, …: depends on values."""

    name: str  # "norm1" | "norm2" | "norminf" | "group_norm1" | "entropy" | "drr"
    tensors: tuple[str, ...]
    power: int = 1
    options: tuple[tuple[str, Any], ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class MatrixFunction:
    """`rank`, `nuclear`, `tt_rank` of one tensor."""

    name: str
    tensor: str
    options: tuple[tuple[str, Any], ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class Measured:
    """A number that data decides: losses, `accuracy`, `error`, `synops`, `spikes`, `description_length`, coded size."""

    name: str
    split: str  # "train" | "validation" | "test"
    arguments: tuple[tuple[str, Any], ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class Entries:
    """The entries of tensors themselves, for membership: ``w ∈ set``."""

    tensors: tuple[str, ...]
    name: str = "entries"
    unit: str = ""


@dataclass(frozen=True)
class Affine:
    """A linear combination of functions that are not all counts: ``Σ c·f + constant``."""

    terms: tuple[tuple[Fraction, Function], ...]
    constant: Fraction
    unit: str
    name: str = "sum"


Function: TypeAlias = (
    Count | Choice | GroupCount | Structural | FactorCost | VectorNorm | MatrixFunction | Measured | Entries | Affine
)


def tensors_of(function: Function) -> tuple[str, ...]:
    """The tensors whose entries decide the value; none for measured functions."""
    match function:
        case Count(coefficients=coefficients):
            return tuple(coefficients)
        case Choice(alternatives=alternatives):
            return tuple(alternatives)
        case GroupCount(tensors=tensors) | VectorNorm(tensors=tensors) | Entries(tensors=tensors):
            return tensors
        case Structural(tensors=tensors):
            return tensors
        case FactorCost(entries=entries):
            return tuple(dict.fromkeys(e.tensor for e in entries if e.form >= 0))
        case MatrixFunction(tensor=tensor):
            return (tensor,)
        case Affine(terms=terms):
            return tuple(dict.fromkeys(t for _, f in terms for t in tensors_of(f)))
    return ()


# ── sets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Interval:
    """``lower ≤ f ≤ upper``; None is no bound. For counts both are integers, rounded to the stricter side.

    A lower bound on a `Count` speaks of *kept positions*, an upper bound of non-zero values.
    """

    lower: Fraction | int | None = None
    upper: Fraction | int | None = None


@dataclass(frozen=True)
class Relative:
    """An interval around `base`, the value on the weights entering the first solve: ``factor · base + offset``."""

    relation: Literal["≤", "≥"]
    factor: Fraction
    offset: Fraction


@dataclass(frozen=True)
class Kept:
    """`dense`: every position is kept."""


@dataclass(frozen=True)
class NofM:
    """`n_of_m(n, m)`: at most n non-zero of every m consecutive entries along the last (input) dimension."""

    n: int
    m: int


@dataclass(frozen=True)
class Blocks:
    """`blocks(p, q)`: kept positions are a union of p × q blocks of the matrix; those at the edge may be smaller."""

    rows: int
    columns: int


@dataclass(frozen=True)
class Named:
    """Any other set (`codebook`, `low_rank`, `tt`, `box`, fixed values, sums): checked here, projected by a solver."""

    name: str
    arguments: tuple[tuple[str, Any], ...] = ()
    parts: tuple[Set, ...] = ()


Set: TypeAlias = Interval | Relative | Kept | NofM | Blocks | Named

# ── the problem ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Constraint:
    """One condition. `text` is its canonical source, `span` where it stands; both go into the certificate."""

    label: str  # "sparsity", "layer[fc1]", or the canonical left side when unlabelled
    function: Function
    set: Set
    span: Span = NOWHERE
    text: str = ""
    structural: bool = True  # decided by the stored weights alone
    asked: str = ""  # the bound as written: "5%", "30 MMACs"
    dense: int | None = None  # value of the function at full density, where percentages refer to
    schedule: Any = None  # a schedule of the bound in the clocks; the set holds its final value


@dataclass(frozen=True)
class Term:
    """``weight · function`` in the objective. Data terms are `Measured`; the rest are penalties."""

    weight: Fraction | Any  # Fraction, or a schedule in the clocks
    function: Function
    span: Span = NOWHERE
    text: str = ""


@dataclass(frozen=True)
class Objective:
    sense: Literal["minimize", "maximize"]
    terms: tuple[Term, ...]
    span: Span = NOWHERE


@dataclass(frozen=True)
class Problem:
    """What is to be solved: objective, constraints, and which tensors are trained.

    `weights` are the tensors that constraints and penalties speak of; `frozen` keep their starting values.
    """

    objective: Objective
    constraints: tuple[Constraint, ...]
    frozen: frozenset[str] = field(default_factory=frozenset)

    def with_constraints(self, constraints: tuple[Constraint, ...]) -> Problem:
        return replace(self, constraints=constraints)

    def constraint(self, label: str) -> Constraint:
        return next(c for c in self.constraints if c.label == label)
