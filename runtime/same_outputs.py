"""Whether a smaller network does what the one that it was made from does."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}  # of outputs, relative to the largest


class ShrinkProblem(Exception):
    """A network that cannot be made smaller, with a stable code, what is wrong, and what to do about it.

    P530 cannot be traced or compared · P531 a module does not run with fewer channels · P532 other outputs ·
    P533 other tensors than the description of a shrunk network has.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(f"[{code}] {message}\n{hint}" if hint else f"[{code}] {message}")
        self.code = code
        self.message = message
        self.hint = hint


def check_outputs(model: nn.Module, small: nn.Module, shape: Sequence[int], dtype: torch.dtype | str) -> None:
    """Both networks give the same outputs for random inputs, in evaluation mode. Errors: P530, P531, P532."""
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    for wide in (True, False):
        pair = [copy.deepcopy(m).eval() for m in (model, small)]
        if wide:
            pair = [m.double() for m in pair]
        x = _example(pair[0], shape, torch.float64 if wide and kind.is_floating_point else kind)
        try:
            expected = _traced_outputs(pair[0], x)
        except _Failed as failed:
            if wide:
                continue  # not every network runs in float64
            raise ShrinkProblem("P530", f"{failed.where} does not run: {failed}") from failed
        if not bool(expected.result.isfinite().all()):
            raise ShrinkProblem("P530", "the network's outputs are not finite, so that they cannot be compared")
        _compare(expected, pair[1], x)
        return


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


def _compare(expected: _Outputs, small: nn.Module, x: Tensor) -> None:
    hint = "Give the module a method `shrink_channels`, or take its sizes from the tensors that it works on."
    tolerance = TOLERANCE.get(expected.result.dtype, 1e-2)
    try:
        found = _traced_outputs(small, x)
    except _Failed as failed:
        where = _first_other(expected.said, failed.said, tolerance) or failed.where
        raise ShrinkProblem("P531", f"{where} does not run with fewer channels: {failed}", hint) from failed
    if not _equal(expected.result, found.result, tolerance):
        where = _first_other(expected.said, found.said, tolerance) or "the network"
        raise ShrinkProblem("P532", f"{where} gives other outputs with fewer channels", hint)


def _equal(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.shape != b.shape:
        return False
    return not a.numel() or float((a - b).abs().max()) <= tolerance * float(a.abs().max())


def _first_other(a: Iterable[Said], b: Iterable[Said], tolerance: float) -> str | None:
    """The first module that gave something else than units that are left out could explain."""
    for (path, samples, x), (_, others, y) in zip(a, b, strict=False):
        if samples != others or abs(x - y) > tolerance * abs(x):
            return _named(path)
    return None
