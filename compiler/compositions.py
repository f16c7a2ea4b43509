"""Constraints as compositions: what each tensor is made of, and what that costs.

    made(constraints, table)            every `Composition` that lines ask for, with these lines
    stored(function, compositions, …)   `params`, `macs` and `flops` as a `FactorCost` where they count factors
    smallest(composition, i), largest(…)  the sizes x of its forms between which ranks and counts are chosen

Costs in the sizes x of one form, for a matrix of m rows and n columns that is used u times a sample:

    form              x                  params                      macs
    low rank          (r,)               r(m + n)                    u·r(m + g·n) with g groups of a convolution
    tensor train      (r_1 … r_{d−1})    Σ_k r_{k−1} m_k n_k r_k     u·g · the fixed contraction of one sample
    sparse            (entries,)         entries                     u · entries
    codebook k        –                  k + size                    u·m·n
    fixed values      –                  size, + 1 with a scale      u·m·n
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias, cast

from prunelang.compiler.forms import (
    Box,
    Codebook,
    Composition,
    Fixed,
    Form,
    LowRank,
    Modes,
    Nuclear,
    Sparse,
    TensorTrain,
    even,
    least,
)
from prunelang.compiler.problem import (
    Constraint,
    Entries,
    FactorCost,
    FactorTerm,
    Interval,
    MatrixFunction,
    Named,
    Structural,
)
from prunelang.compiler.shapes import ShapeTable
from prunelang.compiler.trains import capped, full_ranks, order, storage

Monomials: TypeAlias = tuple[tuple[int, tuple[int, ...]], ...]
Sizes: TypeAlias = tuple[int, ...]


class Clash(ValueError):
    """Lines that ask one tensor to be made in two ways."""

    def __init__(self, constraints: Sequence[Constraint], reason: str) -> None:
        super().__init__(reason)
        self.constraints, self.reason = tuple(constraints), reason


@dataclass(frozen=True)
class Made:
    """A composition and the lines that ask for it."""

    composition: Composition
    constraints: tuple[Constraint, ...]


# ── lines to compositions ───────────────────────────────────────────────────────────────────────────────────────────


def composition(c: Constraint, table: ShapeTable) -> Composition | None:
    """What one line asks its tensors to be made of; None for lines that ask for something else."""
    match c.function, c.set:
        case Entries(tensors=tensors), Named() as s:
            return _composed(tensors, _forms(s, tensors, table), table)
        case MatrixFunction(name="rank", tensor=t), Interval(None, upper) if upper is not None:
            return _composed((t,), (_low_rank(int(upper), t, table),), table)
        case MatrixFunction(name="tt_rank", tensor=t, options=options), Interval(None, upper) if upper is not None:
            modes = dict(options).get("modes")
            return None if modes is None else _composed((t,), (_train(int(upper), modes),), table)
        case MatrixFunction(name="nuclear", tensor=t), Interval(None, upper) if upper is not None:
            return _composed((t,), (Nuclear(float(upper)),), table)
    return None


def _composed(tensors: Iterable[str], forms: tuple[Form, ...], table: ShapeTable) -> Composition:
    own = [table.tensor[t] for t in tensors]
    return Composition(tuple(t.name for t in own), forms, tuple(t.shape for t in own))


def _forms(s: Named, tensors: tuple[str, ...], table: ShapeTable) -> tuple[Form, ...]:
    if s.name == "sum":
        return tuple(f for part in s.parts for f in _forms(cast(Named, part), tensors, table))
    a: dict[str, Any] = dict(s.arguments)
    match s.name:
        case "low_rank":
            return (_low_rank(a.get("r"), tensors[0], table),)
        case "tt":
            return (_train(a.get("r"), a["modes"]),)
        case "codebook":
            return (Codebook(int(a["k"])),)
        case "values" | "scaled":
            return (Fixed(tuple(float(v) for v in a["values"]), s.name == "scaled"),)
        case "sparse":
            return (Sparse(a.get("n")),)
        case "box":
            return (Box(float(a["lo"]), float(a["hi"])),)
    raise TypeError(f"`{s.name}` is no form")


def _low_rank(rank: int | None, tensor: str, table: ShapeTable) -> LowRank:
    return LowRank(None if rank is None else min(rank, *table.tensor[tensor].matrix))


def _train(ranks: int | Sequence[int] | None, modes: Modes) -> TensorTrain:
    modes = tuple((m, n) for m, n in modes)
    return TensorTrain(modes, None if ranks is None else capped(modes, ranks))


def made(constraints: Iterable[Constraint], table: ShapeTable) -> tuple[Made, ...]:
    """The compositions of all lines, in their order; bounds on one form of the same tensor meet. Raises `Clash`."""
    return _made(constraints, table, tolerant=False)


def agreed(constraints: Iterable[Constraint], table: ShapeTable) -> tuple[Made, ...]:
    """The same for lines that may clash: of those that do, the first one."""
    return _made(constraints, table, tolerant=True)


def _made(constraints: Iterable[Constraint], table: ShapeTable, tolerant: bool) -> tuple[Made, ...]:
    found: list[Made] = []
    at: dict[str, int] = {}
    for c in constraints:
        new = composition(c, table)
        if new is None:
            continue
        owners = {at[t] for t in new.tensors if t in at}
        if not owners:
            at.update(dict.fromkeys(new.tensors, len(found)))
            found.append(Made(new, (c,)))
            continue
        old = found[min(owners)]
        both = _meet(old.composition, new) if len(owners) == 1 else None
        if both is not None:
            found[min(owners)] = Made(both, (*old.constraints, c))
        elif not tolerant:
            raise Clash((*old.constraints, c), _why(old.composition, new))
    return tuple(found)


def _meet(a: Composition, b: Composition) -> Composition | None:
    """Both at once where they are one form of the same tensor."""
    if a.tensors != b.tensors or len(a.forms) != 1 or len(b.forms) != 1:
        return None
    match a.forms[0], b.forms[0]:
        case LowRank(r), LowRank(s):
            return replace(a, forms=(LowRank(_least(r, s)),))
        case TensorTrain(modes, r), TensorTrain(others, s) if modes == others:
            both = r if s is None else s if r is None else capped(modes, [min(x, y) for x, y in zip(r, s, strict=True)])
            return replace(a, forms=(TensorTrain(modes, both),))
        case Nuclear(r), Nuclear(s):
            return replace(a, forms=(Nuclear(min(r, s)),))
        case Box(lo, hi), Box(low, high) if max(lo, low) <= min(hi, high):
            return replace(a, forms=(Box(max(lo, low), min(hi, high)),))
    return a if a == b else None


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


def _why(a: Composition, b: Composition) -> str:
    shared = next(t for t in a.tensors if t in b.tensors)
    if set(a.tensors) != set(b.tensors) and (len(a.tensors) > 1 or len(b.tensors) > 1):
        return f"`{shared}` is asked to be made in two ways; take it out of one line with `except`"
    return f"`{shared}` is asked to be made in two ways; a sum such as `low_rank(4) + sparse(1%)` is one line"


# ── sizes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def free(form: Form) -> bool:
    """Whether budgets choose its ranks or its count."""
    match form:
        case LowRank(None) | TensorTrain(_, None) | Sparse(None):
            return True
    return False


def smallest(c: Composition, i: int) -> Sizes:
    """The least sizes x that budgets can give to form i: see `forms.least`."""
    match c.forms[i]:
        case TensorTrain(modes, _):
            return (least(c, i),) * (len(modes) - 1)
        case LowRank() | Sparse():
            return (least(c, i),)
    return ()


def largest(form: Form, shape: tuple[int, ...], size: int) -> Sizes:
    """The greatest sizes x: those asked for, or those at which budgets stop."""
    match form:
        case TensorTrain(modes, ranks):
            return full_ranks(modes) if ranks is None else ranks
        case LowRank(rank):
            return (even(shape) if rank is None else rank,)
        case Sparse(count):
            return (size if count is None else min(count, size),)
    return ()


# ── costs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def apart(c: Composition) -> bool:
    """Whether it is stored as something else than the tensor: all but a box or a nuclear ball."""
    return not isinstance(c.forms[0], Box | Nuclear)


def stored(f: Structural, compositions: Iterable[Composition], table: ShapeTable) -> Structural | FactorCost:
    """The same cost with what tensors are made of in the place of these; `f` itself where it counts none of them."""
    counts = _counted(f, table)
    touched = [c for c in compositions if _changes(f, c) and any(t in counts for t in c.tensors)]
    if not touched:
        return f
    constant, entries = f.dense, []
    for c in touched:
        constant -= sum(counts[t].dense(table) for t in c.tensors if t in counts)
        for i, form in enumerate(c.forms):
            fixed, terms = _form(f.name == "params", i, form, c, counts)
            constant += fixed
            entries += terms
    return FactorCost(f.name, f.unit, constant, tuple(entries), f.dense)


def _changes(f: Structural, c: Composition) -> bool:
    """Whether the cost of the composition differs from that of its tensors."""
    return c.factored or isinstance(c.forms[0], Sparse) or (f.name == "params" and apart(c))


@dataclass(frozen=True)
class _Use:
    """How often an entry of a tensor counts, and a column of its factors' side: once for each group."""

    tensor: str
    each: int
    groups: int = 1

    def dense(self, table: ShapeTable) -> int:
        return self.each * table.tensor[self.tensor].size


