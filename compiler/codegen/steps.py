"""One emitter per kind of step, in the shape of the executor: what it calls there is what is written here."""

from __future__ import annotations

from functools import singledispatch
from itertools import groupby

from prunelang.compiler.codegen import (
    blocks,
    coupling,
    factors,
    feasible,
    judging,
    minimax,
    pruning,
    relaxed,
    selection,
    stopping,
    thresholds,
)
from prunelang.compiler.codegen.expressions import literal, quoted
from prunelang.compiler.codegen.loop import emit_batches, emit_descend
from prunelang.compiler.codegen.program import BATCHES, Program, clocks_outside_loops, clocks_used
from prunelang.compiler.forms import Box
from prunelang.compiler.graph import (
    Aim,
    Ascend,
    Assign,
    Batches,
    Block,
    Bracket,
    Calibrate,
    Certify,
    Combination,
    Compose,
    Confine,
    Descend,
    Evaluate,
    Factor,
    Feasible,
    Fill,
    Finish,
    Forget,
    Hit,
    Join,
    KeepBest,
    Layers,
    Level,
    Materialize,
    Observe,
    Offset,
    Outer,
    Phase,
    Project,
    ProjectBalls,
    Prox,
    Reach,
    Recalibrate,
    Record,
    Reproject,
    Restore,
    Retain,
    Saddle,
    Search,
    Select,
    Shrink,
    Split,
    Start,
    Steer,
    SteerGates,
    SteerPenalty,
    Step,
    Sweep,
    Tabulate,
    Tighten,
    walk,
)

WITHOUT_GRADIENT = (
    Assign,
    Ascend,
    Project,
    ProjectBalls,
    Prox,
    Aim,
    Fill,
    Tabulate,
    Offset,
    Materialize,
    Steer,
    SteerGates,
    SteerPenalty,
    Hit,
    Retain,
    Compose,
    Factor,
    Reproject,
    Calibrate,
    Tighten,
    Finish,
)


def emit_program(program: tuple[Step, ...], p: Program) -> None:
    """Steps in order; neighbours that follow no gradient share one block."""
    said = (s for s in program if not _idle(s))
    for quiet, steps in groupby(said, key=lambda s: isinstance(s, WITHOUT_GRADIENT)):
        if not quiet:
            for step in steps:
                emit_step(step, p)
            continue
        with p.writer.block("with torch.no_grad():"):
            for step in steps:
                emit_step(step, p)


def _idle(step: Step) -> bool:
    """The end of a solve that leaves its weights as they are, in a set that leaves them free."""
    return isinstance(step, Finish) and not step.onto.parts and step.value == Combination(((1, step.of, None),))


@singledispatch
def emit_step(step: Step, p: Program) -> None:
    raise TypeError(f"no emitter for {type(step).__name__}")


@emit_step.register
def _(step: Phase, p: Program) -> None:
    p.clocks = clocks_used(p.graph, step.body)
    w = p.writer
    w.blank()
    w.comment(f"── {step.name} ──")
    number = [s for s in walk(p.graph.program) if isinstance(s, Phase)].index(step)
    if number < len(p.plan.stages) and (text := p.spec_line(p.plan.stages[number].span)):
        w.comment(text)
    for clock in sorted(clocks_outside_loops(step.body)):
        w.line(f"{clock} = 0.0")
    emit_program(step.body, p)
    w.line(f"{p.helper('require_finite')}(net, {quoted(step.name)})")


@emit_step.register
def _(step: Outer, p: Program) -> None:
    w = p.writer
    with w.block(f"for k in range({step.count}):"):
        if "p" in p.clocks:
            w.line(f"p = k / {step.count}")
        for name in step.levels:
            node = p.nodes[name]
            assert isinstance(node, Level)
            assert node.schedule is not None
            w.line(f"{p.name(name)} = {p.expression(node.schedule)}")
        p.outer = step.count
        emit_program(step.body, p)
        p.outer = None
    if "p" in p.clocks:
        w.line("p = 1.0")


@emit_step.register
def _(step: Batches, p: Program) -> None:
    emit_batches(step, p, emit_program)


@emit_step.register
def _(step: Descend, p: Program) -> None:
    emit_descend(step, p)


@emit_step.register
def _(step: Assign, p: Program) -> None:
    p.writer.comment(step.line())
    if isinstance(p.nodes[step.target], Level):
        p.writer.line(f"{p.name(step.target)} = 0.0")
        return
    _combine(p.name(step.target), step.value, p.tensors(step.target), p)


@emit_step.register
def _(step: Ascend, p: Program) -> None:
    p.writer.comment(step.line())
    for sign, name, _ in step.residual.terms:
        factor = f"{'-' if sign > 0 else ''}{p.name(step.step)}"
        with p.writer.block(f"for v, x in zip({p.name(step.dual)}, {p.name(name)}):"):
            p.writer.line(f"v.add_(x, alpha={factor})")


@emit_step.register
def _(step: Project, p: Program) -> None:
    p.writer.comment(step.line())
    if step.factors:
        p.writer.line(f"{p.name(step.factors)} = {{}}")
    for i, part in enumerate(step.onto.parts):
        out = p.view(step.target, part.tensors)
        masks = p.view(step.support, part.tensors) if step.support else ""
        _combine(out, step.source, part.tensors, p)
        if part.compositions:
            factors.project_part(step, i, part, step.target, p)
        else:
            feasible.project_part(step, i, part, out, masks, p)


