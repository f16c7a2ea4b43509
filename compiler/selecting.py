"""What is wrong with measured constraints and searches, said before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from prunelang.compiler import catalog
from prunelang.compiler.measured import CERTIFY, SELECT, certified_on, fewest_samples, measured_constraints
from prunelang.compiler.plan import Plan
from prunelang.compiler.problem import CONFIDENCE, Constraint, Interval, Measured
from prunelang.compiler.reversed import floors, is_reversed, searched
from prunelang.dsl.diagnostics import Diagnostic
from prunelang.dsl.numbers import grouped


def selecting(plan: Plan) -> Iterator[Diagnostic]:
    """Reversed forms that no search serves, options that only a search has, floors that few samples cannot confirm."""
    if any(stage.solver is not None for stage in plan.stages):
        yield from _searches(plan)
    for c in measured_constraints(plan.problem):
        yield from _few_samples(c, plan)


def _searches(plan: Plan) -> Iterator[Diagnostic]:
    objective = plan.problem.objective
    if not is_reversed(plan.problem):
        for stage in plan.stages:
            for option in ("probes", "tolerance") if stage.solver is not None else ():
                if getattr(stage.solver, option) is not None:
                    message = f"`{option}` is an option of a search, and there is nothing to search here"
                    hint = "leave it out; a search minimises a count under measured constraints"
                    yield Diagnostic("P454", "error", message, stage.span, hint=hint)
        return
    for option in ("probes", "tolerance"):
        giving = [s for s in plan.stages if s.solver is not None and getattr(s.solver, option) is not None]
        for stage in giving[1:]:
            message = f"there is one search around all solves, and its `{option}` is given by an earlier one"
            yield Diagnostic("P454", "error", message, stage.span, hint="leave it out here")
    if searched(plan.problem) is None:
        hint = "for example `minimize ‖net.weights‖₀`"
        names = " + ".join(t.text or t.function.name for t in objective.terms)
        message = f"a search makes one count or cost of kept weights small, not `{names}`"
        yield Diagnostic("P451", "error", message, objective.span, hint=hint)
    if not floors(plan.problem):
        first = measured_constraints(plan.problem)[0]
        message = "every measured constraint is on test, which a search may not read"
        yield Diagnostic("P452", "error", message, first.span, hint="leave `on = test` out: validation is meant then")


def _few_samples(c: Constraint, plan: Plan) -> Iterator[Diagnostic]:
    """Whether a floor on a share of right answers is out of reach of its split, even without a single error."""
    assert isinstance(c.function, Measured)
    share = _wanted(c)
    split = certified_on(plan.problem, c.function.split)
    if share is None or split == "train":
        return
    samples = sizes(plan).get(SELECT if split == CERTIFY and is_reversed(plan.problem) else split)
    needed = fewest_samples(share)
    if samples is None or (needed is not None and needed <= samples):
        return
    level = f"{float(100 * CONFIDENCE):g} % confidence"
    if needed is None:
        message = f"`{c.label}` allows no error at all, which no number of samples confirms with {level}"
        yield Diagnostic("P453", "error", message, c.span, hint="leave room for an error, or name `on = train`")
        return
    message = f"`{c.label}` cannot be confirmed with {level} on {grouped(samples)} samples, whatever the weights"
    cut = f"; {c.function.split} is cut into two halves of {grouped(samples)}" if split == CERTIFY else ""
    notes = (f"without a single error it takes {grouped(needed)} samples{cut}",)
    hint = "give `data` a larger share, for example `validation = 40%`, or lower the floor"
    yield Diagnostic("P453", "error", message, c.span, hint=hint, notes=notes)


def _wanted(c: Constraint) -> Fraction | None:
    """The share of right answers that a floor asks for; None where it is no plain floor on one."""
    assert isinstance(c.function, Measured)
    match c.function.name, c.set:
        case "accuracy", Interval(lower=lower) if lower is not None:
            return Fraction(lower)
        case "error", Interval(upper=upper) if upper is not None:
            return 1 - Fraction(upper)
    return None


def sizes(plan: Plan) -> dict[str, int]:
    """Samples by split, as far as the catalog knows them."""
    facts = catalog.DATA.get(plan.data.constructor)
    known = dict(facts.sizes) if facts is not None else {}
    if facts is None or "train" not in known or facts.own_validation is not False or facts.task != "classification":
        return {}
    validation = round(plan.data.validation * known["train"])
    return {**known, SELECT: validation // 2, CERTIFY: validation - validation // 2}
