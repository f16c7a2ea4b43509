"""`prune verify` and `prune export`: a run directory, or a weights file, against its spec. Nothing here needs torch.

What is checked is decided by files alone: the spec is compiled anew, with the run's own table of shapes, and every
constraint is recounted from the stored weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunelang.api import Program, known
from prunelang.compiler.check import check
from prunelang.compiler.plan import Plan
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl.numbers import grouped
from prunelang.dsl.parser import parse as parse_spec
from prunelang.dsl.spans import Source
from prunelang.report import FORMAT_VERSION
from prunelang.runtime.certificate import CERTIFICATE, FACTORS, SHAPES, SPEC, WEIGHTS, Certificate, parse
from prunelang.runtime.export import Target, export
from prunelang.runtime.factor_files import load_factors
from prunelang.runtime.factors import NO_FACTORS, Factors
from prunelang.runtime.files import FileProblem, parse_json, read_text, sha256
from prunelang.runtime.verify import Verification, verify_run, verify_weights


def is_run(directory: Path) -> bool:
    """Whether a folder holds what `run` leaves."""
    return (directory / CERTIFICATE).is_file()


def verify_directory(run: Path) -> Verification:
    """Everything in a run directory against everything else; what is wrong is a finding, never an exception."""

    # verify_run has read the certificate before it asks, so reading it cannot fail here
    return verify_run(run, lambda text, table: plan_of(run, text, table).problem)


def plan_of(run: Path, text: str, table: ShapeTable) -> Plan:
    """The spec of a run, compiled anew with its own parameters and table. Errors: `SpecError`, `FileProblem` P517."""
    source = Source(text, str(run / SPEC))
    plan = check(
        parse_spec(text, source.name),
        source,
        table_of=lambda model, data: table,
        catalog=known(),
        parameters=certificate_of(run).parameters,
    )
    if plan.model.text != table.model:
        message = f"{SPEC} trains {plan.model.text}, and {SHAPES} is the table of {table.model}"
        raise FileProblem("P517", message)
    return plan


def verify_file(
    weights: Path, program: Program, support: Path | None = None, factors: Path | None = None
) -> Verification:
    """A dense weights file, with the kept positions and factors beside it if there are any, against a compiled spec."""
    return verify_weights(weights, program.plan.problem, program.plan.table, support=support, factors=factors)


@dataclass(frozen=True)
class Written:
    """An exported file: its length in bytes, and how each kernel is stored in it; what coding one rounded."""

    path: Path
    bytes: int
    dense: int  # length of the dense file that it was made from
    kernels: dict[str, str]
    rounding: float = 0.0
    entropy: int | None = None  # bytes that positions and values of a coded file would take by their entropies

    def text(self) -> str:
        used = ", ".join(f"{name} {format}" for name, format in self.kernels.items())
        share = f"{100 * self.bytes / self.dense:.1f} % of the {grouped(self.dense)} B of the dense file"
        said = f"{self.path}: {grouped(self.bytes)} B, {share}\n{used}"
        if self.entropy is None:
            return said
        rounded = f"values rounded by up to {self.rounding:.3g}"
        return f"{said}\nentropy of positions and values {grouped(self.entropy)} B, {rounded}"

    def to_json(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "file": str(self.path),
            "bytes": self.bytes,
            "dense_bytes": self.dense,
            "formats": self.kernels,
            "entropy_bytes": self.entropy,
            "largest_rounding": self.rounding,
        }


def export_directory(run: Path, format: Target = "best", out: Path | None = None, bits: int | None = None) -> Written:
    """Write the certified weights of a run in a format whose length is the number that `bytes` counts.

    `best` takes the cheapest format for each kernel; `coded` rounds their values to a grid of `bits` bits, 8 if left
    out, and is the only one to do so. The file is read back before it takes its name. Raises `FileProblem`, P517 where
    the weights are not those that were certified; ValueError for `bits` with another format.
    """
    certificate = certificate_of(run)
    table = table_of_run(run)
    weights = run / WEIGHTS
    if sha256(weights) != certificate.weights_hash:
        raise FileProblem("P517", f"{weights} is not the file that was certified", f"`prune verify {run}` says more.")
    name = "weights.coded" if format == "coded" else f"weights.{format}.safetensors"
    target = out if out is not None else run / name
    if target.resolve() in (weights.resolve(), (run / FACTORS).resolve()):
        raise FileProblem("P511", f"{target} holds the certified weights", "Give another name with -o.")
    done = export(weights, table, target, format, bits, factors_of_run(run, certificate, table))
    kernels = {t.name: done.formats[t.name] for t in table.tensors if t.role == "weight"}
    return Written(done.path, done.bytes, weights.stat().st_size, kernels, done.rounding, done.entropy)


def certificate_of(run: Path) -> Certificate:
    """The certificate of a run directory as it stands. Errors: `FileProblem`."""
    return parse(read_text(run / CERTIFICATE), run / CERTIFICATE)


def factors_of_run(run: Path, certificate: Certificate, table: ShapeTable) -> Factors:
    """The certified factors of a run, if it has any. Errors: `FileProblem`, P517 where they are others."""
    if certificate.factors_hash is None:
        return NO_FACTORS
    if sha256(run / FACTORS) != certificate.factors_hash:
        said = f"{run / FACTORS} is not the file that was certified"
        raise FileProblem("P517", said, f"`prune verify {run}` says more.")
    return load_factors(run / FACTORS, table)


def table_of_run(run: Path) -> ShapeTable:
    """The table of shapes in a run directory. Errors: `FileProblem` P510, P512."""
    path = run / SHAPES
    try:
        return ShapeTable.from_json(parse_json(read_text(path), path))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileProblem("P512", f"{path} is no shape table: {error!r}") from error
