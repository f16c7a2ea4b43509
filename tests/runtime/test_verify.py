"""The checker against damage and forgery: every file of a run is flipped, cut, exchanged and edited."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prunelang.compiler.formats import best_bytes
from prunelang.compiler.problem import (
    Constraint,
    Count,
    Entries,
    Interval,
    Kept,
    Measured,
    NofM,
    Objective,
    Problem,
    Relative,
    Term,
    VectorNorm,
)
from prunelang.compiler.shapes import Layer, ShapeTable, Tensor
from prunelang.dsl.diagnostics import Diagnostic, SpecError
from prunelang.dsl.spans import Source, Span
from prunelang.runtime.certificate import Measurement, Price, Reported, certify, digest_of
from prunelang.runtime.files import digest
from prunelang.runtime.verify import Verification, verify_run, verify_weights
from prunelang.runtime.weights import save_support, save_weights

TABLE = ShapeTable(
    "toy()",
    (8,),
    (Layer("fc1", "linear", "fc1.weight", "fc1.bias", 1), Layer("fc2", "linear", "fc2.weight", None, 3)),
    (
        Tensor("fc1.weight", (10, 8), "weight"),
        Tensor("fc1.bias", (10,), "bias"),
        Tensor("fc2.weight", (4, 10), "weight"),
    ),
)
KERNELS = ("fc1.weight", "fc2.weight")
SPEC = """model net = toy()
subject to
    sparsity: norm0 ≤ 40
    compute: sparse_macs ≤ 70
    storage: bytes ≤ 900
    pattern: n_of_m ≤ 4
    shrunk: norm1 ≤ half of base
    pin: dense
    good: accuracy ≥ 9/10
"""


def problem_of(text: str, table: ShapeTable) -> Problem:
    """A small compiler: one constraint a line."""
    constraints = []
    for m in re.finditer(r"^ +(\w+): (\w+)(?: [≤≥] (.*))?$", text, re.MULTILINE):
        label, name, bound = m.groups()
        uses = {"sparse_macs": {"fc1.weight": 1, "fc2.weight": 3}}.get(name, dict.fromkeys(KERNELS, 1))
        limit = Fraction(bound) if bound and re.fullmatch(r"[\d/]+", bound) else None
        function, set, structural = {
            "norm0": (Count("norm0", uses, 0, ""), Interval(upper=limit), True),
            "sparse_macs": (Count("sparse_macs", uses, 0, "MACs"), Interval(upper=limit), True),
            "bytes": (best_bytes(table, [t.name for t in table.tensors]), Interval(upper=limit), True),
            "n_of_m": (Entries(("fc1.weight",)), NofM(int(limit or 0), 8), True),
            "norm1": (VectorNorm("norm1", KERNELS), Relative("≤", Fraction(1, 2), Fraction(0)), True),
            "dense": (Entries(("fc2.weight",)), Kept(), True),
            "drr": (VectorNorm("drr", ("fc1.weight",), options=(("beta", 5),)), Interval(upper=limit), True),
            "accuracy": (Measured("accuracy", "validation"), Interval(lower=limit), False),
        }.get(name, (None, None, None))
        if function is None or set is None or structural is None:
            source = Source(text, "spec.prune")
            raise SpecError([Diagnostic("P201", "error", f"`{name}` is not known", Span(*m.span(2)))], source)
        constraints.append(
            Constraint(label, function, set, Span(*m.span(1)), m[0].strip(), structural, asked=bound or "dense")
        )
    return Problem(Objective("minimize", (Term(Fraction(1), Measured("mse", "train")),)), tuple(constraints))


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(5)
    fc1, fc2 = np.zeros((10, 8), np.float32), np.zeros((4, 10), np.float32)
    for row in fc1:
        row[rng.permutation(8)[:2]] = rng.standard_normal(2)
    fc2.reshape(-1)[rng.permutation(40)[:15]] = rng.standard_normal(15)
    return {"fc1.weight": fc1, "fc2.weight": fc2, "fc1.bias": rng.standard_normal(10).astype("f4")}


def make(run: Path, spec: str = SPEC, **rest: Any) -> Path:
    run.mkdir(exist_ok=True)
    save_weights(run / "weights.safetensors", arrays(), TABLE)
    save_support(run / "support.safetensors", {"fc2.weight": np.ones((4, 10), bool)}, TABLE)
    problem = problem_of(spec, TABLE)
    labels = {c.label for c in problem.constraints}
    given: dict[str, dict[str, Any]] = {
        "measured": {"good": Measurement(Fraction(19, 20), "cd" * 32, 1000, "95 %", True)},
        "bases": {"shrunk": 1000},
        "gaps": {"compute": 0.25, "sparsity": 0},
        "prices": {"shrunk": Price(0.125, "multiplier")},
    }
    known = {k: {label: v for label, v in found.items() if label in labels} for k, found in given.items()}
    certify(
        run,
        problem,
        TABLE,
        spec=spec,
        seed=3,
        mode="deterministic",
        versions={"numpy": np.__version__},
        parameters={"κ": "5%"},
        report=(Reported("accuracy", 0.95, "", "test"),),
        **{**known, **rest},
    )
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make(tmp_path / "run")


def check(run: Path) -> Verification:
    return verify_run(run, problem_of)


def reseal(run: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Forge: edit the certificate and give it a fitting digest."""
    path = run / "certificate.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    edit(data)
    data["digest"] = digest_of(data)
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def rehash(run: Path, name: str, key: str) -> None:
    """Forge: the certificate takes a changed file for the right one."""
    reseal(run, lambda data: data.update({key: digest((run / name).read_bytes())}))


