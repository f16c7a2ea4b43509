"""Runs whose tensors are made of factors: exported, shrunk and verified as processes, and attacked."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prunelang import compile
from prunelang.runtime.certificate import digest_of
from prunelang.runtime.export import load_export
from prunelang.runtime.files import FileProblem, sha256
from prunelang.runtime.same_outputs import ShrinkProblem
from prunelang.runtime.weights import file_metadata, load_weights
from prunelang.shrinking import shrink_directory
from prunelang.verification import export_directory, verify_directory
from tests.cli import documents
from tests.cli.conftest import ROOT, Done, Prune

PARTS = (ROOT / "specs" / "bytes_parts.prune").read_text(encoding="utf-8")
SHORT = {"10 epochs": "2 epochs", "steps = 20": "steps = 4", "for 5 epochs": "for 1 epochs"}

SPEC = """\
model net = mlp([64, 48, 32, 10])
data  digits(batch = 64)
minimize   cross_entropy(net)
subject to
    low:     net["fc1"].weights ∈ low_rank()
    train:   net["fc2"].weights ∈ tt(4, modes = [[4, 3], [4, 4], [2, 4]])
    codes:   net["fc3"].weights ∈ codebook(4)
    compute: macs(net) ≤ 45%
    stored:  params(net) ≤ 60%
pretrain with sgd(lr = 0.1, momentum = 0.9) for 1 epochs
solve    lc(steps = 2) with sgd(lr = 0.1, momentum = 0.9) for 1 epochs
report   bytes(net)
"""

UNITS = """\
model net = mlp([64, 48, 32, 10])
data  digits(batch = 64)
minimize   cross_entropy(net)
subject to
    compute: macs(net["fc1"]) ≤ 60%
    low:     net["fc3"].weights ∈ low_rank(3)
pretrain with sgd(lr = 0.1, momentum = 0.9) for 1 epochs
solve    lc(steps = 2) with sgd(lr = 0.1, momentum = 0.9) for 1 epochs
"""


@pytest.fixture(scope="module")
def factored(tmp_path_factory: pytest.TempPathFactory) -> Done:
    p = Prune(tmp_path_factory.mktemp("factored"))
    p.write("net.prune", SPEC)
    return Done(p("run", "net.prune", "--format", "json", "--quiet"), p, p.folder / "runs" / "net")


def lines(done: Done) -> dict[str, documents.Line]:
    certificate = documents.Run.model_validate_json(done.process.stdout).certificate
    assert certificate.status == "feasible-verified"
    assert certificate.factors_hash == sha256(done.run / "factors.safetensors")
    return {x.label: x for x in certificate.constraints}


# ── one byte budget over parts of three kinds ────────────────────────────────────────────────────────────────────


def test_a_budget_over_three_kinds_of_parts_is_the_length_of_the_file(tmp_path: Path) -> None:
    p, text = Prune(tmp_path), PARTS
    for long, short in SHORT.items():
        assert long in text
        text = text.replace(long, short)
    p.write("parts.prune", text)
    run = p("run", "parts.prune", "--format", "json", "--quiet")
    done = Done(run, p, tmp_path / "runs" / "parts")
    line = lines(done)["file"]
    export = p("export", "runs/parts", "--to", "best", "--format", "json")
    written = documents.Exported.model_validate_json(export.stdout)
    length = (tmp_path / written.file).stat().st_size
    assert length == written.bytes == line.got
    assert 9_990 <= length <= 10_000, "a non-zero entry of the correction takes 5 bytes"
    assert re.fullmatch(r"sparse \d+ \+ low rank \d+", written.formats["fc1.weight"])
    assert written.formats["fc2.weight"] == "codebook 4"
    back, weights = load_export(tmp_path / written.file), load_weights(done.run / "weights.safetensors")
    assert set(back) == set(weights)
    assert all(back[n].tobytes() == weights[n].tobytes() for n in weights)
    assert p("verify", "runs/parts").returncode == 0
    (reported,) = (r for r in documents.Run.model_validate_json(run.stdout).certificate.report if "bytes" in r.title)
    assert reported.value == length


# ── export --shrink ──────────────────────────────────────────────────────────────────────────────────────────────

LOADED = """\
import sys, torch, prunelang
from torch.utils.flop_counter import FlopCounterMode
small, x = prunelang.load_shrunk(sys.argv[1]).eval(), torch.linspace(-1, 1, 128).reshape(2, 64)
with FlopCounterMode(display=False) as counter:
    small(x[:1])
