"""From text to plan in a process that keeps a record of everything a spec has no business with.

``python -m tests.compiler.fuzzing N`` reads N hostile texts and prints, as JSON, how they ended.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from itertools import islice

from prunelang.compiler.catalog import DataFacts
from prunelang.compiler.check import Catalog, check
from prunelang.compiler.plan import DataPlan, ModelPlan
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl.diagnostics import SpecError, render
from prunelang.dsl.parser import parse
from prunelang.dsl.spans import Source
from tests.compiler.checking import CATALOG, TABLES
from tests.golden_support import GOLDEN
from tests.hostile import generate
from tests.shape_tables import lenet_300_100

FORBIDDEN = ("exec", "compile", "import", "open", "os.", "subprocess.", "socket.", "shutil.", "ctypes.", "marshal.", "pickle.")


def table_of(model: ModelPlan, data: DataPlan) -> ShapeTable:
    return TABLES.get(model.constructor, lenet_300_100)()


def ending(text: str) -> str:
    """``plan``, or the first letters of what refused the text; any other exception goes through."""
    source = Source(text, "spec.prune")
    try:
        check(parse(text), source, table_of=table_of, catalog=CATALOG)
    except SpecError as refusal:
        assert any(d.severity == "error" for d in refusal.diagnostics)
        assert all(0 <= d.span.start <= d.span.end <= len(text) for d in refusal.diagnostics)
        assert render(refusal.diagnostics, source)
        return "refused by the parser" if refusal.diagnostics[0].code < "P2" else "refused by the checker"
    return "plan"
