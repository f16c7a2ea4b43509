"""Bytes of LeNet-300-100 at 5 %, 2 % and 1 % of its weights: the coded file beside everything else.

    python -m benchmarks.coded --root MNIST_FOLDER --json benchmarks/coded/result.json

The weights come from a short run of `lc` each. General compressors see three things: the dense float32 file, the
pruned float32 file, and the pruned values after the rounding of the coded file, one byte for each entry of a kernel
(+128 shares that of +127) and float32 for the rest, which is the fairest input that they can get.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import prunelang
from benchmarks.compressors import lengths
from prunelang.compiler.shapes import ShapeTable
from prunelang.runtime.coded import BITS, encode
from prunelang.runtime.registry import data, models
from prunelang.runtime.weights import Array, load_weights
from prunelang.verification import export_directory

LEVELS = {"5%": 13_310, "2%": 5_324, "1%": 2_662}
HEAD = """\
model net = lenet_300_100(){start}
data mnist(root = "{root}", batch = 256, seed = 0)
minimize cross_entropy(net)
"""
DENSE = "pretrain with sgd(lr = 0.1 * 0.9^epoch, momentum = 0.9, nesterov = true) for 8 epochs\nreport accuracy(net)\n"
STAGES = """\
subject to
    kept: ‖net.weights‖₀ ≤ {level}
solve    lc(μ = 8.5e-5 * 1.6^k, steps = 12)
         with sgd(lr = 0.1 * 0.95^k, momentum = 0.9, nesterov = true) for 1 epochs
finetune with sgd(lr = 0.03 * 0.7^epoch, momentum = 0.9, nesterov = true) for 4 epochs
report accuracy(net), bytes(net, format = coded)
"""
WIDTHS = (4, 6, 8, 12)  # bits of the grid


def run(text: str, out: Path) -> Path:
    """The run directory of a spec; made once."""
    if not (out / "certificate.json").exists():
        prunelang.compile(text).run(out, seed=0)
    return out


def row(out: Path, dense: Path, root: str) -> dict[str, Any]:
    table = ShapeTable.from_json(json.loads((out / "shapes.json").read_text(encoding="utf-8")))
    arrays = load_weights(out / "weights.safetensors", table)
    test = data["mnist"].load(root=root).reshaped((784,)).test
    formats: tuple[Literal["dense", "bitmask", "csr", "best", "coded"], ...] = (
        "dense",
        "bitmask",
        "csr",
        "best",
        "coded",
    )
    files = {f: export_directory(out, f) for f in formats}
    by_bits = {}
    for bits in WIDTHS:
        file = encode(table, arrays, bits)
        by_bits[f"{bits} bits"] = {
            "bytes": len(file.content),
            "entropy bound": file.entropy,
            "largest rounding": round(file.rounding, 6),
            "accuracy": accuracy(file.tensors, test),
        }
    coded = encode(table, arrays)
    assert files["coded"].bytes == len(coded.content)
    return {
        "kept": sum(int(np.count_nonzero(arrays[t.name])) for t in table.tensors if t.role == "weight"),
        "accuracy before rounding": accuracy(arrays, test),
        "accuracy after rounding": accuracy(coded.tensors, test),
        "formats": {f: w.bytes for f, w in files.items()},
        "entropy bound": coded.entropy,
        "dense float32": lengths((dense / "weights.safetensors").read_bytes()),
        "pruned float32": lengths((out / "weights.safetensors").read_bytes()),
        "pruned and rounded": lengths(rounded(table, arrays)),
        "coded at": by_bits,
    }


def rounded(table: ShapeTable, arrays: dict[str, Array]) -> bytes:
    """Kernels as one signed byte an entry, 0 where nothing is kept, then the other tensors as they are."""
    found = []
    for t in table.tensors:
        values = arrays[t.name]
        if t.role == "weight":
            share = values.astype(np.float64) / np.abs(values).max()
            steps = np.minimum(np.floor(np.abs(share) * (2**BITS - 1) / 2), 2 ** (BITS - 1) - 1) + 1
            found.append(np.where(values == 0, 0, np.copysign(steps, share)).clip(-128, 127).astype(np.int8).tobytes())
        else:
            found.append(values.tobytes())
    return b"".join(found)


@torch.no_grad()
def accuracy(arrays: Any, test: Any) -> float:
    net = models["lenet_300_100"].build()
    net.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in arrays.items()})
    net.eval()
    return round(float((net(test.inputs).argmax(1) == test.targets).double().mean()), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of MNIST's idx files")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/coded/result.json"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "prunelang-coded")
    args = parser.parse_args()
    root = str(Path(args.root).resolve())
    dense = run(HEAD.format(start="", root=root) + DENSE, args.work / "dense")
    start = f' from "{dense / "weights.safetensors"}"'
    rows = {}
    for level, kept in LEVELS.items():
        out = run(HEAD.format(start=start, root=root) + STAGES.format(level=kept), args.work / f"lc-{kept}")
        rows[level] = row(out, dense, root)
        print(level, json.dumps(rows[level], indent=1), flush=True)
    document = {
        "what": f"LeNet-300-100, MNIST, lc: bytes; the coded file has {BITS} bits a value",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "runs": rows,
    }
    args.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
