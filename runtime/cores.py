"""``W = Δ(G)`` without a graph's state: the gradient of W handed to G, W written from G, and what G may be.

Codes and positions are what a projection chose; the numbers of a composition (U, V, cores, centres, scales, values) are
trained. W stands in the network and gets its gradient there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from prunelang.compiler.forms import Box, Codebook, Composition, Fixed, Form, LowRank, Nuclear, Sparse, TensorTrain
from prunelang.compiler.problem import Budget
from prunelang.runtime.prox.compositions import compose

Tensors = Mapping[str, Tensor]


def numbers(factors: Tensors) -> list[Tensor]:
    """The factors that are trained: all but codes and positions."""
    return [t.requires_grad_(True) for t in factors.values() if t.is_floating_point()]


class Cores:
    """``W ← Δ(G)`` with the graph of its gradient, and the gradient of W handed to G."""

    def __init__(self, compositions: Sequence[Composition], factors: Tensors, weights: Tensors) -> None:
        self.compositions, self.factors, self.weights = compositions, factors, weights
        self.composed: list[tuple[Tensor, Tensor]] = []  # W, and Δ(G) where something of it is trained
        self.shared = [(x, 1.0 / n.clamp_min(1.0)) for x, n in _standing_for(compositions, factors)]
        self.write_()

    def write_(self) -> None:
        """``W ← Δ(G)`` in the type of the factors."""
        with torch.enable_grad():
            found = [(self.weights[t], v) for c in self.compositions for t, v in compose(c, self.factors).items()]
        with torch.no_grad():
            torch._foreach_copy_([w for w, _ in found], [v.detach() for _, v in found])
        self.composed = [(w, v) for w, v in found if v.requires_grad]

    def hand_over_(self) -> None:
        """``∂L/∂G = (∂Δ/∂G)ᵀ ∂L/∂W``, taken at the G that wrote W.

        A centre and a scale stand for thousands of weights. Theirs is divided by how far W moves with them, squared, so
        that a step of W is the projection onto its codes of the step that W itself would take.
        """
        reached = [(v, w.grad) for w, v in self.composed if w.grad is not None]
        if reached:
            torch.autograd.backward([v for v, _ in reached], [g for _, g in reached])
        for x, share in self.shared:
            if x.grad is not None:
                x.grad.mul_(share)


@torch.no_grad()
def _standing_for(compositions: Sequence[Composition], factors: Tensors) -> Iterator[tuple[Tensor, Tensor]]:
    """Centres with how many weights each stands for, learned scales s with ``Σ v²`` over the values that s scales."""
    for c in compositions:
        for i, form in enumerate(c.forms):
            match form:
                case Codebook():
                    centres = factors[f"{c.tensors[0]}:{i}.centres"]
                    codes = [factors[f"{t}:{i}.codes"].flatten().long() for t in c.tensors]
                    counts = torch.stack([torch.bincount(x, minlength=len(centres)) for x in codes]).sum(0)
                    yield centres, counts.to(centres.dtype)
                case Fixed(scaled=True):
                    scale = factors[f"{c.tensors[0]}:{i}.scale"]
                    codes = [factors[f"{t}:{i}.codes"].flatten().long() for t in c.tensors]
                    values = torch.tensor(form.values, dtype=scale.dtype, device=scale.device)
                    yield scale, torch.stack([values[x].square().sum() for x in codes]).sum()


@torch.no_grad()
def settle_(compositions: Sequence[Composition], factors: Tensors, weights: Tensors) -> None:
    """``W ← Δ(G)`` in float64, rounded once to the type of W."""
    wide = {n: t.detach().double() if t.is_floating_point() else t for n, t in factors.items()}
    for c in compositions:
        for t, v in compose(c, wide).items():
            weights[t].copy_(v)


@torch.no_grad()
def redraw_(compositions: Sequence[Composition], factors: Tensors, seed: int) -> None:
    """Normal U, V and cores of the shapes that are there, so that what each form composes keeps its spread."""
    generator = torch.Generator().manual_seed(seed)
    for c in compositions:
        for i, form in enumerate(c.forms):
            if not isinstance(form, LowRank | TensorTrain):
                continue
            own = Composition(c.tensors, (form,), c.shapes)
            names = [n for n in factors if n.startswith(f"{c.tensors[0]}:{i}.")]
            alone = {n.replace(f":{i}.", ":0.", 1): factors[n] for n in names}
            before = compose(own, alone)[c.tensors[0]].std()
            for x in alone.values():
                x.copy_(torch.randn(x.shape, generator=generator))
            share = before / compose(own, alone)[c.tensors[0]].std()
            for x in alone.values():
                x.mul_(torch.nan_to_num(share, 0.0, 0.0) ** (1.0 / len(names)))


# ── recounts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def sizes(composition: Composition, factors: Tensors) -> Iterator[tuple[tuple[str, int], tuple[int, ...]]]:
    """((tensor, form), x): ranks and counts as the shapes of the factors show them."""
    for i, form in enumerate(composition.forms):
        for t in composition.tensors:
            match form:
                case LowRank():
                    yield (t, i), (factors[f"{t}:{i}.U"].shape[1],)
                case TensorTrain(modes=modes):
                    yield (t, i), tuple(factors[f"{t}:{i}.G{k}"].shape[3] for k in range(1, len(modes)))
                case Sparse():
                    yield (t, i), (factors[f"{t}:{i}.values"].numel(),)


def spent(
    compositions: Sequence[Composition], budgets: Sequence[Budget], factors: Tensors
) -> Iterator[tuple[str, int, int]]:
    """(label, cost, bound) of every budget."""
    found = {key: x for c in compositions for key, x in sizes(c, factors)}
    for budget in budgets:
        yield budget.label, budget.cost.value(found), budget.most


def require_made(
    compositions: Sequence[Composition], budgets: Sequence[Budget], factors: Tensors, weights: Tensors
) -> None:
    """Raises `AssertionError` unless factors and tensors are what their forms allow and the budgets hold: read off
    shapes and values, by code that projects nothing."""
    for c in compositions:
        for i, form in enumerate(c.forms):
            if not _allowed(form, c, i, factors, weights):
                raise AssertionError(f"{', '.join(c.tensors)}: {form} is violated after the projection")
    for label, cost, most in spent(compositions, budgets, factors):
        if cost > most:
            raise AssertionError(f"`{label}`: {cost} is above {most} after the projection")


def _allowed(form: Form, c: Composition, i: int, factors: Tensors, weights: Tensors) -> bool:
    match form:
        case LowRank(rank=rank):
            return rank is None or dict(sizes(c, factors))[c.tensors[0], i][0] <= rank
        case TensorTrain(ranks=ranks):
            of_train = dict(sizes(c, factors))[c.tensors[0], i]
            return ranks is None or all(r <= most for r, most in zip(of_train, ranks, strict=True))
        case Sparse(count=count):
            return count is None or sum(dict(sizes(c, factors))[t, i][0] for t in c.tensors) <= count
        case Codebook(size=size) | Fixed(values=tuple() as size):
            most = size if isinstance(size, int) else len(size)
            return all(int(factors[f"{t}:{i}.codes"].max()) < most for t in c.tensors)
        case Box(lo=lo, hi=hi):
            return all(bool(((w >= lo) & (w <= hi)).all()) for w in (weights[t] for t in c.tensors))
        case Nuclear(radius=radius):
            return float(torch.linalg.svdvals(weights[c.tensors[0]].double().flatten(1)).sum()) <= radius * (
                1.0 + 1e-12
            )
    raise TypeError(f"no rule for {type(form).__name__}")
