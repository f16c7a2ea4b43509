"""`prune run` and what it leaves: its streams, its exit codes, and the run directory."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from prunelang.compiler.graph import listing
from prunelang.compiler.graph.codec import from_json
from prunelang.compiler.shapes import ShapeTable
from tests.cli import documents
from tests.cli.conftest import TINY, Done, Prune

LONG = TINY.replace("for 2 epochs", "for 100000 epochs")


def test_a_layer_without_weights_is_pointed_out(prune: Prune) -> None:
    line = "    sparsity: ‖net.weights‖₀ ≤ κ\n"
    assert line in TINY
    prune.write("tiny.prune", TINY.replace(line, '    none:     ‖net["fc2"].weights‖₀ ≤ 0\n'))
    text = prune("run", "tiny.prune", "--out", "text")
    assert (text.returncode, text.stdout.count("warning: `fc2` has no weight left")) == (0, 1)
    assert "`fc2` has no weight left" in (prune.folder / "text" / "report.md").read_text(encoding="utf-8")
    data = prune("run", "tiny.prune", "--out", "data", "--format", "json")
    assert documents.Run.model_validate_json(data.stdout).emptied_layers == ["fc2"]


def test_a_run_says_what_it_did(done: Done) -> None:
    assert done.process.returncode == 0, done.process.stderr
    found = documents.Run.model_validate_json(done.process.stdout)
    assert (found.certificate.status, found.failure, found.interrupted) == ("feasible-verified", None, False)
    assert (found.certificate.seed, found.certificate.mode) == (3, "deterministic")
    assert found.certificate.parameters == {"kappa": "8%"}
    sparsity, file = found.certificate.constraints
    assert (sparsity.label, sparsity.bound, sparsity.satisfied) == ("sparsity", 94, True)  # ⌊8 % of 1 184⌋
    accuracy, size, left = found.certificate.report
    assert (accuracy.title, accuracy.split) == ("accuracy(net)", "test")
    assert isinstance(accuracy.value, float)
    assert 0.2 < accuracy.value <= 1  # ten classes: not by chance
    assert (size.value, left.title, left.value) == (file.got, "left over", file.margin)


def test_progress_in_a_pipe_is_lines_of_json(done: Done) -> None:
    events = [json.loads(line) for line in done.process.stderr.splitlines()]
    begun = [e["stage"] for e in events if e["event"] == "begin"]
    assert begun == ["pretrain", "solve", "finetune"]
    assert sum(e["event"] == "epoch" for e in events) == 3 + 3 * 1 + 2
    assert all(e["loss"] > 0 for e in events if e["event"] == "epoch")
    assert [e["event"] for e in events[-2:]] == ["trained", "certified"]
    notes = [e for e in events if e["event"] == "diagnostic"]
    assert [(n["code"], n["severity"]) for n in notes] == [("P301", "note")]  # 8 % of the weights fit into 2 KB


def test_the_run_directory(done: Done) -> None:
    names = {p.name for p in done.run.iterdir()}
    assert names == {
        *("weights.safetensors", "certificate.json", "history.jsonl", "spec.prune"),
        *("graph.txt", "graph.json", "shapes.json", "report.md", "run.json"),
    }
    weights = load_file(done.run / "weights.safetensors")
    kernels = [weights["fc1.weight"], weights["fc2.weight"]]
    assert sum(map(np.count_nonzero, kernels)) <= 94
    certificate = documents.Run.model_validate_json(done.process.stdout).certificate
    assert sum(map(np.count_nonzero, kernels)) == certificate.constraints[0].got
    assert documents.Certificate.model_validate_json((done.run / "certificate.json").read_text("utf-8")) == certificate
    assert (done.run / "spec.prune").read_text("utf-8") == TINY
    table = ShapeTable.loads((done.run / "shapes.json").read_text("utf-8"))
    assert table.model == "mlp(sizes = [64, 16, 10], activation = relu)"
    graph = from_json(json.loads((done.run / "graph.json").read_text("utf-8")))
    assert listing(graph) == (done.run / "graph.txt").read_text("utf-8")
    history = [json.loads(line) for line in (done.run / "history.jsonl").read_text("utf-8").splitlines()]
    assert history == [e for e in map(json.loads, done.process.stderr.splitlines()) if e["event"] != "diagnostic"]


def test_the_report_for_people(done: Done) -> None:
    text = (done.run / "report.md").read_text("utf-8")
    assert text.startswith("# tiny.prune\n")
    assert "✓" in text
    assert "✗" not in text
    assert text.rstrip().endswith(TINY.rstrip() + "\n```")


def test_names_that_a_user_registered(done_by_user: Done) -> None:
    assert done_by_user.process.returncode == 0, done_by_user.process.stderr
    assert done_by_user.process.stderr == ""  # --quiet
    assert "sparsity" in done_by_user.process.stdout
    weights = load_file(done_by_user.run / "weights.safetensors")
    assert weights["0.weight"].shape == (12, 6)
    assert sum(np.count_nonzero(w) for n, w in weights.items() if n.endswith("weight")) <= (72 + 36) // 2


def test_numbers_that_are_not_finite(prune: Prune) -> None:
    prune.write("nan.prune", TINY.replace("lr = 0.1, momentum = 0.9) for 1 epochs", "lr = 1e30) for 1 epochs"))
    run = prune("run", "nan.prune", "--out", "nan")
    assert run.returncode == 5
    failed = json.loads(run.stderr.splitlines()[-1])
    assert failed["event"] == "failed"
    assert "not finite" in failed["message"]
    assert "nan" in failed["message"]
    weights = load_file(prune.folder / "nan" / "weights.safetensors")
    assert all(np.isfinite(w).all() for w in weights.values())
    assert np.count_nonzero(weights["fc1.weight"]) == 64 * 16  # of the end of pretraining
    assert documents.Certificate.model_validate_json((prune.folder / "nan/certificate.json").read_text("utf-8"))


def test_a_constraint_that_is_violated(prune: Prune) -> None:
    """Without a `solve`, nothing makes the weights sparse."""
    trained = [x for x in TINY.splitlines() if not x.startswith(("solve", "finetune", "report"))]
    prune.write("dense.prune", "\n".join(trained).replace("for 3 epochs", "for 1 steps"))
    run = prune("run", "dense.prune", "--quiet")
    assert run.returncode == 4
    assert "✗" in run.stdout
    assert "status: violated" in run.stdout
    assert "warning[P413]" in run.stderr
    assert prune("verify", "runs/dense").returncode == 4


def test_data_that_is_not_there(prune: Prune) -> None:
    run = prune("run", "lenet.prune", "--shapes", "shapes.json", "--quiet")
    assert (run.returncode, run.stdout) == (1, "")
    assert "error[P501]: `mnist` is not here" in run.stderr
    assert "PRUNELANG_DATA" in run.stderr
    assert "train-images-idx3-ubyte.gz" in run.stderr


def test_a_device_that_is_not_there(prune: Prune) -> None:
    run = prune("run", "tiny.prune", "--device", "abacus")
    assert (run.returncode, run.stdout) == (2, "")
    assert "device abacus cannot be used" in run.stderr
    assert not (prune.folder / "runs").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_interrupted_run_leaves_its_weights(prune: Prune) -> None:
    prune.write("long.prune", LONG)
    command = [sys.executable, "-m", "prunelang", "run", "long.prune", "--out", "cut"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=prune.folder, env=prune.environment(), text=True, **streams) as process:
        assert process.stderr is not None
        for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "epoch" and event["stage"] == "finetune":
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert json.loads(err.splitlines()[-1])["message"] == "interrupted; the last good weights are in cut"
    assert "status: feasible-verified" in out  # finetune keeps the constraints at every step
    verified = prune("verify", "cut")
    assert verified.returncode == 0, verified.stdout
    assert (prune.folder / "cut" / "report.md").is_file()


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals of POSIX")
def test_a_bar_on_a_terminal(prune: Prune) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "prunelang", "run", "tiny.prune"]
    environment = prune.environment(TERM="xterm-256color", COLUMNS="100")
    with subprocess.Popen(
        command, cwd=prune.folder, env=environment, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = _everything(ours, process)
        assert process.stdout is not None
        out = process.stdout.read().decode()
    os.close(ours)
    assert process.returncode == 0
    assert "\x1b[" in shown  # the bar is drawn over
    assert "━" in shown
    assert all(stage in shown for stage in ("pretrain", "solve", "finetune", "loss"))
    assert "note[P301]" in shown
    assert '"event"' not in shown
    assert "status: feasible-verified" in out


def _everything(terminal: int, process: subprocess.Popen[bytes]) -> str:
    """What is written to a pseudo-terminal until the process ends."""
    read, end = b"", time.monotonic() + 240
    while time.monotonic() < end:
        ready, _, _ = select.select([terminal], [], [], 0.1)
        try:
            chunk = os.read(terminal, 65536) if ready else b""
        except OSError:  # Linux says so when the other side is closed
            break
        read += chunk
        if not chunk and process.poll() is not None:
            break
    return read.decode()


def test_frozen_tensors_count_in_full(prune: Prune) -> None:
    """They keep their values, of which nothing is known before: the budget holds whatever they are."""
    (prune.folder / "frozen.prune").write_text(
        'model net = mlp([64, 32, 10])\ndata digits(batch = 256)\nfreeze net["fc2"]\nminimize cross_entropy(net)\n'
        "subject to total: ‖net.weights‖₀ ≤ 800\nsolve lc(steps = 2) with sgd(lr = 0.05) for 1 epochs\n",
        encoding="utf-8",
    )
    done = prune("run", "frozen.prune", "--out", "run", "--quiet", "--format", "json")
    (line,) = json.loads(done.stdout)["certificate"]["constraints"]
    assert (line["got"], line["satisfied"]) == (800, True)
    assert prune("verify", "run").returncode == 0


def test_a_transformer_on_bytes(prune: Prune) -> None:
    """Tied or not, its causal mask is a buffer that no file holds."""
    (prune.folder / "some.txt").write_bytes(bytes(range(32, 127)) * 40)
    (prune.folder / "bytes.prune").write_text(
        "model net = byte_transformer(layers = 1, width = 16, heads = 2, context = 16, tied = true)\n"
        'data text("some.txt", context = 16, batch = 64)\nminimize cross_entropy(net)\nsubject to\n'
        ' all: ‖net.weights‖₀ ≤ 20%\n q: net["block1.q"].weights ∈ n_of_m(2, 4)\n'
        "solve lc(steps = 2) with adam(lr = 1e-3) for 3 steps\nreport nll(net), accuracy(net)\n",
        encoding="utf-8",
    )
    done = prune("run", "bytes.prune", "--out", "run", "--quiet")
    assert done.returncode == 0, done.stderr
    assert prune("verify", "run").returncode == 0
