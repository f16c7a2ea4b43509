"""Everything that has to hold on a GPU, in one command.

    python -m benchmarks.gpu --json benchmarks/gpu/result.json
    python -m benchmarks.gpu --device cpu --dry-run             a small rehearsal, for machines without a GPU

Exit codes: 0 all checks passed, 1 one did not, 2 there is no such device.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.gpu.checks import FULL, REHEARSAL, run_all


def usable(device: str) -> str | None:
    """Why a device cannot be used; None where it can."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return None


def name_of(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, …; cpu with --dry-run")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes: exercises every check, measures nothing")
    options = parser.parse_args(arguments)
    if not options.dry_run and not options.device.startswith("cuda"):
        parser.error("a device other than cuda is for --dry-run")
    reason = usable(options.device)
    if reason is not None:
        sys.stderr.write(f"benchmarks.gpu: {options.device} cannot be used: {reason}\n")
        return 2
    checks, measured = run_all(options.device, REHEARSAL if options.dry_run else FULL)
    for check in checks:
        print(f"{check.outcome:<7} {check.name}: {check.detail}")
    document = {
        "what": "the runtime on an accelerator: operator laws, runs in which no step waits, overhead, projection",
        "device": name_of(options.device),
        "torch": torch.__version__,
        "dry_run": options.dry_run,
        "checks": [vars(c) for c in checks],
        **measured,
    }
    if options.json:
        options.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if all(c.outcome == "passed" for c in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
