"""Test error at 5 %, 2 % and 1 % of the weights, 20 epochs of pretraining and 40 epochs after it, per seed.

    python -m benchmarks.lenet300 --root MNIST_FOLDER --seeds 0 1 2 --json benchmarks/lenet300/result.json

All methods start from the same pretrained weights of a seed and see the same batches. Existing rows of the JSON file
are kept, so that an interrupted run goes on where it stopped. Two processes share one `--work` and write to two files:

    python -m benchmarks.lenet300 --root MNIST_FOLDER --prepare
    python -m benchmarks.lenet300 --root MNIST_FOLDER --only drr rl1 --json a.json
    python -m benchmarks.lenet300 --root MNIST_FOLDER --only pmmp    --json b.json
    python -m benchmarks.lenet300 --merge a.json b.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import prunelang
from benchmarks.lenet300.peers import gradual_magnitude, one_shot
from benchmarks.rows import Rows, merged, read, spread, write
from prunelang.runtime.data import Batches, Dataset
from prunelang.runtime.registry import data, models

WEIGHTS, BUDGET = 266_200, 40
LEVELS = {"5%": 13_310, "2%": 5_324, "1%": 2_662}
HEAD = 'model net = lenet_300_100() from "{weights}"\ndata mnist(root = "{root}", batch = 256, seed = 0)\n'
TASK = "minimize cross_entropy(net)\nsubject to\n    sparsity: ‖net.weights‖₀ ≤ {level}\n\n"
SGD = "sgd(lr = {lr}, momentum = 0.9, nesterov = true)"
SPECS = Path(__file__).parents[2] / "specs"
RESULT = Path("benchmarks/lenet300/result.json")
SOLVED: dict[str, tuple[str, tuple[str, str]]] = {
    "gda": ("gda_lenet300", ("", "")),
    "lc": ("lc_lenet300", ("", "")),
    "ista": ("ista_lenet300", ("", "")),
    "ista lats": ("ista_lats", ("", "")),
    "ista stds_sine": ("ista_stds", ("", "")),
    "ista stds_linear": ("ista_stds", ("stds_sine", "stds_linear")),
    "ista pgh": ("ista_pgh", ("", "")),
    "ista str": ("ista_str", ("", "")),
    "drr": ("drr_lenet300", ("", "")),
    "rl1": ("rl1_lenet300", ("", "")),
    "pmmp": ("pmmp_lenet300", ("", "")),
}
"""What is solved by a spec: its name, and a word of it that the method replaces."""


def stages(name: str) -> str:
    """The statements from `solve` on, up to `report`, of a method's spec: what the benchmark measures."""
    spec, (word, other) = SOLVED[name]
    text = (SPECS / f"{spec}.prune").read_text(encoding="utf-8")
    found = text[text.index("\nsolve ") + 1 : text.index("\nreport ") + 1]
    if word not in found:
        raise ValueError(f"`{word}` is not in the stages of {spec}.prune")
    return found.replace(word, other) if word else found


def spec_of(name: str, level: str, weights: Path, root: str) -> str:
    """The method's stages on the dense network of a seed, at a level."""
    return (HEAD + TASK).format(weights=weights, root=root, level=level) + stages(name) + "report error(net)\n"


def ours(name: str, seed: int, level: str, weights: Path, root: str, folder: Path) -> dict[str, Any]:
    program = prunelang.compile(spec_of(name, level, weights, root))
    solution = program.run(folder / f"{name.replace(' ', '_')}-{level}-{seed}", seed=seed)
    (line,) = solution.certificate.constraints
    return {
        "error": 100 * solution.reported("error(net)"),
        "kept": int(str(line.got)),
        "status": solution.certificate.status,
    }


PEERS: dict[str, Callable[..., None]] = {"gradual magnitude": gradual_magnitude, "one-shot + finetune": one_shot}


def by_hand(name: str, seed: int, level: str, weights: Path, dataset: Dataset) -> dict[str, Any]:
    net = load(weights)
    PEERS[name](net, Batches(dataset.train, 256, seed), LEVELS[level], BUDGET, lambda epoch: 0.1 * 0.95**epoch)
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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of MNIST's idx files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "prunelang-lenet300")
    parser.add_argument("--only", nargs="+", choices=[*SOLVED, *PEERS], metavar="METHOD", help="methods to run")
    parser.add_argument("--prepare", action="store_true", help="train the dense networks and stop")
    parser.add_argument("--dry-run", action="store_true", help="compile every spec and stop")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="JSON", help="add the rows of these files and stop")
    args = parser.parse_args(arguments)
    names = args.only or [*SOLVED, *PEERS]
    if args.merge:
        save(args.json, merged([*([args.json] if args.json.is_file() else []), *args.merge]))
    elif args.dry_run:
        rehearse(names)
    elif args.root is None:
        parser.error("--root is needed: the folder of MNIST's idx files")
    else:
        measure(names, args)
    print(table(read(args.json)))


def rehearse(names: list[str]) -> None:
    """Compiles what would be run, without data or weights."""
    for name in names:
        for level in LEVELS if name in SOLVED else ():
            prunelang.compile(spec_of(name, level, Path("dense.safetensors"), ".")).require_runnable()
            print(f"{name} at {level}: compiles")


def measure(names: list[str], args: argparse.Namespace) -> None:
    """Every row that the file does not hold yet."""
    root = str(Path(args.root).resolve())
    dataset = data["mnist"].load(root=root).reshaped((784,))
    rows = read(args.json)
    methods: dict[str, Callable[[int, str, Path], dict[str, Any]]] = {
        **{n: partial(ours, n, root=root, folder=args.work) for n in SOLVED},
        **{n: partial(by_hand, n, dataset=dataset) for n in PEERS},
    }
    for seed in args.seeds:
        weights = pretrained(seed, root, args.work)
        rows.setdefault(f"dense/100%/{seed}", {"error": test_error(load(weights), dataset)})
        for level, name in () if args.prepare else ((x, n) for x in LEVELS for n in names):
            key = f"{name}/{level}/{seed}"
            if key in rows:
                continue
            start = time.perf_counter()
            rows[key] = methods[name](seed, level, weights) | {"seconds": round(time.perf_counter() - start, 1)}
            print(key, rows[key], flush=True)
            save(args.json, rows)
    save(args.json, rows)


def save(path: Path, rows: Rows) -> None:
    document = {
        "what": "LeNet-300-100, MNIST: test error in %, 20 + 40 epochs, batch 256",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "summary": summary(rows),
    }
    write(path, document, rows)


def summary(rows: Rows) -> dict[str, Any]:
    """Mean, lowest and highest error over seeds, by method and level."""
    groups: dict[str, list[float]] = {}
    for key, row in rows.items():
        method, level, _ = key.split("/")
        groups.setdefault(f"{method} at {level}", []).append(row["error"])
    return {k: spread(v) for k, v in sorted(groups.items())}


def table(rows: Rows) -> str:
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
