"""Soft thresholds in the script: declarations, courses, the rise in every step, the hit at the end."""

from __future__ import annotations

from prunelang.compiler.codegen import feasible
from prunelang.compiler.codegen.program import Program
from prunelang.compiler.graph import (
    Aim,
    Fill,
    Hit,
    Latent,
    Materialize,
    Offset,
    Retain,
    Rise,
    Steer,
    Sums,
    Tabulate,
    TrainedLevel,
)
from prunelang.compiler.graph.state import Kappa
from prunelang.compiler.schedule import Constant, clocks_of

SHAPES = "prunelang.compiler.thresholds"

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────


def latent(node: Latent, p: Program) -> None:
    p.writer.comment(node.line())
    zero = "torch.zeros_like(w.detach()).requires_grad_(True)"
    p.writer.line(f"{p.name(node.name)} = [{zero} for w in {p.name(node.of)}]")


def trained_level(node: TrainedLevel, p: Program) -> None:
    """A list of one vector, as every trained state is a list of tensors."""
    of = p.name(node.of)
    p.writer.comment(node.line())
    p.writer.line(f"{p.name(node.name)} = [{of}[0].detach().new_zeros(len({of})).requires_grad_(True)]")


# ── before the loop ──────────────────────────────────────────────────────────────────────────────────────────────


def fill(step: Fill, p: Program) -> None:
    with p.writer.block(f"for v in {p.name(step.target)}:"):
        p.writer.line(f"v.fill_({step.value!r})")


def tabulate(step: Tabulate, p: Program) -> None:
    node = p.nodes[step.sums]
    assert isinstance(node, Sums)
    w = p.writer
    w.comment(node.line())
    length = str(max(1, round(float(node.duration.value)))) if isinstance(node.duration, Constant) else ""
    length = length or f"max(1, round({p.expression(node.duration)}))"
    batches = f"-(-len(train_x) // {p.data.batch})"
    total = f"{length} * {batches}" if node.unit == "epochs" else length
    clocks = "epoch, step, p" + (", k=0.0" if "k" in clocks_of(node.rate) else "")
    rate = f"lambda {clocks}: {p.expression(node.rate)}"
    w.call(f"{p.name(step.sums)} = {p.inliner.use(SHAPES, 'prefix_sums')}(", [rate, total, batches])


def aim(step: Aim, p: Program) -> None:
    p.writer.comment(step.line())
    end = repr(step.value)
    if step.sums is not None:
        end = f"{p.inliner.use(SHAPES, 'between')}({p.name(step.sums)}, {step.rise.reach!r})"
    p.writer.line(f"course_{p.name(step.level)} = (0.0, 0.0, {end}, 1.0)")


def offset(step: Offset, p: Program) -> None:
    w, d, weights, theta = p.writer, p.name(step.level), p.name(step.of), p.name(step.latent)
    w.comment(step.line())
    w.line(f"{d} = " + (repr(step.value) if step.kappa is None else _beyond(weights, step.kappa, p)))
    w.line(f"{p.kernel('offset_')}({theta}, {weights}, {d}, {'0.0' if step.kappa is None else d})")
    w.line(f"{p.kernel('soft_')}({weights}, {theta}, {d})")


# ── every step ───────────────────────────────────────────────────────────────────────────────────────────────────


def materialize(step: Materialize, p: Program) -> None:
    level, rise = p.name(step.level), step.rise
    p.writer.line(f"{level} = {p.kernel('anchored')}(p, course_{level}, {rise.reach!r}, {shape(rise, p)})")
    _soft(step.latent, level, p.name(step.of), p.name(step.latent), p)


def shape(rise: Rise, p: Program) -> str:
    """f of a rise as an expression."""
    name = p.inliner.use(SHAPES, rise.shape)
    if rise.shape == "pgh":
        return f"lambda x: {name}(x, {rise.beta!r})"
    if rise.shape == "lats":
        assert rise.sums is not None
        return f"lambda x: {name}(x, {p.name(rise.sums)}, {rise.reach!r})"
    return name


