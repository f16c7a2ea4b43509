"""From hostile texts to plans, in a process that records whatever a spec has no business with.

``python -m tests.compiler.fuzzing N`` reads N texts and prints as JSON how they ended, the longest processor time of
one, and the events of the interpreter that none of them may cause.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from itertools import chain

from prunelang.compiler.check import check
from prunelang.compiler.optimizers import OPTIMIZERS
from prunelang.compiler.plan import DataPlan, ModelPlan
from prunelang.compiler.pruners.base import pruners
from prunelang.compiler.shapes import ShapeTable
from prunelang.compiler.solvers.base import solvers
from prunelang.dsl.diagnostics import SpecError, render
from prunelang.dsl.parser import parse
from prunelang.dsl.spans import Source
from tests.compiler.checking import CATALOG, TABLES
from tests.golden_support import GOLDEN
from tests.hostile import generate, resemble

WATCHED = ("compile", "ctypes.", "exec", "import", "marshal.", "open", "os.", "pickle.", "socket.", "subprocess.")


TABLE = {name: make() for name, make in TABLES.items()}


def table_of(model: ModelPlan, data: DataPlan) -> ShapeTable:
    return TABLE.get(model.constructor, TABLE["lenet_300_100"])


def ending(text: str) -> str:
    """``plan``, or who refused the text. Any exception but `SpecError` is let through."""
    source = Source(text, "spec.prune")
    try:
        check(parse(text), source, table_of=table_of, catalog=CATALOG)
    except SpecError as refusal:
        found = refusal.diagnostics
        assert any(d.severity == "error" for d in found)
        assert all(0 <= d.span.start <= d.span.end <= len(text) for d in found)
        assert render(found, source)
        return "parser" if any(d.code.startswith("P1") for d in found) else "checker"
    return "plan"


def main(count: int) -> dict[str, object]:
    for file in sorted(GOLDEN.rglob("*.prune")):  # what is imported where it is first needed, before anyone watches
        ending(file.read_bytes().decode("utf-8"))
    for model in (*OPTIMIZERS.values(), *solvers().values(), *pruners().values()):  # pydantic builds models when needed
        model.model_rebuild()
    events: Counter[str] = Counter()
    endings: Counter[str] = Counter()
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event.startswith(WATCHED):
            events[f"{event} {arguments[0]!r:.80}" if arguments else event] += 1

    sys.addaudithook(watch)
    longest = (0.0, 0)
    for i, text in enumerate(chain(generate(4, count // 2), resemble(5, count - count // 2))):
        before = time.process_time()
        try:
            endings[ending(text)] += 1
        except Exception as error:
            raise AssertionError(f"text {i}: {text[:500]!r}") from error
        longest = max(longest, (time.process_time() - before, i))
    watching = False
    return {"endings": endings, "longest": longest, "events": events, "torch": "torch" in sys.modules}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
