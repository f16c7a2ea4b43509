"""The objects that a machine holds, as plain data and back: optimizers, games, composers, splittings, best states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from prunelang.compiler.graph import Activations, Optimizer, Sparsity, Step
from prunelang.runtime.blocks.descent import Descent, rows_of
from prunelang.runtime.blocks.iteration import Splitting
from prunelang.runtime.chains import chain_of
from prunelang.runtime.files import digest
from prunelang.runtime.game import DeviceEntries, Entries, Game, Members
from prunelang.runtime.machine import Machine
from prunelang.runtime.minimax import game_of, settle_budgets
from prunelang.runtime.prox.compositions import Composer
from prunelang.runtime.prox.single import Single, composer
from prunelang.runtime.standalone import Best

Plain = dict[str, Any]


def put_(target: Tensor, value: Tensor) -> None:
    """The bits of `value`, where they differ: a tensor that autograd has saved is left alone if it can be."""
    same = target.shape == value.shape and target.dtype == value.dtype
    if not same:
        raise ValueError(f"{tuple(value.shape)} of {value.dtype} for {tuple(target.shape)} of {target.dtype}")
    with torch.no_grad():
        value = value.to(target.device)
        if not _same_bits(target.detach(), value):
            target.copy_(value)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """−0.0 is not 0.0 here, and a NaN equals itself."""
    return torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)))


# ── optimizers ───────────────────────────────────────────────────────────────────────────────────────────────────


def optimizer(name: str, m: Machine) -> Plain | None:
    """Hyper-parameters as they are and what is remembered of each parameter; None where none of it is used any more."""
    kept = m.optimizers[name]
    node = m.nodes[name]
    assert isinstance(node, Optimizer)
    now = [list(m.values[s]) for s in node.of if m.values[s]]
    own = [list(group["params"]) for group in kept.param_groups]
    if [list(map(id, x)) for x in now] != [list(map(id, x)) for x in own]:
        return None  # it moved factors that a projection has replaced since: every later loop starts a fresh one
    return {
        "groups": [{k: v for k, v in g.items() if k != "params"} for g in kept.param_groups],
        "state": [[dict(kept.state.get(p, {})) for p in g["params"]] for g in kept.param_groups],
    }


def put_optimizer(name: str, saved: Plain, m: Machine) -> None:
    """The optimizer of that name, made if it is not there, with the state that was saved."""
    own = m.optimizers[name] if name in m.optimizers else m.enter(name)
    for group, facts, states in zip(own.param_groups, saved["groups"], saved["state"], strict=True):
        for gone in set(group) - set(facts) - {"params"}:
            del group[gone]
        group.update(facts)
        for p, state in zip(group["params"], states, strict=True):
            own.state[p] = {k: _like(v, p) for k, v in state.items()}


def _like(value: Any, p: Tensor) -> Any:
    """A moment in the layout of its parameter; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    if value.shape != p.shape:
        return value.clone()
    return torch.empty_like(p, dtype=value.dtype, device=value.device, requires_grad=False).copy_(value)


# ── best states ──────────────────────────────────────────────────────────────────────────────────────────────────


def best(kept: Best) -> Plain:
    return {"copies": kept.copies, "score": kept.score, "levels": kept.levels}


def put_best(name: str, saved: Plain, m: Machine) -> None:
    tensors = {id(t): t for state in m.nodes[name].reads() for t in m.values.get(state, ())}
    made = Best(list(tensors.values()))
    made.copies = [c.to(t.device) for c, t in zip(saved["copies"], made.tensors, strict=bool(saved["copies"]))]
    made.score, made.levels = saved["score"], saved["levels"]
    m.best[name] = made


# ── what projections and games keep from one call to the next ────────────────────────────────────────────────────


def cached(m: Machine) -> list[Plain]:
    """What m.cache holds and results depend on; projections onto counts depend on their input alone."""
    places = {id(step): place for place, step in named_steps(m)}
    nodes = {id(node): name for name, node in m.nodes.items()}
    found: list[Plain] = []
    for (owner, part), made in m.cache.items():
        if isinstance(made, Game):
            found.append({"game": nodes[owner], **_game(made)})
        elif isinstance(made, Composer | Single) and owner in places:
            known = made._orders if isinstance(made, Composer) else {}
            orders = [(made.compositions.index(c), tuple(order)) for c, order in known.items()]
            found.append({"step": places[owner], "part": part, "factors": dict(made.factors), "orders": orders})
    return found


