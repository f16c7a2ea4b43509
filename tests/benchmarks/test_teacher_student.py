"""Teacher and student: the samples, the bits, the summary and the picture."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import prunelang
from benchmarks.rows import Rows, read
from benchmarks.teacher_student import __main__ as teacher
from benchmarks.teacher_student import problem


def test_sizes_share_their_first_samples() -> None:
    small, large = problem.samples(3, 30), problem.samples(3, 300)
    assert torch.equal(small["x_train"][:30], large["x_train"][:30])
    assert torch.equal(small["y_test"], large["y_test"])
    assert torch.equal(small["x_train"][:30], small["x_train"][30:60])
    assert [len(s["x_train"]) for s in (small, large)] == [2010, 2100]
    assert len(small["x_test"]) == problem.TEST
    assert not torch.equal(small["y_train"], problem.samples(4, 30)["y_train"])


def test_bits_of_data_are_those_of_a_normal_density() -> None:
    errors = [0.1, -0.05, 0.02]
    density = torch.distributions.Normal(0.0, problem.NOISE)
    bits = -sum(density.log_prob(torch.tensor(e)).item() for e in errors) / math.log(2)
    assert problem.data_bits(3, sum(e * e for e in errors) / 3) == pytest.approx(bits, rel=1e-5)


def test_bits_of_a_model_count_positions_and_values() -> None:
    assert problem.model_bits(20) == pytest.approx(math.log2(math.comb(751, 20)) + 160)
    assert problem.model_bits(0) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("alpha", ["0", "1e-3"])
def test_the_spec_runs_on_the_samples(alpha: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = tmp_path / "short.prune"
    text = teacher.SPEC.read_text(encoding="utf-8")
    short.write_text(text.replace("000 steps", "0 steps"), encoding="utf-8")  # 10, 40 and 20
    monkeypatch.setattr(teacher, "SPEC", short)
    row = teacher.run(0, 30, alpha, tmp_path)
    assert row["kept"] == problem.PARAMETERS if alpha == "0" else row["kept"] <= problem.PARAMETERS
    assert row["data_bits"] == pytest.approx(problem.data_bits(30, row["train"]), abs=0.1)


def test_without_a_penalty_the_steps_are_as_many() -> None:
    program = prunelang.compile(teacher.spec_of("0", Path("x.safetensors")))
    penalised = prunelang.compile(teacher.spec_of("1e-3", Path("x.safetensors")))
    assert [s.kind for s in program.plan.stages] == ["pretrain"]
    assert [s.kind for s in penalised.plan.stages] == ["pretrain", "solve", "prune", "prune", "finetune"]
    assert "7000 steps" in program.plan.source.text
    assert "α = 1e-3" in penalised.plan.source.text


def rows() -> Rows:
    """Two seeds, two sizes, three strengths: the more samples, the larger the best size."""
    found: Rows = {}
    for seed in (0, 1):
        for n, best in ((30, 20), (2000, 80)):
            for alpha, kept in (("0", 751), ("1e-4", 80 + seed), ("1e-3", 20 + seed)):
                loss = 0.01 * (1 + abs(math.log(kept / (best + seed))))
                bits = {"data_bits": problem.data_bits(n, loss), "model_bits": problem.model_bits(kept)}
                found[f"{n}/{alpha}/{seed}"] = {"kept": kept, "train": loss, "test": loss, **bits}
    return found


def test_the_summary_finds_the_least() -> None:
    found = teacher.summary(rows())
    assert list(found) == ["30", "2000"]
    assert (found["30"]["least test loss"], found["2000"]["least test loss"]) == (20.5, 80.5)
    assert found["2000"]["best by seed"]["test"] == [80, 81]
    assert found["30"]["least description"] == 20.5


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    path = tmp_path / "result.json"
    teacher.save(path, rows())
    teacher.main(["--json", str(path), "--plot", str(tmp_path / "images" / "a.svg")])
    text = (tmp_path / "images" / "a.svg").read_text(encoding="utf-8")
    assert "Description length" in text
    assert "2 000" in text


def test_rows_are_kept_and_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int, str]] = []

    def run(seed: int, n: int, alpha: str, work: Path) -> dict[str, float]:
        made.append((seed, n, alpha))
        return rows()[f"{n}/{alpha}/{seed}"]

    monkeypatch.setattr(teacher, "run", run)
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    asked = ["--sizes", "30", "--alphas", "0", "1e-3"]
    for _ in range(2):  # the second time nothing is left to do
        teacher.main(["--seeds", "0", *asked, "--json", str(a)])
    teacher.main(["--seeds", "1", *asked, "--json", str(b)])
    assert made == [(0, 30, "0"), (0, 30, "1e-3"), (1, 30, "0"), (1, 30, "1e-3")]
    teacher.main(["--merge", str(b), "--json", str(a)])
    assert len(read(a)) == 4
    assert json.loads(a.read_text(encoding="utf-8"))["summary"]["30"]["curve"]["0"]["seeds"] == 2
