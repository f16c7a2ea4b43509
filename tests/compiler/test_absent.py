"""Copied code without the branches for classes that a script has no instances of: what goes, and what has to stay."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest

from prunelang.compiler.codegen.absent import Branches, left_of_union


def gone(kind: ast.expr) -> bool:
    return isinstance(kind, ast.Name) and kind.id in ("X", "Y")


def without(text: str) -> str:
    (definition,) = ast.parse(text).body
    branches = Branches.of(definition, gone)
    lines = dict(enumerate(text.splitlines(), 1))
    for line, column in branches.firsts:
        lines[line] = lines[line][:column] + "if" + lines[line][column + len("elif") :]
    left = "\n".join(lines[i] for i in lines if i not in branches.lines)
    ast.parse(left)
    return left


def body(text: str) -> str:
    return "def f(a):\n" + "\n".join(f"    {line}" for line in dedent(text).strip().splitlines())


CASES = {
    "if": ("if isinstance(a, X):\n    one()\nrest()", "rest()"),
    "first of a chain": (
        "if isinstance(a, X):\n    one()\nelif isinstance(a, A):\n    two()\nelse:\n    three()",
        "if isinstance(a, A):\n    two()\nelse:\n    three()",
    ),
    "middle of a chain": (
        "if isinstance(a, A):\n    one()\nelif isinstance(a, X):\n    two()\nelse:\n    three()",
        "if isinstance(a, A):\n    one()\nelse:\n    three()",
    ),
    "end of a chain": (
        "if isinstance(a, A):\n    one()\nelif isinstance(a, X):\n    two()",
        "if isinstance(a, A):\n    one()",
    ),
    "two of a chain": (
        "if isinstance(a, X):\n    one()\nelif isinstance(a, Y):\n    two()\nelif isinstance(a, A):\n    three()",
        "if isinstance(a, A):\n    three()",
    ),
    "all of a chain": ("if isinstance(a, X):\n    one()\nelif isinstance(a, Y):\n    two()\nrest()", "rest()"),
    "all but else": (
        "if isinstance(a, X):\n    one()\nelif isinstance(a, Y):\n    two()\nelse:\n    three()",
        "if isinstance(a, Y):\n    two()\nelse:\n    three()",
    ),
    "else stays, and so does what it is the other side of": (
        "if isinstance(a, X):\n    one()\nelse:\n    two()",
        "if isinstance(a, X):\n    one()\nelse:\n    two()",
    ),
    "several classes": ("if isinstance(a, X | Y):\n    one()\nrest()", "rest()"),
    "a tuple of classes": ("if isinstance(a, (X, Y)):\n    one()\nrest()", "rest()"),
    "one class of several stays": (
        "if isinstance(a, X | A):\n    one()\nrest()",
        "if isinstance(a, X | A):\n    one()\nrest()",
    ),
    "and": ("if a.ready and isinstance(a, X):\n    one()\nrest()", "rest()"),
    "not": ("if not isinstance(a, X):\n    one()\nrest()", "if not isinstance(a, X):\n    one()\nrest()"),
    "or": ("if a or isinstance(a, X):\n    one()\nrest()", "if a or isinstance(a, X):\n    one()\nrest()"),
    "match": (
        "match a:\n    case X():\n        one()\n    case A():\n        two()\nrest()",
        "match a:\n    case A():\n        two()\nrest()",
    ),
    "match of two": (
        "match a:\n    case X(n=n) | Y(n=n):\n        one()\n    case X() | A():\n        two()\n"
        "    case _:\n        three()",
        "match a:\n    case X() | A():\n        two()\n    case _:\n        three()",
    ),
    "match as": (
        "match a:\n    case X() as x:\n        one(x)\n    case None:\n        two()",
        "match a:\n    case None:\n        two()",
    ),
    "whole match": ("match a:\n    case X():\n        one()\nrest()", "rest()"),
    "inside loops": (
        "for b in a:\n    if isinstance(b, X):\n        one()\n    two()",
        "for b in a:\n    two()",
    ),
    "no body is left empty": (
        "for b in a:\n    if isinstance(b, X):\n        one()",
        "for b in a:\n    if isinstance(b, X):\n        one()",
    ),
    "inside try": (
        "try:\n    if isinstance(a, X):\n        one()\n    two()\nexcept ValueError:\n    three()",
        "try:\n    two()\nexcept ValueError:\n    three()",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_left(name: str) -> None:
    before, after = CASES[name]
    assert without(body(before)) == body(after)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Kind: TypeAlias = A | X | B | Y", ["A", "B"]),
        ("Kind: TypeAlias = X | Y", []),
        ("Kind: TypeAlias = A | B", []),
        ("Kind: TypeAlias = X", []),
        ("kinds = A | X", []),
        ("Kind: TypeAlias = A | list[int] | X", []),
    ],
)
def test_members_of_a_union(text: str, left: list[str]) -> None:
    (definition,) = ast.parse(text).body
    assert [ast.unparse(m) for m in left_of_union(definition, gone)] == left
