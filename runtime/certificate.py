"""The certificate of a run: for every constraint what was asked, what the saved file holds, and how that is known.

It is made from files, never from memory: weights and kept positions are read back from the run's folder and recounted
with NumPy alone. What no recount can know is handed in and marked as such: measured values, `base`, prices, and whether
the last projection was exact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, TypeAlias, Union, cast, get_args, get_origin, get_type_hints

from prunelang.compiler.problem import Problem, Relative
from prunelang.compiler.shapes import ShapeTable
from prunelang.runtime.exact import Number, taken
from prunelang.runtime.factor_files import check_sums, read_factors
from prunelang.runtime.factors import FACTORS, NO_FACTORS
from prunelang.runtime.files import FileProblem, digest, parse_json, read, write_text
from prunelang.runtime.line import Given, Line, Measurement, line_of, projection_text
from prunelang.runtime.meaning import meaning
from prunelang.runtime.price import Price
from prunelang.runtime.stored import Stored
from prunelang.runtime.weights import read_support, read_weights

__all__ = [
    "CERTIFICATE",
    "FACTORS",
    "SHAPES",
    "SPEC",
    "STATUSES",
    "SUPPORT",
    "WEIGHTS",
    "Certificate",
    "Line",
    "Measurement",
    "Price",
    "Reported",
    "certify",
    "parse",
    "status_of",
    "stored_from",
]

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
    format_version: int = FORMAT_VERSION
    factors_hash: str | None = None  # sha256 of the file; left out where there is none

    @property
    def satisfied(self) -> bool:
        """Every constraint is known to hold."""
        return all(line.satisfied is True for line in self.constraints)

    def to_json(self) -> dict[str, Any]:
        """As written, with the digest of all the rest."""
        data = {**asdict(self), "constraints": [asdict(x) for x in self.constraints]}
        data["report"] = [asdict(x) for x in self.report]
        if self.factors_hash is None:
            del data["factors_hash"]
        return {**data, "digest": digest_of(data)}

    def dumps(self) -> str:
        return json.dumps(self.to_json(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def digest_of(data: Mapping[str, Any]) -> str:
    """sha256 of a certificate's canonical JSON without its own digest: it shows damage, not forgery."""
    rest = {k: v for k, v in data.items() if k != "digest"}
    return digest(json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


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
    """Certify ``weights.safetensors`` (and ``support.safetensors`` and ``factors.safetensors``, if there) of a folder.

    Writes ``spec.prune`` and ``shapes.json``, which it speaks of, then ``certificate.json``. `measured`, `bases`,
    `prices` and `gaps` (of the last projection; 0 is exact) go by constraint labels; a label without one has none.
    Errors: `FileProblem` P510 to P517; ValueError for a label that no constraint of the kind has.
    """
    labels = {c.label for c in problem.constraints}
    relative = {c.label for c in problem.constraints if isinstance(c.set, Relative)}
    by_data = {c.label for c in problem.constraints if not c.structural}
    _check_labels("constraint", labels, prices, gaps)
    _check_labels("measured constraint", by_data, measured)
    _check_labels("constraint with a bound relative to `base`", relative, bases)
    write_text(Path(SPEC), spec, root=run)
    write_text(Path(SHAPES), table.dumps(), root=run)
    weights = read(run / WEIGHTS)
    support, factors = read_if_there(run / SUPPORT), read_if_there(run / FACTORS)
    stored = stored_from(weights, support, table, run / WEIGHTS, run / SUPPORT, factors, run / FACTORS)
    stored = replace(stored, frozen=problem.frozen)
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
        factors_hash=None if factors is None else digest(factors),
    )
    write_text(Path(CERTIFICATE), certificate.dumps(), root=run)
    return certificate


def _check_labels(what: str, labels: set[str], *handed_in: Mapping[str, object] | None) -> None:
    unknown = sorted({label for handed in handed_in for label in handed or {}} - labels)
    if unknown:
        raise ValueError(f"no {what} is called {unknown[0]!r}")


def stored_from(
    weights: bytes,
    support: bytes | None,
    table: ShapeTable,
    weights_path: Path,
    support_path: Path | None,
    factors: bytes | None = None,
    factors_path: Path = Path(FACTORS),
) -> Stored:
    """The tensors of all files.

    Errors: `FileProblem`, P517 for a non-zero value outside its kept positions, and for a tensor that is not the sum of
    its parts.
    """
    arrays = read_weights(weights, table, weights_path)
    kept = {} if support is None or support_path is None else read_support(support, table, support_path)
    made_of = NO_FACTORS if factors is None else read_factors(factors, table, factors_path)
    check_sums(made_of, arrays, table, factors_path)
    stored = Stored(arrays, kept, table, factors=made_of)
    stray = stored.stray()
    if stray:
        raise FileProblem("P517", f"`{stray[0]}` has a non-zero value outside its kept positions")
    return stored


def read_if_there(path: Path) -> bytes | None:
    """The content, or None where there is no such file. Errors: `FileProblem` P510."""
    return read(path) if path.exists() else None


def status_of(lines: Sequence[Line]) -> Status:
    found = {line.satisfied for line in lines}
    return "violated" if False in found else "feasible-unverified" if None in found else "feasible-verified"


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def parse(text: str, path: Path) -> Certificate:
    """What `Certificate.dumps` wrote, key by key and type by type.

    Errors: `FileProblem` P512 for what is no certificate, P516 for another version, P517 where its digest differs.
    """
    data = parse_json(text, path)
    if not isinstance(data, dict):
        raise FileProblem("P512", f"{path} is no certificate")
    if data.get("format_version") != FORMAT_VERSION:
        raise FileProblem("P516", f"{path} is of version {data.get('format_version')!r}, this is {FORMAT_VERSION}")
    own = data.pop("digest", None)
    found: Certificate = _made(Certificate, {"factors_hash": None, **data}, path)
    if own != digest_of(data):
        raise FileProblem("P517", f"{path} was changed after it was written: its digest differs")
    return found


@cache
def _schema(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _made(kind: Any, data: object, path: Path) -> Any:
    """An instance of a dataclass from JSON; the fields' annotations are the schema."""
    hints = _schema(kind)
    if not isinstance(data, dict) or set(data) != set(hints):
        raise FileProblem("P512", f"{path} has not the keys of a {kind.__name__.lower()}")
    values: dict[str, Any] = {}
    for name, hint in hints.items():
        value = data[name]
        parts = [p for p in get_args(hint) if p in (Line, Reported)]
        if parts and isinstance(value, list):
            values[name] = tuple(_made(parts[0], v, path) for v in value)
        elif _fits(value, hint):
            values[name] = value
        else:
            raise FileProblem("P512", f"{path}: {name} is {json.dumps(value, ensure_ascii=False)[:80]}")
    return kind(**values)


def _fits(value: object, hint: Any) -> bool:
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is Literal:
        return isinstance(value, str) and value in parts
    if kind is list:
        return isinstance(value, list) and all(_fits(v, parts[0]) for v in value)
    if kind is Mapping:
        return isinstance(value, dict) and all(_fits(v, parts[1]) for v in value.values())
    return type(value) is hint and (hint is not float or math.isfinite(cast(float, value)))
