"""Steps that remove weights and train nothing: a bracketed threshold, exact reachability, random gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunelang.compiler.graph import Bracket, Loss, Reach
from prunelang.compiler.problem import Measured
from prunelang.runtime.machine import Machine
from prunelang.runtime.reachability import Paths, Untraceable, Use, storage_of
from prunelang.runtime.standalone import nonzeros

# ── the bracket ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Crossing:
    """Where the loss crosses its bound: `below` is f with the weights that are left, `above` f one magnitude further.

    `above` is None if everything may go. `epsilon` is the smallest magnitude left, or the largest there was.
    """

    epsilon: float
    kept: int
    dense: float
    bound: float
    below: float
    above: float | None
    evaluations: int


@torch.no_grad()
def bracket_(weights: Sequence[Tensor], masks: Sequence[Tensor], f: Callable[[], float], delta: float) -> Crossing:
    """Sets to 0 every |W| < ε and takes it from `masks`: ε is a magnitude with f(ε) ≤ f(0) + δ|f(0)| < f(next).

    `f` measures the network as it is. Bisection over the distinct magnitudes other than 0, equal ones together; f need
    not be monotone, the two sides that the bisection ends with were both measured.
    """
    whole = [w.detach().clone() for w in weights]
    sizes = torch.cat([w.abs().flatten() for w in whole])
    sizes = torch.unique(sizes[sizes > 0])  # in rising order

    def cut(removed: int) -> None:
        for w, full in zip(weights, whole, strict=True):
            keep = full.abs() >= sizes[removed] if removed < len(sizes) else torch.zeros_like(full, dtype=torch.bool)
            w.detach().copy_(torch.where(keep, full, 0))

    dense = f()
    bound = dense + delta * abs(dense)
    low, high = 0, len(sizes)
    below, above, evaluations = dense, None, 1
    probe = high  # whether all may go is asked first
    while high > low:
        cut(probe)
        value = f()
        evaluations += 1
        if value <= bound:
            low, below = probe, value
        else:
            high, above = probe, value
        if high - low <= 1 and above is not None:
            break
        probe = (low + high) // 2
    cut(low)
    for w, mask in zip(weights, masks, strict=True):
        mask &= w.detach() != 0
    epsilon = float(sizes[min(low, len(sizes) - 1)]) if len(sizes) else 0.0
    return Crossing(epsilon, nonzeros(weights), dense, bound, below, above, evaluations)


def bracket(step: Bracket, m: Machine) -> None:
    """Runs `bracket_` on what the machine measures, and says where it ended."""
    weights, masks = m.view(step.of, step.tensors), m.view(step.support, step.tensors)
    before = nonzeros(weights)

    def f() -> float:
        values = (m.value(x.weight) * m.measure(Measured(x.name, step.split, x.arguments)).value for x in step.losses)
        return sum(values)

    found = bracket_(weights, masks, f, step.delta)
    m.observe(
        {
            "event": "pruned",
            "stage": "prune",
            "method": "tamade",
            "removed": before - found.kept,
            "kept": found.kept,
            "epsilon": found.epsilon,
            "split": step.split,
            "f(0)": found.dense,
            "bound": found.bound,
            "f(epsilon)": found.below,
            "f(next)": found.above,
            "evaluations": found.evaluations,
        }
    )


# ── reachability ─────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def remove_unreachable_(
    net: nn.Module,
    weights: Sequence[Tensor],
    masks: Sequence[Tensor],
    rest: Sequence[Tensor],
    spared: Sequence[Tensor],
    x: Tensor,
) -> int:
    """Takes from `masks`, and sets to 0, what no path of non-zero weights joins to the input and the output.

    `x` is one sample. A unit that no input reaches is a constant: where it is one number at all positions and the
    layer has a bias among `rest`, it moves into that bias. A 0 in `rest` or in `spared` blocks no path. The output
    stays the same for every input, up to the rounding of those biases. Returns how many weights moved into a bias.
    Errors: `Untraceable`, with everything as it was.
    """
    modes = [(m, m.training) for m in net.modules()]
    net.eval()
    moved, changed = 0, True
    try:
        while changed:
            changed, more = _remove_once(net, weights, masks, rest, spared, x.detach().clone())
            moved += more
    finally:
        for module, training in modes:
            module.training = training
    return moved


def _remove_once(
    net: nn.Module,
    weights: Sequence[Tensor],
    masks: Sequence[Tensor],
    rest: Sequence[Tensor],
    spared: Sequence[Tensor],
    x: Tensor,
) -> tuple[bool, int]:
    """Whether a weight other than 0 went, and how many moved into a bias."""
    paths = Paths(x, [*rest, *spared])
    try:
        with paths:
            output = net(x)
    except NotImplementedError as error:  # operators of higher order take no mode
        raise Untraceable(str(error)) from error
    if any(bool(paths.marks(paths.reached, b).any()) for b in net.buffers()):
        raise Untraceable("the network keeps what it has seen in a buffer")
    paths.sweep(output)
    changed, moved = False, 0
    for w, mask in zip(weights, masks, strict=True):
        use = paths.uses.get(storage_of(w))
        if use is not None and paths.reads[storage_of(w)] == 1:
            moved += _fold(paths, use, rest)
        keep = paths.marks(paths.wanted, w)
        changed |= bool((w.detach()[~keep] != 0).any())
        w.detach().masked_fill_(~keep, 0)
        mask &= keep
    return changed or moved > 0, moved


def _fold(paths: Paths, use: Use, rest: Sequence[Tensor]) -> int:
    """Move what constants contribute through a kernel into its bias; unmark those entries, and zeros beside them."""
    kernel, bias = use.kernel.detach(), use.bias
    idle = paths.marks(paths.wanted, kernel) & ~paths.marks(paths.joined, kernel)
    going = idle & (kernel == 0)
    if bias is not None and paths.reads[storage_of(bias)] == 1 and storage_of(bias) in map(storage_of, rest):
        going |= idle & use.steady
        others = [d for d in range(kernel.dim()) if d != use.outputs]
        bias.detach().add_((kernel * use.constant * going).sum(others, dtype=torch.float64).to(bias.dtype))
    moved = int(kernel[going].count_nonzero())
    kernel.masked_fill_(going, 0)
    paths.mark(paths.wanted, kernel, paths.marks(paths.wanted, kernel) & ~going, afresh=True)
    return moved


def remove_inactive_(
    net: nn.Module,
    weights: Sequence[Tensor],
    masks: Sequence[Tensor],
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    batch: tuple[Tensor, Tensor],
    draws: int,
    seed: int,
) -> None:
    """Takes from `masks`, and sets to 0, every W with ∂loss(net(x), x, y)/∂W = 0 for all of `draws` random (x, y).

    They have the shapes of `batch`: numbers are drawn from N(0, 1), classes and tokens are those of the batch in random
    order. In evaluation mode. What is merely inactive on all draws goes too.
    """
    generator = torch.Generator().manual_seed(seed)
    modes = [(m, m.training) for m in net.modules()]
    net.eval()
    active = [torch.zeros_like(mask) for mask in masks]
    for _ in range(draws):
        x, y = (drawn(t, generator) for t in batch)
        with torch.enable_grad():
            value = loss(net(x), x, y)
        grads = torch.autograd.grad(value, list(weights), allow_unused=True)
        for found, grad in zip(active, grads, strict=True):
            if grad is not None:
                found |= grad != 0
    for module, training in modes:
        module.training = training
    for w, mask, found in zip(weights, masks, active, strict=True):
        w.detach().masked_fill_(~found, 0)
        mask &= found


def drawn(like: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers in the shape of `like`, or its own entries in random order if they count something."""
    if like.is_floating_point():
        return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
    order = torch.randperm(like.numel(), generator=generator).to(like.device)
    return like.flatten()[order].view_as(like)


