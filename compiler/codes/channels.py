"""P53x: networks that are made smaller by the units that have no weights left."""

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
)
