"""`prune resume`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prunelang.console import Failure, load_code
from prunelang.exits import Exit
from prunelang.flags import FOLDER, echo_json, option_format

if TYPE_CHECKING:
    from prunelang.execution import Solution


@click.command()
@click.argument("run", type=FOLDER, metavar="DIR")
@click.option("--accept-change", is_flag=True, help="go on although the spec means something else, or torch is another")
@click.option("--with", "code", multiple=True, metavar="FILE|MODULE", help="the code that the run was given")
@click.option("--quiet", is_flag=True, help="no progress")
@option_format
def resume(run: Path, accept_change: bool, code: tuple[str, ...], quiet: bool, style: str) -> int:
    """Go on with a run from its last checkpoint, to the same end as without the stop."""
    from prunelang.progress import shown
    from prunelang.resuming.record import status_of
    from prunelang.resuming.resume import resume as resumed
    from prunelang.signals import stop_on_signals

    load_code(code)
    before = status_of(run)
    with refusals(Exit.RESUME_REFUSED), _code_named(run, code):
        with shown(quiet) as display, stop_on_signals() as stop:
            solution = resumed(
                run, accept_change=accept_change, observe=display.observe, stop=stop, warn=display.warned
            )
            if before == "finished":
                display.text(f"prune: the run in {run} has finished: nothing is left to do")
            ended(solution, display.failed)
        return conclude(solution, style)


@contextmanager
def refusals(code: Exit) -> Iterator[None]:
    """What refuses to run or to go on becomes a message and `code`; a folder without a run is a wrong command line."""
    from prunelang.resuming.record import ResumeRefused

    try:
        yield
    except ResumeRefused as error:
        exit_code = Exit.USAGE if error.code == "P529" else code
        raise Failure(f"error[{error.code}]: {error.message}", exit_code, error.hint) from error


@contextmanager
def _code_named(run: Path, code: tuple[str, ...]) -> Iterator[None]:
    """A spec whose names are not registered: a file never names code, so that has to be given again."""
    from prunelang.dsl.diagnostics import SpecError
    from prunelang.resuming.record import read_record

    try:
        yield
    except SpecError:
        given = read_record(run).code
        if given and not code:
            shown = " ".join(f"--with {c}" for c in given)
            click.echo(f"prune: the run was given {shown}; give it to `prune resume` too", err=True)
        raise


def ended(solution: Solution, failed: Callable[[str], None]) -> None:
    """Says why a run ended early, if it did."""
    if solution.failure:
        failed(f"{solution.failure}; the last good weights are in {solution.directory}")
    elif solution.interrupted:
        failed(f"interrupted; the last good weights are in {solution.directory}")


def conclude(solution: Solution, style: str) -> int:
    """What a run prints in the end, however often it was resumed, and its exit code."""
    from prunelang.report import result_json, result_text

    if style == "json":
        echo_json(result_json(solution))
    else:
        click.echo(result_text(solution))
    if solution.failure:
        return Exit.NUMERICAL
    if solution.interrupted:
        return Exit.INTERRUPTED
    return Exit.DONE if solution.feasible else Exit.VIOLATED
