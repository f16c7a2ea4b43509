"""Resources of a network, a layer or a layer set, per sample, and functions of tensor sets."""

from __future__ import annotations

from prunelang.compiler.functions.base import Parameter, Result, Signature
from prunelang.compiler.functions.losses import NET, ON

X = Parameter("x", "owners", "a network, a layer or a layer set")
FORMATS = ("best", "dense", "bitmask", "csr", "coded")


def _cost(name: str, result: Result, unit: str, doc: str, formula: str, bound: str = "30%") -> Signature:
    return Signature(
        name,
        "resource",
        result,
        (X,),
        doc,
        formula=formula,
        example=f"{name}(net) ≤ {bound}",
        unit=unit,
        reach="inside",
    )


RESOURCES = (
    _cost("params", "cost", "", "Numbers stored after structural shrinking, zeros included.", "Σ_t size(t)"),
    _cost(
        "nonzeros",
        "count",
        "",
        "Numbers stored that are not zero. Kernels, and tensors that the spec prunes by name, count by position; "
        "all others count in full.",
        "Σ_t nnz(t)",
    ),
    _cost("macs", "cost", "MACs", "Multiply-adds of the remaining shapes.", "Σ_l uses_l · size(W_l)"),
    _cost("flops", "cost", "FLOPs", "Floating-point operations of the remaining shapes; 1 MAC is 2 FLOPs.", "2 · macs"),
    _cost("sparse_macs", "count", "MACs", "Multiply-adds with zeros skipped.", "Σ_l uses_l · nnz(W_l)"),
    _cost("sparse_flops", "count", "FLOPs", "Floating-point operations with zeros skipped.", "2 · sparse_macs"),
    Signature(
        "bytes",
        "resource",
        "count",
        (X, Parameter("format", "choice", "how kernels are stored", "best", FORMATS)),
        "Size of the file that export writes, index bits included. A percentage refers to the dense float32 file; "
        "`coded` depends on the values and takes none.",
        formula="Σ_t bytes_format(t) + header",
        example="bytes(net) ≤ 100 KB",
        unit="B",
        reach="inside",
    ),
    Signature(
        "description_length",
        "resource",
        "loss",
        (NET,),
        "Bits of model plus data, total over train.",
        formula="Σ_train nll + 8 · bytes(coded)",
        example="minimize description_length(net)",
        unit="bits",
        structural=False,
    ),
    Signature(
        "synops",
        "resource",
        "value",
        (NET, ON),
        "Mean synaptic operations per sample, all time steps included.",
        formula="E_x Σ_t Σ_l Σ_j spike_lj(x, t) · fanout_lj",
        example="synops(net) ≤ 0.3 * base",
        unit="SynOps",
        structural=False,
    ),
    Signature(
        "spikes",
        "resource",
        "value",
        (NET, ON),
        "Mean spikes per sample, all time steps included.",
        formula="E_x Σ_t Σ_l Σ_j spike_lj(x, t)",
        example="spikes(net) ≤ 0.5 * base",
        structural=False,
    ),
    Signature(
        "energy",
        "resource",
        "value",
        (NET, ON),
        "Estimate for 45 nm, mean per sample, for reports only: 4.6 pJ for each multiply-add of layers that no spikes "
        "reach, 0.9 pJ for each synaptic operation.",
        formula="4.6 · macs + 0.9 · synops",
        example="report energy(net)",
        unit="pJ",
        structural=False,
    ),
)

TENSOR_FUNCTIONS = (
    Signature(
        "size",
        "tensor set",
        "number",
        (Parameter("S", "tensors", "the tensors"),),
        "Number of entries.",
        example="‖net.weights‖₀ ≤ floor(size(net.weights) / 20)",
    ),
    Signature(
        "start",
        "tensor set",
        "tensors",
        (Parameter("w", "tensors", "the tensors"),),
        "The tensors as they entered `solve`.",
        example="‖net.weights - start(net.weights)‖₂ ≤ 1",
    ),
)