def reach(step: Reach, m: Machine) -> None:
    """Runs the removal of the step's method, and says what went."""
    weights, masks = m.view(step.of, step.tensors), m.view(step.support, step.tensors)
    before = nonzeros(weights)
    batch = next(iter(m.feed.epoch(m.epochs)))
    event: dict[str, object] = {"event": "pruned", "stage": "prune", "method": f"reachability, {step.method}"}
    if step.method == "random_gradient":
        seed = m.feed.seed + m.epochs
        remove_inactive_(m.model, weights, masks, objective(step.losses, m), batch, step.draws, seed)
    else:
        spared = m.view(step.of, step.spared)
        try:
            moved = remove_unreachable_(m.model, weights, masks, m.values[step.rest], spared, batch[0][:1])
            event["into biases"] = moved
        except Untraceable as error:
            event["nothing because"] = str(error)
    kept = nonzeros(weights)
    m.observe({**event, "removed": before - kept, "kept": kept})


def objective(losses: Sequence[Loss], m: Machine) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The weighted sum of data terms, as a function of outputs, inputs and targets."""
    (weight, first), *others = [(m.value(x.weight), m.criterion(x)) for x in losses]

    def value(outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        total = first(outputs, inputs, targets) * weight
        for factor, criterion in others:
            total = total + factor * criterion(outputs, inputs, targets)
        return total

    return value
