"""`prune`: the command line. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prunelang.dsl.diagnostics import Diagnostic, SpecError, render
from prunelang.dsl.spans import Source
from prunelang.exits import Exit, exit_of, table

if TYPE_CHECKING:
    from prunelang.api import Program

FORMAT_VERSION = "1.0"
EPILOG = "\b\nExit codes:\n" + table()


class Failure(Exception):
    """A failure that is no bug: a sentence and its exit code."""

    def __init__(self, message: str, code: Exit, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


def main() -> None:
    """Entry point: every way out has one of the exit codes of `prunelang.exits`."""
    try:
        cli.main(standalone_mode=False)
    except SpecError as error:
        click.echo(render(error.diagnostics, error.source), err=True)
        sys.exit(exit_of(error.diagnostics))
    except Failure as error:
        click.echo(f"prune: {error}" + (f"\n  help: {error.hint}" if error.hint else ""), err=True)
        sys.exit(error.code)
    except click.exceptions.Abort:
        sys.exit(Exit.INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(Exit.USAGE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:  # everything that is expected was caught above
        if _refused(error):
            sys.exit(Exit.SPEC)
        sys.exit(_bug())


def _refused(error: Exception) -> bool:
    """Data or files that cannot be used as the spec asks: said, not a bug."""
    if type(error).__name__ not in ("DataUnavailable", "FileProblem", "RegistryError", "UnknownName", "ArgumentError"):
        return False
    code, hint = getattr(error, "code", ""), getattr(error, "hint", "") or ""
    message = getattr(error, "message", str(error))
    click.echo(f"prune: error[{code}]: {message}" if code else f"prune: {message}", err=True)
    if hint:
        click.echo(f"  help: {hint}", err=True)
    return True


def _bug() -> Exit:
    import tempfile

    text = traceback.format_exc()
    with tempfile.NamedTemporaryFile("w", prefix="prune-bug-", suffix=".txt", delete=False) as report:
        report.write(f"{' '.join(sys.argv)}\n\n{text}")
    click.echo(f"prune: this is a bug in prunelang; please report it with {report.name}", err=True)
    click.echo(text.rstrip().rsplit("\n", 1)[-1], err=True)
    return Exit.BUG


# ── what several commands share ──────────────────────────────────────────────────────────────────────────────────

Command = Callable[..., Any]


def option_format(f: Command) -> Command:
    return click.option(
        "--format", "style", type=click.Choice(["text", "json"]), default="text", help="text, or JSON with a format_version"
    )(f)


def options_compile(f: Command) -> Command:
    """Options of every command that compiles a spec."""
    f = click.option("--shapes", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="a saved shape table")(f)
    f = click.option("--with", "code", multiple=True, metavar="FILE|MODULE", help="Python code that registers networks, data or losses")(f)
    return click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="override a param of the spec")(f)


def parameters(settings: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in settings:
        name, sign, value = item.partition("=")
        if not sign or not name.strip():
            raise click.BadParameter(f"write NAME=VALUE, not {item!r}", param_hint="--set")
        found[name.strip()] = value.strip()
    return found


def load_code(code: Iterable[str]) -> None:
    from prunelang.runtime.registry import load_user_code

    for target in code:
        try:
            load_user_code(target)
        except (FileNotFoundError, ModuleNotFoundError) as error:
            raise Failure(f"--with {target}: {error}", Exit.USAGE) from error


def read(path: str) -> tuple[Source, Path]:
    """The text of a file or of stdin (``-``), and the folder that its relative paths start at."""
    from prunelang.api import read_source
    from prunelang.dsl.parser import decode

    if path == "-":
        return decode(sys.stdin.buffer.read(), "<stdin>"), Path.cwd()
    try:
        return read_source(Path(path)), Path(path).parent
    except FileNotFoundError as error:
        raise Failure(f"there is no file {path}", Exit.USAGE) from error
    except (IsADirectoryError, PermissionError) as error:
        raise Failure(f"{path} cannot be read: {error.strerror}", Exit.USAGE) from error


def compiled(path: str, settings: Iterable[str], code: Iterable[str], shapes: Path | None, dtype: str = "float32") -> Program:
    """The program of a spec. Raises `SpecError` with all its diagnostics."""
    from prunelang.api import compile_source
    from prunelang.compiler.shapes import ShapeTable

    load_code(code)
    source, folder = read(path)
    table = None
    if shapes is not None:
        try:
            table = ShapeTable.loads(shapes.read_text(encoding="utf-8"))
        except (ValueError, KeyError, TypeError) as error:
            raise Failure(f"{shapes} is not a shape table: {error}", Exit.USAGE) from error
    return compile_source(source, folder, params=parameters(settings), shapes=table, dtype=dtype)


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="prunelang", prog_name="prune")
def cli() -> None:
    """State a compression problem, prove what can be proved, train, and get certified weights."""


@cli.command()
@click.argument("path", default="example.prune")
@click.option("--template", default="mlp-l0", help="which example; `--list` names them")
@click.option("--list", "listed", is_flag=True, help="name the templates")
@click.option("--force", is_flag=True, help="replace an existing file")
def init(path: str, template: str, listed: bool, force: bool) -> None:
    """Write a small spec that runs on the embedded digits in under a minute."""
    from prunelang.templates import describe, templates

    if listed:
        click.echo(describe())
        return
    known = templates()
    if template not in known:
        raise Failure(f"no template is called `{template}`; there are {', '.join(sorted(known))}", Exit.USAGE)
    target = Path(path)
    if target.exists() and not force:
        raise Failure(f"{path} exists already", Exit.USAGE, "give another name, or --force")
    target.write_text(known[template], encoding="utf-8")
    click.echo(f"wrote {path}; next: prune run {path}")


@cli.command()
@click.argument("paths", nargs=-1, required=True)
@options_compile
@option_format
def check(paths: tuple[str, ...], settings: tuple[str, ...], code: tuple[str, ...], shapes: Path | None, style: str) -> None:
    """Names, kinds, units, budgets and proofs, without weights or training."""
    from prunelang.report import budgets_json, budgets_text, summary

    load_code(code)
    worst = Exit.DONE
    documents = []
    for path in paths:
        program: Program | None = None
        try:
            program = compiled(path, settings, (), shapes)
            found, source = program.diagnostics, program.plan.source
        except SpecError as error:
            found, source = error.diagnostics, error.source
        worst = max(worst, exit_of(found))
        if style == "json":
            documents.append(_document(found, source) | {"budgets": budgets_json(program) if program else []})
            continue
        if found:
            click.echo(render(found, source), err=True)
        if program is not None:
            click.echo(budgets_text(program))
        click.echo(summary(source.name, found), err=True)
    if style == "json":
        click.echo(json.dumps(documents[0] if len(documents) == 1 else documents, ensure_ascii=False, indent=1))
    sys.exit(worst)


def _document(found: Iterable[Diagnostic], source: Source) -> dict[str, Any]:
    listed = [d.to_json(source) for d in found]
    severities = [d["severity"] for d in listed]
    return {
        "format_version": FORMAT_VERSION,
        "file": source.name,
        "valid": "error" not in severities,
        "summary": {s + "s": severities.count(s) for s in ("error", "warning", "note")},
        "diagnostics": listed,
    }


@cli.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("--check", "only_check", is_flag=True, help="change nothing; exit 7 if a file is not formatted")
@click.option("--diff", is_flag=True, help="change nothing; print what would change")
@click.option("--ascii/--unicode", "ascii_only", default=False, help="ASCII spellings, or mathematical signs")
def fmt(paths: tuple[str, ...], only_check: bool, diff: bool, ascii_only: bool) -> None:
    """Canonical layout; comments are kept. `-` formats stdin to stdout."""
    from prunelang.formatting import format_file

    changed = [p for p in paths if format_file(p, read, only_check or diff, diff, ascii_only)]
    if only_check:
        for path in changed:
            click.echo(f"would format {path}", err=True)
    sys.exit(Exit.FORMATTING if changed and (only_check or diff) else Exit.DONE)


@cli.command()
@click.argument("subject")
@click.option("--stage", default="all", help="spec, problem, proofs, solver or graph; all by default")
@options_compile
@option_format
def explain(
    subject: str, stage: str, settings: tuple[str, ...], code: tuple[str, ...], shapes: Path | None, style: str
) -> None:
    """What a spec means and what will run; or a diagnostic's code, such as P310."""
    from prunelang.explain import STAGES, explain_code, explain_json
    from prunelang.explain import explain as explained

    known = explain_code(subject)
    if known is not None:
        click.echo(known)
        return
    if stage not in STAGES:
        raise click.BadParameter(f"one of {', '.join(STAGES)}", param_hint="--stage")
    program = compiled(subject, settings, code, shapes)
    if program.diagnostics and style == "text":
        click.echo(render(program.diagnostics, program.plan.source), err=True)
    click.echo(explain_json(program, stage) if style == "json" else explained(program, stage), nl=style == "json")


