"""Sizes of the coded file as measured values: `bytes(net, format = coded)` and `description_length(net)`.

Both are of a file that is really written and read back: the network is coded, and what is measured afterwards is
measured on the decoded weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from prunelang.compiler.problem import Measured
from prunelang.compiler.shapes import ShapeTable
from prunelang.runtime.coded import Coded, coded
from prunelang.runtime.evaluate import Outcome

NAMES = frozenset({"bytes", "description_length"})


def measure(
    function: Measured, model: nn.Module, table: ShapeTable, digest: str, data: Callable[[Measured], Outcome]
) -> Outcome:
    """The length of the coded file in bytes, or that in bits plus the nll of the train split under what it holds.

        description_length = Σ_train −log₂ p(y | x; ŵ) + 8 · bytes(coded)

    `digest` is of the train split, and `data` measures a data term on the network as it is.
    """
    file = file_of(function, model, table)
    size = len(file.content)
    if function.name == "bytes":
        return Outcome("bytes", function.split, float(size), 1, digest, function.unit)
    with decoded(model, file):
        found = data(replace(function, name="nll", arguments=(), unit="bits"))
    return Outcome(function.name, function.split, found.total + 8.0 * size, 1, digest, function.unit)


def file_of(function: Measured, model: nn.Module, table: ShapeTable) -> Coded:
    """The coded file of the network as it is, or of the part that the function speaks of."""
    stored = model.state_dict()
    return coded(function, table, {t.name: stored[t.name].detach().cpu().numpy() for t in table.tensors})


@contextmanager
def decoded(model: nn.Module, file: Coded) -> Iterator[None]:
    """The network with the weights of the file; its own come back at the end."""
    stored: Mapping[str, Tensor] = model.state_dict()
    own = {name: stored[name].detach().clone() for name in file.tensors}
    with torch.no_grad():
        for name, array in file.tensors.items():
            stored[name].copy_(torch.from_numpy(array.copy()))
    try:
        yield
    finally:
        with torch.no_grad():
            for name, t in own.items():
                stored[name].copy_(t)
