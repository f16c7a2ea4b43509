"""Makes tables.json, the LALR(1) tables that the parser loads, from grammar.lark: ``python -m prunelang.dsl.build``.

Lark reads the grammar and computes the tables; the parser needs neither at run time, so that a command starts in
milliseconds. Conflicts in the grammar are errors here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from pathlib import Path
from typing import Any

from lark import Lark
from lark.common import ParserConf
from lark.grammar import Rule, Terminal
from lark.parsers.lalr_analysis import LALR_Analyzer, Shift

FOLDER = Path(__file__).resolve().parent
GRAMMAR = FOLDER / "grammar.lark"
TABLES = FOLDER / "tables.json"
_WORD = re.compile(r"([a-z]+)\(\?!\\w\)")


def build(grammar: str) -> str:
    """The text of tables.json for this grammar. Raises `lark.exceptions.GrammarError` on a conflict."""
    lark = Lark(grammar, parser="lalr", start="spec", maybe_placeholders=True)
    analyzer = LALR_Analyzer(ParserConf(lark.rules, {}, ["spec"]), strict=True)
    analyzer.compute_lalr()  # type: ignore[no-untyped-call]
    table = analyzer.parse_table
    rules = {rule: i for i, rule in enumerate(lark.rules)}
    number = _numbering(table.states, table.start_states["spec"])
    states: list[dict[str, int]] = [{} for _ in number]
    for state, actions in table.states.items():
        coded = {s: number[a] if kind is Shift else ~rules[a] for s, (kind, a) in actions.items()}
        states[number[state]] = dict(sorted(coded.items()))
    return _dump(
        {
            "grammar": hashlib.sha256(grammar.encode()).hexdigest(),
            "end": number[table.end_states["spec"]],
            "patterns": {t.name: t.pattern.to_regexp() for t in sorted(lark.terminals, key=lambda t: t.name)},
            "words": {m[1]: t.name for t in lark.terminals if (m := _WORD.fullmatch(t.pattern.value))},
            "rules": [_rule(rule) for rule in lark.rules],
            "states": states,
        }
    )


def _numbering(states: dict[Any, Any], start: Any) -> dict[Any, int]:
    """States in breadth-first order from the start, so that the file does not depend on hash seeds."""
    number = {start: 0}
    queue = deque([start])
    while queue:
        for _, (kind, target) in sorted(states[queue.popleft()].items()):
            if kind is Shift and target not in number:
                number[target] = len(number)
                queue.append(target)
    return number


def _rule(rule: Rule) -> list[Any]:
    """`[origin, length, action, children]`.

    `children` lists what the action is given: i for the value of symbol i, ~i to splice its values, None for an
    optional part that is absent. `action` is "" for a part that is spliced or passed on, "+" for a repetition.
    """
    name = str(rule.origin.name)
    children: list[int | None] = []
    absent = list(rule.options.empty_indices) or [False] * len(rule.expansion)
    symbols = iter(enumerate(rule.expansion))
    for is_absent in absent:
        if is_absent:
            children.append(None)
            continue
        i, symbol = next(symbols)
        if isinstance(symbol, Terminal):
            if not symbol.filter_out:
                children.append(i)
        else:
            children.append(~i if symbol.name.startswith("_") else i)
    if name.startswith("__"):
        action = "+"
    elif name.startswith("_") or (rule.options.expand1 and rule.alias is None and len(children) == 1):
        action = ""
    else:
        action = str(rule.alias or name)
    return [name, len(rule.expansion), action, children]


def _dump(tables: dict[str, Any]) -> str:
    """JSON with one rule and one state a line."""
    parts = []
    for key, value in tables.items():
        if isinstance(value, list):
            lines = ",\n".join("  " + json.dumps(v, ensure_ascii=False) for v in value)
            parts.append(f'"{key}": [\n{lines}\n]')
        else:
            parts.append(f'"{key}": {json.dumps(value, ensure_ascii=False, indent=1)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    TABLES.write_text(build(GRAMMAR.read_text(encoding="utf-8")), encoding="utf-8")
