"""Networks in which layers of low rank and trains multiply by their factors, in the place of dense layers.

    tensor is made of     `nn.Linear` becomes     `nn.Conv2d` becomes
    low rank r            `LowRankLinear`         `LowRankConv2d`
    tensor train          `TrainLinear`           `TrainConv2d`

Sums, codebooks and fixed values stay dense: their products are no product of factors. A train is contracted in the
order that its operations are counted for. No unit is cut out, whatever its weights. The new network is compared with
the one that it was made from: in float64 with what the factors multiply out to, and in its own type with the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from prunelang.compiler.forms import Composition, LowRank, TensorTrain, from_json, to_json, unbounded
from prunelang.compiler.shapes import ShapeTable
from prunelang.compiler.trains import full_ranks, matrix_of, order
from prunelang.runtime.factored import LowRankConv2d, LowRankLinear, TrainConv2d, TrainLinear
from prunelang.runtime.factors import Factors, compose64, named
from prunelang.runtime.files import FileProblem
from prunelang.runtime.same_outputs import ShrinkProblem, check_factored
from prunelang.runtime.weights import Arrays

CORES = 60  # the axes that a tensor of torch may have, and some to spare


@dataclass(frozen=True)
class Placed:
    """A layer of factors: the path of its module, what its weight is made of, the ranks, the order of contraction.

    A low rank has one rank and no order.
    """

    path: str
    composition: Composition
    ranks: tuple[int, ...]
    order: tuple[int, ...] = ()

    @property
    def tensor(self) -> str:
        return self.composition.tensors[0]

    def text(self) -> str:
        """``low rank 4``, ``train 3-4 in the order 2-1-3``: of the cores G_1 … G_d."""
        if isinstance(self.composition.forms[0], LowRank):
            return f"low rank {self.ranks[0]}"
        return f"train {'-'.join(map(str, self.ranks))} in the order {'-'.join(str(k + 1) for k in self.order)}"

    def to_json(self) -> dict[str, Any]:
        composition = to_json(self.composition)
        return {"path": self.path, "composition": composition, "ranks": list(self.ranks), "order": list(self.order)}

    @classmethod
    def from_json(cls, data: Any) -> Placed:
        """Errors: AttributeError, KeyError, TypeError and ValueError for what describes no layer."""
        if type(data["path"]) is not str:
            raise TypeError("the path of a layer is text")
        ranks, steps = tuple(data["ranks"]), tuple(data["order"])
        if not all(type(i) is int for i in (*ranks, *steps)):
            raise TypeError("ranks and orders are whole numbers")
        return cls(data["path"], from_json(data["composition"]), ranks, steps)


def replaceable(composition: Composition) -> bool:
    """Whether a layer can multiply by the factors: of one matrix of low rank, or one train."""
    single = len(composition.forms) == 1 and len(composition.tensors) == 1
    return single and isinstance(composition.forms[0], LowRank | TensorTrain)


# ── which layers ─────────────────────────────────────────────────────────────────────────────────────────────────


def places(
    model: nn.Module, table: ShapeTable, factors: Factors, asked: Iterable[Composition] | None = None
) -> tuple[Placed, ...]:
    """The layers that become layers of factors.

    `asked` are the compositions that the spec asks for, whose bounds on ranks decide the orders; without, those of the
    file of factors. Errors: `FileProblem` P517 where the file has others, `ShrinkProblem` P535.
    """
    chosen = [c for c in factors.compositions if replaceable(c)]
    bounds = {c.tensors: c for c in (chosen if asked is None else asked)}
    return tuple(p for c in chosen for p in _placed(model, table, c, bounds.get(c.tensors), factors.arrays))


def _placed(
    model: nn.Module, table: ShapeTable, c: Composition, bound: Composition | None, arrays: Arrays
) -> Iterator[Placed]:
    name = c.tensors[0]
    if bound is None or [unbounded(f) for f in bound.forms] != [unbounded(f) for f in c.forms]:
        raise FileProblem("P517", f"the factors of `{name}` are not of the form that the spec asks for")
    ranks, steps = ranks_of(c, arrays), _order(bound)
    t = table.tensor[name]
    for own in (t.name, *t.aliases):
        path = own.removesuffix("weight").removesuffix(".")
        reason = _reason(model, own, path)
        if reason:
            hint = "Take the tensor out of the constraint, or make its layer a `nn.Linear` or `nn.Conv2d`."
            raise ShrinkProblem("P535", f"`{name}` is made of factors, and {reason}", hint)
        yield Placed(path, c, ranks, steps)


def ranks_of(c: Composition, arrays: Arrays) -> tuple[int, ...]:
    """r, or r_1 … r_{d−1}, from the shapes of the factors."""
    name = c.tensors[0]
    if isinstance(c.forms[0], TensorTrain):
        return tuple(int(arrays[named(name, 0, f"G{k}")].shape[3]) for k in range(1, len(c.forms[0].modes)))
    return (int(arrays[named(name, 0, "U")].shape[1]),)


def _order(c: Composition) -> tuple[int, ...]:
    return order(c.forms[0]).order if isinstance(c.forms[0], TensorTrain) else ()


def _reason(model: nn.Module, name: str, path: str) -> str:
    """Why the module that has the tensor cannot be replaced; empty where it can."""
    module = _module_at(model, path)
    if module is None or name != _weight(path):
        return f"`{name}` is the weight of no layer"
    if type(module) not in (nn.Linear, nn.Conv2d):
        return f"no module of factors can take the place of `{path}`, of the class {type(module).__name__}"
    if module._forward_hooks or module._forward_pre_hooks:
        return f"`{path}` has hooks, which another module would not run"
    return ""


def _module_at(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


# ── the network ──────────────────────────────────────────────────────────────────────────────────────────────────


def replaced(model: nn.Module, placed: Sequence[Placed]) -> nn.Module:
    """A copy of `model` with layers of factors, whose values are not set. Ties, types, devices and biases stay."""
    memo: dict[int, Any] = {}
    first: dict[str, nn.Module] = {}
    for p in placed:
        old = model.get_submodule(p.path)
        if id(old) not in memo:
            new = memo[id(old)] = _module(old, p)
            new.bias = copy.deepcopy(old.bias, memo)
            _share(new, first.setdefault(p.tensor, new))
    return copy.deepcopy(model, memo)


def fill_(small: nn.Module, placed: Sequence[Placed], arrays: Arrays) -> None:
    """Give the layers of factors the values of their factors."""
    with torch.no_grad():
        for p in placed:
            module = small.get_submodule(p.path)
            if isinstance(module, TrainLinear | TrainConv2d):
                cores = module if isinstance(module, TrainLinear) else module.train_of
                cores.set_cores([_tensor(arrays, p, f"G{k + 1}") for k in range(len(cores.modes))])
            else:
                for symbol in ("U", "V"):
                    own = module.get_parameter(symbol)
                    own.copy_(_tensor(arrays, p, symbol).reshape(own.shape))


def with_factors(
    model: nn.Module, table: ShapeTable, placed: Sequence[Placed], arrays: Arrays, shape: Sequence[int], dtype: Any
) -> nn.Module:
    """A copy of `model` that multiplies by the factors of `placed`. Errors: `ShrinkProblem` P530, P536, P537."""
    small = replaced(model, placed)
    fill_(small, placed, arrays)
    check_factored(model, _exact(model, placed, arrays), small, shape, dtype, spikes=table.steps > 0)
    return small


def _exact(model: nn.Module, placed: Sequence[Placed], arrays: Arrays) -> nn.Module:
    """`model` in float64, with what the factors multiply out to."""
    wide = copy.deepcopy(model).double()
    with torch.no_grad():
        for p in placed:
            weight = wide.get_submodule(p.path).get_parameter("weight")
            weight.copy_(torch.from_numpy(compose64(p.composition, arrays)[p.tensor]))
    return wide


def _module(old: nn.Module, p: Placed) -> nn.Module:
    """On the device and of the type of the layer that it replaces; a bias is given to it later."""
    weight, form = old.get_parameter("weight"), p.composition.forms[0]
    made: dict[str, Any] = {"bias": False, "device": "meta", "dtype": weight.dtype}  # draws no random numbers
    new: nn.Module
    if isinstance(old, nn.Conv2d):
        sizes = (old.in_channels, old.out_channels, _pair(old.kernel_size))
        made |= {"stride": _pair(old.stride), "dilation": _pair(old.dilation), "groups": old.groups}
        made |= {"padding": old.padding, "padding_mode": old.padding_mode}
        if isinstance(form, TensorTrain):
            new = TrainConv2d(form.modes, p.ranks, *sizes, order=p.order, **made)
        else:
            new = LowRankConv2d(*sizes, p.ranks[0], **made)
    elif isinstance(form, TensorTrain):
        new = TrainLinear(form.modes, p.ranks, order=p.order, **made)
    else:
        new = LowRankLinear(weight.shape[1], weight.shape[0], p.ranks[0], **made)
    new = new.to_empty(device=weight.device).train(old.training)
    return new.requires_grad_(weight.requires_grad)


def _share(new: nn.Module, first: nn.Module) -> None:
    """Layers of one weight have the same factors."""
    if new is first:
        return
    for path, module in first.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name != "bias":
                new.get_submodule(path).register_parameter(name, parameter)


def _tensor(arrays: Arrays, p: Placed, symbol: str) -> Tensor:
    return torch.from_numpy(arrays[named(p.tensor, 0, symbol)].copy())


def _pair(sides: Any) -> tuple[int, int]:
    return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])


# ── from a description ───────────────────────────────────────────────────────────────────────────────────────────


def check_places(placed: Sequence[Placed], net: nn.Module, table: ShapeTable, kept: Mapping[str, Any]) -> None:
    """Whether described layers are those of a network at full size. Errors: `ShrinkProblem` P535, P538."""
    if not placed:
        return
    sizes = {g.name: g.size for g in table.channels}
    if any(len(members) != sizes.get(name) for name, members in kept.items()):
        raise ShrinkProblem("P538", "units are cut out beside layers of factors, which are never written together")
    for p in placed:
        fault = _fault(p, table)
        if fault:
            raise ShrinkProblem("P538", f"the layer of factors `{p.path}` {fault}")
    own = sorted(name for t in {p.tensor for p in placed} for name in (t, *table.tensor[t].aliases))
    alike = len({p.tensor for p in placed}) == len({(p.tensor, p.composition, p.ranks, p.order) for p in placed})
    if not alike or sorted(_weight(p.path) for p in placed) != own:
        raise ShrinkProblem("P538", f"layers of factors stand for other weights than {', '.join(own)}")
    for p in placed:
        reason = _reason(net, _weight(p.path), p.path)
        if reason:
            raise ShrinkProblem("P535", f"`{p.path}` is described as a layer of factors, and {reason}")


def _weight(path: str) -> str:
    return f"{path}.weight" if path else "weight"


def _fault(p: Placed, table: ShapeTable) -> str:
    """What is wrong with one layer; empty where nothing is."""
    c, t = p.composition, table.tensor.get(p.tensor)
    if t is None or not replaceable(c) or t.name != p.tensor or c.shapes != (t.shape,):
        return "is not of one matrix of low rank or one train of its weight"
    form, (rows, columns) = c.forms[0], t.matrix
    if not isinstance(form, TensorTrain):
        fits = len(p.ranks) == 1 and 0 <= p.ranks[0] <= min(rows, columns) and not p.order
        return "" if fits else f"has the ranks {list(p.ranks)} and the order {list(p.order)}"
    if len(form.modes) > CORES or matrix_of(form.modes) != (rows, columns) or not prod(t.shape):
        return f"has modes that do not multiply to {rows} × {columns}"
    full = full_ranks(form.modes)
    fits = len(p.ranks) == len(full) and all(0 <= r <= f for r, f in zip(p.ranks, full, strict=True))
    if not fits or sorted(p.order) != list(range(len(form.modes))):
        return f"has the ranks {list(p.ranks)} and the order {list(p.order)}"
    return ""
