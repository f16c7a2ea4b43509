"""Measured constraints from spec to certificate: confirmed or not, `base`, the reversed form, what `verify` says."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from prunelang import compile
from prunelang.dsl.diagnostics import SpecError
from prunelang.emission import emit_program
from prunelang.execution import Solution
from prunelang.progress import sought
from prunelang.report import result_text
from prunelang.runtime.certificate import digest_of
from prunelang.runtime.machine import Event
from prunelang.runtime.statistics import share_at_least
from prunelang.verification import verify_directory
from tests.cli.conftest import Prune

FORWARD = """\
model net = mlp([64, 16, 10])
data  digits(batch = 64, validation = 40%)
param a = 80%

minimize   cross_entropy(net)
subject to
    sparsity: ‖net.weights‖₀ ≤ 30%
    floor:    accuracy(net) ≥ a
    near:     accuracy(net) ≥ base - 20 pp
    loss:     cross_entropy(net) ≤ 3 * base
    tested:   error(net, on = test) ≤ 30%
    fit:      cross_entropy(net, on = train) ≤ 1

pretrain with sgd(lr = 0.1, momentum = 0.9) for 6 epochs
solve    lc(steps = 3) with sgd(lr = 0.1, momentum = 0.9) for 1 epochs
finetune with sgd(lr = 0.05, momentum = 0.9) for 2 epochs
"""


@pytest.fixture(scope="module")
def forward(tmp_path_factory: pytest.TempPathFactory) -> Solution:
    return compile(FORWARD).run(tmp_path_factory.mktemp("forward"))


def lines(solution: Solution) -> dict[str, dict[str, Any]]:
    certificate = json.loads((solution.directory / "certificate.json").read_text("utf-8"))
    return {line["label"]: line for line in certificate["constraints"]}


def test_floors_that_hold_are_confirmed_each_on_its_split(forward: Solution) -> None:
    assert forward.feasible
    found, shown = lines(forward), result_text(forward)
    floor = found["floor"]
    got = Fraction(floor["got"])
    assert (floor["split"], floor["samples"], floor["confirmed"]) == ("certify", 288, True)
    bound = share_at_least(int(got * 288), 288)
    said = re.fullmatch(
        r"accuracy ≥ ([0-9.]+) % with 95 % confidence \(Clopper–Pearson, (\d+) of 288 on certify\)", floor["statement"]
    )
    assert said is not None
    assert int(said[2]) == got * 288
    assert bound - 1e-4 <= float(said[1]) / 100 <= bound, "rounded to the side on which it stays true"
    assert floor["statement"] in shown
    assert "paired, Clopper–Pearson" in found["near"]["statement"]
    assert "paired, normal, asymptotic" in found["loss"]["statement"]
    assert Fraction(found["near"]["bound"]) == Fraction(found["near"]["base"]) - Fraction(1, 5)
    assert f"`near`: base = {float(Fraction(found['near']['base'])):.6g} on certify" in shown
    assert (found["tested"]["split"], found["tested"]["samples"], found["tested"]["confirmed"]) == ("test", 360, True)
    assert (found["fit"]["split"], found["fit"]["confirmed"], found["fit"]["statement"]) == ("train", None, "")


def test_verify_takes_measured_values_as_stated(forward: Solution) -> None:
    result = verify_directory(forward.directory)
    assert result.ok, result.text()
    assert [f.verdict for f in result.findings].count("measured") == 5


def test_base_is_what_the_weights_entering_the_solve_are_worth(forward: Solution, tmp_path: Path) -> None:
    """The same run without solve and finetune ends where `base` was measured."""
    text = re.sub(r"(?m)^(solve|finetune).*\n|^ +(sparsity|near|loss).*\n", "", FORWARD).replace("a\n", "0%\n", 1)
    before = compile(text).run(tmp_path)
    assert lines(before)["floor"]["got"] == lines(forward)["near"]["base"]


def test_a_changed_split_is_found(forward: Solution, tmp_path: Path) -> None:
    for file in forward.directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "certificate.json"
    data = json.loads(path.read_text("utf-8"))
    next(x for x in data["constraints"] if x["label"] == "floor")["split"] = "select"
    path.write_text(json.dumps({**data, "digest": digest_of(data)}), encoding="utf-8")
    result = verify_directory(tmp_path)
    assert "`floor`: the certificate states split 'select', and it is 'validation'" in result.text()


def test_what_holds_on_the_split_but_not_with_confidence_is_violated_with_exit_code_4(
    forward: Solution, prune: Prune
) -> None:
    """The floor lies between the value and its confidence bound. Without finetune no epoch is chosen by the floor."""
    text = re.sub(r"finetune.*\n", "", FORWARD)
    got = Fraction(lines(compile(text).run(prune.folder / "first"))["floor"]["got"])
    between = (float(got) + share_at_least(int(got * 288), 288)) / 2
    prune.write("spec.prune", text)
    done = prune("run", "spec.prune", "--set", f"a={100 * between:.4f}%", "--out", "run", "--quiet")
    assert done.returncode == 4
    assert "status: violated" in done.stdout
    assert "`floor`: it holds on the split, not with the confidence that is asked" in done.stdout
    certificate = json.loads((prune.folder / "run" / "certificate.json").read_text("utf-8"))
    floor = next(x for x in certificate["constraints"] if x["label"] == "floor")
    assert (floor["satisfied"], floor["confirmed"], Fraction(floor["got"])) == (False, False, got)
    assert not floor["margin"].startswith("-")
    assert not verify_directory(prune.folder / "run").ok


REVERSED = """\
model net = mlp([64, 16, 10])
data  digits(batch = 64, validation = 40%)
minimize   ‖net.weights‖₀
subject to
    floor: accuracy(net) ≥ 80%