# ── a good run ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_good_run(run: Path) -> None:
    found = check(run)
    assert found.ok
    assert found.failures == ()
    assert found.certificate is not None
    assert found.certificate.status == "feasible-verified"
    assert [(f.verdict, f.sentence) for f in found.findings] == [
        ("ok", "spec.prune is the file that was certified"),
        ("ok", "shapes.json is the file that was certified"),
        ("ok", "weights.safetensors is the file that was certified"),
        ("ok", "support.safetensors is the file that was certified"),
        ("ok", "`sparsity`: 35 ≤ 40 (non-zero values, margin 5)"),
        ("ok", "`compute`: 65 MACs ≤ 70 MACs (non-zero values, margin 5)"),
        ("ok", f"`storage`: {900 - margin(found)} B ≤ 900 B (non-zero values, margin {margin(found)})"),
        ("ok", "`pattern`: 2 ≤ 4 (most non-zeros of 8 consecutive entries, margin 2)"),
        ("ok", next(f.sentence for f in found.findings if "shrunk" in f.sentence)),
        ("ok", "`pin`: 40 ≥ 40 (kept positions, margin 0)"),
        ("measured", "`good`: 0.95 ≥ 0.9 (measured value, margin 0.05)"),
    ]
    assert found.to_json()["ok"] is True
    assert found.text().splitlines()[-1] == "measured  `good`: 0.95 ≥ 0.9 (measured value, margin 0.05)"


def margin(found: Verification) -> int:
    assert found.certificate is not None
    value = next(x.margin for x in found.certificate.constraints if x.label == "storage")
    assert isinstance(value, int)
    assert value > 0
    return value


def test_a_violation_that_the_certificate_admits_still_fails(tmp_path: Path) -> None:
    run = make(tmp_path / "run", SPEC.replace("norm0 ≤ 40", "norm0 ≤ 34"))
    found = check(run)
    assert not found.ok
    assert found.failures == ("`sparsity`: 35 ≤ 34 (non-zero values, margin -1) is violated",)


def test_what_has_no_recount_is_not_called_verified(tmp_path: Path) -> None:
    found = check(make(tmp_path / "run", SPEC + "    flat: drr ≤ 3\n"))
    assert (found.ok, found.failures) == (False, ())
    assert [f.sentence for f in found.findings if f.verdict == "unverified"] == [
        "`flat`: there is no recount of `drr` with these options"
    ]
    found = check(make(tmp_path / "run", measured={}))
    (unverified,) = (f.sentence for f in found.findings if f.verdict == "unverified")
    assert unverified == "`good`: no finite value of it was measured"


# ── damage ───────────────────────────────────────────────────────────────────────────────────────────────────────

