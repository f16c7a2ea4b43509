"""The sweep itself: what has to be run, in this process or in several."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelang.dsl.spans import Source
from prunelang.runtime.files import FileProblem
from prunelang.sweeping import worker
from prunelang.sweeping.grid import OWN, Cell, grid_of
from prunelang.sweeping.plan import Planned, planned
from prunelang.sweeping.row import Row
from prunelang.sweeping.table import Sweep
from prunelang.sweeping.worker import Settings

if TYPE_CHECKING:
    from prunelang.api import ParamValue
    from prunelang.compiler.shapes import ShapeTable
    from prunelang.runtime.machine import Event

LOCK = "sweep.lock"
POLL = 0.2  # seconds between looks at whether to stop


def sweep(
    spec: str | Path,
    values: Mapping[str, Sequence[ParamValue]] | None = None,
    *,
    solvers: Sequence[str] = (OWN,),
    seeds: int | Iterable[int] = 1,
    jobs: int = 1,
    out: str | Path | None = None,
    x: str | None = None,
    y: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    deterministic: bool = False,
    chain: bool = False,
    replace: bool = False,
    plot: bool = True,
    code: Sequence[str] = (),
    shapes: ShapeTable | None = None,
    observe: Callable[[Event], None] = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
) -> Sweep:
    """Run a spec for every combination of `values`, every solver and every seed, and compare the outcomes.

    `values` gives params several values each, `solvers` names what stands in for the spec's own `solve` (``"spec"`` is
    that itself, ``"lc(steps = 10)"`` has options), `seeds` is how many, or which. Finished runs under `out`
    (``sweeps/NAME`` by default) are read, not repeated. With `jobs` > 1 runs have processes of their own, which load
    `code` as ``--with`` does. With `chain` each run starts from the result before it along the one swept param. `x` and
    `y` are params, constraints or report items.

    Writes results.csv, results.json and, where `plot`, pareto.svg. Raises `SpecError` for errors of the spec, P560 to
    P565; `ResumeRefused` P562; `FileProblem` P566 to P568; ValueError for an empty list or an item that stands twice.
    What single runs meet is in their rows.
    """
    from prunelang.api import _literal, read_source

    if isinstance(spec, str) and "\n" in spec:
        source, folder = Source(spec, "<text>"), Path.cwd()
    else:
        source, folder = read_source(Path(spec)), Path(spec).parent
    texts = {name: [_literal(v, declared(source, name)) for v in given] for name, given in (values or {}).items()}
    return sweep_source(
        source,
        Settings(source.name, folder, device, dtype, deterministic, shapes),
        texts,
        solvers=solvers,
        seeds=range(seeds) if isinstance(seeds, int) else tuple(seeds),
        jobs=jobs,
        out=default_out(source) if out is None else Path(out),
        axes=(x, y),
        chained=chain,
        replaced=replace,
        plot=plot,
        code=code,
        observe=observe,
        stop=stop,
    )


def declared(source: Source, name: str) -> Any:
    """The `param` of that name, if there is one."""
    from prunelang.dsl import tree
    from prunelang.dsl.names import canonical
    from prunelang.dsl.parser import parse

    statements = parse(source.text, source.name).statements
    return next((s for s in statements if isinstance(s, tree.Param) and s.name == canonical(name)), None)


def default_out(source: Source) -> Path:
    """``sweeps/NAME`` for NAME.prune; ``sweeps/text`` and ``sweeps/stdin`` for what came without a file."""
    name = source.name
    return Path("sweeps") / (name.strip("<>") if name.startswith("<") else Path(name).stem)


def sweep_source(
    source: Source,
    settings: Settings,
    values: Mapping[str, Sequence[str]],
    *,
    solvers: Sequence[str],
    seeds: Iterable[int],
    jobs: int,
    out: Path,
    axes: tuple[str | None, str | None],
    chained: bool,
    replaced: bool,
    plot: bool,
    code: Sequence[str],
    observe: Callable[[Event], None],
    stop: Callable[[], bool],
) -> Sweep:
    """`sweep` of a text at hand, with values as a spec writes them."""
    if jobs < 1:
        raise ValueError(f"a sweep has at least one job, not {jobs}")
    if plot:
        from prunelang.sweeping.plot import require

        require()
    grid = grid_of(values, solvers, seeds)
    work = planned(source, grid, settings, out, code=code, chained=chained, replaced=replaced)
    found = Sweep(source.name, out, grid, (), axes, work.problem)
    found.require_axes()
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        done: dict[Cell, Row] = {}
        for row in work.known.values():
            done[row.cell] = row
            _tell(observe, row, len(done), len(grid))
        for row in _performed(work, min(jobs, len(work.tasks)), tuple(code), stop, observe):
            done[row.cell] = row
            _tell(observe, row, len(done), len(grid))
            found.with_rows(done).write(plot=False)
        found = found.with_rows(done)
        found.write(plot=plot)
    return found


def _tell(observe: Callable[[Event], None], row: Row, at: int, of: int) -> None:
    observe({"event": "swept", "run": at, "runs": of, "reused": row.reused, **row.to_json()})


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """One sweep a directory: the lock is the system's, and goes with the process. Errors: `FileProblem` P566."""
    with (out / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FileProblem(
                "P566", f"another sweep is at work in {out}", "Wait for it, or give another --out."
            ) from error
        yield


# ── performing ───────────────────────────────────────────────────────────────────────────────────────────────────


def _performed(
    work: Planned, jobs: int, code: tuple[str, ...], stop: Callable[[], bool], observe: Callable[[Event], None]
) -> Iterator[Row]:
    """Rows of the tasks as they come to their ends."""
    for item in work.pretrainings:
        observe({"event": "pretraining", "seed": item.task.cell.seed, "shared": item.folder.name})
    if jobs <= 1:
        yield from _here(work, stop)
    else:
        yield from _elsewhere(work, jobs, code, stop)


def _here(work: Planned, stop: Callable[[], bool]) -> Iterator[Row]:
    there = {item.folder: worker.pretrain(item, stop) for item in work.pretrainings}
    for chain in work.chains():
        tasks = tuple(_starting(task, there) for task in chain)
        yield from worker.chain(tasks, _before(work, chain), stop)


def _before(work: Planned, chain: tuple[worker.Task, ...]) -> tuple[Path | None, ...]:
    return tuple(work.before[task.cell] for task in chain)


def _starting(task: worker.Task, there: Mapping[Path, bool]) -> worker.Task:
    """The task; where what it should start from could not be trained, it tries that itself, and tells the outcome."""
    failed = task.pretrained is not None and not there.get(task.pretrained, True)
    return replace(task, pretrained=None) if failed else task


def _elsewhere(work: Planned, jobs: int, code: tuple[str, ...], stop: Callable[[], bool]) -> Iterator[Row]:
    """In processes. A chain starts as soon as what it starts from is trained."""
    context = get_context("spawn")
    asked = context.Event()
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=worker.begin, initargs=(asked, code))
    with single_threaded(), pool:
        waiting = work.chains()
        there: dict[Path, bool] = {}
        with undisturbed():
            pretrainings: dict[Future[Any], Path] = {
                pool.submit(worker.pretrain_in_worker, item): item.folder for item in work.pretrainings
            }
        trained = {item.folder for item in work.pretrainings}
        runs: dict[Future[Any], tuple[worker.Task, ...]] = {}
        try:
            while waiting or runs or pretrainings:
                for chain in list(waiting):
                    if all(t.pretrained not in trained or t.pretrained in there for t in chain):
                        waiting.remove(chain)
                        tasks = tuple(_starting(task, there) for task in chain)
                        with undisturbed():
                            runs[pool.submit(worker.perform_chain, tasks, _before(work, chain))] = chain
                if stop():
                    asked.set()
                for future in wait({*runs, *pretrainings}, POLL, FIRST_COMPLETED).done:
                    if future in pretrainings:
                        there[pretrainings.pop(future)] = future.result()
                    else:
                        del runs[future]
                        yield from future.result()
        except BrokenProcessPool as error:
            hint = "Finished runs are kept: start the sweep again, with fewer --jobs if memory ran out."
            raise FileProblem("P567", "a process of the sweep died", hint) from error
        except BaseException:
            asked.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextmanager
def undisturbed() -> Iterator[None]:
    """Processes started meanwhile never see SIGINT and SIGTERM, not even while they import; we see them afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Worker processes inherit one thread for every library that reads the variable when it is loaded."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
