"""Sets that tensors may be asked to lie in."""

from __future__ import annotations

from prunelang.compiler.functions.base import Parameter, Reach, Signature
from prunelang.compiler.functions.norms import MODES

VALUES = Parameter("values", "values", "the admissible values")


def _set(
    name: str, parameters: tuple[Parameter, ...], reach: Reach, doc: str, formula: str, example: str, sign: str = ""
) -> Signature:
    return Signature(name, "set", "set", parameters, doc, formula=formula, example=example, reach=reach, sign=sign)


SET_SIGNATURES = (
    _set(
        "dense",
        (),
        "inside",
        "Every position is kept: the way to pin a layer.",
        "all positions",
        'net["fc3"].weights ∈ dense',
    ),
    _set(
        "sparse",
        (Parameter("n", "size", "non-zero entries; left out: chosen by a budget", None, low=0),),
        "vector",
        "At most n non-zero entries over all tensors together; without n a budget on what is stored chooses it.",
        "‖w‖₀ ≤ n",
        "net.weights ∈ sparse(5%)",
    ),
    _set(
        "n_of_m",
        (Parameter("n", "integer", "non-zero entries", low=0), Parameter("m", "integer", "out of this many", low=1)),
        "inside",
        "At most n non-zero of every m consecutive entries along the input dimension.",
        "‖w_(jm+1 … jm+m)‖₀ ≤ n",
        "net.weights ∈ n_of_m(2, 4)",
    ),
    _set(
        "blocks",
        (
            Parameter("rows", "integer", "rows of a block", low=1),
            Parameter("columns", "integer", "columns of a block", low=1),
        ),
        "inside",
        "Kept positions are a union of blocks of the matrix; blocks at the edge may be smaller.",
        "support = ∪ p × q blocks",
        "net.weights ∈ blocks(4, 4)",
    ),
    _set(
        "codebook",
        (Parameter("k", "integer", "number of values", low=1),),
        "vector",
        "At most k different values over all tensors together, learned.",
        "#{wᵢ} ≤ k",
        "net.weights ∈ codebook(4)",
    ),
    _set(
        "values",
        (VALUES,),
        "vector",
        "Entries take fixed values.",
        "wᵢ ∈ {v₁, …}",
        "net.weights ∈ {-1, 0, 1}",
        sign="{…}",
    ),
    _set(
        "scaled",
        (VALUES,),
        "vector",
        "Entries take fixed values times one learned scale.",
        "wᵢ ∈ s · {v₁, …}",
        "net.weights ∈ scaled({-1, 0, 1})",
    ),
    _set(
        "low_rank",
        (Parameter("r", "integer", "rank; left out: chosen by a budget", None, low=0),),
        "matrix",
        "Matrices of rank at most r, saved as two factors; without r a budget or a price chooses it.",
        "W = U V, U m × r, V r × n",
        'net["fc1"].weights ∈ low_rank(10)',
    ),
    _set(
        "tt",
        (
            Parameter("r", "ranks", "largest rank, or one for each bond; left out: chosen by a budget", None, low=1),
            MODES,
        ),
        "matrix",
        "Tensor trains of rank at most r, saved as their cores; modes left out are chosen for the fewest numbers.",
        "W = G₁ G₂ … G_d",
        'net["fc1"].weights ∈ tt(8, modes = [[10, 28], [30, 28]])',
    ),
    _set(
        "box",
        (Parameter("lo", "number", "smallest value"), Parameter("hi", "number", "largest value")),
        "vector",
        "Every entry lies between two numbers.",
        "lo ≤ wᵢ ≤ hi",
        "net.weights ∈ box(-1, 1)",
    ),
)
