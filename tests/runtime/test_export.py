"""Exported files: as long as was counted, and the same tensors when read back, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prunelang.compiler.formats import FORMATS, affine_bytes, best_bytes
from prunelang.compiler.shapes import Layer, ShapeTable, Tensor
from prunelang.runtime import export as module
from prunelang.runtime.costs import file_length
from prunelang.runtime.export import export, load_export
from prunelang.runtime.files import FileProblem
from prunelang.runtime.weights import Array, load_weights, save_weights

ALL = (*FORMATS, "best")
SHAPES = ((30, 300), (4, 3, 3, 3), (1, 1), (7, 1), (2, 70_000))


def table(dtype: str = "float32") -> ShapeTable:
    tensors = [Tensor(f"couche{i}·é.weight", shape, "weight", dtype) for i, shape in enumerate(SHAPES)]
    layers = tuple(Layer(t.name.removesuffix(".weight"), "linear", t.name, None, 1) for t in tensors)
    tied = Tensor("tied.weight", (6, 9), "weight", dtype, ("again.weight", "third.weight"))
    rest = (Tensor("bn.bias", (9,), "bias", dtype), Tensor("bn.num_batches_tracked", (), "buffer", "int64"))
    return ShapeTable("toy()", (3,), layers, (*tensors, tied, *rest))


def arrays(t: ShapeTable, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shares = [0.0, 1.0, 0.02, 0.3, 0.9]
    found: dict[str, Array] = {}
    for i, x in enumerate(t.tensors):
        kept = rng.random(x.shape) < shares[(i + seed) % len(shares)]
        found[x.name] = np.asarray(np.where(kept, rng.standard_normal(x.shape) * 3 + 5, 0)).astype(x.dtype)
    found["bn.bias"][:3] = [-0.0, 1e-7, -1]
    return found


def same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("format", ALL)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_round_trip_at_the_counted_length(format: Any, dtype: str, tmp_path: Path) -> None:
    t = table(dtype)
    for seed in range(5):
        weights = save_weights(tmp_path / "w.safetensors", arrays(t, seed), t)
        done = export(weights, t, tmp_path / "e.safetensors", format)
        there, back = load_weights(weights, t), load_export(done.path)
        assert set(back) == set(t.tensor)
        assert all(same(back[n], a) for n, a in there.items())
        nnz = {n: int(np.count_nonzero(a)) for n, a in there.items()}
        names = [x.name for x in t.tensors]
        if format == "best":
            choice = best_bytes(t, names)
            expected = choice.constant + sum(
                min(a * nnz[n] + c for _, a, c in w) for n, w in choice.alternatives.items()
            )
        else:
            count = affine_bytes(t, names, format)
            expected = count.constant + sum(c * nnz[n] for n, c in count.coefficients.items())
        assert done.path.stat().st_size == done.bytes == done.predicted == expected
        assert file_length(t.tensors, format, nnz) == expected  # the checker's own arithmetic
        kernels = {x.name for x in t.tensors if x.role == "weight"}
        assert {done.formats[n] for n in names if n not in kernels} == {"dense"}
        assert format == "best" or {done.formats[n] for n in kernels} == {format}
        assert len(load_file(done.path)) >= len(names)


def test_best_mixes_formats_where_that_pays(tmp_path: Path) -> None:
    t = table()
    weights = save_weights(tmp_path / "w", arrays(t, 1), t)
    lengths = {f: export(weights, t, tmp_path / f, f).bytes for f in FORMATS}
    best = export(weights, t, tmp_path / "best")
    assert set(best.formats.values()) == {"dense", "bitmask", "csr"}
    assert best.bytes < min(lengths.values())


def test_bfloat16(tmp_path: Path) -> None:
    t = ShapeTable("toy()", (3,), (), (Tensor("w", (16, 16), "weight", "bfloat16"),))
    bits = np.random.default_rng(0).integers(0, 0x7F80, (16, 16)) << 16
    there = np.where(np.arange(256).reshape(16, 16) % 5 == 0, bits, 0).astype("<u4").view("<f4")
    weights = save_weights(tmp_path / "w", {"w": there}, t)
    lengths = {}
    for format in ALL:
        lengths[format] = export(weights, t, tmp_path / format, format).bytes  # type: ignore[arg-type]
        assert same(load_export(tmp_path / format)["w"], there)
    assert lengths["best"] < lengths["dense"]


def test_refusals(tmp_path: Path) -> None:
    t = table()
    weights = save_weights(tmp_path / "w", arrays(t, 0), t)
    with pytest.raises(ValueError, match="unknown format 'zip', expected one of dense, bitmask, csr, coded or best"):
        export(weights, t, tmp_path / "e", "zip")  # type: ignore[arg-type]
    with pytest.raises(FileProblem, match="cannot be written"):
        export(weights, t, tmp_path / "no" / "e")
    with pytest.raises(FileProblem, match="cannot be read"):
        export(tmp_path / "none", t, tmp_path / "e")
    with pytest.raises(FileProblem, match="is no exported file of version 1 or 2") as caught:
        load_export(weights)
    assert caught.value.code == "P516"
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("fault", ["length", "content"])
def test_a_wrong_file_never_takes_its_name(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t = table()
    weights = save_weights(tmp_path / "w", arrays(t, 0), t)
    content = module._content

    def torn(*arguments: Any) -> Any:
        *most, last = map(bytes, content(*arguments))
        yield from most
        yield last + b"\0" if fault == "length" else bytes([last[0] ^ 1]) + last[1:]

    monkeypatch.setattr(module, "_content", torn)
    with pytest.raises(AssertionError, match="were counted" if fault == "length" else "does not come back"):
        export(weights, t, tmp_path / "e", "dense")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w"]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """Each file differs from a good one in one part; the library accepts all of them."""
    values, mask = np.array([1, 2, 3], np.float32), np.array([0b10010010, 0], np.uint8)
    indices, indptr = np.array([1, 4, 2], np.uint8), np.array([0, 2, 3], np.uint32)
    bitmask = {"w.values": values, "w.mask": mask}
    csr = {"w.values": values, "w.indices": indices, "w.indptr": indptr}
    cases: list[tuple[dict[str, Array], str, str]] = [
        ({**bitmask, "w.mask": mask[:1]}, "bitmask 2 5", "a mask of 1 bytes for 10 entries"),
        ({**bitmask, "w.mask": np.array([0b10010010, 4], np.uint8)}, "bitmask 2 5", "bits after its last entry"),
        ({**bitmask, "w.values": values[:2]}, "bitmask 2 5", "2 values for 3 positions"),
        ({"w.values": values}, "bitmask 2 5", "lacks one of its parts"),
        (bitmask, "zip 2 5", "is stored as 'zip 2 5'"),
        (bitmask, "bitmask 2 -5", "is stored as"),
        (bitmask, "bitmask 2 5 99999999999999", "a mask of 2 bytes"),
        ({**csr, "w.indptr": indptr[:2]}, "csr 2 5", "row pointers that do not fit"),
        ({**csr, "w.indptr": np.array([0, 4, 3], np.uint32)}, "csr 2 5", "row pointers that do not fit"),
        ({**csr, "w.indptr": np.array([1, 2, 3], np.uint32)}, "csr 2 5", "row pointers that do not fit"),
        ({**csr, "w.indices": np.array([1, 5, 2], np.uint8)}, "csr 2 5", "a column index outside its 5 columns"),
        ({**csr, "w.indices": np.array([4, 1, 2], np.uint8)}, "csr 2 5", "do not rise within a row"),
        ({**csr, "w.indices": np.array([1, 1, 2], np.uint8)}, "csr 2 5", "do not rise within a row"),
        ({**csr, "w.indices": indices.astype("f4")}, "csr 2 5", "no vectors of their type"),
        (csr, "csr 2 9999999999999999999", "a column index outside"),
        (csr, "csr 2 999999999999999999", "does not fit in memory"),
    ]
    for stored, text, said in cases:
        save_file(stored, tmp_path / "e", {"prunelang": "1", "sparse.w": text})
        with pytest.raises(FileProblem, match=said) as caught:
            load_export(tmp_path / "e")
        assert caught.value.code == "P512"
    save_file(csr, tmp_path / "e", {"prunelang": "1", "sparse.w": "csr 2 5", "alias.v": "u"})
    with pytest.raises(FileProblem, match=r"`alias\.v` stands for `u`, which is not there"):
        load_export(tmp_path / "e")
    save_file(csr, tmp_path / "e", {"prunelang": "1", "sparse.w": "csr 2 5", "alias.v": "w"})
    assert load_export(tmp_path / "e")["v"].tolist() == [[0, 1, 0, 0, 2], [0, 0, 3, 0, 0]]
