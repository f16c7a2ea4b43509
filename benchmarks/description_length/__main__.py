"""Bits for a whole text: a byte-level transformer with its own coded weights counted, against general compressors.

    python -m benchmarks.description_length --text FILE --json benchmarks/description_length/result.json

The transformer is trained on the text that it then predicts, under ``minimize description_length(net)``. What counts is
the length of the coded file plus −log₂ p of every byte under the decoded weights, in windows without a view of the
bytes before them; the first byte, and a rest that fills no window, count 8 bits each. Nothing else is left out but the
program that decodes, as for the compressors. They see the whole text at once.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, cast

import torch

import prunelang
from benchmarks.compressors import lengths
from prunelang.compiler.problem import Measured
from prunelang.execution import RunOptions, Session
from prunelang.runtime.coded import encode
from prunelang.runtime.described import decoded
from prunelang.runtime.export import load_export
from prunelang.runtime.weights import load_weights, nonzero
from prunelang.verification import certificate_of, export_directory

CONTEXT = 64
SPEC = """
model net = byte_transformer(layers = {layers}, width = {width}, heads = 4, context = {context}, tied = true)
data  text("{text}", context = {context}, test = 0%, batch = 32, validation = 0%, seed = 0)
minimize description_length(net)
{stages}
report description_length(net), nll(net, on = train), bytes(net, format = coded)
"""
STAGES = """\
pretrain with adamw(lr = 0.004 * 0.85^epoch, weight_decay = 0) for 5 epochs
solve    lc(steps = 8, μ = 0.02 * 1.8^k) with adamw(lr = 0.0015 * 0.93^k, weight_decay = 0) for 270 steps
finetune with adamw(lr = 0.001 * 0.4^epoch, weight_decay = 0) for 2 epochs
"""


def transformer(text: Path, layers: int, width: int, stages: str, work: Path) -> dict[str, Any]:
    """Train, code, and count."""
    spec = SPEC.format(text=text, layers=layers, width=width, context=CONTEXT, stages=stages)
    out = work / f"transformer-{layers}-{width}"
    if not (out / "report.md").exists():  # made once
        prunelang.compile(spec).run(out, seed=0)
    seconds = [json.loads(x) for x in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()][-1]["seconds"]
    written = export_directory(out, "coded")
    reported = {r.title: r.value for r in certificate_of(out).report}
    described, nll = (float(cast(float, reported[x])) for x in ("description_length(net)", "nll(net, on = train)"))
    assert reported["bytes(net, format = coded)"] == written.bytes == written.path.stat().st_size
    kept = {n: int(nonzero(a).sum()) for n, a in load_export(written.path).items() if n in written.kernels}
    total = text.stat().st_size
    uncoded = total - (total - 1) // CONTEXT * CONTEXT
    bits = described + 8 * uncoded
    return {
        "layers": layers,
        "width": width,
        "stages": stages.splitlines(),
        "kernel weights kept": sum(kept.values()),
        "model bytes, coded": written.bytes,
        "entropy bound, bytes": written.entropy,
        "nll in bits a byte, before rounding": round(nll, 4),
        "data bytes": round((bits - 8 * written.bytes) / 8),
        "total bytes": round(bits / 8),
        "bits a byte": round(bits / total, 4),
        "seconds": round(seconds, 1),
        "on coarser grids": {f"{b} bits": coarser(text, out, b, 8 * uncoded) for b in (6, 5, 4)},
    }


def coarser(text: Path, run: Path, bits: int, uncoded: int) -> dict[str, Any]:
    """The same weights on a grid of fewer bits, without training on it."""
    program = prunelang.compile((run / "spec.prune").read_text(encoding="utf-8"))
    session = Session(program.plan, text.parent, RunOptions(run))
    table = program.plan.table
    file = encode(table, load_weights(run / "weights.safetensors", table), bits)
    with decoded(session.model, file):
        nll = session.measure(Measured("nll", "train", (), "bits"))
    total = (nll.total + uncoded) / 8 + len(file.content)
    return {
        "model bytes, coded": len(file.content),
        "nll in bits a byte": round(nll.value, 4),
        "total bytes": round(total),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="for example tiny-shakespeare's input.txt")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/description_length/result.json"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "prunelang-description")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    args = parser.parse_args()
    text = args.text.resolve()
    content = text.read_bytes()
    rows = {k: {"total bytes": n, "bits a byte": round(8 * n / len(content), 4)} for k, n in lengths(content).items()}
    print(rows, flush=True)
    found = transformer(text, args.layers, args.width, STAGES, args.work)
    document = {
        "what": f"bits for {text.parent.name}/{text.name}, {len(content)} bytes, the model's own bits counted",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "compressors": rows,
        "byte_transformer": found,
    }
    args.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
