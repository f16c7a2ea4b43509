"""Steps on tensors that are made of factors: their start from a projection, W from them, the projection itself."""

from __future__ import annotations

import torch
from torch import Tensor

from prunelang.compiler.graph import Compose, Factor, Factors, Part, Priced, Reproject
from prunelang.runtime.cores import Cores, redraw_, settle_
from prunelang.runtime.machine import Machine, NumericalFailure, first_not_finite
from prunelang.runtime.prox.compositions import Composer
from prunelang.runtime.prox.single import composer


def cores(name: str, m: Machine) -> Cores:
    """What a descent on the factors needs, with W written from them."""
    node = m.nodes[name]
    assert isinstance(node, Factors)
    weights = dict(zip(node.tensors, m.view(node.of, node.tensors), strict=True))
    m.cores[name] = Cores(node.compositions, m.factors, weights)
    m.composed = True
    return m.cores[name]


def write(step: Compose, m: Machine) -> None:
    if not step.exact:
        m.cores[step.factors].write_()
        return
    node = m.nodes[step.factors]
    assert isinstance(node, Factors)
    settle_(node.compositions, m.factors, dict(zip(node.tensors, m.view(step.of, node.tensors), strict=True)))
    m.composed = True


@torch.no_grad()
def factor(step: Factor, m: Machine) -> None:
    """``G ← Π_C(W)``, drawn anew if asked for, then ``W ← Δ(G)``."""
    node = m.nodes[step.factors]
    assert isinstance(node, Factors)
    found: dict[str, Tensor] = {}
    for i, part in enumerate(step.onto.parts):
        masks = m.view(step.support, part.tensors) if step.support else None
        found |= project_composed(part, m.view(step.of, part.tensors), masks, m, (id(step), i))
    if step.start == "random":
        redraw_(node.compositions, found, m.feed.seed)
    m.install(found)
    write(Compose(step.of, step.factors, exact=True), m)


@torch.no_grad()
def reproject(step: Reproject, m: Machine) -> None:
    for i, part in enumerate(step.onto.parts):
        project_composed(part, m.view(step.of, part.tensors), None, m, (id(step), i))


def project_composed(
    part: Part,
    out: list[Tensor],
    masks: list[Tensor] | None,
    m: Machine,
    key: tuple[int, int],
    priced: Priced | None = None,
    price: float = 0.0,
) -> dict[str, Tensor]:
    """``out ← argmin ‖out − w‖² + price · cost(w)`` over a part of compositions; what it is made of. Every position
    is kept. Warm starts are kept by key."""
    if key not in m.cache:
        m.cache[key] = composer(part.compositions, part.budgets, priced.on(part) if priced else None)
    tensors = {name: t.detach() for name, t in zip(part.tensors, out, strict=True)}
    broken = first_not_finite(tensors.items())
    if broken is not None:
        raise NumericalFailure(f"{broken} is not finite before a projection", "projection")
    made = m.cache[key]
    outcome = made.project_(tensors, price) if isinstance(made, Composer) else made.project_(tensors)
    m.gaps[part.labels] = outcome.gap
    for mask in masks or ():
        mask.fill_(True)
    return dict(outcome.factors)
