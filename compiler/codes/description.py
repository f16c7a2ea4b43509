"""P457–P459: coded sizes and description lengths."""

from __future__ import annotations

from prunelang.compiler.codes.base import Code

DESCRIPTION = (
    Code(
        "P457",
        "coded size that nothing drives",
        "`bytes(…, format = coded) ≤ B` stands alone: no count, pattern, group, norm or penalty removes weights. Or it "
        "is the objective.",
        "The length of a coded file depends on the values of all weights together, so there is no projection onto it. "
        "It is measured on the file when the run ends, and holds or does not.",
        "Add a count that leaves room for it, `‖net.weights‖₀ ≤ 2%`; a kept weight takes about 12 to 14 bits.",
    ),
    Code(
        "P458",
        "description length beside other terms",
        "`description_length(net)` stands in an objective with another term, is maximised, or has a coefficient that "
        "is a schedule or not positive.",
        "It is a data term and a penalty at once, in bits: another data term would count the data twice.",
        "Minimise it alone; bounds on other functions go below `subject to`.",
    ),
    Code(
        "P459",
        "a coded length cannot be measured by a script",
        "`emit` was asked for a spec that bounds `description_length(net)`, and `finetune` or `base` reads it.",
        "It is measured on a coded file that is really written, and scripts need torch alone.",
        "`prune run` it, or leave the constraint out of the spec that is emitted.",
    ),
)
