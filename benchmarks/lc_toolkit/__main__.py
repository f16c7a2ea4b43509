"""The LC toolkit's setting (5 % of LeNet-300-100, 40 outer steps of 20 epochs, 40 in the first), beside its 2.18 %.

    python -m benchmarks.lc_toolkit --root MNIST_FOLDER --json benchmarks/lc_toolkit/result.json

Runs specs/lc_toolkit_lenet300.prune as it stands; about 20 minutes on one idle core. `--from RUN_DIR` writes the result
of a run that is already there, after verifying it.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

SPEC = Path("specs/lc_toolkit_lenet300.prune")
PUBLISHED = {"test error of the LC toolkit, %": 2.18, "test error of its reference network, %": 2.13}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of MNIST's idx files")
    parser.add_argument("--from", dest="done", type=Path, metavar="RUN_DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/lc_toolkit/result.json"))
    args = parser.parse_args()
    directory = args.done or run(args.root, args.seed)
    from prunelang.verification import verify_directory

    verified = verify_directory(directory)
    assert verified.ok, verified.text()
    document = result(json.loads((directory / "certificate.json").read_text(encoding="utf-8")), directory)
    args.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=1, ensure_ascii=False))


def run(root: Path | None, seed: int) -> Path:
    import prunelang

    if root is not None:
        os.environ["PRUNELANG_DATA"] = str(root.resolve())
    return prunelang.compile(SPEC).run("runs/lc_toolkit", seed=seed).directory


def result(certificate: dict[str, Any], directory: Path) -> dict[str, Any]:
    (line,) = certificate["constraints"]
    error = next(r["value"] for r in certificate["report"] if r["title"] == "error(net)")
    last = json.loads((directory / "history.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return {
        "what": "LeNet-300-100 (tanh), MNIST, 5 % of the weights, the LC toolkit's schedule",
        "test error, %": round(100 * float(error), 2),
        "published": PUBLISHED,
        "asked": line["asked"],
        "got": line["got"],
        "status": certificate["status"],
        "seed": certificate["seed"],
        "versions": certificate["versions"],
        "seconds": last["seconds"],
    }


if __name__ == "__main__":
    main()