print(counter.get_total_flops() // 2, *(type(m).__name__ for m in small.children()))
print(*small(x).flatten().tolist())
"""


def test_a_shrunk_run_multiplies_as_often_as_its_constraint_counts(factored: Done) -> None:
    p = factored.prune
    shrunk = p("export", "runs/net", "--shrink", "--format", "json")
    found = documents.Shrunk.model_validate_json(shrunk.stdout)
    asked = lines(factored)
    assert set(found.factored) == {"fc1", "fc2"}
    assert found.unfactored == {"fc3.weight": "codebook 4"}
    assert found.macs == asked["compute"].got
    assert found.dense_macs == 64 * 48 + 48 * 32 + 32 * 10
    codebook = 4  # its centres are counted; the shrunk network has the layer dense
    assert found.params + codebook == asked["stored"].got
    assert all(u.kept == u.of for u in found.units.values())
    p.write("load.py", LOADED)
    said, outputs = p.python("load.py", found.file).stdout.splitlines()
    assert said == f"{found.macs} LowRankLinear TrainLinear Linear"
    w = load_weights(factored.run / "weights.safetensors")
    y = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)
    for k in (1, 2, 3):
        y = y @ w[f"fc{k}.weight"].T + w[f"fc{k}.bias"]
        y = np.maximum(y, 0) if k < 3 else y
    np.testing.assert_allclose(np.array(outputs.split(), float), y.reshape(-1), rtol=1e-4, atol=1e-5)


def test_the_text_names_layers_and_what_stays_dense(factored: Done, tmp_path: Path) -> None:
    run = factored.prune("export", "runs/net", "--shrink", "-o", tmp_path / "small.safetensors")
    assert run.returncode == 0
    first, *layers, units, macs, params, dense = run.stdout.splitlines()
    assert first.endswith("; small.json says how to build it")
    assert re.fullmatch(r"factored: fc1, low rank \d+", layers[0])
    assert re.fullmatch(r"factored: fc2, train \d-\d in the order [123]-[123]-[123]", layers[1])
    assert units == "units: all stay beside layers of factors"
    assert (macs.startswith("macs: "), params.startswith("params: ")) == (True, True)
    assert dense == "fc3.weight stays dense: no layer multiplies by codebook 4"


def test_units_that_a_constraint_counts_and_factors_exclude_each_other(tmp_path: Path) -> None:
    done = compile(UNITS).run(tmp_path / "run")
    assert done.feasible
    with pytest.raises(ShrinkProblem, match=r"P534.*`compute` counts units that are cut out, of fc1 first"):
        shrink_directory(done.directory)
    assert not (done.directory / "shrunk.safetensors").exists()


@pytest.mark.parametrize("write", [shrink_directory, lambda run, out: export_directory(run, "best", out)])
def test_files_of_the_run_stay(write: Callable[[Path, Path], Any], factored: Done, tmp_path: Path) -> None:
    run = Path(shutil.copytree(factored.run, tmp_path / "run"))
    with pytest.raises(FileProblem, match="P511"):
        write(run, run / "factors.safetensors")
    (run / "factors.safetensors").write_bytes(b"")
    with pytest.raises(FileProblem, match="P517"):
        write(run, tmp_path / "out.safetensors")
    (run / "factors.safetensors").unlink()
    with pytest.raises(FileProblem, match="P510"):
        write(run, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


# ── verify ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_weights_file_with_and_without_its_factors(factored: Done) -> None:
    p, weights = factored.prune, "runs/net/weights.safetensors"
    full = p("verify", weights, "--spec", "net.prune", "--factors", "runs/net/factors.safetensors", "--format", "json")
    found = documents.Verified.model_validate_json(full.stdout)
    assert (full.returncode, found.ok) == (0, True)
    without = p("verify", weights, "--spec", "net.prune")
    assert without.returncode == 4
    unknown = [x.split()[1] for x in without.stdout.splitlines() if x.startswith("unverified")]
    assert unknown == ["`low`:", "`train`:", "`compute`:", "`stored`:"], "a codebook shows in the values"
    wrong = p("verify", weights, "--spec", "net.prune", "--factors", weights)
    assert wrong.returncode == 4
    assert "[P516]" in wrong.stdout
    own = p("verify", "runs/net", "--factors", "runs/net/factors.safetensors")
    assert own.returncode == 2
    assert "a run directory holds its own spec, params, shapes, support and factors" in own.stderr


@pytest.fixture
def run(factored: Done, tmp_path: Path) -> Path:
    return Path(shutil.copytree(factored.run, tmp_path / "run"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same spec from another seed."""
    return compile(SPEC).run(tmp_path_factory.mktemp("other"), seed=1).directory


def reseal(run: Path, **changes: Any) -> None:
    """Forge: the certificate takes the files as they are now for the right ones."""
    path = run / "certificate.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["weights_hash"] = sha256(run / "weights.safetensors")
    if (run / "factors.safetensors").exists():
        data["factors_hash"] = sha256(run / "factors.safetensors")
    data |= changes
    data["digest"] = digest_of(data)
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def refill(run: Path, edit: Callable[[dict[str, Any]], Any], note: Callable[[str], str] = str) -> None:
    """Change arrays of the factors, and what their metadata says."""
    path = run / "factors.safetensors"
    metadata, arrays = file_metadata(path.read_bytes()), load_file(path)
    edit(arrays)
    save_file(arrays, path, {**metadata, "compositions": note(metadata["compositions"])})


def widened(arrays: dict[str, Any]) -> None:
    """Many more columns than are allowed, which change no sum: U has zeros there."""
    u, v = arrays["fc1.weight:0.U"], arrays["fc1.weight:0.V"]
    arrays["fc1.weight:0.U"] = np.hstack([u, np.zeros((48, 30), "f4")])
    arrays["fc1.weight:0.V"] = np.vstack([v, np.ones((30, 64), "f4")])


def grown(arrays: dict[str, Any]) -> None:
    """A train of full bonds that makes the same matrix: the first bond from its rank to 12."""
    g1, g2 = arrays["fc2.weight:0.G1"], arrays["fc2.weight:0.G2"]
    more = 12 - g1.shape[3]
    arrays["fc2.weight:0.G1"] = np.concatenate([g1, np.zeros((1, 4, 3, more), "f4")], 3)
    arrays["fc2.weight:0.G2"] = np.concatenate([g2, np.ones((more, *g2.shape[1:]), "f4")], 0)


def scaled(name: str, by: float) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays.update({name: (arrays[name] * by).astype("f4")})


def spoilt(name: str, value: float) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays[name].reshape(-1).__setitem__(3, value)


G2 = "fc2.weight:0.G2"
EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "an edited core": (spoilt(G2, 0.75), r"`fc2.weight` is not what its factors make.*\[P517\]"),
    "a scaled core": (scaled(G2, 1.0001), r"`fc2.weight` is not what its factors make.*\[P517\]"),
    "NaN": (spoilt(G2, np.nan), r"`fc2.weight:0.G2` holds a number that is not finite.*\[P515\]"),
    "infinity": (spoilt("fc1.weight:0.V", np.inf), r"not finite.*\[P515\]"),
    "no core": (lambda a: a.pop(G2), r"lacks `fc2.weight:0.G2` \[P513\]"),
    "a core too many": (lambda a: a.update({"fc2.weight:0.G4": a[G2]}), r"`fc2.weight:0.G4`, which none.*\[P513\]"),
    "another shape": (lambda a: a.update({G2: a[G2].transpose(3, 1, 2, 0).copy()}), r"\[P51[47]\]"),
    "another type": (lambda a: a.update({G2: a[G2].astype("f8")}), r"\[P514\]"),
    "no rank": (lambda a: a.update({"fc1.weight:0.U": a["fc1.weight:0.U"][:, :0]}), r"\[P514\]"),
    "none at all": (
        lambda a: a.update({n: a[n][:, :0] if n.endswith("U") else a[n][:0] for n in a if n.startswith("fc1.weight")}),
        r"`fc1.weight` is not what its factors make.*\[P517\]",
    ),
    "a code out of range": (spoilt("fc3.weight:0.codes", 9), r"a code 9 beyond the 4 values.*\[P514\]"),
    "a train of no rank": (
        lambda a: a.update({"fc2.weight:0.G1": a["fc2.weight:0.G1"][..., :0], G2: a[G2][:0]}),
        r"`fc2.weight` is not what its factors make.*\[P517\]",
    ),
}


