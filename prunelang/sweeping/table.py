"""What a sweep found: rows, means over seeds, the Pareto front, and the files and the table that say so."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from prunelang.compiler.measured import is_measured
from prunelang.compiler.plan import Plan
from prunelang.compiler.problem import Measured
from prunelang.compiler.reversed import searched
from prunelang.dsl.diagnostics import Diagnostic, SpecError, did_you_mean
from prunelang.dsl.names import canonical, to_unicode
from prunelang.dsl.spans import NOWHERE
from prunelang.exits import Exit
from prunelang.report import FORMAT_VERSION, columns
from prunelang.runtime.files import write_text
from prunelang.sweeping.grid import Cell, Grid
from prunelang.sweeping.row import Row

CSV, JSON, PLOT = "results.csv", "results.json", "pareto.svg"
RISING = ("accuracy",)
"""Measured functions of which more is better; of all other axes, less is."""


@dataclass(frozen=True)
class Spread:
    """A number over seeds: its mean, its standard deviation (None for a single seed), the least and the greatest."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def deviation(self) -> float | None:
        return stdev(self.values) if len(self.values) > 1 else None

    def shown(self) -> str:
        spread = "" if self.deviation is None else f" ± {self.deviation:.2g}"
        return f"{self.mean:.6g}{spread}"

    def to_json(self) -> dict[str, Any]:
        ends = {"least": min(self.values), "greatest": max(self.values)}
        return {"mean": self.mean, "deviation": self.deviation, **ends}


@dataclass(frozen=True)
class Group:
    """The runs of one combination of values and one solver. x and y are over those that satisfy every constraint; over
    the others where none does."""

    values: tuple[tuple[str, str], ...]
    solver: str
    rows: tuple[Row, ...]
    x: Spread | None
    y: Spread | None
    front: bool = False  # no other group is at least as good in both, and better in one

    @property
    def satisfied(self) -> int:
        return sum(row.outcome == "feasible-verified" for row in self.rows)


