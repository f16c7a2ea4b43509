"""Scalar functions of the clocks, and tests that end a stage early."""

from __future__ import annotations

from prunelang.compiler.functions.base import Parameter, Signature

A, B = Parameter("a", "scalar", "a number"), Parameter("b", "scalar", "a number")


def _scalar(name: str, formula: str, doc: str, parameters: tuple[Parameter, ...] = (A,)) -> Signature:
    arguments = ", ".join(("epoch + 1", "20")[: len(parameters)])
    return Signature(
        name,
        "schedule",
        "schedule",
        parameters,
        doc,
        formula=formula,
        example=f"sgd(lr = 0.1 / (1 + {name}({arguments})))",
    )


SCHEDULES = (
    _scalar("sqrt", "√a", "Square root."),
    _scalar("exp", "eᵃ", "Exponential."),
    _scalar("log", "ln a", "Natural logarithm."),
    _scalar("sin", "sin a", "Sine, in radians."),
    _scalar("cos", "cos a", "Cosine, in radians."),
    _scalar("floor", "⌊a⌋", "Largest whole number that is not above a."),
    _scalar("min", "min(a, b)", "The smaller of two.", (A, B)),
    _scalar("max", "max(a, b)", "The larger of two.", (A, B)),
    Signature(
        "ramp",
        "schedule",
        "schedule",
        (
            Parameter("a", "scalar", "value up to `start`"),
            Parameter("b", "scalar", "value from `end` on"),
            Parameter("start", "time", "when it begins to move"),
            Parameter("end", "time", "when it arrives"),
            Parameter("shape", "choice", "how it moves", "linear", ("linear", "cubic", "cosine")),
        ),
        "From a to b between two times, constant outside.",
        formula="a + (b − a)·u with u = clip((t − start)/(end − start), 0, 1)",
        example="‖net.weights‖₀ ≤ ramp(100%, 5%, 0, 0.7, shape = cubic)",
    ),
    Signature(
        "steps",
        "schedule",
        "schedule",
        (
            Parameter("v0", "scalar", "value at first"),
            Parameter("changes", "change", "[time, value]: the value from that time on", many=True),
        ),
        "Piecewise constant.",
        formula="v0 before t1, v1 from t1 on, …",
        example="sgd(lr = steps(0.1, [30 epochs, 0.01]))",
    ),
)

STOPPING = (
    Signature(
        "saturated",
        "test",
        "test",
        (
            Parameter("window", "epochs", "how many of the last epochs are looked at", 10, low=2),
            Parameter("on", "split", "the split whose loss is watched", "validation", ("validation", "train")),
        ),
        "The loss stopped falling: the halves of the last window, smoothed, differ by no more than their roughness. "
        "The stage ends, and goes back to its best epoch.",
        formula="mean(first half) − mean(second half) ≤ min(std of what smoothing takes from each half)",
        example="finetune for 100 epochs until saturated(window = 20 epochs, on = validation)",
        structural=False,
    ),
)