@pytest.mark.parametrize("case", EDITS)
def test_edited_factors_are_never_satisfied(case: str, run: Path) -> None:
    edit, said = EDITS[case]
    refill(run, edit)
    found = verify_directory(run)
    assert not found.ok
    assert "factors.safetensors is not the file that was certified: its sha256 differs" in found.failures
    reseal(run)
    found = verify_directory(run)
    assert not found.ok
    assert any(re.search(said, s) for s in found.failures), found.failures


@pytest.mark.parametrize(
    ("edit", "label", "got"),
    [(widened, "low", "columns of its factors"), (grown, "train", "largest rank of its cores")],
)
def test_ranks_beyond_their_bounds_are_counted_though_the_sum_stays(
    edit: Callable[[dict[str, Any]], None], label: str, got: str, run: Path
) -> None:
    refill(run, edit)
    reseal(run)
    found = verify_directory(run)
    assert any(s.startswith(f"`{label}`") and got in s and s.endswith("violated") for s in found.failures)
    assert any(s.startswith("`compute`: the certificate states got") for s in found.failures)


def test_factors_of_another_run(run: Path, other: Path) -> None:
    shutil.copy(other / "factors.safetensors", run / "factors.safetensors")
    assert not verify_directory(run).ok
    reseal(run)
    assert any(re.search(r"is not what its factors make.*\[P517\]", s) for s in verify_directory(run).failures)