FILES = ["weights.safetensors", "support.safetensors", "spec.prune", "shapes.json", "certificate.json"]


@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_is_accepted(name: str, run: Path) -> None:
    path = run / name
    good = path.read_bytes()
    rng = random.Random(name)
    accepted = 0
    for _ in range(200):
        at = rng.randrange(8 * len(good))
        path.write_bytes(good[: at // 8] + bytes([good[at // 8] ^ 1 << at % 8]) + good[at // 8 + 1 :])
        accepted += check(run).ok
    assert accepted == 0
    path.write_bytes(good)
    assert check(run).ok


@pytest.mark.parametrize("name", FILES)
def test_no_cut_or_missing_file_is_accepted(name: str, run: Path) -> None:
    path = run / name
    good = path.read_bytes()
    for length in sorted({*range(0, len(good), max(1, len(good) // 40)), len(good) - 1}):
        path.write_bytes(good[:length])
        if name == "certificate.json" and length == len(good) - 1:
            continue  # the last newline
        assert not check(run).ok
    path.write_bytes(good + b"\0")
    assert not check(run).ok
    path.unlink()
    assert not check(run).ok


# ── forgery: the certificate's hashes and digest fit ─────────────────────────────────────────────────────────────


def test_a_flipped_weight_shows_in_the_counts(run: Path) -> None:
    """Every entry in turn: a zero that becomes a number, a number that becomes zero."""
    for name in KERNELS:
        for i in range(TABLE.tensor[name].size):
            changed = arrays()
            flat = changed[name].reshape(-1)
            flat[i] = 0.5 if flat[i] == 0 else 0
            save_weights(run / "weights.safetensors", changed, TABLE)
            rehash(run, "weights.safetensors", "weights_hash")
            found = check(run)
            assert any("`sparsity`: the certificate states got 35" in s for s in found.failures)
            assert any("`compute`: the certificate states got 65" in s for s in found.failures)


def leaves(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from leaves(value, (*path, key))
    else:
        yield path


def others(value: Any) -> list[Any]:
    """Values of any type that another scalar may be mistaken for."""
    match value:
        case bool():
            return [not value, None, int(value)]
        case None:
            return [0, "", "x", True, 0.5, "0.5"]
        case int():
            return [value + 1, value - 1, -value or 7, str(value), float(value), None, value + 2**70]
        case float():
            return [value + 1, -value, None, str(value)]
        case _:
            return [value + "x", value[:-1], "", None, 1, "-" + value, value.swapcase()]


STATED = ("seed", "mode", "versions", "parameters", "report", "digest")
"""Parts of a certificate that only the run can know."""
STATED_OF_A_LINE = (
    "price",
    "price_kind",
    "price_spread",
    "projection",
    "split_hash",
    "samples",
    "statement",
    "confirmed",
)


def test_every_scalar_of_a_certificate_that_matters_is_checked(run: Path) -> None:
    path = run / "certificate.json"
    good = path.read_text(encoding="utf-8")
    tried = accepted = 0
    for leaf in leaves(json.loads(good)):
        *parents, last = leaf
        for sealed in (True, False):
            for other in others(_at(json.loads(good), leaf))[: None if sealed else 1]:
                data = json.loads(good)
                if other == _at(data, leaf) and type(other) is type(_at(data, leaf)):
                    continue
                _at(data, parents)[last] = other
                if sealed:
                    data["digest"] = digest_of(data)
                path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
                found, tried = check(run), tried + 1
                stated = leaf[0] in STATED or (leaf[0] == "constraints" and last in STATED_OF_A_LINE)
                if found.ok and not sealed:
                    raise AssertionError(f"{leaf} = {other!r} is accepted with a digest that does not fit")
                if found.ok and not stated:
                    raise AssertionError(f"{leaf} = {other!r} is accepted")
                accepted += found.ok
    assert tried > 1000
    assert accepted > 10  # what is only stated can be forged: this test would notice if nothing could be


def _at(data: Any, path: Any) -> Any:
    for key in path:
        data = data[key]
    return data


def test_lines_that_are_missing_repeated_or_exchanged(run: Path) -> None:
    path = run / "certificate.json"
    good = path.read_text(encoding="utf-8")
    for edit in (
        lambda x: x.pop(),
        lambda x: x.pop(0),
        lambda x: x.append(x[0]),
        lambda x: x.reverse(),
        lambda x: x.clear(),
    ):
        path.write_text(good, encoding="utf-8")
        reseal(run, lambda data, edit=edit: edit(data["constraints"]))  # type: ignore[misc]
        assert any(s.startswith("the certificate has lines for") for s in check(run).failures)


def test_a_loosened_bound_in_certificate_and_spec(run: Path) -> None:
    """An honest certificate of another problem: only its bounds are raised, everywhere."""
    spec = SPEC.replace("norm0 ≤ 40", "norm0 ≤ 41")
    (run / "spec.prune").write_text(spec, encoding="utf-8")
    assert not check(run).ok
    rehash(run, "spec.prune", "spec_hash")
    failures = check(run).failures
    assert "the certificate speaks of a problem with another meaning than the spec" in failures
    assert "`sparsity`: the certificate states bound 40, and it is 41" in failures


def test_another_spec(run: Path, tmp_path: Path) -> None:
    other = make(tmp_path / "other", SPEC.replace("compute: sparse_macs ≤ 70", "cost: sparse_macs ≤ 75"))
    assert check(other).ok
    shutil.copy(other / "spec.prune", run / "spec.prune")
    assert "spec.prune is not the file that was certified: its sha256 differs" in check(run).failures
    rehash(run, "spec.prune", "spec_hash")
    assert any(s.startswith("the certificate has lines for") for s in check(run).failures)
    shutil.copy(other / "certificate.json", run / "certificate.json")
    assert check(run).ok  # it is the other run now, weights and all


def test_a_spec_that_does_not_compile(run: Path) -> None:
    (run / "spec.prune").write_text("    a: norm7 ≤ 3\n", encoding="utf-8")
    rehash(run, "spec.prune", "spec_hash")
    found = check(run)
    assert any(s.startswith("spec.prune does not compile: spec.prune:1:8: error[P201]") for s in found.failures)
    (run / "spec.prune").write_bytes(b"\xff")
    rehash(run, "spec.prune", "spec_hash")
    assert any("is not UTF-8 text" in s for s in check(run).failures)


def test_another_network(run: Path) -> None:
    cheaper = replace(TABLE, layers=(TABLE.layers[0], replace(TABLE.layers[1], uses=1)))
    (run / "shapes.json").write_text(cheaper.dumps(), encoding="utf-8")
    assert check(run).failures == ("shapes.json is not the file that was certified: its sha256 differs",)
    rehash(run, "shapes.json", "shapes_hash")
    text = "`compute` is violated: the compiled `sparse_macs` gives 65, counted from layers and bytes it is 35"
    spec = (run / "spec.prune").read_text(encoding="utf-8")
    (run / "spec.prune").write_text(spec, encoding="utf-8")
    problem = replace(problem_of(SPEC, TABLE), constraints=_plain(problem_of(SPEC, TABLE)))
    found = verify_run(run, lambda *_: problem)
    assert text in found.failures


def _plain(problem: Problem) -> tuple[Constraint, ...]:
    return tuple(replace(c, text="f(net) ≤ 1") for c in problem.constraints)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"format_version": 1}', '{"format_version": 2}', '{"format_version": 1, "model": 3}'],
)
def test_what_is_no_shape_table(text: str, run: Path) -> None:
    (run / "shapes.json").write_text(text, encoding="utf-8")
    rehash(run, "shapes.json", "shapes_hash")
    assert not check(run).ok


def test_a_shape_table_that_contradicts_itself(run: Path) -> None:
    data = json.loads((run / "shapes.json").read_text(encoding="utf-8"))
    for edit in (
        lambda d: d["layers"][0].update(weight="none"),
        lambda d: d["layers"][0].update(uses=-1),
        lambda d: d["tensors"][0].update(dtype="int3"),
        lambda d: d["tensors"][0].update(shape=[-1, 3]),
        lambda d: d["tensors"][0].update(shape=["a"]),
        lambda d: d["tensors"][0].update(more=1),
        lambda d: d.update(tensors=7),
    ):
        copy = json.loads(json.dumps(data))
        edit(copy)  # type: ignore[no-untyped-call]
        (run / "shapes.json").write_text(json.dumps(copy), encoding="utf-8")
        assert any("is no shape table" in s for s in check(run).failures)


def test_foreign_weights(run: Path) -> None:
    path = run / "weights.safetensors"
    stored = load_file(path)
    nan = {**stored, "fc1.bias": np.full(10, np.nan, np.float32)}
    cases = (
        ({**stored, "more": np.zeros(3)}, "has `more`, which the network has not"),
        ({n: a for n, a in stored.items() if n != "fc1.bias"}, "lacks `fc1.bias`"),
        (nan, "`fc1.bias` holds a number that is not finite"),
        ({**stored, "fc1.bias": np.zeros(11, np.float32)}, "F32 [11], not F32 [10]"),
        ({**stored, "fc1.bias": np.zeros(10)}, "F64 [10], not F32 [10]"),
    )
    for tensors, said in cases:
        save_file(tensors, path)
        rehash(run, "weights.safetensors", "weights_hash")
        assert any(said in s for s in check(run).failures)
    path.write_bytes(b"PK\3\4 no safetensors")
    rehash(run, "weights.safetensors", "weights_hash")
    assert any("is not a whole safetensors file" in s for s in check(run).failures)


def test_kept_positions_that_come_go_or_lie(run: Path) -> None:
    path = run / "support.safetensors"
    save_support(path, {"fc2.weight": arrays()["fc2.weight"] != 0}, TABLE)
    rehash(run, "support.safetensors", "support_hash")
    assert any(s.startswith("`pin`: 15 ≥ 40 (kept positions, margin -25) is violated") for s in check(run).failures)
    save_support(path, {"fc2.weight": np.zeros((4, 10), bool)}, TABLE)
    rehash(run, "support.safetensors", "support_hash")
    assert any("a non-zero value outside its kept positions" in s for s in check(run).failures)
    path.unlink()
    assert not check(run).ok
    reseal(run, lambda data: data.update(support_hash=None))
    assert any("`pin`: the certificate states got 40, and it is 15" in s for s in check(run).failures)
    save_support(path, {"fc2.weight": np.ones((4, 10), bool)}, TABLE)
    assert not check(run).ok


def test_numbers_that_would_take_forever(run: Path) -> None:
    for key, text in (
        ("base", "1e999999999"),
        ("base", "9" * 3000),
        ("got", "1e999999999"),
        ("projection", "gap ≤ 1e99"),
    ):
        for i in range(7):
            reseal(run, lambda data, i=i, key=key, text=text: data["constraints"][i].update({key: text}))  # type: ignore[misc]
        assert not check(run).ok


# ── a weights file against a spec ────────────────────────────────────────────────────────────────────────────────


def test_a_weights_file(run: Path) -> None:
    weights, support = run / "weights.safetensors", run / "support.safetensors"
    structural = problem_of("\n".join(SPEC.splitlines()[:-1]) + "\n", TABLE)
    bases = {"shrunk": Fraction(1000)}
    found = verify_weights(weights, structural, TABLE, support=support, bases=bases)
    assert found.ok
    assert found.findings[0].sentence == "weights.safetensors holds the tensors of toy(), all finite"
    assert [f.verdict for f in found.findings] == ["ok"] * 7
    without = verify_weights(weights, structural, TABLE)
    assert [f.verdict for f in without.findings] == [*["ok"] * 5, "unverified", "fail"]
    whole = verify_weights(weights, problem_of(SPEC, TABLE), TABLE, support=support, bases=bases)
    assert (whole.ok, whole.failures) == (False, ())
    assert whole.findings[-1].sentence == "`good`: no finite value of it was measured"
    tight = problem_of(SPEC.replace("≤ 70", "≤ 64"), TABLE)
    assert verify_weights(weights, tight, TABLE, support=support).failures == (
        "`compute`: 65 MACs ≤ 64 MACs (non-zero values, margin -1) is violated",
    )
    assert not verify_weights(run / "none", structural, TABLE).ok
    assert not verify_weights(run / "spec.prune", structural, TABLE).ok
