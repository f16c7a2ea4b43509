"""Networks and data that have no constructor: what the program around a spec hands over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prunelang
from prunelang.dsl.diagnostics import SpecError
from prunelang.verification import verify_directory
from tests.golden_support import GOLDEN

SPEC = """model net = given()
data given(batch = 32)
minimize cross_entropy(net)
subject to
    small: ‖net.weights‖₀ ≤ 25%
solve {solver} with sgd(lr = 0.1, momentum = 0.9) for {length}
finetune with sgd(lr = 0.1, momentum = 0.9) for 2 epochs{until}
report {report}
"""


class Own(nn.Module):
    """A network that nobody registered."""

    def __init__(self, normed: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 24), nn.BatchNorm1d(24) if normed else nn.Identity(), nn.ReLU())
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def spec(solver: str = "lc(steps = 2)", length: str = "1 epochs", until: str = "", report: str = "bytes(net)") -> str:
    return SPEC.format(solver=solver, length=length, until=until, report=report)


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(160, 16, generator=generator)
    return x, (x @ torch.randn(16, 3, generator=generator)).argmax(1)


def loader() -> torch.utils.data.DataLoader[Any]:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*samples()), batch_size=32)


def trained(net: nn.Module, text: str, out: Path, **given: Any) -> prunelang.Solution:
    program = prunelang.compile(text, model=net, sample=samples()[0][:1])
    stepper = program.bind(net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), **given)
    for _ in stepper.epochs():
        for x, y in loader():
            stepper.step(lambda: F.cross_entropy(net(x), y))
        stepper.epoch_end()
    return stepper.finish(out)


def test_a_network_without_a_constructor(tmp_path: Path) -> None:
    net = Own()
    solution = trained(net, spec(), tmp_path, loader=loader())
    assert solution.feasible
    assert sum(int((w != 0).sum()) for w in (net.body[0].weight, net.head.weight)) <= (16 * 24 + 24 * 3) // 4
    assert verify_directory(tmp_path).ok


def test_normalisation_is_taken_anew_on_the_loader(tmp_path: Path) -> None:
    net = Own(normed=True)
    assert trained(net, spec(), tmp_path, loader=loader()).feasible
    with pytest.raises(SpecError) as caught:
        trained(Own(normed=True), spec(), tmp_path, steps_per_epoch=5)
    assert [d.code for d in caught.value.diagnostics] == ["P554"]


def test_evaluate_measures(tmp_path: Path) -> None:
    net, asked = Own(), []

    def evaluate(name: str, split: str) -> float:
        assert not net.training
        asked.append((name, split))
        x, y = samples()
        with torch.no_grad():
            out = net(x)
        return float(F.cross_entropy(out, y) if name == "cross_entropy" else (out.argmax(1) == y).double().mean())

    text = spec(until=" until saturated(window = 2 epochs)", report="accuracy(net)")
    solution = trained(net, text, tmp_path, loader=loader(), evaluate=evaluate)
    assert ("cross_entropy", "validation") in asked
    net.eval()
    assert solution.reported("accuracy(net)") == evaluate("accuracy", "test")


@pytest.mark.parametrize(
    ("text", "given", "code"),
    [
        (spec(), {}, "P553"),
        (spec(report="accuracy(net)"), {"steps_per_epoch": 5}, "P554"),
        (spec(until=" until saturated(window = 2 epochs)"), {"steps_per_epoch": 5}, "P554"),
        (spec().replace("solve", "    good: accuracy(net) ≥ 50%\nsolve"), {"steps_per_epoch": 5}, "P554"),
        (spec(), {"loader": iter(())}, "P553"),
        (spec(), {"steps_per_epoch": 0}, "P553"),
    ],
)
def test_what_is_missing(
    text: str, given: dict[str, Any], code: str, tmp_path: Path, golden: Callable[[Path, str], None]
) -> None:
    with pytest.raises(SpecError) as caught:
        trained(Own(), text, tmp_path, **given)
    assert [d.code for d in caught.value.diagnostics] == [code]
    asked = "_".join(given) + ("_" + text.partition("until ")[2][:9] if "until" in text else "")
    name = f"{code}_{asked or 'nothing'}{'_floor' * ('good:' in text)}{'_report' * ('report' in text)}"
    golden(GOLDEN / "bad" / "bind" / f"{name}.txt", str(caught.value) + "\n")


def test_without_a_network_nothing_can_be_checked() -> None:
    with pytest.raises(SpecError) as caught:
        prunelang.compile(spec())
    assert "P557" in {d.code for d in caught.value.diagnostics}
    with pytest.raises(ValueError, match="sample"):
        prunelang.compile(spec(), model=Own())


@pytest.mark.parametrize("use", ["run", "to_python"])
def test_a_given_network_is_bound_and_not_run(use: str, tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    program = prunelang.compile(spec(), model=Own(), sample=samples()[0])
    with pytest.raises(SpecError) as caught:
        program.run(tmp_path) if use == "run" else program.to_python()
    assert [d.code for d in caught.value.diagnostics] == ["P557"]
    golden(GOLDEN / "bad" / "bind" / f"P557_{use}.txt", str(caught.value) + "\n")
