"""What the factors of a matrix store and compute, against the matrix itself, and the ranks at which they break even.

A matrix of m rows and n columns holds mn numbers and takes mn multiply-adds a use. Rank r takes r(m + n) numbers and
r(m + gn) multiply-adds with g groups of a convolution; a tensor train what its cores and their order say.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from prunelang.compiler.forms import Form, LowRank, TensorTrain
from prunelang.compiler.shapes import ShapeTable
from prunelang.compiler.trains import BreakEven, break_even, order, parameters


@dataclass(frozen=True)
class Expense:
    """Numbers stored and multiply-adds a use at given ranks; the dense matrix has `dense` of either."""

    numbers: int
    operations: int
    dense: int

    @property
    def saves(self) -> bool:
        """Whether neither is more than the dense matrix has."""
        return max(self.numbers, self.operations) <= self.dense


def expense(form: Form, shape: tuple[int, ...], groups: int = 1) -> Expense | None:
    """At the ranks of the form; None where it has none, or leaves them to budgets."""
    m, n = shape[0], prod(shape[1:])
    match form:
        case LowRank(int(r)):
            return Expense(r * (m + n), r * (m + groups * n), m * n)
        case TensorTrain(modes, tuple(ranks)):
            return Expense(parameters(modes, ranks), groups * order(form).macs(ranks), m * n)
    return None


def evens(form: Form, shape: tuple[int, ...], groups: int = 1) -> BreakEven:
    """The largest ranks, the same on every bond, that store and that compute no more than the dense matrix; 0: none."""
    m, n = shape[0], prod(shape[1:])
    if isinstance(form, TensorTrain):
        return break_even(form.modes, groups)
    return BreakEven(m * n // max(1, m + n), m * n // max(1, m + groups * n))


def groups_of(tensor: str, table: ShapeTable) -> int:
    """The groups of the convolution that the tensor is the kernel of; 1 for anything else."""
    return max((x.groups for x in table.layers if table.tensor[x.weight].name == tensor), default=1)
