"""Measured constraints in the script: floors, the numbers of calibrated budgets, and the search for the best level."""

from __future__ import annotations

from prunelang.compiler.codegen import feasible
from prunelang.compiler.codegen.expressions import literal, quoted
from prunelang.compiler.codegen.factors import constructed
from prunelang.compiler.codegen.program import BATCHES, METRICS, Program, pick
from prunelang.compiler.codegen.writer import Group
from prunelang.compiler.description import NAME as DESCRIPTION
from prunelang.compiler.graph import (
    Calibrate,
    Calibration,
    Factors,
    Feasible,
    Floor,
    KeepBest,
    Multipliers,
    Observe,
    Optimizer,
    Search,
    Sparsity,
    Support,
    Tighten,
    walk,
)
from prunelang.compiler.graph.calibration import SPLIT
from prunelang.compiler.measured import CERTIFY, SELECT
from prunelang.compiler.synops import MEASURED as ACTIVITY
from prunelang.dsl.diagnostics import Diagnostic, SpecError

JUDGE = "prunelang.runtime.judge"
CALIBRATION = "prunelang.runtime.calibration"
SURROGATES = "prunelang.runtime.surrogates"


# ── what is declared ─────────────────────────────────────────────────────────────────────────────────────────────


def judged(p: Program) -> bool:
    """Whether the script asks more of a measured constraint than by how much a value misses its bound."""
    return any(
        isinstance(s, Search | Calibrate | Tighten) or any(f.name in ACTIVITY for f in _floors(s))
        for s in walk(p.graph.program)
    )


def _floors(step: object) -> tuple[Floor, ...]:
    found: tuple[Floor, ...] = getattr(step, "floors", ())
    return found


def splits_judged(p: Program) -> frozenset[str]:
    """The splits that a judge looks at, besides those that steps name."""
    steps = list(walk(p.graph.program))
    found = {node.certified for node in p.graph.state if isinstance(node, Calibration)}
    found |= {SPLIT} if any(isinstance(s, Calibrate | Tighten) for s in steps) else set()
    searched = (f.split for s in steps if isinstance(s, Search) for f in s.floors)
    return frozenset(found | {CERTIFY for split in searched if split == SELECT})


def declare(splits: list[str], p: Program) -> None:
    """The judge, its floors, and the numbers of budgets that data decides."""
    w = p.writer
    pairs = ", ".join(f"{quoted(s)}: ({s}_x, {s}_y)" for s in splits)
    given = ["net", f"{{{pairs}}}"]
    if p.spiking_kernels:
        given += [literal(p.spiking_kernels), str(p.plan.table.steps)]
    w.call(f"judge = {p.inliner.use(JUDGE, 'Judge')}(", given)
    floors = dict.fromkeys(f for s in walk(p.graph.program) for f in _floors(s))
    floors |= dict.fromkeys(s.floor for s in p.graph.state if isinstance(s, Calibration))
    for i, floor in enumerate(floors, 1):
        p.floors[floor] = f"floor_{i}"
        for text in p.constraint_lines([floor.label]):
            w.comment(text)
        made = constructed(floor, p)
        assert isinstance(made, Group)
        w.call(f"floor_{i} = {made.head}", made.items, made.tail)


def calibration(node: Calibration, p: Program) -> None:
    """Unknown until the first measurement."""
    w, name = p.writer, p.name(node.name)
    w.comment(node.line())
    made = p.inliner.use("prunelang.compiler.graph.calibration", "Calibration")
    values = [quoted(node.name), p.floors[node.floor], literal(node.tensors), quoted(node.certified)]
    w.call(f"{name}_of = {made}(", values)
    w.line(f"{name}: {p.inliner.use(SURROGATES, 'Surrogate')} | None = None")


# ── base ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def observe(step: Observe, p: Program) -> None:
    """`base` of every floor that speaks of it, and the weights that it is of."""
    p.writer.comment(step.line())
    p.writer.line(f"judge.note({', '.join(p.floors[f] for f in step.floors)})")
    for f in step.floors:
        p.bases[f.label, f.split] = f"judge.bases[{quoted(f.label)}, {quoted(f.split)}]"
        p.writer.line(f"value = {p.bases[f.label, f.split]}")
        p.writer.line(f'print(f"base: {f.name} on {f.split} {{value:.6g}}")')


