"""A small causal transformer over bytes, attention written out."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Pre-norm attention with the linear layers q, k, v, o, then fc1 → GELU → fc2 at four times the width."""

    causal: Tensor

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.o = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        future = torch.ones(context, context, dtype=torch.bool).triu(1)
        self.register_buffer("causal", future, persistent=False)

    def attend(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        q, k, v = (f(x).reshape(n, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(2, 3) / sqrt(width // self.heads)
        scores = scores.masked_fill(self.causal[:t, :t], float("-inf"))
        y = scores.softmax(-1) @ v
        out: Tensor = self.o(y.transpose(1, 2).reshape(n, t, width))
        return out

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))
        out: Tensor = x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))
        return out


class ByteTransformer(nn.Module):
    """Blocks ``block1 … blockL`` between a byte embedding with learned positions and the ``head``.

    Input ``N × T`` bytes as int64, T ≤ context; output ``N × T × 256`` logits of the next byte. Kernels and embeddings
    start normal with deviation 0.02 (o and fc2: 0.02/√(2L)), biases at zero, from torch's global generator.
    """

    def __init__(self, layers: int, width: int, heads: int, context: int, tied: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads divide the width: {width} / {heads} is not whole")
        self.embedding = nn.Embedding(256, width)
        self.position = nn.Embedding(context, width)
        self.blocks = [f"block{i}" for i in range(1, layers + 1)]
        for name in self.blocks:
            self.add_module(name, Block(width, heads, context))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 256, bias=False)
        self.initialize()
        if tied:
            self.head.weight = self.embedding.weight

    def initialize(self) -> None:
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif p.dim() == 2:
                last = name.endswith((".o.weight", ".fc2.weight"))
                nn.init.normal_(p, std=0.02 / sqrt(2 * len(self.blocks)) if last else 0.02)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embedding(x) + self.position.weight[: x.shape[1]]
        for name in self.blocks:
            y = self.get_submodule(name)(y)
        out: Tensor = self.head(self.norm(y))
        return out


def byte_transformer(
    layers: int = 4, width: int = 128, heads: int = 4, context: int = 128, tied: bool = False
) -> ByteTransformer:
    """Causal transformer over bytes."""
    return ByteTransformer(layers, width, heads, context, tied)
