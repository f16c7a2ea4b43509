"""Affine layers: convolutions are torch's, the adjoint is the adjoint, rows are the regression of the weights."""

from __future__ import annotations

import pytest
import torch

from prunelang.runtime.blocks.layers import Convolution, Layer, Linear, forward
from tests.runtime.blocks.generic import normal

LAYERS: list[Layer] = [
    Linear(6, 4),
    Convolution((2, 5, 6), 3, (3, 3)),
    Convolution((1, 6, 5), 2, (3, 2), (2, 2), (1, 0)),
    Convolution((3, 8, 7), 4, (2, 3), (3, 2), (0, 1), (2, 1)),
    Convolution((2, 3, 3), 5, (1, 1)),
]


@pytest.mark.parametrize("layer", LAYERS)
def test_adjoint_rows_and_shapes(layer: Layer) -> None:
    V, W = normal(4, *layer.input_shape, seed=0), normal(*layer.weight_shape, seed=1)
    b = normal(layer.weight_shape[0], seed=2)
    Z = layer.apply(W, b, V)
    assert Z.shape == (4, *layer.output_shape)
    R = normal(*Z.shape, seed=3)
    back = layer.adjoint(W, R)
    assert back.shape == V.shape
    linear = layer.apply(W, torch.zeros_like(b), V)
    assert torch.allclose((linear * R).sum(), (V * back).sum(), rtol=1e-12)
    rows = layer.rows(V)
    assert rows.shape[1] == layer.features
    torch.testing.assert_close(rows @ W.flatten(1).T + b, layer.columns(Z), rtol=1e-12, atol=1e-12)


def test_forward_is_the_network() -> None:
    chain = (Convolution((1, 5, 5), 2, (3, 3), (2, 2)), Linear(8, 6), Linear(6, 3))
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3, 2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8, 6), torch.nn.ReLU(),
        torch.nn.Linear(6, 3),
    ).double()  # fmt: skip
    weights = [(m.weight.detach(), m.bias.detach()) for m in model if hasattr(m, "weight")]
    X = normal(9, 1, 5, 5, seed=0)
    torch.testing.assert_close(forward(chain, weights, X), model(X).detach(), rtol=1e-12, atol=1e-12)
