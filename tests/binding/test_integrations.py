"""The callbacks of the page on embedding, with the trainers that they are for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prunelang
from tests.docs.blocks import ROOT, blocks_of

PAGE = ROOT / "docs" / "embedding.md"
SPEC = """model net = given()
data given(batch = 32)
minimize cross_entropy(net)
subject to
    small: ‖net.weights‖₀ ≤ 25%
solve {} with sgd(lr = 0.1, momentum = 0.9) for {} epochs
finetune with sgd(lr = 0.1, momentum = 0.9) for 1 epochs
"""
SOLVERS = {"lc": SPEC.format("lc(steps = 2)", 1), "ista": SPEC.format("ista()", 2)}

pytestmark = pytest.mark.filterwarnings("ignore")  # of trainers and of what they import


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(16, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(x)))


def samples() -> torch.utils.data.TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(160, 16, generator=generator)
    return torch.utils.data.TensorDataset(x, (x @ torch.randn(16, 3, generator=generator)).argmax(1))


def callback(file: str, folder: Path) -> ModuleType:
    """The block of the page that is the text of a file, imported."""
    text = next(b.text for b in blocks_of(PAGE) if b.file == file)
    path = folder / file
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"of_the_page_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def compressed(net: nn.Module) -> int:
    return sum(int((p != 0).sum()) for n, p in net.named_parameters() if n.endswith("weight"))


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_trainer_of_hugging_face(solver: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    torch.manual_seed(0)
    net = Net()

    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.net(x)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    def collate(rows: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        return {"x": torch.stack([x for x, _ in rows]), "labels": torch.stack([y for _, y in rows])}

    program = prunelang.compile(SOLVERS[solver], model=net, sample=torch.zeros(1, 16))
    arguments = transformers.TrainingArguments(
        str(tmp_path / "hf"), num_train_epochs=9, per_device_train_batch_size=16, gradient_accumulation_steps=2,
        learning_rate=0.05, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, optim="sgd",
        optim_args="momentum=0.9", remove_unused_columns=False,
    )  # fmt: skip
    compress = callback("trainer.py", tmp_path).Compress(program, net, str(tmp_path / "run"))
    trainer = transformers.Trainer(
        WithLoss(), arguments, train_dataset=samples(), data_collator=collate, callbacks=[compress]
    )
    trainer.train()
    assert compress.stepper.done
    assert compress.stepper.epoch == 3
    assert compress.solution.feasible
    assert compressed(net) <= (16 * 24 + 24 * 3) // 4


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_lightning(solver: str, clip: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lightning = pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def training_step(self, batch: Any, index: int) -> Tensor:
            x, y = batch
            return F.cross_entropy(self.net(x), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    module = Module()
    program = prunelang.compile(SOLVERS[solver], model=module.net, sample=torch.zeros(1, 16))
    compress = callback("lightning_callback.py", tmp_path).Compress(program, "net", str(tmp_path / "run"))
    trainer = lightning.Trainer(
        max_epochs=9, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[compress], gradient_clip_val=clip,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(samples(), batch_size=32))
    assert compress.stepper.done
    assert compress.stepper.epoch == 3
    assert compress.solution.feasible
    assert compressed(module.net) <= (16 * 24 + 24 * 3) // 4
