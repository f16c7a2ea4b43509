"""Networks that several runs of a sweep start from: trained once for each seed, and shared.

What is kept is all that a `pretrain` leaves behind: every tensor of the network, how many epochs of data were drawn,
and the state of torch's random numbers. A run that starts from it gives the bits that it gives where it trains itself.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelang.compiler.graph import Phase
from prunelang.runtime.files import FileProblem, digest, parse_json, read, read_text, write_atomically, write_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from prunelang.compiler.graph.base import Step
    from prunelang.execution import Session
    from prunelang.runtime.machine import Event, Machine

STATE, TENSORS = "state.json", "tensors.safetensors"
HOST, DEVICE = "random numbers of the host", "random numbers of the device"
FORMAT_VERSION = 1


def is_there(folder: Path, identity: str) -> bool:
    """Whether a whole state of that identity lies in the folder."""
    try:
        state = _state(folder)
        return bool(state["identity"] == identity and digest(read(folder / TENSORS)) == state["tensors_hash"])
    except FileProblem:
        return False


def train(
    session: Session, folder: Path, identity: str, observe: Callable[[Event], None], stop: Callable[[], bool]
) -> None:
    """Execute the leading `pretrain` stages and keep the state they end in.

    Raises what the executor raises: `NumericalFailure`, `Interrupted`; then nothing is kept.
    """
    from prunelang.runtime.execute import run as execute

    program = session.graph.program
    events: list[Event] = []

    def record(event: Event) -> None:
        events.append(dict(event))
        observe(event)

    machine = session.machine(record, stop)
    machine.graph = replace(session.graph, program=program[: _leading(program)])
    execute(machine)
    tensors = {f"network/{name}": t.detach().cpu().contiguous() for name, t in machine.tensors.items()}
    content = _packed(tensors | _random(session.options.device))
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_atomically(Path(TENSORS), content, root=folder)
    state = {
        "format_version": FORMAT_VERSION,
        "identity": identity,
        "epochs": machine.epochs,
        "tensors_hash": digest(content),
        "history": events,
    }
    write_text(Path(STATE), json.dumps(state, ensure_ascii=False, allow_nan=False), root=folder)


def enter(session: Session, machine: Machine, folder: Path) -> None:
    """Put a machine where its leading `pretrain` stages would leave it; its program goes on from there.

    Errors: `FileProblem` P510, P512, P517.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from prunelang.runtime.machine import Frame
    from prunelang.runtime.thresholds import history

    state, content = _state(folder), read(folder / TENSORS)
    if digest(content) != state["tensors_hash"]:
        raise FileProblem("P517", f"{folder / TENSORS} was changed after it was written")
    try:
        found = load(content)
    except SafetensorError as error:
        raise FileProblem("P512", f"{folder / TENSORS} cannot be read: {error}") from error
    with torch.no_grad():
        for name, t in machine.tensors.items():
            t.copy_(found[f"network/{name}"])
    machine.epochs = int(state["epochs"])
    torch.set_rng_state(found[HOST])
    if DEVICE in found:
        torch.cuda.set_rng_state(found[DEVICE], session.options.device)
    machine.ahead = [Frame(at=_leading(machine.graph.program))]
    machine.keep_good()
    for event in state["history"]:  # levels are those of this solver's graph, all 0 before it
        machine.observe({**event, "levels": history(machine)} if "levels" in event else event)


def start_from(machine: Machine, weights: Path) -> None:
    """Give the network the weights of another run, and leave out what is trained before the first `solve`.

    Errors: `FileProblem` P510, P512.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from prunelang.runtime.machine import Frame

    try:
        found = load(read(weights))
    except SafetensorError as error:
        raise FileProblem("P512", f"{weights} cannot be read: {error}") from error
    with torch.no_grad():
        for name, t in machine.tensors.items():
            if name in found:
                t.copy_(found[name])
    machine.ahead = [Frame(at=_leading(machine.graph.program))]
    machine.keep_good()


def _leading(program: tuple[Step, ...]) -> int:
    """How many `pretrain` stages a program begins with."""
    others = (i for i, step in enumerate(program) if not (isinstance(step, Phase) and step.name == "pretrain"))
    return next(others, len(program))


def _random(device: str) -> dict[str, Tensor]:
    import torch

    host = {HOST: torch.get_rng_state()}
    return host | ({DEVICE: torch.cuda.get_rng_state(device)} if device.startswith("cuda") else {})


def _packed(tensors: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save

    # tensors that share their numbers, as tied weights do, are written as often as they have names
    return save({name: t.clone() for name, t in tensors.items()})


def _state(folder: Path) -> dict[str, Any]:
    """Errors: `FileProblem` P510, P512, P516."""
    path = folder / STATE
    state = parse_json(read_text(path), path)
    if not isinstance(state, dict) or state.get("format_version") != FORMAT_VERSION:
        raise FileProblem("P516", f"{path} is of another version")
    return state
