"""What a folder holds: every module in it may define options with a word of the language."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TypeVar

from prunelang.compiler.options import Options

OptionsT = TypeVar("OptionsT", bound=Options)


def discovered(package: str, base: type[OptionsT]) -> dict[str, type[OptionsT]]:
    """The subclasses of `base` with a word of their own in the package's modules, by that word.

    Errors: RuntimeError where two have the same.
    """
    found: dict[str, type[OptionsT]] = {}
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{info.name}")
        for item in vars(module).values():
            concrete = isinstance(item, type) and issubclass(item, base) and "word" in vars(item)
            if concrete and found.setdefault(item.word, item) is not item:
                raise RuntimeError(f"two {base.__name__.lower()}s are named `{item.word}`")
    return found
