"""Saddle points of a few numbers: ``min over s, max over y, z ≥ 0 of Φ(s, y, z)``, one step at a time.

Everything is in place, on float64 tensors of any one device, and never waits for it. The caller gives a `Field`, whose
parts are ``∂Φ/∂s``, ``∂Φ/∂y`` and ``∂Φ/∂z`` (or what is proportional to them) with whatever else Φ depends on held
still, and a `Rule`: the order in which the three move, and a `Move` for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

Part = Callable[[Tensor, Tensor, Tensor], Tensor]
Order = Literal["alternating", "simultaneous", "extragradient", "nupi"]
ORDERS: Final[tuple[Order, ...]] = ("alternating", "simultaneous", "extragradient", "nupi")
UNBOUNDED: Final = float("inf")
TINY: Final = torch.finfo(torch.float64).tiny
QUARTER: Final = 0.25


@dataclass(frozen=True)
class Field:
    """The parts of the field at a point (s, y, z): the slope of s, which descends, and the residuals of y and z."""

    s: Part
    y: Part
    z: Part


@dataclass(frozen=True)
class Move:
    """How a variable x moves along d: ``x ← clip(x + η d, low, high)``, or the mirror step ``clip(x · exp(η d))``.

    The mirror step is mirror ascent with the entropy: it keeps x > 0, and η d is a relative change whatever the unit
    of x. Its `low` has to be > 0, since 0 is never left. η, low and high are numbers or tensors like x.
    """

    rate: float | Tensor  # η > 0, in units of x over units of d; for the mirror step per unit of d
    low: float | Tensor = 0.0
    high: float | Tensor = UNBOUNDED
    mirror: bool = False

    def apply_(self, x: Tensor, d: Tensor, sign: float = 1.0) -> Tensor:
        """Moves x along ``sign · d``, in place."""
        by = d * self.rate
        if self.mirror:
            x.mul_(by.mul_(sign).exp_())
        else:
            x.add_(by, alpha=sign)
        return self.clip_(x)

    def clip_(self, x: Tensor) -> Tensor:
        """x between its bounds, in place."""
        return x.clamp_(min=self.low).clamp_(max=self.high)


@dataclass(frozen=True)
class Rule:
    """One step of the game; g, r and q are the parts of the field for s, y and z.

    - ``alternating``: z ascends first, by the residual at ``ŝ = s − η g``, where s would go at the present z; then s
      moves at the new z, and y ascends at the new s. Budgets are met by the s that follows, not by the s that was.
    - ``simultaneous``: all move by the field at the point where they are.
    - ``extragradient``: all look ahead, ``x̂ = x ± η F(x)``, and move from where they were by the field there
      (Korpelevich 1976). Converges on games in which simultaneous steps turn around the saddle.
    - ``nupi``: simultaneous, with duals that answer to how the residual changes too (Sohrabi et al. 2024):
      ``ξ ← ν ξ + (1 − ν) r`` and ``y ← y + η r + η κ (ξ − ξ before)``; ξ starts at 0. ν = 0 is a PI controller, and
      κ = 0 the simultaneous rule.
    """

    s: Move
    y: Move
    z: Move
    order: Order = "alternating"
    nu: float = 0.0  # ν in [0, 1)
    kappa: float = 1.0  # κ ≥ 0: the proportional gain over the integral gain, in steps


def step_(s: Tensor, y: Tensor, z: Tensor, field: Field, rule: Rule, past: tuple[Tensor, Tensor] | None = None) -> None:
    """One step of `rule`, in place; `past` holds ξ of y and of z, which `nupi` reads and writes."""
    if rule.order == "alternating":
        ahead = rule.s.apply_(s.clone(), field.s(s, y, z), -1.0)
        rule.z.apply_(z, field.z(ahead, y, z))
        rule.s.apply_(s, field.s(s, y, z), -1.0)
        rule.y.apply_(y, field.y(s, y, z))
        return
    if rule.order == "extragradient":
        ahead_s, ahead_y, ahead_z = s.clone(), y.clone(), z.clone()
        _move_(ahead_s, ahead_y, ahead_z, _at(field, s, y, z), rule)
        _move_(s, y, z, _at(field, ahead_s, ahead_y, ahead_z), rule)
        return
    if rule.order == "nupi" and past is None:
        raise ValueError("nupi needs the past of y and z")
    g, r, q = _at(field, s, y, z)
    if rule.order == "nupi" and past is not None:
        r, q = filtered_(r, past[0], rule), filtered_(q, past[1], rule)
    _move_(s, y, z, (g, r, q), rule)


def filtered_(residual: Tensor, xi: Tensor, rule: Rule) -> Tensor:
    """``r + κ(ξ' − ξ)`` with ``ξ' = ν ξ + (1 − ν) r``; then ξ ← ξ'."""
    change = (residual - xi).mul_(1.0 - rule.nu)
    xi.add_(change)
    return residual + rule.kappa * change


def _at(field: Field, s: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return field.s(s, y, z), field.y(s, y, z), field.z(s, y, z)


def _move_(s: Tensor, y: Tensor, z: Tensor, along: tuple[Tensor, Tensor, Tensor], rule: Rule) -> None:
    rule.s.apply_(s, along[0], -1.0)
    rule.y.apply_(y, along[1])
    rule.z.apply_(z, along[2])


# ── numbers without a unit ───────────────────────────────────────────────────────────────────────────────────────


def balance(a: Tensor, b: Tensor) -> Tensor:
    """``(a − b)/(a + b)`` in [−1, 1] for a, b ≥ 0: a difference in units of its own parts; 0 where both are 0."""
    return (a - b).div_((a + b).clamp_(min=TINY))


def beyond(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How far x is outside of [low, high], in [−1, 1] as a balance with the end next to it; 0 inside."""
    return balance(x, high).clamp_(min=0.0).add_(balance(x, low).clamp_(max=0.0))


def saturated(r: Tensor, half: float | Tensor) -> Tensor:
    """``r/(|r| + half)`` in (−1, 1): the sign of a residual far from 0, proportional to it near 0."""
    return r / (r.abs() + half)


def rounded(s: Tensor) -> Tensor:
    """⌈s⌉, but for a quarter of an item, so that a level that trembles around a whole number does not take turns."""
    return (s - QUARTER).ceil()


def course(p: float, reach: float) -> float:
    """``(1 − p/reach)³`` until p = reach, then 0: the part of what has to go that is still allowed."""
    return max(0.0, 1.0 - p / reach) ** 3


def spread(s: Tensor, n: Tensor, after: Tensor, below: Tensor, whole: Tensor, pace: float, kept: float) -> Tensor:
    """``dσ/d ln τ``: the share of a level's n items within a unit of the logarithm of its threshold, from its tails.

    `after` is τ, the smallest energy that stays, `below` the sum Σ of the ``c = ⌈s⌉`` energies that go, and `whole`
    that of all. If the share of items below t goes like t^a near τ, their mean is τ a/(1 + a): ``a = Σ/(cτ − Σ)``. If
    the share above t goes like t^−b, the mean of what stays is M = τ b/(b − 1): ``b = M/(M − τ)`` (Hill 1975). The
    result is the smaller of σa and (1 − σ)b, with σ = s/n, and at most ½. `pace`, a share of what stays, and `kept`, a
    share of the items, keep a level moving where it has no items near its threshold, or none left.
    """
    c = rounded(s)
    sigma, limit = s / n, c * after
    stays = 1.0 - sigma + kept + 1.0 / n
    a = below / (limit - below).clamp_(min=TINY).maximum(0.05 * limit)
    mean = ((whole - below) / (n - c).clamp_(min=1.0)).maximum(1.05 * after)
    b = mean / (mean - after).clamp_(min=TINY)
    return (sigma * a).maximum(pace * stays).minimum(stays * b).clamp_(max=0.5).add_(1.0 / n)
