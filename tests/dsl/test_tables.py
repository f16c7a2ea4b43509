"""The committed tables are those of the grammar, and parse as Lark parses with the same grammar (a slow oracle)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from lark import Lark, Token, Transformer
from lark.exceptions import GrammarError, UnexpectedInput

from prunelang.dsl.build import GRAMMAR, TABLES, build
from prunelang.dsl.formatter import format_spec
from prunelang.dsl.lalr import tables
from prunelang.dsl.names import KEYWORDS, canonical
from prunelang.dsl.numbers import UNITS, read_number
from prunelang.dsl.parser import parse_tolerant
from prunelang.dsl.scanner import word_kinds
from prunelang.dsl.spans import NOWHERE
from prunelang.dsl.tokens import Token as OurToken
from prunelang.dsl.tree import Spec
from prunelang.dsl.tree_builder import TreeBuilder
from tests.dsl.strategies import specs
from tests.golden_support import GOLDEN
from tests.hostile import COUNT, generate


def test_the_tables_are_up_to_date() -> None:
    grammar = GRAMMAR.read_text(encoding="utf-8")
    assert TABLES.read_text(encoding="utf-8") == build(grammar), "run `python -m prunelang.dsl.build`"


def test_a_conflict_in_the_grammar_is_an_error() -> None:
    with pytest.raises(GrammarError):
        build('spec: a | b\na: "x"\nb: "x"\n')
    with pytest.raises(GrammarError):  # shift or reduce: Lark alone would choose silently
        build('spec: e\ne: e "+" e | "x"\n')


def test_reserved_words_are_the_same_everywhere() -> None:
    assert frozenset(word_kinds()) == KEYWORDS
    patterns = tables().patterns
    for terminal in ("NAME", "REFERENCE"):
        listed = re.search(r"\(\?:([a-z|]+)\)", patterns[terminal])
        assert listed is not None
        assert frozenset(listed[1].split("|")) == KEYWORDS


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_is_part_of_a_number(unit: str) -> None:
    assert re.fullmatch(tables().patterns["NUMBER"], "3" + ("" if unit == "%" else " ") + unit)


# ── Lark as an oracle ──


class Brackets:
    """Drops line breaks inside brackets and after an operator; Lark's lexer does the rest."""

    always_accept = ("_NL",)
    opening = ("_LPAR", "_LSQB", "_LBRACE", "_SUM_OPEN", "_NORM_OPEN")
    closing = ("_RPAR", "_RSQB", "_RBRACE", "NORM_CLOSE")
    joining = (
        "_COMMA",
        "_EQUALS",
        "_COLON",
        "PLUS",
        "MINUS",
        "TIMES",
        "DIVIDE",
        "POWER",
        "BAR",
        "REL",
        "_IN",
        "EXCEPT",
    )

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        depth, last = 0, "_NL"
        for token in stream:
            depth += (token.type in self.opening) - (token.type in self.closing)
            if token.type == "_NL" and (depth > 0 or last in self.joining or last == "_NL"):
                continue
            last = token.type
            yield token


class Build(Transformer[Token, Any]):
    """Lark's tree → ours, with the same builder."""

    def __init__(self) -> None:
        super().__init__(visit_tokens=True)
        self.builder = TreeBuilder(lambda _: None)

    def __default__(self, data: Any, children: list[Any], meta: Any) -> Any:
        return getattr(self.builder, str(data))(NOWHERE, children)

    def __default_token__(self, token: Token) -> OurToken:
        value: Any = canonical(str(token))
        if token.type == "NUMBER":
            value = read_number(str(token))
        elif token.type == "STRING":
            value = re.sub(r"\\(.)", r"\1", token[1:-1])
        return OurToken(token.type, str(token), 0, 0, (token.type,), value)


@cache
def lark() -> Lark:
    grammar = GRAMMAR.read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", start="spec", postlex=Brackets(), maybe_placeholders=True)


def by_lark(text: str) -> Spec | None:
    try:
        tree = lark().parse(text.removeprefix("\ufeff") + "\n")
    except UnexpectedInput:
        return None
    spec: Spec = Build().transform(tree)
    return spec


@pytest.mark.parametrize("file", sorted((GOLDEN / "good").glob("*.prune")), ids=lambda f: f.stem)
def test_the_corpus_parses_as_by_lark(file: Any) -> None:
    text = file.read_bytes().decode("utf-8")
    spec, diagnostics = parse_tolerant(text)
    assert not diagnostics
    assert spec == by_lark(text)


@settings(max_examples=max(1, COUNT // 15), suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(specs())
def test_random_specs_parse_as_by_lark(spec: Spec) -> None:
    assert by_lark(format_spec(spec, width=30)) == spec


def test_mutated_specs_are_accepted_when_lark_accepts_them() -> None:
    """Findings other than the grammar's own (look-alike signs, glued numbers, reserved names, …) are not Lark's."""
    compared = 0
    for text in generate(3, COUNT):
        if len(text) > 5000:
            continue
        spec, diagnostics = parse_tolerant(text)
        if not diagnostics:
            assert spec == by_lark(text), text
        elif all(d.code in ("P100", "P101", "P111", "P116", "P117") for d in diagnostics):
            assert by_lark(text) is None, text
        compared += 1
    assert compared > COUNT // 2
