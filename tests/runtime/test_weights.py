"""Saved weights against the safetensors library, and everything that must be refused."""

from __future__ import annotations

import json
import random
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from prunelang.compiler.shapes import Layer, ShapeTable, Tensor
from prunelang.runtime.files import FileProblem
from prunelang.runtime.weights import (
    Array,
    load_support,
    load_weights,
    nonzero,
    save_support,
    save_weights,
    without_negative_zero,
)

TABLE = ShapeTable(
    "toy()",
    (3,),
    (Layer("fc1", "linear", "fc1.weight", "fc1.bias", 1), Layer("out", "linear", "out.weight", None, 1)),
    (
        Tensor("fc1.weight", (5, 3), "weight"),
        Tensor("fc1.bias", (5,), "bias"),
        Tensor("out.weight", (3, 5), "weight", "float64", ("tied.weight",)),
        Tensor("bn.count", (), "buffer", "int64"),
        Tensor("half.scale", (4,), "norm", "float16"),
        Tensor("empty", (0, 2), "other"),
        Tensor("flags", (3,), "buffer", "bool"),
    ),
)


def arrays(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for t in TABLE.tensors:
        dense = rng.standard_normal(t.shape) * (rng.random(t.shape) < 0.6) * 10
        found[t.name] = np.asarray(dense).astype(t.dtype)
    return found


def same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_round_trip_and_the_library(tmp_path: Path) -> None:
    there = {n: without_negative_zero(a) for n, a in arrays().items()}
    path = save_weights(tmp_path / "w.safetensors", there, TABLE, {"seed": "7"})
    back = load_weights(path, TABLE)
    assert set(back) == {*there, "tied.weight"}
    assert back["tied.weight"] is back["out.weight"]
    library = load_file(path)
    for name, array in there.items():
        assert same(back[name], array)
        assert same(library[name], array)
    with safe_open(path, "numpy") as file:
        assert file.metadata() == {"format": "pt", "seed": "7", "alias.tied.weight": "out.weight"}
    loose = load_weights(path)
    assert {n: a.tobytes() for n, a in loose.items()} == {n: a.tobytes() for n, a in back.items()}


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path) -> None:
    there = arrays()
    notes = {"b": "2", "a": "1"}
    first = save_weights(tmp_path / "1", there, TABLE, notes).read_bytes()
    shuffled = list(there.items())
    random.Random(1).shuffle(shuffled)
    second = save_weights(tmp_path / "2", dict(shuffled), TABLE, dict(reversed(notes.items()))).read_bytes()
    strided = {n: np.array(a, order="F") for n, a in there.items()}
    third = save_weights(tmp_path / "3", strided, TABLE, notes).read_bytes()
    assert first == second == third
    assert (8 + int.from_bytes(first[:8], "little")) % 8 == 0


def test_negative_zero_becomes_zero_and_subnormals_stay(tmp_path: Path) -> None:
    there = arrays()
    least = np.float32(1e-45)
    there["fc1.bias"] = np.array([-0.0, 0.0, least, -least, -1], np.float32)
    back = load_weights(save_weights(tmp_path / "w", there, TABLE), TABLE)["fc1.bias"]
    assert back.tobytes() == np.array([0.0, 0.0, least, -least, -1], np.float32).tobytes()
    assert nonzero(there["fc1.bias"]).tolist() == [False, False, True, True, True]
    assert same(np.asarray(without_negative_zero(np.array(-0.0))), np.array(0.0))
    save_file({"a": np.array([-0.0, 2.0])}, tmp_path / "foreign")
    assert load_weights(tmp_path / "foreign")["a"].tobytes() == np.array([0.0, 2.0]).tobytes()


def test_bfloat16_comes_and_goes_as_float32(tmp_path: Path) -> None:
    table = ShapeTable("toy()", (3,), (), (Tensor("w", (2, 3), "weight", "bfloat16"),))
    bits = (np.random.default_rng(0).integers(0, 0x7F80, (2, 3)) << 16).astype("<u4")
    there = bits.view("<f4")
    path = save_weights(tmp_path / "w", {"w": there}, table)
    assert same(load_weights(path, table)["w"], there)
    torch_load = pytest.importorskip("safetensors.torch").load_file
    assert torch_load(path)["w"].float().numpy().tobytes() == there.tobytes()
    with pytest.raises(FileProblem, match="no bfloat16"):
        save_weights(path, {"w": there + np.float32(1 + 2**-20)}, table)


def test_a_tied_tensor_may_come_under_any_of_its_names(tmp_path: Path) -> None:
    there = arrays()
    both = {**there, "tied.weight": there["out.weight"].copy()}
    other = {n: a for n, a in both.items() if n != "out.weight"}
    files = [save_weights(tmp_path / f"{i}", a, TABLE).read_bytes() for i, a in enumerate((there, both, other))]
    assert files[0] == files[1] == files[2]
    save_file(other, tmp_path / "foreign")
    assert same(load_weights(tmp_path / "foreign", TABLE)["out.weight"], without_negative_zero(there["out.weight"]))
    both["tied.weight"][0, 0] += 1
    with pytest.raises(FileProblem, match=r"`out\.weight` and `tied\.weight` are one tensor") as caught:
        save_weights(tmp_path / "w", both, TABLE)
    assert caught.value.code == "P517"


