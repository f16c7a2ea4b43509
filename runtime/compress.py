"""Steps that compress: projections onto feasible sets, proximal steps of penalties, the hit of a threshold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from prunelang.compiler.forms import Box
from prunelang.compiler.graph import Feasible, Part, Project, ProjectBalls, Prox, Weights
from prunelang.compiler.graph.calibration import SCALE
from prunelang.compiler.joint import Bound, ChannelBound, ChoiceBound, CountBound, GroupBound, from_json
from prunelang.runtime import kernels
from prunelang.runtime.composed import project_composed
from prunelang.runtime.cores import require_made, spent
from prunelang.runtime.machine import Machine, NumericalFailure
from prunelang.runtime.operators import ball, penalty
from prunelang.runtime.price import Price
from prunelang.runtime.prox.feasibility import assert_feasible, channel_cost, slices
from prunelang.runtime.prox.scan import NonFinite
from prunelang.runtime.prox.structured import projection
from prunelang.runtime.surrogates import resolved


@torch.no_grad()
def project(step: Project, m: Machine) -> None:
    """``θ ← Π_C(source)`` part by part, kept positions into the support, what tensors are made of into the factors."""
    factors: dict[str, Tensor] = {}
    for i, part in enumerate(step.onto.parts):
        out = m.view(step.target, part.tensors)
        terms = [(_factor(m, sign, level), m.view(n, part.tensors)) for sign, n, level in step.source.terms]
        kernels.combine_(out, terms)
        masks = m.view(step.support, part.tensors) if step.support else None
        before = [t.clone() for t in out] if step.final else []
        mu = m.levels[step.over] if step.over else 0.0
        if part.compositions:
            price = 2.0 * m.value(step.priced.weight) / mu if step.priced else 0.0
            factors |= project_composed(part, out, masks, m, (id(step), i), step.priced, price)
        else:
            project_part(part, out, masks, m, (id(step), i), mu)
        if step.final:
            m.cuts[part.labels] = kernels.relative_change(before, out)
    if step.factors:
        m.install(factors)
        m.composed = step.target in m.nodes and isinstance(m.nodes[step.target], Weights)


def project_part(
    part: Part, out: list[Tensor], masks: list[Tensor] | None, m: Machine, key: tuple[int, int], mu: float = 0.0
) -> None:
    """Counts first, then the norm ball on what is kept: exact for the pairs that the compiler lets through.

    `mu` is the coefficient of the pull that the multiplier of a ball is in units of.
    """
    try:
        if part.bounds:
            if key not in m.cache:
                m.cache[key] = projection(bounds_of(part, m), _shapes(part, out))
            outcome = m.cache[key].project_(out)
            m.gaps[part.labels] = outcome.gap
            if masks is not None:
                for mask, kept in zip(masks, outcome.masks, strict=True):
                    mask.copy_(kept)
        for name, radius in part.balls:
            before = [t.clone() for t in out]
            ball(name, radius).project_(out)
            m.prices[ball_label(part)] = Price(mu * _multiplier(name, before, out), "multiplier")
            if masks is not None and not part.bounds:
                for mask in masks:
                    mask.fill_(True)
    except NonFinite as error:
        raise NumericalFailure(
            f"{part.tensors[error.index]} is not finite before a projection", "projection"
        ) from error


def _multiplier(name: str, before: list[Tensor], after: list[Tensor]) -> float:
    """The Lagrange multiplier of a ball per unit of μ, from what its projection moved.

    ‖·‖₁: the soft threshold; ‖·‖₂: ‖v‖ − r; ‖·‖₂²: (‖v‖ − ‖θ‖)/(2‖θ‖); ‖·‖∞: Σ (|v| − c)₊.
    """
    moved = [(b.double() - a.double()).abs() for b, a in zip(before, after, strict=True)]
    if name == "norm1":
        return max((float(d.max()) for d in moved if d.numel()), default=0.0)
    if name == "norminf":
        return sum(float(d.sum()) for d in moved)
    distance = math.sqrt(sum(float(d.square().sum()) for d in moved))
    if name == "norm2":
        return distance
    length = math.sqrt(sum(float(a.double().square().sum()) for a in after))
    return distance / (2 * length) if length else 0.0


def _shapes(part: Part, tensors: list[Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in zip(part.tensors, tensors, strict=True)}


def ball_label(part: Part) -> str:
    """The constraint that states the ball of a part: the one that is no count."""
    counted = {b["name"] for b in part.bounds}
    return next(x for x in part.labels if x not in counted)


def bounds_of(part: Part, m: Machine) -> list[Bound]:
    """The bounds as they are for the trained tensors: what frozen ones cost now is moved to the constant."""
    return [without_frozen(b, part, m) if isinstance(b, CountBound | ChoiceBound) else b for b in _resolved(part, m)]


def _resolved(part: Part, m: Machine) -> Iterator[Bound]:
    """The bounds with the numbers of their calibrations, as stated before there are any."""
    for b in from_json(part.bounds):
        measured = isinstance(b, CountBound) and b.measured in m.calibrations
        yield resolved(b, m.calibrations[b.measured]) if isinstance(b, CountBound) and measured else b


def without_frozen(bound: CountBound | ChoiceBound, part: Part, m: Machine) -> CountBound | ChoiceBound:
    """The bound on the trained tensors alone: what the frozen ones cost now is part of its constant."""
    trained = set(part.tensors)
    held = {t: int(torch.count_nonzero(m.tensors[t])) for t in bound.tensors if t not in trained}
    if not held:
        return bound
    spent = value(bound, held) - bound.constant
    if isinstance(bound, CountBound):
        left = {t: a for t, a in bound.coefficients.items() if t in trained}
        return replace(bound, coefficients=left, constant=bound.constant + spent)
    options = {t: a for t, a in bound.alternatives.items() if t in trained}
    return replace(bound, alternatives=options, constant=bound.constant + spent)


def value(bound: CountBound | ChoiceBound, kept: Mapping[str, int]) -> int:
    """The cost of the tensors in `kept` at these counts, with the bound's constant."""
    if isinstance(bound, CountBound):
        return bound.constant + sum(bound.coefficients[t] * n for t, n in kept.items())
    return bound.constant + sum(min(a * n + c for _, a, c in bound.alternatives[t]) for t, n in kept.items())


