"""A machine as plain data beside tensors, and the way back. Every field of `Machine` has its line in `FIELDS`."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from prunelang.compiler.graph import Buffers, Factors, Rest, Weights
from prunelang.compiler.graph.codec import decode, encode
from prunelang.runtime.blocks.compressed import LowRank, Sparse, Train
from prunelang.runtime.blocks.decrease import Penalties
from prunelang.runtime.bracket import Bracket
from prunelang.runtime.checkpoints import parts
from prunelang.runtime.checkpoints.parts import Plain, put_
from prunelang.runtime.checkpoints.tree import Packer, Unpacker
from prunelang.runtime.files import FileProblem
from prunelang.runtime.machine import Frame, Machine
from prunelang.runtime.price import Price
from prunelang.runtime.search import Course, State
from prunelang.runtime.surrogates import Surrogate

KINDS: Final = (Bracket, Course, Frame, LowRank, Penalties, Price, Sparse, State, Surrogate, Train)
"""The dataclasses that a state may hold, all of plain data and tensors."""

Save = Callable[[Machine], Any]
Put = Callable[[Any, Machine], None]


@dataclass(frozen=True)
class Field:
    """How a field of a machine is stored. `late`: put back once all loops are entered, since it speaks of them."""

    save: Save
    put: Put
    late: bool = False


def _plain(name: str) -> Field:
    """A number, or a dictionary of plain data that keeps its identity."""

    def put(value: Any, m: Machine) -> None:
        own = getattr(m, name)
        if isinstance(own, dict):
            own.clear()
            own.update(value)
        else:
            setattr(m, name, value)

    return Field(lambda m: getattr(m, name), put)


def _values(m: Machine) -> Plain:
    """Tensors of the state that are neither the network's nor factors."""
    return {n: list(ts) for n, ts in m.values.items() if not isinstance(m.nodes[n], Weights | Rest | Buffers | Factors)}


def _put_values(saved: Plain, m: Machine) -> None:
    _require_same(set(saved), set(_values(m)), "state")
    for name, tensors in saved.items():
        for target, value in zip(m.values[name], tensors, strict=True):
            put_(target, value)


def _put_factors(saved: Mapping[str, Tensor], m: Machine) -> None:
    """In place where they are there already: an optimizer holds them."""
    same = saved.keys() == m.factors.keys() and all(t.shape == m.factors[n].shape for n, t in saved.items())
    if not same:
        m.install(saved)
        return
    for name, value in saved.items():
        put_(m.factors[name], value)


