"""Files of a shrunk network: its weights as safetensors, and beside them as JSON what to build and which units stayed.

The network is rebuilt by its constructor at full size, cut to the members that the description names, given layers of
factors where it names these, and the stored weights. Both files are checked against each other and against the network
as its code makes it now. A description without layers of factors has version 1, one with them version 2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunelang.compiler.shapes import ShapeTable
from prunelang.runtime import registry
from prunelang.runtime.files import FileProblem, parse_json, read_text, sha256, write_text
from prunelang.runtime.replaced import Placed, check_places, replaced
from prunelang.runtime.same_outputs import ShrinkProblem
from prunelang.runtime.shrink import Shrunk, cut
from prunelang.runtime.spiking.state import at_rest
from prunelang.runtime.weights import load_weights, save_weights

VERSION = 1
FACTORED = 2


@dataclass(frozen=True)
class Description:
    """What a shrunk network is: a constructor with its arguments, the members of each group that were kept, and the
    layers that multiply by factors."""

    constructor: str
    arguments: Mapping[str, Any]
    kept: Mapping[str, tuple[int, ...]]
    weights_hash: str
    dense: ShapeTable
    shapes: ShapeTable
    factored: tuple[Placed, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "format_version": FACTORED if self.factored else VERSION,
            "model": {"constructor": self.constructor, "arguments": dict(self.arguments)},
            "kept": {name: list(members) for name, members in self.kept.items()},
            **({"factored": [p.to_json() for p in self.factored]} if self.factored else {}),
            "weights_hash": self.weights_hash,
            "dense": self.dense.to_json(),
            "shapes": self.shapes.to_json(),
        }

    @classmethod
    def from_json(cls, data: Any) -> Description:
        """Errors: AttributeError, KeyError, TypeError and ValueError for what no description is."""
        version = data["format_version"]
        if version not in (VERSION, FACTORED):
            raise ValueError(f"format_version {version!r}, this is {FACTORED}")
        return cls(
            constructor=data["model"]["constructor"],
            arguments=dict(data["model"]["arguments"]),
            kept={name: tuple(members) for name, members in data["kept"].items()},
            weights_hash=data["weights_hash"],
            dense=ShapeTable.from_json(data["dense"]),
            shapes=ShapeTable.from_json(data["shapes"]),
            factored=tuple(map(Placed.from_json, data["factored"])) if version == FACTORED else (),
        )


def description_of(weights: Path) -> Path:
    """Where the description of a file of shrunk weights stands: beside it, as ``.json``."""
    return weights.with_suffix(".json")


def save_shrunk(small: Shrunk, constructor: str, arguments: Mapping[str, Any], weights: Path) -> Path:
    """Write `weights` and the description beside it, whole or not at all. Errors: `FileProblem`."""
    description = description_of(weights)
    if description == weights:
        raise FileProblem("P511", f"{weights} is where the description goes", "End its name in .safetensors.")
    tensors = {n: t.detach().cpu().numpy() for n, t in small.module.state_dict().items()}
    save_weights(weights, tensors, small.table)
    document = Description(
        constructor, arguments, small.members, sha256(weights), small.dense, small.table, small.placed
    )
    write_text(description, json.dumps(document.to_json(), ensure_ascii=False, indent=1) + "\n")
    return description


def load_shrunk(weights: str | Path) -> nn.Module:
    """The network that ``prune export --shrink`` wrote: built by its constructor, cut or given layers of factors, with
    the stored weights.

    Networks of a user have to be registered before. Errors: `FileProblem` P510 to P517 for the files, `ShrinkProblem`
    P531, P533, P535 and P538 where the network's code no longer fits, UnknownName for a constructor that is not there.
    """
    path = Path(weights)
    beside = description_of(path)
    try:
        found = Description.from_json(parse_json(read_text(beside), beside))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileProblem("P512", f"{beside} describes no shrunk network: {error!r}") from error
    if sha256(path) != found.weights_hash:
        raise FileProblem("P517", f"{path} is not the file that {beside.name} describes: its sha256 differs")
    _check_members(found, beside)
    dtype = next((t.dtype for t in found.shapes.tensors if t.dtype.startswith("float")), "float32")
    with registry.seeded(0):
        net = registry.models[found.constructor].build(**found.arguments).to(getattr(torch, dtype))
    _check_tensors(net, found.dense, beside)
    check_places(found.factored, net, found.dense, found.kept)
    small = replaced(net, found.factored) if found.factored else cut(net, found.dense, found.kept)
    _check_tensors(small, found.shapes, beside)
    arrays = load_weights(path, found.shapes)
    small.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in arrays.items()}, strict=False)
    return at_rest(small)


def _check_members(found: Description, path: Path) -> None:
    sizes = {g.name: g.size for g in found.dense.channels}
    for name, members in found.kept.items():
        fits = all(type(i) is int and 0 <= i < sizes.get(name, 0) for i in members)
        if not fits or list(members) != sorted(set(members)):
            raise ShrinkProblem("P533", f"{path}: the kept members of `{name}` are not among its {sizes.get(name, 0)}")
    if set(sizes) != set(found.kept):
        raise ShrinkProblem("P533", f"{path} names other coupling groups than its network has")


def _check_tensors(net: nn.Module, table: ShapeTable, path: Path) -> None:
    own = {n: tuple(t.shape) for n, t in net.state_dict().items()}
    if own != {n: t.shape for n, t in table.tensor.items()}:
        raise ShrinkProblem("P533", f"{path} describes other tensors than the network has now")