def put_cached(saved: list[Plain], m: Machine) -> None:
    steps = dict(named_steps(m))
    for entry in saved:
        if "game" in entry:
            _put_game(entry, m)
        elif entry["step"] in steps:
            step, part = steps[entry["step"]], entry["part"]
            given = step.onto.parts[part]  # type: ignore[attr-defined]  # every step that projects has `onto`
            priced = getattr(step, "priced", None)
            made = composer(given.compositions, given.budgets, priced.on(given) if priced else None)
            made.factors = dict(entry["factors"])
            if isinstance(made, Composer):
                made._orders = {made.compositions[i]: order for i, order in entry["orders"]}
            m.cache[id(step), part] = made


def named_steps(m: Machine) -> Iterator[tuple[str, Step]]:
    """Every step of the program by the path to it, those of a search as its probe under way executes them."""
    yield from _walked("program", m.graph.program)
    yield from _walked("probe", m.probed)


def _walked(root: str, body: tuple[Step, ...]) -> Iterator[tuple[str, Step]]:
    for i, step in enumerate(body):
        yield f"{root}.{i}", step
        for j, (_, inner) in enumerate(step.bodies()):
            yield from _walked(f"{root}.{i}.{j}", inner)


STARTED = ("free", "first", "weight")  # what a game has once its stage has begun


def _game(game: Game) -> Plain:
    return {
        **{name: getattr(game, name) for name in STARTED if hasattr(game, name)},
        "levels": [_level(level) for level in game.levels],
    }


def _level(level: Any) -> Plain:
    if isinstance(level, Entries):
        return {"small": level.small, "late": level.late, "tau": level.tau}
    if isinstance(level, DeviceEntries):
        return {"mask": level.mask}
    assert isinstance(level, Members)
    return {"gone": level.gone}


def _put_game(saved: Plain, m: Machine) -> None:
    node = m.nodes[saved["game"]]
    assert isinstance(node, Sparsity)
    game = game_of(m, node.name)
    settle_budgets(m, node.name)
    for name in STARTED:
        if name in saved:
            setattr(game, name, saved[name])
    for level, kept in zip(game.levels, saved["levels"], strict=True):
        if isinstance(level, Entries):
            for t, value in zip(level.small, kept["small"], strict=True):
                put_(t, value)
            level.late, level.tau = kept["late"], kept["tau"]
        elif isinstance(level, DeviceEntries):
            for t, value in zip(level.mask, kept["mask"], strict=True):
                put_(t, value)
        else:
            assert isinstance(level, Members)
            put_(level.gone, kept["gone"])


# ── block coordinate descent ─────────────────────────────────────────────────────────────────────────────────────


def splitting(run: Descent) -> Plain:
    """All variables of a splitting. What is in them before and after an iteration is the same between two."""
    s = run.splitting
    return {
        "weights": [list(pair) for pair in s.weights],
        "compressions": s.compressions,
        "activations": [[c.whole for c in kind] for kind in (s.U, s.V, s.Z)],
        "value": s._value,
        "penalties": run.penalties,
        "first": run.first,
        "refused": run.refused,
        "stalled": run.stalled,
    }


def put_splitting(name: str, saved: Plain, m: Machine) -> None:
    node = m.nodes[name]
    assert isinstance(node, Activations)
    X = m.feed.split.inputs
    chain = chain_of(m.model, tuple(X.shape[1:]))
    Y = rows_of(m.feed.split.targets, chain, X.dtype)
    weights = [(W, b) for W, b in saved["weights"]]
    first = m.tensors[chain.weights[0]]
    made = Splitting(
        chain.layers, weights, X, Y, saved["compressions"],
        rows=node.chunk, store=node.store, device=first.device, dtype=first.dtype,
    )  # fmt: skip
    for kind, values in zip((made.U, made.V, made.Z), saved["activations"], strict=True):
        for chunks, value in zip(kind, values, strict=True):
            put_(chunks.whole, value)
    made._value = saved["value"]
    m.splittings[name] = Descent(chain, made, saved["penalties"], saved["first"], saved["refused"], saved["stalled"])


def signature(model: nn.Module) -> str:
    """sha256 over names, shapes and types of a network's tensors: what that of another network does not have."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return digest(repr([(n, tuple(t.shape), str(t.dtype)) for n, t in named]).encode())
