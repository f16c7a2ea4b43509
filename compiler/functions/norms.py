"""Norms, penalties and matrix functions of weights."""

from __future__ import annotations

from prunelang.compiler.functions.base import Parameter, Result, Signature

W = Parameter("w", "tensors", "the tensors")
MATRIX = Parameter("W", "matrix", "one tensor, its output dimension first")
MODES = Parameter(
    "modes", "modes", "a row and a column factor per core: ∏m = rows, ∏n = columns; left out: chosen", None
)
GROUPINGS = ("filter", "channel", "row", "column", "head")
BY = Parameter("by", "choice", "what a group is", choices=GROUPINGS)


def _norm(name: str, sign: str, doc: str, formula: str, result: Result, differentiable: bool) -> Signature:
    return Signature(
        name,
        "norm",
        result,
        (W,),
        doc,
        formula=formula,
        example=f"{sign.replace('w', 'net.weights')} ≤ {'5%' if result == 'count' else '100'}",
        reach="vector",
        differentiable=differentiable,
        sign=sign,
    )


NORMS = (
    _norm("norm0", "‖w‖₀", "Number of non-zero entries of all tensors together.", "#{i : wᵢ ≠ 0}", "count", False),
    _norm("norm1", "‖w‖₁", "Sum of magnitudes of all tensors together.", "Σᵢ |wᵢ|", "value", True),
    _norm(
        "norm2", "‖w‖₂", "Euclidean norm of all tensors together; `‖w‖₂²` is its square.", "√(Σᵢ wᵢ²)", "value", True
    ),
    _norm("norminf", "‖w‖∞", "Largest magnitude over all tensors.", "maxᵢ |wᵢ|", "value", True),
    Signature(
        "group_norm0",
        "norm",
        "count",
        (W, BY),
        "Number of groups that hold a non-zero entry, inside each tensor and summed.",
        formula="#{g : w_g ≠ 0}",
        example="group_norm0(net.weights, by = row) ≤ 50%",
        reach="inside",
    ),
    Signature(
        "group_norm1",
        "norm",
        "value",
        (W, BY),
        "Sum of the Euclidean norms of the groups, inside each tensor and summed.",
        formula="Σ_g ‖w_g‖₂",
        example="minimize cross_entropy(net) + 1e-4 * group_norm1(net.weights, by = row)",
        reach="inside",
        differentiable=True,
    ),
    Signature(
        "drr",
        "norm",
        "value",
        (W, Parameter("beta", "number", "β, steepness", low=0, above=True)),
        "Smooth stand-in for the number of non-zero entries.",
        formula="Σᵢ (1 − e^(−β|wᵢ|))",
        example="minimize cross_entropy(net) + 1e-4 * drr(net.weights, 5)",
        reach="vector",
        differentiable=True,
    ),
    Signature(
        "entropy",
        "norm",
        "value",
        (W,),
        "Empirical entropy of the stored values of all tensors together, in bits per entry.",
        formula="−Σ_v p_v log₂ p_v",
        example="entropy(net.weights) ≤ 2",
        unit="bits",
        reach="vector",
    ),
)

MATRIX_FUNCTIONS = (
    Signature(
        "nuclear",
        "matrix function",
        "value",
        (MATRIX,),
        "Sum of the singular values of one tensor.",
        formula="Σᵢ σᵢ(W)",
        example="∀ l ∈ net.layers: nuclear(l.weights) ≤ 0.5 * base",
        reach="matrix",
    ),
    Signature(
        "rank",
        "matrix function",
        "count",
        (MATRIX,),
        "Rank of one tensor; a percentage refers to min(rows, columns).",
        formula="#{i : σᵢ(W) ≠ 0}",
        example="∀ l ∈ net.layers: rank(l.weights) ≤ 10",
        reach="matrix",
    ),
    Signature(
        "tt_rank",
        "matrix function",
        "count",
        (MATRIX, MODES),
        "Largest tensor-train rank of one tensor, its rows and columns factored into modes.",
        formula="max_k rank W_(1…k)",
        example='tt_rank(net["fc1"].weights, modes = [[10, 28], [30, 28]]) ≤ 8',
        reach="matrix",
    ),
)