def _soft(latent_name: str, level: str, weights: str, theta: str, p: Program) -> None:
    node = p.nodes[latent_name]
    assert isinstance(node, Latent)
    if node.trained is None:
        p.writer.line(f"{p.kernel('soft_')}({weights}, {theta}, {level})")
    else:
        own = f"{p.kernel('own_thresholds')}({p.name(node.trained)}[0], {level}, {node.budget})"
        p.writer.line(f"{p.kernel('soft_by_')}({weights}, {theta}, {own})")


def hand_over(latent_name: str, p: Program) -> None:
    """The gradients of what a latent writes become those of the latent, and of its trained thresholds."""
    node = p.nodes[latent_name]
    assert isinstance(node, Latent)
    theta, weights = p.name(latent_name), p.name(node.of)
    if node.trained is None:
        p.writer.line(f"{p.kernel('hand_over_')}({theta}, {weights})")
        return
    s = f"{p.name(node.trained)}[0]"
    own = f"{p.kernel('own_thresholds')}({s}, {p.name(node.level)}, {node.budget})"
    p.writer.line(f"{p.kernel('differentiate_')}({theta}, {s}, {weights}, {own}, {node.budget})")


# ── counts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _compared(latent_name: str, p: Program) -> str:
    """What is compared with the level, entry by entry."""
    node = p.nodes[latent_name]
    assert isinstance(node, Latent)
    theta = p.name(latent_name)
    if node.trained is None:
        return theta
    return f"{p.kernel('relative')}({theta}, {p.name(node.trained)}[0])"


def _beyond(tensors: str, kappa: Kappa, p: Program) -> str:
    next_ = kappa + 1 if isinstance(kappa, int) else f"{p.name(kappa)} + 1"
    return f"{p.helper('kth_largest')}({tensors}, {next_})"


def steer(step: Steer, p: Program) -> None:
    w, level = p.writer, p.name(step.level)
    w.comment(step.line())
    q = _beyond(_compared(step.latent, p), step.kappa, p)
    if isinstance(step.kappa, int):
        w.line("q = 0.0" if step.kappa >= p.entries(step.latent) else f"q = {q}")
    else:
        w.line(f"q = 0.0 if {p.name(step.kappa)} >= {p.entries(step.latent)} else {q}")
    last = f"last_{level} if p > 0 else (p, q)" if level in p.steered else "(p, q)"
    w.line(f"course_{level} = {p.kernel('steered')}(p, {level}, q, {last}, {step.rise.reach!r})")
    w.line(f"last_{level} = (p, q)")
    p.steered.add(level)


def hit(step: Hit, p: Program) -> None:
    w, level = p.writer, p.name(step.level)
    w.comment(step.line())
    (part,) = step.onto.parts
    masks, weights = p.view(step.support, part.tensors), p.name(step.of)
    node = p.nodes[step.latent]
    assert isinstance(node, Latent)
    compared = _compared(step.latent, p)
    w.line(f"latent = {compared}" if node.trained else f"latent = [v.detach() for v in {compared}]")
    w.line("projected = [v.clone() for v in latent]")
    feasible.project_part(step, 0, part, "projected", masks, p)
    pairs = f"for v, mask in zip(latent, {masks}) if v.numel()"
    w.line(f"outside = [torch.where(mask, 0, v).abs().amax() {pairs}]")
    largest = "float(torch.stack(outside).amax())"
    w.line(f"{level} = max({largest}, {level})" if step.floor else f"{level} = {largest}")
    _soft(step.latent, level, weights, p.name(step.latent), p)
    with w.block(f"for v, mask in zip({weights}, {masks}):"):
        w.line("v.mul_(mask)")


def retain(step: Retain, p: Program) -> None:
    p.writer.comment(step.line())
    masks = p.view(step.support, p.tensors(step.of))
    with p.writer.block(f"for mask, v in zip({masks}, {p.name(step.of)}):"):
        p.writer.line("torch.ne(v, 0, out=mask)")
