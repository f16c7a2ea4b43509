"""LaTeX and Mermaid: golden texts, and that they follow the grammars of those who read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import prunelang
from prunelang import Program
from prunelang.dsl.diagnostics import SpecError
from prunelang.explain import unknown_size
from prunelang.notation.latex import escaped, latex, math
from prunelang.notation.mathml import element
from prunelang.notation.mermaid import mermaid, quoted
from prunelang.notation.statement import stated
from tests.golden_support import GOLDEN

ROOT = Path(__file__).resolve().parent.parent.parent
SPECS = sorted((ROOT / "specs").glob("*.prune"))
HOSTILE = 'a\\input{/etc/passwd}%_^~$&#{}\n"<b>`|]\u202e‖₀'


def compiled(path: Path) -> Program:
    try:
        return prunelang.compile(path)
    except SpecError as error:
        pytest.skip(f"not a valid spec here: {error.diagnostics[0].code}")


@pytest.mark.parametrize("name", ["quickstart", "reversed_digits", "nuclear_digits", "gda_resources"])
def test_golden(name: str, golden: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    program = prunelang.compile(Path("specs") / f"{name}.prune")
    golden(GOLDEN / "notation" / f"{name}.tex", latex(program.plan))
    golden(GOLDEN / "notation" / f"{name}.mmd", mermaid(program.graph))


# ── LaTeX ────────────────────────────────────────────────────────────────────────────────────────────────────────


def require_balanced(text: str) -> None:
    r"""Braces, \left and \right, environments and math shifts close in the order in which they opened."""
    stack: list[str] = []
    pairs = {"}": "{", r"\right": r"\left", "end": "begin"}
    body = re.sub(r"(?m)^%.*$", "", text)
    for token in re.finditer(r"\\begin\{(\w+\*?)\}|\\end\{(\w+\*?)\}|\\left\b|\\right\b|\\.|[{}$]", body):
        word = token[0]
        if word.startswith((r"\begin", r"\end")):
            name = token[1] or token[2]
            if token[1]:
                stack.append(f"begin {name}")
            else:
                assert stack.pop() == f"begin {name}"
        elif word in (r"\left", "{"):
            stack.append(word)
        elif word in pairs:
            assert stack.pop() == pairs[word]
        elif word == "$":
            if stack and stack[-1] == "$":
                stack.pop()
            else:
                stack.append("$")
    assert stack == []


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_latex_of_every_spec_is_balanced(path: Path) -> None:
    text = latex(compiled(path).plan)
    require_balanced(text)
    assert text.isprintable() or {c for c in text if not c.isprintable()} == {"\n"}
    bare = re.sub(r"(?m)^%.*$", "", text)
    assert re.findall(r"(?<!\\)[#%]", bare) == []


def test_text_cannot_become_a_command() -> None:
    made = escaped(HOSTILE)
    assert r"\input" not in made
    require_balanced(made)
    commands = set(re.findall(r"\\[A-Za-z]+", made))
    known = {
        r"\textbackslash",
        r"\textasciicircum",
        r"\textasciitilde",
        r"\textasciigrave",
        r"\textless",
        r"\textgreater",
    }
    assert commands <= known | {r"\|"}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("‖net.weights‖₀ ≤ 5%", r"{\left\| W \right\|}_{0} \le 5\,\text{\%}"),
        ('‖net["fc1"].weights‖₂ ≤ 1e-1 * 2', r"{\left\| {W}_{\mathrm{fc1}} \right\|}_{2} \le 0.1 \cdot 2"),
        ("‖net.weights‖∞ ≤ (1 + 2)^2", r"{\left\| W \right\|}_{\infty} \le {\left( 1 + 2 \right)}^{2}"),
        ("sparse_macs(net) ≤ 1 / 2 * 100 kMACs", r"\operatorname{\text{sparse\_macs}} \left( \mathrm{net} \right)"),
    ],
)
def test_conditions(condition: str, expected: str) -> None:
    text = f"model net = mlp([64, 16, 10])\ndata digits()\nminimize cross_entropy(net)\ns.t. {condition}\nsolve auto\n"
    assert math(stated(prunelang.compile(text).plan).conditions[0].formula).startswith(expected)


def test_mathml_escapes_and_groups() -> None:
    from prunelang.notation import formula as f

    assert element(f.Word("a<b>&")) == "<mi>a&lt;b&gt;&amp;</mi>"
    assert element(f.Sub(f.Symbol("W"), f.Word("fc1"))) == (
        "<msub><mrow><mi>W</mi></mrow><mrow><mi>fc1</mi></mrow></msub>"
    )
    assert element(f.Fraction(f.Number("1"), f.Number("2"))).startswith("<mfrac><mrow><mn>1</mn></mrow>")


def test_a_quantifier_shows_its_numbers_once_or_one_by_one() -> None:
    base = "model net = mlp([64, 32, 16, 10])\ndata digits()\nminimize cross_entropy(net)\nsubject to\n"
    each = prunelang.compile(base + "    l: ∀ l ∈ net.layers: ‖l.weights‖₀ ≤ 50%\nsolve auto\n")
    found = stated(each.plan).conditions[0]
    assert [label for label, _ in found.numbers] == ["l[fc1]", "l[fc2]", "l[fc3]"]
    same = prunelang.compile(base + "    l: ∀ l ∈ net.layers: nuclear(l.weights) ≤ 2\nsolve auto\n")
    assert stated(same.plan).conditions[0].numbers == (("", "each ≤ 2"),)


# ── Mermaid ──────────────────────────────────────────────────────────────────────────────────────────────────────

LABEL = r'"[^"`\n]*"'
LINES = (
    r"flowchart TB",
    r"%% [^{}]*",
    rf"subgraph (?P<box>\w+)\[{LABEL}\]",
    r"direction (TB|LR)",
    r"end",
    rf"(?P<node>\w+)(\[{LABEL}\]|\(\[{LABEL}\]\)|\[\({LABEL}\)\])",
    rf"(?P<from>\w+) (-->|-\. {LABEL} \.->) (?P<to>\w+)",
)


def require_flowchart(text: str) -> None:
    """Every line is one of the forms; boxes close; arrows join what is there; no id stands for two things."""
    nodes: set[str] = set()
    ends: set[str] = set()
    depth = 0
    for line in text.splitlines():
        match = next((m for m in (re.fullmatch(form, line.strip()) for form in LINES) if m), None)
        assert match is not None, line
        found = match.groupdict()
        depth += line.strip().startswith("subgraph") - (line.strip() == "end")
        for name in (found.get("node"), found.get("box")):
            if name:
                assert name not in nodes
                nodes.add(name)
        ends |= {found[k] for k in ("from", "to") if found.get(k)}
    assert depth == 0
    assert ends <= nodes
    assert "end" not in nodes


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_the_flowchart_of_every_spec(path: Path) -> None:
    program = compiled(path)
    if any(d.severity == "error" for d in program.obstacles) or unknown_size(program) is not None:
        pytest.skip("not lowered here")
    require_flowchart(mermaid(program.graph))


def test_labels_cannot_end_early() -> None:
    assert re.fullmatch(r'[^"`<>\n]*', quoted(HOSTILE))


# ── the command line ─────────────────────────────────────────────────────────────────────────────────────────────


def test_formats_are_of_one_part(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from prunelang.seeing import explain

    spec = tmp_path / "a.prune"
    head = "model net = mlp([64, 16, 10])\ndata digits()\nminimize cross_entropy(net)\n"
    spec.write_text(head + "s.t. ‖net.weights‖₀ ≤ 5%\nsolve lc()\n", encoding="utf-8")
    run = CliRunner().invoke(explain, [str(spec), "--format", "latex"])
    assert r"\begin{align*}" in run.output
    run = CliRunner().invoke(explain, [str(spec), "--format", "mermaid", "--stage", "graph"])
    assert run.output.startswith("flowchart TB")
    for words in (["--stage", "graph", "--format", "latex"], ["--format", "mermaid", "--probe"]):
        assert CliRunner().invoke(explain, [str(spec), *words]).exit_code == 2
    assert CliRunner().invoke(explain, ["P310", "--format", "latex"]).exit_code == 2
