"""Shape tables with coupling groups, written out: random small ones of every kind of coupling, and LeNet-5."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from prunelang.compiler.shapes import Channels, Layer, ShapeTable, Slice, Tensor
from tests.shape_tables import lenet_5 as plain_lenet_5


def lenet_5(reason: str = "") -> ShapeTable:
    """conv1 → conv2 → flatten (16 positions a channel) → fc1 → fc2; `reason` keeps the members of conv2."""
    table = plain_lenet_5()
    return replace(table, channels=tuple(replace(g, reason=reason * (g.name == "conv2")) for g in table.channels))


def random_table(rng: random.Random, members: int = 9) -> ShapeTable:
    """Linear layers with biases; a flattened feature map after the first, and at times a residual layer, whose kernel
    one group enters and leaves, a padded shortcut, or a normalisation with its statistics. At most so many members."""
    sizes = [rng.randint(1, 4) for _ in range(rng.randint(1, 3))]
    while sum(sizes) > members:
        sizes = [rng.randint(1, 4) for _ in range(rng.randint(1, 3))]
    repeat, pad = rng.randint(1, 2), rng.choice([0, 0, 1])
    widths = [rng.randint(1, 3), *sizes, rng.randint(1, 2)]
    layers: list[Layer] = []
    tensors: list[Tensor] = []
    slices: list[list[Slice]] = [[] for _ in sizes]
    for i in range(1, len(widths)):
        name, inputs = f"fc{i}", widths[i - 1] * (repeat if i == 2 else 1) + (pad if i > 1 else 0)
        layers.append(Layer(name, "linear", f"{name}.weight", f"{name}.bias", rng.randint(1, 3)))
        tensors += [
            Tensor(f"{name}.weight", (widths[i], inputs), "weight"),
            Tensor(f"{name}.bias", (widths[i],), "bias"),
        ]
        if i <= len(sizes):
            slices[i - 1] += [Slice(f"{name}.weight", 0, 0), Slice(f"{name}.bias", 0, 0)]
        if i > 1:
            slices[i - 2].append(Slice(f"{name}.weight", 1, pad, repeat if i == 2 else 1))
    if rng.random() < 0.3:
        tensors.append(Tensor("res.weight", (sizes[0], sizes[0], 2), "weight"))
        layers.append(Layer("res", "conv1d", "res.weight", None, 2))
        slices[0] += [Slice("res.weight", 0, 0), Slice("res.weight", 1, 0)]
    if rng.random() < 0.5:
        tensors += [Tensor("norm.weight", (sizes[0],), "norm"), Tensor("norm.running_mean", (sizes[0],), "buffer")]
        slices[0] += [Slice("norm.weight", 0, 0), Slice("norm.running_mean", 0, 0)]
    groups = tuple(Channels(f"g{i}", n, tuple(s)) for i, (n, s) in enumerate(zip(sizes, slices, strict=True)))
    return ShapeTable("random", (widths[0],), tuple(layers), tuple(tensors), channels=groups)


def shapes_left(table: ShapeTable, kept: Mapping[str, set[int]]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor once all other members are cut out, index by index."""
    gone: dict[tuple[str, int], set[int]] = {}
    for g in table.channels:
        for s in g.slices:
            for i in set(range(g.size)) - kept[g.name]:
                gone.setdefault((s.tensor, s.dim), set()).update(s.indices(i))
    return {t.name: tuple(n - len(gone.get((t.name, d), ())) for d, n in enumerate(t.shape)) for t in table.tensors}
