"""Coded sizes and description lengths of a run: what the certificate says is what the exported file is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from prunelang import compile
from prunelang.compiler.problem import Measured
from prunelang.execution import RunOptions, Session
from prunelang.runtime.coded import encode
from prunelang.runtime.export import load_export
from prunelang.runtime.registry import models
from prunelang.runtime.weights import load_weights
from prunelang.verification import export_directory, verify_directory

SPEC = """
model net = mlp([64, 12, 10])
data digits(batch = 128, validation = 0%)
minimize {objective}
subject to
    file:  bytes(net, format = coded) ≤ {bound} B
    first: bytes(net["fc1"], format = coded) ≤ 2 KB
    bits:  description_length(net) ≤ 9 KB
{more}
solve lc(steps = 3, μ = 1 * 3^k) with adam(lr = 0.01) for 2 epochs
report bytes(net, format = coded), description_length(net)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("described") / "run"
    text = SPEC.format(objective="nll(net)", bound=900, more="    kept: ‖net.weights‖₀ ≤ 20%")
    assert compile(text).run(out).certificate.status == "feasible-verified"
    return out


def certificate(run: Path) -> tuple[dict[str, dict[str, object]], dict[str, float]]:
    data = json.loads((run / "certificate.json").read_text(encoding="utf-8"))
    return {x["label"]: x for x in data["constraints"]}, {r["title"]: r["value"] for r in data["report"]}


def test_the_certificate_states_the_size_of_the_exported_file(run: Path) -> None:
    lines, reported = certificate(run)
    written = export_directory(run, "coded")
    assert os.path.getsize(written.path) == lines["file"]["got"] == reported["bytes(net, format = coded)"]
    assert reported["entropy of bytes(net, format = coded)"] == written.entropy
    assert lines["file"]["kind"] == "structural"
    assert f"entropy of positions and values {written.entropy} B" in str(lines["file"]["remark"])
    assert 0 < lines["first"]["got"] < lines["file"]["got"]  # type: ignore[operator]


def test_the_description_length_is_nll_of_the_decoded_network_and_the_file(run: Path) -> None:
    lines, reported = certificate(run)
    written = export_directory(run, "coded")
    net = models["mlp"].build(sizes=[64, 12, 10])
    net.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in load_export(written.path).items()})
    session = Session(compile((run / "spec.prune").read_text(encoding="utf-8")).plan, run, RunOptions(run))
    train = session.data.train
    log_p = net(train.inputs).detach().double().log_softmax(1)
    nll = float(-log_p.gather(1, train.targets[:, None]).sum()) / np.log(2)
    expected = nll + 8 * written.bytes
    assert reported["description_length(net)"] == pytest.approx(expected, rel=1e-6)
    assert float(str(lines["bits"]["got"])) == pytest.approx(expected, rel=1e-6)


def test_measuring_leaves_the_network_as_it_was(run: Path) -> None:
    session = Session(compile((run / "spec.prune").read_text(encoding="utf-8")).plan, run, RunOptions(run, seed=3))
    before = {n: t.clone() for n, t in session.model.state_dict().items()}
    size = session.measure(Measured("bytes", "train", (("format", "coded"),), "B"))
    session.measure(Measured("description_length", "train", (), "bits"))
    arrays = {n: t.numpy() for n, t in before.items()}
    assert size.exact == len(encode(session.plan.table, arrays).content)
    assert all(torch.equal(t, before[n]) for n, t in session.model.state_dict().items())


def test_verification_codes_the_weights_again(run: Path) -> None:
    result = verify_directory(run)
    assert result.ok
    assert any(f.verdict == "ok" and "`file`" in f.sentence for f in result.findings)
    assert any(f.verdict == "measured" and "`bits`" in f.sentence for f in result.findings)


def test_a_size_that_does_not_hold_is_said_to(tmp_path: Path) -> None:
    text = SPEC.format(objective="nll(net)", bound=300, more="    kept: ‖net.weights‖₀ ≤ 20%")
    solution = compile(text).run(tmp_path / "run")
    assert solution.certificate.status == "violated"
    assert not verify_directory(tmp_path / "run").ok
    (line,) = [x for x in solution.certificate.constraints if x.label == "file"]
    assert (line.satisfied, line.remark) == (False, "")


def test_minimising_the_description_length_leaves_fewer_weights_for_fewer_data(tmp_path: Path) -> None:
    """A larger coefficient is what fewer predictions would be: a weight has to pay for its bits with fewer of them."""
    sizes = []
    for c in ("0.2", "1"):
        text = SPEC.format(objective=f"{c} * description_length(net)", bound=9000, more="")
        solution = compile(text).run(tmp_path / f"{c}")
        arrays = load_weights(solution.weights, compile(text).plan.table)
        sizes.append(sum(int(np.count_nonzero(a)) for n, a in arrays.items() if n.endswith("weight")))
    assert 0 < sizes[1] < sizes[0] < 64 * 12 + 120
