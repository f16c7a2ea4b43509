"""`prune`: the command line. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from prunelang.console import (
    FORMAT_VERSION,
    Failure,
    compiled,
    guarded,
    load_code,
    read,
    show,
    summary_json,
)
from prunelang.dsl.diagnostics import SpecError
from prunelang.exits import Exit, exit_of, table, worst

if TYPE_CHECKING:
    from prunelang.api import Program
    from prunelang.shrinking import WrittenShrunk
    from prunelang.verification import Written

EPILOG = "\b\nExit codes:\n" + table()
FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FORMATS = ["best", "dense", "bitmask", "csr", "coded"]
Command = Callable[..., Any]


def main() -> None:
    """Entry point: every way out has one of the exit codes of `prunelang.exits`."""
    sys.exit(guarded(lambda: cli.main(standalone_mode=False, prog_name="prune")))


def echo_json(document: Any) -> None:
    click.echo(json.dumps(document, ensure_ascii=False, indent=1))


# ── options that several commands have ───────────────────────────────────────────────────────────────────────────


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


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="prunelang", prog_name="prune")
def cli() -> None:
    """State a compression problem, prove what can be proved, train, and get certified weights."""


@cli.command()
@click.argument("path", default="example.prune", type=click.Path(path_type=Path))
@click.option("--template", default="mlp-l0", show_default=True, help="which example; `--list` names them")
@click.option("--list", "listed", is_flag=True, help="name the templates")
@click.option("--force", is_flag=True, help="replace existing files")
def init(path: Path, template: str, listed: bool, force: bool) -> None:
    """Write a small spec that runs on the embedded digits in under a minute."""
    from prunelang.runtime.files import write_text
    from prunelang.templates import describe, templates

    if listed:
        click.echo(describe())
        return
    known = templates()
    if template not in known:
        raise Failure(f"no template is called `{template}`; there are {', '.join(sorted(known))}", Exit.USAGE)
    chosen = known[template]
    files = {path: chosen.spec}
    if chosen.code_name is not None and chosen.code is not None:
        files[path.parent / chosen.code_name] = chosen.code
    for target in files:
        if target.exists() and not force:
            raise Failure(f"{target} exists already", Exit.USAGE, "give another name, or --force")
        if not target.parent.is_dir():
            raise Failure(f"there is no folder {target.parent}", Exit.USAGE)
    for target, text in files.items():
        write_text(Path(target.name), text, root=target.parent)
    extra = "" if chosen.code_name is None else f" --with {path.parent / chosen.code_name}"
    click.echo(f"wrote {' and '.join(map(str, files))}; next: prune run {path}{extra}")


@cli.command()
@click.argument("paths", nargs=-1, required=True, metavar="SPEC...")
@options_compile
@option_format
def check(
    paths: tuple[str, ...], settings: tuple[str, ...], code: tuple[str, ...], shapes: Path | None, style: str
) -> int:
    """Names, kinds, units, budgets and proofs, without weights or training."""
    from prunelang.report import budgets_json, budgets_text, summary

    load_code(code)
    exits, files, listed = [], [], []
    for path in paths:
        try:
            program = compiled(path, settings, (), shapes)
            found, source = program.diagnostics, program.plan.source
        except SpecError as error:
            program, found, source = None, error.diagnostics, error.source
        exits.append(exit_of(found))
        if style == "json":
            listed += [d.to_json(source) for d in found]
            budgets = [] if program is None else budgets_json(program.plan)
            files.append({"file": source.name, "valid": program is not None, "budgets": budgets})
            continue
        show(found, source)
        if program is not None:
            click.echo(budgets_text(program.plan))
        click.echo(summary(source.name, found), err=True)
    if style == "json":
        valid = all(f["valid"] for f in files)
        head = {"format_version": FORMAT_VERSION, "valid": valid, "summary": summary_json(listed)}
        echo_json({**head, "diagnostics": listed, "files": files})
    return worst(exits)


@cli.command()
@click.argument("paths", nargs=-1, required=True, metavar="SPEC...")
@click.option("--check", "only_check", is_flag=True, help="change nothing; exit 7 if a file is not formatted")
@click.option("--diff", is_flag=True, help="change nothing; print what would change, and exit 7 if anything would")
@click.option("--ascii/--unicode", "ascii_only", default=False, help="ASCII spellings, or mathematical signs (default)")
def fmt(paths: tuple[str, ...], only_check: bool, diff: bool, ascii_only: bool) -> int:
    """Canonical layout; comments are kept. `-` formats stdin to stdout."""
    from prunelang.formatting import format_file

    changed = [p for p in paths if format_file(p, read, only_check or diff, diff, ascii_only)]
    if only_check:
        for path in changed:
            click.echo(f"would format {path}", err=True)
    return Exit.FORMATTING if changed else Exit.DONE


@cli.command()
@click.argument("subject", metavar="SPEC|CODE")
@click.option("--stage", default="all", help="spec, problem, proofs, solver or graph; all by default")
@click.option("--probe", "probing", is_flag=True, help="prices, from short runs with every upper bound moved")
@click.option("--delta", default="10%", show_default=True, help="of --probe: by how much bounds are moved")
@click.option("--share", default="25%", show_default=True, help="of --probe: length of its runs")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="of --probe: runs a bound")
@options_compile
@option_format
@click.pass_context
def explain(
    context: click.Context, subject: str, stage: str, probing: bool, delta: str, share: str, seeds: int,
    settings: tuple[str, ...], code: tuple[str, ...], shapes: Path | None, style: str,
) -> int:  # fmt: skip
    """What a spec means and what will run; or what a diagnostic's code, such as P310, means."""
    from prunelang.explain import STAGES, code_json, code_text, explain_json, is_code
    from prunelang.explain import explain as explained

    given = [n for n in ("delta", "share", "seeds") if context.get_parameter_source(n) is ParameterSource.COMMANDLINE]
    if given and not probing:
        raise click.UsageError(f"--{given[0]} is of --probe alone")
    if probing and (stage != "all" or is_code(subject)):
        raise click.UsageError("--probe is of a spec, and prints nothing else")
    if probing:
        return _probe(compiled(subject, settings, code, shapes), delta, share, seeds, style)
    if is_code(subject):
        known = code_text(subject)
        if known is None:
            raise Failure(f"no diagnostic has the code {subject}", Exit.USAGE)
        click.echo(json.dumps(code_json(subject), ensure_ascii=False, indent=1) if style == "json" else known)
        return Exit.DONE
    if stage not in STAGES:
        raise click.BadParameter(f"one of {', '.join(STAGES)}", param_hint="--stage")
    program = compiled(subject, settings, code, shapes)
    if style == "json":
        echo_json(explain_json(program, stage))
        return Exit.DONE
    show(program.diagnostics, program.plan.source)
    click.echo(explained(program, stage), nl=False)
    return Exit.DONE


