"""Every command but `run` as a process: what goes where, in which form, and with which exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from prunelang.dsl.formatter import format_spec
from prunelang.explain import STAGES
from prunelang.runtime.export import load_export
from prunelang.templates import templates
from tests.cli import documents
from tests.cli.conftest import LENET, ROOT, Done, Prune

INFEASIBLE = ROOT / "specs" / "resnet50_infeasible.prune"
RESNET50 = ROOT / "tests" / "data" / "resnet50.shapes.json"

# ── check ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_check_prints_budgets_in_integers(prune: Prune) -> None:
    run = prune("check", "lenet.prune", "--shapes", "shapes.json")
    assert run.returncode == 0
    assert run.stdout.splitlines() == [
        "  constraint  function     asked  bound",
        "  sparsity    norm0        ≤ 5%   ≤ 13 310 of 266 200",
        "  compute     sparse_macs  ≤ 30%  ≤ 79 860 of 266 200 MACs",
    ]
    assert run.stderr.splitlines()[-1] == "lenet.prune: 0 errors, 0 warnings, 1 note"


def test_a_budget_that_never_binds(prune: Prune) -> None:
    """In a network of linear layers a weight is one multiply-add: 5 % of one is 5 % of the other."""
    run = prune("check", "lenet.prune", "--shapes", "shapes.json", "--format", "json")
    found = documents.Check.model_validate_json(run.stdout)
    assert (run.returncode, run.stderr, found.valid) == (0, "", True)
    (note,) = found.diagnostics
    assert (note.code, note.severity) == ("P301", "note")
    assert note.message == "`compute` can never bind: `sparsity` implies it"
    assert LENET.splitlines()[note.range.start.line - 1].lstrip().startswith("compute:")
    sparsity, compute = found.files[0].budgets
    assert (sparsity.upper, sparsity.dense) == (13_310, 266_200)
    assert (compute.upper, compute.dense, compute.unit) == (79_860, 266_200, "MACs")


def test_a_problem_without_a_solution(prune: Prune) -> None:
    run = prune("check", INFEASIBLE, "--shapes", RESNET50)
    assert (run.returncode, run.stdout) == (3, "")
    assert "error[P310]" in run.stderr
    assert "2 048 000" in run.stderr
    as_json = prune("check", INFEASIBLE, "--shapes", RESNET50, "--format", "json")
    found = documents.Check.model_validate_json(as_json.stdout)
    assert (as_json.returncode, found.valid, found.summary.errors) == (3, False, 1)
    assert found.diagnostics[0].conflict == ["sparsity", "classifier"]


def test_several_files_are_one_document(prune: Prune) -> None:
    prune.write("bad.prune", LENET.replace("net.weights", "net.weigths"))
    run = prune("check", "lenet.prune", "bad.prune", "--shapes", "shapes.json", "--format", "json")
    found = documents.Check.model_validate_json(run.stdout)
    assert run.returncode == 1
    assert [(f.file, f.valid) for f in found.files] == [("lenet.prune", True), ("bad.prune", False)]
    assert {(d.file, d.severity) for d in found.diagnostics} == {("lenet.prune", "note"), ("bad.prune", "error")}
    assert found.summary.errors == 1


def test_errors_weigh_more_than_proofs(prune: Prune) -> None:
    prune.write("impossible.prune", LENET.replace("≤ 30%", "≥ 50%"))
    assert prune("check", "impossible.prune", "--shapes", "shapes.json").returncode == 3
    prune.write("bad.prune", "model net =\n")
    assert prune("check", "impossible.prune", "bad.prune", "--shapes", "shapes.json").returncode == 1


def test_every_syntax_error_in_one_run(prune: Prune) -> None:
    run = prune("check", "-", stdin="model net = lenet_300_100(\ndata mnist()\nminimise cross_entropy(net)\n")
    assert (run.returncode, run.stdout) == (1, "")
    assert len(re.findall(r"^<stdin>:\d+:\d+: error\[P1\d\d\]: ", run.stderr, re.MULTILINE)) >= 2


def test_a_spec_from_stdin_with_a_param(prune: Prune) -> None:
    text = LENET.replace("≤ 5%", "≤ κ").replace("minimize", "param κ = 5% in [1%, 50%]\nminimize")
    run = prune("check", "-", "--shapes", "shapes.json", "--set", "kappa=2%", stdin=text)
    assert run.returncode == 0
    assert "≤ 5 324 of 266 200" in run.stdout
    wrong_kind = prune("check", "-", "--shapes", "shapes.json", "--set", "κ=0.02", stdin=text)
    assert wrong_kind.returncode == 1
    assert "say `--set κ=2%`" in wrong_kind.stderr
    unknown = prune("check", "-", "--shapes", "shapes.json", "--set", "kapa=2%", stdin=text)
    assert unknown.returncode == 1
    assert "`--set kapa=…` names no param of this spec" in unknown.stderr


def test_bytes_that_are_no_text(prune: Prune) -> None:
    run = prune("check", "-", stdin=b"model net = \xff\n")
    assert (run.returncode, run.stdout) == (1, "")
    assert "error[P126]" in run.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "missing.prune"], "there is no file missing.prune"),
        (["check", "."], ". cannot be read"),
        (["check"], "Missing argument"),
        (["check", "lenet.prune", "--set", "five"], "write NAME=VALUE"),
        (["check", "lenet.prune", "--shapes", "lenet.prune"], "lenet.prune is not a shape table"),
        (["check", "lenet.prune", "--format", "yaml"], "'yaml' is not one of"),
        (["check", "lenet.prune", "--with", "missing.py"], "--with missing.py: there is no such file"),
        (["check", "lenet.prune", "--with", "no_such_module"], "--with no_such_module: No module named"),
        (["check", "lenet.prune", "--with", "broken.py"], "ZeroDivisionError in"),
        (["run", "lenet.prune", "--out", "shapes.json"], "'shapes.json' is a file"),
        (["run", "lenet.prune", "--seed", "-1"], "-1 is not in the range"),
        (["verify", "done.dir", "--spec", "lenet.prune"], "holds its own spec"),
        (["explain", "P999"], "no diagnostic has the code P999"),
        (["explain", "lenet.prune", "--stage", "everything"], "one of all, spec, problem"),
        (["init", "--template", "tt-rank"], "no template is called `tt-rank`"),
        (["init", "lenet.prune"], "lenet.prune exists already"),
        (["init", "no/such/folder.prune"], "there is no folder"),
        (["verify", "."], "is no run directory"),
        (["verify", "shapes.json"], "give --spec FILE"),
        (["export", "nowhere"], "does not exist"),
        (["prnue"], "No such command 'prnue'"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_command_lines_that_are_wrong(words: list[str], said: str, prune: Prune) -> None:
    prune.write("broken.py", "1 / 0\n")
    (prune.folder / "done.dir").mkdir()
    prune.write("done.dir/certificate.json", "{}")
    run = prune(*words)
    assert (run.returncode, run.stdout) == (2, "")
    assert said in run.stderr


def test_a_table_of_another_network(prune: Prune) -> None:
    run = prune("check", "lenet.prune", "--shapes", RESNET50)
    assert run.returncode == 1
    assert "the given shape table is of resnet50(classes = 1000)" in run.stderr


# ── init, fmt, explain ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_list_of_templates(prune: Prune) -> None:
    run = prune("init", "--list")
    names = ["bytes", "cnn-l0", "mlp-l0", "n-of-m", "penalty", "phases"]
    assert [line.split()[0] for line in run.stdout.splitlines()] == names
    assert all(len(line.split()) > 5 for line in run.stdout.splitlines())


@pytest.mark.parametrize("name", templates())
def test_a_template_is_formatted(name: str) -> None:
    assert format_spec(templates()[name].spec) == templates()[name].spec


def test_templates_check_with_the_code_that_comes_with_them(prune: Prune) -> None:
    for name in templates():
        run = prune("init", f"{name}.prune", "--template", name)
        assert run.returncode == 0
        code = " --with networks.py" if name == "cnn-l0" else ""
        files = f"{name}.prune and networks.py" if code else f"{name}.prune"
        assert run.stdout == f"wrote {files}; next: prune run {name}.prune{code}\n"
    checked = prune("check", *(f"{name}.prune" for name in templates()), "--with", "networks.py", "--format", "json")
    found = documents.Check.model_validate_json(checked.stdout)
    assert checked.returncode == 0, checked.stderr
    assert not [d for d in found.diagnostics if d.severity != "note"]


def test_init_keeps_what_is_there(prune: Prune) -> None:
    path = prune.write("example.prune", "# mine\n")
    assert prune("init").returncode == 2
    assert path.read_text("utf-8") == "# mine\n"
    assert prune("init", "--force").returncode == 0
    assert path.read_text("utf-8") == templates()["mlp-l0"].spec


LOOSE = "model net=mlp([64,10]) # a comment\ndata digits( )\n"


def test_fmt_writes_files(prune: Prune) -> None:
    path = prune.write("loose.prune", LOOSE)
    path.chmod(0o640)
    assert prune("fmt", "loose.prune", "lenet.prune").returncode == 0
    assert format_spec(LOOSE) == path.read_text("utf-8")
    assert path.stat().st_mode & 0o777 == 0o640
    assert prune("fmt", "--check", "loose.prune").returncode == 0


def test_fmt_only_looks(prune: Prune) -> None:
    path = prune.write("loose.prune", LOOSE)
    run = prune("fmt", "--check", "tiny.prune", "loose.prune")
    assert (run.returncode, run.stdout) == (7, "")
    assert "would format loose.prune" in run.stderr
    shown = prune("fmt", "--diff", "loose.prune")
    assert shown.returncode == 7
    assert "-data digits( )\n" in shown.stdout
    assert path.read_text("utf-8") == LOOSE


def test_fmt_through_pipes(prune: Prune) -> None:
    run = prune("fmt", "-", stdin=LOOSE)
    assert (run.returncode, run.stdout, run.stderr) == (0, format_spec(LOOSE), "")
    ascii_only = prune("fmt", "--ascii", "-", stdin=LENET)
    assert ascii_only.stdout.isascii()
    assert "norm0(net.weights) <= 5%" in ascii_only.stdout
    assert prune("fmt", "-", stdin="model net =\n").returncode == 1


def test_a_code_is_explained(prune: Prune) -> None:
    run = prune("explain", "P310")
    assert run.returncode == 0
    assert run.stdout.startswith("P310  ")
    assert all(f"\n{word} " in run.stdout for word in ("What", "Why", "Mend"))
    found = documents.Code.model_validate_json(prune("explain", "p310", "--format", "json").stdout)
    assert (found.code, found.what in run.stdout) == ("P310", True)


def test_a_spec_is_explained(prune: Prune) -> None:
    run = prune("explain", "lenet.prune", "--shapes", "shapes.json")
    assert run.returncode == 0
    parts = re.findall(r"^── (\w+) ─+$", run.stdout, re.MULTILINE)
    assert parts == ["problem", "proofs", "solver", "graph"]
    assert "sparsity  3 tensors  fc1.weight, fc2.weight, fc3.weight" in run.stdout
    assert "compute: " in run.stdout
    assert "40 × 1 epochs = 40 epochs" in run.stdout
    assert "    for k in 0..39: " in run.stdout
    assert "note[P301]" in run.stderr


@pytest.mark.parametrize("stage", STAGES[1:])
def test_one_stage_is_explained(stage: str, prune: Prune) -> None:
    text = prune("explain", "lenet.prune", "--shapes", "shapes.json", "--stage", stage)
    assert text.returncode == 0
    first = dict(zip(STAGES[1:], ("model net", "lenet_300_100(", "sparsity: ", "solve lc(", "# "), strict=True))
    assert text.stdout.startswith(first[stage])
    assert "── " not in text.stdout
    run = prune("explain", "lenet.prune", "--shapes", "shapes.json", "--stage", stage, "--format", "json")
    assert set(json.loads(run.stdout)) == {"format_version", "file", stage}


def test_an_explanation_as_data(prune: Prune) -> None:
    run = prune("explain", "lenet.prune", "--shapes", "shapes.json", "--format", "json")
    found = documents.Explained.model_validate_json(run.stdout)
    assert found.spec == format_spec(LENET)
    assert found.problem.model == "lenet_300_100(inputs = 784, classes = 10, activation = relu)"
    assert [p.verdict for p in found.proofs] == ["can bind", "never binds"]
    assert [s.kind for s in found.solver] == ["solve"]
    assert found.graph["program"]


def test_stages_that_end_early_and_stages_that_prune_are_explained(prune: Prune) -> None:
    text = LENET + "finetune for 30 epochs until saturated\nprune tamade(δ = 1%)\n"
    prune.write("phases.prune", text)
    run = prune("explain", "phases.prune", "--shapes", "shapes.json", "--format", "json")
    solve, finetune, pruning = documents.Explained.model_validate_json(run.stdout).solver
    assert isinstance(solve, documents.Stage)
    assert isinstance(finetune, documents.Stage)
    assert solve.ends == []
    assert finetune.ends == ["until saturated(window = 10) on validation", "    back to its best epoch"]
    tamade = "tamade(delta = 0.01, on = validation)"
    assert pruning == documents.Pruning(kind="prune", pruner=tamade, reads=["validation"])
    shown = prune("explain", "phases.prune", "--shapes", "shapes.json", "--stage", "solver").stdout
    assert "finetune\n    for 30 epochs" in shown
    assert "prune tamade(delta = 0.01, on = validation)\n    reads validation\n" in shown


@pytest.mark.parametrize("path", sorted((ROOT / "specs").glob("*.prune")), ids=lambda p: p.name)
def test_every_spec_is_explained_or_refused(path: Path, prune: Prune) -> None:
    run = prune("explain", path, "--shapes", RESNET50) if path == INFEASIBLE else prune("explain", path)
    assert run.returncode == (3 if path == INFEASIBLE else 0), run.stderr
    assert ("\nsolve" in run.stdout) is (path != INFEASIBLE)


# ── verify, report, export, doctor ───────────────────────────────────────────────────────────────────────────────


def test_a_run_is_verified(done: Done) -> None:
    run = done.prune("verify", "runs/tiny")
    assert (run.returncode, run.stderr) == (0, "")
    assert {line.split()[0] for line in run.stdout.splitlines()} == {"ok"}
    as_json = done.prune("verify", "runs/tiny", "--format", "json")
    found = documents.Verified.model_validate_json(as_json.stdout)
    assert found.ok
    assert any("`sparsity`" in f.sentence and "≤ 94" in f.sentence for f in found.findings)


def test_a_run_that_was_tampered_with(done: Done, prune: Prune) -> None:
    copy = prune.folder / "copy"
    copy.mkdir()
    for path in done.run.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    weights = bytearray((copy / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(weights)
    run = prune("verify", "copy")
    assert run.returncode == 4
    assert "fail  weights.safetensors is not the file that was certified" in run.stdout
    assert prune("export", "copy").returncode == 1


def test_a_weights_file_is_verified_against_a_spec(done: Done) -> None:
    weights = done.run / "weights.safetensors"
    words = ("verify", weights, "--spec", "tiny.prune", "--shapes", done.run / "shapes.json")
    loose = done.prune(*words)
    assert loose.returncode == 0, loose.stdout
    assert "`sparsity`: " in loose.stdout
    tight = done.prune(*words, "--set", "κ=1%")
    assert tight.returncode == 4
    assert "is violated" in tight.stdout


def test_a_report_of_a_run(done: Done) -> None:
    run = done.prune("report", "runs/tiny")
    assert run.returncode == 0
    assert "status: feasible-verified" in run.stdout
    assert "accuracy(net)" in run.stdout
    found = documents.Certificate.model_validate_json(done.prune("report", "runs/tiny", "--format", "json").stdout)
    assert found == documents.Run.model_validate_json(done.process.stdout).certificate


@pytest.mark.parametrize("target", ["best", "dense", "bitmask", "csr", "coded"])
def test_an_export_has_the_bytes_that_were_counted(target: str, done: Done, tmp_path: Path) -> None:
    out = tmp_path / f"{target}.safetensors"
    run = done.prune("export", "runs/tiny", "--to", target, "-o", out, "--format", "json")
    found = documents.Exported.model_validate_json(run.stdout)
    assert (run.returncode, found.bytes) == (0, out.stat().st_size)
    certificate = documents.Run.model_validate_json(done.process.stdout).certificate
    if target == "bitmask":
        assert found.bytes == certificate.constraints[1].got
    if target == "best":
        assert found.bytes < found.dense_bytes / 3
    assert (found.entropy_bytes is not None) == (found.largest_rounding > 0) == (target == "coded")
    assert set(load_export(out)) == {f"fc{i}.{part}" for i in (1, 2) for part in ("weight", "bias")}


def test_a_coded_export_of_few_bits(done: Done, tmp_path: Path) -> None:
    sizes = []
    for bits in ("3", "8", "12"):
        out = tmp_path / bits
        run = done.prune("export", "runs/tiny", "--to", "coded", "--bits", bits, "-o", out)
        assert run.returncode == 0
        assert "values rounded by up to" in run.stdout
        sizes.append(out.stat().st_size)
    assert sizes == sorted(set(sizes))
    wrong = done.prune("export", "runs/tiny", "--to", "csr", "--bits", "8")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "--bits is of --to coded alone" in wrong.stderr


def test_an_export_never_replaces_the_certified_weights(done: Done) -> None:
    before = (done.run / "weights.safetensors").read_bytes()
    run = done.prune("export", "runs/tiny", "-o", "runs/tiny/weights.safetensors")
    assert (run.returncode, run.stdout) == (1, "")
    assert (done.run / "weights.safetensors").read_bytes() == before


def test_a_run_of_user_code_is_verified_with_it(done_by_user: Done) -> None:
    assert done_by_user.prune("verify", "mine", "--with", "mine.py").returncode == 0
    without = done_by_user.prune("verify", "mine")
    assert without.returncode == 4
    assert "does not compile" in without.stdout


def test_the_doctor(prune: Prune) -> None:
    found = documents.Doctor.model_validate_json(prune("doctor", "--format", "json").stdout)
    assert "lc" in found.solvers
    assert {"mlp", "lenet_300_100"} <= set(found.networks)
    assert "digits" in found.data
    assert found.devices[0] == "cpu"


# ── emit ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_script_for_files_that_everyone_has_goes_to_stdout(prune: Prune) -> None:
    run = prune("emit", "lenet.prune", "--shapes", "shapes.json")
    assert (run.returncode, run.stderr) == (0, "")
    compile(run.stdout, "script.py", "exec")
    assert not re.search(r"^\s*(from|import) prunelang", run.stdout, re.MULTILINE)


def test_a_script_with_its_data_beside_it(prune: Prune) -> None:
    run = prune("emit", "tiny.prune", "-o", "script.py", "--seed", "5")
    assert run.stdout == "wrote script.py\nwrote digits.safetensors\n"
    assert "default=5" in (prune.folder / "script.py").read_text("utf-8")
    prune.folder.joinpath("digits.safetensors").unlink()
    alone = prune("emit", "tiny.prune")
    assert (alone.returncode, alone.stdout) == (2, "")
    assert "give -o FILE" in alone.stderr


def test_what_is_refused_is_not_emitted(prune: Prune) -> None:
    prune.write("refused.prune", LENET.replace("compute:  sparse_macs(net) ≤ 30%", "few: entropy(net.weights) ≤ 3"))
    run = prune("emit", "refused.prune", "--shapes", "shapes.json")
    assert (run.returncode, run.stdout) == (1, "")
    assert "error[P414]" in run.stderr
