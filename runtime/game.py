"""The game between sparsity levels and multipliers, and what it plays on: no machine, no graph, torch alone.

A level selects its smallest items once a step. The proximal step on them, the derivative in s and the residual of y all
read that selection. The executor and an emitted script run this same code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from prunelang.compiler.graph.minimax import Piece
from prunelang.compiler.graph.resource import Resource
from prunelang.runtime import saddle
from prunelang.runtime.budgets import Budgets

TINY = torch.finfo(torch.float64).tiny
FAINT = 1e-5  # of the mean energy of a level's items: what is below is as good as 0
DEAF = 0.02  # share of a cost that a unit of ln z is taken to move at least
BELOW, ABOVE = 3e-4, 4.5  # how far z may be from where a level answers to it


def inside_(out: Sequence[Tensor], values: Sequence[Tensor], weights: Sequence[Tensor], tau: float) -> None:
    """``out ← values where |w| < τ, else 0``, in one pass a tensor."""
    for o, v, w in zip(out, values, weights, strict=True):
        torch.ops.aten.hardtanh_backward.grad_input(v, w, -tau, tau, grad_input=o)


def paces(moments: Sequence[Tensor], count: Tensor, lr: float, beta: float, eps: float) -> list[Tensor]:
    """``lr/(√v̂ + ε)``, Adam's way of each entry per unit of a constant gradient; v̂ = v/(1 − βᵗ), 0 before a step."""
    correction = (1.0 - torch.pow(beta, count)).clamp_(min=torch.finfo(count.dtype).tiny)
    v_hat = [v / correction.to(v.device) for v in moments]
    torch._foreach_sqrt_(v_hat)
    torch._foreach_add_(v_hat, eps)
    torch._foreach_reciprocal_(v_hat)
    torch._foreach_mul_(v_hat, lr)
    return v_hat


def mean_pace(moments: Sequence[Tensor], count: Tensor, lr: float, beta: float, eps: float) -> Tensor:
    """``lr/(rms √v̂ + ε)`` over the entries, in float64."""
    correction = (1.0 - torch.pow(beta, count)).clamp_(min=torch.finfo(count.dtype).tiny)
    total = torch.stack(torch._foreach_norm(list(moments), 1)).double().sum()
    mean = total / (sum(v.numel() for v in moments) * correction.to(total.device))
    return lr / (mean.sqrt() + eps)


def energies(pieces: Sequence[tuple[Tensor, Piece]], size: int) -> Tensor:
    """The energy of each member: the sum of squares over everything that it owns, in float64."""
    total = torch.zeros(size, dtype=torch.float64, device=pieces[0][0].device)
    for tensor, p in pieces:
        part = tensor.detach().narrow(p.dim, p.start, size * p.repeat).movedim(p.dim, 0)
        total += part.reshape(size, -1).double().square_().sum(1)
    return total


def along(member: Tensor, piece: Piece, dims: int) -> Tensor:
    """A number for each member, as a factor of the slice of a tensor with so many dimensions."""
    along = member.view(-1, 1).expand(-1, piece.repeat).reshape(-1)
    return along.view(-1, *[1] * (dims - piece.dim - 1))


