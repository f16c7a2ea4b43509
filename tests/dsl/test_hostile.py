"""No text makes the parser hang, crash or give anything but a tree or `SpecError`."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from prunelang.dsl.diagnostics import SpecError
from prunelang.dsl.formatter import format_spec
from prunelang.dsl.parser import MAX_BYTES, parse, parse_bytes, parse_tolerant
from prunelang.dsl.tree import Spec
from tests.hostile import COUNT, generate
from tests.timing import growth

pytestmark = pytest.mark.timeout(300 + COUNT // 10)  # COUNT grows to tens of thousands
LIMIT = 1.0
"""Seconds of processor time for one text."""


def outcome(text: str) -> tuple[Spec | None, SpecError | None]:
    try:
        return parse(text), None
    except SpecError as error:
        return None, error


def test_hostile_texts_end_in_a_tree_or_in_errors_within_a_second() -> None:
    accepted = 0
    for i, text in enumerate(generate(1, COUNT)):
        before = time.process_time()
        spec, error = outcome(text)
        assert time.process_time() - before < LIMIT, (i, text[:200])
        if error is None:
            accepted += 1
            assert len(text) > 20_000 or parse(format_spec(text)) == spec, i
        else:
            assert all(d.code.startswith("P1") for d in error.diagnostics), i
            assert str(error), i
    assert accepted > COUNT // 50, "the mutations no longer reach what lies behind the parser"


def test_raw_bytes_too() -> None:
    for text in generate(2, COUNT // 10):
        with suppress(SpecError):
            parse_bytes(text.encode("utf-8", errors="surrogatepass"))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("#" * (MAX_BYTES + 1), "P120"),
        ("# " + "κ" * (MAX_BYTES // 2), "P120"),
        ("let x = [" + "1," * 25_001 + "]", "P121"),
        ("let x = " + "(" * 101 + "1" + ")" * 101, "P122"),
        ("let x = " + "‖" * 101 + "x" + "‖₂" * 101, "P122"),
        ("let x = 1234567890123456789", "P123"),
        ("let x = 0.1234567890123456789", "P123"),
        ("let x = 1e400", "P124"),
        ("let x = 1e-400", "P124"),
        ("let x = 1e" + "9" * 5000, "P124"),
        ("let x = " + "1 + " * 5000 + "1", "P125"),
        ("let x = " + "-" * 5000 + "1", "P125"),
        ("let x = " + "2^" * 5000 + "1", "P125"),
        ("let x = a" + ".b" * 5000, "P125"),
        ("let x = 3 # \x00", "P127"),
        ("let x = 3\rlet y = 4", "P128"),
        ("½\n" * 1000, "P129"),
    ],
)
def test_every_limit_is_an_error_of_its_own(text: str, code: str) -> None:
    _, diagnostics = parse_tolerant(text)
    assert code in [d.code for d in diagnostics]
    assert len(diagnostics) <= 51
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert max(map(len, str(caught.value).split("\n"))) < 400


def test_invalid_utf_8_is_located() -> None:
    with pytest.raises(SpecError) as caught:
        parse_bytes("let κ = 3\nlet ".encode() + b"\xff = 4\n", "x.prune")
    (found,) = caught.value.diagnostics
    assert found.code == "P126"
    assert str(caught.value).startswith("x.prune:2:5: error[P126]: byte 0xFF is not UTF-8")


@pytest.mark.parametrize("data", [b"\xff\xfe" + "let x = 3".encode("utf-16-le"), b"#" * 300_000])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SpecError):
        parse_bytes(data)


def test_digits_and_exponents_within_the_limits_are_exact() -> None:
    texts = [
        "123_456_789_012_345_678",
        "0.000000000000000000001",
        "1e200",
        "9.99e-200",
        "00000000000000000000003",
        "0e999",
    ]
    parse("\n".join(f"let x{i} = {text}" for i, text in enumerate(texts)))


def _deepest() -> list[str]:
    sums = "let x = " + " + ".join(["a"] * 120)
    calls = "let x = " + "f(" * 60 + "x" + ")" * 60
    powers = "let x = " + "2^" * 120 + "1"
    signs = "let x = " + "-" * 120 + "1"
    return [sums, calls, powers, signs]


@pytest.mark.parametrize("text", _deepest(), ids=["sums", "calls", "powers", "signs"])
def test_every_walk_of_a_tree_may_recurse(text: str) -> None:
    one, other = parse(text), parse(text)
    assert one == other
    assert hash(one) == hash(other)
    assert repr(one) == repr(other)
    assert copy.deepcopy(one) == other
    assert parse(format_spec(text, style="ascii")) == one


def test_time_is_linear_in_the_text() -> None:
    def work(lines: int) -> Callable[[], object]:
        text = "let x = 0.1 * 0.98^k + f(a, b = [1, 2])\n" * lines
        return lambda: parse(text)

    assert growth(work, small=100, factor=8) < 14