def test_cut_and_missing_factors(run: Path) -> None:
    path = run / "factors.safetensors"
    good = path.read_bytes()
    for length in (0, 7, 100, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        reseal(run)
        assert any(s.endswith("[P512]") for s in verify_directory(run).failures), length
    path.unlink()
    assert not verify_directory(run).ok
    reseal(run, factors_hash=None)
    found = verify_directory(run)
    assert not found.ok
    assert {"`low`", "`train`", "`compute`", "`stored`"} <= {
        s.split(":")[0] for s in found.failures if "the certificate states satisfied" in s
    }


@pytest.mark.parametrize("steps", [4, -4, 1000])
@pytest.mark.parametrize("name", ["fc1.weight", "fc2.weight", "fc3.weight"])
def test_a_composed_entry_that_is_four_units_off(name: str, steps: int, run: Path) -> None:
    path = run / "weights.safetensors"
    metadata, arrays = file_metadata(path.read_bytes()), load_file(path)
    flat = arrays[name].reshape(-1)
    at = int(np.argmax(np.abs(flat)))
    flat[at] += steps * np.spacing(np.abs(flat[at]))
    save_file(arrays, path, metadata)
    reseal(run)
    found = verify_directory(run)
    assert any(re.search(rf"`{name}` is not what its factors make: 1 of.*\[P517\]", s) for s in found.failures)


def test_metadata_that_says_something_else(run: Path) -> None:
    edits = {
        r"\[P51[23]\]": lambda text: text.replace('"tt"', '"low_rank"'),
        r"\[P512\]": lambda text: "nothing",
        r"\[P514\]": lambda text: text.replace("[[4, 3], [4, 4], [2, 4]]", "[[4, 3], [2, 4], [4, 4]]").replace(
            "[[4,3],[4,4],[2,4]]", "[[4,3],[2,4],[4,4]]"
        ),
    }
    good = (run / "factors.safetensors").read_bytes()
    for said, note in edits.items():
        (run / "factors.safetensors").write_bytes(good)
        refill(run, lambda arrays: None, note)
        reseal(run)
        found = verify_directory(run)
        assert any(re.search(said, s) for s in found.failures), (said, found.failures)
