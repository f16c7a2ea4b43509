"""P560–P569: sweeps and reports."""

from __future__ import annotations

from prunelang.compiler.codes.base import Code

SEEING = (
    Code(
        "P560",
        "sweep over solvers of a spec with another number of solves",
        "`--solvers` was given, and the spec has no `solve` stage, or more than one.",
        "A sweep puts each solver in the place of the one `solve`, with its optimizer and as many epochs.",
        "Leave `--solvers` out, and the spec's own stages are run.",
    ),
    Code(
        "P561",
        "solver of a sweep that is none",
        "An item of `--solvers` is neither the name of a solver nor a call of one.",
        "The items stand where the spec's own solver stands: `lc`, or with options `lc(steps = 10)`.",
        "Take one of the solvers that are listed, or `spec` for the spec's own.",
    ),
    Code(
        "P562",
        "finished run of another meaning in the way",
        "The directory of a sweep holds a finished run of the same values, solver and seed, made from another spec, "
        "network, data or options.",
        "Finished runs are never overwritten unasked, and never mixed with others in one table.",
        "Give another `--out`, or `--replace` to run it again.",
    ),
    Code(
        "P563",
        "chain without an order",
        "`--chain` was given, and not exactly one param has several values.",
        "Each run of a chain starts from the result before it, in the order of one param's values.",
        "Give one param several values, the largest budget first, and sweep over the others one by one.",
    ),
    Code(
        "P564",
        "stage that another solver cannot take over",
        "The optimizer of the `solve` follows a clock that the other solver counts in another way.",
        "Solvers with outer iterations count epochs anew in each of them; in a loop whose length varies, or of steps, "
        "the same place has no epoch of its own.",
        "Write the schedule in `p`, which runs from 0 to 1 under every solver.",
    ),
    Code(
        "P565",
        "axis that the runs have not",
        "`--x` or `--y` names no item of the report, no constraint and no param of the sweep.",
        "The plot shows numbers that every run has.",
        "Take one of the names that are listed, or add the number to `report`.",
    ),
    Code(
        "P566",
        "directory of a sweep in use",
        "Another process sweeps into the same directory.",
        "Two sweeps would run the same runs twice and replace each other's tables.",
        "Wait for the other, or give another `--out`. The lock goes with its process, however that ends.",
    ),
    Code(
        "P567",
        "process of a sweep that died",
        "A process that runs one of the runs ended without a result, as when memory runs out.",
        "Several runs at a time need as many times the memory.",
        "Start the sweep again with fewer `--jobs`: finished runs are kept, others go on from their checkpoints.",
    ),
    Code(
        "P568",
        "package that is not installed",
        "Plots were asked for without matplotlib, or TensorBoard's files without tensorboard.",
        "Both are optional: training, certifying and reports as text need neither.",
        "Install it as the message says, or leave the option out.",
    ),
    Code(
        "P569",
        "nothing to make a page of",
        "The directory holds neither a certificate nor a history.",
        "A report shows what a run left; runs that failed, or were interrupted or killed, leave less than others.",
        "Give the directory that `prune run --out` named.",
    ),
)