def _probe(program: Program, delta: str, share: str, seeds: int, style: str) -> int:
    """Prices on stdout, the short runs on stderr."""
    from prunelang.probe import ProbeFailed, fraction
    from prunelang.progress import shown
    from prunelang.signals import stop_on_signals

    step, length = (_share(fraction, text, name) for text, name in ((delta, "--delta"), (share, "--share")))
    if step == 1:
        raise click.BadParameter("a bound that is moved by all of itself is 0", param_hint="--delta")
    program.require_runnable()
    with shown(quiet=False) as display, stop_on_signals() as stop:
        display.diagnostics(program.diagnostics, program.plan.source)
        try:
            found = program.probe(delta=step, share=length, seeds=seeds, observe=display.observe, stop=stop)
        except ProbeFailed as error:
            display.failed(str(error))
            return Exit.INTERRUPTED if error.interrupted else Exit.NUMERICAL
        display.diagnostics(found.skipped, program.plan.source)
    if style == "json":
        echo_json(found.to_json())
    else:
        click.echo(found.text(), nl=False)
    return Exit.DONE


def _share(read_share: Callable[[str], Fraction], text: str, option: str) -> Fraction:
    try:
        value = read_share(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error
    if not 0 < value <= 1:
        raise click.BadParameter(f"{text} is not between 0 and 100%", param_hint=option)
    return value


@cli.command()
@click.argument("path", metavar="SPEC")
@options_compile
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="run directory; runs/NAME by default")
@option_seed
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, …")
@option_dtype
@click.option("--deterministic", is_flag=True, help="deterministic algorithms: same machine type, same bits")
@click.option("--quiet", is_flag=True, help="no progress")
@option_format
def run(
    path: str, settings: tuple[str, ...], code: tuple[str, ...], shapes: Path | None, out: Path | None, seed: int,
    device: str, dtype: str, deterministic: bool, quiet: bool, style: str,
) -> int:  # fmt: skip
    """Train under the constraints, save, and certify what was saved."""
    from prunelang.progress import shown
    from prunelang.report import result_json, result_text
    from prunelang.signals import stop_on_signals

    program = compiled(path, settings, code, shapes, dtype)
    program.require_runnable()
    _check_device(device)
    with shown(quiet) as display, stop_on_signals() as stop:
        display.diagnostics(program.diagnostics, program.plan.source)
        solution = program.run(
            out, seed=seed, device=device, deterministic=deterministic, observe=display.observe, stop=stop
        )
        if solution.failure:
            display.failed(f"{solution.failure}; the last good weights are in {solution.directory}")
        elif solution.interrupted:
            display.failed(f"interrupted; the last good weights are in {solution.directory}")
    if style == "json":
        echo_json(result_json(solution))
    else:
        click.echo(result_text(solution))
    if solution.failure:
        return Exit.NUMERICAL
    if solution.interrupted:
        return Exit.INTERRUPTED
    return Exit.DONE if solution.feasible else Exit.VIOLATED


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise Failure(f"device {device} cannot be used: {str(error).splitlines()[0]}", Exit.USAGE) from error


