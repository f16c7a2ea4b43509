"""What a run of a sweep depends on: two runs with the same digests give the same result."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prunelang.compiler.measured import halves_validation
from prunelang.compiler.plan import Plan, StagePlan
from prunelang.compiler.synops import budgets
from prunelang.resuming.canon import document
from prunelang.runtime.files import digest, sha256


def run_digest(plan: Plan, folder: Path, settings: Any) -> str:
    """sha256 of everything that the result follows from: the meaning of the whole spec, and `settings`."""
    return _digest({"meaning": document(plan, folder), "settings": settings})


def pretraining_digest(plan: Plan, folder: Path, settings: Any) -> str | None:
    """sha256 of everything that the network entering the first `solve` or `prune` follows from; None where the spec
    trains nothing before."""
    before = leading(plan)
    if not before:
        return None
    trained = sorted(t.name for t in plan.table.tensors if t.name not in plan.problem.frozen)
    sampled = [halves_validation(plan.problem), bool(budgets(plan.problem))]
    whole = document(plan, folder)
    parts = {name: whole[name] for name in ("model", "teachers", "shapes", "data")}
    stages = whole["stages"][: len(before)]
    return _digest({**parts, "stages": stages, "trained": trained, "samples": sampled, "settings": settings})


def leading(plan: Plan) -> tuple[StagePlan, ...]:
    """The `pretrain` stages before any other."""
    others = [i for i, s in enumerate(plan.stages) if s.kind != "pretrain"]
    return plan.stages[: others[0] if others else len(plan.stages)]


def code_digests(code: Iterable[str]) -> list[str]:
    """What the code given with ``--with`` is: the digest of a file, the name of a module."""
    return [sha256(Path(c)) if Path(c).is_file() else c for c in code]


def _digest(data: Any) -> str:
    return digest(json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
