"""Networks that are chains: linear layers and convolutions with a ReLU between them, and images flattened on the way.

A chain is found by running the network once and watching its layers, and proved by recomputing what every layer was
given and what came out in the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunelang.runtime.blocks.descent import Chain
from prunelang.runtime.blocks.layers import Convolution, Layer, Linear

PROBES = 3
HARMLESS = (nn.ReLU, nn.Flatten, nn.Identity, nn.Dropout)  # what they do between layers is checked with the outputs
TOLERANCE = 1e-9  # of what float64 gives on the same operations in another order, relative to the largest entry


class NotAChain(Exception):
    """Why a network is no chain; names the module or the place."""


@dataclass(frozen=True)
class Call:
    """One layer at work: what it was given and what it made."""

    name: str
    module: nn.Linear | nn.Conv2d
    given: Tensor
    made: Tensor


@torch.no_grad()
def chain_of(model: nn.Module, shape: tuple[int, ...]) -> Chain:
    """The chain that `model` is for inputs of `shape` (of one sample). The network is left as it was.

    Errors: `NotAChain`.
    """
    with _wide(model):
        first = next(model.parameters(), torch.empty(0))
        generator = torch.Generator().manual_seed(0)
        x = torch.randn((PROBES, *shape), generator=generator, dtype=torch.float64).to(first.device)
        calls, out = _watched(model, x)
        _require_joined(calls, x, out)
    names = {id(p): n for n, p in model.named_parameters()}
    layers = tuple(_layer(c) for c in calls)
    pairs = tuple((names[id(c.module.weight)], _bias(c, names)) for c in calls)
    chain = Chain(layers, tuple(w for w, _ in pairs), tuple(b for _, b in pairs))
    spare = [n for n in (*names.values(), *(n for n, _ in model.named_buffers())) if n not in chain.tensors]
    if spare:
        raise NotAChain(f"`{spare[0]}` belongs to none of its linear layers and convolutions")
    return chain


def _bias(call: Call, names: dict[int, str]) -> str:
    if call.module.bias is None:
        raise NotAChain(f"`{call.name}` has no bias")
    return names[id(call.module.bias)]


# ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _wide(model: nn.Module) -> Iterator[None]:
    """The network in float64 and evaluation mode; its own tensors come back at the end."""
    training = {m: m.training for m in model.modules()}
    own = {p: p.data for p in (*model.parameters(), *model.buffers())}
    for p in own:
        if p.is_floating_point():
            p.data = p.data.double()
    model.eval()
    try:
        yield
    finally:
        for p, data in own.items():
            p.data = data
        for m, mode in training.items():
            m.training = mode


def _watched(model: nn.Module, x: Tensor) -> tuple[list[Call], Tensor]:
    calls: list[Call] = []
    others: list[tuple[str, nn.Module]] = []

    def note(name: str, module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d):
            calls.append(Call(name, module, given[0], made))
        elif not isinstance(module, HARMLESS):
            others.append((name, module))

    hooks = [
        m.register_forward_hook(lambda module, given, made, name=name: note(name, module, given, made))
        for name, m in model.named_modules()
        if not any(m.children())
    ]
    try:
        out = model(x)
    except Exception as error:
        raise NotAChain(f"it does not run in float64: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    for name, module in others:
        raise NotAChain(f"`{name}` is a {type(module).__name__}")
    if not calls:
        raise NotAChain("it has no linear layer or convolution")
    seen: set[int] = set()
    for call in calls:
        if id(call.module.weight) in seen:
            raise NotAChain(f"`{call.name}` is used more than once")
        seen.add(id(call.module.weight))
    return calls, out


def _require_joined(calls: list[Call], x: Tensor, out: Tensor) -> None:
    """Every layer was given the ReLU of what the one before it made, flattened or not; the last one made the output."""
    before, where = x, "the input"
    for call in calls:
        if not _same(before, call.given):
            between = f"`{call.name}` is not given {where}"
            raise NotAChain(between + ("" if before is x else " after a ReLU, with nothing else between them"))
        layer, (W, b) = _layer(call), (call.module.weight, call.module.bias)
        if b is not None and not _same(layer.apply(W, b, call.given), call.made):
            raise NotAChain(f"`{call.name}` does more than its kernel and its bias")
        before, where = call.made.relu(), f"what `{call.name}` makes"
    if not _same(calls[-1].made, out):
        raise NotAChain(f"its output is not what `{calls[-1].name}` makes")


def _same(x: Tensor, y: Tensor) -> bool:
    if x.numel() != y.numel() or len(x) != len(y):
        return False
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    return float((x - y).abs().max()) <= TOLERANCE * max(1.0, float(x.abs().max()))


# ── layers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _layer(call: Call) -> Layer:
    module = call.module
    if isinstance(module, nn.Linear):
        if call.given.dim() != 2:
            raise NotAChain(f"`{call.name}` is applied at every position of a sequence")
        return Linear(module.in_features, module.out_features)
    if module.groups != 1:
        raise NotAChain(f"`{call.name}` is a convolution in {module.groups} groups")
    if module.padding_mode != "zeros":
        raise NotAChain(f"`{call.name}` pads by {module.padding_mode}")
    channels, height, width = call.given.shape[1:]
    padding = _padding(call, module)
    kernel, stride, dilation = (_pair(v) for v in (module.kernel_size, module.stride, module.dilation))
    return Convolution((channels, height, width), module.out_channels, kernel, stride, padding, dilation)


def _padding(call: Call, module: nn.Conv2d) -> tuple[int, int]:
    if module.padding == "valid":
        return (0, 0)
    if isinstance(module.padding, str):
        spans = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        if any(s % 2 for s in spans):
            raise NotAChain(f"`{call.name}` pads its two sides differently")
        return (spans[0] // 2, spans[1] // 2)
    return _pair(module.padding)


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return (values[0], values[1])