@cli.command()
@click.argument("path")
@options_compile
@click.option("--out", type=click.Path(path_type=Path), help="run directory; runs/NAME by default")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="of weights and data order")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, …")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option("--deterministic", is_flag=True, help="deterministic algorithms: same machine type, same bits")
@click.option("--quiet", is_flag=True, help="no progress")
@option_format
def run(
    path: str, settings: tuple[str, ...], code: tuple[str, ...], shapes: Path | None, out: Path | None, seed: int,
    device: str, dtype: str, deterministic: bool, quiet: bool, style: str,
) -> None:  # fmt: skip
    """Train under the constraints, save, and certify what was saved."""
    from prunelang.progress import shown
    from prunelang.report import result_json, result_text
    from prunelang.signals import stop_on_signals

    program = compiled(path, settings, code, shapes, dtype)
    if program.diagnostics:
        click.echo(render(program.diagnostics, program.plan.source), err=True)
    _check_device(device)
    with shown(quiet) as observe, stop_on_signals() as stop:
        solution = program.run(out, seed=seed, device=device, deterministic=deterministic, observe=observe, stop=stop)
    click.echo(json.dumps(result_json(solution), ensure_ascii=False, indent=1) if style == "json" else result_text(solution))
    if solution.failure:
        click.echo(f"prune: {solution.failure}; the last good weights are in {solution.directory}", err=True)
        sys.exit(Exit.NUMERICAL)
    if solution.interrupted:
        sys.exit(Exit.INTERRUPTED)
    sys.exit(Exit.DONE if solution.feasible else Exit.VIOLATED)


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise Failure(f"device {device} cannot be used: {str(error).splitlines()[0]}", Exit.USAGE) from error


