"""P475–P479: spikes and synaptic operations."""

from __future__ import annotations

from prunelang.compiler.codes.base import Code

SYNOPS = (
    Code(
        "P475",
        "network without spikes",
        "`synops`, `spikes` or `energy` is asked of a network that has no spiking neurons.",
        "All three are counted on the spikes of neurons that run over time steps. Elsewhere every layer multiplies, "
        "and `sparse_macs` counts that from the weights alone.",
        "Use a spiking network, such as `snn_mlp([784, 500, 10], T = 8)`, or bound `sparse_macs(net)`.",
    ),
    Code(
        "P476",
        "an estimate that is for reports",
        "`energy(net)` stands in a constraint or in the objective.",
        "It is an estimate from constants for one technology (45 nm: 4.6 pJ a multiply-add, 0.9 pJ an addition), not a "
        "measurement: nothing is decided by it.",
        "Bound `synops(net)`, which it is made of, and leave `energy(net)` in the `report`.",
    ),
    Code(
        "P478",
        "a layer whose spikes cannot be counted",
        "A kernel of the network is read in another way than by a linear layer or a convolution of torch.",
        "Fan-out is counted where `F.linear` and `F.conv1d`, `2d`, `3d` are called, by modules or directly.",
        "Write the layer with one of these.",
    ),
    Code(
        "P479",
        "objective that nothing can descend on",
        "`synops` or `spikes` stands in the objective.",
        "A count of spikes has no gradient, and is decided on samples that training does not read.",
        "Bound it: `synops(net) ≤ 0.3 * base`.",
    ),
)
