"""Options that several commands of the command line have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FOLDERS = click.Path(file_okay=False, path_type=Path)
Command = Callable[..., Any]


def echo_json(document: Any) -> None:
    click.echo(json.dumps(document, ensure_ascii=False, indent=1))


def option_format(f: Command) -> Command:
    kinds = click.Choice(["text", "json"])
    return click.option("--format", "style", type=kinds, default="text", help="text, or JSON with a format_version")(f)


def options_compile(f: Command) -> Command:
    """Options of every command that compiles a spec."""
    f = click.option("--shapes", type=EXISTING, help="a saved shape table, such as shapes.json of a run")(f)
    what = "Python code that registers networks, data or losses"
    f = click.option("--with", "code", multiple=True, metavar="FILE|MODULE", help=what)(f)
    what = "override a param of the spec"
    return click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help=what)(f)


def option_dtype(f: Command) -> Command:
    kinds = click.Choice(["float32", "float64"])
    return click.option("--dtype", type=kinds, default="float32", show_default=True, help="of weights and data")(f)


def option_seed(f: Command) -> Command:
    kind = click.IntRange(0, 2**63 - 1)
    return click.option("--seed", type=kind, default=0, show_default=True, help="of weights and data order")(f)


def option_device(f: Command) -> Command:
    return click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, …")(f)


def check_device(device: str) -> None:
    """Raises `Failure` for a device that torch cannot use."""
    import torch

    from prunelang.console import Failure
    from prunelang.exits import Exit

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise Failure(f"device {device} cannot be used: {str(error).splitlines()[0]}", Exit.USAGE) from error