@cli.command()
@click.argument("path")
@options_compile
@click.option("--target", type=click.Choice(["torch"]), default="torch", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="file to write; stdout by default")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
def emit(
    path: str, settings: tuple[str, ...], code: tuple[str, ...], shapes: Path | None, target: str,
    output: Path | None, seed: int, dtype: str,
) -> None:  # fmt: skip
    """The same graph as a standalone script that needs torch alone."""
    from prunelang.emission import write_script

    program = compiled(path, settings, code, shapes, dtype)
    for line in write_script(program, seed, output):
        click.echo(line, nl=output is not None)


@cli.command()
@click.argument("subject", type=click.Path(exists=True, path_type=Path))
@click.option("--spec", "spec", help="the spec, when SUBJECT is a weights file")
@options_compile
@option_format
def verify(
    subject: Path, spec: str | None, settings: tuple[str, ...], code: tuple[str, ...], shapes: Path | None, style: str
) -> None:
    """Recount every structural constraint of a run directory, or of a weights file against a spec."""
    from prunelang.verification import verify_directory, verify_file

    load_code(code)
    if subject.is_dir():
        result = verify_directory(subject)
    elif spec is None:
        raise click.UsageError("verify a run directory, or give --spec FILE with a weights file")
    else:
        result = verify_file(subject, compiled(spec, settings, (), shapes))
    click.echo(json.dumps(result.to_json(), ensure_ascii=False, indent=1) if style == "json" else result.text())
    sys.exit(Exit.DONE if result.ok else Exit.VIOLATED)


@cli.command()
@click.argument("subject", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--to", "target", type=click.Choice(["best", "dense", "bitmask", "csr"]), default="best", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="file; SUBJECT/weights.FORMAT.safetensors by default")
def export(subject: Path, target: str, output: Path | None) -> None:
    """Write the weights of a run in a format whose size is the number that `bytes` counts."""
    from prunelang.verification import export_directory

    click.echo(export_directory(subject, target, output))


@cli.command()
@option_format
def doctor(style: str) -> None:
    """Versions, devices, threads, data: what to paste into a report."""
    from prunelang.doctor import facts, text

    click.echo(json.dumps(facts(), indent=1) if style == "json" else text())
