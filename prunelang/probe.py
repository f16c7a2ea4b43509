"""`prune explain --probe`: prices by finite differences of short runs, beside those that the certificate states.

For every upper bound B on stored weights the problem is solved again at B(1 − δ) and B(1 + δ), with the same seeds:

    price = (L(B(1 − δ)) − L(B(1 + δ))) / (2δB)        loss per unit of budget, by how much it would fall

L is the objective, data terms and penalties, on the whole train split with the weights that a run ends at. Runs are
short: every inner loop lasts a share of what the spec says, and at least an epoch.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from prunelang.compiler.plan import Plan
from prunelang.compiler.problem import Measured, Term, VectorNorm
from prunelang.compiler.schedule import SCHEDULES
from prunelang.dsl.diagnostics import Diagnostic
from prunelang.explain import term_text
from prunelang.moving import Bound, movable, moved, number, shortened
from prunelang.report import FORMAT_VERSION, columns
from prunelang.runtime.price import Price

if TYPE_CHECKING:
    from prunelang.api import Program
    from prunelang.execution import Session, Solution
    from prunelang.runtime.machine import Event, Machine
    from prunelang.runtime.stored import Stored


SHARE = re.compile(r"(\d{1,9}(?:\.\d{1,15})?)\s*(%?)")


class ProbeFailed(Exception):
    """A short run that came to no end: it met a number that is not finite, or was asked to stop."""

    def __init__(self, message: str, interrupted: bool) -> None:
        super().__init__(message)
        self.interrupted = interrupted


@dataclass(frozen=True)
class Probed:
    """One bound: the objective after each short run, a value a seed, and the two prices."""

    bound: Bound
    below: tuple[float, ...]  # L at B(1 − δ)
    at: tuple[float, ...]
    above: tuple[float, ...]
    predicted: Price | None  # that of the certificates at B, the mean over seeds
    observed: Price  # marked probe, with its standard deviation over seeds where there are two and more


@dataclass(frozen=True)
class Probes:
    """What `prune explain --probe` prints."""

    plan: Plan
    delta: Fraction
    share: Fraction
    seeds: int
    bounds: tuple[Probed, ...]
    skipped: tuple[Diagnostic, ...]  # bounds that were not moved, and why

    def text(self) -> str:
        return _text(self)

    def to_json(self) -> dict[str, Any]:
        return _json(self)

    def __getitem__(self, label: str) -> Probed:
        return next(p for p in self.bounds if p.bound.label == label)


@dataclass
class Runs:
    """The short runs of a program, one after the other, in folders that are gone afterwards."""

    program: Program
    plan: Plan  # with short stages, and without a report
    seeds: int
    device: str
    total: int
    observe: Callable[[Event], None]
    stop: Callable[[], bool]
    root: Path
    done: int = 0
    prices: dict[str, list[Price]] = field(default_factory=dict)  # that certificates stated, by label

    def solve(self, bound: Bound | None = None, upper: Fraction | None = None) -> tuple[float, ...]:
        """The objective after a run of each seed, with one bound moved to `upper`; as it is without."""
        plan = self.plan if bound is None or upper is None else moved(self.plan, bound.label, upper)
        return tuple(self._run(plan, bound, upper, seed) for seed in range(self.seeds))

    def _run(self, plan: Plan, bound: Bound | None, upper: Fraction | None, seed: int) -> float:
        from prunelang.execution import RunOptions, run

        self.done += 1
        moving = {} if bound is None or upper is None else {"label": bound.label, "bound": number(upper)}
        self.observe({"event": "short run", "run": self.done, "runs": self.total, "seed": seed, **moving})
        found: list[float] = []
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            options = RunOptions(Path(folder), seed, self.device, self.program.dtype)

            def finished(session: Session, machine: Machine) -> None:
                found.append(objective(session, machine, Path(folder)))

            solution = run(plan, self.program.folder, options, self.observe, self.stop, finished)
        self._require_end(solution)
        if bound is None:
            for label, price in _stated(solution).items():
                self.prices.setdefault(label, []).append(price)
        return found[0]

    def _require_end(self, solution: Solution) -> None:
        if solution.interrupted:
            raise ProbeFailed(f"interrupted in short run {self.done} of {self.total}", interrupted=True)
        if solution.failure is not None:
            message = f"short run {self.done} of {self.total} failed: {solution.failure}"
            raise ProbeFailed(message, interrupted=False)

    def predicted(self, label: str) -> Price | None:
        """The mean of the prices that the certificates at B state; None unless all do."""
        stated = self.prices.get(label, [])
        if len(stated) < self.seeds:
            return None
        return replace(stated[0], value=fmean(p.value for p in stated))


def fraction(value: Fraction | float | str) -> Fraction:
    """A share as Python or the command line writes it: 0.1 or "10%". Errors: ValueError."""
    if not isinstance(value, str):
        return Fraction(str(value))  # 0.1 is a tenth
    found = SHARE.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"{value!r} is no share such as 10% or 0.1")
    return Fraction(found[1]) / (100 if found[2] else 1)


def probe(
    program: Program,
    *,
    delta: Fraction = Fraction(1, 10),
    share: Fraction = Fraction(1, 4),
    seeds: int = 3,
    device: str = "cpu",
    observe: Callable[[Event], None] = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
) -> Probes:
    """Move every upper bound on stored weights by ±`delta` ∈ (0, 1) and solve again, with `seeds` ≥ 1 seeds each.

    Inner loops last a `share` ∈ (0, 1] of what the spec says, and at least an epoch. Raises `SpecError` when there is
    nothing to probe (P480 to P482) or the program cannot be run, `ProbeFailed` when a run ends early, ValueError for
    arguments out of their ranges.
    """
    if not 0 < delta < 1 or not 0 < share <= 1 or seeds < 1:
        raise ValueError(f"δ is in (0, 1), share in (0, 1], seeds at least 1: not {delta}, {share}, {seeds}")
    program.require_runnable()
    plan = program.plan
    bounds, skipped = movable(plan, delta)
    short = replace(shortened(plan, share, program.train_size), report=())
    total = seeds * (1 + 2 * len(bounds))
    with tempfile.TemporaryDirectory(prefix="prune-probe-") as folder:
        runs = Runs(program, short, seeds, device, total, observe, stop, Path(folder))
        at = runs.solve()
        found = [(b, runs.solve(b, b.below), runs.solve(b, b.above)) for b in bounds]
    probed = tuple(
        Probed(b, below, at, above, runs.predicted(b.label), _observed(b, below, above)) for b, below, above in found
    )
    return Probes(plan, delta, share, seeds, probed, skipped)


def _observed(bound: Bound, below: tuple[float, ...], above: tuple[float, ...]) -> Price:
    """(L(below) − L(above))/(above − below), mean and standard deviation over seeds."""
    slopes = [(low - high) / float(bound.above - bound.below) for low, high in zip(below, above, strict=True)]
    return Price(fmean(slopes), "probe", stdev(slopes) if len(slopes) > 1 else None)


def _stated(solution: Solution) -> Mapping[str, Price]:
    lines = solution.certificate.constraints
    return {x.label: Price(x.price, x.price_kind) for x in lines if x.price is not None and x.price_kind is not None}


# ── the objective ────────────────────────────────────────────────────────────────────────────────────────────────


def objective(session: Session, machine: Machine, out: Path) -> float:
    """``Σ weight · function`` on the train split with the saved weights; weights that follow clocks as they end."""
    from prunelang.runtime.certificate import FACTORS, WEIGHTS, read_if_there, stored_from
    from prunelang.runtime.files import read

    weights, factors = out / WEIGHTS, out / FACTORS
    stored = stored_from(read(weights), None, session.plan.table, weights, None, read_if_there(factors), factors)
    stated = session.plan.problem.objective
    values = (_weight(t, machine) * _value(t, session, stored) for t in stated.terms)
    return (1.0 if stated.sense == "minimize" else -1.0) * sum(values)


def _weight(term: Term, machine: Machine) -> float:
    return machine.value(term.weight) if isinstance(term.weight, SCHEDULES) else float(term.weight)


def _value(term: Term, session: Session, stored: Stored) -> float:
    from prunelang.runtime.recount import value_of
    from prunelang.runtime.standalone import relaxed

    f = term.function
    if isinstance(f, Measured):
        return session.measure(replace(f, split="train")).value
    if isinstance(f, VectorNorm) and f.name == "drr":
        tensors = dict(session.model.named_parameters())
        return relaxed([tensors[t] for t in f.tensors], "drr", float(dict(f.options)["beta"]))
    return float(value_of(f, stored, "non-zero values").middle)


# ── as people read it ────────────────────────────────────────────────────────────────────────────────────────────


def _text(p: Probes) -> str:
    head = ("constraint", "bound", "", "moved to", "L(B−)", "L(B)", "L(B+)", "predicted", "observed", "per +1 %")
    rows = [head, *(_row(x) for x in p.bounds)]
    of = "full length" if p.share == 1 else f"{float(100 * p.share):.6g} % of each loop, at least an epoch"
    seeds = f"{p.seeds} seed{'' if p.seeds == 1 else 's'}"
    parts = [
        f"short runs: {of}; {seeds}; L = {_objective(p.plan)}",
        columns(rows, frozenset({1, 4, 5, 6, 7, 8, 9})),
        "prices: by how much L falls per unit of budget" + ("" if p.seeds == 1 else ", ± deviation over seeds"),
    ]
    return "\n".join(parts) + "\n"


def _row(p: Probed) -> tuple[str, ...]:
    b, losses = p.bound, (f"{fmean(x):.6g}" for x in (p.below, p.at, p.above))
    predicted = "—" if p.predicted is None else f"{p.predicted.value:.3g} ({p.predicted.kind})"
    spread = "" if p.observed.spread is None else f" ± {p.observed.spread:.2g}"
    observed = f"{p.observed.value:.3g}{spread} ({p.observed.kind})"
    percent = f"{-p.observed.value * float(b.at) / 100 or 0.0:+.2g}"  # a zero has no sign
    ends = f"{number(b.below)} … {number(b.above)}"
    return (b.label, number(b.at), b.unit, ends, *losses, predicted, observed, percent)


def _objective(plan: Plan) -> str:
    stated = plan.problem.objective
    return ("" if stated.sense == "minimize" else "−") + " + ".join(map(term_text, stated.terms))


def _json(p: Probes) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "file": p.plan.source.name,
        "delta": float(p.delta),
        "share": float(p.share),
        "seeds": list(range(p.seeds)),
        "objective": _objective(p.plan),
        "bounds": [_probed_json(x) for x in p.bounds],
        "skipped": [d.to_json(p.plan.source) for d in p.skipped],
    }


def _probed_json(p: Probed) -> dict[str, Any]:
    def plain(value: Fraction) -> int | float:
        return int(value) if value.denominator == 1 else float(value)

    def price(x: Price | None) -> dict[str, Any] | None:
        return None if x is None else {"value": x.value, "kind": x.kind, "spread": x.spread}

    b = p.bound
    runs = ((b.below, p.below), (b.at, p.at), (b.above, p.above))
    return {
        "label": b.label,
        "unit": b.unit,
        "bound": plain(b.at),
        "runs": [{"bound": plain(at), "objective": list(values)} for at, values in runs],
        "predicted": price(p.predicted),
        "observed": price(p.observed),
    }
