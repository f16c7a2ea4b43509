"""P450–P454: measured constraints and the search for the best bound."""

from __future__ import annotations

from prunelang.compiler.codes.base import Code

SELECTION = (
    Code(
        "P450",
        "a condition that no script can test",
        "`emit` was asked for a spec whose search, or whose budget of spikes, is decided by a function that a script "
        "knows no values of for single samples: `distill`, or a loss of your own.",
        "A script tests accuracy, error, cross_entropy, nll, mse, synops and spikes, as the run does.",
        "`prune run` it, or bound one of those.",
    ),
    Code(
        "P451",
        "objective that no search serves",
        "The objective holds no data, constraints do, and what is to be minimised is not a single count or cost.",
        "A search halves the gap between two values of one bound. It needs a function of the kept positions with a "
        "positive constant coefficient; norms and sums of several functions are none.",
        "Minimise `‖net.weights‖₀`, `nonzeros`, `sparse_macs` or `bytes`; other functions can be bounded beside it.",
    ),
    Code(
        "P452",
        "a search without a split to read",
        "A count is minimised, and every measured constraint is on the test split.",
        "What a search looks at is used up: the test split would be no test any more.",
        "Leave `on = test` out, so that validation is meant, or add a constraint on validation or train.",
    ),
    Code(
        "P453",
        "floor that the split is too small for",
        "An accuracy is asked for that could not be confirmed even if every prediction were right.",
        "A constraint on data holds if its one-sided confidence bound does. Of n right answers in n that bound is "
        "0.05^(1/n): 59 samples for 95 %, 149 for 98 %, 299 for 99 %. Validation is cut into two halves, one to choose "
        "by and one for the certificate, so that it takes twice as many.",
        "Give `data` a larger `validation`, lower the floor, or name a larger split.",
    ),
    Code(
        "P454",
        "search option without a search",
        "`probes` or `tolerance` is given where nothing is searched, or by more than one solve: there is one search.",
        "The option would change nothing, silently.",
        "Leave it out.",
    ),
)
