"""Hostile and mutated specs, for every layer that reads one: each must end in an answer or in `SpecError`, and soon.

``generate(seed, n)`` and ``resemble(seed, n)`` are deterministic. The size of a run is ``PRUNELANG_FUZZ`` (10 000 for a
full one).
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator

from prunelang.dsl.names import KEYWORDS
from tests.golden_support import GOLDEN

COUNT = int(os.environ.get("PRUNELANG_FUZZ", "600"))

_CORPUS = tuple(f.read_bytes().decode("utf-8") for f in sorted((GOLDEN / "good").glob("*.prune")))
_EXAMPLES = (*_CORPUS, *(f.read_text("utf-8") for f in sorted(GOLDEN.parent.parent.glob("specs/*.prune"))))
_LEXEME = re.compile(r'\s+|#[^\n]*|"[^"\n]*"|[^\W\d]\w*|\d[\w.]*|[≤≥<>=]+|.')
_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")
_WORDS = (
    "language model data freeze let param minimize maximize subject to s.t. pretrain finetune solve prune report with "
    "for until from in except forall true false frozen minimizing auto base train validation test pi epoch step k p lr "
    "net weights layers lc sgd sum norm0 norm2 ∀ ∈ Σ_{ ‖ ‖₀ ‖₂² ‖∞ ≤ ≥ <= >= + - * · × / ^ | = : , . ( ) [ ] { } # "
    '\n \t " 0 1 5% 30 MMACs 1e-4 20 epochs 9e999 12345678901234567890 || ||_0 ∑ ⋅ ÷ ** == != < > ; // “ ” ² ₂ ½ κ µ \\'
)
_VOCABULARY = _WORDS.split(" ")
_ODD = '\x00\x07\r\x0b\x85\u200b\u2028\ufeff\u202e\ud800\udfff\U0001f600\u0301ａ½ﬃΣ‖²₀\xa0\t\n"#(){}[]'


def generate(seed: int, n: int) -> Iterator[str]:
    """`n` texts: mutations of the corpus, byte by byte and token by token, and texts made to hurt."""
    rng = random.Random(seed)
    for _ in range(n):
        yield rng.choice(_MAKERS)(rng)


def resemble(seed: int, n: int) -> Iterator[str]:
    """`n` examples in which a few words, numbers, strings or signs are others of their kind: a third of them parse."""
    rng = random.Random(seed)
    spare: dict[str, list[str]] = {}
    for token in (token for text in _EXAMPLES for token in _LEXEME.findall(text)):
        spare.setdefault(_kind(token), []).append(token)
    for _ in range(n):
        tokens = _LEXEME.findall(rng.choice(_EXAMPLES))
        places = [i for i, token in enumerate(tokens) if _kind(token) not in ("space", "keyword")]
        for at in rng.sample(places, rng.randint(1, 3)):
            tokens[at] = rng.choice(spare[_kind(tokens[at])])
        yield "".join(tokens)


def _kind(token: str) -> str:
    first = token[0]
    if first.isspace() or first == "#":
        return "space"
    if first.isalpha():
        return "keyword" if token in KEYWORDS else "word"
    return "number" if first.isdigit() else "string" if first == '"' else "sign"


def _bytes(rng: random.Random) -> str:
    data = bytearray(rng.choice(_CORPUS).encode())
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randint(1, 30)]
            case 2:
                data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 4)))
            case _:
                data[at] ^= 1 << rng.randrange(8)
        data = data or bytearray(b"x")
    return data.decode("utf-8", errors=rng.choice(["replace", "ignore", "surrogateescape"]))


def _tokens(rng: random.Random) -> str:
    tokens = _TOKEN.findall(rng.choice(_CORPUS))
    for _ in range(rng.randint(1, 6)):
        at, other = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        match rng.randrange(5):
            case 0:
                tokens[at] = rng.choice(_VOCABULARY)
            case 1:
                tokens.insert(at, rng.choice(_VOCABULARY))
            case 2:
                del tokens[at]
            case 3:
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case _:
                tokens[at:at] = tokens[other : other + rng.randint(1, 20)]
        tokens = tokens or ["x"]
    return "".join(tokens)


def _splice(rng: random.Random) -> str:
    one, other = rng.choice(_CORPUS), rng.choice(_CORPUS)
    return one[: rng.randrange(len(one))] + other[rng.randrange(len(other)) :]


def _soup(rng: random.Random) -> str:
    return rng.choice(["", " ", "\n"]).join(rng.choice(_VOCABULARY) for _ in range(rng.randint(1, 120)))


def _unicode(rng: random.Random) -> str:
    def character() -> str:
        return rng.choice(_ODD) if rng.random() < 0.5 else chr(rng.randrange(0x110000))

    noise = "".join(character() for _ in range(rng.randint(1, 200)))
    return rng.choice(["", "let x = ", "model net = f()\n# "]) + noise


def _nested(rng: random.Random) -> str:
    opening, closing = rng.choice(
        [
            ("(", ")"),
            ("[", "]"),
            ("{", "}"),
            ("f(", ")"),
            ("‖", "‖₂"),
            ("Σ_{l ∈ S} (", ")"),
            ("-", ""),
            ("2^", ""),
            ("x[", "]"),
        ]
    )
    depth = rng.choice([5, 50, 99, 100, 101, 127, 128, 129, 3000])
    return f"let x = {opening * depth}1{closing * rng.choice([depth, depth - 1, 0])}"


def _long(rng: random.Random) -> str:
    piece = rng.choice(
        ["x + ", "x | ", "x, ", "2 κ ", "a ≤ ", "a‖", "f(x) ", "30 MMAC ", "- ", "x.y", "= ", "solve auto "]
    )
    count = rng.choice([10, 50, 120, 130, 190, 210, 500, 500, 500, 25_000])
    line = rng.choice(["let x = ", "let x = f(", "subject to ", "report ", ""]) + piece * count
    return line + rng.choice(["", "1", ")", "\nlet y = 3\n"])


def _lines(rng: random.Random) -> str:
    line = rng.choice(
        ["let x = 3", "x", "minimise L", "subject to x ≤ 3", "a: x = 3", "let for = 3", "⋅", "# c", "(", "½"]
    )
    return (line + "\n") * rng.choice([3, 3, 10, 60, 60, 200, 200, 26_000])


def _numbers(rng: random.Random) -> str:
    digits = "".join(rng.choice("0123456789_.eE+-%kMB ") for _ in range(rng.choice([3, 10, 30, 5000])))
    return f"let x = {rng.choice('123')}{digits}\nparam y = 1e{'9' * rng.choice([1, 3, 30, 5000])}\n"


_MAKERS: tuple[Callable[[random.Random], str], ...] = (
    *(_bytes, _bytes, _bytes, _tokens, _tokens, _tokens, _tokens, _splice, _soup, _soup),
    *(_unicode, _nested, _long, _lines, _numbers),
)
