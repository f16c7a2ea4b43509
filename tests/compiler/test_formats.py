"""Layouts against the safetensors library itself: what is counted is what a file has, byte for byte."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from prunelang.compiler.formats import FORMATS, Layout, affine_bytes, best_bytes, cheapest, header_bytes, layout, store
from prunelang.compiler.shapes import Layer, ShapeTable, Tensor

DTYPES = {"float32": "<f4", "float64": "<f8", "float16": "<f2", "int64": "<i8", "uint8": "u1", "uint16": "<u2"}


def table(*shapes: tuple[int, ...], dtype: str = "float32") -> ShapeTable:
    tensors, layers = [], []
    for i, shape in enumerate(shapes):
        tensors += [
            Tensor(f"couche{i}·é.weight", shape, "weight", dtype, aliases=("tied.weight",) if i == 0 else ()),
            Tensor(f"couche{i}·é.bias", shape[:1], "bias", dtype),
        ]
        layers.append(Layer(f"couche{i}·é", "linear", tensors[-2].name, tensors[-1].name, 1))
    tensors.append(Tensor("norm.num_batches_tracked", (), "buffer", "int64"))
    return ShapeTable("toy()", (3,), tuple(layers), tuple(tensors))


def write(path: Path, file: Layout, nnz: dict[str, int]) -> None:
    data = b"".join(bytes(end - begin) for _, begin, end in file.offsets(nnz))
    path.write_bytes(header_bytes(file, nnz) + data)


def names(t: ShapeTable) -> list[str]:
    return [x.name for x in t.tensors]


@pytest.mark.parametrize("format", [*FORMATS, "best"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_the_library_loads_the_file_and_its_length_is_the_one_counted(format: Any, dtype: str, tmp_path: Path) -> None:
    rng = random.Random(f"{format}{dtype}")
    t = table((7, 300), (2, 3, 3, 3), (1, 1), dtype=dtype)
    for k in range(12):
        share = (0.0, 1.0, rng.random())[min(k, 2)]
        nnz = {x.name: round(share * x.size) for x in t.tensors if x.role == "weight"}
        file = layout(t, names(t), format, nnz)
        path = tmp_path / "model.safetensors"
        write(path, file, nnz)
        count = best_bytes(t, names(t)) if format == "best" else affine_bytes(t, names(t), format)
        assert path.stat().st_size == file.nbytes(nnz) == _value(count, nnz)
        arrays = load_file(path)
        assert {n: (a.dtype, a.shape) for n, a in arrays.items()} == {
            p.name: (np.dtype(DTYPES.get(p.dtype, "<u4")), p.dims(nnz.get(p.tensor, 0))) for p in file.parts()
        }


def _value(count: Any, nnz: dict[str, int]) -> int:
    if hasattr(count, "alternatives"):
        best = {n: min(a * nnz[n] + c for _, a, c in ways) for n, ways in count.alternatives.items()}
        return int(sum(best.values()) + count.constant)
    return int(sum(c * nnz[n] for n, c in count.coefficients.items()) + count.constant)


def test_parts_are_aligned_and_torch_loads_them(tmp_path: Path) -> None:
    torch_load = pytest.importorskip("safetensors.torch").load_file
    t = table((5, 301), (3, 7))
    nnz = {"couche0·é.weight": 11, "couche1·é.weight": 3}
    file = layout(t, names(t), "csr")
    write(tmp_path / "m.safetensors", file, nnz)
    assert torch_load(tmp_path / "m.safetensors")["couche0·é.weight.indices"].shape == (11,)
    sizes = {"float32": 4, "int64": 8, "uint32": 4, "uint16": 2, "uint8": 1}
    assert (8 + file.header_length) % 8 == 0
    assert all(begin % sizes[p.dtype] == 0 for p, begin, _ in file.offsets(nnz))


def test_metadata_tells_how_to_decode(tmp_path: Path) -> None:
    t = table((7, 300))
    write(tmp_path / "m", layout(t, names(t), "csr"), {"couche0·é.weight": 5})
    with safe_open(tmp_path / "m", "numpy") as file:
        assert file.metadata() == {
            "format": "pt",
            "prunelang": "1",
            "sparse.couche0·é.weight": "csr 7 300",
            "alias.tied.weight": "couche0·é.weight",
        }


@pytest.mark.parametrize(
    ("columns", "width"), [(1, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 4)], ids=lambda v: f"{v}"
)
def test_csr_index_width(columns: int, width: int) -> None:
    stored = store(Tensor("w", (3, columns), "weight"), "csr")
    assert (stored.per_nonzero, stored.fixed) == (4 + width, 16)


def test_csr_row_pointers_widen_past_32_bits() -> None:
    assert store(Tensor("w", (1 << 16, 1 << 16), "weight"), "csr").fixed == 8 * ((1 << 16) + 1)
    assert store(Tensor("w", ((1 << 16) - 1, 1 << 16), "weight"), "csr").fixed == 4 * (1 << 16)


def test_bitmask_and_dense() -> None:
    w = Tensor("w", (3, 3), "weight", "float16")
    assert (store(w, "bitmask").per_nonzero, store(w, "bitmask").fixed) == (2, 2)
    assert (store(w, "dense").per_nonzero, store(w, "dense").fixed) == (0, 18)
    assert store(Tensor("b", (9,), "bias"), "csr").format == "dense"


def test_cheapest_is_the_minimum() -> None:
    w = Tensor("w", (20, 200), "weight")
    for nnz in range(0, 4001, 50):
        assert store(w, cheapest(w, nnz)).nbytes(nnz) == min(store(w, f).nbytes(nnz) for f in FORMATS)
    assert [cheapest(w, z) for z in (0, 400, 2000, 4000)] == ["csr", "csr", "bitmask", "dense"]


def test_header_length_is_fixed_and_ample() -> None:
    t = table((30, 40), (8, 9, 3, 3))
    lengths = set()
    for nnz in ({"couche0·é.weight": a, "couche1·é.weight": b} for a in (0, 9, 10, 1200) for b in (0, 99, 100, 648)):
        file = layout(t, names(t), "best", nnz)
        head = header_bytes(file, nnz)
        assert int.from_bytes(head[:8], "little") == len(head) - 8 == file.header_length
        assert json.loads(head[8:].decode())
        lengths.add(file.header_length)
    assert len(lengths) == 1


def test_refusals() -> None:
    t = table((2, 3))
    with pytest.raises(ValueError, match="depends on the non-zero values"):
        layout(t, names(t), "best")
    clash = ShapeTable("toy()", (3,), (), (Tensor("w", (2, 2), "weight"), Tensor("w.mask", (1,), "buffer", "uint8")))
    with pytest.raises(ValueError, match=r"called 'w\.mask'"):
        layout(clash, ["w", "w.mask"], "bitmask")
    with pytest.raises(ValueError, match="unknown format 'zip'"):
        layout(t, names(t), "zip")  # type: ignore[arg-type]


def test_an_alias_is_stored_once() -> None:
    t = table((2, 3))
    assert layout(t, ["tied.weight"], "csr") == layout(t, ["couche0·é.weight", "tied.weight"], "csr")
