"""`Stepper`: a program inside somebody else's training loop.

    stepper = program.bind(net, optimizer, loader=loader)
    for epoch in stepper.epochs():
        for x, y in loader:
            stepper.step(lambda: F.cross_entropy(net(x), y))
        stepper.epoch_end()
    solution = stepper.finish("runs/mine")

The mathematics is that of `Program.run`, executed by the same code: `drive` yields the descent that wants a batch, and
this loop gives it one. Hooks on the optimizer add gradients in closed form right before it moves, after accumulation,
unscaling and clipping, and do what follows a step right after.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from prunelang.binding import (
    BoundSession,
    Given,
    refusal,
    require_bindable,
    require_network,
    require_optimizer,
    require_same_algorithm,
    stages_of,
    unwrapped,
)
from prunelang.compiler.graph import listing, to_json
from prunelang.compiler.lowering import lower
from prunelang.execution import RunOptions, Solution
from prunelang.report import report_markdown
from prunelang.resuming.journal import STALE
from prunelang.resuming.record import RUN, ResumeRefused, locked, status_of
from prunelang.runtime.certificate import WEIGHTS
from prunelang.runtime.checkpoints.folder import numbers
from prunelang.runtime.checkpoints.state import dump, restore
from prunelang.runtime.descent import Descent
from prunelang.runtime.drive import drive
from prunelang.runtime.execute import execute
from prunelang.runtime.files import write_text
from prunelang.runtime.joined import BoundMachine, Joined
from prunelang.runtime.machine import Event, Interrupted, NumericalFailure

if TYPE_CHECKING:
    from prunelang.api import Program

FORMAT = 1  # of `state_dict`
SHORT = 0.1  # share of an epoch's steps that a scaler may have skipped unseen
Batch = TypeVar("Batch")


class Stepper:
    """A program under way in a loop of one's own; made by `Program.bind`.

    While it is bound, a step of the optimizer is a step of the program. `loss`, `epoch`, `stage`, `history` and `done`
    say where it is; after `finish` the optimizer and the network are the owner's again.
    """

    def __init__(self, program: Program, given: Given, seed: int, observe: Callable[[Event], None]) -> None:
        self.program, self.optimizer = program, given.optimizer
        self.history: list[dict[str, Any]] = []
        self._observe, self._begun = observe, time.perf_counter()
        device = next(unwrapped(given.model).parameters()).device
        deterministic = torch.are_deterministic_algorithms_enabled()
        self._options = RunOptions(Path(), seed, str(device), program.dtype, deterministic)
        self._session = BoundSession(program, given, self._options)
        self._machine = self._made()
        self._loss: Tensor | None = None
        self._masked: Tensor | None = None
        self._descent: Descent | None = None
        self._failure: str | None = None
        self._counted = self._seen = self._offset = 0  # steps: of all, of the pass, of the pass before the loop began
        self._waiting, self._fresh = False, True  # for `epoch_end`; no step since the program ended a pass
        self._hooks = (
            self.optimizer.register_step_pre_hook(self._before),
            self.optimizer.register_step_post_hook(self._after),
        )
        self._flushes = torch.set_flush_denormal(True) if not _flushed() else False
        self._start()

    # ── where it is ──

    @property
    def done(self) -> bool:
        """Whether all stages are over: what is left is `finish`."""
        return self._descent is None

    @property
    def stage(self) -> str:
        """``pretrain``, ``solve``, ``finetune`` or ``prune``; empty when `done`."""
        stages = stages_of(self._session.graph)
        return "" if self.done else stages[min(self._machine.frames[0].at, len(stages) - 1)]

    @property
    def epoch(self) -> int:
        """Passes over the data so far, over all stages."""
        return self._machine.epochs

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in a pass over the data."""
        return len(self._machine.feed)

    @property
    def clocks(self) -> Mapping[str, float]:
        """k, epoch, step and p of the loop under way, as schedules read them."""
        return dict(self._machine.clocks)

    @property
    def levels(self) -> Mapping[str, float]:
        """Penalty coefficients, thresholds and their like, by the names of `listing()`."""
        return dict(self._machine.levels)

    # ── driving it ──

    def epochs(self) -> Iterator[int]:
        """The number of every pass over the data, until the program is over."""
        while not self.done:
            yield self.epoch

    def batches(self, loader: Iterable[Batch] | None = None) -> Iterator[Any]:
        """The batches of this pass, of `loader` or of the spec's data in the order of `run`; a loop that counts steps
        may end within a pass, and these with it."""
        source: Iterable[Any] = self._machine.feed.epoch(self._machine.epochs) if loader is None else loader
        now = self._machine.epochs
        for batch in source:
            yield batch
            if self.done or self._machine.epochs != now:
                return

    def objective(self, outputs: Tensor, targets: Tensor, inputs: Tensor | None = None) -> Tensor:
        """The data terms of the stage under way, with their weights; `inputs` where a teacher reads them."""
        return self._under_way().loss(outputs, outputs if inputs is None else inputs, targets)

    def step(
        self,
        closure: Callable[[], Tensor] | None = None,
        *,
        loss: Tensor | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> Tensor | None:
        """One step of optimizer and program; returns the loss, detached.

        `closure` computes the loss of the data terms, and may call `backward` itself; without one the gradients are
        there already, as after accumulation, and `loss` is what there is to say of them. With `scaler` the loss is
        scaled, the optimizer stepped through it, and the scaler updated. Gradients are cleared afterwards.

        Raises `SpecError` P553 where an epoch has more steps than it was said to have, P555 when the program is over,
        `NumericalFailure` where numbers are no longer finite: the network is then that of the last good epoch.
        """
        self._under_way()
        if closure is not None:
            before = [p.grad for p in self._watched]
            versions = [None if g is None else g._version for g in before]
            loss = closure()
            grads = zip(self._watched, before, versions, strict=True)
            fresh = all(p.grad is g and (g is None or g._version == v) for p, g, v in grads)
            if fresh and loss.requires_grad:
                (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]  # torch's
        self._loss = None if loss is None else loss.detach()
        count = self._counted
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
            if self._counted == count:  # what is not finite was skipped
                self._skip()
        found, self._loss = self._loss, None
        return found

    def epoch_end(self) -> None:
        """The end of a pass over the data: what the program does between epochs, and between stages.

        Raises `SpecError` P553 where steps are missing, P555 when the program is over, `NumericalFailure`.
        """
        if self._fresh:  # the program has ended a pass by itself, or the program is over
            return
        descent = self._under_way(waiting=True)
        if not self._waiting:
            kept = self._place
            expected = self.steps_per_epoch - self._offset
            missing = expected - self._seen
            if missing > max(1, int(SHORT * expected)):
                raise refusal(
                    self.program, "P553", f"an epoch ended after {_steps(self._seen)}; {expected} were expected",
                    f"give `steps_per_epoch = {self._seen}`: optimizer steps, not batches",
                )  # fmt: skip
            if not self._offset:
                kept["done"] += missing
            descent.over = True
        self._turn()
        self._offset = 0

    # ── the end ──

    def finish(self, out: str | Path, *, early: bool = False) -> Solution:
        """Saves and certifies what the network holds, in a folder as `run` leaves it, and lets go of the optimizer.

        With `early` the program may be under way: it is then marked as interrupted, and the certificate says what
        holds. Raises `SpecError` P555 if it is not over and `early` is not given, `ResumeRefused` P527 for a folder
        with a run that has not finished.
        """
        interrupted = not self.done
        if interrupted and not early and self._failure is None:
            hint = "go on until `done`, or `finish(…, early=True)`"
            raise refusal(self.program, "P555", f"the program is not over: it is in `{self.stage}`", hint)
        if interrupted:
            self._course.close()
            self._machine.restore_good()
        self.detach()
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            if status_of(folder) not in (None, "finished") and numbers(folder):
                hint = f"`prune resume {folder}` goes on with it; give another folder"
                raise ResumeRefused("P527", f"{folder} holds a run that has not finished", hint)
            return self._conclude(folder, interrupted and self._failure is None)

    def detach(self) -> None:
        """Lets go of the optimizer: it moves the network as it did before."""
        for hook in self._hooks:
            hook.remove()
        if self._flushes:
            torch.set_flush_denormal(False)
            self._flushes = False

    def _conclude(self, out: Path, interrupted: bool) -> Solution:
        session, machine, graph = self._session, self._machine, self._session.graph
        for stale in (*STALE, RUN):  # of an earlier run: they would speak of other weights
            (out / stale).unlink(missing_ok=True)
        write_text(Path("graph.txt"), listing(graph), root=out)
        write_text(Path("graph.json"), json.dumps(to_json(graph), ensure_ascii=False, indent=1), root=out)
        session.save(out, machine)
        certificate = session.conclude(out, machine)
        self._event(
            {"event": "certified", "status": certificate.status, "failure": self._failure, "interrupted": interrupted}
        )
        lines = "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in self.history)
        write_text(Path("history.jsonl"), lines, root=out)
        emptied = tuple(x.name for x in self.program.plan.table.layers if not machine.tensors[x.weight].any())
        seconds = time.perf_counter() - self._begun
        solution = Solution(out, out / WEIGHTS, certificate, seconds, self._failure, interrupted, emptied)
        source = self.program.plan.source
        write_text(Path("report.md"), report_markdown(solution, source.text, source.name), root=out)
        return solution

    # ── state ──

    def state_dict(self) -> dict[str, Any]:
        """Everything: the network, moments, duals, copies, thresholds, schedules, the place in the program.

        Plain data and tensors, for `torch.save`, safetensors beside JSON, or a framework's own checkpoint.
        """
        if self._descent is not None:
            self._descent.note(self._place)
        machine = self._machine
        own = machine.optimizers
        machine.optimizers = {n: o for n, o in own.items() if not isinstance(o, Joined)}
        try:
            plain, tensors = dump(machine)
        finally:
            machine.optimizers = own
        joined = {n: o.saved() for n, o in own.items() if isinstance(o, Joined)}
        return {
            "format": FORMAT,
            "program": self._session.graph.digest(),
            "plain": plain,
            "tensors": {n: t.detach().clone() for n, t in tensors.items()},
            "joined": joined,
            "pass": [self._seen, self._offset, self._waiting, self._fresh],
            "history": list(self.history),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was called, with the network as it was then. Raises `SpecError` P556 for the state
        of another program."""
        if state.get("format") != FORMAT or state.get("program") != self._session.graph.digest():
            raise refusal(self.program, "P556", "this state is of another program", "bind the program that it is of")
        self._course.close()
        machine = self._machine = self._made()
        restore(machine, state["plain"], state["tensors"])
        for name, saved in state["joined"].items():
            joined = machine.join(name)
            if len(joined.param_groups) == len(saved["groups"]):
                machine.optimizers[name] = joined
                joined.put(saved)
        self.history = list(state["history"])
        self._start(again=True)
        self._seen, self._offset, self._waiting, self._fresh = state["pass"]

    # ── inside ──

    def _made(self) -> BoundMachine:
        session, given = self._session, self._session.given
        base = session.machine(self._event, lambda: False)
        names = ("graph", "model", "feed", "criterion", "observe", "measure", "each", "activity", "samples", "stop")
        handed = {name: getattr(base, name) for name in names}
        return BoundMachine(**handed, owner=given.optimizer, rates=given.rates == "spec")

    def _start(self, again: bool = False) -> None:
        self._descent = self._failure = None
        self._counted = self._seen = self._offset = 0
        self._waiting, self._fresh = False, True
        self._watched = [p for g in self.optimizer.param_groups for p in g["params"]]
        self._course = drive(self._machine, execute)
        self._next()

    def _event(self, event: Event) -> None:
        stamped = {**event, "seconds": round(time.perf_counter() - self._begun, 3)}
        self.history.append(stamped)
        self._observe(stamped)

    @property
    def _place(self) -> dict[str, Any]:
        place = self._machine.frames[-1].kept
        assert place is not None
        return place

    def _under_way(self, waiting: bool = False) -> Descent:
        if self._failure is not None:
            raise refusal(self.program, "P555", f"the program has failed: {self._failure}")
        if self._descent is None:
            raise refusal(self.program, "P555", "the program is over", "call `finish`; loop `while not stepper.done`")
        if self._waiting and not waiting:
            message = f"an epoch has {_steps(self.steps_per_epoch)}, and this would be one more"
            raise refusal(self.program, "P553", message, "call `epoch_end()` after each, or give `steps_per_epoch`")
        return self._descent

    def _next(self) -> None:
        """The program up to where it wants the next batch."""
        epochs = self._machine.epochs
        try:
            self._descent = next(self._course, None)
        except (NumericalFailure, Interrupted) as error:
            self._machine.restore_good()
            self._failure = f"{error} ({error.where})" if isinstance(error, NumericalFailure) else str(error)
            raise
        if self._machine.epochs != epochs:
            self._fresh = True
        if self._descent is not None:
            self._descent.open()

    def _turn(self) -> None:
        self._waiting = False
        self._next()
        self._seen = 0
        self._fresh = True

    def _before(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Right before the optimizer moves, or inside it after the closure that it evaluates."""
        self._under_way()
        joined = self._joined()
        joined.take_back()
        own = args[1] if len(args) > 1 else kwargs.get("closure")
        if own is None:
            self._complete(self._loss)
            return None

        def closure() -> Any:
            loss = own()
            self._complete(loss.detach() if isinstance(loss, Tensor) else None)
            return loss

        return (args[:1], {**kwargs, "closure": closure})

    def _joined(self) -> Joined:
        joined = self._machine.joined
        assert joined is not None
        return joined

    def _complete(self, loss: Tensor | None) -> None:
        joined, descent = self._joined(), self._under_way()
        joined.unscale()
        self._masked = descent.complete(loss)
        joined.lend(None if loss is None else self._masked)

    def _after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._joined().take_back()
        assert self._masked is not None
        self._follow(self._masked)

    def _skip(self) -> None:
        """A step that a scaler kept the optimizer from: clocks go on, weights do not."""
        self._follow(torch.ones((), device=next(iter(self._machine.tensors.values())).device))

    def _follow(self, masked: Tensor) -> None:
        descent = self._under_way()
        descent.follow(masked, descent.coming)
        self._counted += 1
        self._seen += 1
        self._fresh = False
        if self._place["cursor"] + 1 >= self.steps_per_epoch:
            self._waiting = True
            return
        epochs, seen = self._machine.epochs, self._seen
        self._next()
        if self._machine.epochs != epochs:  # a loop that counts steps has ended within the pass
            self._offset, self._seen = (self._offset + seen) % self.steps_per_epoch, 0


def _steps(count: int) -> str:
    return f"{count} step" + ("" if count == 1 else "s")


def _flushed() -> bool:
    smallest = torch.full((), 5e-324, dtype=torch.float64)
    return float(smallest * 1.0) == 0.0


def bind(
    program: Program,
    given: Given,
    seed: int,
    observe: Callable[[Event], None],
) -> Stepper:
    """Checks everything that was handed over, then binds it."""
    program.require_runnable()
    graph = lower(program.plan, train_size=program.plan.data.batch)  # the same steps, whatever the number of samples
    require_bindable(program, graph)
    net: nn.Module = unwrapped(given.model)
    require_network(program, graph, net)
    require_optimizer(program, graph, net, given.optimizer)
    if given.rates == "spec":
        require_same_algorithm(program, given.optimizer)
    return Stepper(program, given, seed, observe)
