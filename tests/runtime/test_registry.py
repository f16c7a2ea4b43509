"""Names: looked up exactly, filled by trusted code alone, never claimed twice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from torch import Tensor, nn

from prunelang import register
from prunelang.compiler.arguments import ArgumentError, Parameter
from prunelang.runtime import registry
from prunelang.runtime.data import Dataset, Split
from prunelang.runtime.registry import LossEntry, ModelEntry, Registry, RegistryError, UnknownName


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Whatever a test registers is gone after it."""
    kinds: list[Registry[Any]] = [registry.models, registry.data, registry.losses]
    before = [dict(kind._entries) for kind in kinds]
    yield
    for kind, entries in zip(kinds, before, strict=True):
        kind._entries = entries


def test_the_built_in_names() -> None:
    assert {"lenet_300_100", "lenet_5", "resnet50"} <= set(registry.models)
    built_in = {name for name in registry.data if registry.data[name].origin == registry.BUILT_IN}
    assert built_in == {"digits", "fashion_mnist", "mnist", "tensors", "text"}
    assert len(registry.losses) == 0
    assert registry.models["lenet_5"].origin == "built in"
    digest = registry.models["lenet_5"].source_digest
    assert digest == registry.models["lenet_300_100"].source_digest != registry.models["mlp"].source_digest


def test_unknown_names_come_with_the_nearest() -> None:
    with pytest.raises(
        UnknownName, match=r"no model is called `lenet_30_100`; did you mean `lenet_300_100` or `lenet_5`\?"
    ) as e:
        registry.models["lenet_30_100"]
    assert e.value.suggestions[0] == "lenet_300_100"
    with pytest.raises(UnknownName, match=r"no data set is called `xyzzy`$"):
        registry.data["xyzzy"]


def test_arguments_are_checked_before_anything_is_built() -> None:
    with pytest.raises(ArgumentError, match="has no argument `width`"):
        registry.models["lenet_5"].build(width=3)
    with pytest.raises(ArgumentError, match="needs `path`"):
        registry.data["text"].load()


