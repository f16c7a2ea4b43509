"""Every word of the language as a Python function: ``from prunelang.words import codebook, k, lc, norm0, sgd``.

The names are those of the registries, looked up when they are first used: functions and losses, sets, stopping tests,
solvers, pruners, optimizers, networks, data sets, and the clocks. A word that Python keeps for itself, or that hides
one of its own, may be written with a trailing ``_``: ``min_``, ``bytes_``.
"""

from __future__ import annotations

from typing import Protocol

from prunelang.building.expressions import Expression, Value, braces, call, each, name, quoted, total
from prunelang.dsl.diagnostics import did_you_mean
from prunelang.dsl.names import CLOCKS, SPLITS

__all__ = ["auto", "base", "braces", "call", "each", "epoch", "k", "name", "p", "pi", "quoted", "step", "total"]


class Word(Protocol):
    """A function, set, solver or the like: called with the arguments that it has in the language."""

    def __call__(self, *positional: Value, **named: Value) -> Expression: ...


auto, base, pi = name("auto"), name("base"), name("pi")
k, epoch, step, p = name("k"), name("epoch"), name("step"), name("p")


def words() -> frozenset[str]:
    """All names that may be called."""
    from prunelang.api import known
    from prunelang.compiler.functions import FUNCTIONS, SETS, TESTS
    from prunelang.compiler.optimizers import OPTIMIZERS
    from prunelang.compiler.pruners.base import pruners
    from prunelang.compiler.solvers.base import solvers

    catalog = known()
    called = (FUNCTIONS, SETS, TESTS, OPTIMIZERS, solvers(), pruners(), catalog.models, catalog.data, catalog.losses)
    return frozenset(word for registry in called for word in registry)


def __getattr__(word: str) -> Word:
    if word.startswith("__"):
        raise AttributeError(word)
    own = word.removesuffix("_")
    found = words()
    if own in CLOCKS | SPLITS:
        raise AttributeError(f"`{own}` is written as text, or with `name`")
    if own not in found:
        near = did_you_mean(own, found)
        raise AttributeError(f"the language has no word `{own}`" + (f"; {near}" if near else ""))

    def made(*positional: Value, **named: Value) -> Expression:
        return call(own, *positional, **named)

    made.__name__ = made.__qualname__ = own
    return made


def __dir__() -> list[str]:
    return sorted({*__all__, *words()})