# ── budgets of synaptic operations ───────────────────────────────────────────────────────────────────────────────


def calibrate(step: Calibrate, p: Program) -> None:
    p.writer.comment(step.line())
    moved = p.inliner.use(CALIBRATION, "moved")
    if step.rounds == 1:
        _measure(step, moved, p)
        return
    with p.writer.block(f"for _ in range({step.rounds}):"):
        _measure(step, moved, p)


def _measure(step: Calibrate, rate: str, p: Program) -> None:
    """One measurement, with the tensors as the projection would leave them where there were others before."""
    w, name, of, names = p.writer, p.name(step.bound), p.name(step.of), p.tensors(step.of)
    node = p.nodes[step.bound]
    assert isinstance(node, Calibration)
    w.line(f"projected = [w.detach().clone() for w in {of}]")
    if step.onto is not None and step.onto.parts:
        with w.block(f"if {name} is not None:"):
            _project(step, step.onto, "projected", names, "", p)
    own = p.view(p.weights_of(step.of), names)
    with w.block(f"with {p.inliner.use(CALIBRATION, 'standing_in')}({own}, projected):"):
        w.line(f'found = judge.activity("{SPLIT}")')
    w.line("counts = [int(torch.count_nonzero(v)) for v in projected]")
    w.line(f"counted = dict(zip({literal(names)}, counts))")
    values = [f"{name}_of", name, "found", "counted", f"len({node.certified}_x)", rate]
    w.call(f"{name} = {p.inliner.use(CALIBRATION, 'renewed')}(", values)
    _settle(node, p)
    w.line('value = found.total("synops") / len(found.synops)')
    w.line(f'print(f"{node.floor.label}: {{value:.6g}}")')


def _settle(node: Calibration, p: Program) -> None:
    """The game under way, with the budget's new numbers."""
    for m in p.graph.state:
        if isinstance(m, Multipliers) and any(r.measured == node.name for r in m.resources):
            p.writer.line(f"game_{m.of}.settle({current(m, p)})")


def current(node: Multipliers, p: Program, first: bool = False) -> str:
    """The resources of a game, with what is known of those that data decides; at first that may be nothing."""
    levels = p.nodes[node.of]
    assert isinstance(levels, Sparsity)
    measured = dict.fromkeys(r.measured for r in node.resources if r.measured)
    pairs = ", ".join(f"{quoted(n)}: {p.name(n)}" for n in measured)
    known = f"{{n: v for n, v in {{{pairs}}}.items() if v is not None}}" if first else f"{{{pairs}}}"
    given = f"resources_{node.of}, items_{node.of}, {known}, sizes"
    return f"{p.inliner.use(SURROGATES, 'current')}({given})"


def _project(
    step: Calibrate | Tighten, onto: Feasible, out: str, names: tuple[str, ...], masks: str, p: Program
) -> None:
    for i, part in enumerate(onto.parts):
        kept = p.view(masks, part.tensors) if masks else ""
        feasible.project_part(step, i, part, pick(out, names, part.tensors), kept, p)


def tighten(step: Tighten, p: Program) -> None:
    """Rounds of measuring and projecting, each a little deeper than the last."""
    w, of = p.writer, p.name(step.of)
    floors = ", ".join(p.floors[f] for f in step.floors)
    deeper = p.inliner.use(CALIBRATION, "DEEPER")
    p.inliner.external("dataclasses", "replace")
    w.comment(step.line())
    w.line("rounds, depth = 0, 1.0")
    w.line(f"met = judge.met({floors})")
    with w.block(f"while not met and rounds < {step.rounds}:"):
        for bound in step.bounds:
            _measure(Calibrate(bound, step.of), p.inliner.use(CALIBRATION, "as_measured"), p)
            w.line(f"{p.name(bound)} = replace({p.name(bound)}, limit={p.name(bound)}.limit * depth)")
        w.line(f"rounds, depth = rounds + 1, depth * {deeper}")
        _project(step, step.onto, of, p.tensors(step.of), step.support, p)
        optimizers = ", ".join(p.optimizers)
        masks = f"zip({of}, {p.view(step.support, p.tensors(step.of))})"
        w.line(f"{p.inliner.use(CALIBRATION, 'forget_')}([{optimizers}], {masks})")
        if step.recalibrate:
            feed = f"{p.inliner.use(BATCHES, 'batches')}(train_x, train_y, {p.data.batch}, args.seed, drawn)"
            w.line(f"{p.helper('recalibrate')}(net, {feed}, {step.recalibrate})")
        w.line(f"met = judge.met({floors})")


