"""Decorators that give a user's networks, data sets and losses a name in specs.

    import prunelang

    @prunelang.register.model(input_shape=(1, 28, 28))
    class TinyNet(nn.Module): ...

    @prunelang.register.loss
    def focal(output, target, gamma: float = 2.0): ...

The name is the function's or class's own unless `name` is given. Parameters need a type that a spec can write (int,
float, str, bool, Path, Fraction for percentages, list[int], Literal words); ``Annotated[int, "what it means"]`` adds
documentation. Every decorator returns what it decorates. A name that is taken raises `RegistryError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, overload

from prunelang.compiler.catalog import Shape, Task
from prunelang.runtime import registry

C = TypeVar("C", bound=Callable[..., Any])


@overload
def model(factory: C, /) -> C: ...


@overload
def model(
    *,
    name: str | None = None,
    input_shape: Shape | Callable[..., Shape] | None = None,
    input_dtype: Literal["float32", "int64"] = "float32",
) -> Callable[[C], C]: ...


def model(
    factory: C | None = None,
    /,
    *,
    name: str | None = None,
    input_shape: Shape | Callable[..., Shape] | None = None,
    input_dtype: Literal["float32", "int64"] = "float32",
) -> C | Callable[[C], C]:
    """Registers a function or class that makes an nn.Module.

    `input_shape` is the shape of one input without the batch dimension, or a function of the constructor's arguments;
    left out, the data set decides. Bytes and other indices come as ``input_dtype = "int64"``.
    """

    def register(factory: C) -> C:
        stated = {"input_shape": input_shape, "input_dtype": input_dtype}
        registry.models.register(factory, name or factory.__name__, _origin(factory), **stated)
        return factory

    return register if factory is None else register(factory)


@overload
def data(factory: C, /) -> C: ...


@overload
def data(*, name: str | None = None, task: Task | None = None) -> Callable[[C], C]: ...


def data(factory: C | None = None, /, *, name: str | None = None, task: Task | None = None) -> C | Callable[[C], C]:
    """Registers a function that returns a `prunelang.runtime.data.Dataset`.

    `batch`, `validation` and `seed` are arguments of every data set and must not be parameters of the function.
    """

    def register(factory: C) -> C:
        registry.data.register(factory, name or factory.__name__, _origin(factory), task=task)
        return factory

    return register if factory is None else register(factory)


@overload
def loss(factory: C, /) -> C: ...


@overload
def loss(*, name: str | None = None) -> Callable[[C], C]: ...


def loss(factory: C | None = None, /, *, name: str | None = None) -> C | Callable[[C], C]:
    """Registers a function ``(output, target, **options)`` that returns a scalar, the mean per prediction."""

    def register(factory: C) -> C:
        registry.losses.register(factory, name or factory.__name__, _origin(factory))
        return factory

    return register if factory is None else register(factory)


def _origin(factory: Callable[..., Any]) -> str:
    return factory.__module__ if factory.__module__ == "__main__" else f"module {factory.__module__}"
