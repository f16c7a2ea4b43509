"""Exact order statistics of |v| over several tensors, by selection: no sort, no concatenation, no model-sized copy.

``τ = |v|₍κ₎``, the κ-th largest magnitude of the concatenation, and the κ positions that a projection onto
``{‖·‖₀ ≤ κ}`` keeps: every entry above τ, and of those equal to τ the ones with the lowest global index (order of the
tensors, then row-major index), until there are κ.

The κ-th key lies in a bracket [bottom, top) with known counts at both ends. A round proposes a narrow bracket from a
random sample (or from the last calls: where the key was, and where it was moving), counts the entries above and inside
in one pass, and selects among the few inside. A proposal that misses still narrows the bracket, so the result never
depends on it, only the time does; one of a last call is then laid beside itself, by as many keys as it missed by.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prunelang.runtime.prox.scan import (
    BLOCK,
    SIGNED,
    UNSIGNED,
    DeviceScan,
    HostScan,
    key_value,
)

SAMPLE = 1 << 17  # sampled keys: a bracket of ±3.5 standard deviations then holds at most 1 % of the entries
SMALL = 1 << 15  # up to this many entries are gathered at once
FAR = 32  # times as many keys beside a warm bracket as in it: further away a sample finds the key sooner
ROUNDS = 8  # sampled rounds before plain bisection of the key, which ends after at most 64 passes


class Threshold(NamedTuple):
    """The κ-th largest magnitude: keep the `greater` entries above `value`, and the first `ties_to_keep` equal to it.

    ``greater + ties_to_keep = min(κ, n)`` and ``0 ≤ ties_to_keep ≤ ties``. `key` is the bit pattern of `value`; for
    κ = 0 both are infinite, so that nothing reaches the threshold.
    """

    value: float
    greater: int
    ties_to_keep: int
    ties: int
    key: int


class Selector:
    """Selection that starts from the threshold of its last call. Its state changes the time taken, never the result."""

    def __init__(self) -> None:
        self.bracket: tuple[int, int] | None = None
        self.share = 1 / 512  # share of the entries that the next bracket should hold
        self.key: int | None = None  # of the last call

    def threshold(self, tensors: Sequence[Tensor], kappa: int) -> Threshold:
        """`kth_magnitude`, warm."""
        return kth_magnitude(tensors, kappa, self)

    def project_(self, tensors: Sequence[Tensor], kappa: int, masks: Sequence[Tensor] | None = None) -> Threshold:
        """`project_topk_`, warm."""
        found = self.threshold(tensors, kappa)
        apply_threshold_(tensors, found, masks)
        return found

    def missed(self, above: int, within: int, kappa: int) -> tuple[int, int] | None:
        """Where the key is if keys lie as close beside the bracket as in it, twice as far to be sure; None if there is
        nothing to go by. `above` keys are past the top of the bracket that missed, `within` past its bottom."""
        assert self.bracket is not None
        (lo, hi), inside = self.bracket, within - above
        self.bracket, self.share = None, min(4 * self.share, 1 / 32)
        past = above - kappa + 1 if above >= kappa else kappa - within
        if inside < 8 or past > FAR * inside:
            return None
        reach = 2 * (past * (hi - lo) // inside) + (hi - lo)
        return (hi, hi + reach) if above >= kappa else (lo - reach, lo)

    def learn(self, key: int, width: int, inside: int, entries: int) -> None:
        """The next bracket reaches from `key` to where it will be if it moves on as it did, with a margin on both sides
        as the density seen (`inside` keys over `width`) asks for."""
        radius = max(1, round(self.share * entries * width / (2 * max(inside, 1))))
        moved, self.key = 0 if self.key is None else key - self.key, key
        ahead = key + moved
        self.bracket = (max(0, min(key, ahead) - radius), max(key, ahead) + radius) if inside else (key, key + 1)
        self.share = max(0.9 * self.share, 1 / 2048)


def check_tensors(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors detached, of one floating dtype: mixed ones are widened (exactly) to the widest of them."""
    found = [t.detach() for t in tensors]
    for t in found:
        if t.dtype not in SIGNED:
            raise TypeError(f"magnitudes are selected among float16, bfloat16, float32 and float64, not {t.dtype}")
    if len({t.dtype for t in found}) > 1:
        wide = torch.float64 if any(t.dtype == torch.float64 for t in found) else torch.float32
        found = [t.to(wide) for t in found]
    return found


