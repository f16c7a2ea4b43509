"""All operators by name. Discovery is by folder: a module of this folder that defines an operator registers it."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

from prunelang.runtime import prox
from prunelang.runtime.prox.base import AbstractOperator

_OPERATORS: dict[str, type[AbstractOperator]] = {}
Operator = TypeVar("Operator", bound=type[AbstractOperator])


def register(operator: Operator) -> Operator:
    """Class decorator. Raises `ValueError` for a second operator of the same name."""
    known = _OPERATORS.setdefault(operator.name, operator)
    if known is not operator:
        raise ValueError(f"two operators are called {operator.name}: {known.__module__} and {operator.__module__}")
    return operator


def operators() -> dict[str, type[AbstractOperator]]:
    """Name → class, of every operator in the folder, sorted by name."""
    for module in iter_modules(prox.__path__):
        import_module(f"{prox.__name__}.{module.name}")
    return dict(sorted(_OPERATORS.items()))


def operator(name: str) -> type[AbstractOperator]:
    """The class of that name. Raises `KeyError` listing the known ones."""
    known = operators()
    if name not in known:
        raise KeyError(f"no operator is called {name}; there are {', '.join(known)}")
    return known[name]