pretrain with sgd(lr = 0.1, momentum = 0.9) for 10 epochs
solve    lc(steps = 3, probes = 5) with sgd(lr = 0.1, momentum = 0.9) for 1 epochs
finetune with sgd(lr = 0.05, momentum = 0.9) for 2 epochs
"""


def test_the_reversed_form_from_spec_to_certificate(tmp_path: Path) -> None:
    events: list[Event] = []
    solution = compile(REVERSED).run(tmp_path, observe=events.append)
    assert solution.feasible
    value = solution.reported("minimize ‖net.weights‖₀")
    found = next(e for e in events if e["event"] == "found")
    assert 0 < value <= found["value"] <= 296
    assert sought(found) == f"κ = {found['value']}, {found['passed']} of {found['tested']} tests passed"
    assert 1 <= sum(e["event"] == "probed" for e in events) <= 5
    probed = next(e for e in events if e["event"] == "probed")
    assert re.fullmatch(r"κ = 296  floor 0\.\d+ [✓✗]", sought(probed))
    assert verify_directory(tmp_path).ok
    assert re.search(r"minimize ‖net.weights‖₀ +\d", result_text(solution))


def test_a_floor_that_the_dense_network_misses_is_said(tmp_path: Path) -> None:
    text = REVERSED.replace("80%", "98.5%").replace("10 epochs", "1 epochs").replace("probes = 5", "probes = 1")
    solution = compile(text).run(tmp_path)
    assert not solution.feasible
    assert re.search(r"entered the search had 0\.\d+ on select, short of the floor", result_text(solution))


def test_a_search_is_emitted_with_its_tests() -> None:
    script = emit_program(compile(REVERSED)).script
    assert "for probe in range(5):" in script
    assert "CountBound(" in script
    assert "upper=κ" in script


def test_a_search_that_no_script_can_test_is_not_emitted() -> None:
    text = REVERSED.replace("    floor: accuracy(net) ≥ 80%", "    floor: distill(net, big) ≤ 3").replace(
        "data ", 'model big = mlp([64, 20, 10]) from "big.safetensors" frozen\ndata ', 1
    )
    with pytest.raises(SpecError) as raised:
        emit_program(compile(text))
    (found,) = raised.value.diagnostics
    assert (found.code, found.severity) == ("P450", "error")
    assert text[found.span.start : found.span.end].strip() == "distill(net, big) ≤ 3"


def test_a_description_length_that_finetune_reads_is_not_emitted() -> None:
    text = FORWARD.replace("    tested:", "    short: description_length(net) ≤ 9000 bits\n    tested:")
    with pytest.raises(SpecError) as raised:
        emit_program(compile(text))
    (found,) = raised.value.diagnostics
    assert (found.code, text[found.span.start : found.span.end].strip()[:5]) == ("P459", "descr")


def test_explain_shows_the_search() -> None:
    program = compile(REVERSED)
    graph = program.explain("graph")
    assert "search the smallest κ in 0 … 1 184: accuracy on select ≥ 0.8   [5 probes at most, within 0.05]" in graph
    solver = program.explain("solver")
    assert "descends on cross_entropy" in solver
    assert re.search(r"ista.* would take it too", solver)


# ── ends that are not the usual one ──────────────────────────────────────────────────────────────────────────────


def test_verify_recounts_what_a_search_made_small(tmp_path: Path) -> None:
    solution = compile(REVERSED.replace("probes = 5", "probes = 2")).run(tmp_path)
    value = int(solution.reported("minimize ‖net.weights‖₀"))
    assert f"`minimize ‖net.weights‖₀`: {value} (non-zero values)" in verify_directory(tmp_path).text()
    path = tmp_path / "certificate.json"
    data = json.loads(path.read_text("utf-8"))
    data["report"][0]["value"] = value - 1
    path.write_text(json.dumps({**data, "digest": digest_of(data)}), encoding="utf-8")
    assert verify_directory(tmp_path).failures == (
        f"`minimize ‖net.weights‖₀`: the report states {value - 1}, and it is {value}",
    )


@pytest.mark.parametrize("boundary", [1, 8, 15])
def test_an_interrupted_run_certifies_what_it_left(boundary: int, tmp_path: Path) -> None:
    """Before `base` is measured, in the solve, and in the finetune: no line contradicts the folder."""
    asked = iter(range(100))  # boundaries: epochs, outer iterations and ends of stages
    solution = compile(FORWARD).run(tmp_path, stop=lambda: next(asked) >= boundary - 1)
    assert solution.interrupted
    assert not [x for x in verify_directory(tmp_path).failures if "the certificate states" in x]
    near = lines(solution)["near"]
    assert near["got"] is not None
    assert (near["satisfied"] is None) == (near["base"] is None) == (boundary == 1)


def test_without_a_solve_base_is_what_enters_the_first_prune(tmp_path: Path) -> None:
    text = re.sub(r"solve .*", "prune tamade(δ = 5%)", FORWARD.replace("    sparsity: ‖net.weights‖₀ ≤ 30%\n", ""))
    found = lines(compile(text).run(tmp_path / "run"))
    before = re.sub(r"(?m)^(prune|finetune).*\n|^ +(near|loss).*\n", "", text).replace("a\n", "0%\n", 1)
    assert found["near"]["base"] == lines(compile(before).run(tmp_path / "before"))["floor"]["got"]
    assert found["near"]["confirmed"] is not None


def test_a_finetune_before_the_solve_knows_no_base_yet(tmp_path: Path) -> None:
    solution = compile(FORWARD.replace("pretrain", "finetune", 1)).run(tmp_path)
    assert lines(solution)["near"]["base"] is not None


def test_coded_bytes_against_base(tmp_path: Path) -> None:
    """`base` is the coded length of the network that enters the solve."""
    text = FORWARD.replace("    tested:", "    coded: bytes(net, format = coded) ≤ 0.8 * base\n    tested:")
    line = lines(compile(text).run(tmp_path / "run"))["coded"]
    before = re.sub(r"(?m)^(solve|finetune).*\n|^ +(sparsity|near|loss|coded).*\n", "", text).replace("a\n", "0%\n", 1)
    dense = compile(before + "report bytes(net, format = coded)\n").run(tmp_path / "before")
    assert line["base"] == int(dense.reported("bytes(net, format = coded)"))
    assert line["satisfied"] is True
    assert verify_directory(tmp_path / "run").ok


def test_a_network_that_overflows_still_leaves_a_certificate(tmp_path: Path) -> None:
    """One step of an absurd size: finite weights, outputs that are not."""
    text = re.sub(r"pretrain .*\n|finetune .*\n|^ +(floor|near|tested|fit).*\n", "", FORWARD, flags=re.MULTILINE)
    text = text.replace("3 * base", "3").replace("batch = 64", "batch = 2000")
    text = re.sub(r"solve .*", "solve ista() with sgd(lr = 1e25) for 1 epochs", text) + "report cross_entropy(net)\n"
    solution = compile(text).run(tmp_path)
    assert not solution.feasible
    assert lines(solution)["loss"]["remark"] == "no finite value of it was measured"
    assert [(x.title, x.value) for x in solution.certificate.report] == [("cross_entropy(net)", None)]
    assert verify_directory(tmp_path).failures == ()


def test_an_option_of_the_search_is_given_once() -> None:
    text = REVERSED.replace("finetune", "solve ista(probes = 3) with sgd(lr = 0.1) for 1 epochs\nfinetune")
    (found,) = compile(text).obstacles
    assert (found.code, text[found.span.start : found.span.end].split("(")[0]) == ("P454", "solve ista")


def test_a_run_that_is_not_deterministic_changes_no_setting_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Setting it imports torch's compiler, which takes longer than many a run."""
    calls: list[bool] = []
    monkeypatch.setattr("torch.use_deterministic_algorithms", calls.append)
    monkeypatch.setattr("torch.are_deterministic_algorithms_enabled", lambda: False)
    text = re.sub(r"finetune .*\n", "", FORWARD).replace("for 6 epochs", "for 1 epochs")
    compile(text).run(tmp_path / "plain")
    assert calls == []
    compile(text).run(tmp_path / "deterministic", deterministic=True)
    assert calls == [True, False]