def _factor(m: Machine, sign: int, level: str | None) -> float:
    return sign / m.levels[level] if level else float(sign)


@torch.no_grad()
def project_balls(step: ProjectBalls, m: Machine) -> None:
    for part in step.onto.parts:
        for name, bound in part.balls:
            kernels.shrink_(m.view(step.target, part.tensors), name, bound)
        for c in part.compositions:
            if isinstance(c.forms[0], Box):
                torch._foreach_clamp_min_(m.view(step.target, c.tensors), c.forms[0].lo)
                torch._foreach_clamp_max_(m.view(step.target, c.tensors), c.forms[0].hi)


@torch.no_grad()
def apply_prox(step: Prox, m: Machine) -> None:
    """``θ ← prox_{αf/μ}(source)`` on the penalised tensors; the support is what came out non-zero."""
    out = m.view(step.target, step.tensors)
    terms = [(_factor(m, sign, level), m.view(n, step.tensors)) for sign, n, level in step.source.terms]
    kernels.combine_(out, terms)
    penalty(step.function, m.value(step.weight), step.by).prox_(out, 1.0 / m.levels[step.over])
    if step.support:
        for mask, theta in zip(m.view(step.support, step.tensors), out, strict=True):
            torch.ne(theta, 0, out=mask)


def counts(onto: Feasible, m: Machine, of: str) -> Iterator[tuple[str, float, float]]:
    """(label, value, bound) of every upper bound on a count or a norm, on the values in `of`; norms in float64."""
    for part in onto.parts:
        tensors = dict(zip(part.tensors, m.view(of, part.tensors), strict=True))
        if part.compositions:
            if m.composed:
                yield from spent(part.compositions, part.budgets, m.factors)
            continue
        nnz = {name: int(torch.count_nonzero(t)) for name, t in tensors.items()}
        for bound in bounds_of(part, m):
            if isinstance(bound, GroupBound):
                held = (slices(tensors[t].detach() != 0, bound.by).any(1) for t in bound.tensors)
                yield bound.name, sum(int(h.count_nonzero()) for h in held), bound.upper
            elif isinstance(bound, ChannelBound):
                yield bound.name, channel_cost(bound, {t: tensors[t] != 0 for t in bound.tensors}), bound.upper
            elif isinstance(bound, CountBound | ChoiceBound) and bound.upper is not None:
                scale = SCALE if isinstance(bound, CountBound) and bound.measured else 1
                yield bound.name, value(bound, {t: nnz[t] for t in bound.tensors}) / scale, bound.upper / scale
        for name, limit in part.balls:
            yield ball_label(part), _norm(name, list(tensors.values())), limit


def _norm(name: str, tensors: list[Tensor]) -> float:
    order = {"norm1": 1.0, "norminf": float("inf")}.get(name, 2.0)
    norms = torch.tensor([float(torch.linalg.vector_norm(t.detach().double(), order)) for t in tensors])
    length = float(torch.linalg.vector_norm(norms.double(), order))
    return length**2 if name == "norm2_squared" else length


def require_feasible(onto: Feasible, m: Machine, of: str, support: str) -> None:
    """Raises `AssertionError` unless the kept positions satisfy every bound, hold every non-zero value, and the values
    lie in their balls: recounted, by code that projects nothing. Measured budgets are decided by measuring."""
    for part in onto.parts:
        weights, masks = m.view(of, part.tensors), m.view(support, part.tensors)
        if part.compositions:
            own = dict(zip(part.tensors, (w.detach() for w in weights), strict=True))
            require_made(part.compositions, part.budgets, m.factors, own)
            continue
        stated = [b for b in bounds_of(part, m) if not isinstance(b, CountBound) or not b.measured]
        assert_feasible(stated, dict(zip(part.tensors, masks, strict=True)))
        if any(bool((w.detach() != 0).logical_and_(~mask).any()) for w, mask in zip(weights, masks, strict=True)):
            raise AssertionError(f"{', '.join(part.labels)}: a position that is not kept holds a value")
        for name, bound in part.balls:
            if not ball(name, bound).contains([w.detach() for w in weights]):
                raise AssertionError(f"`{ball_label(part)}` is violated after the projection")
