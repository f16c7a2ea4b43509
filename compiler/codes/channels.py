"""P53x: networks that are made smaller, by the units that have no weights left or by layers of factors."""

from __future__ import annotations

from prunelang.compiler.codes.base import Code

CHANNELS = (
    Code(
        "P530",
        "network whose channels are not known",
        "The network cannot be traced, so that its coupling groups are not known.",
        "A unit can only be cut out together with all that reads or joins it.",
        "Follow the message; it names the module and the operator.",
    ),
    Code(
        "P531",
        "module that does not run with fewer channels",
        "A module failed after the tensors of its layers were cut.",
        "Its forward uses a size of its own: a number in a `view`, a padding, a mask.",
        "Take the size from the tensor at hand, or give the module a method `shrink_channels` that sets it anew.",
    ),
    Code(
        "P532",
        "other outputs with fewer channels",
        "The smaller network does not give the outputs of the one that it was made from.",
        "A module runs with fewer channels but computes something else with them.",
        "Take sizes from the tensor at hand, or give the module a method `shrink_channels` that sets them anew.",
    ),
    Code(
        "P533",
        "description of a shrunk network that does not fit",
        "The members that were kept, as a file names them, are not those of the network's coupling groups.",
        "The description belongs to another network, or the network's code has changed.",
        "Export the run again, with the code that is used now.",
    ),
    Code(
        "P534",
        "units and factors at once",
        "A constraint counts units that would be cut out, in a network whose layers would multiply by factors.",
        "Factors are of the full size of their layer: cutting both ways would change what was certified.",
        "Ask for one of the two in a spec, or export the factors with `--to best`.",
    ),
    Code(
        "P535",
        "layer that cannot multiply by factors",
        "A tensor is made of factors, and what uses it is no plain `nn.Linear` or `nn.Conv2d`.",
        "Only for these there are modules that multiply by the factors; a class of its own may do anything.",
        "Take the tensor out of the constraint, make its layer one of the two, or export the factors with `--to best`.",
    ),
    Code(
        "P536",
        "network that does not run with layers of factors",
        "Some module failed once layers multiplied by their factors.",
        "It reads the `weight` of a layer, or sizes that are stated beside it, instead of calling the layer.",
        "Call the layer, or export the factors with `--to best`.",
    ),
    Code(
        "P537",
        "other outputs with layers of factors",
        "The network with layers of factors does not give the outputs of the one that it was made from.",
        "A layer is used in another way than by calling it, or factors of very different sizes lose digits in the type "
        "of the network.",
        "Call the layer, run in float64, or export the factors with `--to best`.",
    ),
    Code(
        "P538",
        "description of layers of factors that does not fit",
        "The layers, forms, ranks or orders that a file names are not possible in the network.",
        "The description was changed, belongs to another network, or the network's code has changed.",
        "Export the run again, with the code that is used now.",
    ),
)
