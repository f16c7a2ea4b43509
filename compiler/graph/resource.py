"""A budget as an exact function of how many items each sparsity level keeps.

A *level* i has n_i items (entries of a tensor, or members of a coupling group), of which k_i are kept. Every cost that
the shapes decide is then a sum of monomials of degree 0, 1 or 2 in the k_i and, where a tensor is stored in its
shortest layout, of least affine forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

Monomial: TypeAlias = tuple[int, tuple[int, ...]]  # coefficient, levels: 12 · k_0 · k_3 is (12, (0, 3))
Ways: TypeAlias = tuple[int, tuple[tuple[str, int, int], ...]]  # level, (format, bytes per kept item, fixed bytes)


@dataclass(frozen=True)
class Resource:
    """``R(k) = constant + Σ c·∏ k_i + Σ_(level, ways) min_way (a·k_level + b) ≤ bound``, in exact integers.

    `dense` is R at k = n, the scale by which a residual is made free of units: ``(R(k) − bound) / dense``.
    """

    label: str  # of the constraint: "macs"
    name: str  # the function: "norm0", "sparse_macs", "bytes", "macs", …
    terms: tuple[Monomial, ...]
    choices: tuple[Ways, ...] = ()
    constant: int = 0
    bound: int = 0
    dense: int = 1
    unit: str = ""
    measured: str = ""  # the state that holds coefficients and bound where data decides them; empty: they are these

    def value(self, k: Sequence[int]) -> int:
        """R(k), exact: `k` holds the kept items of every level, in the levels' order."""
        total = self.constant + sum(c * prod(k[i] for i in levels) for c, levels in self.terms)
        return total + sum(min(a * k[level] + b for _, a, b in ways) for level, ways in self.choices)

    def degree(self) -> int:
        """The greatest number of levels in one monomial: 1 is affine, 2 a product of neighbouring layers' channels."""
        return max((len(levels) for _, levels in self.terms), default=0)

    def levels(self) -> tuple[int, ...]:
        """The levels that the value depends on, ascending."""
        return tuple(sorted({i for _, found in self.terms for i in found} | {level for level, _ in self.choices}))
