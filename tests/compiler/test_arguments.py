"""Calls of constructors against their signatures."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from prunelang.compiler.arguments import ArgumentError, Parameter, Signature, Value
from prunelang.compiler.catalog import DATA, MODELS, cached_shapes

EVERYTHING = Signature(
    "f",
    (
        Parameter("n", "int", low=1, high=9),
        Parameter("r", "float", 0.5, low=0),
        Parameter("s", "str", 'a "b"'),
        Parameter("w", "choice", "relu", choices=("relu", "tanh")),
        Parameter("b", "bool", False),
        Parameter("q", "share", Fraction(1, 10), low=0, high=1),
        Parameter("l", "ints", (1, 2), length=1),
        Parameter("root", "path", None),
    ),
)


def test_defaults_are_filled_in_order() -> None:
    values = EVERYTHING.bind((3,), {"w": "tanh", "l": [4, 5]})
    assert list(values) == [p.name for p in EVERYTHING.parameters]
    assert values == {
        "n": 3,
        "r": 0.5,
        "s": 'a "b"',
        "w": "tanh",
        "b": False,
        "q": Fraction(1, 10),
        "l": (4, 5),
        "root": None,
    }


def test_the_canonical_text_names_every_argument() -> None:
    text = EVERYTHING.text(EVERYTHING.bind((3,), {"q": Fraction(1, 8)}))
    assert text == r'f(n = 3, r = 0.5, s = "a \"b\"", w = relu, b = false, q = 12.5%, l = [1, 2])'


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("n", Fraction(3), 3),
        ("n", 3.0, 3),
        ("r", Fraction(1, 4), 0.25),
        ("r", 2, 2.0),
        ("q", Fraction(1, 3), Fraction(1, 3)),
        ("q", 0.1, Fraction(1, 10)),
        ("l", (Fraction(7),), (7,)),
        ("root", None, None),
        ("root", "data", "data"),
    ],
)
def test_values_take_the_parameters_own_type(name: str, given: object, taken: Value) -> None:
    value = EVERYTHING.bind((), {"n": 1, name: given})[name]
    assert (value, type(value)) == (taken, type(taken))


@pytest.mark.parametrize(
    ("named", "argument", "message"),
    [
        ({}, "n", "`f` needs `n`: a whole number"),
        ({"n": 2.5}, "n", "`n` takes a whole number, not 2.5"),
        ({"n": Fraction(5, 2)}, "n", "`n` takes a whole number, not 2.5"),
        ({"n": True}, "n", "`n` takes a whole number, not true"),
        ({"n": "2"}, "n", '`n` takes a whole number, not "2"'),
        ({"n": math.inf}, "n", "`n` takes a whole number, not inf"),
        ({"n": math.nan}, "n", "`n` takes a whole number, not nan"),
        ({"n": 1, "r": Fraction(2) ** 2000}, "r", f"`r` takes a number, not {2**2000}"),
        ({"n": None}, "n", "`n` takes a whole number, not None"),
        ({"n": 0}, "n", "`n` is at least 1, not 0"),
        ({"n": 10}, "n", "`n` is at most 9, not 10"),
        ({"n": 1, "r": math.nan}, "r", "`r` takes a number, not nan"),
        ({"n": 1, "r": -1}, "r", "`r` is at least 0, not -1.0"),
        ({"n": 1, "s": 3}, "s", "`s` takes a string, not 3"),
        ({"n": 1, "w": "elu"}, "w", '`w` takes `relu` or `tanh`, not "elu"'),
        ({"n": 1, "b": 1}, "b", "`b` takes `true` or `false`, not 1"),
        ({"n": 1, "q": 2}, "q", "`q` is at most 1, not 2"),
        ({"n": 1, "l": []}, "l", "`l` needs at least 1 numbers, got 0"),
        ({"n": 1, "l": "ab"}, "l", '`l` takes a list of whole numbers, not "ab"'),
        ({"n": 1, "l": [1, "x"]}, "l", '`l` takes a list of whole numbers; "x" is not one'),
        ({"n": 1, "m": 2}, "m", "`f` has no argument `m`; it takes `n`, `r`, `s`, `w`, `b`, `q`, `l`, `root`"),
    ],
)
def test_what_does_not_fit_is_said_in_words(named: dict[str, object], argument: str, message: str) -> None:
    with pytest.raises(ArgumentError) as e:
        EVERYTHING.bind((), named)
    assert (e.value.argument, e.value.message) == (argument, message)


def test_the_nearest_names_are_suggested() -> None:
    with pytest.raises(ArgumentError) as e:
        MODELS["lenet_300_100"].signature.bind((), {"classses": 10})
    assert e.value.suggestions == ("classes",)
    with pytest.raises(ArgumentError) as e:
        MODELS["mlp"].signature.bind(([4, 2],), {"activation": "rleu"})
    assert e.value.suggestions == ("relu",)


def test_places_and_names() -> None:
    with pytest.raises(ArgumentError, match="given twice"):
        EVERYTHING.bind((1,), {"n": 1})
    with pytest.raises(ArgumentError, match="`lenet_5` takes 1 argument, got 2"):
        MODELS["lenet_5"].signature.bind((1, 2))
    with pytest.raises(ArgumentError, match="`digits` has no argument `root`; it takes no arguments"):
        DATA["digits"].signature.bind((), {"root": "x"})


def test_rules_over_several_arguments() -> None:
    with pytest.raises(ArgumentError, match="6n") as e:
        MODELS["resnet_cifar"].signature.bind((21,))
    assert e.value.suggestions == ("20", "26")
    with pytest.raises(ArgumentError, match="`heads` divides `width`: 10 / 4 is not whole"):
        MODELS["byte_transformer"].signature.bind((), {"width": 10})


def test_input_shapes() -> None:
    def shape(name: str, **named: object) -> tuple[int, ...]:
        facts = MODELS[name]
        assert facts.input_shape is not None
        return facts.input_shape(facts.signature.bind((), named))

    assert shape("mlp", sizes=[7, 3]) == (7,)
    assert shape("lenet_300_100", inputs=64) == (64,)
    assert shape("byte_transformer", context=9) == (9,)
    assert shape("resnet50") == (3, 224, 224)


def test_a_network_that_was_never_traced_is_not_in_the_cache(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNELANG_CACHE", str(tmp_path))
    assert cached_shapes("lenet_5", MODELS["lenet_5"].signature.bind()) is None
