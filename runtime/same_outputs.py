"""Whether a smaller network does what the one that it was made from does."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}  # of outputs, relative to the largest


class ShrinkProblem(Exception):
    """A network that cannot be made smaller, with a stable code, what is wrong, and what to do about it.

    P530 cannot be traced or compared · P531 a module does not run with fewer channels · P532 other outputs ·
    P533 other tensors than the description of a shrunk network has · P534 units and factors at once · P535 no module
    for a layer's factors · P536 does not run with factors · P537 other outputs with them · P538 other layers of factors
    than the description has.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(f"[{code}] {message}\n{hint}" if hint else f"[{code}] {message}")
        self.code = code
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class Change:
    """What was done to a network: the codes of what it may lead to, and the words for it."""

    fails: str
    differs: str
    what: str
    hint: str


CUT = Change(
    "P531",
    "P532",
    "with fewer channels",
    "Give the module a method `shrink_channels`, or take its sizes from the tensors that it works on.",
)
FACTORED = Change(
    "P536",
    "P537",
    "with layers of factors",
    "A layer of factors has no `weight`, and rounds its products in another order: call the layer itself.",
)


def check_outputs(model: nn.Module, small: nn.Module, shape: Sequence[int], dtype: torch.dtype | str) -> None:
    """Both networks give the same outputs for random inputs, in evaluation mode. Errors: P530, P531, P532.

    In float64 where the network runs in it, else in its own type.
    """
    if not _same(model, small, shape, dtype, CUT, wide=True):
        _same(model, small, shape, dtype, CUT, wide=False)


def check_factored(
    model: nn.Module, exact: nn.Module, small: nn.Module, shape: Sequence[int], dtype: torch.dtype | str, spikes: bool
) -> None:
    """`small` gives the outputs of `exact` in float64, and those of `model` in its own type. Errors: P530, P536, P537.

    `exact` holds the products of the factors in float64, `model` these rounded to its type. Where neurons spike, the
    second is left out: a potential that is rounded otherwise may pass its threshold.
    """
    wide = _same(exact, small, shape, dtype, FACTORED, wide=True)
    if not (wide and spikes):
        _same(model, small, shape, dtype, FACTORED, wide=False)


def _same(
    model: nn.Module, small: nn.Module, shape: Sequence[int], dtype: torch.dtype | str, change: Change, wide: bool
) -> bool:
    """Whether the comparison was made: with `wide` in float64, in which not every network runs."""
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    pair = [copy.deepcopy(m).eval() for m in (model, small)]
    if wide:
        pair = [m.double() for m in pair]
    x = _example(pair[0], shape, torch.float64 if wide and kind.is_floating_point else kind)
    try:
        expected = _traced_outputs(pair[0], x)
    except _Failed as failed:
        if wide:
            return False
        raise ShrinkProblem("P530", f"{failed.where} does not run: {failed}") from failed
    if not bool(expected.result.isfinite().all()):
        raise ShrinkProblem("P530", "the network's outputs are not finite, so that they cannot be compared")
    _compare(expected, pair[1], x, change)
    return True


def _example(model: nn.Module, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Two inputs. Of whole numbers only 0 and 1 are sure to be in range."""
    generator = torch.Generator().manual_seed(0)
    if dtype.is_floating_point:
        x = torch.randn(2, *shape, generator=generator, dtype=dtype)
    else:
        x = torch.randint(0, 2, (2, *shape), generator=generator, dtype=dtype)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return x.to(device)


Said = tuple[str, int, float]  # what a module gave: its path, samples, and Σ|·|, to which units that are 0 add nothing


class _Failed(Exception):
    def __init__(self, where: str, error: Exception, said: list[Said]) -> None:
        super().__init__(str(error).splitlines()[0] if str(error) else type(error).__name__)
        self.where = where
        self.said = said


@dataclass(frozen=True)
class _Outputs:
    result: Tensor
    said: list[Said]


def _traced_outputs(model: nn.Module, x: Tensor) -> _Outputs:
    """The output, and what led to it. Random draws are the same each time. Errors: `_Failed`."""
    stack: list[str] = [""]
    said: list[Said] = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _watched(model, stack, said):
        torch.default_generator.manual_seed(0)
        try:
            result = model(x)
        except Exception as error:
            raise _Failed(_named(stack[-1]), error, said) from error
    return _Outputs(result, said)


def _named(path: str) -> str:
    return f"`{path}`" if path else "the network"


@contextmanager
def _watched(model: nn.Module, stack: list[str], said: list[Said]) -> Iterator[None]:
    def leave(path: str, out: object) -> None:
        stack.pop()
        if isinstance(out, Tensor) and out.is_floating_point() and out.dim():
            said.append((path, len(out), float(out.abs().sum(dtype=torch.float64))))

    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda m, a, path=path: stack.append(path)))
        handles.append(module.register_forward_hook(lambda m, a, out, path=path: leave(path, out)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _compare(expected: _Outputs, small: nn.Module, x: Tensor, change: Change) -> None:
    tolerance = TOLERANCE.get(expected.result.dtype, 1e-2)
    try:
        found = _traced_outputs(small, x)
    except _Failed as failed:
        where = _first_other(expected.said, failed.said, tolerance) or failed.where
        raise ShrinkProblem(change.fails, f"{where} does not run {change.what}: {failed}", change.hint) from failed
    if not _equal(expected.result, found.result, tolerance):
        where = _first_other(expected.said, found.said, tolerance) or "the network"
        raise ShrinkProblem(change.differs, f"{where} gives other outputs {change.what}", change.hint)


def _equal(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.shape != b.shape:
        return False
    return not a.numel() or float((a - b).abs().max()) <= tolerance * float(a.abs().max())


def _first_other(a: Sequence[Said], b: Sequence[Said], tolerance: float) -> str | None:
    """The first module that gave something else than units that are left out could explain."""
    known = {path for path, _, _ in a}
    both = (said for said in b if said[0] in known)  # a layer of factors may have modules of its own
    for (path, samples, x), (_, others, y) in zip(a, both, strict=False):
        if samples != others or abs(x - y) > tolerance * abs(x):
            return _named(path)
    return None
