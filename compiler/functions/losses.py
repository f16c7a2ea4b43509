"""Data terms and metrics: numbers that a split of the data decides."""

from __future__ import annotations

from prunelang.compiler.functions.base import SPLITS, Parameter, Signature

NET = Parameter("net", "network", "the network")
ON = Parameter(
    "on",
    "split",
    "the split; left out: train in the objective, validation in a constraint, test in a report",
    None,
    SPLITS,
)


def loss(name: str, doc: str, *, formula: str = "", unit: str = "", further: tuple[Parameter, ...] = ()) -> Signature:
    """A differentiable data term; registered losses are made with it too."""
    arguments = ", ".join(("net", *(p.name for p in further if p.required)))
    return Signature(
        name,
        "data term",
        "loss",
        (NET, *further, ON),
        doc,
        formula=formula,
        example=f"minimize {name}({arguments})",
        unit=unit,
        structural=False,
        differentiable=True,
    )


LOSSES = (
    loss("cross_entropy", "Mean cross-entropy per prediction, in nats.", formula="−mean ln p(y | x)", unit="nats"),
    loss("mse", "Mean squared error per output entry.", formula="mean (y − ŷ)²"),
    loss("nll", "Mean negative log-likelihood per prediction, in bits.", formula="−mean log₂ p(y | x)", unit="bits"),
    loss(
        "distill",
        "Kullback–Leibler divergence from a frozen teacher at temperature T, times T².",
        formula="T² · mean KL(softmax(teacher/T) ‖ softmax(net/T))",
        unit="nats",
        further=(
            Parameter("teacher", "teacher", "a model declared `frozen`"),
            Parameter("T", "number", "temperature", 4, low=0, above=True),
        ),
    ),
)

METRICS = (
    Signature(
        "accuracy",
        "metric",
        "ratio",
        (NET, ON),
        "Share of correct predictions.",
        formula="#{argmax f(x) = y} / n",
        example="accuracy(net) ≥ base - 0.5 pp",
        structural=False,
    ),
    Signature(
        "error",
        "metric",
        "ratio",
        (NET, ON),
        "Share of wrong predictions.",
        formula="1 − accuracy",
        example="error(net) ≤ 3%",
        structural=False,
    ),
)
