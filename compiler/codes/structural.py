"""P465–P469: budgets of the remaining shapes."""

from __future__ import annotations

from prunelang.compiler.codes.base import Code

STRUCTURAL = (
    Code(
        "P465",
        "budget that empties a coupling group",
        "The bound on `macs`, `flops` or `params` is less than what one member of each group costs.",
        "Some group then keeps no channel at all, and what passes through its layers is zero, or what remains of them "
        "is a constant.",
        "Raise the bound to the value that the note gives, or bound fewer layers.",
    ),
    Code(
        "P466",
        "channels that cannot be removed",
        "The bound counts layers whose channels have to stay: the network was followed to a place where removing one "
        "would change what it computes, or could not be followed further.",
        "A channel is removed with everything that reads or joins it, and only where zeros pass through: an activation "
        "with f(0) ≠ 0, or a module that is not understood, holds all of its channels.",
        "Nothing needs to be done if the budget can be met without them. Otherwise change the module that the note "
        "names.",
    ),
)
