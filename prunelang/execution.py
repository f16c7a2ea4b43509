"""Running a program: from a plan to a run directory with certified weights."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunelang.compiler.graph import Graph, listing, to_json
from prunelang.compiler.lowering import lower
from prunelang.compiler.plan import ModelPlan, Plan, TeacherPlan
from prunelang.compiler.problem import Measured
from prunelang.dsl.diagnostics import Diagnostic, SpecError
from prunelang.runtime import evaluate, registry
from prunelang.runtime.certificate import Certificate, certify
from prunelang.runtime.data import Batches, Dataset
from prunelang.runtime.execute import run as execute
from prunelang.runtime.files import write_atomically
from prunelang.runtime.machine import Event, Interrupted, Machine, NumericalFailure
from prunelang.runtime.weights import load_weights, save_support, save_weights

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class RunOptions:
    """How a spec is run; nothing here changes what it means."""

    out: Path
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    deterministic: bool = False


@dataclass(frozen=True)
class Solution:
    """What a run hands back. `failure` names a numerical failure or an interruption; the weights are then the last good."""

    directory: Path
    weights: Path
    certificate: Certificate
    seconds: float
    failure: str | None = None
    interrupted: bool = False

    @property
    def feasible(self) -> bool:
        return self.certificate.satisfied


class Recorder:
    """Writes every event as a line of ``history.jsonl`` and passes it on."""

    def __init__(self, path: Path, forward: Callable[[Event], None]) -> None:
        self.file = path.open("w", encoding="utf-8")
        self.forward = forward
        self.start = time.perf_counter()

    def __call__(self, event: Event) -> None:
        stamped = {**event, "seconds": round(time.perf_counter() - self.start, 3)}
        self.file.write(json.dumps(stamped, ensure_ascii=False) + "\n")
        self.file.flush()
        self.forward(stamped)

    def close(self) -> None:
        self.file.close()


def load_data(plan: Plan, folder: Path, device: str, dtype: torch.dtype) -> Dataset:
    """The data set of a plan as the network reads it; a validation split is cut off only if something reads it."""
    data = registry.data[plan.data.constructor].load(folder, **plan.data.arguments)
    data = data.reshaped(plan.table.input_shape)
    if plan.data.reads_validation:
        data = data.split(plan.data.validation, plan.data.seed)
    splits = {
        name: replace(s, inputs=s.inputs.to(dtype) if s.inputs.is_floating_point() else s.inputs)
        for name, s in data.splits.items()
    }
    return replace(data, splits=splits).to(device)


def build(model: ModelPlan | TeacherPlan, plan: Plan, folder: Path, device: str, dtype: torch.dtype) -> nn.Module:
    """The network with its starting weights."""
    net = registry.models[model.constructor].build(**model.arguments).to(dtype)
    if model.weights is not None:
        table = plan.table if isinstance(model, ModelPlan) else None
        arrays = load_weights(folder / model.weights, table)
        net.load_state_dict({k: torch.from_numpy(v).to(dtype) for k, v in arrays.items()})
    return net.to(device)


@contextmanager
def _numerics(deterministic: bool):  # type: ignore[no-untyped-def]  # a generator-based context manager
    before = torch.are_deterministic_algorithms_enabled()
    if deterministic:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


class Session:
    """A plan with its data, network and graph on a device: what `run` executes and tests take apart."""

    def __init__(self, plan: Plan, folder: Path, options: RunOptions) -> None:
        self.plan, self.options = plan, options
        dtype = DTYPES[options.dtype]
        self.data = load_data(plan, folder, options.device, dtype)
        self.graph: Graph = lower(plan, train_size=len(self.data.train))
        torch.manual_seed(options.seed)
        self.model = build(plan.model, plan, folder, options.device, dtype)
        self.teachers = {t.name: build(t, plan, folder, options.device, dtype).eval() for t in plan.teachers}
        for teacher in self.teachers.values():
            teacher.requires_grad_(False)
        self.feed = Batches(self.data.train, plan.data.batch, options.seed)

    def machine(self, observe: Callable[[Event], None], stop: Callable[[], bool]) -> Machine:
        return Machine(
            graph=self.graph,
            model=self.model,
            feed=self.feed,
            criterion=lambda loss: evaluate.criterion_of(loss, self.teachers),
            observe=observe,
            stop=stop,
        )

    def measure(self, function: Measured) -> evaluate.Outcome:
        return evaluate.measure(function, self.model, self.data, self.teachers)


def run(
    plan: Plan,
    folder: Path,
    options: RunOptions,
    observe: Callable[[Event], None] = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
) -> Solution:
    """Train, save, reload, measure and certify. A failed run still leaves its last good weights and a certificate."""
    start = time.perf_counter()
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    session = Session(plan, folder, options)
    write_atomically(out / "spec.prune", plan.source.text.encode())
    write_atomically(out / "shapes.json", plan.table.dumps().encode())
    write_atomically(out / "graph.txt", listing(session.graph).encode())
    write_atomically(out / "graph.json", json.dumps(to_json(session.graph), ensure_ascii=False, indent=1).encode())
    recorder = Recorder(out / "history.jsonl", observe)
    failure: str | None = None
    interrupted = False
    with _numerics(options.deterministic):
        machine = session.machine(recorder, stop)
        try:
            execute(machine)
        except NumericalFailure as error:
            failure = f"{error} ({error.where})"
        except Interrupted:
            interrupted = True
        weights = save_weights(out, session.model, plan.table)
        supports = save_support(out, machine)
        # what is certified is what was saved: measure the file, not the memory
        reload(session.model, weights, plan)
        certificate = conclude(session, machine, weights, supports, options, failure, interrupted)
    recorder({"event": "certified", "status": certificate.status})
    recorder.close()
    return Solution(out, weights, certificate, time.perf_counter() - start, failure, interrupted)
