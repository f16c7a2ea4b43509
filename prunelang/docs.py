"""``python -m prunelang.docs [--check]``: the reference pages, written from the registries that checking reads.

``--check`` writes nothing and exits with 1 if a page on disk differs from what would be written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from prunelang.compiler.codes import CODES
from prunelang.compiler.functions import FUNCTIONS, SETS, TESTS, Signature
from prunelang.compiler.functions.base import KIND_WORDS, Parameter
from prunelang.compiler.optimizers import OPTIMIZERS
from prunelang.compiler.options import OptionFacts, Options, facts
from prunelang.compiler.pruners.base import pruners
from prunelang.compiler.schedule import SCHEDULES
from prunelang.compiler.solvers.base import Solver, solvers
from prunelang.dsl.names import to_unicode

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
HEADER = "<!-- Written by `python -m prunelang.docs`; edits are lost. -->\n\n"
GROUPS = {
    "data term": "Data terms",
    "metric": "Metrics",
    "norm": "Norms and penalties",
    "matrix function": "Matrix functions",
    "resource": "Resources",
    "tensor set": "Tensor sets",
    "schedule": "Functions of the clocks",
}
PERCENTAGES = {
    "count": "A percentage refers to the value at full density.",
    "cost": "A percentage refers to the value at full density.",
    "ratio": "Bounds lie between 0% and 100%.",
    "value": "Takes no percentage: write a share of `base`.",
    "loss": "Takes no percentage: write a share of `base`.",
}
REACH = {
    "vector": "Acts on all tensors together.",
    "inside": "Acts inside each tensor or layer, and sums.",
    "matrix": "Takes a single tensor.",
}


def pages() -> dict[str, str]:
    """Every page by its file name."""
    return {
        "functions.md": _functions(),
        "sets.md": _sets(),
        "solvers.md": _options("Solvers", solvers().values()),
        "pruners.md": _options("Pruners", pruners().values()),
        "optimizers.md": _options("Optimizers", OPTIMIZERS.values()),
        "diagnostics.md": _diagnostics(),
    }


def main(arguments: list[str]) -> int:
    different = [name for name, text in pages().items() if _on_disk(name) != text]
    if "--check" in arguments:
        for name in different:
            sys.stderr.write(f"docs/reference/{name} is out of date: run `python -m prunelang.docs`\n")
        return 1 if different else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


def _on_disk(name: str) -> str | None:
    path = FOLDER / name
    return path.read_text(encoding="utf-8") if path.is_file() else None


# ── functions and sets ───────────────────────────────────────────────────────────────────────────────────────────


def _functions() -> str:
    parts = [HEADER + "# Functions\n"]
    for group, title in GROUPS.items():
        parts.append(f"\n## {title}\n")
        parts += [_signature(s) for s in FUNCTIONS.values() if s.group == group]
    parts.append("\n## Stopping tests\n")
    parts += [_signature(s) for s in TESTS.values()]
    return "".join(parts)


def _sets() -> str:
    return (
        HEADER + "# Sets\n\n`w ∈ set`; `+` between sets is the set of sums.\n" + "".join(map(_signature, SETS.values()))
    )


def _signature(s: Signature) -> str:
    title = f"`{s.text()}`" if s.name != "values" else "`{v1, v2, …}`"
    if s.sign and s.name != "values":
        title += f" or `{s.sign}`"
    lines = [f"\n### {title}\n", f"\n{s.doc}", *(f" {x}" for x in _traits(s)), "\n"]
    if s.formula:
        lines.append(f"\n    {s.formula}\n")
    if s.parameters:
        lines.append("\n| parameter | takes | meaning |\n|---|---|---|\n")
        lines += [f"| `{to_unicode(p.name)}` | {_takes(p)} | {p.doc} |\n" for p in s.parameters]
    lines.append(f"\n```prune\n{s.example}\n```\n")
    return "".join(lines)


def _traits(s: Signature) -> Iterable[str]:
    if s.unit:
        yield f"Counted in {s.unit}."
    if s.reach is not None and s.group != "resource":
        yield REACH[s.reach]
    if s.group != "tensor set" and s.result in PERCENTAGES:
        yield PERCENTAGES[s.result]
    if not s.structural and s.group != "test":
        yield "Measured on a split."


def _takes(p: Parameter) -> str:
    if p.choices:
        members = " · ".join(f"`{c}`" for c in p.choices)
        return members if p.required or p.default is None else f"{members}; default `{p.default}`"
    words = KIND_WORDS[p.kind]
    if p.range_text():
        words += f", {p.range_text()}"
    return words if p.required or p.default is None else f"{words}; default `{p.default}`"


# ── solvers, pruners and optimizers ───────────────────────────────────────────────────────────────────────────────────


def _options(title: str, models: Iterable[type[Options]]) -> str:
    return HEADER + f"# {title}\n" + "".join(map(_model, models))


def _model(model: type[Options]) -> str:
    lines = [f"\n## `{model.word}`\n\n{model.doc}\n"]
    if model.reference:
        lines.append(f"\nSource: {model.reference}.\n")
    if issubclass(model, Solver):
        lines.append(_takes_problems(model))
    lines.append("\n| option | takes | default | may follow | meaning |\n|---|---|---|---|---|\n")
    lines += [_option(f) for f in facts(model).values()]
    return "".join(lines)


def _takes_problems(model: type[Solver]) -> str:
    pairs = ", ".join(f"{function} ({set_})" for function, set_ in sorted(model.constraints)) or "none"
    penalties = ", ".join(sorted(model.penalties)) or "none"
    clock = "Has outer iterations: options may follow `k`." if model.outer else "Has no outer iterations."
    return f"\nConstraints: {pairs}.\nPenalties: {penalties}.\n{clock}\n"


def _option(f: OptionFacts) -> str:
    kinds = {"integer": "a whole number", "schedule": "a number", "truth": "true or false", "choice": ""}
    takes = " · ".join(f"`{c}`" for c in f.choices) or " ".join(x for x in (kinds[f.kind], f.range_text()) if x)
    default = "required" if f.required else "chosen" if f.default is None else f"`{_default(f.default)}`"
    clocks = " ".join(f"`{c}`" for c in f.clocks)
    return f"| `{to_unicode(f.name)}` | {takes} | {default} | {clocks} | {f.doc.replace('|', chr(92) + '|')} |\n"


def _default(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int, *SCHEDULES)) else repr(value)


# ── diagnostics ──────────────────────────────────────────────────────────────────────────────────────────────────


def _diagnostics() -> str:
    lines = [HEADER + "# Diagnostics\n\n`prune explain P205` prints the same.\n"]
    lines += [f"\n## {code.code}: {code.title}\n\n{code.what}\n{code.why}\n\n{code.mend}\n" for code in CODES.values()]
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
