"""Syntax errors speak in words: in every state of the parser, for every token, and in a golden transcript each."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from prunelang.dsl import codes
from prunelang.dsl.diagnostics import Diagnostic, SpecError, render
from prunelang.dsl.lalr import END, tables
from prunelang.dsl.mistakes import MISTAKES, explain
from prunelang.dsl.numbers import read_number
from prunelang.dsl.parser import decode, parse, parse_tolerant
from prunelang.dsl.spans import Source
from prunelang.dsl.syntax_errors import WORDING, Problem, Situation, expected_words
from prunelang.dsl.tokens import LINE_END, Token
from tests.golden_support import GOLDEN

BAD = sorted((GOLDEN / "bad" / "syntax").glob("*.prune"))

SAMPLES = {kind: word for word, kind in tables().words.items()} | dict(
    part.split("→")
    for part in (
        "_SUBJECT_TO→subject to;_IN→∈;_FORALL→∀;DURATION_UNIT→epochs;LABEL→a;OPTION→a;REFERENCE→data;WORD→data;NAME→x;"
        'NUMBER→3;STRING→"s";_SUM_OPEN→Σ_{;NORM_CLOSE→‖₀;_NORM_OPEN→‖;REL→≤;PLUS→+;MINUS→-;TIMES→*;DIVIDE→/;POWER→^;'
        f"BAR→|;_EQUALS→=;_COLON→:;_COMMA→,;_DOT→.;_LPAR→(;_RPAR→);_LSQB→[;_RSQB→];_LBRACE→{{;_RBRACE→}};_NL→;{END}→"
    ).split(";")
)
"""Terminal → a text of it."""
NOT_WORDS = re.compile(r"[A-Z]{3,}|_[A-Z]|__|\$|Token|None|\bANON")


def sample(terminal: str, at: int) -> Token:
    text = SAMPLES[terminal]
    value = read_number(text) if terminal == "NUMBER" else text
    return Token(terminal, text, at, at + len(text), (terminal,), value)


@cache
def shortest_texts() -> dict[str, tuple[str, ...]]:
    """Nonterminal → the terminals of its shortest text."""
    shortest: dict[str, tuple[str, ...]] = {}
    symbols = {symbol for state in tables().states for symbol in state}
    nonterminals = {rule.origin for rule in tables().rules}
    shortest |= {s: (s,) for s in symbols - nonterminals}
    bodies = _bodies()
    for _ in nonterminals:
        for origin, body in bodies:
            if all(s in shortest for s in body):
                text = tuple(t for s in body for t in shortest[s])
                if origin not in shortest or len(text) < len(shortest[origin]):
                    shortest[origin] = text
    return shortest


def _bodies() -> list[tuple[str, tuple[str, ...]]]:
    """Productions with their symbols, read back from the automaton: where a rule is reduced, it has just been read."""
    bodies: set[tuple[str, tuple[str, ...]]] = set()
    before: dict[int, set[tuple[int, str]]] = {}
    for i, state in enumerate(tables().states):
        for symbol, code in state.items():
            if code >= 0:
                before.setdefault(code, set()).add((i, symbol))
    for i, state in enumerate(tables().states):
        for code in {c for c in state.values() if c < 0}:
            rule = tables().rules[~code]
            paths: set[tuple[int, tuple[str, ...]]] = {(i, ())}
            for _ in range(rule.length):
                paths = {(j, (symbol, *body)) for at, body in paths for j, symbol in before[at]}
            bodies |= {(rule.origin, body) for j, body in paths if rule.origin in tables().states[j]}
    return sorted(bodies)


@cache
def stacks() -> dict[int, tuple[list[int], list[str]]]:
    """State → a stack that ends in it, and the terminals that lead there. All states are reachable."""
    found: dict[int, tuple[list[int], list[str]]] = {0: ([0], [])}
    queue = deque([0])
    while queue:
        state = queue.popleft()
        stack, read = found[state]
        for symbol, code in sorted(tables().states[state].items()):
            if code >= 0 and code not in found:
                found[code] = ([*stack, code], [*read, *shortest_texts()[symbol]])
                queue.append(code)
    assert len(found) == len(tables().states)
    return found


def situation(stack: list[int], read: list[str], terminal: str) -> Situation:
    start = max((i + 1 for i, t in enumerate(read) if t in (LINE_END, "_SUBJECT_TO")), default=0)
    line = [sample(t, 10 * i) for i, t in enumerate([*read[start:], terminal])]
    ends = [] if terminal in (LINE_END, END) else [sample(LINE_END, 10 * len(line))]
    first = ["_SUBJECT_TO", LINE_END] if "_SUBJECT_TO" in read else []
    before = [0]
    for t in first:
        before.append(tables().states[before[-1]][t])
    return Situation(
        line=(*line, *ends),
        at=len(line) - 1,
        expected=tables().expected(stack),
        expected_first=tables().expected(before),
        follows=lambda *kinds: tables().accepts(stack, *kinds),
        starts=lambda *kinds: tables().accepts(before, *kinds),
    )


def test_every_terminal_has_words() -> None:
    terminals = {s for state in tables().states for s in state if s == END or s.isupper()}
    assert terminals <= set(WORDING)
    assert terminals <= set(SAMPLES)
    assert not [words for words in WORDING.values() if NOT_WORDS.search(words.replace("`Σ_{`", ""))]


@pytest.mark.parametrize("mistakes", [True, False], ids=["mistakes", "unexpected"])
def test_every_state_has_a_message_in_words_for_every_token(mistakes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not mistakes:  # what is said when nobody knows the mistake
        monkeypatch.setattr("prunelang.dsl.mistakes.MISTAKES", ())
    seen = 0
    for state, (stack, read) in stacks().items():
        if state == tables().end:  # the automaton stops there
            continue
        here = tables().expected(stack)
        for terminal in WORDING:
            if terminal in here:
                continue
            found = explain(situation(stack, read, terminal)).diagnostic
            said = " ".join([found.message, found.hint or "", *found.expected, found.found or ""])
            assert not NOT_WORDS.search(said.replace("Σ_{", "").replace("FLOPs", "")), (read, terminal, said)
            assert re.fullmatch(r"P1\d\d", found.code)
            assert found.severity == "error"
            seen += 1
    assert seen > 5000


def test_expectations_are_exact() -> None:
    """What is said to be expected is accepted, and what is accepted is said."""
    for stack, _ in stacks().values():
        for terminal in WORDING:
            assert (terminal in tables().expected(stack)) == tables().accepts(stack, terminal)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.__name__)
def test_every_mistake_is_recognised_in_its_golden_file(
    mistake: Callable[[Situation], Problem | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    recognised = []

    def watched(situation: Situation) -> Problem | None:
        problem = mistake(situation)
        if problem is not None:
            recognised.append(problem.diagnostic)
        return problem

    patched = tuple(watched if m is mistake else m for m in MISTAKES)
    monkeypatch.setattr("prunelang.dsl.mistakes.MISTAKES", patched)
    text = (GOLDEN / "bad" / "syntax" / f"{mistake.__name__}.prune").read_text(encoding="utf-8")
    _, diagnostics = parse_tolerant(text)
    assert recognised
    assert all(d in diagnostics for d in recognised)


@pytest.mark.parametrize("file", BAD, ids=lambda f: f.stem)
def test_transcripts(file: Path, golden: Callable[[Path, str], None]) -> None:
    with pytest.raises(SpecError) as caught:
        parse(decode(file.read_bytes(), file.name).text, file.name)
    error = caught.value
    lines = [str(error), ""]
    lines += [f"fix-it {d.span.start}: {d.fixit.text!r}" for d in error.diagnostics if d.fixit]
    golden(file.with_suffix(".txt"), "\n".join(lines).rstrip() + "\n")


@pytest.mark.parametrize("file", [f for f in BAD if "limit" not in f.stem], ids=lambda f: f.stem)
def test_what_is_not_wrong_is_still_parsed(file: Path) -> None:
    """A tolerant parse keeps the good lines of a text with bad ones."""
    spec, diagnostics = parse_tolerant(decode(file.read_bytes()).text)
    assert diagnostics
    assert spec.statements


def fixed(text: str, diagnostics: tuple[Diagnostic, ...]) -> str:
    fixits = sorted((d.fixit for d in diagnostics if d.fixit), key=lambda f: f.span, reverse=True)
    for fixit in fixits:
        text = text[: fixit.span.start] + fixit.text + text[fixit.span.end :]
    return text


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("minimise L\n", "minimize L\n"),
        ("modle net = f()\n", "model net = f()\n"),
        ("subjectto\n  x ≤ 3\n", "subject to\n  x ≤ 3\n"),
        ("subject to:\n  x ≤ 3\n", "subject to\n  x ≤ 3\n"),
        ("subject to\n  ||w||_0 <= 5 %\n", "subject to\n  ‖w‖₀ <= 5%\n"),
        ("subject to\n  ∥w∥₂ ≤ 5\n", "subject to\n  ‖w‖₂ ≤ 5\n"),
        ("subject to\n  ‖w‖_1^2 ≤ 5\n", "subject to\n  ‖w‖₁² ≤ 5\n"),
        ("subject to\n  x = 3\n  y < 3\n  z > 3\n  a == 3\n", "subject to\n  x ≤ 3\n  y ≤ 3\n  z ≥ 3\n  a ≤ 3\n"),
        ("subject to\n  x =< 3\n  y => 3\n  z ⩽ 3\n", "subject to\n  x ≤ 3\n  y ≥ 3\n  z ≤ 3\n"),
        ("let x = a ⋅ b ∙ c ÷ d ** 2 − 1\n", "let x = a · b · c / d ^ 2 - 1\n"),
        ("let x = ∑_{l ∈ S} l.x²\n", "let x = Σ_{l ∈ S} l.x^2\n"),
        ("let x = “a” + 'b'\n", 'let x = "a" + "b"\n'),
        ("let x = 2 κ\n", "let x = 2 * κ\n"),
        ("let x = f(a = 1 b = 2)\n", "let x = f(a = 1, b = 2)\n"),
        ("let x = 30 MMAC\n", "let x = 30 MMACs\n"),
        ("let x = 30mmacs\n", "let x = 30 MMACs\n"),
        ("let x = 5 percent\n", "let x = 5%\n"),
        ("let x = .5\n", "let x = 0.5\n"),
        ("solve lc wiht sgd for 3 epochs\n", "solve lc() with sgd() for 3 epochs\n"),
        ("let x = 3; let y = 4\n", "let x = 3\n let y = 4\n"),
        ("let x = 3 let y = 4\n", "let x = 3 \nlet y = 4\n"),
        ("let for = 3\n", "let my_for = 3\n"),
        ("let x = 3 // why\n", "let x = 3 # why\n"),
        ("subject to\n  ∀ l ∈ S x ≤ 3\n", "subject to\n  ∀ l ∈ S: x ≤ 3\n"),
        ("model net = f() form 'w'\n", 'model net = f() from "w"\n'),
        ("let x\u200b = 3\n", "let x = 3\n"),
        ("let x = (a，b)\n", None),
        ("let x = [a，b]\n", "let x = [a,b]\n"),
    ],
)
def test_fixits_mend_the_text(wrong: str, right: str | None) -> None:
    _, diagnostics = parse_tolerant(wrong)
    assert diagnostics
    if right is None:
        return
    assert fixed(wrong, diagnostics) == right
    parse(right)


def test_errors_of_all_lines_are_reported_at_once() -> None:
    text = "modle net = f()\nlet x 3\nsubject to\n  a: x <\n  b: ≤ 3\n  c: x ≤ 3\nsolve lc\nreport ,\n"
    spec, diagnostics = parse_tolerant(text)
    assert {Source(text).position(d.span.start).line for d in diagnostics} == {1, 2, 4, 5, 7, 8}
    kinds = [type(s).__name__ for s in spec.statements]
    assert kinds == ["Model", "SubjectTo", "Solve"]


def test_every_code_is_listed_and_used() -> None:
    sources = [f for f in Path(codes.__file__).parent.glob("*.py") if f.name != "codes.py"]
    used = {code for f in sources for code in re.findall(r'"(P1\d\d)"', f.read_text(encoding="utf-8"))}
    assert used == set(codes.CODES)


def test_words_for_what_is_expected() -> None:
    assert expected_words({"_RPAR", "_COMMA"}) == ["`,`", "`)`"]
    assert expected_words({"NUMBER", "NAME", "STRING", "_LPAR"}) == ["a value"]


def test_a_transcript_shows_no_unprintable_character_and_no_endless_line() -> None:
    text = "let x = \x1b[31m" + "y" * 50_000 + "\n"
    _, diagnostics = parse_tolerant(text)
    shown = render(diagnostics, Source(text))
    assert "\x1b" not in shown
    assert max(map(len, shown.split("\n"))) < 400
