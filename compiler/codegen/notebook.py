"""`notebook`: a script as a Jupyter notebook, a cell for each of its sections.

The cells hold the lines of the script in an order in which every name is defined before it is used: imports, what is
copied below the main function, the arguments, then the main function itself, cut where its phases begin and with its
indentation taken off. Their values, and so the weights at the end, are those of the script.
"""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

BANNER = re.compile(r"^# ── from (\S+) ─+$")
FORMATTER = re.compile(r"^# fmt: (?:off|on)\n", re.MULTILINE)  # speaks to a formatter of files
SECTION = re.compile(r"^    # ── (.+?) ──$")
START = '\n\n\nif __name__ == "__main__":\n    main()\n'
MAIN = "def main() -> None:\n"


@dataclass(frozen=True)
class Cell:
    kind: Literal["markdown", "code"]
    source: str


def notebook(script: str) -> str:
    """The text of an .ipynb file (nbformat 4.5) of a script. The same script gives the same text."""
    cells = list(cells_of(script))
    data = {
        "cells": [_cell(c, i) for i, c in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(data, ensure_ascii=False, indent=1) + "\n"


def cells_of(script: str) -> Iterator[Cell]:
    """The sections of a script as `emit` lays it out. Raises ValueError for any other text."""
    head, main, copied = _parts(FORMATTER.sub("", script))
    comments, _, imports = head.partition("\n\n")
    yield Cell("markdown", _prose(comments))
    imports, _, arguments = imports.partition("\n\n\n")
    yield Cell("code", imports.strip())
    for name, text in copied:
        yield Cell("markdown", f"Copied from `{name}`:")
        yield Cell("code", text)
    yield Cell("markdown", "## Options\n\nThose of the script: give them here, as on its command line.")
    yield Cell("code", _options(arguments.strip()))
    first, *phases = _phases(main)
    yield Cell("markdown", "## Data and network")
    yield Cell("code", first)
    for title, text in phases:
        yield Cell("markdown", f"## {title}")
        yield Cell("code", text)


def _parts(script: str) -> tuple[str, str, list[tuple[str, str]]]:
    """What stands before the main function, its body, and the copied sections by module."""
    head, found, rest = script.partition(MAIN)
    if not found or not rest.endswith(START):
        raise ValueError("this is no emitted script")
    main, *sections = re.split(r"\n\n\n(?=# ── from )", rest.removesuffix(START))
    copied = []
    for section in sections:
        banner, _, text = section.partition("\n")
        match = BANNER.match(banner)
        if match is None:
            raise ValueError(f"this is no emitted script: {banner}")
        copied.append((match[1], text.strip("\n")))
    return head.rstrip("\n"), main, copied


def _prose(comments: str) -> str:
    """The head of the script as text, the spec as a block of its own."""
    lines = [line.removeprefix("#").removeprefix(" ") for line in comments.splitlines()]
    said, _, spec = "\n".join(lines).partition("\nThe spec:\n")
    block = textwrap.dedent(spec.strip("\n"))
    return said.strip() + (f"\n\n```\n{block}\n```" if block else "")


def _options(arguments: str) -> str:
    """The function that reads the options, from a list in the place of the command line; files lie in this folder."""
    needed = '["--data", "."]' if "required=True" in arguments else "[]"
    text = re.sub(r"Path\(__file__\)\.with_name\((.+?)\)", r"Path(\1)", arguments)
    given = f'OPTIONS = {needed}  # such as ["--seed", "1", "--device", "cuda"]'
    return f"{given}\n\n\n{text.replace('parser.parse_args()', 'parser.parse_args(OPTIONS)')}"


def _phases(main: str) -> list[Any]:
    """The text before the first heading, then (heading, text) of each part, one step less indented."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for line in main.splitlines():
        match = SECTION.match(line)
        if match is None:
            parts[-1][1].append(line)
        else:
            parts.append((match[1], []))
    texts = [(title, textwrap.dedent("\n".join(lines)).strip("\n")) for title, lines in parts]
    return [texts[0][1], *((title, text) for title, text in texts[1:] if text)]


def _cell(cell: Cell, number: int) -> dict[str, Any]:
    name = hashlib.sha256(f"{number}:{cell.source}".encode()).hexdigest()[:12]
    lines = cell.source.splitlines(keepends=True)
    made: dict[str, Any] = {"cell_type": cell.kind, "id": name, "metadata": {}, "source": lines}
    return made | ({"execution_count": None, "outputs": []} if cell.kind == "code" else {})
