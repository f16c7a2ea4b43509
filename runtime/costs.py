"""Costs from the shape table alone, by arithmetic that shares nothing with the compiler.

A count reaches the checker as coefficients that the compiler made. Here the same cost is worked out again from layers,
uses and byte layouts, so that a wrong coefficient shows as two numbers that differ. That holds for one function of a
network or layer set; of a sum of functions only the compiler knows the parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from math import prod

from prunelang.compiler.problem import Choice, Count, Structural
from prunelang.compiler.shapes import Layer, ShapeTable, Tensor

LAYOUTS = ("dense", "bitmask", "csr")
FRAME = len('{"__metadata__":{"format":"pt","prunelang":"1"}}')  # of a header that says nothing else
_LETTERS = {"float": "F", "bfloat": "BF", "int": "I", "uint": "U"}


def compiled(function: Count | Choice, positions: Mapping[str, int]) -> int:
    """The cost by the compiler's coefficients; `positions` counts entries by tensor."""
    if isinstance(function, Count):
        return function.constant + sum(c * positions[t] for t, c in function.coefficients.items())
    cheapest = (min(a * positions[t] + c for _, a, c in ways) for t, ways in function.alternatives.items())
    return function.constant + sum(cheapest)


def rederived(
    function: Count | Choice | Structural,
    positions: Mapping[str, int],
    table: ShapeTable,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> int | None:
    """The cost from the table; None where the function does not say enough to know it (sums, parts of a network).

    `shapes`: what remains of the tensors that lost whole members, for the costs of shapes.
    """
    match function:
        case Count(name="nonzeros", constant=constant) if constant:
            return _nonzeros(function, positions, table)
        case Count(name="norm0" | "nonzeros", coefficients=coefficients):
            return sum(positions[t] for t in {table.tensor[t].name for t in coefficients})
        case Count(name="sparse_macs" | "sparse_flops"):
            return _sparse_operations(function, positions, table)
        case Count(name="bytes", coefficients=kernels) | Choice(name="bytes", alternatives=kernels):
            return _bytes(function, {table.tensor[t].name for t in kernels}, positions, table)
        case Structural(name="macs" | "flops" | "params"):
            return _structural(function, table, shapes or {})
    return None


def _nonzeros(function: Count, positions: Mapping[str, int], table: ShapeTable) -> int:
    """``Σ_t nnz(t)`` over the kernels, and what else is trained in the network or in their layers in full."""
    counted = {table.tensor[t].name for t in function.coefficients}
    layers = [x for x in table.layers if table.tensor[x.weight].name in counted]
    kept = sum(positions[t] for t in counted)
    meant = scopes(layers, len(layers) == len(table.layers), table)
    found = [kept + sum(t.size for t in s if t.role != "buffer" and t.name not in counted) for s in meant]
    value = compiled(function, positions)
    return value if value in found else found[0]


# ── operations ───────────────────────────────────────────────────────────────────────────────────────────────────


def _sparse_operations(function: Count, positions: Mapping[str, int], table: ShapeTable) -> int:
    """``Σ_l uses_l · nnz_l``, twice that in FLOPs; a whole network has its weightless products as well.

    Which users of a tied kernel are meant, its coefficient says, if it is the sum of some of their uses.
    """
    factor = 2 if function.name == "sparse_flops" else 1
    total = factor * sum(p.macs for p in table.products) if function.constant else 0
    for name, coefficient in function.coefficients.items():
        kernel = table.tensor[name].name
        uses = [factor * x.uses for x in table.layers if table.tensor[x.weight].name == kernel]
        some = {0}
        for use in uses:
            some |= {s + use for s in some if s + use <= coefficient}
        total += (coefficient if coefficient in some else sum(uses)) * positions[kernel]
    return total


def _structural(function: Structural, table: ShapeTable, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """At the shapes that remain, in the scope that the compiler took if it is one that the layers may stand for."""
    layers = [x for x in table.layers if x.name in function.layers or not function.layers]
    whole = len(layers) == len(table.layers)
    dense = _structural_scopes(function, layers, whole, table, {})
    chosen = dense.index(function.dense) if function.dense in dense else 0
    return _structural_scopes(function, layers, whole, table, shapes)[chosen]


def _structural_scopes(
    function: Structural,
    layers: Sequence[Layer],
    whole: bool,
    table: ShapeTable,
    shapes: Mapping[str, tuple[int, ...]],
) -> list[int]:
    """The cost in every scope that the function may have."""

    def size(t: Tensor) -> int:
        return prod(shapes.get(t.name, t.shape))

    if function.name == "params":
        return [sum(map(size, scope)) for scope in scopes(layers, whole, table)]
    factor = 2 if function.name == "flops" else 1
    kernels = sum(x.uses * size(table.tensor[x.weight]) for x in layers)
    return [factor * (kernels + sum(p.macs for p in table.products)), factor * kernels]


def scopes(layers: Sequence[Layer], whole: bool, table: ShapeTable) -> list[list[Tensor]]:
    """What a network, everything trained in it, or a layer set may stand for, as tensors in the network's order."""
    names = {x.name for x in layers}
    owned = {table.tensor[n].name for x in layers for n in (x.weight, x.bias) if n is not None}
    owned |= {t.name for t in table.tensors for n in (t.name, *t.aliases) if n.rpartition(".")[0] in names}
    parts = [t for t in table.tensors if t.name in owned and t.role != "buffer"]
    everything = [list(table.tensors), [t for t in table.tensors if t.role != "buffer"]]
    return [*everything, parts] if whole else [parts]


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _bytes(function: Count | Choice, kernels: set[str], positions: Mapping[str, int], table: ShapeTable) -> int | None:
    """Length of the file. The kernels tell the scope; where none is named, the file is dense and may be any."""
    format = dict(function.options).get("format", "best" if isinstance(function, Choice) else "")
    if format not in (*LAYOUTS, "best"):
        return None
    layers = [x for x in table.layers if not kernels or table.tensor[x.weight].name in kernels]
    owned = {table.tensor[x.weight].name for x in layers}
    meant = scopes(layers, len(layers) == len(table.layers), table)
    lengths = [file_length(scope, format, positions) for scope in meant if kernels <= owned]
    value = compiled(function, positions)
    if value in lengths:
        return value
    return lengths[0] if lengths and kernels else None


def file_length(tensors: Iterable[Tensor], format: str, positions: Mapping[str, int]) -> int:
    """Bytes of a safetensors file that holds `tensors` in one layout, or each kernel in its shortest."""
    stored = [(t, layouts(t, format)) for t in tensors]
    data = sum(min(length_of(t, way, positions[t.name]) for way in ways) for t, ways in stored)
    widest = sum(max(length_of(t, way, t.size) for way in ways) for t, ways in stored)
    header = FRAME
    header += sum(max(header_of(t, way, widest) for way in ways) for t, ways in stored)
    return 8 + (header + 7) // 8 * 8 + data


def layouts(t: Tensor, format: str) -> tuple[str, ...]:
    """The layouts among which the shortest is taken."""
    if t.role != "weight":
        return ("dense",)
    return LAYOUTS if format == "best" else (format,)


def length_of(t: Tensor, way: str, kept: int) -> int:
    """Bytes of data of one tensor."""
    size, width = prod(t.shape), width_of(t.dtype)
    if way == "dense":
        return width * size
    if way == "bitmask":
        return width * kept + (size + 7) // 8
    rows, columns = _matrix(t)
    return (width + _index(columns)) * kept + _pointer(size) * (rows + 1)


def header_of(t: Tensor, way: str, end: int) -> int:
    """Bytes of header that one tensor may need, with offsets as wide as `end`."""
    size, code = prod(t.shape), code_of(t.dtype)
    rows, columns = _matrix(t)
    values, shape = (f"{t.name}.values", code, [size]), " ".join(str(d) for d in t.shape)
    entries = {
        "dense": [(t.name, code, list(t.shape))],
        "bitmask": [values, (f"{t.name}.mask", "U8", [(size + 7) // 8])],
        "csr": [
            values,
            (f"{t.name}.indices", f"U{8 * _index(columns)}", [size]),
            (f"{t.name}.indptr", f"U{8 * _pointer(size)}", [rows + 1]),
        ],
    }[way]
    items: list[dict[str, object]] = [
        {name: {"dtype": kind, "shape": dims, "data_offsets": [end, end]}} for name, kind, dims in entries
    ]
    items += [{f"alias.{alias}": t.name} for alias in t.aliases]
    items += [{f"sparse.{t.name}": " ".join([way, shape]) if shape else way}] if way != "dense" else []
    return sum(map(item_bytes, items))


def item_bytes(item: Mapping[str, object]) -> int:
    """Bytes of one item of a JSON object, with the comma before it: two braces less, one comma more."""
    return len(json.dumps(item, separators=(",", ":"), ensure_ascii=False).encode()) - 1


def _matrix(t: Tensor) -> tuple[int, int]:
    return (t.shape[0], prod(t.shape[1:])) if t.shape else (1, 1)


def _index(columns: int) -> int:
    return next(w for w in (1, 2, 4) if columns <= 256**w)


def _pointer(size: int) -> int:
    return 4 if size < 2**32 else 8


def width_of(dtype: str) -> int:
    """Bytes of a number."""
    digits = re.sub(r"\D", "", dtype)
    return int(digits) // 8 if digits else 1


def code_of(dtype: str) -> str:
    """A type as safetensors calls it."""
    kind, digits = re.sub(r"\d", "", dtype), re.sub(r"\D", "", dtype)
    return _LETTERS[kind] + digits if digits else dtype.upper()
