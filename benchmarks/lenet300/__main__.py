"""Test error at 5 %, 2 % and 1 % of the weights, 20 epochs of pretraining and 40 epochs after it, per seed.

    python -m benchmarks.lenet300 --root MNIST_FOLDER --seeds 0 1 2 --json benchmarks/lenet300/result.json

All methods start from the same pretrained weights of a seed and see the same batches. Existing rows of the JSON file
are kept, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import prunelang
from benchmarks.lenet300.peers import gradual_magnitude, one_shot
from prunelang.runtime.data import Batches, Dataset
from prunelang.runtime.registry import data, models

WEIGHTS, BUDGET = 266_200, 40
LEVELS = {"5%": 13_310, "2%": 5_324, "1%": 2_662}
HEAD = 'model net = lenet_300_100() from "{weights}"\ndata mnist(root = "{root}", batch = 256, seed = 0)\n'
TASK = "minimize cross_entropy(net)\nsubject to\n    sparsity: ‖net.weights‖₀ ≤ {level}\n\n"
SGD = "sgd(lr = {lr}, momentum = 0.9, nesterov = true)"
SPECS = Path("specs")


def stages(spec: Path) -> str:
    """The solve and finetune statements of a spec in specs/, which is what the benchmark measures."""
    text = spec.read_text(encoding="utf-8")
    return text[text.index("solve ") : text.index("report ")]


def ours(spec: str, seed: int, level: str, weights: Path, root: str, folder: Path) -> dict[str, Any]:
    text = (HEAD + TASK).format(weights=weights, root=root, level=level) + stages(SPECS / spec) + "report error(net)\n"
    program = prunelang.compile(text)
    solution = program.run(folder / f"{spec}-{level}-{seed}", seed=seed)
    (line,) = solution.certificate.constraints
    return {
        "error": 100 * solution.reported("error(net)"),
        "kept": int(line.got),
        "status": solution.certificate.status,
    }


def peer(method: Callable[..., None], net: nn.Module, dataset: Dataset, seed: int, level: str) -> dict[str, Any]:
    method(net, Batches(dataset.train, 256, seed), LEVELS[level], BUDGET, lambda epoch: 0.1 * 0.95**epoch)
    kept = sum(int(torch.count_nonzero(p)) for p in net.parameters() if p.dim() > 1)
    assert kept <= LEVELS[level]
    return {"error": test_error(net, dataset), "kept": kept}


@torch.no_grad()
def test_error(net: nn.Module, dataset: Dataset) -> float:
    net.eval()
    wrong = (net(dataset.test.inputs).argmax(1) != dataset.test.targets).sum()
    return 100 * float(wrong) / len(dataset.test)


def pretrained(seed: int, root: str, folder: Path) -> Path:
    """The dense network of a seed, trained by a spec of its own; made once."""
    out = folder / f"dense-{seed}"
    if not (out / "certificate.json").exists():
        text = f'model net = lenet_300_100()\ndata mnist(root = "{root}", batch = 256, seed = 0)\n'
        text += f"minimize cross_entropy(net)\npretrain with {SGD.format(lr='0.1 * 0.95^epoch')} for 20 epochs\n"
        text += "report error(net)\n"
        prunelang.compile(text).run(out, seed=seed)
    return out / "weights.safetensors"


def load(weights: Path) -> nn.Module:
    from safetensors.torch import load_file

    net = models["lenet_300_100"].build()
    net.load_state_dict(load_file(weights))
    return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of MNIST's idx files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, default=Path("benchmarks/lenet300/result.json"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "prunelang-lenet300")
    parser.add_argument("--only", nargs="+", help="methods to run")
    args = parser.parse_args()
    root = str(Path(args.root).resolve())
    dataset = data["mnist"].load(root=root).reshaped((784,))
    rows: dict[str, Any] = json.loads(args.json.read_text())["runs"] if args.json.exists() else {}
    methods: dict[str, Callable[[int, str, Path], dict[str, Any]]] = {
        "lc": lambda s, k, w: ours("lc_lenet300.prune", s, k, w, root, args.work),
        "ista": lambda s, k, w: ours("ista_lenet300.prune", s, k, w, root, args.work),
        "gradual magnitude": lambda s, k, w: peer(gradual_magnitude, load(w), dataset, s, k),
        "one-shot + finetune": lambda s, k, w: peer(one_shot, load(w), dataset, s, k),
    }
    for seed in args.seeds:
        weights = pretrained(seed, root, args.work)
        rows.setdefault(f"dense/100%/{seed}", {"error": test_error(load(weights), dataset)})
        for level in LEVELS:
            for name, method in methods.items():
                key = f"{name}/{level}/{seed}"
                if key in rows or (args.only and name not in args.only):
                    continue
                start = time.perf_counter()
                rows[key] = method(seed, level, weights) | {"seconds": round(time.perf_counter() - start, 1)}
                print(key, rows[key], flush=True)
                save(args.json, rows)
    save(args.json, rows)
    print(table(rows))


def save(path: Path, rows: dict[str, Any]) -> None:
    document = {
        "what": "LeNet-300-100, MNIST: test error in %, 20 + 40 epochs, batch 256",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "summary": summary(rows),
        "runs": dict(sorted(rows.items())),
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def summary(rows: dict[str, Any]) -> dict[str, Any]:
    """Mean, lowest and highest error over seeds, by method and level."""
    groups: dict[str, list[float]] = {}
    for key, row in rows.items():
        method, level, _ = key.split("/")
        groups.setdefault(f"{method} at {level}", []).append(row["error"])
    return {
        k: {"mean": round(statistics.fmean(v), 3), "low": round(min(v), 2), "high": round(max(v), 2), "seeds": len(v)}
        for k, v in sorted(groups.items())
    }


def table(rows: dict[str, Any]) -> str:
    found = summary(rows)
    names = dict.fromkeys(k.split(" at ")[0] for k in found)
    lines = [f"{'':<22}" + "".join(f"{x:>20}" for x in LEVELS)]
    for name in names:
        cells = (found.get(f"{name} at {level}") for level in LEVELS)
        shown = (f"{c['mean']:.2f} [{c['low']:.2f}, {c['high']:.2f}]" if c else "" for c in cells)
        lines.append(f"{name:<22}" + "".join(f"{x:>20}" for x in shown))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
