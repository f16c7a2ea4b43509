"""Option models: what the language knows of each option, and that the models take nothing else."""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar, Literal

import pytest
from pydantic import ValidationError

from prunelang.compiler.optimizers import LR_CLOCKS, OPTIMIZERS, AdamW, Sgd
from prunelang.compiler.options import OptionFacts, Options, facts, number, option, value_of
from prunelang.compiler.schedule import CLOCKS, FUNCTIONS, SCHEDULES, Apply, Clock, Schedule, constant
from prunelang.compiler.solvers.base import solvers

MODELS: dict[str, type[Options]] = {**OPTIMIZERS, **solvers()}
EVERY = [(word, name, f) for word, model in MODELS.items() for name, f in facts(model).items()]


class Example(Options):
    word: ClassVar[str] = "example"
    kind: ClassVar[Literal["solver", "optimizer"]] = "solver"
    doc: ClassVar[str] = "An example."

    rate: Schedule = option("rate", gt=0, le="0.5", clocks=("k",), unit="nats")
    count: int = option("count", 3, ge=1)
    often: bool = option("often", False)
    way: Literal["up", "down"] = option("way", "up")
    decay: Schedule | None = option("decay", None, lt=1, aliases=("wd",))


def test_facts_of_every_kind() -> None:
    found = facts(Example)
    assert [f.kind for f in found.values()] == ["schedule", "integer", "truth", "choice", "schedule"]
    assert [f.required for f in found.values()] == [True, False, False, False, False]
    assert [f.optional for f in found.values()] == [False, False, False, False, True]
    assert [f.range_text() for f in found.values()] == ["in (0, 0.5]", "≥ 1", "", "", "< 1"]
    assert found["rate"].clocks == ("k",)
    assert found["rate"].unit == "nats"
    assert found["way"].choices == ("up", "down")
    assert found["count"].default == 3


@pytest.mark.parametrize(
    ("value", "admitted"), [("0", False), ("1e-30", True), ("0.5", True), ("0.5000001", False), ("-1", False)]
)
def test_ranges_are_exact(value: str, admitted: bool) -> None:
    assert facts(Example)["rate"].admits(Fraction(value)) is admitted


def test_models_are_strict_and_frozen() -> None:
    rate = constant("0.1")
    assert Example(rate=rate).count == 3
    for wrong in (
        {"rate": rate, "count": 2.0},
        {"rate": 0.1},
        {"rate": rate, "often": 1},
        {"rate": rate, "way": "left"},
    ):
        with pytest.raises(ValidationError):
            Example(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        Example(rate=rate, unknown=1)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        Example(rate=rate).count = 4  # type: ignore[misc]


def test_constants() -> None:
    assert value_of(number("0.9")) == Fraction(9, 10)
    assert value_of(Clock("k")) is None
    assert value_of(Apply("sqrt", (constant(4),))) is None


@pytest.mark.parametrize(("word", "name", "f"), EVERY, ids=[f"{w}.{n}" for w, n, _ in EVERY])
def test_every_option_is_documented_and_its_default_admitted(word: str, name: str, f: OptionFacts) -> None:
    assert f.doc
    assert set(f.clocks) <= set(CLOCKS)
    assert name not in set(CLOCKS) - {"lr"}, "an option's name must not read as a clock"
    assert name not in FUNCTIONS
    if isinstance(f.default, SCHEDULES):
        exactly = value_of(f.default)
        assert exactly is not None
        assert f.admits(exactly)
    elif f.kind == "integer" and f.default is not None:
        assert f.admits(f.default)
    elif f.kind == "choice":
        assert f.default in f.choices or (f.optional and f.default is None)


@pytest.mark.parametrize("word", MODELS)
def test_every_model_names_itself_and_its_source(word: str) -> None:
    model = MODELS[word]
    assert model.word == word
    assert model.doc.endswith(".")
    assert model.reference


def test_optimizers_are_torch_s_with_its_defaults() -> None:
    assert Sgd(lr=constant(1)).momentum == number("0")
    assert AdamW().weight_decay == number("0.01")
    assert all(facts(o)["lr"].clocks == LR_CLOCKS for o in OPTIMIZERS.values())
