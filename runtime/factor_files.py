"""Files of factors: safetensors whose metadata says what the arrays compose, checked against it and the network.

Nothing in such a file is believed that it can show itself: shapes and types of every array have to be those that its
form asks for, codes and positions have to be in range, numbers finite. Whether ranks and counts keep to a bound is the
recount's question, and whether the sum of the parts is the stored tensor as well.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from math import prod
from pathlib import Path
from typing import Final, NoReturn

import numpy as np

from prunelang.compiler.forms import (
    MATRIX,
    Codebook,
    Composition,
    Fixed,
    Form,
    LowRank,
    Sparse,
    TensorTrain,
    from_json,
    to_json,
)
from prunelang.compiler.shapes import ShapeTable
from prunelang.runtime.factors import Factors, compose64, named, slack, strays, symbols
from prunelang.runtime.files import FileProblem, parse_json, read
from prunelang.runtime.weights import Array, Arrays, called, file_metadata, nonzero, parts, save_arrays, widened

VERSION: Final = "1"
INTEGERS: Final = frozenset({"codes", "indices"})


def save_factors(path: Path, arrays: Arrays, compositions: Sequence[Composition], table: ShapeTable) -> Path:
    """Save the factors of `compositions`, whole or not at all. Errors: `FileProblem` P510, P513 to P515, P517."""
    arrays = _without_zeros(arrays, compositions)
    check_factors(Factors(tuple(compositions), arrays), table, path)
    types = {
        name: arrays[name].dtype.name if symbol in INTEGERS else table.tensor[c.tensors[which]].dtype
        for c in compositions
        for name, _, symbol, which in symbols(c)
    }
    said = json.dumps([to_json(c) for c in compositions], separators=(",", ":"))
    stored = {name: (types[name], arrays[name]) for name in types}
    return save_arrays(path, stored, {"prunelang.factors": VERSION, "compositions": said})


def load_factors(path: Path, table: ShapeTable) -> Factors:
    """Errors: `FileProblem` P510, and as for `read_factors`."""
    return read_factors(read(path), table, path)


def read_factors(raw: bytes, table: ShapeTable, path: Path) -> Factors:
    """The factors in a file, from bytes at hand; `path` is what errors call it.

    Errors: `FileProblem` P512 for what is no such file, P513 for arrays that are missing or foreign, P514 for shapes
    and types that do not fit, P515 for a number that is not finite, P516 for another version, P517 for a contradiction.
    """
    stored = parts(raw, path)
    note = file_metadata(raw)
    version = note.get("prunelang.factors")
    if version != VERSION:
        raise FileProblem("P516", f"{path} is no file of factors of version {VERSION} (it says {version!r})")
    try:
        compositions = tuple(map(from_json, parse_json(note["compositions"], path)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileProblem("P512", f"{path} does not say what its factors compose: {error!r:.200}") from error
    found = Factors(compositions, {name: widened(*part) for name, part in stored.items()})
    check_factors(found, table, path, {name for name, (code, _) in stored.items() if code == "BF16"})
    return found


def check_sums(factors: Factors, tensors: Arrays, table: ShapeTable, path: Path) -> None:
    """Whether stored tensors are the sums of their parts. Errors: `FileProblem` P517."""
    for c in factors.compositions:
        totals, allowed = compose64(c, factors.arrays), slack(c, factors.arrays)
        for t in c.tensors:
            count = strays(tensors[t], totals[t], allowed[t], table.tensor[t].dtype)
            if count:
                said = f"{count} of its {totals[t].size} stored entries differ"
                hint = "Weights and factors are of different runs, or one of the files was changed."
                raise FileProblem("P517", f"{path}: `{t}` is not what its factors make: {said}", hint)


# ── what every array has to be ───────────────────────────────────────────────────────────────────────────────────


def check_factors(factors: Factors, table: ShapeTable, path: Path, halves: Collection[str] | None = None) -> None:
    """Errors: `FileProblem` as for `read_factors`. `halves` are the arrays that a file has as bfloat16."""
    held: set[str] = set()
    for c in factors.compositions:
        for tensor, shape in zip(c.tensors, c.shapes, strict=True):
            if tensor not in table.tensor or table.tensor[tensor].name != tensor:
                raise FileProblem("P513", f"{path} composes `{tensor}`, which {table.model} has not")
            if table.tensor[tensor].shape != shape:
                actual = list(table.tensor[tensor].shape)
                raise FileProblem("P514", f"{path} composes `{tensor}` as {list(shape)}, it is {actual}")
            if tensor in held:
                raise FileProblem("P517", f"{path} composes `{tensor}` twice")
            held.add(tensor)
        if len(c.tensors) > 1 and any(isinstance(f, MATRIX) for f in c.forms):
            raise FileProblem("P517", f"{path} composes several tensors, `{c.tensors[0]}` first, as one matrix")
    wanted = {name: (c, form, symbol, which) for c in factors.compositions for name, form, symbol, which in symbols(c)}
    missing, extra = sorted(set(wanted) - set(factors.arrays)), sorted(set(factors.arrays) - set(wanted))
    if missing or extra:
        said = f"lacks `{missing[0]}`" if missing else f"has `{extra[0]}`, which none of its compositions asks for"
        raise FileProblem("P513", f"{path} {said}")
    for name, (c, form, symbol, which) in wanted.items():
        kind = table.tensor[c.tensors[which]].dtype
        _check_type(name, factors.arrays[name], _type(form, symbol, kind), path)
        if halves is not None and symbol not in INTEGERS and (name in halves) != (kind == "bfloat16"):
            raise FileProblem("P514", f"{path}: `{name}` is not of the type of its tensor, {kind}")
    for c in factors.compositions:
        for i, form in enumerate(c.forms):
            _check_form(form, c, i, factors.arrays, path)


def _type(form: Form, symbol: str, kind: str) -> str:
    if symbol == "indices":
        return "int64"
    if symbol == "codes":
        count = form.size if isinstance(form, Codebook) else len(form.values) if isinstance(form, Fixed) else 0
        return "uint8" if count <= 1 << 8 else "uint16"
    return kind


def _check_type(name: str, array: Array, kind: str, path: Path) -> None:
    """bfloat16 comes as float32 without its lower half."""
    if array.dtype != np.dtype("float32" if kind == "bfloat16" else kind):
        raise FileProblem("P514", f"{path}: `{name}` is {called(array)}, not {kind}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FileProblem("P515", f"{path}: `{name}` holds a number that is not finite")
    if kind == "bfloat16" and (np.asarray(array, order="C").view("u4") & np.uint32(0xFFFF)).any():
        raise FileProblem("P514", f"{path}: `{name}` holds a number that is no bfloat16")


def _check_form(form: Form, c: Composition, i: int, arrays: Arrays, path: Path) -> None:
    """Shapes that fit each other, and codes and positions in range."""

    def get(symbol: str, which: int = 0) -> Array:
        return arrays[named(c.tensors[which], i, symbol)]

    def refuse(said: str, which: int = 0) -> NoReturn:
        raise FileProblem("P514", f"{path}: {said} of `{c.tensors[which]}`")

    rows, columns = c.shapes[0][0] if c.shapes[0] else 1, prod(c.shapes[0][1:])
    match form:
        case LowRank():
            u, v = get("U"), get("V")
            if u.ndim != 2 or v.ndim != 2 or u.shape[1] != v.shape[0] or (len(u), v.shape[1]) != (rows, columns):
                refuse(f"U {list(u.shape)} and V {list(v.shape)} do not multiply to the {rows} × {columns}")
        case TensorTrain(modes=modes):
            cores = [get(f"G{k}") for k in range(1, len(modes) + 1)]
            ranks = [1, *(g.shape[3] if g.ndim == 4 else -1 for g in cores)]
            shapes = [(ranks[k], *modes[k], ranks[k + 1]) for k in range(len(modes))]
            if (prod(m for m, _ in modes), prod(n for _, n in modes)) != (rows, columns):
                refuse(f"modes {modes} do not multiply to the {rows} × {columns}")
            if ranks[-1] != 1 or [g.shape for g in cores] != shapes:
                refuse(f"cores {[list(g.shape) for g in cores]} do not make a train")
        case Codebook(size=size):
            if get("centres").shape != (size,):
                refuse(f"centres {list(get('centres').shape)} are not the {size}")
        case Fixed(scaled=True):
            if get("scale").shape != ():
                refuse("more than one scale")
    for which, shape in enumerate(c.shapes):
        if isinstance(form, Codebook | Fixed):
            codes, count = get("codes", which), form.size if isinstance(form, Codebook) else len(form.values)
            if codes.shape != shape:
                refuse(f"codes {list(codes.shape)} for the entries {list(shape)}", which)
            if codes.size and int(codes.max()) >= count:
                refuse(f"a code {int(codes.max())} beyond the {count} values", which)
        elif isinstance(form, Sparse):
            values, where = get("values", which), get("indices", which)
            if values.ndim != 1 or values.shape != where.shape:
                refuse(f"values {list(values.shape)} at positions {list(where.shape)}", which)
            if where.size and (where[0] < 0 or where[-1] >= prod(shape) or (np.diff(where) <= 0).any()):
                refuse("positions that do not rise within the entries", which)
            if not nonzero(values).all():
                refuse("a zero among the values", which)


def _without_zeros(arrays: Arrays, compositions: Sequence[Composition]) -> dict[str, Array]:
    """A sparse part keeps no zeros: they would be counted as entries."""
    found = dict(arrays)
    for c in compositions:
        for values, form, symbol, _ in symbols(c):
            if isinstance(form, Sparse) and symbol == "values" and values in found:
                where = f"{values.removesuffix('values')}indices"
                if where in found and found[where].shape == found[values].shape:
                    full = nonzero(found[values])
                    found[values], found[where] = found[values][full], found[where][full]
    return found
