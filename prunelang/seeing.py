"""The commands to look at things with: `explain`, `sweep` and `report`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from prunelang.console import Failure, compiled, load_code, read, shape_table, show
from prunelang.exits import Exit
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
    options_compile,
)

if TYPE_CHECKING:
    from prunelang.api import Program

DRAWN = {"latex": "problem", "mermaid": "graph"}


@click.command()
@click.argument("subject", metavar="SPEC|CODE")
@click.option("--stage", default="all", help="spec, problem, proofs, solver or graph; all by default")
@click.option("--probe", "probing", is_flag=True, help="prices, from short runs with every upper bound moved")
@click.option("--delta", default="10%", show_default=True, help="of --probe: by how much bounds are moved")
@click.option("--share", default="25%", show_default=True, help="of --probe: length of its runs")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="of --probe: runs a bound")
@options_compile
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "latex", "mermaid"]),
    default="text",
    help="text; JSON with a format_version; the problem as LaTeX; the graph as a Mermaid flowchart",
)
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
    if style in DRAWN and (probing or is_code(subject) or stage not in ("all", DRAWN[style])):
        raise click.UsageError(f"--format {style} prints the {DRAWN[style]} of a spec, and nothing else")
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
    if style in DRAWN:
        click.echo(_drawn(program, style), nl=False)
        return Exit.DONE
    show(program.diagnostics, program.plan.source)
    click.echo(explained(program, stage), nl=False)
    return Exit.DONE


def _drawn(program: Program, style: str) -> str:
    """The problem or the graph in another notation."""
    from prunelang.notation.latex import latex
    from prunelang.notation.mermaid import mermaid

    return latex(program.plan) if style == "latex" else mermaid(program.graph)


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


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--html", "as_page", is_flag=True, help="a self-contained page with curves, layers and the problem")
@click.option("-o", "--output", type=FILE, help="of --html: RUN/report.html by default")
@click.option("--with", "code", multiple=True, metavar="FILE|MODULE", help="of --html: code that registers networks")
@option_format
def report(run: Path, as_page: bool, output: Path | None, code: tuple[str, ...], style: str) -> int:
    """Asked, got, margin and price of every constraint of a run, as its certificate states them."""
    from prunelang.report import certificate_text
    from prunelang.verification import certificate_of

    if as_page:
        if style == "json":
            raise click.UsageError("--html writes a page: leave out --format json")
        return _page(run, output, code)
    if output is not None or code:
        raise click.UsageError(f"{'-o' if output is not None else '--with'} is of --html alone")
    certificate = certificate_of(run)
    if style == "json":
        echo_json(certificate.to_json())
    else:
        click.echo(certificate_text(certificate, run))
    return Exit.DONE if certificate.satisfied else Exit.VIOLATED


def _page(run: Path, output: Path | None, code: tuple[str, ...]) -> int:
    """Write the page; it is there for runs without a certificate too."""
    from prunelang.page.render import report_page
    from prunelang.runtime.files import write_text
    from prunelang.verification import certificate_of, is_run

    load_code(code)
    target = run / "report.html" if output is None else output
    write_text(Path(target.name), report_page(run), root=target.parent)
    click.echo(f"wrote {target}")
    return Exit.DONE if is_run(run) and certificate_of(run).satisfied else Exit.VIOLATED


@click.command()
@click.argument("path", metavar="SPEC")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE,…", help="values of a param; several --set are combined"
)
@click.option("--solvers", metavar="NAME,…", help="in place of the spec's `solve`; `spec` is that itself, the default")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="runs of each combination")
@click.option("--jobs", type=click.IntRange(1), help="runs at a time; as many as there are cores on the CPU, else 1")
@click.option("--out", type=FOLDERS, help="directory; sweeps/NAME by default")
@click.option("--x", metavar="NAME", help="cost of the plot: a report item, a constraint or a param")
@click.option("--y", metavar="NAME", help="quality of the plot")
@click.option("--plot/--no-plot", default=True, help="draw pareto.svg, which needs matplotlib")
@click.option("--chain", "chained", is_flag=True, help="start from the result before, along the one swept param")
@click.option("--replace", "replaced", is_flag=True, help="run again what was finished with another meaning")
@click.option("--deterministic", is_flag=True, help="deterministic algorithms: same machine type, same bits")
@click.option("--quiet", is_flag=True, help="no progress")
@click.option("--with", "code", multiple=True, metavar="FILE|MODULE", help="code that registers networks, data, losses")
@click.option("--shapes", type=EXISTING, help="a saved shape table")
@option_device
@option_dtype
@option_format
def sweep(
    path: str, settings: tuple[str, ...], solvers: str | None, seeds: int, jobs: int | None, out: Path | None,
    x: str | None, y: str | None, plot: bool, chained: bool, replaced: bool, deterministic: bool, quiet: bool,
    code: tuple[str, ...], shapes: Path | None, device: str, dtype: str, style: str,
) -> int:  # fmt: skip
    """Runs over budgets, solvers and seeds; finished ones are not repeated."""
    from prunelang.progress import shown
    from prunelang.resuming.command import refusals
    from prunelang.signals import stop_on_signals
    from prunelang.sweeping import grid
    from prunelang.sweeping.run import default_out, sweep_source
    from prunelang.sweeping.worker import Settings

    load_code(code)
    source, folder = read(path)
    check_device(device)
    table = None if shapes is None else shape_table(shapes)
    named = (grid.OWN,) if solvers is None else grid.listed(solvers)
    try:
        values = grid.settings(settings)
        grid.grid_of(values, named)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with shown(quiet) as display, stop_on_signals() as stop, refusals(Exit.RESUME_REFUSED):
        found = sweep_source(
            source,
            Settings(source.name, folder, device, dtype, deterministic, table),
            values,
            solvers=named,
            seeds=range(seeds),
            jobs=jobs or (_cores() if device == "cpu" else 1),
            out=default_out(source) if out is None else out,
            axes=(x, y),
            chained=chained,
            replaced=replaced,
            plot=plot,
            code=code,
            observe=display.observe,
            stop=stop,
        )
    if style == "json":
        echo_json(found.to_json())
    else:
        click.echo(found.text())
    return found.exit


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