@cli.command()
@click.argument("path", metavar="SPEC")
@options_compile
@click.option("--target", type=click.Choice(["torch"]), default="torch", show_default=True, help="what it runs on")
@click.option("-o", "--output", type=FILE, help="file; stdout by default")
@option_seed
@option_dtype
def emit(
    path: str, settings: tuple[str, ...], code: tuple[str, ...], shapes: Path | None, target: str,
    output: Path | None, seed: int, dtype: str,
) -> None:  # fmt: skip
    """The same graph as a standalone script that needs torch alone."""
    from prunelang.emission import emit_program, write_script

    assert target == "torch"  # the only one there is
    emitted = emit_program(compiled(path, settings, code, shapes, dtype), seed=seed)
    if output is not None:
        for written in write_script(emitted, output):
            click.echo(f"wrote {written}")
        return
    if emitted.sidecar:
        message = f"the script reads {', '.join(emitted.sidecar)}, which has to lie beside it"
        raise Failure(message, Exit.USAGE, "give -o FILE: both are written into its folder")
    click.echo(emitted.script, nl=False)


@cli.command()
@click.argument("subject", type=click.Path(exists=True, path_type=Path), metavar="RUN|WEIGHTS")
@click.option("--spec", help="the spec, when a weights file is verified")
@click.option("--support", type=EXISTING, help="kept positions of the weights")
@click.option("--factors", type=EXISTING, help="what the weights are made of, such as factors.safetensors of a run")
@options_compile
@option_dtype
@option_format
def verify(
    subject: Path, spec: str | None, support: Path | None, factors: Path | None, settings: tuple[str, ...],
    code: tuple[str, ...], shapes: Path | None, dtype: str, style: str,
) -> int:  # fmt: skip
    """Recount every structural constraint of a run directory, or of a weights file against a spec."""
    from prunelang.verification import is_run, verify_directory, verify_file

    if subject.is_dir():
        if not is_run(subject):
            raise Failure(f"{subject} is no run directory: it holds no certificate.json", Exit.USAGE)
        if settings or any(given is not None for given in (spec, shapes, support, factors)):
            raise click.UsageError(
                "a run directory holds its own spec, params, shapes, support and factors: give it alone"
            )
        load_code(code)
        result = verify_directory(subject)
    elif spec is None:
        raise click.UsageError("give --spec FILE with a weights file, or verify a run directory")
    else:
        result = verify_file(subject, compiled(spec, settings, code, shapes, dtype), support, factors)
    if style == "json":
        echo_json(result.to_json())
    else:
        click.echo(result.text())
    return Exit.DONE if result.ok else Exit.VIOLATED


@cli.command()
@click.argument("run", type=FOLDER)
@option_format
def report(run: Path, style: str) -> int:
    """Asked, got, margin and price of every constraint of a run, as its certificate states them."""
    from prunelang.report import certificate_text
    from prunelang.verification import certificate_of

    certificate = certificate_of(run)
    if style == "json":
        echo_json(certificate.to_json())
    else:
        click.echo(certificate_text(certificate, run))
    return Exit.DONE if certificate.satisfied else Exit.VIOLATED


@cli.command()
@click.argument("run", type=FOLDER)
@click.option("--to", "target", type=click.Choice(FORMATS), default="best", show_default=True, help="per kernel")
@click.option("--bits", type=click.IntRange(1, 16), help="of coded: a value, 8 by default")
@click.option("--shrink", "shrunk", is_flag=True, help="as a smaller network: without empty units, or of factors")
@click.option("--with", "code", multiple=True, metavar="FILE|MODULE", help="of --shrink: code that registers networks")
@click.option("-o", "--output", type=FILE, help="RUN/weights.FORMAT.safetensors by default, RUN/weights.coded")
@option_format
@click.pass_context
def export(
    context: click.Context, run: Path, target: Any, bits: int | None, shrunk: bool, code: tuple[str, ...],
    output: Path | None, style: str,
) -> None:  # fmt: skip
    """Write the weights of a run in a format whose size is the number that `bytes` counts; or a smaller network."""
    if shrunk and (bits is not None or context.get_parameter_source("target") is ParameterSource.COMMANDLINE):
        raise click.UsageError("--shrink writes dense weights: leave out --to and --bits")
    if code and not shrunk:
        raise click.UsageError("--with is of --shrink alone: other formats need no code")
    written = _shrunk(run, output, code) if shrunk else _exported(run, target, output, bits)
    if style == "json":
        echo_json(written.to_json())
    else:
        click.echo(written.text())


def _exported(run: Path, target: Any, output: Path | None, bits: int | None) -> Written:
    from prunelang.verification import export_directory

    if bits is not None and target != "coded":
        raise click.UsageError(f"--bits is of --to coded alone: {target} keeps every value as it is")
    return export_directory(run, target, output, bits)


def _shrunk(run: Path, output: Path | None, code: tuple[str, ...]) -> WrittenShrunk:
    from prunelang.shrinking import shrink_directory

    load_code(code)
    return shrink_directory(run, output)


@cli.command()
@option_format
def doctor(style: str) -> None:
    """Versions, devices, threads, data: what to paste into a report."""
    from prunelang.doctor import facts, text

    if style == "json":
        echo_json(facts())
    else:
        click.echo(text(facts()))