def kth_magnitude(tensors: Sequence[Tensor], kappa: int, warm: Selector | None = None) -> Threshold:
    """τ, the κ-th largest ``|v|`` over all `tensors`, with the counts that make the κ kept positions unique.

    ``κ ≥ n`` keeps everything. Raises `NonFinite` naming the first tensor that holds NaN or ±∞, `ValueError` for κ < 0.
    """
    if kappa < 0:
        raise ValueError(f"κ counts kept entries: it cannot be {kappa}")
    flat = check_tensors(tensors)
    entries = sum(t.numel() for t in flat)
    if entries == 0:
        return Threshold(float("inf"), 0, 0, 0, 0)
    on_host = all(t.device.type == "cpu" for t in flat)
    scan: HostScan | DeviceScan = HostScan(flat) if on_host else DeviceScan(flat)
    found = select_key(scan, min(kappa, entries), entries, warm)
    value = key_value(found.key, scan.dtype)
    return found._replace(value=value)


def select_key(scan: HostScan | DeviceScan, kappa: int, entries: int, warm: Selector | None) -> Threshold:
    """The selection itself. Invariant: ``count_top = #{key ≥ top} < κ ≤ #{key ≥ bottom} = count_bottom``."""
    if kappa == 0:
        scan.count(0, scan.infinity, gather=False)  # for its check of finiteness
        return Threshold(0.0, 0, 0, 0, scan.infinity)
    bottom, top, count_bottom, count_top = 0, scan.infinity, entries, 0
    beside: tuple[int, int] | None = None
    for turn in range(ROUNDS + 64):
        started_warm = turn == 0 and warm is not None and warm.bracket is not None
        if started_warm:
            assert warm is not None and warm.bracket is not None
            lo, hi = (min(max(k, bottom), top) for k in warm.bracket)
        elif beside is not None:
            (lo, hi), beside = (min(max(k, bottom), top) for k in beside), None
        elif count_bottom - count_top <= SMALL:
            lo, hi = bottom, top
        elif turn < ROUNDS:
            rank = (kappa - count_top) / (count_bottom - count_top)
            lo, hi = propose(scan.sample(SAMPLE, seed=turn), bottom, top, rank)
        else:
            lo, hi = (bottom + top) // 2, (bottom + top) // 2 + 1
        above, within, keys = scan.count(lo, hi, gather=hi - lo > 1)
        if above >= kappa:
            bottom, count_bottom = hi, above
        elif within < kappa:
            top, count_top = lo, within
        elif hi - lo == 1:
            return settle(warm, Threshold(0.0, above, kappa - above, within - above, lo), 1, 0, entries)
        else:
            key, greater, ties = scan.kth(keys, kappa - above)
            greater += above
            return settle(warm, Threshold(0.0, greater, kappa - greater, ties, key), hi - lo, within - above, entries)
        if started_warm and warm is not None:
            beside = warm.missed(above, within, kappa)
        if top - bottom == 1:
            found = Threshold(0.0, count_top, kappa - count_top, count_bottom - count_top, bottom)
            return settle(warm, found, 1, 0, entries)
    raise AssertionError("bisection of a 64-bit key ends within 64 passes")


def settle(warm: Selector | None, found: Threshold, width: int, inside: int, entries: int) -> Threshold:
    if warm is not None:
        warm.learn(found.key, width, inside, entries)
    return found


def propose(sample: np.ndarray, bottom: int, top: int, rank: float) -> tuple[int, int]:
    """A narrow bracket around the key of relative `rank` (0 at the top) of the entries in [bottom, top).

    The bracket lies strictly between two sampled keys, so that a value with many ties is never inside together with
    others: either it *is* the bracket, or it falls outside and the next round meets it alone.
    """
    if bottom > 0 or int(sample.max(initial=0)) >= top:
        sample = sample[(sample >= bottom) & (sample < top)]
    if sample.size == 0:
        return (bottom + top) // 2, (bottom + top) // 2 + 1
    at, margin = (1 - rank) * sample.size, 3.5 * sqrt(sample.size * rank * (1 - rank)) + 4
    first, last = int(at - margin), int(at + margin)
    sample = np.partition(sample, (max(first, 0), min(last, sample.size - 1)))
    low = int(sample[first]) if first >= 0 else bottom - 1
    high = int(sample[last]) if last < sample.size else top
    if high - low > 1:
        return low + 1, high
    return max(low, bottom), max(low, bottom) + 1