# ── levels ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Chosen(Protocol):
    """A level at run time: what it selected last, and what can be done with it."""

    n: int

    def select(self, s: float | Tensor, out: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        """The ⌈s⌉ smallest items; τ′, Σ, ‖·‖² and τ into `out`, four scalars."""

    def shrink(self, y: Tensor, eta: list[Tensor] | float) -> None:
        """``w/(1 + 2ηy)`` on the selection."""

    def confine(self, moments: Sequence[Sequence[Tensor]]) -> None:
        """0 on the selection, in the weights and in their moments."""


class Entries:
    """Entries of contiguous tensors in the host's memory; the order statistic is read from a copy of them."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.weights = [w.detach() for w in weights]
        self.n = sum(w.numel() for w in self.weights)
        self.small = [torch.zeros_like(w) for w in self.weights]
        self.flat = [x.view(-1) for x in (*self.small, *self.weights)]
        self.filled = [x for x in self.small if x.numel()]
        self.late: list[tuple[int, Tensor]] = []
        self.tau = 0.0

    def threshold(self, kept: int) -> tuple[float, int, int]:
        """τ, the kept-th largest magnitude, how many of those equal to it are kept, and how many there are."""
        flat = torch.cat([w.abs().flatten() for w in self.weights])
        tau = flat.kthvalue(self.n - kept + 1).values
        return float(tau), kept - int((flat > tau).sum()), int((flat == tau).sum())

    def equal(self, w: Tensor) -> Tensor:
        """Where the magnitudes of one tensor are τ."""
        return (w.abs() == self.tau).view(-1).nonzero().view(-1)

    def select(self, s: float | Tensor, out: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        self.tau, keep, ties = self.threshold(self.n - max(0, math.ceil(s - saddle.QUARTER)))
        inside_(self.small, self.weights, self.weights, self.tau)
        self.late = []
        if keep < ties and self.tau > 0.0:
            self._ties(keep)
        below, whole = torch.stack([x.dot(x) for x in self.flat]).double().view(2, -1).sum(1).unbind()
        out[0].fill_(self.tau * self.tau)
        out[1].copy_(below)
        out[2].copy_(whole)
        ends = [e for x in self.filled for e in (x.amax(), x.amin())]  # far quicker than a norm
        out[3].copy_(torch.stack(ends).abs_().amax().double().square_())

    def _ties(self, keep: int) -> None:
        """Of the entries equal to τ all but the first `keep` belong to the selection."""
        for i, w in enumerate(self.weights):
            equal = self.equal(w)
            late, keep = equal[keep:], max(0, keep - equal.numel())
            if late.numel():
                self.late.append((i, late))
                self.small[i].view(-1)[late] = w.view(-1)[late]

    def shrink(self, y: Tensor, eta: list[Tensor] | float) -> None:
        (now,) = y.view(1).tolist()  # of the host's memory, without asking the dispatcher
        if isinstance(eta, float):
            pull = 2.0 * eta * now
            torch._foreach_add_(self.weights, self.small, alpha=-pull / (1.0 + pull))
            return
        for w, small, own in zip(self.weights, self.small, eta, strict=True):
            pulls = own.mul_(2.0 * now)
            w.sub_(pulls.div_(pulls + 1.0).mul_(small))

    def confine(self, moments: Sequence[Sequence[Tensor]]) -> None:
        room = [torch.empty_like(w) for w in self.weights]
        for group in moments:
            inside_(room, group, self.weights, self.tau)
            torch._foreach_sub_(list(group), room)
            for i, late in self.late:
                group[i].view(-1)[late] = 0.0
        torch._foreach_sub_(self.weights, self.small)


class DeviceEntries:
    """Entries on a device, or in any layout: a stable sort by magnitude, and a gather at a device index."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.weights = [w.detach() for w in weights]
        self.sizes = [w.numel() for w in self.weights]
        self.n = sum(self.sizes)
        self.places = torch.arange(self.n, device=self.weights[0].device)
        self.mask = [torch.zeros_like(w, dtype=torch.bool) for w in self.weights]

    def select(self, s: float | Tensor, out: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        kept = self.n - saddle.rounded(torch.as_tensor(s)).long()
        ordered, index = torch.cat([w.abs().flatten() for w in self.weights]).sort(descending=True, stable=True)
        ordered = ordered.double().square_()
        gone = self.places >= kept
        chosen = torch.zeros_like(gone).scatter_(0, index, gone)
        for mask, part in zip(self.mask, torch.split(chosen, self.sizes), strict=True):
            mask.copy_(part.view(mask.shape))
        out[0].copy_(ordered.gather(0, kept.view(1) - 1)[0])
        out[1].copy_((ordered * gone).sum())
        out[2].copy_(ordered.sum())
        out[3].copy_((ordered * gone).amax())

    def shrink(self, y: Tensor, eta: list[Tensor] | float) -> None:
        for i, (w, mask) in enumerate(zip(self.weights, self.mask, strict=True)):
            pull = (y * (2.0 * eta)).to(w.dtype) if isinstance(eta, float) else eta[i].mul(2.0 * y.to(w.dtype))
            w.div_(torch.where(mask, 1.0 + pull, 1.0))

    def confine(self, moments: Sequence[Sequence[Tensor]]) -> None:
        for group in (*moments, self.weights):
            for x, mask in zip(group, self.mask, strict=True):
                x.masked_fill_(mask, 0.0)


class Members:
    """The members of a coupling group: few, with everything that each of them owns."""

    def __init__(self, tensors: Sequence[Tensor], pieces: Sequence[Piece], size: int) -> None:
        self.pieces = list(zip((t.detach() for t in tensors), pieces, strict=True))
        self.n = size
        device = self.pieces[0][0].device
        self.places = torch.arange(size, device=device)
        self.gone = torch.zeros(size, dtype=torch.bool, device=device)

    def select(self, s: float | Tensor, out: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        kept = self.n - saddle.rounded(torch.as_tensor(s, device=self.gone.device)).long()
        ordered, index = energies(self.pieces, self.n).sort(descending=True, stable=True)
        late = self.places >= kept
        self.gone.scatter_(0, index, late)
        out[0].copy_(ordered.gather(0, kept.view(1) - 1)[0])
        out[1].copy_((ordered * late).sum())
        out[2].copy_(ordered.sum())
        out[3].copy_((ordered * late).amax())

    def shrink(self, y: Tensor, eta: list[Tensor] | float) -> None:
        for i, (tensor, piece) in enumerate(self.pieces):
            part = tensor.narrow(piece.dim, piece.start, self.n * piece.repeat)
            mask = along(self.gone, piece, tensor.dim())
            if isinstance(eta, float):
                pull = (y * (2.0 * eta)).to(part.dtype)
            else:
                pull = eta[i].narrow(piece.dim, piece.start, self.n * piece.repeat) * (2.0 * y.to(part.dtype))
            part.div_(torch.where(mask, 1.0 + pull, 1.0))

    def confine(self, moments: Sequence[Sequence[Tensor]]) -> None:
        for group in (*moments, [t for t, _ in self.pieces]):
            for x, (_, piece) in zip(group, self.pieces, strict=True):
                part = x.narrow(piece.dim, piece.start, self.n * piece.repeat)
                part.masked_fill_(along(self.gone, piece, x.dim()), 0.0)


def entries(weights: Sequence[Tensor]) -> Chosen:
    """The level of all entries of some tensors, where they are."""
    return Entries(weights) if on_host(weights) else DeviceEntries(weights)


def on_host(weights: Sequence[Tensor]) -> bool:
    """Whether they are contiguous tensors of one type in the host's memory."""
    plain = all(w.device.type == "cpu" and w.is_contiguous() for w in weights)
    return plain and len({w.dtype for w in weights}) == 1


# ── the game ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Pace:
    """η of an optimizer for the tensors of the levels: a number under momentum, a number for each entry under Adam."""

    def __init__(self, optimizer: torch.optim.Optimizer, tensors: list[list[Tensor]]) -> None:
        self.optimizer, self.tensors = optimizer, tensors
        first = tensors[0][0]
        self.group = next(g for g in optimizer.param_groups if any(p is first for p in g["params"]))
        self.adaptive = "betas" in self.group

    def plain(self) -> float:
        """``lr/(1 − β)`` under momentum."""
        return float(self.group["lr"] / (1.0 - self.group["momentum"]))

    def _adam(self, level: int) -> tuple[list[Tensor], Tensor, float, float, float]:
        states = [self.optimizer.state[w] for w in self.tensors[level]]
        g = self.group
        return [s["exp_avg_sq"] for s in states], states[0]["step"], g["lr"], g["betas"][1], g["eps"]

    def of(self, level: int) -> list[Tensor] | float:
        """η for the entries of a level."""
        return paces(*self._adam(level)) if self.adaptive else self.plain()

    def means(self) -> Tensor | float:
        """One η a level."""
        if not self.adaptive:
            return self.plain()
        return torch.stack([mean_pace(*self._adam(i)) for i in range(len(self.tensors))])

    def moments(self, level: int) -> list[list[Tensor]]:
        """What the optimizer remembers of the gradients of a level's tensors."""
        states = [self.optimizer.state[w] for w in self.tensors[level]]
        names = [n for n in ("momentum_buffer", "exp_avg", "exp_avg_sq") if states[0].get(n) is not None]
        return [[s[n] for s in states] for n in names]


@dataclass(frozen=True)
class Rates:
    """How fast the three move, a step; see `Game.play` for what they move along."""

    s: float  # share of the way to where the price of a level is its threshold
    pace: float  # the least share of what stays that a level moves by
    spare: float  # share of a level's items that count as staying even if none does
    y: float  # of ln y
    half: float  # share of ‖W‖² in the selection at which y rises at half its rate
    first: float  # 2ηy, the pull of a step, that y starts from
    last: float  # and the one that it stays below
    z: float  # share of the way to where the budgets are met by the s that follows
    reach: float  # share of the stage in which the budgets come down to their bounds
    order: saddle.Order = "alternating"
    nu: float = 0.0
    kappa: float = 1.0


class Game:
    """Levels, their selections and budgets, with everything that does not depend on the step.

    `tensors` are those of each level, as its η goes by; at least `least` items of each stay. s, y, z are vectors in
    float64, `selection` holds τ′, Σ, ‖·‖² and τ, `past` what the order of the moves remembers of y and z.
    """

    def __init__(
        self,
        levels: Sequence[Chosen],
        tensors: Sequence[Sequence[Tensor]],
        least: Sequence[int],
        s: Tensor,
        y: Tensor,
        z: Tensor,
        selection: Sequence[Tensor],
        past: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.levels, self.tensors = list(levels), [list(t) for t in tensors]
        self.s, self.y, self.z, self.selection, self.past = s, y, z, list(selection), past
        self.rows = list(zip(*(x.unbind() for x in selection), strict=True))
        self.on_host = s.device.type == "cpu"
        self.n = s.new_tensor([float(x.n) for x in self.levels])
        self.top = s.new_tensor([float(x.n - max(k, 1)) for x, k in zip(self.levels, least, strict=True)])
        self.pace: Pace | None = None

    def start(self, resources: Sequence[Resource], free: Sequence[bool], share: float) -> None:
        """Budgets as they are when a stage begins, and levels at a share of their range; `free` multipliers move."""
        self.settle(resources)
        self.free = self.s.new_tensor([float(f) for f in free])
        self.first = (self.top * share).floor_()
        self.s.copy_(self.first)
        for x in (self.y, self.z, *(self.past or ())):
            x.zero_()
        self.select()
        self.weight = self.n / self.n.sum()

    def scales(self) -> Tensor:
        """``φ_l = Σ_j K_j / (L·K_l)`` with K_l the energy of what level l keeps: levels are compared by the share of
        what they hold, whatever their scale, and the last items of a level cost a great deal.

        This is the score of LAMP (Lee et al., Layer-Adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021).
        Normalisation makes a layer's scale meaningless, and weights that are pulled down behind it lose nothing: with
        any fixed scale such a layer would give away all its items. φ = 1 for a level in which everything is 0.
        """
        kept = self._held()
        return torch.where(kept > TINY, kept.sum() / (len(kept) * kept), 1.0)

    def _held(self) -> Tensor:
        """K, the energy of what each level keeps."""
        _, below, whole, _ = self.selection
        return (whole - below).maximum(whole / self.n * FAINT).clamp_min(TINY)

    def settle(self, resources: Sequence[Resource]) -> None:
        """The coefficients and bounds from now on."""
        self.resources = tuple(resources)
        self.budgets = Budgets(resources, len(self.levels), self.s.device)

    def enter(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer that moves the weights from now on."""
        if self.pace is None or self.pace.optimizer is not optimizer:
            self.pace = Pace(optimizer, self.tensors)

    @property
    def paced(self) -> Pace:
        if self.pace is None:
            raise ValueError("a game is entered with an optimizer before it is played")
        return self.pace

    @torch.no_grad()
    def select(self) -> None:
        """The one order statistic of a step."""
        numbers = self.s.tolist() if self.on_host else self.s.unbind()
        if self.on_host and any(map(math.isnan, numbers)):
            raise ArithmeticError("a sparsity level is not a number")
        for level, s, out in zip(self.levels, numbers, self.rows, strict=True):
            level.select(s, out)

    @torch.no_grad()
    def shrink(self) -> None:
        """``w/(1 + 2ηy)`` on the selections."""
        for i, (level, y) in enumerate(zip(self.levels, self.y.unbind(), strict=True)):
            level.shrink(y, self.paced.of(i))

    @torch.no_grad()
    def confine(self) -> None:
        """0 on the selections, in the weights and in what the optimizer remembers of them."""
        for i, level in enumerate(self.levels):
            level.confine(self.paced.moments(i))

    @torch.no_grad()
    def cut(self, only: Sequence[int]) -> None:
        """0 on the selections of some levels, or of all of them: what is left of a stage's end."""
        for i in only or range(len(self.levels)):
            self.levels[i].confine([])

    def charge(self, prices: Sequence[float | None]) -> None:
        """z of the costs that the objective prices, in loss per unit of them; None stays free."""
        for i, price in enumerate(prices):
            if price is not None:
                self.z[i].fill_(price * self.budgets.scale[i])

    @torch.no_grad()
    def play(self, rates: Rates, p: float) -> None:
        """One step of s, y and z with the weights held still, at the share p of the stage.

        s rises where the price P is above φ ȳ τ′, what the next item costs, and falls where it is below φ ȳ τ, what the
        last that goes gives back; between them s rests, since 0 is a subgradient there. ȳ is the mean of y over all
        items: y_l is how fast a level shrinks, which under Adam depends on its gradients, and no level is cheaper for
        shrinking more slowly. It moves along the balance of
        the two, in units of how many items the threshold passes by when it goes up by a unit of its logarithm. y and z
        are relative to themselves: y ascends by ``c/(c + half)`` for the share c of ‖W‖² that is left on the selection,
        and z by ``(R(n − s) − B(p))/D`` over what s will answer.
        """
        eta, (after, below, whole, last) = self.paced.means(), self.selection
        faint, phi = whole / self.n * FAINT, self.scales()
        high, low = after.maximum(faint).mul_(phi), last.maximum(faint).mul_(phi)
        width = saddle.spread(self.s, self.n, after, below, whole, rates.pace, rates.spare) * self.n
        width = width / (1.0 + width * after.maximum(faint) / self._held())  # φ goes up with τ′ as items go
        first = rates.first / (2.0 * eta)
        mean = self.weight.matmul  # ȳ
        move_s = saddle.Move(width * (2.0 * rates.s), 0.0, self.top)
        move_y = saddle.Move(rates.y, first, first * (rates.last / rates.first), mirror=True)
        move_y.clip_(self.y)
        move_z = saddle.Move(rates.z, *self._price_bounds(mean(self.y) * low, mean(self.y) * high), mirror=True)
        move_z.clip_(self.z)
        share = below / whole.clamp_min(TINY)
        allowed = self.budgets.residual(self.n - self.first).clamp_min(0.0) * saddle.course(p, rates.reach)

        def along_s(s: Tensor, y: Tensor, z: Tensor) -> Tensor:
            return -saddle.beyond(self.budgets.price(z, self.n - s), mean(y) * low, mean(y) * high)

        def along_y(s: Tensor, y: Tensor, z: Tensor) -> Tensor:
            return saddle.saturated(share / (1.0 + 2.0 * eta * y).square(), rates.half)

        def along_z(s: Tensor, y: Tensor, z: Tensor) -> Tensor:
            k = self.n - s
            slope, residual = self.budgets.derivative(k), self.budgets.residual(k)
            price = z @ slope
            up = saddle.beyond(price, mean(y) * low, mean(y) * high)
            free = ((s > 0.0) | (up > 0.0)) & ((s < self.top) | (up < 0.0))
            answers = (1.0 - up.square()) * move_s.rate * free / price.clamp_min(TINY)
            answer = 0.5 * z * (slope.square() @ answers)  # −∂R/∂ln z / D
            least = (slope @ k).clamp_min(TINY) * DEAF
            return ((residual - allowed) / answer.maximum(least)).clamp_(-1.0, 1.0).mul_(self.free)

        rule = saddle.Rule(move_s, move_y, move_z, rates.order, rates.nu, rates.kappa)
        saddle.step_(self.s, self.y, self.z, saddle.Field(along_s, along_y, along_z), rule, self.past)

    def _price_bounds(self, gives: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
        """z at which no level would move yet, and at which every level has gone: around ``φ_l ȳ τ_l / a_rl``.

        The upper one comes down by a tenth a step at most.
        """
        slope = self.budgets.derivative(self.n - self.s)
        inside, unit = slope > 0.0, slope.clamp_min(TINY)
        low = torch.where(inside, gives / unit, torch.inf).amin(1).mul_(BELOW)
        high = torch.where(inside, costs / unit, 0.0).amax(1).mul_(ABOVE).maximum(0.9 * self.z)
        return torch.where(self.free > 0.0, low, 0.0), torch.where(self.free > 0.0, high, torch.inf)
