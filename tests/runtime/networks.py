"""Small networks whose units are joined in every way that is followed, and what tests do to units."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunelang.compiler.shapes import Channels, ShapeTable, Slice


def _conv(inputs: int, outputs: int, **more: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **more)  # type: ignore[arg-type]  # options by name


class Forward(nn.Module):
    """Named layers with a function of theirs as forward pass."""

    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def _depthwise(net: Forward, x: Tensor) -> Tensor:
    y = F.relu6(net.bn2(net.depth(F.relu6(net.bn1(net.up(x))))))
    return net.head(net.down(y).mean((2, 3)))


def _residual(net: Forward, x: Tensor) -> Tensor:
    y = net.stem(x)
    y = F.silu(y + net.b(F.hardswish(net.bn(net.a(F.relu(y))))))
    return net.head(F.adaptive_avg_pool2d(y, 2).flatten(1))


def _concatenated(net: Forward, x: Tensor) -> Tensor:
    y = torch.cat([net.a(x), F.relu(net.b(x))], 1).tanh()
    return net.head(F.avg_pool2d(F.interpolate(y, scale_factor=2), 4).flatten(1))


def _channels_last(net: Forward, x: Tensor) -> Tensor:
    return net.head(F.relu_(net.a(x)).permute(0, 2, 3, 1).flatten(1))


def _gated(net: Forward, x: Tensor) -> Tensor:
    value, gate = net.a(x.flatten(1)).chunk(2, 1)
    return net.head(value * torch.sigmoid(gate))


def _squeezed(net: Forward, x: Tensor) -> Tensor:
    y = F.gelu(net.a(x))
    weights = torch.sigmoid(net.wide(F.relu(net.narrow(y.mean((2, 3))))))
    return net.head((y * weights[:, :, None, None]).amax((2, 3)))


def _written(net: Forward, x: Tensor) -> Tensor:
    a, b = net.a(x), net.b(x)
    y = torch.empty(len(x), a.shape[1] + b.shape[1], *a.shape[2:], dtype=x.dtype, device=x.device)
    y[:, : a.shape[1]] = a.relu()
    y[:, a.shape[1] :] = b.mul_(2.0)
    y += 0
    return net.head(y.mean((2, 3)))


def _twice(net: Forward, x: Tensor) -> Tensor:
    y = F.leaky_relu(net.a(x.flatten(1)))
    for _ in range(2):
        y = F.elu(net.again(y)) * net.scale
    return net.head(y)


def _bag(net: Forward, x: Tensor) -> Tensor:
    return net.head(F.dropout(net.words(x).sum(1), 0.5, net.training))


def _volume(net: Forward, x: Tensor) -> Tensor:
    y = F.max_pool3d(net.bn(net.a(x.unsqueeze(2).expand(-1, -1, 2, -1, -1))), 2)
    return net.head(F.pad(y, (1, 1, 0, 0)).mean((2, 3, 4)))


def _prelu(net: Forward, x: Tensor) -> Tensor:
    return net.head(F.max_pool2d(net.act(net.a(x)), 2).flatten(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "depthwise": lambda: Forward(
        _depthwise, up=nn.Conv2d(3, 8, 1, bias=False), bn1=nn.BatchNorm2d(8), depth=_conv(8, 16, groups=8),
        bn2=nn.BatchNorm2d(16), down=nn.Conv2d(16, 6, 1), head=nn.Linear(6, 4),
    ),
    "residual": lambda: Forward(
        _residual, stem=_conv(3, 6), a=_conv(6, 5), bn=nn.BatchNorm2d(5), b=_conv(5, 6), head=nn.Linear(24, 4)
    ),
    "concatenated": lambda: Forward(_concatenated, a=_conv(3, 4), b=_conv(3, 5), head=nn.Linear(9 * 16, 4)),
    "channels last": lambda: Forward(_channels_last, a=_conv(3, 5), head=nn.Linear(5 * 64, 4)),
    "gated": lambda: Forward(_gated, a=nn.Linear(192, 14), head=nn.Linear(7, 4)),
    "squeezed": lambda: Forward(
        _squeezed, a=_conv(3, 6), narrow=nn.Linear(6, 3), wide=nn.Linear(3, 6), head=nn.Linear(6, 4)
    ),
    "written": lambda: Forward(_written, a=_conv(3, 4), b=_conv(3, 5), head=nn.Linear(9, 4)),
    "twice": lambda: Forward(
        _twice, a=nn.Linear(192, 6), again=nn.Linear(6, 6), scale=nn.Parameter(torch.rand(6)), head=nn.Linear(6, 4)
    ),
    "bag": lambda: Forward(_bag, words=nn.Embedding(12, 6), head=nn.Linear(6, 4)),
    "volume": lambda: Forward(_volume, a=nn.Conv3d(3, 5, 3, padding=1), bn=nn.BatchNorm3d(5), head=nn.Linear(5, 4)),
    "prelu": lambda: Forward(_prelu, a=_conv(3, 5), act=nn.PReLU(5), head=nn.Linear(5 * 16, 4)),
}  # fmt: skip

WHOLE_NUMBERS = frozenset({"bag"})


def members(t: Tensor, s: Slice, size: int) -> Tensor:
    """A view of a slice, member by member."""
    return t.movedim(s.dim, 0)[s.start : s.start + size * s.repeat].unflatten(0, (size, s.repeat))


def unsettle(model: nn.Module, seed: int) -> None:
    """Biases, scales and statistics that are all other than at the start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, t in [*model.named_parameters(), *model.named_buffers()]:
            if t.is_floating_point() and t.dim() == 1:
                noise = torch.rand(t.shape, generator=generator).to(t)
                t += 0.5 * noise if "running_var" in name else 0.3 * (noise - 0.4)


def silence(model: nn.Module, table: ShapeTable, share: float, seed: int) -> dict[str, tuple[int, ...]]:
    """Set all trained slices of random members to zero, but never of all; gives back the members that are left."""
    generator = torch.Generator().manual_seed(seed)
    left = {}
    for group in table.channels:
        dead = torch.rand(group.size, generator=generator) < share
        dead[int(torch.randint(group.size, (), generator=generator))] = False
        if group.reason:
            dead[:] = False
        zero(model, table, group, dead)
        left[group.name] = tuple((~dead).nonzero().flatten().tolist())
    return left


def zero(model: nn.Module, table: ShapeTable, group: Channels, dead: Tensor, *, reads: bool = True) -> None:
    """Set the trained slices of some members to zero; those by which they are read only with `reads`."""
    named = dict(model.named_parameters())
    for s in group.slices:
        if s.tensor in named and (reads or s.dim == 0 or table.tensor[s.tensor].role != "weight"):
            with torch.no_grad():
                members(named[s.tensor], s, group.size)[dead] = 0
