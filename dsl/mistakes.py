"""Mistakes that people make, recognised by what was expected and what was found, with the way out.

Each function looks at one `Situation` and gives a `Problem` or None; the first that knows the mistake speaks. Where it
is plain what was meant, the problem holds the tokens that mend the line, and the parser goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable

from prunelang.dsl.diagnostics import Diagnostic, FixIt, suggest
from prunelang.dsl.names import STATEMENT_WORDS
from prunelang.dsl.scanner import MAX_SUGGESTED, join_unit, unit_near, word_kinds
from prunelang.dsl.spans import Span
from prunelang.dsl.syntax_errors import (
    CONSTRAINT_FORM,
    OPERATORS,
    STATEMENTS,
    VALUES,
    Problem,
    Situation,
    found_words,
    unexpected,
)
from prunelang.dsl.tokens import LINE_END, OPERAND_ENDS, Token, error, token

_CLAUSES = {"_WITH": "with", "_FOR": "for", "_UNTIL": "until", "_FROM": "from", "_IN": "in", "EXCEPT": "except"}
_CLAUSES |= {"FROZEN": "frozen", "_MINIMIZING": "minimizing", "_SUBJECT_TO": "subject to", "DURATION_UNIT": "epochs"}
_STATEMENTS = [*(w for w in STATEMENT_WORDS if w != "subject"), "subject to"]
_MEANT = {
    meant: word
    for word, others in {
        "model": "network",
        "data": "dataset",
        "let": "const var def",
        "param": "parameter",
        "minimize": "minimise min objective optimize",
        "maximize": "maximise max",
        "subject to": "subject subjectto subject_to st such constraints",
        "pretrain": "train",
        "finetune": "fine_tune tune",
        "solve": "compress",
        "prune": "sparsify",
        "report": "print",
        "with": "using",
        "for": "during",
    }.items()
    for meant in others.split()
}
"""What other languages, and hurried people, write → the word of this one."""


def label_without_colon(s: Situation) -> Problem | None:
    """``sparsity = ‖w‖₀ ≤ 5 %`` and ``sparsity ‖w‖₀ ≤ 5 %``."""
    label = s.line[0]
    if s.at != 1 or not s.among_constraints or label.kind != "NAME":
        return None
    has_relation = any(t.kind in ("REL", "_IN") for t in s.line[2:])
    mended = Token("LABEL", label.text, label.start, label.end, ("LABEL",), label.value)
    if s.token.kind == "_EQUALS" and has_relation:
        message = "a label ends with `:`, not `=`"
        found = error("P111", message, s.token.start, s.token.end, fix=":")
        return Problem(found, [mended, token("_COLON", ":", s.token.start)], 0, 2)
    if not has_relation or not any(s.starts("LABEL", "_COLON", k) for k in s.token.kinds):
        return None
    found = _insertion("P111", f"`:` is missing after the label `{label.text}`", label.span, label.end, ":")
    return Problem(found, [mended, token("_COLON", ":", label.end)], 0, 1)


def relation(s: Situation) -> Problem | None:
    """``‖w‖₀ = κ`` in a constraint."""
    if s.token.kind != "_EQUALS" or "REL" not in s.expected:
        return None
    message = "the sides of a constraint are joined by `≤` or `≥`, not `=`"
    hint = "for a fixed value write two constraints, one with `≤` and one with `≥`"
    found = error("P105", message, s.token.start, s.token.end, hint=hint, fix="≤")
    return Problem(found, [Token("REL", "≤", s.token.start, s.token.end, ("REL",))], s.at, 1)


def misspelt_statement(s: Situation) -> Problem | None:
    """``minimise L``, ``subjectto``."""
    first = s.line[0]
    if first.kind not in ("NAME", "_SUBJECT") or not STATEMENTS & s.expected_first:
        return None
    word = _near(first.text, _STATEMENTS)
    kind = "_SUBJECT_TO" if word == "subject to" else word_kinds().get(word or "")
    if word is None or kind is None:
        return None
    follows = s.line[1]
    if s.at and not any(s.starts(kind, k) for k in follows.kinds):
        return None
    message = f"`{first.text}` starts no statement"
    hint = f"did you mean `{word}`?"
    found = error("P101", message, first.start, first.end, hint=hint, fix=word)
    return Problem(found, [Token(kind, word, first.start, first.end, (kind,), word)], 0, 1)


def misspelt_clause(s: Situation) -> Problem | None:
    """``solve lc() wiht sgd()``, ``model net = f() forzen``."""
    words = {word: kind for kind, word in _CLAUSES.items() if kind in s.expected}
    if s.token.kind not in ("NAME", "_SUBJECT") or not words:
        return None
    word = _near(s.token.text, list(words))
    if word is None:
        return None
    kind = words[word]
    message = f"`{s.token.text}` means nothing here"
    found = error("P101", message, s.token.start, s.token.end, hint=f"did you mean `{word}`?", fix=word)
    return Problem(found, [Token(kind, word, s.token.start, s.token.end, (kind,))], s.at, 1)


def missing_colon(s: Situation) -> Problem | None:
    """``∀ l ∈ net.layers ‖l.weights‖₀ ≤ 5``."""
    before = s.before
    if before is None or "_COLON" not in s.expected:
        return None
    if not any(s.follows("_COLON", k) for k in s.token.kinds):
        return None
    found = _insertion("P111", "`:` is missing after the set of `∀`", s.token.span, before.end, ":")
    return Problem(found, [token("_COLON", ":", before.end)], s.at, 0)


def missing_comma(s: Situation) -> Problem | None:
    """``sgd(lr = 0.1 momentum = 0.9)``, ``[1 2]``."""
    kind = s.token.kinds[0]
    before = s.before
    if before is None or "_COMMA" not in s.expected or not s.follows("_COMMA", kind):
        return None
    alike = kind in ("NUMBER", "STRING") and before.kind == kind
    if not (alike or kind == "OPTION" or (s.line[0].kind == "_REPORT" and before.kind in OPERAND_ENDS)):
        return None
    at = before.end
    message = f"a comma is missing between `{before.text}` and {found_words(s.token)}"
    found = _insertion("P111", message, s.token.span, at, ",")
    return Problem(found, [token("_COMMA", ",", at)], s.at, 0)


def option_read_as_unit(s: Situation) -> Problem | None:
    """``lc(μ = 1 steps = 40)``: without a comma, ``1 steps`` is a duration."""
    before = s.before
    if s.token.kind != "_EQUALS" or before is None or before.kind != "NUMBER" or "_COMMA" not in s.expected:
        return None
    value, unit = before.value
    if unit is None or not unit.isalpha():
        return None
    digits = before.text.removesuffix(unit).rstrip()
    at, name = before.start + len(digits), before.end - len(unit)
    found = _insertion("P111", f"a comma is missing between `{digits}` and `{unit}`", Span(name, before.end), at, ",")
    number = Token("NUMBER", digits, before.start, at, ("NUMBER",), (value, None))
    option = Token("NAME", unit, name, before.end, ("OPTION", "NAME", "WORD"), unit)
    return Problem(found, [number, token("_COMMA", ",", at), option], s.at - 1, 1)


def unknown_unit(s: Situation) -> Problem | None:
    """``30 MMAC``."""
    before = s.before
    if s.token.kind != "NAME" or before is None or before.kind != "NUMBER" or before.value[1] is not None:
        return None
    unit = unit_near(s.token.text)
    if unit is None:
        return None
    message = f"`{s.token.text}` is not a unit"
    text = join_unit(before.text, unit)
    fixit = FixIt(Span(before.start, s.token.end), text)
    found = Diagnostic("P107", "error", message, s.token.span, hint=f"did you mean `{text}`?", fixit=fixit)
    number = Token("NUMBER", text, before.start, s.token.end, ("NUMBER",), (before.value[0], unit))
    return Problem(found, [number], s.at - 1, 2)


def missing_operator(s: Situation) -> Problem | None:
    """``2 κ``: multiplication is always written."""
    kind = next((k for k in s.token.kinds if s.follows("TIMES", k)), None)
    before = s.before
    if before is None or before.kind not in OPERAND_ENDS or kind not in VALUES - {"MINUS", "_LSQB"}:
        return None
    message = f"an operator is missing between `{before.text}` and {found_words(s.token)}"
    found = _insertion("P111", message, s.token.span, s.token.start, "* ")
    return Problem(found, [token("TIMES", "*", s.token.start)], s.at, 0)


def no_parentheses(s: Situation) -> Problem | None:
    """``with sgd for 20 epochs``."""
    before = s.before
    if before is None or before.kind != "NAME" or not s.expected <= {"_LPAR", "_EQUALS"} or "_LPAR" not in s.expected:
        return None
    message = f"`{before.text}` needs parentheses, with its options if any"
    found = _insertion("P110", message, before.span, before.end, "()")
    kinds = [k for k in s.token.kinds if s.follows("_LPAR", "_RPAR", k)]
    repair = [token("_LPAR", "(", before.end), token("_RPAR", ")", before.end)]
    return Problem(found, repair if kinds else None, s.at, 0)


def second_statement(s: Situation) -> Problem | None:
    """Two statements in one line."""
    if s.at == 0 or s.token.kind not in STATEMENTS or LINE_END not in s.expected:
        return None
    message = f"`{s.token.text}` starts a statement: put it on a line of its own"
    found = _insertion("P100", message, s.token.span, s.token.start, "\n")
    at = s.token.start
    return Problem(found, [Token(LINE_END, "", at, at, (LINE_END,))], s.at, 0)


def reserved_word(s: Situation) -> Problem | None:
    """``let data = 3``, ``minimize model``."""
    is_word = "WORD" in s.token.kinds and s.token.kind != "NAME"
    if not is_word or "NAME" not in s.expected:
        return None
    name = s.token.text
    if not s.expected <= {"NAME", "LABEL", "OPTION"}:
        return Problem(error("P109", f"`{name}` is a word of the language, not a value", s.token.start, s.token.end))
    message = f"`{name}` is reserved and cannot be declared"
    found = error("P109", message, s.token.start, s.token.end, hint="choose another name", fix=f"my_{name}")
    mended = Token("NAME", name, s.token.start, s.token.end, ("NAME", "WORD"), f"my_{name}")
    return Problem(found, [mended], s.at, 1)


def clause_order(s: Situation) -> Problem | None:
    """``for 20 epochs with sgd()``, ``with a() with b()``."""
    statement = s.line[0].kind
    if s.token.kind not in ("_WITH", "_FOR", "_UNTIL") or LINE_END not in s.expected:
        return None
    if statement == "_PRUNE":
        message = f"`prune` takes no `{s.token.text}`: it trains nothing"
        hint = "write `finetune` on a line after it to train what is left"
        return Problem(error("P116", message, s.token.start, s.token.end, hint=hint))
    if statement not in ("PRETRAIN", "FINETUNE", "_SOLVE"):
        return None
    message = f"`{s.token.text}` comes too late, or twice"
    hint = "the order is `with optimizer(…)`, `for duration`, `until test(…)`, each at most once"
    return Problem(error("P116", message, s.token.start, s.token.end, hint=hint))


def colon_after_subject_to(s: Situation) -> Problem | None:
    """``subject to:``"""
    if s.at or s.token.kind != "_COLON" or not s.among_constraints:
        return None
    message = "no `:` after `subject to`"
    found = error("P100", message, s.token.start, s.token.end, fix="")
    return Problem(found, [], s.at, 1)


def outside_constraints(s: Situation) -> Problem | None:
    """A constraint before `subject to`, or after the block has ended."""
    if s.at or s.among_constraints or s.token.kind in STATEMENTS:
        return None
    labelled = s.token.kinds[0] == "LABEL" or s.token.kind == "_FORALL"
    if not labelled and not any(t.kind in ("REL", "_IN") for t in s.line):
        return None
    message = "a constraint stands under `subject to`"
    hint = "the block ends where another statement starts"
    return Problem(error("P117", message, s.token.start, s.token.end, hint=hint))


def unknown_statement(s: Situation) -> Problem | None:
    """A line that starts with no word of the language."""
    if s.at or not STATEMENTS & s.expected or s.among_constraints or s.token.kind in STATEMENTS:
        return None
    message = f"{found_words(s.token)} starts no statement"
    hint = "statements start with " + ", ".join(f"`{w}`" for w in _STATEMENTS)
    if s.token.kind == "BAR":
        hint = "put `|` at the end of the line before"
    return Problem(error("P101", message, s.token.start, s.token.end, hint=hint))


def param_expression(s: Situation) -> Problem | None:
    """``param κ = 2 * 5%``."""
    is_expression = s.token.kind in OPERATORS | {"NAME", "_LPAR", "_NORM_OPEN", "_SUM_OPEN"}
    if s.line[0].kind != "_PARAM" or s.at < 3 or not is_expression:
        return None
    return Problem(unexpected(s, "a `param` holds a literal; use `let` for an expression"))


def relations(s: Situation) -> Problem | None:
    """A third `≤`, or one outside constraints."""
    if s.token.kind not in ("REL", "_IN") or "PLUS" not in s.expected:
        return None
    if s.among_constraints:
        hint = "a constraint is `E ≤ E`, `E ≥ E`, `const ≤ E ≤ const` or `E ∈ set`"
    else:
        hint = f"relations stand in constraints alone: `{CONSTRAINT_FORM}`"
    return Problem(unexpected(s, hint))


def absolute_value(s: Situation) -> Problem | None:
    """``|w|``"""
    if s.token.kind != "BAR" or "_NORM_OPEN" not in s.expected:
        return None
    return Problem(unexpected(s, "a norm is written `‖w‖₁`, or `norm1(w)`; `|` joins two sets"))


MISTAKES: tuple[Callable[[Situation], Problem | None], ...] = (
    label_without_colon,
    relation,
    misspelt_statement,
    misspelt_clause,
    missing_colon,
    missing_comma,
    option_read_as_unit,
    unknown_unit,
    second_statement,
    missing_operator,
    no_parentheses,
    reserved_word,
    clause_order,
    colon_after_subject_to,
    outside_constraints,
    unknown_statement,
    param_expression,
    relations,
    absolute_value,
)


def explain(situation: Situation) -> Problem:
    """What to say. Never fails: every state of the parser and every token get a message in words."""
    for mistake in MISTAKES:
        problem = mistake(situation)
        if problem is not None:
            return problem
    return Problem(unexpected(situation))


def _near(word: str, candidates: list[str]) -> str | None:
    if _MEANT.get(word.lower()) in candidates:
        return _MEANT[word.lower()]
    if len(word) > MAX_SUGGESTED:
        return None
    swapped = [c for c in candidates if sorted(c) == sorted(word.lower())]
    near = swapped or suggest(word.lower(), candidates, 1, cutoff=0.7)
    return near[0] if near and abs(len(near[0]) - len(word)) <= 2 else None


def _insertion(code: str, message: str, span: Span, at: int, text: str) -> Diagnostic:
    hint = f"write `{text.strip()}`" if text.strip() else None
    return Diagnostic(code, "error", message, span, hint=hint, fixit=FixIt(Span(at, at), text))
