"""Coded files: what is read back is what was rounded, to the bit; and the file is as short as it should be."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunelang.compiler.shapes import Layer, ShapeTable, Tensor
from prunelang.runtime.coded import MAGIC, Coded, coded, decode, encode, entropy
from prunelang.runtime.coding import grid
from prunelang.runtime.coding.coder import Coder, Decoder, Encoder
from prunelang.runtime.coding.models import Histogram, Planes, Text, number
from prunelang.runtime.coding.positions import PRIORS, positions
from prunelang.runtime.costs import file_length
from prunelang.runtime.export import export, load_export
from prunelang.runtime.files import FileProblem
from prunelang.runtime.weights import Array, load_weights, nonzero, save_weights

HERE = Path("file")
LENET = (("fc1", (300, 784)), ("fc2", (100, 300)), ("fc3", (10, 100)))


def network(*shapes: tuple[int, ...], dtype: str = "float32") -> ShapeTable:
    kernels = tuple(Tensor(f"fc{i}.weight", shape, "weight", dtype) for i, shape in enumerate(shapes))
    return ShapeTable("toy()", (3,), (), (*kernels, Tensor("fc.bias", (5,), "bias", dtype)))


def drawn(table: ShapeTable, density: float, seed: int = 0, scale: float = 1.0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for t in table.tensors:
        values = rng.standard_normal(t.shape) * scale
        kept = rng.random(t.shape) < density if t.role == "weight" else True
        found[t.name] = np.asarray(np.where(kept, values, 0)).astype("float32" if t.dtype == "bfloat16" else t.dtype)
        if t.dtype == "bfloat16":
            found[t.name] = (found[t.name].view("u4") & np.uint32(0xFFFF0000)).view("f4")
    return found


def same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def read_back(file: Coded, table: ShapeTable, bits: int) -> dict[str, Array]:
    """Decoding gives what encoding said it would, and encoding that again gives the file."""
    found_bits, tensors, values = decode(file.content, HERE)
    assert found_bits == bits
    assert [(t.name, t.shape, t.dtype, t.aliases) for t in tensors] == [
        (t.name, t.shape, t.dtype, t.aliases) for t in table.tensors
    ]
    assert all(same(values[n], file.tensors[n]) for n in file.tensors)
    again = encode(table, values, bits)
    assert again.content == file.content
    assert again.rounding == 0
    return values


# ── there and back ───────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from([(1, 1), (7, 1), (1, 40), (13, 9), (4, 3, 3, 3), (30, 50)]),
    density=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)),
    bits=st.integers(1, 16),
    dtype=st.sampled_from(["float32", "float64", "float16", "bfloat16"]),
    scale=st.sampled_from([1.0, 1e-6, 1e4]),
    seed=st.integers(0, 2**16),
)
def test_round_trip(shape: tuple[int, ...], density: float, bits: int, dtype: str, scale: float, seed: int) -> None:
    table = network(shape, shape, dtype=dtype)
    own = drawn(table, density, seed, scale if dtype != "float16" else min(scale, 100.0))
    file = encode(table, own, bits)
    back = read_back(file, table, bits)
    assert same(back["fc.bias"], own["fc.bias"])
    for name in ("fc0.weight", "fc1.weight"):
        assert np.array_equal(nonzero(back[name]), nonzero(own[name]))
        assert np.array_equal(np.signbit(back[name]), np.signbit(own[name]) & nonzero(own[name]))
        top = float(np.abs(own[name]).max(initial=0))
        assert float(np.abs(back[name]).max(initial=0)) == top
        step = top / (2 ** min(bits, grid.MOST_BITS[dtype]) - 1)
        error = np.abs(back[name].astype(np.float64) - own[name].astype(np.float64))
        assert float(error.max(initial=0)) <= step * (1 + 1e-6) + top * float(np.finfo(np.float16).eps) * (
            dtype in ("float16", "bfloat16")
        ) * (8 if dtype == "bfloat16" else 1)
        assert float(error.max(initial=0)) <= file.rounding


def test_values_are_on_the_symmetric_grid_that_the_page_states() -> None:
    """The nearest of o·M/(2ᵇ − 1) with o odd, found one by one."""
    values = np.array([0.9, -0.31, 0.02, -1.0, 1e-9, 0.5])
    for bits in (1, 2, 3, 8):
        odd = np.arange(1, 2**bits, 2)
        points = np.concatenate([-odd[::-1], odd]) / (2**bits - 1)
        magnitude, negative = grid.quantised(values, 1.0, bits)
        found = grid.points(magnitude, negative, 1.0, "float64", bits)
        for v, f in zip(values, found, strict=True):
            assert abs(v - f) == pytest.approx(np.abs(points - v).min(), abs=1e-12)
            assert np.sign(v) == np.sign(f)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((6, 9)),
        np.full((6, 9), -0.0),
        np.eye(1, 54, 17).reshape(6, 9) * -3.5,
        np.full((6, 9), 3e38),
        np.full((6, 9), 1e-45),
        np.where(np.arange(54).reshape(6, 9) % 2 == 0, 1e-44, 0),
        np.array([1e38, 1e-45, -1e-45, 0, -0.0, 5, 6, 7, -1e38] * 6).reshape(6, 9),
    ],
    ids=["zeros", "negative zeros", "one", "big", "subnormal", "subnormals", "extremes"],
)
def test_odd_values(values: Array) -> None:
    table = network((6, 9))
    own = {"fc0.weight": values.astype(np.float32), "fc.bias": np.array([0.0, -0.0, 1e-45, 3e38, -1], np.float32)}
    back = read_back(encode(table, own), table, 8)
    assert np.array_equal(nonzero(back["fc0.weight"]), nonzero(own["fc0.weight"]))
    assert not np.signbit(back["fc0.weight"][~nonzero(own["fc0.weight"])]).any()
    assert np.array_equal(back["fc.bias"], own["fc.bias"])
    assert not np.signbit(back["fc.bias"][1])


def test_kernels_too_small_for_a_grid_stay_as_they_are() -> None:
    table = network((4, 4), dtype="float32")
    own = {
        "fc0.weight": np.arange(16, dtype=np.float32).reshape(4, 4) * np.float32(1e-45),
        "fc.bias": np.zeros(5, "f4"),
    }
    file = encode(table, own)
    assert same(read_back(file, table, 8)["fc0.weight"], own["fc0.weight"])
    assert file.rounding == 0


def test_tied_tensors_other_types_and_names(tmp_path: Path) -> None:
    tensors = (
        Tensor('é"=\\\n.weight', (3, 4), "weight", "float32", ("twin\t.weight", "third")),
        Tensor("emb.weight", (20, 8), "embedding"),
        Tensor("bn.num_batches_tracked", (), "buffer", "int64"),
        Tensor("ids", (3,), "buffer", "int32"),
        Tensor("on", (4,), "buffer", "bool"),
        Tensor("bytes", (5,), "buffer", "uint8"),
        Tensor("empty.weight", (0, 4), "weight"),
    )
    table = ShapeTable("toy()", (3,), (), tensors)
    rng = np.random.default_rng(0)
    own = {
        tensors[0].name: rng.standard_normal((3, 4)).astype("f4"),
        "emb.weight": rng.standard_normal((20, 8)).astype("f4"),
        "bn.num_batches_tracked": np.array(-(2**62) + 5),
        "ids": np.array([1, -2, 2**31 - 1], np.int32),
        "on": np.array([True, False, True, True]),
        "bytes": np.array([0, 255, 3, 4, 5], np.uint8),
        "empty.weight": np.zeros((0, 4), np.float32),
    }
    back = read_back(encode(table, own), table, 8)
    assert all(same(back[n], own[n]) for n in ("bn.num_batches_tracked", "ids", "on", "bytes", "empty.weight"))
    done = export(save_weights(tmp_path / "w", own, table), table, tmp_path / "e", "coded")
    found = load_export(done.path)
    assert set(found) == set(table.tensor)
    assert found["third"] is found[tensors[0].name]
    assert done.formats["emb.weight"] == "coded"
    assert done.formats["ids"] == "dense"


# ── how long it is ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("density", [0.0, 0.001, 0.02, 0.2, 0.5, 0.9, 1.0])
def test_close_to_the_entropy_where_there_is_nothing_to_learn(density: float) -> None:
    """Independent positions and values: at most 3 % and 200 bytes over what any static code could reach."""
    table = network((200, 300), (64, 27))
    file = encode(table, drawn(table, density))
    assert len(file.content) <= 1.03 * file.entropy + 200


def test_the_entropy_is_that_of_the_counts() -> None:
    values = np.array([[0, 0, 0, 1, 1, 2, 0, 0]], np.float32)
    table = replace(network((1, 8)), tensors=network((1, 8)).tensors[:1])
    where = 8 * -(3 / 8 * np.log2(3 / 8) + 5 / 8 * np.log2(5 / 8))
    what = 3 * -(2 / 3 * np.log2(2 / 3) + 1 / 3 * np.log2(1 / 3))
    assert entropy(table, {"fc0.weight": values}) == np.ceil((where + what) / 8)


def test_rows_and_columns_that_differ_are_learnt() -> None:
    table = network((300, 784))
    own = drawn(table, 1.0)
    rng = np.random.default_rng(1)
    p = np.minimum(0.02 * np.exp(rng.normal(0, 1.5, 784))[None, :] * np.exp(rng.normal(0, 0.7, 300))[:, None], 1)
    own["fc0.weight"] *= rng.random((300, 784)) < p
    file = encode(table, own)
    assert len(file.content) < 0.97 * file.entropy


def test_shorter_than_the_other_formats_at_two_percent(tmp_path: Path) -> None:
    tensors = [Tensor(f"{n}.weight", s, "weight") for n, s in LENET] + [
        Tensor(f"{n}.bias", s[:1], "bias") for n, s in LENET
    ]
    table = ShapeTable(
        "lenet()", (784,), tuple(Layer(n, "linear", f"{n}.weight", None, 1) for n, _ in LENET), tuple(tensors)
    )
    own = drawn(table, 0.02)
    weights = save_weights(tmp_path / "w", own, table)
    size = export(weights, table, tmp_path / "coded", "coded").bytes
    nnz = {t.name: int(np.count_nonzero(own[t.name])) for t in table.tensors}
    others = {f: file_length(table.tensors, f, nnz) for f in ("dense", "bitmask", "csr")}
    assert 3 * size < min(others.values())
    assert size < len(zlib.compress(weights.read_bytes(), 9)) / 2


def test_fewer_weights_and_fewer_bits_make_it_shorter() -> None:
    table = network((100, 200))
    whole = drawn(table, 1.0)
    order = np.argsort(np.abs(whole["fc0.weight"]), axis=None)
    lengths = []
    for share in (0.0, 0.01, 0.05, 0.2, 0.6):
        kept = np.zeros(order.size, np.bool_)
        kept[order[order.size - round(share * order.size) :]] = True
        own = {**whole, "fc0.weight": np.where(kept.reshape(100, 200), whole["fc0.weight"], 0)}
        lengths.append(len(encode(table, own).content))
    assert lengths == sorted(set(lengths))
    by_bits = [len(encode(table, whole, b).content) for b in (1, 2, 4, 6, 8, 12, 16)]
    assert by_bits == sorted(set(by_bits))


def test_a_part_of_the_network_has_a_file_of_its_own() -> None:
    from prunelang.compiler.problem import Measured

    table = network((30, 40), (20, 30))
    own = drawn(table, 0.1)
    whole = coded(Measured("bytes", "train", (("format", "coded"),)), table, own)
    part = coded(Measured("bytes", "train", (("format", "coded"), ("tensors", ("fc1.weight",)))), table, own)
    assert whole.content == encode(table, own).content
    assert set(part.tensors) == {"fc1.weight"}
    assert len(part.content) < len(whole.content)


def test_the_bytes_of_the_format_are_fixed() -> None:
    """Another version of the entropy coder, or of NumPy, must write the same file."""
    table = network((40, 60), (8, 3, 3, 3))
    step = np.arange(40 * 60, dtype=np.float32).reshape(40, 60)
    own = {
        "fc0.weight": np.where(step % 11 == 0, np.float32(1) / (step + 3), 0).astype(np.float32),
        "fc1.weight": (np.arange(216, dtype=np.float32).reshape(8, 3, 3, 3) - 100) / 64,
        "fc.bias": np.array([0.5, -0.25, 3, 0, 1], np.float32),
    }
    content = encode(table, own).content
    assert (len(content), hashlib.sha256(content).hexdigest()) == GOLDEN


GOLDEN = (528, "68394a9fb280ed78b8ba4e3b8998e539c9d632235b8b5647cb58d21afc13a37f")


# ── damage ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_cut_and_every_flip_is_noticed() -> None:
    table = network((5, 8))
    content = encode(table, drawn(table, 0.4)).content
    for n in range(len(content)):
        with pytest.raises(FileProblem) as caught:
            decode(content[:n], HERE)
        assert caught.value.code in ("P512", "P516")
        with pytest.raises(FileProblem):
            decode(content[:n] + bytes([content[n] ^ 16]) + content[n + 1 :], HERE)
    with pytest.raises(FileProblem):
        decode(content + b"\1", HERE)


def test_another_version_says_so() -> None:
    with pytest.raises(FileProblem, match="another version than 1") as caught:
        decode(b"PRC2" + bytes(20), HERE)
    assert caught.value.code == "P516"


def sealed(stream: bytes) -> bytes:
    """A stream with a checksum that fits: what someone who means harm would write."""
    return MAGIC + zlib.crc32(stream).to_bytes(4, "little") + stream


def read_or_refused(raw: bytes) -> dict[str, Array] | None:
    """The tensors, or None where the file is refused as damaged; anything else is an error."""
    try:
        return decode(raw, HERE)[2]
    except FileProblem as problem:
        if problem.code != "P512":
            raise
        return None


def said(text: str, bits: int = 8) -> bytes:
    """A file that claims these tensors and holds nothing of them."""
    coder = Encoder()
    coder.uniform(16, 1, np.array([bits - 1]))
    raw = text.encode()
    number(coder, len(raw))
    Text().code(coder, len(raw), raw)
    return sealed(coder.stream())


@pytest.mark.parametrize(
    "text",
    [
        "a\tF1000000000000,1000000000000\n",
        "a\tf99999999999\n",
        "a\tF4\na\tF4\n",
        "a=a\tF4\n",
        "a\tF-4\n",
        "a\tU4\n",
        "a\tz4\n",
        "a\t\n",
        "a F4\n",
        "a\tF4,,4\n",
        "a\\q\tF4\n",
        "a\tF" + "9" * 5000 + "\n",
    ],
)
def test_claims_that_no_network_makes(text: str) -> None:
    with pytest.raises(FileProblem) as caught:
        decode(said(text), HERE)
    assert caught.value.code == "P512"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_any_stream_is_read_or_refused(stream: bytes) -> None:
    found = read_or_refused(sealed(stream))
    assert found is None or all(isinstance(v, np.ndarray) for v in found.values())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_tampered_streams_are_read_or_refused(data: st.DataObject) -> None:
    table = network((6, 8))
    stream = bytearray(encode(table, drawn(table, 0.4)).content[8:])
    stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    found = read_or_refused(sealed(bytes(stream))) or {}
    assert all(np.isfinite(v).all() for v in found.values() if v.dtype.kind == "f")


def test_empty_tensors_of_many_rows_take_no_time() -> None:
    _, (tensor,), values = decode(said("a\tF1000000000000,0\n"), HERE)
    assert values["a"].shape == tensor.shape == (10**12, 0)


def test_numbers_that_are_not_finite_are_refused() -> None:
    table = network((2, 3))
    own = drawn(table, 1.0)
    own["fc0.weight"][1, 1] = np.nan
    with pytest.raises(FileProblem, match="not finite") as caught:
        encode(table, own)
    assert caught.value.code == "P515"


@pytest.mark.parametrize("bits", [0, 17, -1])
def test_bits_out_of_range(bits: int) -> None:
    table = network((2, 3))
    with pytest.raises(ValueError, match="1 to 16 bits"):
        encode(table, drawn(table, 1.0), bits)


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────


def both_ways(write: object, read: object) -> tuple[object, object]:
    encoder = Encoder()
    there = write(encoder)  # type: ignore[operator]
    return there, read(Decoder(encoder.stream()))  # type: ignore[operator]


def test_models_read_what_they_wrote() -> None:
    rng = np.random.default_rng(0)
    symbols = rng.integers(0, 20, 500)
    text = "fc1.weight\tF300,784\nü\n".encode() * 3
    noise = rng.bytes(40 * 4)

    def all_of(coder: Coder, given: bool) -> list[object]:
        return [
            Histogram(20, 2).code(coder, 500, symbols if given else None).tolist(),
            Text().code(coder, len(text), text if given else None),
            Planes().code(coder, 40, 4, noise if given else None),
            [number(coder, n if given else None) for n in (0, 1, 65535, 65536, 2**32 - 1)],
            coder.uniform(1, 3, np.zeros(3, np.int64) if given else None).tolist(),
        ]

    there, back = both_ways(lambda c: all_of(c, True), lambda c: all_of(c, False))
    assert there == back


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_positions_in_every_way(prior: tuple[int, int, int], density: float) -> None:
    kept = np.random.default_rng(2).random((70, 33)) < density
    there, back = both_ways(lambda c: positions(c, (70, 33), prior, kept), lambda c: positions(c, (70, 33), prior))
    assert np.array_equal(there, kept)  # type: ignore[arg-type]
    assert np.array_equal(back, kept)  # type: ignore[arg-type]


def test_a_saved_file_is_coded_as_saved(tmp_path: Path) -> None:
    table = network((30, 40))
    weights = save_weights(tmp_path / "w", drawn(table, 0.1), table)
    for bits in (None, 5):
        done = export(weights, table, tmp_path / "e", "coded", bits)
        file = encode(table, load_weights(weights, table), bits or 8)
        assert done.path.read_bytes() == file.content
        assert (done.bytes, done.entropy, done.rounding) == (len(file.content), file.entropy, file.rounding)
    with pytest.raises(ValueError, match="of the format coded alone"):
        export(weights, table, tmp_path / "e", "csr", 8)


def test_a_name_with_a_line_separator_of_unicode_comes_back() -> None:
    name = "a\u2028b\x85c.weight"
    table = ShapeTable("toy()", (2,), (), (Tensor(name, (2,), "bias"),), ())
    content = encode(table, {name: np.array([1.0, -2.0], np.float32)}).content
    _, (found,), arrays = decode(content, Path("x"))
    assert (found.name, arrays[name].tolist()) == (name, [1.0, -2.0])
