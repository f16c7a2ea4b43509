"""From a run's files and what was measured to its certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from prunelang.compiler.plan import Plan
from prunelang.compiler.problem import Constraint, Function, Interval
from prunelang.runtime.certificate import (
    WEIGHTS,
    Certificate,
    Measurement,
    Reported,
    certify,
    read_if_there,
    stored_from,
)
from prunelang.runtime.exact import shown
from prunelang.runtime.factors import FACTORS
from prunelang.runtime.files import read
from prunelang.runtime.price import Price
from prunelang.runtime.recount import recount
from prunelang.versions import versions

if TYPE_CHECKING:
    from prunelang.execution import RunOptions


@dataclass(frozen=True)
class Known:
    """What a certificate is made from besides the files."""

    out: Path
    plan: Plan
    options: RunOptions
    measured: Mapping[str, Measurement]
    prices: Mapping[str, Price]
    gaps: Mapping[str, float]
    bases: Mapping[str, float | Fraction]
    resumed: int = 0

    def certify(self, report: tuple[Reported, ...] = ()) -> Certificate:
        return certify(
            self.out,
            self.plan.problem,
            self.plan.table,
            spec=self.plan.source.text,
            seed=self.options.seed,
            mode="deterministic" if self.options.deterministic else "nondeterministic",
            versions=versions(self.plan, self.options.device),
            parameters=self.plan.parameters,
            measured=self.measured,
            bases=self.bases,
            prices=self.prices,
            gaps=self.gaps,
            report=report,
            resumed=self.resumed,
        )

    def recounted(self, function: Function) -> str | int | None:
        """A structural function of the saved file."""
        weights, factors = self.out / WEIGHTS, self.out / FACTORS
        stored = stored_from(read(weights), None, self.plan.table, weights, None, read_if_there(factors), factors)
        outcome = recount(Constraint("report", function, Interval(upper=2**63)), stored)
        return None if outcome.value is None else shown(outcome.value.middle)
