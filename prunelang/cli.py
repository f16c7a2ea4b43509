"""`prune`: the command line. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import sys
from dataclasses import replace
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
from prunelang.flags import (
    EXISTING,
    FILE,
    FOLDER,
    FOLDERS,
    check_device,
    echo_json,
    option_device,
    option_dtype,
    option_format,
    option_seed,
    options_compile,
)
from prunelang.resuming.command import resume
from prunelang.seeing import explain, report, sweep

if TYPE_CHECKING:
    from prunelang.shrinking import WrittenShrunk
    from prunelang.verification import Written

EPILOG = "\b\nExit codes:\n" + table()
FORMATS = ["best", "dense", "bitmask", "csr", "coded"]


def main() -> None:
    """Entry point: every way out has one of the exit codes of `prunelang.exits`."""
    sys.exit(guarded(lambda: cli.main(standalone_mode=False, prog_name="prune")))


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="prunelang", prog_name="prune")
def cli() -> None:
    """State a compression problem, prove what can be proved, train, and get certified weights."""


for _command in (explain, report, resume, sweep):
    cli.add_command(_command)


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
@click.argument("path", metavar="SPEC")
@options_compile
@click.option("--out", type=FOLDERS, help="run directory; runs/NAME by default")
@option_seed
@option_device
@option_dtype
@click.option("--deterministic", is_flag=True, help="deterministic algorithms: same machine type, same bits")
@click.option(
    "--checkpoint-every",
    "every",
    default="5",
    show_default=True,
    metavar="MINUTES|Nepochs",
    help="how often the state is saved between the ends of stages, for `prune resume`",
)
@click.option("--restart", is_flag=True, help="begin anew where the folder holds a run that has not finished")
@click.option("--tensorboard", "board", type=FOLDERS, help="write losses, constraints and prices for TensorBoard there")
@click.option("--quiet", is_flag=True, help="no progress")
@option_format
def run(
    path: str, settings: tuple[str, ...], code: tuple[str, ...], shapes: Path | None, out: Path | None, seed: int,
    device: str, dtype: str, deterministic: bool, every: str, restart: bool, board: Path | None, quiet: bool,
    style: str,
) -> int:  # fmt: skip
    """Train under the constraints, save, and certify what was saved."""
    from prunelang.progress import shown
    from prunelang.resuming.command import conclude, ended, refusals
    from prunelang.resuming.every import Every
    from prunelang.signals import stop_on_signals
    from prunelang.tensorboards import both, tensorboard

    try:
        Every.parse(every)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--checkpoint-every") from error
    program = replace(compiled(path, settings, code, shapes, dtype), code=code)
    program.require_runnable()
    check_device(device)
    with refusals(Exit.USAGE), tensorboard(board) as scalars, shown(quiet) as display, stop_on_signals() as stop:
        display.diagnostics(program.diagnostics, program.plan.source)
        solution = program.run(
            out, seed=seed, device=device, deterministic=deterministic, checkpoint_every=every, restart=restart,
            observe=display.observe if board is None else both(display.observe, scalars), stop=stop,
        )  # fmt: skip
        ended(solution, display.failed)
    return conclude(solution, style)


@cli.command()
@click.argument("path", metavar="SPEC")
@options_compile
@click.option(
    "--target", type=click.Choice(["torch", "notebook"]), default="torch", show_default=True, help="script, or notebook"
)
@click.option("-o", "--output", type=FILE, help="file; stdout by default")
@option_seed
@option_dtype
def emit(
    path: str, settings: tuple[str, ...], code: tuple[str, ...], shapes: Path | None, target: str,
    output: Path | None, seed: int, dtype: str,
) -> None:  # fmt: skip
    """The same graph as a standalone script that needs torch alone."""
    from prunelang.compiler.codegen.notebook import notebook
    from prunelang.emission import emit_program, write_script

    emitted = emit_program(compiled(path, settings, code, shapes, dtype), seed=seed)
    if target == "notebook":
        emitted = replace(emitted, script=notebook(emitted.script))
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
