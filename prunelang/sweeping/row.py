"""The outcome of one run of a sweep, as a row of its tables; and the file in the run directory that keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeAlias

from prunelang.dsl.diagnostics import Diagnostic
from prunelang.runtime.certificate import CERTIFICATE, WEIGHTS, Certificate
from prunelang.runtime.files import FileProblem, parse_json, read_text, sha256, write_text
from prunelang.sweeping.grid import Cell
from prunelang.verification import certificate_of

RECORD = "sweep.json"
FORMAT_VERSION = 1

Outcome: TypeAlias = Literal[
    "feasible-verified", "feasible-unverified", "violated", "refused", "failed", "interrupted", "not run"
]
OUTCOMES: Mapping[Outcome, str] = {
    "feasible-verified": "every constraint holds",
    "feasible-unverified": "no constraint is known to be violated, and at least one could not be checked",
    "violated": "at least one constraint does not hold",
    "refused": "the solver cannot take the problem, or the problem is no valid one; nothing was trained",
    "failed": "numerical failure, or data that cannot be had",
    "interrupted": "asked to stop while it ran",
    "not run": "the sweep was asked to stop before",
}
FINISHED: frozenset[Outcome] = frozenset({"feasible-verified", "feasible-unverified", "violated", "failed"})


@dataclass(frozen=True)
class Row:
    """A run and what became of it. Numbers by name: of constraints what the file holds, of the report its items."""

    cell: Cell
    outcome: Outcome
    solve: str = ""  # the stage as it was run
    seconds: float | None = None
    got: Mapping[str, float] = field(default_factory=dict)  # by constraint label
    bounds: Mapping[str, float] = field(default_factory=dict)  # upper or lower, of one-sided constraints
    report: Mapping[str, float] = field(default_factory=dict)  # by title
    units: Mapping[str, str] = field(default_factory=dict)  # by label or title
    message: str = ""
    code: str = ""  # of the first diagnostic, of refused runs
    directory: Path | None = None
    reused: bool = False  # finished by an earlier sweep

    @property
    def numbers(self) -> Mapping[str, float]:
        """Everything that can be an axis: report items, constraints, params that are numbers."""
        params = {name: x for name, x in ((n, number(v)) for n, v in self.cell.values) if x is not None}
        return {**params, **self.got, **self.report}

    def to_json(self) -> dict[str, Any]:
        return {
            "values": dict(self.cell.values),
            "solver": self.cell.solver,
            "seed": self.cell.seed,
            "status": self.outcome,
            "solve": self.solve,
            "seconds": self.seconds,
            "constraints": {k: {"got": v, "bound": self.bounds.get(k)} for k, v in self.got.items()},
            "report": dict(self.report),
            "units": dict(self.units),
            "code": self.code or None,
            "message": self.message or None,
            "directory": None if self.directory is None else self.directory.as_posix(),
        }


def number(text: str) -> float | None:
    """``5%`` as 5, ``0.1`` as 0.1; None for a text that does not begin with a number."""
    digits = text.strip().rstrip("%").strip()
    try:
        return float(digits.split()[0].replace("_", "")) if digits else None
    except ValueError:
        return None


def refused(cell: Cell, found: Sequence[Diagnostic], solve: str = "") -> Row:
    """A run that the first error of a check forbids."""
    error = next(d for d in found if d.severity == "error")
    return Row(cell, "refused", solve, message=error.message, code=error.code)


def finished(
    cell: Cell, certificate: Certificate, solve: str, seconds: float, failure: str | None, directory: Path
) -> Row:
    """A run that came to its end, as its certificate tells it."""
    got = {x.label: float(Fraction(x.got)) for x in certificate.constraints if x.got is not None}
    bounds = {
        x.label: float(Fraction(x.bound))
        for x in certificate.constraints
        if x.bound is not None and not isinstance(x.bound, list)
    }
    values = {item.title: _float(item.value) for item in certificate.report}
    units = {x.label: x.unit for x in certificate.constraints} | {i.title: i.unit for i in certificate.report}
    return Row(
        cell=cell,
        outcome="failed" if failure else certificate.status,
        solve=solve,
        seconds=round(seconds, 3),
        got=got,
        bounds=bounds,
        report={title: value for title, value in values.items() if value is not None},
        units={name: unit for name, unit in units.items() if unit},
        message=failure or "",
        directory=directory,
    )


def _float(value: object) -> float | None:
    try:
        return None if value is None else float(Fraction(str(value)))
    except ValueError:
        return None


# ── the record in the run directory ──────────────────────────────────────────────────────────────────────────────


def begin(identity: str, run: Path) -> None:
    """Say in a run directory which run is under way there, so that it can be gone on with."""
    run.mkdir(parents=True, exist_ok=True)
    record = {"format_version": FORMAT_VERSION, "identity": identity, "finished": False}
    write_text(Path(RECORD), json.dumps(record) + "\n", root=run)


def begun(identity: str, run: Path) -> bool:
    """Whether a run of this identity is under way in a directory."""
    record = _record(run)
    return record is not None and not record["finished"] and bool(record["identity"] == identity)


def keep(row: Row, identity: str, run: Path) -> None:
    """Say in a run directory that the run came to its end: written last, and never for one that was interrupted."""
    record = {
        "format_version": FORMAT_VERSION,
        "identity": identity,
        "finished": True,
        "certificate_hash": sha256(run / CERTIFICATE),
        "seconds": row.seconds,
        "solve": row.solve,
        "failure": row.message or None,
    }
    write_text(Path(RECORD), json.dumps(record, ensure_ascii=False, indent=1) + "\n", root=run)


def identity_of(run: Path) -> str | None:
    """Of the run that came to its end in a directory; None where none did."""
    record = _record(run)
    return str(record["identity"]) if record is not None and record["finished"] else None


def kept(cell: Cell, identity: str, meaning: str, run: Path) -> Row | None:
    """The row of a finished run of this identity, if its certificate and weights are those that it left."""
    record = _record(run)
    if record is None or not record["finished"] or record["identity"] != identity:
        return None
    try:
        if sha256(run / CERTIFICATE) != record["certificate_hash"]:
            return None
        certificate = certificate_of(run)
        if certificate.meaning_hash != meaning or sha256(run / WEIGHTS) != certificate.weights_hash:
            return None
    except FileProblem:
        return None
    row = finished(cell, certificate, str(record["solve"]), float(record["seconds"]), record["failure"], run)
    return Row(**{**vars(row), "reused": True})


def _record(run: Path) -> dict[str, Any] | None:
    path = run / RECORD
    if not path.is_file():
        return None
    try:
        record = parse_json(read_text(path), path)
    except FileProblem:
        return None
    if not isinstance(record, dict) or record.get("format_version") != FORMAT_VERSION:
        return None
    more = {"certificate_hash", "seconds", "solve", "failure"} if record.get("finished") is True else set()
    return record if set(record) == {"format_version", "identity", "finished", *more} else None