def test_looking_up_needs_no_torch() -> None:
    code = (
        "import sys; from prunelang.runtime import registry; registry.models.facts(); registry.data.facts();"
        "registry.models['resnet50'].source_digest; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# ── decorators ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_function_is_registered_under_its_name() -> None:
    @register.model
    def tiny(width: Annotated[int, "hidden units"], kind: Literal["a", "b"] = "a", rate: float = 0.5) -> nn.Module:
        """A tiny network.

        More about it.
        """
        return nn.Linear(width, 2)

    entry = registry.models["tiny"]
    assert entry.doc == "A tiny network."
    assert entry.parameters == (
        Parameter("width", "int", doc="hidden units"),
        Parameter("kind", "choice", "a", choices=("a", "b")),
        Parameter("rate", "float", 0.5),
    )
    assert entry.facts.text(entry.facts.signature.bind((4,))) == "tiny(width = 4, kind = a, rate = 0.5)"
    assert isinstance(entry.build(width=4), nn.Linear)
    assert entry.factory is tiny
    assert entry.input_shape({}, offered=(4,)) == (4,)
    with pytest.raises(RegistryError, match="states no input shape"):
        entry.input_shape({})


def test_a_class_states_its_input_shape() -> None:
    @register.model(name="wide", input_shape=lambda inputs: (inputs, 1))
    class Wide(nn.Module):
        def __init__(self, inputs: int = 3) -> None:
            super().__init__()
            self.fc = nn.Linear(inputs, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.fc(x.flatten(1))
            return out

    entry = registry.models["wide"]
    values = entry.facts.signature.bind((5,))
    assert entry.shapes(values).layer["fc"].weight == "fc.weight"
    assert entry.shapes(values).input_shape == (5, 1)


def test_a_class_attribute_states_the_input_shape_too() -> None:
    @register.model
    class Fixed(nn.Linear):
        input_shape = (3,)

        def __init__(self) -> None:
            super().__init__(3, 2)

    assert registry.models["Fixed"].input_shape({}) == (3,)


def test_data_and_losses() -> None:
    @register.data(task="regression")
    def line(path: Path, share: Fraction = Fraction(1, 2), sizes: list[int] = [3]) -> Dataset:  # noqa: B006
        assert path == Path("/spec/points.npz")
        return Dataset("line", "regression", 0, {"train": Split(torch.zeros(sizes[0], 1), torch.zeros(sizes[0], 1))})

    @register.loss
    def power(output: Tensor, target: Tensor, p: float = 2.0) -> Tensor:
        return (output - target).abs().pow(p).mean()

    assert len(registry.data["line"].load(Path("/spec"), path="points.npz").train) == 3
    assert registry.data["line"].facts.task == "regression"
    assert [p.name for p in registry.losses["power"].parameters] == ["p"]
    assert float(registry.losses["power"].value(torch.full((2,), 3.0), torch.zeros(2), p=3)) == 27


def test_a_taken_name_is_an_error() -> None:
    with pytest.raises(RegistryError, match="the model name `lenet_5` is taken: by built in, and again by module"):
        register.model(name="lenet_5")(nn.ReLU)


def test_a_notebook_cell_may_run_again() -> None:
    def cell() -> nn.Module:
        return nn.Identity()

    cell.__module__ = "__main__"
    register.model(cell)
    register.model(cell)
    assert registry.models["cell"].factory is cell


def test_what_a_spec_cannot_write_is_refused() -> None:
    def untyped(x) -> nn.Module:  # type: ignore[no-untyped-def]
        return nn.Identity()

    def odd(x: dict[str, int]) -> nn.Module:
        return nn.Identity()

    def many(*x: int) -> nn.Module:
        return nn.Identity()

    for factory in (untyped, odd):
        with pytest.raises(RegistryError, match=f"`x` of `{factory.__name__}` needs a type that a spec can write"):
            register.model(factory)
    with pytest.raises(RegistryError, match="has the parameter"):
        register.model(many)
    with pytest.raises(RegistryError, match="not a name that a spec can write"):
        register.model(name="no name")(nn.Identity)
    with pytest.raises(RegistryError, match="not a name"):
        register.model(lambda inputs=3: nn.Linear(inputs, 2))
    with pytest.raises(RegistryError, match=r"takes \(output, target"):
        register.loss(name="short")(lambda output: output)


# ── installed packages ───────────────────────────────────────────────────────────────────────────────────────────


def points(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, str]) -> None:
    made = [EntryPoint(name, value, "prunelang.models") for name, value in found]
    monkeypatch.setattr(registry, "entry_points", lambda group: made)


def test_entry_points_are_loaded_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    points(monkeypatch, ("linear", "torch.nn:Linear"), ("broken", "no_such_module:net"), ("gone", "os:nothing"))
    models: Registry[ModelEntry] = Registry("model", "prunelang.models", ModelEntry)
    facts = models.facts()
    assert list(models) == list(facts) == ["broken", "gone", "linear"]
    assert ("broken" in facts, "other" in facts, facts.get("other"), len(facts)) == (True, False, None, 3)
    with pytest.raises(ModuleNotFoundError):
        models["broken"]
    with pytest.raises(RegistryError, match=r"`in_features`|`device`"):
        models["linear"]


def test_an_entry_point_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    points(monkeypatch, ("other_lenet", "prunelang.runtime.zoo.lenet:lenet_5"))
    models: Registry[ModelEntry] = Registry("model", "prunelang.models", ModelEntry)
    assert models["other_lenet"].build(classes=3).get_parameter("fc2.weight").shape == (3, 500)
    assert models["other_lenet"] is models["other_lenet"]
    assert models["other_lenet"].origin == "module prunelang.runtime.zoo.lenet"


def test_names_claimed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    points(monkeypatch, ("a", "x:y"), ("a", "z:y"))
    with pytest.raises(RegistryError, match="`a` is taken: by module x, and again by module z"):
        list(Registry("model", "prunelang.models", ModelEntry))
    points(monkeypatch, ("lenet_5", "x:y"))
    models: Registry[ModelEntry] = Registry("model", "prunelang.models", ModelEntry)
    models.add(registry.models["lenet_5"])
    with pytest.raises(RegistryError, match="by built in, and again by module x"):
        models["lenet_5"]


# ── --with ───────────────────────────────────────────────────────────────────────────────────────────────────────

USER = """
import prunelang.register
from my_parts import WIDTH
from torch import nn

@prunelang.register.model
def my_net(width: int = WIDTH):
    return nn.Linear(width, 2)
"""


def test_user_code_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text("WIDTH = 7\n")
    file = tmp_path / "my_models.py"
    file.write_text(USER)
    path = list(sys.path)
    module = registry.load_user_code(file)
    assert registry.load_user_code(str(file)) is module
    assert module.__name__.startswith("_prunelang_user_my_models_")
    assert sys.path == path
    assert registry.models["my_net"].build().get_parameter("weight").shape == (2, 7)
    assert registry.models["my_net"].source_digest is not None
    del sys.modules["my_parts"], sys.modules[module.__name__]


def test_user_code_that_fails_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        registry.load_user_code(file)
    assert not [name for name in sys.modules if name.startswith("_prunelang_user_bad")]
    with pytest.raises(FileNotFoundError):
        registry.load_user_code(tmp_path / "none.py")


def test_user_code_from_a_module() -> None:
    assert registry.load_user_code("json").__name__ == "json"


def test_losses_are_typed_entries() -> None:
    @register.loss(name="absolute")
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).abs().mean()

    assert isinstance(registry.losses["absolute"], LossEntry)
