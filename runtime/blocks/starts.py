"""Where a splitting starts from: kernels drawn from the samples themselves, and a last layer that fits the targets.

Differences of samples as input weights: McDonnell et al., Fast, simple and accurate handwritten digit classification by
training shallow neural network classifiers with the 'extreme learning machine' algorithm, PLoS ONE 10(8), 2015.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import torch
from torch import Tensor

from prunelang.runtime.blocks.layers import Layer
from prunelang.runtime.blocks.objective import Weights
from prunelang.runtime.blocks.weights import Gram

SEEN = 4096  # samples that kernels are drawn from
RIDGE = 1e-4  # of the least squares at the end, relative to the mean square of the layer's inputs


def drawn(layers: Sequence[Layer], X: Tensor, Y: Tensor, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Kernels and biases of every layer, in float64: each output tells two samples with different targets apart.

    A row of W is ``x − x'``, of samples (of a convolution: of patches at one place) as they come into the layer, scaled
    to norm 1 and then all rows alike until their pre-activations have mean square 1; the bias puts 0 half-way between
    x and x'. Drawn on the host: the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(X), generator=generator)[:SEEN]
    V, targets = X[chosen.to(X.device)].to("cpu", torch.float64), Y[chosen.to(Y.device)].cpu()
    made = []
    for layer in layers:
        W, b = _differences(layer, V, targets, generator)
        made.append((W.view(layer.weight_shape), b))
        V = torch.relu(layer.apply(*made[-1], V))
    return made


def _differences(layer: Layer, V: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    outputs, places = layer.weight_shape[0], prod(layer.output_shape[1:])
    rows = layer.rows(V)
    pairs = torch.randint(len(V), (2, 16 * outputs), generator=generator)
    at = torch.randint(places, (16 * outputs,), generator=generator)
    x, y = (rows[p * places + at] for p in pairs)
    differ = (targets[pairs[0]] != targets[pairs[1]]).any(1) & (x != y).any(1)
    first = torch.argsort(~differ, stable=True)[:outputs]  # those that differ, in the order drawn
    W, between = x[first] - y[first], (x[first] + y[first]) / 2
    plain = torch.randn(W.shape, generator=generator, dtype=torch.float64)
    W = torch.where(differ[first][:, None], W, plain)
    W = W / torch.linalg.vector_norm(W, dim=1, keepdim=True).clamp(min=torch.finfo(W.dtype).tiny)
    b = -(W * between).sum(1)
    size = (rows @ W.T + b).square().mean().sqrt()
    scale = torch.where(size > 0, 1 / size, 1.0)
    return W * scale, b * scale


def fitted(layer: Layer, V: Iterable[Tensor], targets: Iterable[Tensor], samples: int) -> tuple[Tensor, Tensor]:
    """``argmin_{W, b} ‖Y − W V − b‖²/n + ε‖W‖²`` of the last layer, ε = `RIDGE` times the mean square of an input."""
    sums: Gram | None = None
    for v, y in zip(V, targets, strict=True):
        sums = sums or Gram(layer, v.device)
        sums.add(v, y.view(len(v), *layer.output_shape))
    assert sums is not None
    A = sums.gram / samples
    A.diagonal()[:-1].add_(RIDGE * A.diagonal()[:-1].mean())
    A.diagonal().add_(torch.finfo(torch.float64).eps * A.diagonal().max())
    solution = torch.cholesky_solve((sums.cross / samples).T, torch.linalg.cholesky(A)).T
    return solution[:, :-1].reshape(layer.weight_shape), solution[:, -1]


def units(layers: Sequence[Layer], weights: Weights) -> tuple[float, ...]:
    """What a squared error of an activation of each layer weighs where one of the output weighs 1.

    ``s_N = 1, s_i = s_{i+1}·‖A_{i+1}‖²_F/min(rows, columns)/10``: a tenth of the mean square of the singular values of
    the layer behind, A as a matrix, so that V_i and the weights in front of it move alike. Nothing depends on how a
    factor is shared out between two layers.
    """
    found = [1.0]
    for layer, (W, _) in zip(reversed(layers[1:]), reversed(weights[1:]), strict=True):
        inputs, outputs = prod(layer.input_shape), prod(layer.output_shape)
        places = outputs // layer.weight_shape[0]
        mean = float(W.double().square().sum()) * places / min(inputs, outputs)
        found.append(found[-1] * max(mean, torch.finfo(torch.float32).tiny) / 10)
    return tuple(reversed(found))