def broken() -> dict[str, tuple[dict[str, Array], str, str]]:
    good = arrays()
    missing = {n: a for n, a in good.items() if n != "fc1.bias"}
    bad = good["fc1.weight"].copy()
    bad[2, 1] = np.nan
    infinite = good["out.weight"].copy()
    infinite[0, 0] = -np.inf
    return {
        "missing": (missing, "P513", r"lacks `fc1\.bias`"),
        "extra": ({**good, "../../x": np.zeros(1)}, "P513", r"has `\.\./\.\./x`, which the network has not"),
        "many": ({f"x{i}": np.zeros(1) for i in range(9)}, "P513", "and 6 more"),
        "shape": ({**good, "fc1.weight": good["fc1.weight"].T.copy()}, "P514", r"\[3, 5\], not .* \[5, 3\]"),
        "dtype": ({**good, "fc1.bias": good["fc1.bias"].astype("f8")}, "P514", "fc1.bias"),
        "nan": (
            {**good, "fc1.weight": bad},
            "P515",
            r"`fc1\.weight` holds a number that is not finite, first at entry 7",
        ),
        "inf": ({**good, "out.weight": infinite}, "P515", r"`out\.weight` holds"),
    }


@pytest.mark.parametrize("case", broken())
def test_what_is_not_of_the_network_is_neither_saved_nor_loaded(case: str, tmp_path: Path) -> None:
    there, code, said = broken()[case]
    with pytest.raises(FileProblem, match=said) as caught:
        save_weights(tmp_path / "w", there, TABLE)
    assert caught.value.code == code
    assert not list(tmp_path.iterdir())
    save_file(there, tmp_path / "foreign")
    with pytest.raises(FileProblem, match=said) as caught:
        load_weights(tmp_path / "foreign", TABLE)
    assert caught.value.code == code


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    raw = save_weights(tmp_path / "w", arrays(), TABLE).read_bytes()
    for length in range(0, len(raw), 7):
        (tmp_path / "w").write_bytes(raw[:length])
        with pytest.raises(FileProblem) as caught:
            load_weights(tmp_path / "w", TABLE)
        assert caught.value.code == "P512"


def test_hostile_headers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w"

    def write(header: object, data: bytes = b"") -> None:
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)

    big = {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}
    odd = {"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
    lie = {"a": {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]}}
    for header, data, code in ((big, bytes(4), "P512"), (odd, bytes(4), "P514"), (lie, b"\0\1\2\0", "P512")):
        write(header, data)
        with pytest.raises(FileProblem) as caught:
            load_weights(path)
        assert caught.value.code == code
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    with pytest.raises(FileProblem, match="not a whole safetensors file"):
        load_weights(path)


# ── supports ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_support_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    kept = {n: rng.random(TABLE.tensor[n].shape) < 0.5 for n in ("fc1.weight", "out.weight")}
    back = load_support(save_support(tmp_path / "s", kept, TABLE), TABLE)
    assert set(back) == set(kept)
    assert all(same(back[n], m) for n, m in kept.items())
    assert load_file(tmp_path / "s")["fc1.weight"][0] == sum(1 << i for i in range(8) if kept["fc1.weight"].flat[i])


def test_supports_that_are_refused(tmp_path: Path) -> None:
    kept = np.ones((5, 3), np.bool_)
    for bad, code in (
        ({"x": kept}, "P513"),
        ({"fc1.weight": kept.T}, "P514"),
        ({"fc1.weight": kept.astype("u1")}, "P514"),
    ):
        with pytest.raises(FileProblem) as caught:
            save_support(tmp_path / "s", bad, TABLE)
        assert caught.value.code == code
    good = {"fc1.weight": np.packbits(kept, bitorder="little")}
    version = {"prunelang.support": "1"}
    late = {"fc1.weight": np.array([255, 255], np.uint8)}  # the 16th bit is no entry
    for stored, notes, code in (
        (good, {}, "P516"),
        (good, {"prunelang.support": "2"}, "P516"),
        ({"x": good["fc1.weight"]}, version, "P513"),
        ({"fc1.weight": np.zeros(3, np.uint8)}, version, "P514"),
        ({"fc1.weight": np.zeros(2, np.int8)}, version, "P514"),
        (late, version, "P512"),
    ):
        save_file(stored, tmp_path / "s", notes)
        with pytest.raises(FileProblem) as caught:
            load_support(tmp_path / "s", TABLE)
        assert caught.value.code == code


def test_a_table_with_another_type_refuses_the_file(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "w", arrays(), TABLE)
    other = replace(TABLE, tensors=(replace(TABLE.tensors[0], dtype="float64"), *TABLE.tensors[1:]))
    with pytest.raises(FileProblem, match=r"`fc1\.weight` is F32 \[5, 3\], not F64 \[5, 3\]"):
        load_weights(path, other)