@dataclass(frozen=True)
class Sweep:
    """The outcome of `sweep`."""

    name: str
    directory: Path
    grid: Grid
    rows: tuple[Row, ...]
    asked: tuple[str | None, str | None]  # axes as they were named
    plan: Plan

    def with_rows(self, found: Mapping[Cell, Row]) -> Sweep:
        """With these rows, in the order of the grid; what is not there is not run."""
        return replace(self, rows=tuple(found.get(c, Row(c, "not run")) for c in self.grid.cells()))

    # ── axes ──

    def titles(self) -> tuple[str, ...]:
        """What can be an axis: report items, constraints, params."""
        items = [r.title for r in self.plan.report]
        sought = searched(self.plan.problem)
        small = [] if sought is None else [f"minimize {sought.text or sought.function.name}"]
        labels = [c.label for c in self.plan.problem.constraints]
        return tuple(dict.fromkeys((*small, *items, *labels, *(n for n, _ in self.grid.values))))

    def require_axes(self) -> None:
        """Errors: `SpecError` P565 for an axis that is not there."""
        for axis in self.asked:
            if axis is not None and _key(axis) not in map(_key, self.titles()):
                near = did_you_mean(axis, self.titles())
                note = f"there are {', '.join(f'`{to_unicode(t)}`' for t in self.titles())}"
                said = f"the runs have no number called `{axis}`"
                found = Diagnostic("P565", "error", said, NOWHERE, notes=(note,), hint=near)
                raise SpecError([found], self.plan.source)

    @property
    def axes(self) -> tuple[str | None, str | None]:
        """The cost and the quality that are compared, by title: as asked, else chosen from what the spec states."""
        by_key = {_key(t): t for t in self.titles()}
        x, y = (None if a is None else by_key[_key(a)] for a in self.asked)
        y = y or self._quality()
        return x or self._cost(y), y

    def _quality(self) -> str | None:
        """The first measured item of the report, else the first measured constraint."""
        items = [r.title for r in self.plan.report if isinstance(r.function, Measured) and r.function.name != "bytes"]
        labels = [c.label for c in self.plan.problem.constraints if is_measured(c)]
        return next(iter((*items, *labels)), None)

    def _cost(self, quality: str | None) -> str | None:
        """What a search makes small, else the constraint that the values move, else the first structural one."""
        sought = searched(self.plan.problem)
        if sought is not None:
            return f"minimize {sought.text or sought.function.name}"
        bounds: dict[str, set[float]] = {}
        for row in self.rows:
            for label, bound in row.bounds.items():
                bounds.setdefault(label, set()).add(bound)
        moved = [label for label, found in bounds.items() if len(found) > 1 and label != quality]
        structural = [c.label for c in self.plan.problem.constraints if c.structural]
        counted = [r.title for r in self.plan.report if r.title != quality]
        return next((t for t in (*moved, *structural, *counted) if t != quality), None)

    def rises(self, axis: str) -> bool:
        """Whether more of it is better."""
        measured: dict[str, str] = {r.title: r.function.name for r in self.plan.report if r.function is not None}
        measured |= {c.label: c.function.name for c in self.plan.problem.constraints}
        return measured.get(axis, "") in RISING

    def unit(self, axis: str) -> str:
        return next((row.units[axis] for row in self.rows if axis in row.units), "")

    # ── groups ──

    def groups(self) -> tuple[Group, ...]:
        """By combination of values and solver, with the front marked."""
        by: dict[tuple[tuple[tuple[str, str], ...], str], list[Row]] = {}
        for row in self.rows:
            by.setdefault((row.cell.values, row.cell.solver), []).append(row)
        x, y = self.axes
        found = [Group(v, s, tuple(rows), _spread(rows, x), _spread(rows, y)) for (v, s), rows in by.items()]
        return tuple(replace(g, front=self._undominated(g, found)) for g in found)

    def _undominated(self, g: Group, others: Sequence[Group]) -> bool:
        own = self._place(g)
        if own is None or not g.satisfied:
            return False
        places = [p for o in others if o is not g and o.satisfied and (p := self._place(o)) is not None]
        return not any(p != own and p[0] <= own[0] and p[1] <= own[1] for p in places)

    def _place(self, g: Group) -> tuple[float, float] | None:
        """Both means, signed so that less is better."""
        if g.x is None or g.y is None:
            return None
        x, y = self.axes
        assert x is not None
        assert y is not None
        return (-g.x.mean if self.rises(x) else g.x.mean, -g.y.mean if self.rises(y) else g.y.mean)

    # ── as data and as text ──

    @property
    def exit(self) -> Exit:
        """130 if it was interrupted, else 5 for a failure, 4 for a violation; 1 or 3 where every run was refused."""
        outcomes = {row.outcome for row in self.rows}
        if outcomes & {"interrupted", "not run"}:
            return Exit.INTERRUPTED
        if "failed" in outcomes:
            return Exit.NUMERICAL
        if outcomes & {"violated", "feasible-unverified"}:
            return Exit.VIOLATED
        if outcomes == {"refused"}:
            return Exit.INFEASIBLE if all(row.code.startswith("P3") for row in self.rows) else Exit.SPEC
        return Exit.DONE

    def to_json(self) -> dict[str, Any]:
        x, y = self.axes
        return {
            "format_version": FORMAT_VERSION,
            "spec": self.name,
            "values": {to_unicode(name): list(texts) for name, texts in self.grid.values},
            "solvers": list(self.grid.solvers),
            "seeds": list(self.grid.seeds),
            "axes": {"x": x, "y": y},
            "runs": [self._plain(row) for row in self.rows],
            "groups": [
                {
                    "values": {to_unicode(n): v for n, v in g.values},
                    "solver": g.solver,
                    "runs": len(g.rows),
                    "satisfied": g.satisfied,
                    "x": None if g.x is None else g.x.to_json(),
                    "y": None if g.y is None else g.y.to_json(),
                    "pareto": g.front,
                }
                for g in self.groups()
            ],
        }

    def _plain(self, row: Row) -> dict[str, Any]:
        """A row with directories as they are seen from the sweep's own, so that it can be moved."""
        document = row.to_json()
        if row.directory is not None:
            document["directory"] = row.directory.relative_to(self.directory).as_posix()
        document["values"] = {to_unicode(n): v for n, v in row.cell.values}
        return document

    def csv(self) -> str:
        """A line a run; numbers that a run has not are empty."""
        names = [n for n, _ in self.grid.values]
        labels = list(dict.fromkeys(label for row in self.rows for label in row.got))
        titles = list(dict.fromkeys(title for row in self.rows for title in row.report))
        head = [*map(to_unicode, names), "solver", "seed", "status"]
        head += [f"{label} {what}" for label in labels for what in ("bound", "got")] + titles
        head += ["seconds", "solve", "message", "directory"]
        file = io.StringIO()
        table = csv.writer(file, lineterminator="\n")
        table.writerow(head)
        for row in self.rows:
            plain = self._plain(row)
            held = [m.get(label) for label in labels for m in (row.bounds, row.got)]
            table.writerow(
                [*(v for _, v in row.cell.values), row.cell.solver, row.cell.seed, row.outcome]
                + [_written(v) for v in (*held, *(row.report.get(t) for t in titles), row.seconds)]
                + [row.solve, row.message, plain["directory"] or ""]
            )
        return file.getvalue()

    def write(self, *, plot: bool = True) -> None:
        """results.csv, results.json and, where there is something to draw, pareto.svg."""
        write_text(Path(CSV), self.csv(), root=self.directory)
        document = json.dumps(self.to_json(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"
        write_text(Path(JSON), document, root=self.directory)
        if plot and any(g.x is not None and g.y is not None for g in self.groups()):
            from prunelang.sweeping.plot import pareto

            write_text(Path(PLOT), pareto(self), root=self.directory)

    def text(self) -> str:
        """A line for every combination of values and solver, then what was refused or failed."""
        x, y = self.axes
        names = [to_unicode(n) for n, _ in self.grid.values]
        rows = [(*names, "solver", _titled(x, self), _titled(y, self), "satisfied", "seconds", "")]
        for g in self.groups():
            seconds = [r.seconds for r in g.rows if r.seconds is not None]
            cells = ("–" if s is None else s.shown() for s in (g.x, g.y))
            took = f"{fmean(seconds):.1f}" if seconds else "–"
            values = (v for _, v in g.values)
            rows.append((*values, g.solver, *cells, f"{g.satisfied} of {len(g.rows)}", took, "★" if g.front else ""))
        count = len(names)
        parts = [columns(rows, frozenset({*range(count), count + 1, count + 2, count + 3, count + 4}))]
        parts += ["\n".join(said)] if (said := self._said()) else []
        return "\n\n".join([*parts, self._summary()])

    def _said(self) -> list[str]:
        """Why runs have no result, once for each reason."""
        found: dict[tuple[str, str, str], list[Row]] = {}
        for row in self.rows:
            if row.message:
                found.setdefault((row.outcome, row.code, row.message), []).append(row)
        lines = []
        for (outcome, code, message), rows in found.items():
            first = rows[0].cell.name + (f" and {len(rows) - 1} more" if len(rows) > 1 else "")
            lines.append(f"  {outcome}: {first}: {f'{code}: ' if code else ''}{message}")
        return lines

    def _summary(self) -> str:
        outcomes = [row.outcome for row in self.rows]
        counts = ", ".join(f"{outcomes.count(o)} {o}" for o in dict.fromkeys(outcomes))
        reused = sum(row.reused for row in self.rows)
        again = f"; {reused} were finished before" if reused else ""
        star = "; ★ on the Pareto front" if any(g.front for g in self.groups()) else ""
        return f"  {len(outcomes)} runs: {counts}{again}{star}   {self.directory / CSV}"


def _key(axis: str) -> str:
    return canonical(axis).replace(" ", "")


def _titled(axis: str | None, sweep: Sweep) -> str:
    if axis is None:
        return "–"
    unit = sweep.unit(axis)
    return to_unicode(axis) + (f" [{unit}]" if unit else "")


def _spread(rows: Sequence[Row], axis: str | None) -> Spread | None:
    satisfied = [row for row in rows if row.outcome == "feasible-verified"]
    chosen = satisfied or [row for row in rows if row.outcome in ("violated", "feasible-unverified")]
    found = tuple(row.numbers[axis] for row in chosen if axis in row.numbers) if axis is not None else ()
    return Spread(found) if found else None


def _written(value: float | None) -> str:
    return "" if value is None else repr(int(value)) if value == int(value) else repr(value)
