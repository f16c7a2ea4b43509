"""What a script that stands alone needs beside the operators: reading data, the order of batches, saving weights.

Emitted scripts hold the source of these functions; they need torch and the standard library, and nothing of prunelang
but functions that are copied with them.
"""

from __future__ import annotations

import ctypes
import gzip
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from prunelang.runtime.data.dataset import _stratified
from prunelang.runtime.data.mnist import FILES, prepared
from prunelang.runtime.descent import DIVERGED
from prunelang.runtime.losses import summed
from prunelang.runtime.machine import first_not_finite

SAFETENSORS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file: 8 bytes of header size, the header as JSON, then the data."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    tensors = {}
    for name, entry in json.loads(raw[8:start]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            dtype = SAFETENSORS[entry["dtype"]]
            content = bytearray(raw[start + begin : start + end])
            flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Saves dense tensors, by falling entry size; −0.0 becomes 0.0, since a stored zero is a zero."""
    codes = {dtype: code for code, dtype in SAFETENSORS.items()}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    content, end = [], 0
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        t = tensor.detach().cpu().contiguous()
        t = torch.where(t == 0, 0, t) if t.is_floating_point() else t
        data = ctypes.string_at(t.data_ptr(), t.nbytes) if t.nbytes else b""
        begin, end = end, end + len(data)
        header[name] = {"dtype": codes[t.dtype], "shape": list(t.shape), "data_offsets": [begin, end]}
        content.append(data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8, b" ")
    path.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *content]))


def read_idx(path: Path) -> Tensor:
    """The tensor of bytes in an idx file, packed with gzip or not."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rank = content[3]
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return torch.frombuffer(bytearray(content[4 + 4 * rank :]), dtype=torch.uint8).reshape(shape)


def idx_images(root: Path, center: bool) -> dict[str, tuple[Tensor, Tensor]]:
    """Train and test images of the four idx files in `root`, packed or not, and their labels."""
    raw = {}
    for key, name in FILES.items():
        packed, plain = root / f"{name}.gz", root / name
        raw[key] = read_idx(plain if plain.is_file() else packed)
    return prepared(raw, center)


# ── samples ──────────────────────────────────────────────────────────────────────────────────────────────────────


def without_validation(x: Tensor, y: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Train without the `count` samples, drawn by class, that are kept for validation."""
    index = (~_stratified(y, len(y), count, seed)).nonzero().flatten()
    return x.index_select(0, index), y.index_select(0, index)


def cut_validation(x: Tensor, y: Tensor, count: int, seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The rest, and `count` samples drawn by class."""
    chosen = _stratified(y, len(y), count, seed)
    rest, cut = (~chosen).nonzero().flatten(), chosen.nonzero().flatten()
    return (x.index_select(0, rest), y.index_select(0, rest)), (x.index_select(0, cut), y.index_select(0, cut))


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────


def parameters(net: nn.Module, *names: str) -> list[Tensor]:
    """Parameters by name: the network's own tensors, not copies."""
    return [net.get_parameter(name) for name in names]


class Watch:
    """The mean loss of each epoch; stops the script when it explodes or a stored number is not finite."""

    def __init__(self, net: nn.Module, device: str) -> None:
        self.net = net
        self.total = torch.zeros((), dtype=torch.float64, device=device)
        self.count = 0
        self.first: float | None = None

    def add(self, loss: Tensor) -> None:
        self.total += loss
        self.count += 1

    def mean(self, where: str) -> float:
        """The mean since the last call. Raises `ArithmeticError`: nothing is saved then."""
        mean = float(self.total) / max(1, self.count)
        self.total.zero_()
        self.count = 0
        if not math.isfinite(mean):
            raise ArithmeticError(f"{where}: the loss is not finite")
        if self.first is None:
            self.first = mean
        if mean > DIVERGED * (1.0 + abs(self.first)):
            raise ArithmeticError(f"{where}: the loss diverged: {mean:.3g} after {self.first:.3g}")
        require_finite(self.net, where)
        return mean


def require_finite(net: nn.Module, where: str) -> None:
    """Raises `ArithmeticError` unless every stored number is finite."""
    name = first_not_finite([*net.named_parameters(), *net.named_buffers()])
    if name is not None:
        raise ArithmeticError(f"{where}: tensor {name} holds a number that is not finite")


@torch.no_grad()
def outputs_of(net: nn.Module, x: Tensor) -> Tensor:
    """What a frozen network says."""
    out: Tensor = net(x)
    return out


def recalibrate(net: nn.Module, inputs: Iterable[tuple[Tensor, Tensor]], count: int) -> None:
    """Statistics of batch normalisation anew, as averages over `count` batches, with the weights as they are."""
    norms = [m for m in net.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # cumulative average
    net.train()
    with torch.no_grad():
        for x, _ in islice(inputs, count):
            net(x)
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum


# ── counts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def kth_largest(tensors: Sequence[Tensor], kappa: int) -> float:
    """The κ-th largest magnitude over all tensors, κ ≥ 1. An order statistic is exact, however it is found."""
    flat = torch.cat([t.detach().abs().flatten() for t in tensors])
    return float(flat.kthvalue(len(flat) - kappa + 1).values)


def project_largest_(tensors: Sequence[Tensor], kappa: int, masks: Sequence[Tensor]) -> None:
    """θ ← Π{‖·‖₀ ≤ κ}(θ): the κ largest magnitudes stay, of equal ones those that come first; `masks` says which."""
    flat = torch.cat([t.detach().abs().flatten() for t in tensors])
    keep = torch.ones_like(flat, dtype=torch.bool) if kappa >= len(flat) else torch.zeros_like(flat, dtype=torch.bool)
    if 0 < kappa < len(flat):
        threshold = flat.kthvalue(len(flat) - kappa + 1).values
        keep = flat > threshold
        keep[(flat == threshold).nonzero().flatten()[: kappa - int(keep.sum())]] = True
    pieces = torch.split(keep, [t.numel() for t in tensors])
    for t, mask, kept in zip(tensors, masks, pieces, strict=True):
        mask.copy_(kept.view_as(t))
        t.detach().masked_fill_(~mask, 0)


def keep_largest_(tensors: Sequence[Tensor], kappa: int, masks: Sequence[Tensor]) -> None:
    """Of the positions that `masks` keep, the κ of largest magnitude stay: an outer budget after inner ones."""
    if sum(int(mask.sum()) for mask in masks) <= kappa:
        return
    fresh = [torch.empty_like(mask) for mask in masks]
    project_largest_(tensors, kappa, fresh)
    for mask, keep in zip(masks, fresh, strict=True):
        mask &= keep  # a zero that an inner budget dropped stays dropped


def nonzeros(tensors: Sequence[Tensor]) -> int:
    """‖·‖₀"""
    return sum(int(torch.count_nonzero(t)) for t in tensors)


def weighted_nonzeros(costs: Sequence[int], tensors: Sequence[Tensor]) -> int:
    """``Σ_t cost_t · ‖W_t‖₀``"""
    return sum(a * int(torch.count_nonzero(t)) for a, t in zip(costs, tensors, strict=True))


def cheapest(ways: Sequence[Sequence[tuple[int, int]]], tensors: Sequence[Tensor]) -> int:
    """``Σ_t min_f (a_tf · ‖W_t‖₀ + c_tf)``: each tensor in the format f that takes least."""
    total = 0
    for formats, t in zip(ways, tensors, strict=True):
        n = int(torch.count_nonzero(t))
        total += min(a * n + c for a, c in formats)
    return total


def vector_norm(tensors: Sequence[Tensor], order: float) -> float:
    """``‖·‖_p`` of the concatenation, in float64."""
    return float(torch.linalg.vector_norm(torch.cat([t.detach().flatten().double() for t in tensors]), order))


def relaxed(tensors: Sequence[Tensor], function: str, beta: float) -> float:
    """``Σ(1 − e^(−β|w|))`` for drr, ``Σ|w|`` for norm1, summed in float64."""
    total = 0.0
    for t in tensors:
        size = t.detach().double().abs()
        total += float((size if function == "norm1" else -torch.expm1(-beta * size)).sum())
    return total


def distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """``‖a − b‖₂``, summed in float64."""
    pairs = zip(first, second, strict=True)
    return math.sqrt(sum(float((a.detach().double() - b.detach().double()).square().sum()) for a, b in pairs))


class Best:
    """The best state that a loop has passed through: a copy of its tensors, and of its levels."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors
        self.copies: list[Tensor] = []
        self.score = (math.inf, math.inf)
        self.levels: tuple[float, ...] = ()

    @torch.no_grad()
    def offer(self, score: tuple[float, float], levels: tuple[float, ...] = ()) -> bool:
        """Keep the state as it is if its score, (miss of the floors, loss), is lower than the one kept."""
        if not (math.isfinite(score[1]) and score < self.score):
            return False
        self.score, self.levels = score, levels
        if not self.copies:
            self.copies = [torch.empty_like(t) for t in self.tensors]
        for copy, t in zip(self.copies, self.tensors, strict=True):
            copy.copy_(t)
        return True

    @torch.no_grad()
    def restore(self, levels: tuple[float, ...] = ()) -> tuple[float, ...]:
        """Go back to the state kept, and its levels; without one, nothing changes."""
        if not self.copies:
            return levels
        for copy, t in zip(self.copies, self.tensors, strict=True):
            t.copy_(copy)
        return self.levels


def miss(value: float, relation: str, bound: float) -> float:
    """By how much a value misses its bound, in units of the bound; 0 where it holds, ∞ for a value that is none."""
    gap = bound - value if relation == "≥" else value - bound
    return math.inf if math.isnan(gap) else max(0.0, gap) / max(abs(bound), 1e-12)


@torch.no_grad()
def measured(net: nn.Module, name: str, x: Tensor, y: Tensor) -> float:
    """A metric over a whole split, in evaluation mode, summed in float64."""
    net.eval()
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for start in range(0, len(x), 1024):
        total += summed(name, net(x[start : start + 1024]), y[start : start + 1024])
    net.train()
    return float(total) / (len(x) if name == "mse" else y.numel())


@torch.no_grad()
def averaged(net: nn.Module, loss: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """A data term over a whole split, in evaluation mode: the mean of its means over batches, by their sizes."""
    net.eval()
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for start in range(0, len(x), 1024):
        inputs, targets = x[start : start + 1024], y[start : start + 1024]
        total += loss(net(inputs), inputs, targets).to(torch.float64) * len(inputs)
    net.train()
    return float(total) / len(x)
