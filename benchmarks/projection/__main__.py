"""``python -m benchmarks.projection --json result.json``: see `run`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.projection.run import measure, table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.projection", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--size", type=int, default=25_500_000, help="number of float32 weights")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--repeats", type=int, default=15, help="rounds; sorts run in a third of them")
    options = parser.parse_args()
    result = measure(options.size, options.device, options.threads, options.repeats)
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
