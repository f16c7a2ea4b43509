"""The catalogue of diagnostics: for each stable code a title, what it means, why it is so, and how to mend it.

P1xx syntax · P2xx meaning · P3xx proofs about budgets · P4xx solvers and stages · P5xx data, weights, files, arguments.
"""

from __future__ import annotations

from itertools import chain

from prunelang.compiler.codes.base import Code
from prunelang.compiler.codes.blocks import BLOCKS
from prunelang.compiler.codes.channels import CHANNELS
from prunelang.compiler.codes.description import DESCRIPTION
from prunelang.compiler.codes.factors import FACTORS
from prunelang.compiler.codes.files import FILES
from prunelang.compiler.codes.meaning import MEANING
from prunelang.compiler.codes.minimax import MINIMAX
from prunelang.compiler.codes.probing import PROBING
from prunelang.compiler.codes.selection import SELECTION
from prunelang.compiler.codes.spiking import SPIKING
from prunelang.compiler.codes.stages import STAGES
from prunelang.compiler.codes.structural import STRUCTURAL
from prunelang.compiler.codes.synops import SYNOPS
from prunelang.compiler.codes.syntax import SYNTAX

__all__ = ["CODES", "Code", "page"]


def _all() -> dict[str, Code]:
    found: dict[str, Code] = {}
    structural = (STRUCTURAL, FACTORS, CHANNELS, MINIMAX, BLOCKS)
    measured = (SYNOPS, SPIKING, SELECTION, PROBING, DESCRIPTION)
    pages = (SYNTAX, MEANING, STAGES, *structural, *measured, FILES)
    for code in chain.from_iterable(pages):
        if found.setdefault(code.code, code) is not code:
            raise RuntimeError(f"{code.code} is described twice")
    return dict(sorted(found.items()))


CODES = _all()


def page(subject: str) -> str | None:
    """What there is to say about a code such as ``P205``; None for anything else."""
    code = CODES.get(subject.upper())
    return None if code is None else code.page()