@emit_step.register
def _(step: ProjectBalls, p: Program) -> None:
    for part in step.onto.parts:
        for name, radius in part.balls:
            ball = f"{p.view(step.target, part.tensors)}, {quoted(name)}, {radius!r}"
            p.writer.line(f"{p.kernel('shrink_')}({ball})")
        for c in part.compositions:
            if isinstance(box := c.forms[0], Box):
                p.writer.line(f"torch._foreach_clamp_min_({p.view(step.target, c.tensors)}, {box.lo!r})")
                p.writer.line(f"torch._foreach_clamp_max_({p.view(step.target, c.tensors)}, {box.hi!r})")


@emit_step.register
def _(step: Prox, p: Program) -> None:
    p.writer.comment(step.line())
    out = p.view(step.target, step.tensors)
    _combine(out, step.source, step.tensors, p)
    operator = feasible.penalty(step.function, p.expression(step.weight), step.by, p)
    p.writer.line(f"{operator}.prox_({out}, 1.0 / {p.name(step.over)})")
    if step.support:
        with p.writer.block(f"for mask, v in zip({p.view(step.support, step.tensors)}, {out}):"):
            p.writer.line("torch.ne(v, 0, out=mask)")


emit_step.register(Compose)(factors.compose)
emit_step.register(Factor)(factors.factor)
emit_step.register(Reproject)(factors.reproject)

emit_step.register(Aim)(thresholds.aim)
emit_step.register(Fill)(thresholds.fill)
emit_step.register(Hit)(thresholds.hit)
emit_step.register(Materialize)(thresholds.materialize)
emit_step.register(Offset)(thresholds.offset)
emit_step.register(Retain)(thresholds.retain)
emit_step.register(Steer)(thresholds.steer)
emit_step.register(SteerGates)(coupling.steer_gates)
emit_step.register(SteerPenalty)(relaxed.steer_penalty)
emit_step.register(Tabulate)(thresholds.tabulate)

emit_step.register(Start)(minimax.start)
emit_step.register(Select)(minimax.select)
emit_step.register(Shrink)(minimax.shrink)
emit_step.register(Confine)(minimax.confine)
emit_step.register(Saddle)(minimax.play)

emit_step.register(Split)(blocks.split)
emit_step.register(Sweep)(blocks.sweep)
emit_step.register(Join)(blocks.join)
emit_step.register(Layers)(blocks.inside)
emit_step.register(Block)(blocks.inside)

emit_step.register(Calibrate)(judging.calibrate)
emit_step.register(Tighten)(judging.tighten)

emit_step.register(Bracket)(pruning.bracket)
emit_step.register(Reach)(pruning.reach)

emit_step.register(Evaluate)(stopping.evaluate)
emit_step.register(Observe)(selection.observe)
emit_step.register(Forget)(stopping.forget)
emit_step.register(KeepBest)(stopping.keep_best)
emit_step.register(Restore)(stopping.restore)


@emit_step.register
def _(step: Search, p: Program) -> None:
    judging.search(step, p, emit_program)


@emit_step.register
def _(step: Finish, p: Program) -> None:
    p.writer.comment(step.line())
    if step.value != Combination(((1, step.of, None),)):
        _combine(p.name(step.of), step.value, p.tensors(step.of), p)
    if step.factors:
        factors.settle(step.factors, p)
    feasible.assertions(step, p)


@emit_step.register
def _(step: Recalibrate, p: Program) -> None:
    p.writer.comment(step.line())
    data = p.data
    feed = f"{p.inliner.use(BATCHES, 'batches')}(train_x, train_y, {data.batch}, args.seed, drawn)"
    p.writer.line(f"{p.helper('recalibrate')}(net, {feed}, {step.batches})")


@emit_step.register
def _(step: Record, p: Program) -> None:
    match step.what:
        case "epoch":
            p.writer.line(f'print(f"{step.stage}, epoch {{epoch}}: loss {{mean:.6g}}")')
        case "outer":
            text = "k = {k}: loss {mean:.6g}"
            if step.of and step.copy:
                apart = f"{p.helper('distance')}({p.name(step.of)}, {p.name(step.copy)})"
                text += f", ‖{step.of} − {step.copy}‖ = {{{apart}:.4g}}"
            p.writer.line(f'print(f"{text}")')
        case "stage":
            p.writer.line(f'print("{step.stage}: done")')


@emit_step.register
def _(step: Certify, p: Program) -> None:
    """What the weights are worth, and the file."""
    w = p.writer
    w.blank()
    w.comment("── counts, metrics, weights ──")
    reported: list[Feasible] = []
    for finish in (s for s in walk(p.graph.program) if isinstance(s, Finish)):
        if finish.onto not in reported:
            reported.append(finish.onto)
            feasible.reports(finish, p)


def _combine(out: str, value: Combination, tensors: tuple[str, ...], p: Program) -> None:
    terms = []
    for sign, name, level in value.terms:
        factor = f"{sign} / {p.name(level)}" if level else literal(float(sign))
        terms.append(f"({factor}, {p.view(name, tensors)})")
    p.writer.line(f"{p.kernel('combine_')}({out}, [{', '.join(terms)}])")
