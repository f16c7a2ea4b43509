"""What tensors are made of, judged by their stored factors: ranks from shapes, counts from parts, sums part by part.

That factors are whole, and that the tensor is their rounded sum, was found when they were read. A number that only
factors can show, such as the rank of a matrix that was rounded, is not decided without them, except where the singular
values leave no doubt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from prunelang.compiler.forms import Codebook, Composition, Fixed, Form, LowRank, Modes, Sparse, TensorTrain
from prunelang.compiler.problem import MatrixFunction, Named, Set
from prunelang.runtime import spectrum
from prunelang.runtime.exact import Array, Value
from prunelang.runtime.factors import named
from prunelang.runtime.stored import NotRecounted, Outcome, Stored


def matrix_value(function: MatrixFunction, stored: Stored, lower: bool) -> tuple[Value, str]:
    """`rank`, `tt_rank` or `nuclear`, and what it is a number of. For a `lower` bound factors say too little."""
    name = stored.name(function.tensor)
    options = _asked(function.options)
    matrix = stored.arrays[name].reshape(stored.table.tensor[name].matrix)
    dtype = stored.table.tensor[name].dtype
    form = _alone(name, stored)
    match function.name, options:
        case "nuclear", {**rest} if not rest:
            return spectrum.nuclear(matrix), "stored values"
        case "rank", {**rest} if not rest:
            if isinstance(form, LowRank) and not lower:
                return Value.exact(_ranks(name, 0, form, stored)[0]), "columns of its factors"
            return spectrum.rank(matrix, dtype), "stored values"
        case "tt_rank", {"modes": modes, **rest} if not rest:
            pairs = _pairs(modes)
            if isinstance(form, TensorTrain) and form.modes == pairs and not lower:
                return Value.exact(max(_ranks(name, 0, form, stored), default=1)), "largest rank of its cores"
            return _train_rank(matrix, pairs, dtype), "stored values"
    raise NotRecounted(f"`{function.name}` with these options")


def composed_of(names: tuple[str, ...], wanted: Named, stored: Stored) -> Outcome | None:
    """Whether tensors are made as a set asks; None where their factors are not there and the tensor may show it."""
    parts = wanted.parts if wanted.name == "sum" else (wanted,)
    composition = stored.factors.of(names[0]) if names else None
    if composition is None or composition.tensors != names or len(composition.forms) != len(parts):
        if wanted.name == "sum":
            raise NotRecounted(f"a sum without the parts that make {_listed(names)}")
        if wanted.name not in ("low_rank", "tt"):
            return None
        if len(names) != 1:
            raise NotRecounted(f"the set `{wanted.name}` of several tensors")
        return _by_values(names[0], wanted, stored)
    found = [_part(part, composition, i, stored) for i, part in enumerate(parts)]
    if len(found) == 1:
        (counted, value, bound), *_ = found
        return Outcome("∈", counted, None, None if bound is None else Fraction(bound), Value.exact(value))
    said = " + ".join(f"{value} {counted}" for counted, value, _ in found)
    beyond = sum(bound is not None and value > bound for _, value, bound in found)
    return Outcome("∈", f"parts beyond their bound: {said}", upper=Fraction(0), value=Value.exact(beyond))


def _part(wanted: Set, composition: Composition, i: int, stored: Stored) -> tuple[str, int, int | None]:
    """What a form is bounded by: what is counted, how many there are, and how many there may be."""
    if not isinstance(wanted, Named):
        raise NotRecounted("a sum with a part of this kind")
    form, arguments = composition.forms[i], _asked(wanted.arguments)
    first, arrays = composition.tensors[0], stored.factors.arrays
    match wanted.name, form, arguments:
        case "low_rank", LowRank(), {**rest} if set(rest) <= {"r"}:
            shape = composition.shapes[0]  # a rank that is left to budgets ends where it breaks even
            most = rest.get("r", max(1, prod(shape) // (shape[0] + prod(shape[1:]))))
            return "columns of its factors", _ranks(first, i, form, stored)[0], most
        case "tt", TensorTrain(), {"modes": modes, **rest} if set(rest) <= {"r"} and form.modes == _pairs(modes):
            return _train(_ranks(first, i, form, stored), rest.get("r"))
        case "codebook", Codebook(), {"k": int(k), **rest} if not rest:
            return "different values", len(_used(composition, i, arrays, form.size)), k
        case (("values" | "scaled"), Fixed(scaled=scaled), {"values": values, **rest}) if not rest:
            if scaled == (wanted.name == "scaled"):
                allowed = {float(v) for v in values}
                used = [form.values[c] for c in _used(composition, i, arrays, len(form.values))]
                return "values that are not allowed", sum(v not in allowed for v in used), 0
        case "sparse", Sparse(), {**rest} if set(rest) <= {"n"}:
            count = sum(arrays[named(t, i, "indices")].size for t in composition.tensors)
            return "entries", count, rest.get("n")
    raise NotRecounted(f"the set `{wanted.name}` from factors of another kind")


def _train(ranks: Sequence[int], bound: int | Sequence[int] | None) -> tuple[str, int, int | None]:
    """Against one bound by the largest rank, against one for each by the number of those that are larger."""
    if bound is None or isinstance(bound, int):
        return "largest rank of its cores", max(ranks, default=1), bound
    if len(bound) != len(ranks):
        raise NotRecounted("a train with other cores than there are ranks")
    return "ranks beyond their bounds", sum(r > b for r, b in zip(ranks, bound, strict=True)), 0


def _used(composition: Composition, i: int, arrays: Mapping[str, Array], count: int) -> list[int]:
    """The codes that occur."""
    seen = np.zeros(count, dtype=bool)
    for t in composition.tensors:
        seen[arrays[named(t, i, "codes")].reshape(-1)] = True
    return [int(c) for c in np.flatnonzero(seen)]


def _ranks(name: str, i: int, form: LowRank | TensorTrain, stored: Stored) -> tuple[int, ...]:
    """From the shapes of the factors: r, or r_1 … r_{d−1}."""
    arrays = stored.factors.arrays
    if isinstance(form, LowRank):
        return (int(arrays[named(name, i, "U")].shape[1]),)
    return tuple(int(arrays[named(name, i, f"G{k}")].shape[3]) for k in range(1, len(form.modes)))


def _alone(name: str, stored: Stored) -> Form | None:
    """The only form that a tensor is made of."""
    found = stored.factors.of(name)
    return found.forms[0] if found is not None and found.tensors == (name,) and len(found.forms) == 1 else None


# ── without factors ──────────────────────────────────────────────────────────────────────────────────────────────


def _by_values(name: str, wanted: Named, stored: Stored) -> Outcome:
    """A rank from singular values alone; a rank that is left to budgets needs factors."""
    arguments = _asked(wanted.arguments)
    bound: Any = arguments.get("r")
    if not isinstance(bound, int):
        raise NotRecounted(f"the set `{wanted.name}` without the factors of `{name}`")
    tensor = stored.table.tensor[name]
    matrix = stored.arrays[name].reshape(tensor.matrix)
    value = (
        spectrum.rank(matrix, tensor.dtype)
        if wanted.name == "low_rank"
        else _train_rank(matrix, _pairs(arguments.get("modes")), tensor.dtype)
    )
    if value.low <= bound < value.high:
        raise NotRecounted(f"the set `{wanted.name}` without the factors of `{name}`")
    return Outcome("∈", "stored values", upper=Fraction(bound), value=value)


def _train_rank(matrix: Array, modes: Modes, dtype: str) -> Value:
    """``max_k rank W_(1…k)`` over the unfoldings, each from its singular values."""
    d = len(modes)
    if (prod(m for m, _ in modes), prod(n for _, n in modes)) != matrix.shape:
        raise NotRecounted("a train whose modes are not those of the matrix")
    spread = matrix.reshape([m for m, _ in modes] + [n for _, n in modes])
    tensor = spread.transpose([i for k in range(d) for i in (k, d + k)])
    low, high = Fraction(1), Fraction(1)
    for k in range(1, d):
        found = spectrum.rank(tensor.reshape(prod(m * n for m, n in modes[:k]), -1), dtype)
        low, high = max(low, found.low), max(high, found.high)
    return Value(low, high)


def _asked(arguments: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Without what is left open, and without the note that the compiler chose the modes."""
    return {k: v for k, v in arguments if v is not None and k != "chosen"}


def _pairs(modes: Any) -> Modes:
    try:
        return tuple((int(m), int(n)) for m, n in modes)
    except (TypeError, ValueError) as error:
        raise NotRecounted("a train without its modes") from error


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"`{n}`" for n in names[:2]) + (" and others" if len(names) > 2 else "")
