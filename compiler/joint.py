"""Several structural constraints at once, as plain data: what a joint projection is built from.

All bounds speak of *kept positions* of whole tensors, by name, in exact integers. The runtime projects onto their
intersection; here is what can be said without weights: whether the counts form a laminar family, whether the
constraints inside a tensor can be combined, and whether the projection is exact or comes with a certified gap.

A count with one coefficient a everywhere is a plain count, ``Σ nnz ≤ ⌊(upper − constant) / a⌋``. Plain counts must be
*laminar*: of two of their tensor sets, one holds the other or they are disjoint. Counts with differing coefficients
(`sparse_macs`, bytes over dtypes) may overlap anything: they are priced by Lagrange multipliers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal, TypeAlias

GROUPINGS = ("filter", "channel", "row", "column")


class CrossingSets(ValueError):
    """Two constraints overlap without nesting, so that their joint projection is not offered. `names` are theirs."""

    def __init__(self, first: str, second: str, why: str) -> None:
        super().__init__(f"{first} and {second} cross: {why}")
        self.names = (first, second)


@dataclass(frozen=True)
class CountBound:
    """``lower ≤ Σ_t coefficients[t] · kept_t + constant ≤ upper``; None is no bound. Coefficients are at least 1."""

    name: str
    coefficients: Mapping[str, int]
    constant: int = 0
    lower: int | None = None
    upper: int | None = None
    measured: str = ""  # the state whose calibration the coefficients and the upper bound are taken from, if any

    def __post_init__(self) -> None:
        if any(a < 1 for a in self.coefficients.values()):
            raise ValueError(f"{self.name}: a kept position must cost at least 1")
        if self.lower is not None and self.coefficients and not self.plain:
            raise ValueError(f"{self.name}: a lower bound needs one coefficient for all tensors")

    @property
    def tensors(self) -> tuple[str, ...]:
        return tuple(self.coefficients)

    @property
    def plain(self) -> bool:
        """One coefficient for all tensors: a plain count, up to a factor."""
        return len(set(self.coefficients.values())) == 1

    @property
    def weighted(self) -> bool:
        """Coefficients that differ."""
        return len(set(self.coefficients.values())) > 1

    @property
    def most(self) -> int | None:
        """The greatest number of kept positions of a plain count; negative when the constant alone is too much."""
        return None if self.upper is None else (self.upper - self.constant) // next(iter(self.coefficients.values()))

    @property
    def least(self) -> int:
        """The least number of kept positions of a plain count."""
        if self.lower is None or not self.coefficients:
            return 0
        return max(0, -((self.constant - self.lower) // next(iter(self.coefficients.values()))))


@dataclass(frozen=True)
class ChoiceBound:
    """``Σ_t min_f (a_f · kept_t + c_f) + constant ≤ upper``: each tensor in its cheapest format (`bytes`, best)."""

    name: str
    alternatives: Mapping[str, tuple[tuple[str, int, int], ...]]  # tensor → (format, a, c): a, c ≥ 0
    upper: int
    constant: int = 0

    @property
    def tensors(self) -> tuple[str, ...]:
        return tuple(self.alternatives)


@dataclass(frozen=True)
class GroupBound:
    """At most `upper` groups, over all `tensors`, hold a kept position.

    Groups are the slices of dimension 0 (`filter`) or 1 (`channel`), or the rows or columns of the matrix
    ``shape[0] × ∏ shape[1:]``.
    """

    name: str
    tensors: tuple[str, ...]
    by: str
    upper: int

    def __post_init__(self) -> None:
        if self.by not in GROUPINGS:
            raise ValueError(f"{self.name}: groups are by {', '.join(GROUPINGS)}, not by {self.by}")


@dataclass(frozen=True)
class NofMBound:
    """At most `n` kept of every `m` consecutive columns, in each row of each tensor; a shorter last part may keep n."""

    name: str
    tensors: tuple[str, ...]
    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 <= self.n <= self.m or self.m < 1:
            raise ValueError(f"{self.name}: {self.n}:{self.m} is not n of m with 0 ≤ n ≤ m")


@dataclass(frozen=True)
class BlockBound:
    """Kept positions are whole blocks of `rows` × `columns` of each matrix; blocks at the edge may be smaller."""

    name: str
    tensors: tuple[str, ...]
    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"{self.name}: a block has at least one row and one column")


@dataclass(frozen=True)
class Pinned:
    """Every position of these tensors is kept."""

    name: str
    tensors: tuple[str, ...]


Place: TypeAlias = tuple[str, int, int, int]
"""A slice of a tensor: its name, the dimension, the first index, and how many indices each member owns from there."""


@dataclass(frozen=True)
class ChannelGroup:
    """A coupling group: the indices that each of its `size` members owns, in every tensor where it has some."""

    name: str
    size: int
    slices: tuple[Place, ...]


@dataclass(frozen=True)
class ChannelBound:
    """``constant + Σ c·∏ k_i ≤ upper`` over the kept members k of `groups`; coefficients are at least 1.

    A member is kept if any position of its slices is. `terms` are ``(c, places of groups)``.
    """

    name: str
    groups: tuple[ChannelGroup, ...]
    terms: tuple[tuple[int, tuple[int, ...]], ...]
    upper: int
    constant: int = 0

    def __post_init__(self) -> None:
        if any(c < 1 for c, _ in self.terms):
            raise ValueError(f"{self.name}: a kept channel must cost at least 1")

    @property
    def tensors(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(t for g in self.groups for t, _, _, _ in g.slices))


Bound: TypeAlias = CountBound | ChoiceBound | GroupBound | NofMBound | BlockBound | Pinned | ChannelBound
KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (CountBound, ChoiceBound, GroupBound, NofMBound, BlockBound, Pinned, ChannelBound)
}


def to_json(bounds: Sequence[Bound]) -> list[dict[str, Any]]:
    """Plain data, with the class of each bound under `kind`; `from_json` is its inverse."""
    return [{"kind": type(b).__name__, **_listed(_stated(b))} for b in bounds]


def _stated(bound: Bound) -> dict[str, Any]:
    """The fields, without the mark of calibration where there is none."""
    return {k: v for k, v in asdict(bound).items() if k != "measured" or v}


def from_json(data: Iterable[Mapping[str, Any]]) -> tuple[Bound, ...]:
    """The bounds that `to_json` wrote. Raises `ValueError` for an unknown kind or field."""
    return tuple(_bound(entry) for entry in data)


def _bound(entry: Mapping[str, Any]) -> Bound:
    fields = {k: v for k, v in entry.items() if k != "kind"}
    kind = KINDS.get(str(entry.get("kind")))
    if kind is None or set(fields) - set(kind.__dataclass_fields__):
        raise ValueError(f"not a bound of a joint projection: {dict(entry)}")
    if "tensors" in fields:
        fields["tensors"] = tuple(fields["tensors"])
    if "alternatives" in fields:
        ways = fields["alternatives"].items()
        fields["alternatives"] = {t: tuple((f, a, c) for f, a, c in found) for t, found in ways}
    if "groups" in fields:
        made = (ChannelGroup(g["name"], g["size"], tuple(map(tuple, g["slices"]))) for g in fields["groups"])
        fields["groups"] = tuple(made)
        fields["terms"] = tuple((c, tuple(places)) for c, places in fields["terms"])
    return kind(**fields)  # type: ignore[no-any-return]


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _listed(v) for k, v in value.items()}
    return [_listed(v) for v in value] if isinstance(value, list | tuple) else value


def plain_counts(bounds: Sequence[Bound]) -> list[CountBound]:
    """The plain counts, inner sets before the sets that hold them: the order in which they are met."""
    return sorted((b for b in bounds if isinstance(b, CountBound) and b.plain), key=lambda b: len(b.tensors))


def weighted_counts(bounds: Sequence[Bound]) -> list[CountBound | ChoiceBound]:
    """The bounds that are priced by a multiplier."""
    return [b for b in bounds if isinstance(b, ChoiceBound) or (isinstance(b, CountBound) and b.weighted)]


def only_counts(bounds: Iterable[Bound]) -> bool:
    """Whether plain counts and pinned tensors are all there is, with numbers that nothing measures."""
    return all(isinstance(b, Pinned) or (isinstance(b, CountBound) and not (b.weighted or b.measured)) for b in bounds)


def check_laminar(bounds: Sequence[Bound]) -> None:
    """Raises `CrossingSets` for two bounds that overlap without nesting, between tensors or inside one.

    About linear in the total size of the bounds: only those that share a tensor are ever compared.
    """
    check_counts(plain_counts(bounds))
    _check_channels(bounds)
    inner: dict[str, list[GroupBound | NofMBound | BlockBound]] = {}
    for b in bounds:
        if isinstance(b, GroupBound | NofMBound | BlockBound):
            for t in b.tensors:
                inner.setdefault(t, []).append(b)
    for sharing in inner.values():
        for c, d in combinations(sharing, 2):
            if not _nested(c, d) and not _nested(d, c):
                raise CrossingSets(c.name, d.name, "inside one tensor, their groups of entries do not nest")
    for p in (b for b in bounds if isinstance(b, Pinned)):
        for e in (e for t in p.tensors for e in inner.get(t, ())):
            if not isinstance(e, BlockBound) and not (isinstance(e, NofMBound) and e.n == e.m):
                raise CrossingSets(p.name, e.name, "one keeps every entry, the other drops some")


def _check_channels(bounds: Sequence[Bound]) -> None:
    """Whole channels go first and take positions with them: nothing else may ask for those positions to stay."""
    asking = [b for b in bounds if isinstance(b, BlockBound | Pinned) or (isinstance(b, CountBound) and b.least > 0)]
    for c in (b for b in bounds if isinstance(b, ChannelBound)):
        for b in asking:
            if not set(b.tensors).isdisjoint(c.tensors):
                raise CrossingSets(c.name, b.name, "one removes whole channels, the other keeps positions of theirs")


def check_counts(counts: Sequence[CountBound]) -> None:
    """Raises `CrossingSets` for two plain counts that cross; inner sets come first, as `plain_counts` has them.

    From the largest set to the smallest, each lies inside one and the same smallest set of those before it."""
    holder: dict[str, CountBound] = {}  # the smallest set so far that counts a tensor
    for a in reversed(counts):
        first, *others = (holder.get(t) for t in a.tensors)
        if any(b is not first for b in others):
            own = set(a.tensors)
            crossing = (b for b in (first, *others) if b is not None and not own <= set(b.tensors))
            message = "they share tensors, and neither counts all tensors of the other"
            raise CrossingSets(a.name, next(crossing).name, message)
        holder.update(dict.fromkeys(a.tensors, a))


def _nested(inner: Bound, outer: Bound) -> bool:
    """Every n of m cell lies inside one row, hence inside one filter."""
    return isinstance(inner, NofMBound) and isinstance(outer, GroupBound) and outer.by in ("filter", "row")


def exactness(bounds: Sequence[Bound]) -> Literal["exact", "gap"]:
    """Whether the joint projection is exact whatever the weights, or feasible with a certified gap."""
    grouped = {t for b in bounds if isinstance(b, GroupBound | BlockBound) for t in b.tensors}
    counted = {t for b in bounds if isinstance(b, CountBound | ChoiceBound) for t in b.tensors}
    channels = [b for b in bounds if isinstance(b, ChannelBound)]
    together = {g.name for b in channels for g in b.groups}
    owned = {t for b in channels for t in b.tensors}
    joined = len(together) > 1 or not owned.isdisjoint(grouped | counted)
    return "gap" if weighted_counts(bounds) or grouped & counted or (channels and joined) else "exact"