def _counted(f: Structural, table: ShapeTable) -> Mapping[str, _Use]:
    """The tensors that a cost counts, by first name."""
    if f.name == "params":
        trained = [t for t in table.tensors if t.role != "buffer"]
        if f.dense != sum(t.size for t in trained):
            owned = {table.tensor[n].name for x in f.layers for n in _own(x, table)}
            trained = [t for t in trained if t.name in owned]
        return {t.name: _Use(t.name, 1) for t in trained}
    found: dict[str, _Use] = {}
    for layer in (table.layer[x] for x in f.layers):
        name = table.tensor[layer.weight].name
        old = found.get(name, _Use(name, 0, layer.groups))
        found[name] = _Use(name, old.each + (2 if f.name == "flops" else 1) * layer.uses, layer.groups)
    return found


def _own(layer: str, table: ShapeTable) -> Iterator[str]:
    found = table.layer[layer]
    yield found.weight
    if found.bias is not None:
        yield found.bias


def _form(
    numbers: bool, i: int, form: Form, c: Composition, counts: Mapping[str, _Use]
) -> tuple[int, list[FactorTerm]]:
    """A constant and the terms of one form; `numbers` are stored, else operations are done."""
    here = [(t, s, counts[t]) for t, s in zip(c.tensors, c.shapes, strict=True) if t in counts]
    first, shape, use = here[0]
    each, groups = use.each, use.groups
    match form:
        case LowRank():
            m, n = shape[0], prod(shape[1:])
            return 0, [FactorTerm(first, i, ((each * (m + n * groups), (0,)),))]
        case TensorTrain(modes, _):
            terms = storage(modes) if numbers else order(form).terms
            factor = 1 if numbers else each * groups
            found = tuple((factor * a, tuple(k - 1 for k in bonds)) for a, bonds in terms)
            return 0, [FactorTerm(first, i, found)]
        case Sparse():
            return 0, [FactorTerm(t, i, ((u.each, (0,)),)) for t, _, u in here]
        case Codebook(k):
            return sum(u.each * prod(s) for _, s, u in here) + (k if numbers else 0), []
        case Fixed(_, scaled):
            return sum(u.each * prod(s) for _, s, u in here) + (1 if numbers and scaled else 0), []
    raise TypeError(f"a {type(form).__name__} is stored as the tensor")
