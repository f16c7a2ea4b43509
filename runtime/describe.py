"""Facts of a constructor that a user registers, read off its Python signature."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from prunelang.compiler.arguments import REQUIRED, Kind, Parameter, Required, Signature, Value
from prunelang.compiler.catalog import DataFacts, LossFacts, ModelFacts, Shape, Task
from prunelang.runtime.registry import RegistryError

PLAIN: Mapping[object, Kind] = {int: "int", float: "float", str: "str", bool: "bool", Path: "path", Fraction: "share"}
ALLOWED = "int, float, str, bool, Path, Fraction, list[int] or Literal[…]"


def describe_model(
    factory: Callable[..., Any],
    name: str,
    input_shape: Shape | Callable[..., Shape] | None = None,
    input_dtype: Literal["float32", "int64"] = "float32",
) -> ModelFacts:
    """A function or nn.Module class that makes a network.

    `input_shape` is the shape of one input, or a function of the constructor's arguments; left out, an attribute
    ``input_shape`` of the factory is taken, else the data set decides.
    """
    stated = input_shape if input_shape is not None else getattr(factory, "input_shape", None)
    shape: Callable[[Mapping[str, Value]], Shape] | None
    if callable(stated):
        function = cast("Callable[..., Shape]", stated)
        shape = lambda values: tuple(function(**values))  # noqa: E731 (two short cases side by side)
    else:
        shape = None if stated is None else lambda values: tuple(cast("Shape", stated))
    return ModelFacts(signature(factory, name), shape, _file(factory), input_dtype)


def describe_data(factory: Callable[..., Any], name: str, task: Task | None = None) -> DataFacts:
    """A function that returns a `Dataset`."""
    return DataFacts(signature(factory, name), task, own_validation=None, own_test=None, source=_file(factory))


def describe_loss(factory: Callable[..., Any], name: str) -> LossFacts:
    """A function ``(output, target, **options) → scalar``."""
    return LossFacts(signature(factory, name, skip=2), _file(factory))


def signature(factory: Callable[..., Any], name: str, skip: int = 0) -> Signature:
    """The parameters after the first `skip`. Errors: `RegistryError` for one that a spec could not write."""
    if not name.isidentifier():
        raise RegistryError(f"`{name}` is not a name that a spec can write")
    parameters = list(inspect.signature(factory).parameters.values())
    if len(parameters) < skip:
        raise RegistryError(f"`{name}` takes (output, target, …), but has {len(parameters)} parameters")
    hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory, include_extras=True)
    doc = (inspect.getdoc(factory) or "").split("\n", 1)[0]
    return Signature(name, tuple(_parameter(name, p, hints) for p in parameters[skip:]), doc)


def _parameter(owner: str, p: inspect.Parameter, hints: Mapping[str, Any]) -> Parameter:
    if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY):
        raise RegistryError(f"`{owner}` has the parameter `{p}`: a spec gives plain values by name")
    default: Value | Required = REQUIRED if p.default is p.empty else _freeze(p.default)
    hint = hints.get(p.name, p.empty)
    doc = ""
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        doc = next((n for n in notes if isinstance(n, str)), "")
    if hint is p.empty and default is not REQUIRED and default is not None:
        hint = list[int] if isinstance(default, tuple) else type(default)
    kind, choices = _kind(hint)
    if kind is None:
        raise RegistryError(f"`{p.name}` of `{owner}` needs a type that a spec can write: {ALLOWED}")
    return Parameter(p.name, kind, default, doc, choices=choices)


def _kind(hint: Any) -> tuple[Kind | None, tuple[str, ...]]:
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [_kind(h) for h in get_args(hint) if h is not type(None)]
        return kinds[0] if len(kinds) == 1 else (None, ())
    if get_origin(hint) is Literal and all(isinstance(c, str) for c in get_args(hint)):
        return "choice", get_args(hint)
    if get_origin(hint) in (list, tuple, Sequence) and get_args(hint)[:1] == (int,):
        return "ints", ()
    return (PLAIN[hint], ()) if hint in PLAIN else (None, ())


def _freeze(default: Any) -> Value:
    if isinstance(default, Path):
        return str(default)
    return tuple(default) if isinstance(default, list) else cast("Value", default)


def _file(factory: Callable[..., Any]) -> Path | None:
    try:
        return Path(inspect.getfile(factory))
    except (TypeError, OSError):
        return None


DESCRIBE: Mapping[str, Callable[..., Any]] = {
    "model": describe_model,
    "data set": describe_data,
    "loss": describe_loss,
}
