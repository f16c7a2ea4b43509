"""The certificate of a run: for every constraint what was asked, what the saved file holds, and how that is known.

It is made from files, never from memory: weights and kept positions are read back from the run's folder and recounted
with NumPy alone. What no recount can know is handed in and marked as such: measured values, `base`, prices, and whether
the last projection was exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

from prunelang.compiler.problem import (
    Affine,
    Constraint,
    Function,
    MatrixFunction,
    Measured,
    Named,
    Problem,
    Set,
    VectorNorm,
)
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl.spans import NOWHERE, Source
from prunelang.runtime.exact import Number, Value, shown, taken, written
from prunelang.runtime.files import FileProblem, digest, read, write_text
from prunelang.runtime.meaning import meaning
from prunelang.runtime.recount import limits, recount, relation_of
from prunelang.runtime.stored import NotRecounted, Outcome, Stored, decided
from prunelang.runtime.weights import read_support, read_weights

FORMAT_VERSION: Final = 1
SPEC, SHAPES, WEIGHTS = "spec.prune", "shapes.json", "weights.safetensors"
SUPPORT, CERTIFICATE = "support.safetensors", "certificate.json"

Status: TypeAlias = Literal["feasible-verified", "feasible-unverified", "violated"]
STATUSES: Final[Mapping[Status, str]] = {
    "feasible-verified": "every constraint holds: structural ones by recount of the file, measured ones on their split",
    "feasible-unverified": "no constraint is known to be violated, and at least one could not be recounted or measured",
    "violated": "at least one constraint does not hold",
}
Mode: TypeAlias = Literal["deterministic", "nondeterministic"]
PriceKind: TypeAlias = Literal["multiplier", "surrogate", "probe"]


@dataclass(frozen=True)
class Price:
    """−∂L/∂B, loss per unit of budget: a Lagrange multiplier, that of a surrogate, or a finite difference (probe)."""

    value: float
    kind: PriceKind
    spread: float | None = None  # of a probe, over seeds


@dataclass(frozen=True)
class Measurement:
    """A measured function on its whole split, evaluated on the saved file. A float stands for its shortest decimal."""

    got: Fraction | int | float
    split_hash: str | None = None
    samples: int | None = None
    statement: str = ""  # confidence, in words
    confirmed: bool | None = None  # result of a one-sided test, where there is one; it can only make things stricter


@dataclass(frozen=True)
class Reported:
    """One item of the spec's `report`."""

    title: str
    value: Number | float | None
    unit: str = ""
    split: str | None = None

    def shown(self) -> str:
        text = "–" if self.value is None else f"{self.value:.6g}" if isinstance(self.value, float) else f"{self.value}"
        return f"{text} {self.unit}".rstrip()


@dataclass(frozen=True)
class Line:
    """One constraint. Numbers are integers, decimals or fractions as text; `got` is rounded to 20 digits where longer."""

    label: str
    text: str  # canonical source
    function: str
    relation: str  # ≤ ≥ between ∈
    asked: str  # the bound as written
    bound: Number | list[Number] | None  # [lower, upper] of two-sided ones
    got: Number | None
    counted: str  # what `got` is a number of
    kept: Number | None  # the value on kept positions, which lower bounds on counts ask for
    unit: str
    margin: Number | None
    satisfied: bool | None  # None: neither recounted nor measured
    kind: Literal["structural", "measured"]
    keeps: str  # how `finetune` stays in the set
    line: int | None  # of the spec
    price: float | None = None
    price_kind: str | None = None
    price_spread: float | None = None
    projection: str | None = None  # "exact" or "gap ≤ g", as the last projection reported
    base: Number | None = None  # what a relative bound refers to, measured once
    split: str | None = None
    split_hash: str | None = None
    samples: int | None = None
    statement: str = ""
    confirmed: bool | None = None
    remark: str = ""

    def shown(self) -> tuple[str, str, str, str]:
        """Bound, got, margin and price for a table."""
        bound = " … ".join(map(str, self.bound)) if isinstance(self.bound, list) else self.bound
        price = None if self.price is None else f"{self.price:.3g} ({self.price_kind})"
        texts = ("–" if x is None else str(x) for x in (bound, self.got, self.margin, price))
        return cast(tuple[str, str, str, str], tuple(texts))


