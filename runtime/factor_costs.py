"""Costs of factors by arithmetic of the checker's own: from the shape table and the arrays that a file holds.

A cost over factored tensors reaches the checker as terms that the compiler made. They are evaluated at the sizes that
the arrays have, and the same cost is counted a second time without them: numbers and operations from the arrays and the
layers, bytes from the layout of the exported file. What they cost apart from factors tells the scope, as it tells
whether it is known at all: of a sum of functions only the compiler knows the parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from prunelang.compiler.forms import Codebook, Composition, Fixed, LowRank, Modes, Sparse, TensorTrain
from prunelang.compiler.problem import FactorCost
from prunelang.compiler.shapes import ShapeTable, Tensor
from prunelang.runtime.costs import file_length, scopes
from prunelang.runtime.factor_lengths import factored_length
from prunelang.runtime.factors import named
from prunelang.runtime.stored import Contradiction, NotRecounted, Stored

ORDERS = 7  # cores of a train up to which every order of contraction is tried
SETS = 12  # and up to which the least cost over all orders is found; beyond, over those that absorb neighbours


def factor_cost(function: FactorCost, stored: Stored, plain: bool) -> int:
    """The cost at the stored sizes. Raises `NotRecounted` without factors, `Contradiction` where two counts differ."""
    sizes = _sizes(function, stored)
    value = function.value(sizes)
    own = _rederived(function, stored) if plain and not stored.frozen else None
    if own is not None and own != value:
        raise Contradiction(f"the compiled `{function.name}` gives {value}, counted from the factors it is {own}")
    return value


def _sizes(function: FactorCost, stored: Stored) -> dict[tuple[str, int], tuple[int, ...]]:
    """The sizes x of every (tensor, form) that the function speaks of."""
    found: dict[tuple[str, int], tuple[int, ...]] = {}
    for e in function.entries:
        name = stored.name(e.tensor)
        c = stored.factors.of(name)
        if e.form < 0 or (c is None and e.form == 0 and e.ways):  # a sparse form alone is shown by its tensor
            found[e.tensor, e.form] = (stored.nonzeros[name],)
        elif c is None or e.form >= len(c.forms):
            raise NotRecounted(f"`{function.name}` without the factors of `{name}`")
        else:
            found[e.tensor, e.form] = _sizes_of(c, e.form, name, stored)
    return found


def _sizes_of(c: Composition, i: int, name: str, stored: Stored) -> tuple[int, ...]:
    arrays = stored.factors.arrays
    match c.forms[i]:
        case LowRank():
            return (int(arrays[named(name, i, "U")].shape[1]),)
        case TensorTrain(modes=modes):
            return tuple(int(arrays[named(name, i, f"G{k}")].shape[3]) for k in range(1, len(modes)))
        case Sparse():
            return (int(arrays[named(name, i, "values")].size),)
    raise NotRecounted(f"a cost of `{name}` by sizes that it has not")


# ── a second count ───────────────────────────────────────────────────────────────────────────────────────────────


def _rederived(function: FactorCost, stored: Stored) -> int | None:
    """The cost from arrays and layers; None where the scope is not known."""
    for scope in _scopes(function, stored.table):
        if _dense(function.name, scope, stored.table, function.dense):
            made = [c for c in _made(function, stored) if any(t.name in c.tensors for t in scope)]
            if function.name == "bytes":
                return factored_length(scope, made, stored)
            return function.dense + sum(_change(function, c, scope, stored) for c in made)
    return None


def _scopes(function: FactorCost, table: ShapeTable) -> Iterator[Sequence[Tensor]]:
    """The network, what is trained in it, or the layers whose tensors the terms name."""
    yield from scopes(table.layers, True, table)
    named_here = {table.tensor[e.tensor].name for e in function.entries}
    layers = [x for x in table.layers if table.tensor[x.weight].name in named_here]
    yield from scopes(layers, False, table)


def _dense(name: str, scope: Sequence[Tensor], table: ShapeTable, stated: int) -> bool:
    """Whether a scope costs what the function says that it costs without factors."""
    if name == "params":
        return stated == sum(t.size for t in scope)
    if name == "bytes":
        return stated == file_length(scope, "dense", {t.name: t.size for t in scope})
    each, names = 2 if name == "flops" else 1, {t.name for t in scope}
    kernels = sum(x.uses * table.tensor[x.weight].size for x in table.layers if table.tensor[x.weight].name in names)
    return stated in (each * kernels, each * (kernels + sum(p.macs for p in table.products)))


def _made(function: FactorCost, stored: Stored) -> list[Composition]:
    """The compositions that the function counts as factors: a sparse form alone only where a term names it."""
    terms = {(e.tensor, e.form) for e in function.entries}
    return [
        c
        for c in stored.factors.compositions
        if len(c.forms) > 1 or not isinstance(c.forms[0], Sparse) or any((t, 0) in terms for t in c.tensors)
    ]


def _change(function: FactorCost, c: Composition, scope: Sequence[Tensor], stored: Stored) -> int:
    """What the factors of a composition cost more than its dense tensors."""
    here = [t for t in scope if t.name in c.tensors]
    if function.name == "params":
        return sum(_numbers(c, i, here, stored) for i in range(len(c.forms))) - sum(t.size for t in here)
    if len(c.forms) == 1 and isinstance(c.forms[0], Codebook | Fixed):
        return 0
    each = 2 if function.name == "flops" else 1
    change = 0
    for t in here:
        layers = [x for x in stored.table.layers if stored.table.tensor[x.weight].name == t.name]
        for x in layers:
            change -= each * x.uses * t.size
        uses, groups = each * sum(x.uses for x in layers), layers[0].groups if layers else 1
        for i in range(len(c.forms)):
            change += uses * _operations(function, c, i, t, groups, uses, stored)
    return change


def _numbers(c: Composition, i: int, here: Sequence[Tensor], stored: Stored) -> int:
    """Numbers stored by one form for the tensors of a scope: the entries of its arrays, positions left out."""
    arrays, form, first = stored.factors.arrays, c.forms[i], c.tensors[0]
    shared = {Codebook: "centres", Fixed: "scale"}.get(type(form), "")
    total = arrays[named(first, i, shared)].size if named(first, i, shared) in arrays else 0
    cores = tuple(f"G{k + 1}" for k in range(len(form.modes))) if isinstance(form, TensorTrain) else ()
    symbols = {LowRank: ("U", "V"), Codebook: ("codes",), Fixed: ("codes",), Sparse: ("values",)}.get(type(form), cores)
    return int(total + sum(arrays[named(t.name, i, s)].size for t in here for s in symbols))


def _operations(function: FactorCost, c: Composition, i: int, t: Tensor, groups: int, uses: int, stored: Stored) -> int:
    """Multiply-adds of one form for one use of a tensor."""
    form = c.forms[i]
    rows, columns = (t.shape[0], prod(t.shape[1:])) if t.shape else (1, 1)
    match form:
        case LowRank():
            return _sizes_of(c, i, t.name, stored)[0] * (rows + groups * columns)
        case TensorTrain(modes=modes):
            ranks = _sizes_of(c, i, t.name, stored)
            term = next((e for e in function.entries if (e.tensor, e.form) == (t.name, i)), None)
            stated = None if term is None or not uses else term.value(ranks) // (uses * groups)
            return groups * _contraction(modes, ranks, stated)
        case Sparse():
            return _sizes_of(c, i, t.name, stored)[0]
    return rows * columns


def _contraction(modes: Modes, ranks: Sequence[int], stated: int | None) -> int:
    """What absorbing the cores into a sample one after another costs: `stated` if some order does, else the least.

    Of many cores not all orders are tried: there `stated` is taken if it is not less than the least.
    """
    costs = _costs(modes, (1, *ranks, 1))
    if stated is None or (len(modes) <= ORDERS and stated not in costs):
        return min(costs)
    return max(stated, min(costs))


def _costs(modes: Modes, ranks: Sequence[int]) -> set[int]:
    """What orders cost, found by the sets of cores that can have been absorbed: of many cores the least cost alone."""
    d = len(modes)
    found: dict[frozenset[int], set[int]] = {frozenset(): {0}}
    for _ in range(d):
        larger: dict[frozenset[int], set[int]] = {}
        for done, costs in found.items():
            beside = {min(done) - 1, max(done) + 1} if done and d > SETS else set(range(d))
            for k in (beside & set(range(d))) - done:
                step = _step(modes, ranks, done, k)
                larger.setdefault(done | {k}, set()).update(cost + step for cost in costs)
        found = larger if d <= ORDERS else {done: {min(costs)} for done, costs in larger.items()}
    return found[frozenset(range(d))]


def _step(modes: Modes, ranks: Sequence[int], done: frozenset[int], k: int) -> int:
    """Absorbing core k multiplies the sizes of all indices that the sample, the core and the result have between them.

    The sample holds an input index for every core that is left, an output index for every one absorbed, and the bonds
    between both kinds.
    """
    indices = [modes[j][0] if j in done else modes[j][1] for j in range(len(modes))] + [modes[k][0]]
    bonds = {b for b in range(len(modes) + 1) if (b - 1 in done) != (b in done)} | {k, k + 1}
    return prod(indices) * prod(ranks[b] for b in bonds)
