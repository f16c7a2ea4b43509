"""P460–P464: the minimax over weights, levels and multipliers."""

from __future__ import annotations

from prunelang.compiler.codes.base import Code

MINIMAX = (
    Code(
        "P460",
        "sequential minimax of a penalty",
        "`gda(mode = sequential)` was asked to solve a problem whose objective holds a penalty.",
        "With the weights held still the levels and multipliers of a budget settle at its projection. Without "
        "the loss beside it a penalty has nothing to be weighed against: every level would go to its end.",
        "Leave `mode` out, or state a bound in the place of the penalty.",
    ),
    Code(
        "P461",
        "one level for tensors that cost differently",
        "`gda(granularity = global)` was asked to count tensors together that some budget tells apart.",
        "A global level says how many weights of all tensors go, and a budget has to be a function of that number.",
        "Leave `granularity` out: tensors that cost the same in every budget share a level then.",
    ),
    Code(
        "P462",
        "option of a game that is not played",
        "`gda` was given an option of its levels or multipliers, and here there are none that move.",
        "In the sequential mode the projection takes the place of the game, and without a bound on a cost of weights "
        "or channels, and without a penalty, there is nothing to allocate.",
        "Leave the option out.",
    ),
)
