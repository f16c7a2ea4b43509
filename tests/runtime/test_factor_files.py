"""Files of factors: what they compose, what is refused, and exported files of exactly the bytes that are counted."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunelang.compiler.forms import Codebook, Composition, Fixed, LowRank, Sparse, TensorTrain, to_json
from prunelang.compiler.packing import factor_bytes
from prunelang.compiler.problem import Constraint, Entries, Interval, MatrixFunction, Named, Set
from prunelang.compiler.shapes import ShapeTable
from prunelang.compiler.trains import capped, contraction
from prunelang.runtime.export import export, load_export
from prunelang.runtime.factor_costs import _contraction
from prunelang.runtime.factor_files import check_sums, load_factors, read_factors, save_factors
from prunelang.runtime.factors import Factors, composed, rounded, train64
from prunelang.runtime.files import FileProblem
from prunelang.runtime.packed import pack_codes, unpack_codes
from prunelang.runtime.recount import recount
from prunelang.runtime.stored import Stored
from prunelang.runtime.weights import Array, save_weights
from tests.shape_tables import lenet_300_100

TABLE = lenet_300_100()
FC1, FC2, FC3 = "fc1.weight", "fc2.weight", "fc3.weight"
LOW = Composition((FC1,), (LowRank(5), Sparse(40)), ((300, 784),))
TRAIN = Composition((FC2,), (TensorTrain(((10, 20), (10, 15)), (3,)),), ((100, 300),))
CODES = Composition((FC3,), (Codebook(5),), ((10, 100),))


def arrays(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    return {
        f"{FC1}:0.U": draw(300, 5),
        f"{FC1}:0.V": draw(5, 784),
        f"{FC1}:1.values": draw(40),
        f"{FC1}:1.indices": np.sort(rng.permutation(300 * 784)[:40]),
        f"{FC2}:0.G1": draw(1, 10, 20, 3),
        f"{FC2}:0.G2": draw(3, 10, 15, 1),
        f"{FC3}:0.centres": draw(5),
        f"{FC3}:0.codes": rng.integers(0, 5, (10, 100)).astype(np.uint8),
    }


ALL = (LOW, TRAIN, CODES)


def weights(found: dict[str, Array]) -> dict[str, Array]:
    made = {n: a for c in ALL for n, a in composed(c, found, TABLE).items()}
    return {t.name: made.get(t.name, np.ones(t.shape, np.float32)) for t in TABLE.tensors}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save_factors(tmp_path / "factors.safetensors", arrays(), ALL, TABLE)


def test_round_trip_and_sums(path: Path) -> None:
    found = load_factors(path, TABLE)
    assert found.compositions == ALL
    assert all(np.array_equal(a, found.arrays[n]) for n, a in arrays().items())
    check_sums(found, weights(arrays()), TABLE, path)
    w, a = weights(arrays()), arrays()
    dense = np.zeros(300 * 784)
    dense[a[f"{FC1}:1.indices"]] = a[f"{FC1}:1.values"]
    slow = a[f"{FC1}:0.U"].astype(float) @ a[f"{FC1}:0.V"].astype(float) + dense.reshape(300, 784)
    np.testing.assert_allclose(w[FC1], slow, rtol=1e-6, atol=1e-6)
    entry = a[f"{FC2}:0.G1"][0, 3, 7] @ a[f"{FC2}:0.G2"][:, 4, 11, 0]
    assert w[FC2][3 * 10 + 4, 7 * 15 + 11] == pytest.approx(entry, rel=1e-5)


@pytest.mark.parametrize("name", [FC1, FC2, FC3])
def test_a_changed_entry_is_seen(name: str, path: Path) -> None:
    w = weights(arrays())
    flat = w[name].reshape(-1)
    flat[7] += 4 * np.spacing(abs(flat[7]))
    with pytest.raises(FileProblem, match=f"P517.*{name}.*1 of its"):
        check_sums(load_factors(path, TABLE), w, TABLE, path)


def test_no_cut_file_is_read(path: Path) -> None:
    good = path.read_bytes()
    for length in range(0, len(good), max(1, len(good) // 50)):
        with pytest.raises(FileProblem):
            read_factors(good[:length], TABLE, path)


def changed(**changes: Array | None) -> dict[str, Array]:
    names = {"U": f"{FC1}:0.U", "values": f"{FC1}:1.values", "indices": f"{FC1}:1.indices"}
    names |= {"G1": f"{FC2}:0.G1", "codes": f"{FC3}:0.codes", "centres": f"{FC3}:0.centres", "other": "other:0.U"}
    found = arrays()
    for key, array in changes.items():
        if array is None:
            del found[names[key]]
        else:
            found[names[key]] = array
    return found


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"U": None}, "P513"),
        ({"other": np.zeros((2, 2), np.float32)}, "P513"),
        ({"U": np.zeros((300, 4), np.float32)}, "P514"),
        ({"U": np.zeros((300, 5))}, "P514"),
        ({"U": np.full((300, 5), np.nan, np.float32)}, "P515"),
        ({"G1": np.zeros((1, 20, 10, 3), np.float32)}, "P514"),
        ({"codes": np.full((10, 100), 5, np.uint8)}, "P514"),
        ({"codes": np.zeros((100, 10), np.uint8)}, "P514"),
        ({"centres": np.zeros(4, np.float32)}, "P514"),
        ({"indices": np.arange(40)[::-1].copy()}, "P514"),
        ({"indices": np.arange(40) + 300 * 784 - 39}, "P514"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], code: str, tmp_path: Path) -> None:
    with pytest.raises(FileProblem) as refused:
        save_factors(tmp_path / "f", changed(**changes), ALL, TABLE)
    assert refused.value.code == code
    assert not (tmp_path / "f").exists()


def test_zeros_of_a_sparse_part_are_not_stored(tmp_path: Path) -> None:
    values = arrays()[f"{FC1}:1.values"].copy()
    values[3] = 0
    found = load_factors(save_factors(tmp_path / "f", changed(values=values), ALL, TABLE), TABLE)
    assert found.arrays[f"{FC1}:1.values"].shape == found.arrays[f"{FC1}:1.indices"].shape == (39,)


def test_rounding_to_bfloat16_is_to_the_nearest_and_to_even() -> None:
    unit = 2.0**-7
    found = rounded(np.array([1 + unit / 2, 1 + 3 * unit / 2, 1 + 0.6 * unit, -0.0]), "bfloat16")
    assert found.tolist() == [1, 1 + 2 * unit, 1 + unit, 0]
    assert not np.signbit(found[3])


# ── the recount ──────────────────────────────────────────────────────────────────────────────────────────────────


def stored(compositions: tuple[Composition, ...] = ALL) -> Stored:
    return Stored(weights(arrays()), {}, TABLE, factors=Factors(compositions, arrays()))


def judged(function: Any, set: Set, s: Stored) -> bool | None:
    return recount(Constraint("c", function, set, text="f(net) ≤ 1"), s).satisfied


def asked(name: str, **arguments: object) -> Named:
    return Named(name, tuple(arguments.items()))


MODES = ((10, 20), (10, 15))


@pytest.mark.parametrize(
    ("function", "wanted", "satisfied"),
    [
        (Entries((FC1,)), Named("sum", parts=(asked("low_rank", r=5), asked("sparse", n=40))), True),
        (Entries((FC1,)), Named("sum", parts=(asked("low_rank", r=4), asked("sparse", n=40))), False),
        (Entries((FC1,)), Named("sum", parts=(asked("low_rank", r=5), asked("sparse", n=39))), False),
        (Entries((FC1,)), Named("sum", parts=(asked("low_rank"), asked("sparse"))), True),
        (Entries((FC1,)), Named("sum", parts=(asked("codebook", k=5), asked("sparse", n=40))), None),
        (Entries((FC2,)), asked("tt", r=3, modes=MODES), True),
        (Entries((FC2,)), asked("tt", r=(2,), modes=MODES), False),
        (MatrixFunction("tt_rank", FC2, (("modes", MODES),)), Interval(upper=3), True),
        (MatrixFunction("tt_rank", FC2, (("modes", MODES),)), Interval(upper=2), False),
        (MatrixFunction("rank", FC1), Interval(upper=5), False),  # of a sum: the entries beside it
    ],
)
def test_ranks_and_counts_are_read_from_factors(function: Any, wanted: Set, satisfied: bool | None) -> None:
    assert judged(function, wanted, stored()) is satisfied


def test_without_factors_nothing_is_satisfied() -> None:
    s = stored(())
    assert judged(MatrixFunction("tt_rank", FC2, (("modes", MODES),)), Interval(upper=3), s) is None
    assert judged(MatrixFunction("tt_rank", FC2, (("modes", MODES),)), Interval(upper=2), s) is False, "too far off"
    assert judged(Entries((FC2,)), asked("tt", r=3, modes=MODES), s) is None
    assert judged(Entries((FC1,)), Named("sum", parts=(asked("low_rank", r=5), asked("sparse", n=40))), s) is None
    assert judged(factor_bytes(TABLE, weights(arrays()), ALL), Interval(upper=10**9), s) is None


@pytest.mark.parametrize("cores", [2, 3, 5, 7, 8, 10, 12, 14])
def test_no_train_is_counted_below_its_best_order(cores: int) -> None:
    rng = random.Random(cores)
    modes = tuple((rng.randint(1, 4), rng.randint(2, 5)) for _ in range(cores))
    ranks = capped(modes, [rng.randint(1, 6) for _ in range(cores - 1)])
    best = contraction(modes, ranks)
    least = best.macs(ranks)
    assert _contraction(modes, ranks, None) == _contraction(modes, ranks, least) == least
    assert _contraction(modes, ranks, least - 1) == least
    fewer = tuple(max(1, r - 1) for r in ranks)
    assert _contraction(modes, fewer, best.macs(fewer)) == best.macs(fewer), "the order is kept at other ranks"


def test_the_nuclear_norm_is_decided_only_when_clear() -> None:
    s = stored()
    exact = float(np.linalg.svd(s.arrays[FC3].astype(float), compute_uv=False).sum())
    f = MatrixFunction("nuclear", FC3)
    assert judged(f, Interval(upper=Fraction(exact * (1 + 1e-9))), s) is True
    assert judged(f, Interval(upper=Fraction(exact * (1 - 1e-9))), s) is False
    assert judged(f, Interval(upper=Fraction(exact)), s) is None


# ── export ───────────────────────────────────────────────────────────────────────────────────────────────────────

SETS: list[tuple[Composition, ...]] = [ALL, (TRAIN,), (CODES,), (LOW,)]


@pytest.mark.parametrize("made", SETS)
def test_the_file_has_the_bytes_that_are_counted_and_comes_back(made: tuple[Composition, ...], tmp_path: Path) -> None:
    found = {n: a for n, a in arrays().items() if any(n.startswith(c.tensors[0]) for c in made)}
    held = weights(arrays())
    weight_file = save_weights(tmp_path / "w", held, TABLE)
    out = tmp_path / "out"
    done = export(weight_file, TABLE, out, factors=Factors(made, found))
    back = load_export(out)
    assert set(back) == set(held)
    assert all(back[n].dtype == a.dtype and np.array_equal(back[n], a) for n, a in held.items())
    cost = factor_bytes(TABLE, held, made)
    s = Stored(held, {}, TABLE, factors=Factors(made, found))
    outcome = recount(Constraint("c", cost, Interval(upper=10**9), text="bytes(net) ≤ 1"), s)
    assert outcome.value is not None, outcome.remark
    assert outcome.value.middle == done.bytes == out.stat().st_size
    wrong = replace(cost, constant=cost.constant + 8)
    assert judged(wrong, Interval(upper=10**9), s) is False, "the checker counts by itself"


def test_factors_that_do_not_give_the_bits_are_not_exported(tmp_path: Path) -> None:
    held = weights(arrays())
    held[FC2].reshape(-1)[0] = np.nextafter(held[FC2].reshape(-1)[0], np.float32(9))
    with pytest.raises(FileProblem, match="bit for bit"):
        export(save_weights(tmp_path / "w", held, TABLE), TABLE, tmp_path / "o", factors=Factors(ALL, arrays()))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 255, 256, 257, 65536])
def test_codes_are_packed_without_loss(count: int) -> None:
    codes = np.random.default_rng(count).integers(0, count, 101).astype(np.uint8 if count <= 256 else np.uint16)
    raw = pack_codes(codes, count)
    assert len(raw) == -(-101 * (count - 1).bit_length() // 8)
    back = unpack_codes(raw, 101, count, "codes")
    assert back.dtype == codes.dtype
    assert np.array_equal(back, codes)


def test_factors_without_rank_may_claim_any_shape(tmp_path: Path) -> None:
    """A file of no bytes of data whose tensor would fill terabytes."""
    note = json.dumps([{**to_json(replace(LOW, forms=(LowRank(),), shapes=((10**7, 10**7),))), "dtypes": ["float32"]}])
    metadata = {"prunelang": "2", "factors": note}
    header: dict[str, Any] = {"__metadata__": metadata}
    for symbol, shape in (("U", [10**7, 0]), ("V", [0, 10**7])):
        header[f"{FC1}:0.{symbol}"] = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
    text = json.dumps(header).encode()
    (tmp_path / "out").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(FileProblem, match=r"P512.*does not fit in memory"):
        load_export(tmp_path / "out")


def test_a_train_without_rank_is_zero() -> None:
    g1, g2, g3 = np.ones((1, 2, 3, 0)), np.ones((0, 2, 2, 0)), np.ones((0, 3, 1, 1))
    assert np.array_equal(train64([g1, g2, g3]), np.zeros((12, 6)))


def test_a_fixed_composition_shares_its_scale(tmp_path: Path) -> None:
    made = Composition((FC2, FC3), (Fixed((-1.0, 0.0, 1.0), True),), ((100, 300), (10, 100)))
    rng = np.random.default_rng(1)
    found: dict[str, Array] = {f"{FC2}:0.scale": np.array(0.25, np.float32)}
    found |= {
        f"{n}:0.codes": rng.integers(0, 3, s).astype(np.uint8) for n, s in zip(made.tensors, made.shapes, strict=True)
    }
    table: ShapeTable = TABLE
    held = {t.name: np.ones(t.shape, np.float32) for t in table.tensors} | composed(made, found, table)
    assert set(np.unique(held[FC3])) == {-0.25, 0.0, 0.25}
    out = tmp_path / "out"
    done = export(save_weights(tmp_path / "w", held, table), table, out, factors=Factors((made,), found))
    assert all(np.array_equal(load_export(out)[n], a) for n, a in held.items())
    assert done.bytes == factor_bytes(table, held, (made,)).value({(FC1, -1): (300 * 784,)})
    s = Stored(held, {}, table, factors=Factors((made,), found))
    assert judged(Entries(made.tensors), asked("scaled", values=(-1, 0, 1)), s) is True