def _put_network(saved: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    _require_same(set(saved), set(into), "network")
    for name, value in saved.items():
        put_(into[name], value)


def _put_optimizers(saved: Mapping[str, Plain | None], m: Machine) -> None:
    for name, state in saved.items():
        if state is not None:
            parts.put_optimizer(name, state, m)


def _put_each(put: Callable[[str, Plain, Machine], None]) -> Put:
    def all_of(saved: Mapping[str, Plain], m: Machine) -> None:
        for name, value in saved.items():
            put(name, value, m)

    return all_of


def _put_frames(saved: list[Frame], m: Machine) -> None:
    if not m.frames:
        m.ahead = saved


FIELDS: Final[Mapping[str, Field | str]] = {
    # what a session hands to a machine
    **dict.fromkeys(("graph", "model", "feed", "criterion", "observe", "measure", "each", "activity"), "handed in"),
    **dict.fromkeys(("samples", "stop", "checkpoint", "arrival"), "handed in"),
    # what a loop makes when it is entered
    "cores": "made by the loop that is entered",
    "probed": "made by the search that is entered",
    "ahead": "empty once the loops are entered",
    # the state
    "factors": Field(lambda m: dict(m.factors), _put_factors),
    "values": Field(_values, _put_values),
    **{
        name: _plain(name)
        for name in (
            *("levels", "courses", "steers", "tables", "cuts", "clocks", "stage_span", "last_loss", "epochs"),
            *("seconds", "gaps", "prices", "best_after", "entering", "bases", "starts", "highs", "calibrations"),
            *("short", "composed"),
        )
    },
    "optimizers": Field(lambda m: {n: parts.optimizer(n, m) for n in m.optimizers}, _put_optimizers),
    "frames": Field(lambda m: list(m.frames), _put_frames),
    "cache": Field(parts.cached, parts.put_cached, late=True),
    "splittings": Field(
        lambda m: {n: parts.splitting(x) for n, x in m.splittings.items()}, _put_each(parts.put_splitting), late=True
    ),
    "best": Field(lambda m: {n: parts.best(x) for n, x in m.best.items()}, _put_each(parts.put_best), late=True),
    "good": Field(lambda m: dict(m.good), lambda saved, m: _put_network(saved, m.good)),
    "good_factors": _plain("good_factors"),
}


def dump(m: Machine) -> tuple[Plain, dict[str, Tensor]]:
    """Everything that a machine knows: JSON, and the tensors that it names.

    The machine goes on from there bit for bit once `restore` has read it, on the same kind of device. Raises TypeError
    for a value without a form: nothing is left out.
    """
    packer = Packer(KINDS)
    given: dict[str, Any] = {
        "network": dict(m.tensors),
        **{name: field.save(m) for name, field in FIELDS.items() if isinstance(field, Field)},
        "training": [name for name, module in m.model.named_modules() if module.training],
        "generators": generators(m),
    }
    plain = {name: packer.pack(value, name) for name, value in given.items()}
    return {**plain, "feasible": None if m.feasible == m.finishing else encode(m.feasible)}, packer.tensors


def restore(m: Machine, plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Fill a fresh machine of the same graph. Its program then goes on where the state was saved.

    What entering the loops changes is put back once more when they are entered. Errors: `FileProblem` P522 for a state
    that does not fit this machine, which is then to be thrown away.
    """
    device = next(iter(m.tensors.values())).device
    try:
        unpacker = Unpacker(KINDS, tensors, device)
        saved = {name: unpacker.unpack(value) for name, value in plain.items() if name != "feasible"}
        _put(m, saved, late=False)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise FileProblem("P522", f"the state of a checkpoint does not fit this network and spec: {error}") from error

    def arrival(machine: Machine) -> None:
        machine.arrival = _arrived
        try:
            _put(machine, saved, late=True)
            if plain["feasible"] is not None:
                machine.feasible = decode(plain["feasible"])
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            message = f"the state of a checkpoint does not fit this network and spec: {error}"
            raise FileProblem("P522", message) from error

    m.arrival = arrival


def _arrived(machine: Machine) -> None:
    """Everything is where it was."""


def _put(m: Machine, saved: Mapping[str, Any], *, late: bool) -> None:
    for name, field in FIELDS.items():
        if isinstance(field, Field) and field.late and late:
            field.put(saved[name], m)
    _put_network(saved["network"], m.tensors)
    for name, field in FIELDS.items():
        if isinstance(field, Field) and not field.late:
            field.put(saved[name], m)
    training = set(saved["training"])
    for name, module in m.model.named_modules():
        module.training = name in training
    put_generators(saved["generators"], m)


def _require_same(saved: set[str], own: set[str], what: str) -> None:
    if saved != own:
        raise ValueError(f"the {what} of the checkpoint has {min(saved ^ own)!r} on one side alone")


# ── random numbers ───────────────────────────────────────────────────────────────────────────────────────────────


def generators(m: Machine) -> dict[str, Any]:
    """The states of torch's own generators, of the host and of the device that the network is on; and those of Python
    and NumPy, which losses and networks of a user may draw from."""
    version, words, spare = random.getstate()
    kind, keys, place, has_spare, cached = np.random.get_state(legacy=True)
    found: dict[str, Any] = {
        "host": torch.get_rng_state(),
        "python": (version, np.array(words, dtype=np.int64), spare),
        "numpy": (kind, np.asarray(keys, dtype=np.int64), place, has_spare, cached),
    }
    device = next(iter(m.tensors.values())).device
    if device.type == "cuda":
        found["device"] = torch.cuda.get_rng_state(device)
    return found


def put_generators(saved: Mapping[str, Any], m: Machine) -> None:
    torch.set_rng_state(saved["host"])
    version, words, spare = saved["python"]
    random.setstate((version, tuple(words.tolist()), spare))
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, keys.astype(np.uint32), *rest))
    device = next(iter(m.tensors.values())).device
    if device.type == "cuda" and "device" in saved:
        torch.cuda.set_rng_state(saved["device"], device)
