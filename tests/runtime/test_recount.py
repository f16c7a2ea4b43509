"""Every recount against loops over single entries, and against the compiler where both can count."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from prunelang.compiler.channels import structural
from prunelang.compiler.formats import affine_bytes, best_bytes
from prunelang.compiler.problem import (
    Affine,
    Blocks,
    Choice,
    Constraint,
    Count,
    Entries,
    Function,
    GroupCount,
    Interval,
    Kept,
    MatrixFunction,
    Named,
    NofM,
    Relative,
    Set,
    Structural,
    VectorNorm,
)
from prunelang.compiler.shapes import Layer, Product, ShapeTable, Tensor
from prunelang.runtime.recount import recount
from prunelang.runtime.removed import remaining, removed
from prunelang.runtime.stored import Outcome, Stored
from tests.channel_tables import lenet_5, random_table, shapes_left

TABLE = ShapeTable(
    "toy()",
    (4,),
    (
        Layer("conv", "conv2d", "conv.weight", "conv.bias", 9),
        Layer("fc", "linear", "fc.weight", "fc.bias", 1),
        Layer("enc", "linear", "enc.weight", None, 5),
        Layer("dec", "linear", "dec.weight", None, 2),
    ),
    (
        Tensor("conv.weight", (6, 2, 3, 3), "weight"),
        Tensor("conv.bias", (6,), "bias"),
        Tensor("fc.weight", (10, 300), "weight"),
        Tensor("fc.bias", (10,), "bias"),
        Tensor("enc.weight", (8, 5), "weight", aliases=("dec.weight",)),
        Tensor("bn.weight", (6,), "norm"),
        Tensor("bn.count", (), "buffer", "int64"),
    ),
    (Product("attention", 77),),
)
KERNELS = ("conv.weight", "fc.weight", "enc.weight")
USES = {"conv.weight": 9, "fc.weight": 1, "enc.weight": 7}
ALL = tuple(t.name for t in TABLE.tensors)


def stored(seed: int = 0, supports: bool = False) -> Stored:
    rng = np.random.default_rng(seed)
    arrays = {
        t.name: np.asarray(rng.integers(-3, 4, t.shape) * 0.25 * (rng.random(t.shape) < 0.5)).astype(t.dtype)
        for t in TABLE.tensors
    }
    kept = {n: (arrays[n] != 0) | (rng.random(arrays[n].shape) < 0.2) for n in KERNELS} if supports else {}
    return Stored(arrays, kept, TABLE)


def outcome(function: Function, set: Set, s: Stored, text: str = "f(net) ≤ 1", **rest: Any) -> Outcome:
    return recount(Constraint("c", function, set, text=text), s, **rest)


def value(function: Function, s: Stored, text: str = "f(net) ≤ 1") -> Fraction:
    found = outcome(function, Interval(upper=10**12), s, text)
    assert found.value is not None, found.remark
    assert found.value.low == found.value.high
    return found.value.low


def nonzeros(s: Stored, name: str) -> int:
    return sum(1 for x in s.arrays[TABLE.tensor[name].name].flat if x != 0)


# ── counts ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(3))
def test_counts(seed: int) -> None:
    s = stored(seed)
    plain = sum(nonzeros(s, n) for n in KERNELS)
    macs = sum(USES[n] * nonzeros(s, n) for n in KERNELS)
    assert value(Count("norm0", dict.fromkeys(KERNELS, 1), 0, ""), s) == plain
    assert value(Count("norm0", {"dec.weight": 1}, 0, ""), s) == nonzeros(s, "enc.weight")
    assert value(Count("sparse_macs", USES, 77, "MACs"), s) == macs + 77
    assert value(Count("sparse_flops", {n: 2 * u for n, u in USES.items()}, 154, "FLOPs"), s) == 2 * (macs + 77)
    assert value(Count("sparse_macs", {"dec.weight": 2}, 0, "MACs"), s) == 2 * nonzeros(s, "enc.weight")
    assert value(Count("nonzeros", dict.fromkeys(KERNELS, 1), 22, ""), s) == plain + 6 + 10 + 6, "others in full"
    assert value(Count("nonzeros", {"fc.weight": 1}, 10, ""), s) == nonzeros(s, "fc.weight") + 10
    named = nonzeros(s, "fc.weight") + nonzeros(s, "fc.bias")
    assert value(Count("nonzeros", {"fc.weight": 1, "fc.bias": 1}, 0, ""), s) == named
    assert value(Count("sum", {"fc.weight": 3, "fc.bias": 5}, 9, ""), s, "a + b") == (
        3 * nonzeros(s, "fc.weight") + 5 * nonzeros(s, "fc.bias") + 9
    )


WRONG: list[tuple[Function, str]] = [
    (Count("norm0", {"fc.weight": 2}, 0, ""), "norm0"),
    (Count("norm0", {"fc.weight": 1}, 1, ""), "norm0"),
    (Count("nonzeros", dict.fromkeys(KERNELS, 1), 21, ""), "nonzeros"),
    (Count("nonzeros", {"fc.weight": 1}, 11, ""), "nonzeros"),
    (Count("sparse_macs", {**USES, "conv.weight": 8}, 0, "MACs"), "sparse_macs"),
    (Count("sparse_macs", USES, 76, "MACs"), "sparse_macs"),
    (Count("sparse_flops", USES, 0, "FLOPs"), "sparse_flops"),
    (Structural("macs", ("conv", "fc", "enc", "dec"), 1, "MACs"), "macs"),
    (Structural("params", ("fc",), 3011, ""), "params"),
]


@pytest.mark.parametrize(("function", "name"), WRONG)
def test_a_wrong_coefficient_of_the_compiler_is_found(function: Function, name: str) -> None:
    found = outcome(function, Interval(upper=10**9), stored())
    assert found.satisfied is False
    assert f"the compiled `{name}`" in found.remark
    combined = outcome(function, Interval(upper=10**9), stored(), "2 · f(net) ≤ 1")  # only the compiler knows the parts
    assert combined.satisfied is True


def bytes_functions() -> Iterator[tuple[Any, tuple[str, ...]]]:
    scopes = (ALL, ("conv.weight", "conv.bias"), ("enc.weight",), ("fc.weight", "fc.bias"))
    for scope in scopes:
        for format in ("bitmask", "csr", "dense"):
            yield affine_bytes(TABLE, scope, format), scope  # type: ignore[arg-type]
        yield best_bytes(TABLE, scope), scope


@pytest.mark.parametrize("seed", range(2))
def test_bytes_agree_with_the_compiler_and_a_wrong_one_is_found(seed: int) -> None:
    s = stored(seed)
    for function, _ in bytes_functions():
        if isinstance(function, Count):
            expected = function.constant + sum(c * nonzeros(s, n) for n, c in function.coefficients.items())
            kernels = bool(function.coefficients)
            wrong: Function = Count("bytes", function.coefficients, function.constant + 8, "B", function.options)
        else:
            ways = function.alternatives.items()
            expected = function.constant + sum(min(a * nonzeros(s, n) + c for _, a, c in w) for n, w in ways)
            kernels = True
            wrong = Choice("bytes", function.alternatives, function.constant + 8, "B", function.options)
        assert value(function, s) == expected
        if kernels:  # a dense file says nothing of what it holds
            assert "counted from layers and bytes it is" in outcome(wrong, Interval(upper=10**9), s).remark


def test_structural_costs_are_those_of_the_dense_shapes() -> None:
    macs = 9 * 108 + 3000 + 7 * 40
    layers = ("conv", "fc", "enc", "dec")
    params = 108 + 6 + 3000 + 10 + 40
    for function, expected in (
        (Structural("macs", layers, macs + 77, "MACs"), macs + 77),
        (Structural("macs", layers, macs, "MACs"), macs),
        (Structural("flops", layers, 2 * macs, "FLOPs"), 2 * macs),
        (Structural("macs", ("dec",), 80, "MACs"), 80),
        (Structural("params", layers, params + 6, ""), params + 6),  # all that is trained
        (Structural("params", layers, params, ""), params),
        (Structural("params", ("fc",), 3010, ""), 3010),
    ):
        assert value(function, stored()) == expected


def test_lower_bounds_ask_for_kept_positions() -> None:
    s = stored(1, supports=True)
    kept = int(s.supports["fc.weight"].sum())
    plain = nonzeros(s, "fc.weight")
    assert plain < kept
    f = Count("norm0", {"fc.weight": 1}, 0, "")
    below = outcome(f, Interval(lower=kept), s)
    assert (below.relation, below.counted, below.satisfied, below.margin) == ("≥", "kept positions", True, 0)
    assert outcome(f, Interval(lower=kept + 1), s).satisfied is False
    both = outcome(f, Interval(lower=kept, upper=plain), s)
    assert both.value is not None
    assert both.kept is not None
    assert (both.relation, both.value.low, both.kept.low, both.satisfied) == ("between", plain, kept, True)
    assert outcome(f, Interval(lower=kept, upper=plain - 1), s).margin == -1
    without = Stored(s.arrays, {}, TABLE)
    assert outcome(f, Interval(lower=plain + 1), without).satisfied is False
    rows = GroupCount("group_norm0", ("fc.weight",), "row")
    assert outcome(Affine(((Fraction(2), rows),), Fraction(1), ""), Interval(lower=21), s).counted == "kept positions"


# ── groups and norms ─────────────────────────────────────────────────────────────────────────────────────────────


def groups_of(array: Any, by: str) -> list[list[float]]:
    """By looking at every entry: its index says which group it is in."""
    found: dict[int, list[float]] = {}
    for index in itertools.product(*map(range, array.shape)):
        inner = int(np.ravel_multi_index(index[1:], array.shape[1:])) if array.ndim > 1 else 0
        key = {"row": index[0], "filter": index[0], "column": inner, "channel": index[1] if array.ndim > 1 else -1}[by]
        found.setdefault(key, []).append(float(array[index]))
    return list(found.values())


@pytest.mark.parametrize("by", ["filter", "row", "column", "channel"])
def test_groups(by: str) -> None:
    s = stored(2)
    s.arrays["conv.weight"][3] = 0
    s.arrays["conv.weight"][:, 1] = 0
    s.arrays["fc.weight"][:, 5:200] = 0
    names = ("conv.weight", "fc.weight", "dec.weight")
    groups = [g for n in ("conv.weight", "fc.weight", "enc.weight") for g in groups_of(s.arrays[n], by)]
    assert value(GroupCount("group_norm0", names, by), s) == sum(any(g) for g in groups)
    norm = sum(math.sqrt(sum(x * x for x in g)) for g in groups)
    found = outcome(VectorNorm("group_norm1", names, options=(("by", by),)), Interval(upper=10**9), s)
    assert found.value is not None
    assert float(found.value.middle) == pytest.approx(norm, rel=1e-13)
    assert found.value.high - found.value.low < Fraction(1, 10**60)


@pytest.mark.parametrize("seed", range(3))
def test_norms_to_the_last_bit(seed: int) -> None:
    s = stored(seed)
    rng = np.random.default_rng(seed)
    s.arrays["fc.weight"][:] = rng.standard_normal((10, 300)).astype("f4") * 1e-3
    names = ("conv.weight", "fc.weight", "enc.weight", "dec.weight")  # a tied tensor counts once
    entries = [abs(Fraction(float(x))) for n in KERNELS for x in s.arrays[n].flat]
    total, square = sum(entries, Fraction(0)), sum((x * x for x in entries), Fraction(0))
    tiny = Fraction(1, 2**400)
    assert outcome(VectorNorm("norm1", names), Interval(upper=total), s).satisfied is True
    assert outcome(VectorNorm("norm1", names), Interval(upper=total - tiny), s).satisfied is False
    assert outcome(VectorNorm("norm2", names, power=2), Interval(upper=square), s).satisfied is True
    assert outcome(VectorNorm("norm2", names, power=2), Interval(upper=square - tiny), s).satisfied is False
    root = Fraction(math.isqrt(square.numerator * 4**300 // square.denominator), 2**300)
    assert outcome(VectorNorm("norm2", names), Interval(upper=root), s).satisfied is False
    assert outcome(VectorNorm("norm2", names), Interval(upper=root + Fraction(1, 2**300)), s).satisfied is True
    assert outcome(VectorNorm("norm2", names), Interval(lower=root), s).satisfied is True
    assert value(VectorNorm("norminf", names), s) == max(entries)
    assert value(Affine(((Fraction(3), VectorNorm("norm1", names)),), Fraction(1, 7), ""), s) == 3 * total + Fraction(
        1, 7
    )


def test_entropy_of_the_stored_values() -> None:
    s = stored(0)
    found = outcome(VectorNorm("entropy", KERNELS), Interval(upper=2), s)
    counts = Counter(float(x) for n in KERNELS for x in s.arrays[n].flat)
    size = sum(counts.values())
    assert found.value is not None
    assert float(found.value.middle) == pytest.approx(-sum(c / size * math.log2(c / size) for c in counts.values()))


# ── sets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def naive_n_of_m(array: Any, m: int) -> int:
    rows = array.reshape(array.shape[0], -1).tolist()
    return max(sum(x != 0 for x in row[j : j + m]) for row in rows for j in range(0, len(row), m))


@pytest.mark.parametrize("m", [1, 2, 4, 7, 300, 1000])
def test_n_of_m(m: int) -> None:
    s = stored(3)
    for names in (("fc.weight",), KERNELS):
        most = max(naive_n_of_m(s.arrays[n], m) for n in names)
        found = outcome(Entries(names), NofM(most, m), s)
        assert (found.satisfied, found.margin) == (True, 0)
        assert outcome(Entries(names), NofM(most - 1, m), s).satisfied is False


def naive_broken(mask: Any, p: int, q: int) -> int:
    rows = mask.reshape(mask.shape[0], -1)
    blocks = [rows[i : i + p, j : j + q] for i in range(0, len(rows), p) for j in range(0, rows.shape[1], q)]
    return sum(1 for b in blocks if 0 < sum(map(bool, b.flat)) < b.size)


@pytest.mark.parametrize(("p", "q"), [(1, 1), (2, 2), (4, 7), (3, 1), (100, 1000)])
def test_blocks(p: int, q: int) -> None:
    s = stored(4)
    for supports in ({}, {"conv.weight": np.kron(np.eye(3), np.ones((2, 6))).reshape(6, 2, 3, 3).astype(bool)}):
        with_support = Stored(s.arrays, supports, TABLE)
        found = outcome(Entries(("conv.weight",)), Blocks(p, q), with_support)
        mask = supports.get("conv.weight", s.arrays["conv.weight"] != 0)
        assert found.value is not None
        assert found.value.low == naive_broken(mask, p, q)
        assert found.satisfied == (found.value.low == 0)


def test_dense_means_every_position_is_kept() -> None:
    s = stored(0)
    assert outcome(Entries(("fc.weight",)), Kept(), s).satisfied is False
    kept = Stored(s.arrays, {"fc.weight": np.ones((10, 300), bool)}, TABLE)
    found = outcome(Entries(("fc.weight",)), Kept(), kept)
    assert (found.satisfied, found.margin, found.counted) == (True, 0, "kept positions")
    s.arrays["fc.weight"][:] = 1
    assert outcome(Entries(("fc.weight",)), Kept(), Stored(s.arrays, {}, TABLE)).satisfied is True


def level(name: str, **arguments: Any) -> Named:
    return Named(name, tuple(arguments.items()))


def test_named_sets() -> None:
    s = stored(0)  # values are multiples of 1/4 up to 3/4
    quarters = tuple(Fraction(k, 4) for k in range(-3, 4))
    everything = Entries(KERNELS)
    n = sum(nonzeros(s, k) for k in KERNELS)
    edge = sum(1 for k in KERNELS for x in s.arrays[k].flat if abs(x) == 0.75)
    top = Fraction(3, 4)
    cases: list[tuple[Set, bool, int]] = [
        (level("sparse", n=n), True, 0),
        (level("sparse", n=n - 1), False, -1),
        (level("codebook", k=7), True, 0),
        (level("codebook", k=6), False, -1),
        (level("values", values=quarters), True, 0),
        (level("values", values=quarters[1:-1]), False, -edge),
        (level("box", lo=-top, hi=top), True, 0),
        (level("box", lo=-top, hi=top - Fraction(1, 2**100)), False, -edge // 2),
        (level("scaled", values=tuple(range(-3, 4))), True, 0),
        (level("scaled", values=tuple(range(-30, 40, 10))), True, 0),
    ]
    for set, satisfied, margin in cases:
        found = outcome(everything, set, s)
        assert found.satisfied is satisfied, set
        if margin != -edge // 2:
            assert found.margin == margin, set
    third = Fraction(1, 3)
    s.arrays["conv.weight"][:] = np.float32(1 / 3)
    assert (
        outcome(Entries(("conv.weight",)), level("values", values=(third,)), s).satisfied is True
    )  # as float32 has it


UNKNOWN: list[tuple[Function, Set, str]] = [
    (Entries(KERNELS), level("low_rank", r=3), "the set `low_rank`"),
    (Entries(KERNELS), Named("sum", parts=(level("sparse", n=1), level("low_rank", r=1))), "a sum without the parts"),
    (Entries(KERNELS), level("box", lo="a", hi=1), "a set with the argument 'a'"),
    (Entries(KERNELS), level("box", lo=-1, hi=1, more=2), "the set `box`"),
    (Entries(("conv.weight",)), level("scaled", values=(0, 1)), "had to be rounded"),
    (MatrixFunction("rank", "fc.weight", (("of", "rows"),)), Interval(upper=3), "`rank` with these options"),
    (VectorNorm("drr", KERNELS, options=(("beta", 5),)), Interval(upper=3), "`drr` with these options"),
    (VectorNorm("norm2", KERNELS, options=(("from", "start"),)), Interval(upper=3), "`norm2` with these options"),
    (VectorNorm("group_norm1", KERNELS), Interval(upper=3), "`group_norm1` with these options"),
    (VectorNorm("group_norm1", KERNELS, options=(("by", "head"),)), Interval(upper=3), "groups by head"),
    (GroupCount("group_norm0", ("conv.bias",), "channel"), Interval(upper=3), "groups by channel"),
    (VectorNorm("norm1", KERNELS), Relative("≤", Fraction(1, 2), Fraction(0)), "whose value is not recorded"),
]


@pytest.mark.parametrize(("function", "set", "said"), UNKNOWN)
def test_what_has_no_recount_is_said_to_have_none(function: Function, set: Set, said: str) -> None:
    found = outcome(function, set, stored())
    assert found.satisfied is None
    assert said in found.remark


def test_bounds_relative_to_base() -> None:
    s = stored()
    total = value(VectorNorm("norm1", KERNELS), s)
    below = Relative("≤", Fraction(1, 2), Fraction(1))
    base = 2 * (total - 1)
    assert outcome(VectorNorm("norm1", KERNELS), below, s, base=base).margin == 0
    assert outcome(VectorNorm("norm1", KERNELS), below, s, base=base - 1).satisfied is False
    above = Relative("≥", Fraction(1, 2), Fraction(1))
    assert outcome(VectorNorm("norm1", KERNELS), above, s, base=base + 1).satisfied is False


def test_a_tensor_that_is_not_there() -> None:
    found = outcome(Count("norm0", {"fc9.weight": 1}, 0, ""), Interval(upper=1), stored())
    assert found.satisfied is False
    assert found.remark == "it speaks of `fc9.weight`, which toy() has not"


def test_values_outside_their_support_are_found() -> None:
    s = stored(0, supports=True)
    assert s.stray() == []
    s.supports["enc.weight"][np.nonzero(s.arrays["enc.weight"])[0][0]] = False
    assert s.stray() == ["enc.weight"]


def test_subnormal_values_count() -> None:
    s = stored()
    s.arrays["fc.weight"][:] = 0
    s.arrays["fc.weight"][0, :3] = [1e-45, -1e-45, 0]
    assert value(Count("norm0", {"fc.weight": 1}, 0, ""), Stored(s.arrays, {}, TABLE)) == 2


# ── channels ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(40))
def test_a_member_is_gone_once_all_its_stored_slices_are_zero(seed: int) -> None:
    """The shapes that are left, index by index; statistics do not hold a member, one entry does."""
    rng = random.Random(seed)
    table = random_table(rng)
    kept = {g.name: set(rng.sample(range(g.size), rng.randint(0, g.size))) for g in table.channels}
    arrays = {t.name: np.ones(t.shape, np.float32) for t in table.tensors}
    for g in table.channels:
        for x in (x for x in g.slices if table.tensor[x.tensor].role != "buffer"):
            for i in set(range(g.size)) - kept[g.name]:
                index: list[Any] = [slice(None)] * len(table.tensor[x.tensor].shape)
                index[x.dim] = list(x.indices(i))
                arrays[x.tensor][tuple(index)] = 0
    s = Stored(arrays, {}, table)
    left = shapes_left(table, kept)
    found = remaining(removed(s), table)
    assert {t: found.get(t, table.tensor[t].shape) for t in left} == left
    costs = {x.weight: x.uses for x in table.layers}
    dense = sum(c * table.tensor[t].size for t, c in costs.items())
    f = structural("macs", tuple(table.layer), dense, "MACs", costs, table)
    assert value(f, s) == sum(x.uses * math.prod(left[x.weight]) for x in table.layers)


def test_groups_that_cannot_lose_members_count_in_full_and_a_wrong_cost_is_seen() -> None:
    table = lenet_5(reason="its output is reshaped")
    arrays = {t.name: np.zeros(t.shape, np.float32) for t in table.tensors}
    s = Stored(arrays, {}, table)
    costs = {x.weight: x.uses for x in table.layers}
    f = structural("macs", tuple(table.layer), 2_293_000, "MACs", costs, table)
    assert value(f, s) == 0  # what is left of conv2 has no inputs, and its outputs no readers
    params = structural("params", tuple(table.layer), 431_080, "", {t.name: 1 for t in table.tensors}, table)
    assert value(params, s) == 50 + 10
    wrong = replace(f, costs=tuple((t, c + 1) for t, c in f.costs))
    found = outcome(wrong, Interval(upper=10**9), s)
    assert found.satisfied is False
    assert "counted from the layers" in found.remark
