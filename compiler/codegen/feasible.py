"""Projections in the script: which operator a part of a feasible set needs, and the call of it.

Upper bounds on plain counts are met by selection alone, from the inside out; any other family of bounds takes
`JointProjection`, one object per step, as in the executor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import get_args

from prunelang.compiler.codegen import factors
from prunelang.compiler.codegen.expressions import layout, literal, quoted
from prunelang.compiler.codegen.program import Program, pick
from prunelang.compiler.codegen.sources import Symbol
from prunelang.compiler.codegen.writer import Group, Piece
from prunelang.compiler.graph import Feasible, Finish, Graph, Part, Project, Sparsity, Step, walk
from prunelang.compiler.joint import (
    Bound,
    ChannelBound,
    ChoiceBound,
    CountBound,
    GroupBound,
    NofMBound,
    from_json,
    only_counts,
    plain_counts,
)

PROX = "prunelang.runtime.prox"
BOUNDS = "prunelang.compiler.joint"
# Module, class and arguments of the operator for a function of the language: of {f ≤ radius}, and of α·f by groups.
BALLS: Mapping[str, tuple[str, str, str]] = {
    "norm1": ("l1_ball", "L1Ball", "{0!r}"),
    "norm2": ("l2_ball", "L2Ball", "{0!r}, 1"),
    "norm2_squared": ("l2_ball", "L2Ball", "{0!r}, 2"),
    "norminf": ("box", "Box", "-{0!r}, {0!r}"),
}
PENALTIES: Mapping[str, tuple[str, str, str]] = {
    "norm0": ("l0_penalty", "L0Penalty", "{0}"),
    "norm1": ("l1_penalty", "L1Penalty", "{0}"),
    "norm2": ("l2_penalty", "L2Penalty", "{0}, 1"),
    "norm2_squared": ("l2_penalty", "L2Penalty", "{0}, 2"),
    "group_norm1": ("group_l1", "GroupL1", "{0}, {1}"),
}


def selected(part: Part) -> list[CountBound] | None:
    """The counts of a part from the inside out, if upper bounds on plain counts are all there is."""
    bounds = from_json(part.bounds)
    if live(part):
        return None
    trained = [reduced(b, part) for b in bounds if isinstance(b, CountBound)]
    if len(trained) < len(bounds) or any(b.coefficients and not (b.plain and b.least == 0) for b in trained):
        return None
    return [b for b in plain_counts([b for b in trained if b.coefficients]) if b.upper is not None]


def live(part: Part) -> bool:
    """Whether numbers of a bound are known only while the script runs: found by a search, or measured."""
    return any(isinstance(getattr(b, "upper", None), str) or getattr(b, "measured", "") for b in from_json(part.bounds))


def absent(graph: Graph) -> frozenset[Symbol]:
    """The kinds of bounds that no projection of a script meets; where sparsity levels are trained, any may be."""
    parts = [part for step in walk(graph.program) for part in getattr(getattr(step, "onto", None), "parts", ())]
    bounds = [b for part in parts for b in from_json(part.bounds)]
    if not only_counts(bounds) or any(isinstance(s, Sparsity) for s in graph.state):
        return frozenset()
    kinds = {type(b) for b in bounds} | {CountBound}
    return frozenset(Symbol(BOUNDS, kind.__name__) for kind in get_args(Bound) if kind not in kinds)


def reduced(bound: CountBound, part: Part) -> CountBound:
    """The bound without tensors that are not trained here."""
    return replace(bound, coefficients={t: a for t, a in bound.coefficients.items() if t in part.tensors})


def frozen_cost(bound: CountBound | ChoiceBound, part: Part, p: Program) -> list[str]:
    """Terms for what the tensors that are not trained cost now."""
    held = [t for t in bound.tensors if t not in part.tensors]
    return [_cost_of(bound, t, f"{p.helper('parameters')}(net, {quoted(t)})", p) for t in held]


def _cost_of(bound: CountBound | ChoiceBound, tensor: str, at: str, p: Program) -> str:
    if isinstance(bound, ChoiceBound):
        return f"{p.helper('cheapest')}({literal([_ways(bound, tensor)])}, {at})"
    return times(bound.coefficients[tensor], f"{p.helper('nonzeros')}({at})")


def _ways(bound: ChoiceBound, tensor: str) -> tuple[tuple[int, int], ...]:
    """(bytes per non-zero, fixed bytes) of each format."""
    return tuple((a, c) for _, a, c in bound.alternatives[tensor])


def times(factor: int, term: str) -> str:
    return term if factor == 1 else f"{factor} * {term}"


def kappa(bound: CountBound, part: Part, p: Program) -> str:
    """The number of positions that a plain count lets its trained tensors keep."""
    whole = next(b for b in from_json(part.bounds) if b.name == bound.name)
    assert isinstance(whole, CountBound)
    assert bound.upper is not None
    a = next(iter(bound.coefficients.values()))
    spent = frozen_cost(whole, part, p)
    if not spent:
        return str((bound.upper - bound.constant) // a)
    return f"({bound.upper - bound.constant} - {' - '.join(spent)})" + ("" if a == 1 else f" // {a}")


def declare(step: Step, onto: Feasible, p: Program) -> None:
    """The projection objects of a step, before the program starts."""
    for i, part in enumerate(onto.parts):
        if part.compositions:
            factors.declare(part, (id(step), i), step.priced if isinstance(step, Project) else None, p)
            continue
        if not part.bounds or selected(part) is not None or (id(step), i) in p.projections:
            continue
        name = f"Π{len(p.projections) + 1}"
        p.projections[id(step), i] = name
        shapes = {t: p.plan.table.tensor[t].shape for t in part.tensors}
        bounds = from_json(part.bounds)
        if not live(part):
            p.writer.call(f"bounds_{name} = [", [_constructor(b, part, p) for b in bounds], "]")
        channels = {b.name: f"bounds_{name}[{j}]" for j, b in enumerate(bounds) if isinstance(b, ChannelBound)}
        p.channel_bounds.update(channels)
        p.writer.call(f"shapes_{name} = {{", [f"{quoted(t)}: {literal(s)}" for t, s in shapes.items()], "}")
        if not live(part):
            _made(name, bounds, p)


def _made(name: str, bounds: Sequence[Bound], p: Program) -> None:
    if any(isinstance(b, ChannelBound) for b in bounds):
        kind = ("structured", "StructuredProjection")
    elif only_counts(bounds):
        kind = ("nested", "NestedProjection")
    else:
        kind = ("joint", "JointProjection")
    p.writer.line(f"{name} = {p.inliner.use(f'{PROX}.{kind[0]}', kind[1])}(bounds_{name}, shapes_{name})")


def _constructor(bound: Bound, part: Part, p: Program) -> Group:
    """The bound as source. Only what differs from the defaults is said."""
    kind = p.inliner.use(BOUNDS, type(bound).__name__)
    if isinstance(bound, CountBound) and bound.measured:
        stated = Group(f"{kind}(", (quoted(bound.name), layout(bound.coefficients)))
        return Group(f"{p.inliner.use('prunelang.runtime.surrogates', 'resolved')}(", (stated, p.name(bound.measured)))
    if isinstance(bound, CountBound):
        trained = reduced(bound, part)
        fixed = " + ".join([str(bound.constant), *frozen_cost(bound, part, p)])
        ends = (("constant", fixed), ("lower", bound.lower), ("upper", bound.upper))
        said: list[Piece] = [quoted(bound.name), layout(trained.coefficients)]
        return Group(f"{kind}(", (*said, *(f"{k}={v}" for k, v in ends if v is not None and v != "0")))
    if isinstance(bound, ChoiceBound):
        ways = {t: w for t, w in bound.alternatives.items() if t in part.tensors}
        fixed = " + ".join([str(bound.constant), *frozen_cost(bound, part, p)])
        return Group(f"{kind}(", (quoted(bound.name), layout(ways), str(bound.upper), fixed))
    if isinstance(bound, ChannelBound):
        group = p.inliner.use(BOUNDS, "ChannelGroup")
        made = (Group(f"{group}(", (quoted(g.name), str(g.size), layout(g.slices))) for g in bound.groups)
        rest = (layout(bound.terms), str(bound.upper), str(bound.constant))
        return Group(f"{kind}(", (quoted(bound.name), Group("(", tuple(made)), *rest))
    if isinstance(bound, GroupBound):
        return Group(f"{kind}(", (quoted(bound.name), layout(bound.tensors), quoted(bound.by), str(bound.upper)))
    return Group(f"{kind}(", tuple(layout(getattr(bound, f)) for f in type(bound).__dataclass_fields__))


def project_part(step: Step, number: int, part: Part, out: str, masks: str, p: Program) -> None:
    """Project the tensors `out` in place; kept positions into `masks` (empty: nobody asks)."""
    w = p.writer
    for text in p.constraint_lines(part.labels):
        w.comment(text)
    counts = selected(part) if part.bounds else []
    if counts is None:
        if live(part):
            name, bounds = p.projections[id(step), number], from_json(part.bounds)
            w.call(f"bounds_{name} = [", [_constructor(b, part, p) for b in bounds], "]")
            _made(name, bounds, p)
        w.line(f"kept = {p.projections[id(step), number]}.project_({out}).masks")
        if masks:
            _copy(masks, p)
    elif part.bounds:
        _select(counts, part, out, masks, p)
    for name, radius in part.balls:
        w.line(f"{ball(name, radius, p)}.project_({out})")
    if masks and not part.bounds:
        _fill(masks, p)


def _copy(masks: str, p: Program) -> None:
    with p.writer.block(f"for mask, keep in zip({masks}, kept):"):
        p.writer.line("mask.copy_(keep)")


def _fill(masks: str, p: Program) -> None:
    with p.writer.block(f"for mask in {masks}:"):
        p.writer.line("mask.fill_(True)")


def _select(counts: list[CountBound], part: Part, out: str, masks: str, p: Program) -> None:
    if not masks:
        p.writer.line(f"kept = [torch.ones_like(v, dtype=torch.bool) for v in {out}]")
    if len(counts) == 1 and set(counts[0].tensors) == set(part.tensors):
        p.writer.line(f"{p.helper('project_largest_')}({out}, {kappa(counts[0], part, p)}, {masks or 'kept'})")
        return
    if masks:
        _fill(masks, p)
    for bound in counts:
        inner = _among(out, part, bound)
        kept = _among(masks or "kept", part, bound)
        p.writer.line(f"{p.helper('keep_largest_')}({inner}, {kappa(bound, part, p)}, {kept})  # {bound.name}")


def _among(expression: str, part: Part, bound: CountBound) -> str:
    """Of the tensors of a part, those that a bound counts."""
    return pick(expression, part.tensors, (t for t in part.tensors if t in bound.tensors))


def ball(name: str, radius: float, p: Program) -> str:
    """The operator that projects onto {f ≤ radius}."""
    module, kind, arguments = BALLS[name]
    return f"{p.inliner.use(f'{PROX}.{module}', kind)}({arguments.format(radius)})"


def penalty(name: str, alpha: str, by: str, p: Program) -> str:
    """The operator of the penalty α·f."""
    module, kind, arguments = PENALTIES[name]
    return f"{p.inliner.use(f'{PROX}.{module}', kind)}({arguments.format(alpha, quoted(by))})"


# ── counts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def cost(bound: CountBound | ChoiceBound, of: str, p: Program) -> str:
    """The bound's left side on the weights in the state `of`, by plain count of non-zero values.

    An expression that may stand in a statement; what is long is written to a variable first.
    """
    if not bound.tensors:
        return str(bound.constant)
    more = f" + {bound.constant}" if bound.constant else ""
    at, names = _at(bound.tensors, of, p), _ordered(bound.tensors, of, p)
    if isinstance(bound, CountBound) and bound.plain:
        value = times(bound.coefficients[names[0]], f"{p.helper('nonzeros')}({at})")
        if len(value) < 60 and '"' not in value:  # short, and fit to stand in an f-string
            return value + more
        p.writer.line(f"count = {value}")
    elif isinstance(bound, CountBound):
        costs = layout(tuple(bound.coefficients[t] for t in names))
        p.writer.call(f"count = {p.helper('weighted_nonzeros')}(", [costs, at])
    else:
        ways = layout(tuple(_ways(bound, t) for t in names))
        p.writer.call(f"count = {p.helper('cheapest')}(", [ways, at])
    return f"count{more}"


def _ordered(tensors: Iterable[str], of: str, p: Program) -> list[str]:
    """The tensors in the order in which `_at` lists them."""
    names, wanted = p.tensors(of), list(tensors)
    return [n for n in names if n in wanted] if set(wanted) <= set(names) else wanted


def _at(tensors: Iterable[str], of: str, p: Program) -> str:
    wanted = _ordered(tensors, of, p)
    if set(wanted) <= set(p.tensors(of)):
        return p.view(of, wanted)
    return f"{p.helper('parameters')}(net, {', '.join(map(quoted, wanted))})"


def channel_cost(bound: ChannelBound, of: str, p: Program) -> str:
    """The left side of a budget of channels: a member counts as soon as one of its values is not zero."""
    recount = p.inliner.use(f"{PROX}.feasibility", "channel_cost")
    names = layout(tuple(_ordered(bound.tensors, of, p)))
    p.writer.call("stays = dict(zip(", [names, f"(v != 0 for v in {_at(bound.tensors, of, p)})", "strict=True"], "))")
    return f"{recount}({p.channel_bounds[bound.name]}, stays)"


def assertions(step: Finish, p: Program) -> None:
    """A recount of every upper bound on a count, and of what tensors are made of."""
    of = step.of
    for part in step.onto.parts:
        if part.compositions:
            factors.assertion(part, step, p)
        for bound in from_json(part.bounds):
            if isinstance(bound, CountBound) and bound.measured:
                continue  # measuring decides
            if isinstance(bound, CountBound | ChoiceBound) and bound.upper is not None:
                p.writer.line(f"assert {cost(bound, of, p)} <= {bound.upper}, {quoted(bound.name)}")
            elif isinstance(bound, ChannelBound):
                p.writer.line(f"assert {channel_cost(bound, of, p)} <= {bound.upper}, {quoted(bound.name)}")


def reports(step: Finish, p: Program) -> None:
    """One printed line per constraint: its value on the weights as they are, and its bound."""
    of, support = step.of, step.support
    feasibility = f"{PROX}.feasibility"
    for part in step.onto.parts:
        if part.compositions:
            factors.report(part, step, p)
        bounds = from_json(part.bounds)
        for bound in bounds:
            match bound:
                case CountBound(measured=measured) if measured:
                    continue
                case CountBound() | ChoiceBound():
                    low = f"{bound.lower} ≤ " if isinstance(bound, CountBound) and bound.lower is not None else ""
                    high = f" ≤ {_shown(bound.upper)}" if bound.upper is not None else ""
                    _print(bound.name, low + "{" + cost(bound, of, p) + "}" + high, p)
                case ChannelBound():
                    _print(bound.name, "{" + channel_cost(bound, of, p) + "}" + f" ≤ {_shown(bound.upper)}", p)
                case GroupBound():
                    rows = p.inliner.use(feasibility, "slices")
                    held = f"int({rows}(v != 0, {quoted(bound.by)}).any(1).count_nonzero())"
                    p.writer.line(f"count = sum({held} for v in {_at(bound.tensors, of, p)})")
                    _print(bound.name, "{count}" + f" groups ≤ {_shown(bound.upper)}", p)
                case NofMBound():
                    most = p.inliner.use(feasibility, "most_in_cells")
                    p.writer.line(f"count = max({most}(v != 0, {bound.m}) for v in {_at(bound.tensors, of, p)})")
                    _print(bound.name, "{count}" + f" ≤ {bound.n} of every {bound.m}", p)
                case _:
                    p.writer.line(f"count = sum(int(v.sum()) for v in {p.view(support, bound.tensors)})")
                    _print(bound.name, "{count} positions kept", p)
        counted = {b.name for b in bounds}
        label = next((x for x in part.labels if x not in counted), "")
        for name, radius in part.balls:
            order = {"norm1": 1, "norminf": inf}.get(name, 2)
            shown = literal(order) if order != inf else "float('inf')"
            p.writer.line(f"norm = {p.helper('vector_norm')}({p.view(of, part.tensors)}, {shown})")
            _print(label, "{norm" + ("**2" if name == "norm2_squared" else "") + ":.10g}" + f" ≤ {radius!r}", p)


def _shown(upper: int | str) -> str:
    """A bound in a printed line; one that a search found is a variable."""
    return f"{{{upper}}}" if isinstance(upper, str) else str(upper)


def _print(label: str, text: str, p: Program) -> None:
    escaped = label.replace("{", "{{").replace("}", "}}").replace("\\", "\\\\").replace('"', "'")
    p.writer.line(f'print(f"{escaped}: {text}")')