@dataclass(frozen=True)
class Certificate:
    """``certificate.json``: hashes of everything it speaks of, and a line per constraint."""

    status: Status
    spec_hash: str  # sha256 of the spec's text
    meaning_hash: str  # sha256 of the canonical problem
    shapes_hash: str  # sha256 of the canonical shape table
    weights_hash: str  # sha256 of the file
    support_hash: str | None
    seed: int
    mode: Mode
    versions: Mapping[str, str]
    parameters: Mapping[str, str]  # every `param` with the value in force
    constraints: tuple[Line, ...]
    report: tuple[Reported, ...] = ()
    format_version: int = field(default=FORMAT_VERSION)

    @property
    def satisfied(self) -> bool:
        """Every constraint is known to hold."""
        return all(line.satisfied is True for line in self.constraints)

    def to_json(self) -> dict[str, Any]:
        """As written, with the digest of all the rest."""
        data = {**asdict(self), "constraints": [asdict(x) for x in self.constraints]}
        data["report"] = [asdict(x) for x in self.report]
        return {**data, "digest": digest_of(data)}

    def dumps(self) -> str:
        return json.dumps(self.to_json(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def digest_of(data: Mapping[str, Any]) -> str:
    """sha256 of a certificate's canonical JSON without its own digest: it shows damage, not forgery."""
    rest = {k: v for k, v in data.items() if k != "digest"}
    return digest(json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


@dataclass(frozen=True)
class Given:
    """What a recount cannot know of one constraint."""

    measured: Measurement | None = None
    base: Fraction | None = None
    price: Price | None = None
    projection: str | None = None


def certify(
    run: Path,
    problem: Problem,
    table: ShapeTable,
    *,
    spec: str,
    seed: int,
    mode: Mode,
    versions: Mapping[str, str],
    parameters: Mapping[str, str] | None = None,
    measured: Mapping[str, Measurement] | None = None,
    bases: Mapping[str, Fraction | int | float] | None = None,
    prices: Mapping[str, Price] | None = None,
    gaps: Mapping[str, Fraction | int | float] | None = None,
    report: Sequence[Reported] = (),
) -> Certificate:
    """Certify ``weights.safetensors`` (and ``support.safetensors``, if there) of the folder `run`.

    Writes ``spec.prune`` and ``shapes.json``, which it speaks of, then ``certificate.json``. `measured`, `bases`, `prices`
    and `gaps` (of the last projection; 0 is exact) go by constraint labels; a label without one has none.
    Errors: `FileProblem` P510 to P517; ValueError for a label that no constraint has.
    """
    labels = {c.label for c in problem.constraints}
    for handed in (measured, bases, prices, gaps):
        unknown = sorted(set(handed or {}) - labels)
        if unknown:
            raise ValueError(f"no constraint is called {unknown[0]!r}")
    write_text(Path(SPEC), spec, root=run)
    write_text(Path(SHAPES), table.dumps(), root=run)
    weights = read(run / WEIGHTS)
    support = read(run / SUPPORT) if (run / SUPPORT).exists() else None
    stored = stored_from(weights, support, table, run)
    given = {
        label: Given(
            (measured or {}).get(label),
            None if label not in (bases or {}) else taken((bases or {})[label]),
            (prices or {}).get(label),
            None if label not in (gaps or {}) else projection_text((gaps or {})[label]),
        )
        for label in labels
    }
    lines = tuple(line_of(c, stored, spec, given[c.label]) for c in problem.constraints)
    certificate = Certificate(
        status=status_of(lines),
        spec_hash=digest(spec.encode()),
        meaning_hash=meaning(problem),
        shapes_hash=table.digest,
        weights_hash=digest(weights),
        support_hash=None if support is None else digest(support),
        seed=seed,
        mode=mode,
        versions=dict(versions),
        parameters=dict(parameters or {}),
        constraints=lines,
        report=tuple(report),
    )
    write_text(Path(CERTIFICATE), certificate.dumps(), root=run)
    return certificate


def stored_from(weights: bytes, support: bytes | None, table: ShapeTable, run: Path) -> Stored:
    """The tensors of both files. Errors: `FileProblem`, P517 for a non-zero value outside its kept positions."""
    arrays = read_weights(weights, table, run / WEIGHTS)
    kept = {} if support is None else read_support(support, table, run / SUPPORT)
    stored = Stored(arrays, kept, table)
    stray = stored.stray()
    if stray:
        raise FileProblem("P517", f"`{stray[0]}` has a non-zero value outside its kept positions")
    return stored


def status_of(lines: Sequence[Line]) -> Status:
    found = {line.satisfied for line in lines}
    return "violated" if False in found else "feasible-unverified" if None in found else "feasible-verified"


def projection_text(gap: Fraction | int | float) -> str:
    return "exact" if gap == 0 else f"gap ≤ {written(taken(gap))}"


# ── one line ─────────────────────────────────────────────────────────────────────────────────────────────────────


def line_of(constraint: Constraint, stored: Stored, spec: str, given: Given) -> Line:
    """What certificate and verification say of one constraint: both build it here, each from what it has read."""
    m, price = given.measured, given.price
    outcome = recount(constraint, stored, given.base) if constraint.structural else measured_outcome(constraint, given)
    function = constraint.function
    return Line(
        label=constraint.label,
        text=constraint.text,
        function=function.name,
        relation=outcome.relation,
        asked=constraint.asked,
        bound=_bound(outcome),
        got=None if outcome.value is None else shown(outcome.value.middle),
        counted=outcome.counted,
        kept=None if outcome.kept is None else shown(outcome.kept.middle),
        unit=function.unit,
        margin=None if outcome.margin is None else shown(outcome.margin),
        satisfied=outcome.satisfied,
        kind="structural" if constraint.structural else "measured",
        keeps=keeps(function, constraint.set),
        line=None if constraint.span == NOWHERE else Source(spec).position(constraint.span.start).line,
        price=None if price is None else price.value,
        price_kind=None if price is None else price.kind,
        price_spread=None if price is None else price.spread,
        projection=given.projection,
        base=None if given.base is None else written(given.base),
        split=_split(function),
        split_hash=None if m is None else m.split_hash,
        samples=None if m is None else m.samples,
        statement="" if m is None else m.statement,
        confirmed=None if m is None else m.confirmed,
        remark=outcome.remark,
    )


def measured_outcome(constraint: Constraint, given: Given) -> Outcome:
    """The outcome of a measured constraint: by comparison, and where there is a test, only if that confirms it."""
    relation = relation_of(constraint)
    try:
        lower, upper = limits(constraint, given.base)
    except NotRecounted as reason:
        return Outcome(relation, "", remark=f"not decided: {reason}")
    if given.measured is None:
        return Outcome(relation, "", lower, upper, remark="it was not measured")
    outcome = decided(Outcome(relation, "measured value", lower, upper, Value.exact(_short(given.measured.got))))
    if outcome.satisfied and given.measured.confirmed is False:
        return replace(outcome, satisfied=False, remark="it holds on the split, not with the confidence that is asked")
    return outcome


def keeps(function: Function, set: Set) -> str:
    """How a stage after the solve stays in the set, by the kind of function and set."""
    match function:
        case Measured():
            return "recheck"
        case VectorNorm(name="entropy"):
            return "assignment"
        case VectorNorm():
            return "project each step"
        case MatrixFunction():
            return "factors"
        case Affine(terms=terms):
            kinds = {keeps(f, set) for _, f in terms}
            return kinds.pop() if len(kinds) == 1 else "project each step"
    match set:
        case Named(name="box"):
            return "project each step"
        case Named(name="codebook" | "values" | "scaled"):
            return "assignment"
        case Named(name="low_rank" | "tt" | "sum"):
            return "factors"
    return "support"


def _short(value: Fraction | int | float) -> Fraction:
    """A measured number as it stands in the certificate, so that whoever reads it decides the same."""
    return Fraction(shown(taken(value))) if isinstance(value, float) else Fraction(value)


def _bound(outcome: Outcome) -> Number | list[Number] | None:
    ends = [written(b) for b in (outcome.lower, outcome.upper) if b is not None]
    return None if not ends else ends[0] if len(ends) == 1 else ends


def _split(function: Function) -> str | None:
    if isinstance(function, Measured):
        return function.split
    splits = {_split(f) for _, f in function.terms} if isinstance(function, Affine) else set()
    return splits.pop() if len(splits) == 1 else None
