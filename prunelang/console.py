"""What the commands share: reading what they are given, and turning every way out into an exit code."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

import click

from prunelang.dsl.diagnostics import Diagnostic, SpecError, render
from prunelang.dsl.spans import Source
from prunelang.exits import Exit, exit_of

if TYPE_CHECKING:
    from prunelang.api import Program
    from prunelang.compiler.shapes import ShapeTable

FORMAT_VERSION = "1.0"

SAID = ("DataUnavailable", "FileProblem", "ShrinkProblem", "RegistryError", "UnknownName", "ArgumentError")
"""Errors about data, files and names. They are known by name, since importing some of them would import torch."""

NEEDED = ("torch", "numpy", "safetensors", "sklearn", "rich")
"""Packages that some commands do without, so that an installation can lack them."""


class Failure(Exception):
    """A failure that is no bug: a sentence, its exit code, and what to do."""

    def __init__(self, message: str, code: Exit, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


# ── ways out ─────────────────────────────────────────────────────────────────────────────────────────────────────


def guarded(command: Callable[[], object]) -> int:
    """Run a command; whatever happens becomes a message on stderr and an exit code of `prunelang.exits`."""
    try:
        code = command()
        sys.stdout.flush()
    except SpecError as error:
        click.echo(render(error.diagnostics, error.source), err=True)
        return exit_of(error.diagnostics)
    except Failure as error:
        return say(error.code, str(error), error.hint)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return say(Exit.INTERRUPTED, "stopped at once")
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains about it while it exits
        return Exit.DONE
    except Exception as error:  # everything that is expected was caught above
        return _unexpected(error)
    return code if isinstance(code, int) else Exit.DONE


def say(code: Exit, message: str, hint: str = "") -> Exit:
    """One message on stderr; gives back `code`."""
    click.echo(f"prune: {message}" + (f"\n  help: {hint}" if hint else ""), err=True)
    return code


def _unexpected(error: Exception) -> Exit:
    if type(error).__name__ in SAID:
        stable = getattr(error, "code", None)
        message = getattr(error, "message", str(error))
        return say(Exit.SPEC, f"error[{stable}]: {message}" if stable else message, getattr(error, "hint", None) or "")
    if isinstance(error, ModuleNotFoundError) and error.name in NEEDED:
        return say(Exit.USAGE, f"this needs {error.name}, which is not installed")
    if isinstance(error, OSError) and error.strerror:
        return say(Exit.SPEC, f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    where = _in_user_code(error.__traceback__)
    if where is not None:
        return say(Exit.SPEC, f"the code given with --with failed in {where}: {type(error).__name__}: {error}")
    with tempfile.NamedTemporaryFile("w", prefix="prune-bug-", suffix=".txt", delete=False, encoding="utf-8") as report:
        report.write(f"{' '.join(sys.argv)}\n\n{traceback.format_exc()}")
    return say(Exit.BUG, f"a bug in prunelang; please report it with {report.name}\n{type(error).__name__}: {error}")


# ── code that whoever runs the command chose ─────────────────────────────────────────────────────────────────────

_loaded: list[ModuleType] = []


def load_code(targets: Iterable[str]) -> None:
    """Import what ``--with`` names; its decorators fill the registries."""
    from prunelang.runtime.registry import load_user_code

    for target in targets:
        try:
            _loaded.append(load_user_code(target))
        except FileNotFoundError as error:
            raise Failure(f"--with {target}: there is no such file", Exit.USAGE) from error
        except ModuleNotFoundError as error:
            raise Failure(f"--with {target}: {error}", Exit.USAGE) from error
        except Exception as error:
            if type(error).__name__ in SAID:
                raise Failure(f"--with {target}: {error}", Exit.USAGE) from error
            frame = traceback.extract_tb(error.__traceback__)[-1]
            message = f"--with {target}: {type(error).__name__} in {frame.filename}:{frame.lineno}: {error}"
            raise Failure(message, Exit.USAGE) from error


def _in_user_code(trace: TracebackType | None) -> str | None:
    """``FILE:LINE`` of the innermost call that is inside code given with ``--with``."""
    files = {m.__file__ for m in _loaded}
    inside = [f for f in traceback.extract_tb(trace) if f.filename in files]
    return f"{inside[-1].filename}:{inside[-1].lineno}" if inside else None


# ── what commands read ───────────────────────────────────────────────────────────────────────────────────────────


def parameters(settings: Iterable[str]) -> dict[str, str]:
    """``--set NAME=VALUE``, name to text."""
    found: dict[str, str] = {}
    for item in settings:
        name, sign, value = item.partition("=")
        if not sign or not name.strip():
            raise click.BadParameter(f"write NAME=VALUE, not {item!r}", param_hint="--set")
        found[name.strip()] = value.strip()
    return found


def read(path: str) -> tuple[Source, Path]:
    """The text of a file or of stdin (``-``), and the folder that its relative paths start at."""
    from prunelang.dsl.parser import decode

    if path == "-":
        return decode(sys.stdin.buffer.read(), "<stdin>"), Path.cwd()
    try:
        return decode(Path(path).read_bytes(), path), Path(path).parent
    except FileNotFoundError as error:
        raise Failure(f"there is no file {path}", Exit.USAGE) from error
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}", Exit.USAGE) from error


def compiled(
    path: str, settings: Iterable[str], code: Iterable[str], shapes: Path | None, dtype: str = "float32"
) -> Program:
    """The program of a spec. Raises `SpecError` with all its diagnostics."""
    from prunelang.api import compile_source

    load_code(code)
    source, folder = read(path)
    table = None if shapes is None else shape_table(shapes)
    return compile_source(source, folder, params=parameters(settings), shapes=table, dtype=dtype)


def shape_table(path: Path) -> ShapeTable:
    """A saved shape table."""
    from prunelang.compiler.shapes import ShapeTable

    try:
        return ShapeTable.loads(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"{path} is not a shape table: {error}", Exit.USAGE) from error


# ── documents ────────────────────────────────────────────────────────────────────────────────────────────────────


def summary_json(found: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Diagnostics as JSON, counted by severity."""
    severities = [d["severity"] for d in found]
    return {f"{s}s": severities.count(s) for s in ("error", "warning", "note")}


def show(found: Iterable[Diagnostic], source: Source) -> None:
    """Diagnostics as text on stderr, if there are any."""
    text = render(found, source)
    if text:
        click.echo(text, err=True)
