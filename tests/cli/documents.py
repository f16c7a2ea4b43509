"""The JSON documents of the command line, as models that take nothing more and nothing less."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_FORM = r"(low rank \d+|train \d+(-\d+)*|codebook \d+|\d+ values|sparse \d+)"
MadeOf = Annotated[str, Field(pattern=rf"^{_FORM}( \+ {_FORM})*$")]
"""What a tensor is stored as where it is made of factors."""


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Place(Document):
    line: int
    column: int


class Range(Document):
    start: Place
    end: Place


class FixIt(Document):
    start: int
    end: int
    text: str


class Finding(Document):
    """A diagnostic. The first five are always there; the others where they say something."""

    code: str
    severity: Literal["error", "warning", "note"]
    message: str
    file: str
    range: Range
    notes: list[str] = []
    hint: str | None = None
    expected: list[str] = []
    found: str | None = None
    fixit: FixIt | None = None
    conflict: list[str] = []
    certificate: dict[str, Any] = {}
    relaxations: list[dict[str, Any]] = []


class Summary(Document):
    errors: int
    warnings: int
    notes: int


class Budget(Document):
    label: str
    function: str
    asked: str
    unit: str
    dense: int | None
    structural: bool
    lower: int | str | None
    upper: int | str | None
    set: str | None


class Checked(Document):
    file: str
    valid: bool
    budgets: list[Budget]


class Check(Document):
    format_version: Literal["1.0"]
    valid: bool
    summary: Summary
    diagnostics: list[Finding]
    files: list[Checked]


class Proof(Document):
    label: str
    verdict: str
    text: str


class Problem(Document):
    model: str
    budgets: list[Budget]


class Stage(Document):
    kind: Literal["pretrain", "solve", "finetune"]
    solver: str | None
    optimizer: str
    length: str
    ends: list[str]
    descends_on: list[str]
    because: str | None


class Pruning(Document):
    kind: Literal["prune"]
    pruner: str
    reads: list[str]


class Explained(Document):
    format_version: Literal["1.0"]
    file: str
    spec: str
    problem: Problem
    proofs: list[Proof]
    solver: list[Stage | Pruning]
    graph: dict[str, Any]


class Price(Document):
    value: float
    kind: Literal["multiplier", "surrogate", "probe"]
    spread: float | None


class ShortRuns(Document):
    bound: int | float
    objective: list[float]


class Probed(Document):
    label: str
    unit: str
    bound: int | float
    runs: list[ShortRuns]
    predicted: Price | None
    observed: Price


class Probe(Document):
    format_version: Literal["1.0"]
    file: str
    delta: float
    share: float
    seeds: list[int]
    objective: str
    bounds: list[Probed]
    skipped: list[Finding]


class Code(Document):
    format_version: Literal["1.0"]
    code: str
    title: str
    what: str
    why: str
    mend: str


class Line(Document):
    label: str
    text: str
    function: str
    relation: str
    asked: str
    bound: int | str | list[int | str] | None
    got: int | str | None
    counted: str
    kept: int | str | None
    unit: str
    margin: int | str | None
    satisfied: bool | None
    kind: Literal["structural", "measured"]
    keeps: str
    line: int | None
    price: float | None
    price_kind: str | None
    price_spread: float | None
    projection: str | None
    base: int | str | None
    split: str | None
    split_hash: str | None
    samples: int | None
    statement: str
    confirmed: bool | None
    remark: str


class Reported(Document):
    title: str
    value: int | str | float | None
    unit: str
    split: str | None


class Certificate(Document):
    format_version: Literal[1]
    status: Literal["feasible-verified", "feasible-unverified", "violated"]
    spec_hash: str
    meaning_hash: str
    shapes_hash: str
    weights_hash: str
    support_hash: str | None
    factors_hash: str | None = None  # left out where there are none
    seed: int
    mode: Literal["deterministic", "nondeterministic"]
    versions: dict[str, str]
    parameters: dict[str, str]
    constraints: list[Line]
    report: list[Reported]
    digest: str


class Run(Document):
    format_version: Literal["1.0"]
    directory: str
    seconds: float
    failure: str | None
    interrupted: bool
    emptied_layers: list[str]
    certificate: Certificate


class Verdict(Document):
    verdict: Literal["ok", "fail", "measured", "unverified"]
    sentence: str


class Verified(Document):
    format_version: Literal[1]
    ok: bool
    findings: list[Verdict]


class Exported(Document):
    format_version: Literal["1.0"]
    file: str
    bytes: int
    dense_bytes: int
    formats: dict[str, Literal["dense", "bitmask", "csr", "coded"] | MadeOf]
    entropy_bytes: int | None
    largest_rounding: float


class Units(Document):
    kept: int
    of: int


class Shrunk(Document):
    format_version: Literal["1.0"]
    file: str
    description: str
    bytes: int
    dense_bytes: int
    units: dict[str, Units]
    whole: dict[str, str]
    factored: dict[str, Annotated[str, Field(pattern=r"^(low rank \d+|train \d+(-\d+)* in the order \d+(-\d+)*)$")]]
    unfactored: dict[str, MadeOf]
    macs: int
    dense_macs: int
    params: int
    dense_params: int


class Doctor(Document):
    format_version: Literal["1.0"]
    python: str
    platform: str
    packages: dict[str, str | None]
    devices: list[str]
    threads: int
    deterministic: bool
    PRUNELANG_DATA: str | None
    cache: str
    solvers: list[str]
    networks: list[str]
    data: list[str]
