"""P490–P493: block coordinate descent."""

from __future__ import annotations

from prunelang.compiler.codes.base import Code

BLOCKS = (
    Code(
        "P490",
        "solver that takes no optimizer",
        "`with`, `for` or `until` stands beside a solver that descends on no gradient.",
        "Its blocks are solved in closed form, and its own option says how many iterations there are.",
        "Leave the clause out and give `steps`: `solve bcd(steps = 100)`.",
    ),
    Code(
        "P491",
        "loss that is no squared error",
        "`bcd` is asked to minimise a loss other than `mse`.",
        "It splits ½‖V − Y‖², whose blocks have closed forms; those of other losses have none.",
        "Write `mse(net)`: classes are one-hot encoded, and the largest output still is the prediction.",
    ),
    Code(
        "P492",
        "frozen tensors under block coordinate descent",
        "`freeze` holds tensors of a network that `bcd` is to train.",
        "Every kernel is solved for together with its bias, layer by layer, and none can be left as it is.",
        "Leave `freeze` out, or take another solver.",
    ),
    Code(
        "P493",
        "network that is no chain of layers",
        "`bcd` was given a network with something other than linear layers and convolutions, a ReLU after each but the "
        "last, and images flattened on the way.",
        "The splitting has an exact solution for each of these alone. Pooling, normalisation, shared layers, groups, "
        "skips and layers without bias are none of them.",
        "Take such a network, for instance `mlp` or `strided_cnn`, which has strides in the place of pooling; or take "
        "another solver.",
    ),
)