# ── the search ───────────────────────────────────────────────────────────────────────────────────────────────────


def search(step: Search, p: Program, emit: object) -> None:
    """The body again and again, with the level as a variable."""
    assert callable(emit)
    w, level = p.writer, p.name(step.level)
    supports = [p.name(s.name) for s in p.graph.state if isinstance(s, Support) and s.name in p.used]
    floors = f"[{', '.join(p.floors[f] for f in step.floors)}]"
    factors = [p.name(s.name) for s in p.graph.state if isinstance(s, Factors)]
    made = f"{{{', '.join(f'**{f}' for f in factors)}}}" if factors else ""
    kept = ["masks=[" + ", ".join(f"*{s}" for s in supports) + "]"] if supports else []
    w.blank()
    w.comment(step.line())
    head = f"search = {p.inliner.use(JUDGE, 'Probes')}("
    w.call(head, ["judge", floors, f"({step.least}, {step.top})", repr(step.tolerance), quoted(step.sense), *kept])
    with w.block(f"for probe in range({step.probes}):"):
        w.line(f"{level} = search.next()")
        with w.block(f"if {level} is None:"):
            w.line("break")
        for node in p.graph.state:
            if isinstance(node, Optimizer) and node.policy == "kept":
                w.line(f"{p.name(node.name)} = None")
        w.line(f'print(f"probe {{probe + 1}}: {step.level} = {{{level}}}")')
        with w.block("try:"):
            emit(step.body, p)
        with w.block("except ArithmeticError as reason:"):
            w.line('print(f"{reason}")')
            w.line(f"search.take({level}, False)")
            w.line("continue")
        w.line(f"print(search.take({level}, True{', ' + made if made else ''}))")
    w.line("best = search.settle()")
    w.line(f"{level} = best.level")
    for f in factors:
        w.line(f"{f} = best.factors")
    w.line(f'print(f"{step.level} = {{{level}}}")')


# ── what no script does ──────────────────────────────────────────────────────────────────────────────────────────


def require_judged(p: Program) -> None:
    """Raises `SpecError` (P450, P459) for floors that a script cannot decide."""
    steps = [s for s in walk(p.graph.program) if isinstance(s, Search | Observe | KeepBest | Tighten)]
    coded = {f.label for s in steps for f in s.floors if f.name in ("bytes", DESCRIPTION)}
    tested = {f.label for s in steps for f in s.floors if isinstance(s, Search) or judged(p)}
    known = {*METRICS, *ACTIVITY}
    other = {f.label for s in steps for f in s.floors if f.name not in known} & tested - coded
    found = [
        Diagnostic(
            "P459",
            "error",
            f"a script writes no coded files, and `{c.label}` is measured on one while it trains",
            c.span,
            hint="`prune run` it, or leave the constraint out and measure what the script saves",
        )
        for c in p.plan.problem.constraints
        if c.label in coded
    ] + [
        Diagnostic(
            "P450",
            "error",
            f"a script cannot test `{c.label}`: it knows no value of `{c.function.name}` for each sample",
            c.span,
            hint=f"`prune run` it, or bound one of {', '.join(f'`{m}`' for m in METRICS)} instead",
        )
        for c in p.plan.problem.constraints
        if c.label in other
    ]
    if found:
        raise SpecError(found, p.plan.source)
