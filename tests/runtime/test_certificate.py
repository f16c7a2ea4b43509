"""Certificates from saved files: what stands in them, what decides their status, and what cannot be read back."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunelang.compiler.problem import (
    Affine,
    Constraint,
    Count,
    Entries,
    Function,
    Interval,
    Kept,
    MatrixFunction,
    Measured,
    Named,
    NofM,
    Objective,
    Problem,
    Relative,
    Set,
    Term,
    VectorNorm,
)
from prunelang.compiler.shapes import Layer, ShapeTable, Tensor
from prunelang.dsl.spans import Span
from prunelang.runtime.certificate import (
    STATUSES,
    Certificate,
    Measurement,
    Price,
    Reported,
    certify,
    digest_of,
    parse,
)
from prunelang.runtime.exact import number
from prunelang.runtime.files import FileProblem
from prunelang.runtime.line import keeps, projection_text
from prunelang.runtime.meaning import canonical, meaning
from prunelang.runtime.weights import save_support, save_weights

ROOT = Path(__file__).resolve().parents[2]
TABLE = ShapeTable(
    "toy()",
    (4,),
    (Layer("fc1", "linear", "fc1.weight", "fc1.bias", 1), Layer("fc2", "linear", "fc2.weight", None, 1)),
    (Tensor("fc1.weight", (6, 4), "weight"), Tensor("fc1.bias", (6,), "bias"), Tensor("fc2.weight", (3, 6), "weight")),
)
SPEC = "model net = toy()\nsubject to\n    sparsity: ‖net.weights‖₀ ≤ 50%\n    good: accuracy(net) ≥ 90%\n"
OBJECTIVE = Objective("minimize", (Term(Fraction(1), Measured("cross_entropy", "train")),))
WEIGHTS = ("fc1.weight", "fc2.weight")
SPARSITY = Constraint(
    "sparsity",
    Count("norm0", dict.fromkeys(WEIGHTS, 1), 0, ""),
    Interval(upper=21),
    Span(SPEC.index("sparsity"), SPEC.index("50%") + 3),
    "‖net.weights‖₀ ≤ 50%",
    asked="50%",
    dense=42,
)
GOOD = Constraint(
    "good",
    Measured("accuracy", "validation"),
    Interval(lower=Fraction(9, 10)),
    Span(SPEC.index("good"), len(SPEC) - 1),
    "accuracy(net) ≥ 90%",
    structural=False,
    asked="90%",
)
VERSIONS = {"prunelang": "0.1.0", "numpy": np.__version__}


def save(run: Path, nonzeros: int = 21) -> None:
    rng = np.random.default_rng(0)
    flat = np.zeros(42, np.float32)
    flat[rng.permutation(42)[:nonzeros]] = rng.standard_normal(nonzeros)
    arrays = {
        "fc1.weight": flat[:24].reshape(6, 4),
        "fc2.weight": flat[24:].reshape(3, 6),
        "fc1.bias": np.ones(6, "f4"),
    }
    save_weights(run / "weights.safetensors", arrays, TABLE)


def certified(run: Path, *constraints: Constraint, **rest: Any) -> Certificate:
    problem = Problem(OBJECTIVE, constraints)
    return certify(run, problem, TABLE, spec=SPEC, seed=7, mode="deterministic", versions=VERSIONS, **rest)


def test_what_stands_in_a_certificate(tmp_path: Path) -> None:
    save(tmp_path)
    measured = {"good": Measurement(Fraction(9, 10), "ab" * 32, 1797, "Clopper–Pearson, one-sided, 95 %")}
    certificate = certified(
        tmp_path,
        SPARSITY,
        GOOD,
        parameters={"κ": "50%"},
        measured=measured,
        gaps={"sparsity": 0},
        prices={"sparsity": Price(-0.5, "probe", 0.25)},
        report=(Reported("accuracy", 0.9, "", "test"), Reported("bytes", 123, "B")),
    )
    data = json.loads((tmp_path / "certificate.json").read_text(encoding="utf-8"))
    digest = data.pop("digest")
    weights = (tmp_path / "weights.safetensors").read_bytes()
    assert data == {
        "format_version": 1,
        "status": "feasible-verified",
        "spec_hash": hashlib.sha256(SPEC.encode()).hexdigest(),
        "meaning_hash": meaning(Problem(OBJECTIVE, (SPARSITY, GOOD))),
        "shapes_hash": hashlib.sha256((tmp_path / "shapes.json").read_bytes()).hexdigest(),
        "weights_hash": hashlib.sha256(weights).hexdigest(),
        "support_hash": None,
        "seed": 7,
        "mode": "deterministic",
        "versions": VERSIONS,
        "parameters": {"κ": "50%"},
        "constraints": [
            {
                "label": "sparsity", "text": "‖net.weights‖₀ ≤ 50%", "function": "norm0", "relation": "≤",
                "asked": "50%", "bound": 21, "got": 21, "counted": "non-zero values", "kept": None, "unit": "",
                "margin": 0, "satisfied": True, "kind": "structural", "keeps": "support", "line": 3,
                "price": -0.5, "price_kind": "probe", "price_spread": 0.25, "projection": "exact", "base": None,
                "split": None, "split_hash": None, "samples": None, "statement": "", "confirmed": None, "remark": "",
            },
            {
                "label": "good", "text": "accuracy(net) ≥ 90%", "function": "accuracy", "relation": "≥",
                "asked": "90%", "bound": "0.9", "got": "0.9", "counted": "measured value", "kept": None, "unit": "",
                "margin": 0, "satisfied": True, "kind": "measured", "keeps": "recheck", "line": 4,
                "price": None, "price_kind": None, "price_spread": None, "projection": None, "base": None,
                "split": "validation", "split_hash": "ab" * 32, "samples": 1797,
                "statement": "Clopper–Pearson, one-sided, 95 %", "confirmed": None, "remark": "",
            },
        ],
        "report": [
            {"title": "accuracy", "value": 0.9, "unit": "", "split": "test"},
            {"title": "bytes", "value": 123, "unit": "B", "split": None},
        ],
    }  # fmt: skip
    assert digest == digest_of(data)
    assert (tmp_path / "spec.prune").read_bytes() == SPEC.encode()
    assert ShapeTable.loads((tmp_path / "shapes.json").read_text(encoding="utf-8")) == TABLE
    assert parse((tmp_path / "certificate.json").read_text(encoding="utf-8"), tmp_path) == certificate
    assert certificate.satisfied
    assert certificate.constraints[0].shown() == ("21", "21", "0", "-0.5 (probe)")
    assert certificate.constraints[1].shown() == ("0.9", "0.9", "0", "–")
    assert [r.shown() for r in certificate.report] == ["0.9", "123 B"]


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    save(tmp_path)
    first = certified(tmp_path, SPARSITY).dumps()
    assert certified(tmp_path, SPARSITY).dumps() == first == (tmp_path / "certificate.json").read_text(encoding="utf-8")


def test_it_speaks_of_the_file_and_not_of_memory(tmp_path: Path) -> None:
    save(tmp_path)
    assert certified(tmp_path, SPARSITY).status == "feasible-verified"
    save(tmp_path, nonzeros=22)
    certificate = certified(tmp_path, SPARSITY)
    assert (certificate.status, certificate.satisfied) == ("violated", False)
    assert (certificate.constraints[0].got, certificate.constraints[0].margin) == (22, -1)


PARTS = Named("sum", parts=(Named("low_rank", (("r", 2),)), Named("sparse", (("n", 3),))))
UNKNOWN = Constraint("parts", Entries(("fc1.weight",)), PARTS, text="net[…].weights ∈ low_rank(2) + sparse(3)")


@pytest.mark.parametrize(
    ("constraints", "measured", "status"),
    [
        ((), {}, "feasible-verified"),
        ((SPARSITY,), {}, "feasible-verified"),
        ((SPARSITY, GOOD), {"good": Fraction(1)}, "feasible-verified"),
        ((SPARSITY, GOOD), {}, "feasible-unverified"),
        ((SPARSITY, UNKNOWN), {}, "feasible-unverified"),
        ((UNKNOWN, GOOD), {"good": Fraction(89, 100)}, "violated"),
    ],
)
def test_status(
    constraints: tuple[Constraint, ...], measured: dict[str, Fraction], status: str, tmp_path: Path
) -> None:
    save(tmp_path)
    got = {k: Measurement(v) for k, v in measured.items()}
    assert certified(tmp_path, *constraints, measured=got).status == status
    assert status in STATUSES


def test_a_test_of_confidence_can_only_be_stricter(tmp_path: Path) -> None:
    save(tmp_path)
    for got, confirmed, satisfied in (
        (0.95, None, True), (0.95, True, True), (0.95, False, False), (0.85, True, False), (0.85, None, False),
    ):  # fmt: skip
        line = certified(tmp_path, GOOD, measured={"good": Measurement(got, confirmed=confirmed)}).constraints[0]
        assert (line.satisfied, line.confirmed) == (satisfied, confirmed)
        assert line.remark == (
            "it holds on the split, not with the confidence that is asked" if got > 0.9 and not satisfied else ""
        )


def test_bounds_relative_to_base(tmp_path: Path) -> None:
    save(tmp_path)
    floor = replace(GOOD, set=Relative("≥", Fraction(1), Fraction(-1, 200)))
    shrunk = Constraint("shrunk", VectorNorm("norm1", WEIGHTS), Relative("≤", Fraction(1, 2), Fraction(0)))
    got = {"good": Measurement(0.945)}
    lines = certified(tmp_path, floor, shrunk, measured=got, bases={"good": 0.95, "shrunk": 1000}).constraints
    assert [(x.base, x.bound, x.satisfied) for x in lines] == [("0.95", "0.945", True), (1000, 500, True)]
    lines = certified(tmp_path, floor, shrunk, measured=got).constraints
    assert [(x.bound, x.satisfied, x.relation) for x in lines] == [(None, None, "≥"), (None, None, "≤")]
    assert all("`base`" in x.remark for x in lines)


def test_measured_numbers_are_written_without_loss(tmp_path: Path) -> None:
    save(tmp_path)
    for got in (Fraction(1747, 1797), 0.1 + 0.2, 3e-17, Fraction(2, 3)):
        line = certified(tmp_path, GOOD, measured={"good": Measurement(got)}).constraints[0]
        assert line.got is not None
        assert float(number(line.got)) == float(got)


def test_kept_positions_come_from_their_file(tmp_path: Path) -> None:
    save(tmp_path)
    pinned = Constraint("pin", Entries(("fc2.weight",)), Kept(), text="net[…].weights ∈ dense", asked="dense")
    assert certified(tmp_path, pinned).status == "violated"
    save_support(tmp_path / "support.safetensors", {"fc2.weight": np.ones((3, 6), bool)}, TABLE)
    certificate = certified(tmp_path, pinned)
    assert (certificate.status, certificate.constraints[0].got, certificate.constraints[0].bound) == (
        "feasible-verified", 18, 18,
    )  # fmt: skip
    assert certificate.support_hash == hashlib.sha256((tmp_path / "support.safetensors").read_bytes()).hexdigest()
    save_support(tmp_path / "support.safetensors", {"fc2.weight": np.zeros((3, 6), bool)}, TABLE)
    with pytest.raises(FileProblem, match=r"`fc2\.weight` has a non-zero value outside its kept positions"):
        certified(tmp_path, pinned)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gaps": {"sparsty": 0}}, "no constraint is called 'sparsty'"),
        ({"prices": {"sparsty": Price(1, "probe")}}, "no constraint is called 'sparsty'"),
        ({"measured": {"sparsity": Measurement(3)}}, "no measured constraint is called 'sparsity'"),
        ({"bases": {"sparsity": 3}}, "no constraint with a bound relative to `base` is called 'sparsity'"),
    ],
)
def test_a_label_that_nothing_of_the_kind_has(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    save(tmp_path)
    with pytest.raises(ValueError, match=said):
        certified(tmp_path, SPARSITY, **given)
    assert not (tmp_path / "certificate.json").exists()


def test_projections_in_words() -> None:
    assert [projection_text(g) for g in (0, 0.0, Fraction(0), 0.125, 3, 1e-9)] == [
        "exact", "exact", "exact", "gap ≤ 0.125", "gap ≤ 3", "gap ≤ 0.000000001",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "set", "how"),
    [
        (SPARSITY.function, SPARSITY.set, "support"),
        (Entries(WEIGHTS), NofM(2, 4), "support"),
        (Entries(WEIGHTS), Named("box"), "project each step"),
        (Entries(WEIGHTS), Named("codebook"), "assignment"),
        (Entries(WEIGHTS), Named("tt"), "factors"),
        (VectorNorm("norm1", WEIGHTS), Interval(), "project each step"),
        (VectorNorm("entropy", WEIGHTS), Interval(), "assignment"),
        (MatrixFunction("rank", "fc1.weight"), Interval(), "factors"),
        (Measured("synops", "train"), Interval(), "recheck"),
        (Affine(((Fraction(1), SPARSITY.function),), Fraction(0), ""), Interval(), "support"),
    ],
)
def test_how_a_set_is_kept(function: Function, set: Set, how: str) -> None:
    assert keeps(function, set) == how


# ── meaning ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_has_meaning() -> None:
    problem = Problem(OBJECTIVE, (SPARSITY, GOOD), frozenset({"fc1.bias", "fc2.weight"}))

    def but(**changes: Any) -> str:
        return meaning(replace(problem, constraints=(replace(SPARSITY, **changes), GOOD)))

    same = meaning(problem)
    assert but(span=Span(0, 3), text="norm0(net.weights) <= 21", asked="21") == same
    assert but(function=Count("norm0", dict.fromkeys(reversed(WEIGHTS), 1), 0, "")) == same
    assert but(set=Interval(upper=Fraction(21))) == same
    others = [
        but(set=Interval(upper=20)),
        but(set=Interval(lower=21)),
        but(label="other"),
        but(function=Count("norm0", {"fc1.weight": 1}, 0, "")),
        meaning(replace(problem, frozen=frozenset())),
        meaning(replace(problem, constraints=(GOOD, SPARSITY))),
        meaning(replace(problem, objective=replace(OBJECTIVE, sense="maximize"))),
    ]
    assert len({same, *others}) == len(others) + 1
    assert json.loads(canonical(problem))["frozen"] == ["fc1.bias", "fc2.weight"]
    with pytest.raises(TypeError, match="a problem holds object"):
        but(schedule=object())


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_no_certificate(tmp_path: Path) -> None:
    save(tmp_path)
    good = certified(tmp_path, SPARSITY).to_json()

    def refused(data: Any, code: str, sealed: bool = True) -> None:
        if sealed and isinstance(data, dict):
            data = {**data, "digest": digest_of(data)}
        with pytest.raises(FileProblem) as caught:
            parse(json.dumps(data), Path("certificate.json"))
        assert caught.value.code == code

    line = good["constraints"][0]
    refused({**good, "status": "violated"}, "P517", sealed=False)
    refused({k: v for k, v in good.items() if k != "digest"}, "P517", sealed=False)
    refused([], "P512")
    refused({**good, "format_version": 2}, "P516")
    for bad in ({"more": 1}, {"status": "fine"}, {"seed": "7"}, {"seed": True}, {"versions": {"a": 1}},
                {"constraints": {}}, {"constraints": [1]}, {"constraints": [{**line, "more": 1}]},
                {"constraints": [{**line, "got": 0.5}]}, {"constraints": [{**line, "bound": [1.5, 2]}]},
                {"constraints": [{**line, "price": "1"}]}, {"constraints": [{**line, "satisfied": 1}]},
                {"report": [{"title": "a"}]}, {"mode": None}):  # fmt: skip
        refused({**good, **bad}, "P512")
    refused({k: v for k, v in good.items() if k != "seed"}, "P512")
    with pytest.raises(FileProblem, match="is not JSON: NaN is not a number"):
        parse(json.dumps({**good, "seed": float("nan")}), Path("c"))


# ── what it needs ────────────────────────────────────────────────────────────────────────────────────────────────

OWN = {
    "certificate",
    "costs",
    "exact",
    "factor_costs",
    "factor_files",
    "factor_lengths",
    "factors",
    "files",
    "line",
    "made",
    "meaning",
    "membership",
    "price",
    "recount",
    "removed",
    "spectrum",
    "stored",
    "verify",
    "weights",
}


def test_it_shares_no_code_with_the_runtime_and_needs_no_torch() -> None:
    program = """
import sys
sys.modules["torch"] = None
import prunelang.runtime.export
before = set(sys.modules)
import prunelang.runtime.verify
print(*sorted(m for m in sys.modules if m.startswith("prunelang.") and m.count(".") > 1))
"""
    alone = program.replace("import prunelang.runtime.export\n", "")
    for text in (program, alone):
        run = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
    loaded = run.stdout.split()
    assert {m.removeprefix("prunelang.runtime.") for m in loaded if m.startswith("prunelang.runtime.")} == OWN
    assert {m for m in loaded if m.startswith("prunelang.compiler.")} == {
        "prunelang.compiler.forms",
        "prunelang.compiler.problem",
        "prunelang.compiler.shapes",
    }
