"""The static part of joint projections: plain data, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations, permutations

import pytest

from prunelang.compiler.joint import (
    BlockBound,
    Bound,
    ChoiceBound,
    CountBound,
    CrossingSets,
    GroupBound,
    NofMBound,
    Pinned,
    check_laminar,
    exactness,
    from_json,
    to_json,
)

BOUNDS: list[Bound] = [
    CountBound("n", {"a": 2, "b": 2}, 3, 10, 21),
    ChoiceBound("bytes", {"a": (("csr", 6, 4), ("dense", 0, 64))}, 100, 8),
    GroupBound("groups", ("a",), "filter", 3),
    NofMBound("cells", ("a",), 2, 4),
    BlockBound("blocks", ("b",), 4, 4),
    Pinned("pin", ("b",)),
]


def test_json_round_trip() -> None:
    data = json.loads(json.dumps(to_json(BOUNDS)))
    assert from_json(data) == tuple(BOUNDS)
    with pytest.raises(ValueError, match="not a bound"):
        from_json([{"kind": "Nonsense"}])
    with pytest.raises(ValueError, match="not a bound"):
        from_json([{**data[0], "extra": 1}])


def test_plain_counts_round_to_the_stricter_side() -> None:
    bound = BOUNDS[0]
    assert isinstance(bound, CountBound)
    assert bound.most == 9  # 2·9 + 3 ≤ 21
    assert bound.least == 4  # 2·4 + 3 ≥ 10, 2·3 + 3 is not
    assert CountBound("n", {"a": 5}, lower=-3).least == 0


def test_laminar_and_exactness() -> None:
    whole, part = CountBound("whole", {"a": 1, "b": 1, "c": 1}, upper=5), CountBound("part", {"a": 1, "b": 1}, upper=4)
    check_laminar([whole, part, CountBound("single", {"c": 7}, upper=14)])
    assert exactness([whole, part, NofMBound("cells", ("a",), 2, 4)]) == "exact"
    assert exactness([whole, CountBound("macs", {"a": 3, "c": 1}, upper=9)]) == "gap"
    assert exactness([GroupBound("g", ("a",), "row", 2), part]) == "gap"
    assert exactness([GroupBound("g", ("c",), "row", 2), part]) == "exact"
    with pytest.raises(CrossingSets, match="part and other cross"):
        check_laminar([part, CountBound("other", {"b": 1, "c": 1}, upper=4)])
    check_laminar([part, CountBound("weighted", {"b": 1, "c": 2}, upper=4)])


def test_laminar_is_what_comparing_all_pairs_says() -> None:
    """Against the definition: of two sets one holds the other, or they share nothing."""
    families = list(combinations([set(c) for size in (1, 2, 3, 4) for c in combinations("abcd", size)], 3))
    nested = 0
    for family in families:
        laminar = all(x <= y or y <= x or not x & y for x, y in combinations(family, 2))
        counts = [CountBound("".join(sorted(x)), dict.fromkeys(sorted(x), 1), upper=1) for x in family]
        for order in permutations(counts):
            if laminar:
                check_laminar(order)
                continue
            with pytest.raises(CrossingSets) as crossing:
                check_laminar(order)
            x, y = map(set, crossing.value.names)
            assert x & y
            assert not x <= y
            assert not y <= x
        nested += laminar
    assert 0 < nested < len(families)


def test_inner_sets_are_compared_where_they_share_a_tensor() -> None:
    far = [NofMBound("cells", ("a", "b"), 2, 4), BlockBound("blocks", ("c",), 2, 2), Pinned("pin", ("d",))]
    check_laminar(far)
    check_laminar([GroupBound("filters", ("a",), "filter", 2), far[0]])
    for near in (BlockBound("blocks", ("b", "c"), 2, 2), GroupBound("channels", ("b",), "channel", 2)):
        with pytest.raises(CrossingSets, match=f"cells and {near.name} cross"):
            check_laminar([far[0], near])
    with pytest.raises(CrossingSets, match="pin and cells cross"):
        check_laminar([far[0], Pinned("pin", ("b", "d"))])
    check_laminar([NofMBound("all", ("a",), 4, 4), Pinned("pin", ("a",))])


def test_refusals() -> None:
    for make in (
        lambda: CountBound("n", {"a": 0}),
        lambda: CountBound("n", {"a": 1, "b": 2}, lower=1),
        lambda: GroupBound("g", ("a",), "head", 1),  # type: ignore[arg-type]
        lambda: NofMBound("c", ("a",), 3, 2),
        lambda: BlockBound("b", ("a",), 0, 2),
    ):
        with pytest.raises(ValueError, match=r"^[ngcb]: "):
            make()


def test_needs_no_torch() -> None:
    code = "import sys, prunelang.compiler.joint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