def project_topk_(tensors: Sequence[Tensor], kappa: int, masks: Sequence[Tensor] | None = None) -> Threshold:
    """θ ← Π{‖·‖₀ ≤ κ}(θ) in place: the κ largest magnitudes stay, the rest becomes +0. Returns the threshold used.

    `masks`, if given, are boolean tensors that receive the kept positions: exactly min(κ, n), a kept zero included.
    """
    found = kth_magnitude(tensors, kappa)
    apply_threshold_(tensors, found, masks)
    return found


def topk_mask_(tensors: Sequence[Tensor], kappa: int, masks: Sequence[Tensor]) -> Threshold:
    """The kept positions of `project_topk_` into `masks`, leaving `tensors` alone."""
    found = kth_magnitude(tensors, kappa)
    apply_threshold_(tensors, found, masks, write=False)
    return found


@torch.no_grad()
def apply_threshold_(
    tensors: Sequence[Tensor], found: Threshold, masks: Sequence[Tensor] | None = None, write: bool = True
) -> None:
    """Zeroes what `found` drops (unless `write` is false) and records what it keeps; asserts the count in int64."""
    outs: list[Tensor | None] = [None] * len(tensors) if masks is None else list(masks)
    kept, ties = 0, found.ties_to_keep
    for tensor, wide, out in zip(tensors, check_tensors(tensors), outs, strict=True):
        on_host = wide.device.type == "cpu" and wide.is_contiguous() and (out is None or out.is_contiguous())
        if on_host and wide.dtype == tensor.dtype and (write or out is not None):
            here, used = _apply_host(wide, found, ties, out, write)
        else:
            here, used = _apply_device(tensor.detach(), wide, found, ties, out, write)
        kept, ties = kept + here, ties - used
    if kept != found.greater + found.ties_to_keep:
        raise AssertionError(f"kept {kept} entries where {found.greater + found.ties_to_keep} were to be kept")


def _apply_host(tensor: Tensor, found: Threshold, ties: int, out: Tensor | None, write: bool) -> tuple[int, int]:
    """(kept entries, ties kept among them) of one contiguous CPU tensor, block by block."""
    unsigned, flat = UNSIGNED[tensor.dtype], tensor.view(-1)
    bits = flat.view(SIGNED[tensor.dtype]).numpy().view(unsigned)
    mask = None if out is None else out.view(-1).numpy()
    threshold, below = unsigned(2 * found.key), key_value(max(found.key - 1, 0), tensor.dtype)
    # A flush-to-zero mode could blur a comparison with a denormal.
    shrinks = torch.finfo(tensor.dtype).tiny <= below < float("inf")
    keys, drop = np.empty(min(BLOCK, bits.size), unsigned), np.empty(min(BLOCK, bits.size), bool)
    kept = used = 0
    for start in range(0, bits.size, BLOCK):
        part = bits[start : start + BLOCK]
        k, lost = keys[: part.size], drop[: part.size]
        np.add(part, part, out=k)
        np.less(k, threshold, out=lost)
        if found.ties_to_keep < found.ties:
            equal = np.flatnonzero(k == threshold)
            late = equal[ties - used :]
            lost[late] = True
            if write:
                part[late] = 0
            used += equal.size - late.size
        kept += int(part.size - np.count_nonzero(lost))
        if write and shrinks:
            block = flat[start : start + BLOCK]  # |x| > pred(τ) is |x| ≥ τ, in one vectorised operation
            torch.ops.aten.hardshrink.out(block, below, out=block)
        elif write:
            np.putmask(part, lost, unsigned(0))
        if mask is not None:
            np.logical_not(lost, out=mask[start : start + BLOCK])
    return kept, used


def _apply_device(
    tensor: Tensor, wide: Tensor, found: Threshold, ties: int, out: Tensor | None, write: bool
) -> tuple[int, int]:
    """The same in torch: `wide` holds the values that were ranked, `tensor` what is to be zeroed."""
    integer = SIGNED[wide.dtype]
    keys = wide.contiguous().view(integer) & torch.iinfo(integer).max
    keep, used = keys >= found.key, 0
    if found.ties_to_keep < found.ties:
        equal = (keys == found.key).view(-1).nonzero().squeeze(1)
        keep.view(-1)[equal[ties:]] = False
        used = min(equal.numel(), ties)
    if write:
        tensor.masked_fill_(~keep, 0)
    if out is not None:
        out.copy_(keep)
    return int(keep.sum()), used
