"""P480–P484: prices by finite differences."""

from __future__ import annotations

from prunelang.compiler.codes.base import Code

PROBING = (
    Code(
        "P480",
        "nothing to probe",
        "`explain --probe` was asked for a spec without an upper bound that short runs could be solved under.",
        "A price is how much the objective falls per unit of a budget. It needs a solver, an objective of data terms "
        "and penalties, and a number that bounds a cost of the stored weights from above.",
        "Add such a bound, as in `‖net.weights‖₀ ≤ 5%`; of a reversed problem probe the forward one, with the bound "
        "that its search found.",
    ),
    Code(
        "P481",
        "bound that is too small to be moved",
        "B(1 − δ) and B(1 + δ), as whole numbers, are not on both sides of B.",
        "Counts are whole numbers: a difference of less than one unit is none, and of a budget of 0 every share is 0.",
        "Give a larger `--delta`.",
    ),
    Code(
        "P482",
        "bound that cannot be moved down",
        "With B(1 − δ) in the place of B nothing satisfies all constraints, by the proofs of `check`.",
        "Other constraints ask for as much as B leaves, so that no run could end below.",
        "Give a smaller `--delta`, or loosen the constraints that are in conflict with it.",
    ),
)
