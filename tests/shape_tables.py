"""Shape tables for tests that need no torch: written out by hand, or read from a file that was traced."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from prunelang.compiler.shapes import Channels, Kind, Layer, ShapeTable, Slice, Tensor

RESNET50 = Path(__file__).parent / "data" / "resnet50.shapes.json"


def lenet_300_100() -> ShapeTable:
    """784 → 300 → 100 → 10: 266 200 kernel weights, one multiply-add each."""
    return _table(
        "lenet_300_100(inputs = 784, classes = 10, activation = relu)",
        (784,),
        [("fc1", (300, 784), 1), ("fc2", (100, 300), 1), ("fc3", (10, 100), 1)],
    )


def lenet_5() -> ShapeTable:
    """Convolutions at 24 × 24 and 8 × 8 positions, then 800 → 500 → 10: 430 500 weights, 2 293 000 multiply-adds."""
    return _table(
        "lenet_5(classes = 10)",
        (1, 28, 28),
        [
            ("conv1", (20, 1, 5, 5), 24 * 24),
            ("conv2", (50, 20, 5, 5), 8 * 8),
            ("fc1", (500, 800), 1),
            ("fc2", (10, 500), 1),
        ],
    )


def snn_mlp() -> ShapeTable:
    """784 → 500 → 10 over 8 time steps, the first layer reading the input once: 397 000 kernel weights."""
    text = "snn_mlp(sizes = [784, 500, 10], T = 8, encoding = direct, tau = 2.0, readout = current)"
    return replace(_table(text, (784,), [("fc1", (500, 784), 1), ("fc2", (10, 500), 8)]), steps=8)


def chain(layers: int, width: int = 8) -> ShapeTable:
    """`layers` square linear layers fc1, fc2, … of `width`, to see how time grows with the number of layers."""
    shapes = [(f"fc{i}", (width, width), 1) for i in range(1, layers + 1)]
    return _table(f"mlp(sizes = [{', '.join([str(width)] * (layers + 1))}], activation = relu)", (width,), shapes)


def resnet50() -> ShapeTable:
    """ResNet-50 at 224 × 224, as traced."""
    return ShapeTable.loads(RESNET50.read_text(encoding="utf-8"))


def _table(model: str, input_shape: tuple[int, ...], kernels: list[tuple[str, tuple[int, ...], int]]) -> ShapeTable:
    kinds: dict[int, Kind] = {2: "linear", 4: "conv2d"}
    layers = tuple(Layer(n, kinds[len(s)], f"{n}.weight", f"{n}.bias", uses) for n, s, uses in kernels)
    tensors = tuple(
        t for n, s, _ in kernels for t in (Tensor(f"{n}.weight", s, "weight"), Tensor(f"{n}.bias", s[:1], "bias"))
    )
    channels = tuple(
        Channels(
            a, rows, (Slice(f"{a}.weight", 0, 0), Slice(f"{a}.bias", 0, 0), Slice(f"{b}.weight", 1, 0, columns // rows))
        )
        for (a, (rows, *_), _), (b, (_, columns, *_), _) in pairwise(kernels)
    )
    return ShapeTable(model, input_shape, layers, tensors, outputs=kernels[-1][1][:1], channels=channels)
