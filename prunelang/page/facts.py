"""What a run directory holds, as far as it goes: runs that failed, were interrupted or killed leave less."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from prunelang.compiler.plan import Plan
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl.diagnostics import SpecError
from prunelang.runtime.certificate import CERTIFICATE, SPEC, WEIGHTS, Certificate
from prunelang.runtime.files import FileProblem, read_text
from prunelang.runtime.weights import load_weights
from prunelang.verification import certificate_of, plan_of, table_of_run

if TYPE_CHECKING:
    from prunelang.runtime.factors import Factors

HISTORY, LISTING = "history.jsonl", "graph.txt"
T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """The files of a run directory that could be read; `missing` says why others could not."""

    directory: Path
    certificate: Certificate | None
    spec: str | None
    table: ShapeTable | None
    plan: Plan | None
    listing: str | None
    history: tuple[dict[str, Any], ...]
    weights: dict[str, NDArray[np.generic]] | None
    factors: Factors | None
    missing: tuple[str, ...]

    @property
    def ending(self) -> dict[str, Any]:
        """The last event of a run that came to its end: its status, and why it stopped early."""
        return next((e for e in reversed(self.history) if e.get("event") == "certified"), {})

    @property
    def seconds(self) -> float | None:
        found = [e["seconds"] for e in self.history if isinstance(e.get("seconds"), int | float)]
        return float(found[-1]) if found else None


def facts(run: Path) -> Facts:
    """Everything there is. Errors: `FileProblem` P569 for a directory that holds nothing of a run."""
    missing: list[str] = []
    if not any((run / name).is_file() for name in (CERTIFICATE, HISTORY, LISTING)):
        raise FileProblem("P569", f"{run} is no run directory", f"It holds neither {CERTIFICATE} nor {HISTORY}.")

    def tried(make: Callable[[], T]) -> T | None:
        try:
            return make()
        except FileProblem as error:
            missing.append(error.message)
        except SpecError as error:
            missing.append(f"the spec cannot be compiled here: {error.diagnostics[0].message}")
        return None

    certificate = tried(lambda: certificate_of(run))
    spec = tried(lambda: read_text(run / SPEC))
    table = tried(lambda: table_of_run(run))
    plan = weights = factors = None
    if spec is not None and table is not None and certificate is not None:
        plan = tried(lambda: plan_of(run, spec, table))
    if table is not None and (run / WEIGHTS).is_file():
        weights = tried(lambda: dict(load_weights(run / WEIGHTS, table)))
    if certificate is not None and table is not None:
        factors = tried(lambda: _factors(run, certificate, table))
    listing = tried(lambda: read_text(run / LISTING))
    history = tried(lambda: events(read_text(run / HISTORY)))
    return Facts(run, certificate, spec, table, plan, listing, tuple(history or ()), weights, factors, tuple(missing))


def _factors(run: Path, certificate: Certificate, table: ShapeTable) -> Factors:
    from prunelang.verification import factors_of_run

    return factors_of_run(run, certificate, table)


def events(text: str) -> list[dict[str, Any]]:
    """The lines of a history; a last one that was cut off, as by a power failure, is left out."""
    found = []
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return found
