"""Data sets: what they hold, how they are split and ordered, and what is said when they are not there."""

from __future__ import annotations

import gzip
import hashlib
import urllib.error
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file

from prunelang.compiler.catalog import DATA, DataFacts
from prunelang.runtime import registry
from prunelang.runtime.data import Batches, Dataset, DataUnavailable, Position, Split, download
from prunelang.runtime.data.mnist import FILES, MNIST, read_idx
from prunelang.runtime.describe import signature


def numbered(size: int, classes: int = 3) -> Dataset:
    """Input i is the number i."""
    train = Split(torch.arange(size).float().unsqueeze(1), torch.arange(size) % classes)
    return Dataset("numbered", "classification", classes, {"train": train})


# ── the catalog ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("facts", DATA.values(), ids=lambda f: f.name)
def test_the_catalog_describes_the_code(facts: DataFacts) -> None:
    code = signature(registry.data[facts.name].factory, facts.name)
    stated = [(p.name, p.kind, p.required or p.default) for p in facts.signature.parameters]
    assert [(p.name, p.kind, p.required or p.default) for p in code.parameters] == stated


def agrees(facts: DataFacts, data: Dataset, **arguments: object) -> None:
    assert facts.sample_shapes is not None
    shapes = facts.sample_shapes(facts.signature.bind((), arguments))
    assert data.sample_shape == shapes[0]
    assert all(data.reshaped(shape).sample_shape == shape for shape in shapes)
    assert (data.task, data.classes) == (facts.task, facts.classes)
    assert (("validation" in data.splits), ("test" in data.splits)) == (facts.own_validation, facts.own_test)


# ── digits ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_digits() -> None:
    data = registry.data["digits"].load()
    agrees(DATA["digits"], data)
    assert DATA["digits"].sizes == (("train", len(data.train)), ("test", len(data.test)))
    assert (data.train.inputs.dtype, data.train.targets.dtype) == (torch.float32, torch.int64)
    assert (float(data.train.inputs.min()), float(data.train.inputs.max())) == (0, 1)
    share = data.test.targets.bincount() / (data.test.targets.bincount() + data.train.targets.bincount())
    assert float((share - 360 / 1797).abs().max()) < 0.01
    assert data.digest("test") == "fa938285679ed25f3161f3d75cb8695a151bfbf72a236d56289f721ce0e2b864"


# ── mnist ────────────────────────────────────────────────────────────────────────────────────────────────────────


def idx(array: numpy.ndarray[Any, Any]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4) for n in array.shape) + array.astype("u1").tobytes()


def write_mnist(folder: Path, packed: bool) -> dict[tuple[str, str], numpy.ndarray[Any, Any]]:
    draw = numpy.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for (split, kind), name in FILES.items():
        size = {"train": 40, "test": 10}[split]
        array = draw.integers(0, 256, (size, 28, 28)) if kind == "images" else draw.integers(0, 10, size)
        arrays[split, kind] = array
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return arrays


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_is_scaled_and_centred_by_train(tmp_path: Path, packed: bool) -> None:
    arrays = write_mnist(tmp_path, packed)
    data = registry.data["mnist"].load(root=str(tmp_path))
    agrees(DATA["mnist"], data)
    scaled = {split: arrays[split, "images"] / 255 for split in ("train", "test")}
    for split, images in scaled.items():
        expected = images - scaled["train"].mean(0)
        assert numpy.allclose(data[split].inputs[:, 0].numpy(), expected, atol=1e-6)
        assert data[split].targets.tolist() == arrays[split, "labels"].tolist()
    plain = registry.data["mnist"].load(root=str(tmp_path), center=False)
    assert numpy.allclose(plain.train.inputs[:, 0].numpy(), scaled["train"], atol=1e-7)


def test_mnist_is_found_by_environment_and_relative_to_the_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path / "mnist", packed=True)
    write_mnist(tmp_path / "flat", packed=True)
    relative = registry.data["mnist"].load(tmp_path, root="mnist")
    monkeypatch.setenv("PRUNELANG_DATA", str(tmp_path))
    assert registry.data["mnist"].load().digest("train") == relative.digest("train")
    monkeypatch.setenv("PRUNELANG_DATA", str(tmp_path / "flat"))
    assert registry.data["fashion_mnist"].load().digest("train") == relative.digest("train")


def test_missing_files_come_with_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRUNELANG_DATA", raising=False)
    with pytest.raises(DataUnavailable) as e:
        registry.data["mnist"].load()
    assert e.value.code == "P501"
    assert "`root" in e.value.hint
    assert "PRUNELANG_DATA" in e.value.hint
    with pytest.raises(DataUnavailable, match="the idx files are not in") as e:
        registry.data["mnist"].load(root=str(tmp_path))
    assert all(f"{MNIST.mirror}{name}.gz" in e.value.hint for name in FILES.values())


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x08\x01\0\0\0\x05abc", b"\0\0\x0d\x01\0\0\0\x01abcd"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b.gz").write_bytes(gzip.compress(content + b"x")[:-6])
    (tmp_path / "c.gz").write_bytes(gzip.compress(bytes(100))[:-12] + b"\xff" * 12)
    for name in ("a", "b.gz", "c.gz"):
        with pytest.raises(DataUnavailable) as e:
            read_idx(tmp_path / name)
        assert e.value.code == "P502"


class Answer:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def read(self, limit: int) -> bytes:
        return self.content[:limit]


def test_a_download_is_checked_and_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new" / "file.gz"
    monkeypatch.setattr(download, "urlopen", lambda url, timeout: Answer(b"content"))
    good = hashlib.md5(b"content", usedforsecurity=False).hexdigest()
    assert download.fetch("https://x/file.gz", target, good).read_bytes() == b"content"
    assert [p.name for p in target.parent.iterdir()] == ["file.gz"]
    with pytest.raises(DataUnavailable, match="not the expected file"):
        download.fetch("https://x/file.gz", tmp_path / "other.gz", "0" * 32)
    assert not (tmp_path / "other.gz").exists()


def test_without_a_network_a_download_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(url: str, timeout: float) -> Answer:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(download, "urlopen", offline)
    with pytest.raises(DataUnavailable) as e:
        registry.data["mnist"].load(root=str(tmp_path), download=True)
    assert e.value.code == "P503"
    assert str(tmp_path) in e.value.hint


def test_nothing_is_fetched_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(download, "urlopen", lambda url, timeout: asked.append(url))
    with pytest.raises(DataUnavailable):
        registry.data["mnist"].load(root=str(tmp_path))
    assert asked == []


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_text_predicts_the_next_byte(tmp_path: Path) -> None:
    content = bytes(range(200)) + "naïve κ".encode()
    (tmp_path / "a.txt").write_bytes(content)
    data = registry.data["text"].load(tmp_path, path="a.txt", context=8, test=Fraction(1, 4))
    agrees(DATA["text"], data, path="a.txt", context=8)
    cut = len(content) - round(len(content) / 4)
    for split, part in (("train", content[:cut]), ("test", content[cut:])):
        count = (len(part) - 1) // 8
        assert bytes(data[split].inputs.flatten().tolist()) == part[: 8 * count]
        assert bytes(data[split].targets.flatten().tolist()) == part[1 : 8 * count + 1]


def test_text_refusals(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"short")
    with pytest.raises(DataUnavailable, match="too few for windows of 128"):
        registry.data["text"].load(tmp_path, path="a")
    with pytest.raises(DataUnavailable, match="cannot be read") as e:
        registry.data["text"].load(tmp_path, path="none")
    assert e.value.code == "P501"


def test_validation_text_is_the_end_of_train(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(250)))
    data = registry.data["text"].load(tmp_path, path="a", context=10).split(Fraction(1, 4), seed=1)
    assert int(data.train.targets.max()) == int(data.validation.inputs.min())


# ── tensors ──────────────────────────────────────────────────────────────────────────────────────────────────────

ARRAYS = {
    "x_train": torch.arange(12.0, dtype=torch.float64).reshape(4, 3),
    "y_train": torch.tensor([0, 1, 2, 1], dtype=torch.int32),
    "x_validation": torch.ones(2, 3, dtype=torch.float64),
    "y_validation": torch.tensor([3, 0], dtype=torch.int32),
}


def save(path: Path, arrays: dict[str, torch.Tensor]) -> None:
    if path.suffix == ".npz":
        numpy.savez(path, allow_pickle=False, **{k: v.numpy() for k, v in arrays.items()})
    else:
        save_file(arrays, path)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_tensors(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"a.{suffix}", ARRAYS)
    data = registry.data["tensors"].load(tmp_path, path=f"a.{suffix}")
    assert (data.task, data.classes, list(data.splits)) == ("classification", 4, ["train", "validation"])
    assert (data.train.inputs.dtype, data.train.targets.dtype) == (torch.float32, torch.int64)
    assert torch.equal(data.train.inputs, ARRAYS["x_train"].float())
    assert data.split(Fraction(1, 2), 0) is data


@pytest.mark.parametrize(
    ("y", "task"),
    [(torch.zeros(4, 1), "regression"), (torch.zeros(4), "regression"), (torch.zeros(4, 3).long(), "language")],
)
def test_the_targets_tell_the_task(tmp_path: Path, y: torch.Tensor, task: str) -> None:
    save(tmp_path / "a.npz", {"x_train": ARRAYS["x_train"], "y_train": y})
    assert registry.data["tensors"].load(tmp_path, path="a.npz").task == task


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x_more": torch.ones(1)}, "holds `x_more`"),
        ({"x_test": torch.ones(1, 3)}, "holds no `y_test`"),
        ({"x_test": torch.ones(1, 4), "y_test": torch.ones(1).long()}, "differ from train in shape or type"),
        ({"x_test": torch.ones(1, 3), "y_test": torch.ones(1)}, "differ from train in shape or type"),
        ({"y_train": torch.zeros(3).long()}, "4 inputs go with 3 targets"),
        ({"y_train": torch.tensor([0, 1, -1, 0])}, "negative class"),
        ({"x_train": torch.full((4, 3), torch.nan)}, "not finite"),
        ({"y_train": torch.full((4, 1), torch.inf)}, "not finite"),
        ({"x_train": torch.zeros(4)}, "samples × numbers"),
        ({"y_train": torch.zeros(4, 2).long()}, "differ in shape"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, change: dict[str, torch.Tensor], says: str) -> None:
    arrays = {k: v for k, v in {**ARRAYS, **change}.items() if not k.endswith("validation")}
    save(tmp_path / "a.safetensors", arrays)
    with pytest.raises(DataUnavailable, match=says) as e:
        registry.data["tensors"].load(tmp_path, path="a.safetensors")
    assert e.value.code == "P504"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "objects.npz", x_train=numpy.array([{}], dtype=object))
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 20)
    (tmp_path / "a.csv").write_text("1,2")
    for name, code in (("objects.npz", "P502"), ("bad.safetensors", "P502"), ("a.csv", "P502"), ("no.npz", "P501")):
        with pytest.raises(DataUnavailable) as e:
            registry.data["tensors"].load(tmp_path, path=name)
        assert e.value.code == code


# ── splits ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_validation_split_keeps_the_shares_of_the_classes() -> None:
    labels = torch.tensor([0] * 50 + [1] * 31 + [2] * 19)
    whole = Dataset("d", "classification", 3, {"train": Split(torch.arange(100).float().unsqueeze(1), labels)})
    data = whole.split(Fraction(1, 10), seed=5)
    assert Counter(data.validation.targets.tolist()) == {0: 5, 1: 3, 2: 2}
    ids = [*data.train.inputs.flatten().tolist(), *data.validation.inputs.flatten().tolist()]
    assert sorted(ids) == list(range(100))
    assert data.train.inputs.flatten().tolist() == sorted(data.train.inputs.flatten().tolist())
    assert data.digest("validation") == whole.split(Fraction(1, 10), seed=5).digest("validation")
    assert data.digest("validation") != whole.split(Fraction(1, 10), seed=6).digest("validation")


@pytest.mark.parametrize("share", [Fraction(0), Fraction(1), Fraction(1, 1000)])
def test_a_share_that_leaves_a_split_empty(share: Fraction) -> None:
    with pytest.raises(DataUnavailable, match="leaves a split empty"):
        numbered(20).split(share, 0)


def test_a_split_that_does_not_exist() -> None:
    with pytest.raises(DataUnavailable, match="`numbered` has no split `test`; it has train"):
        _ = numbered(4).test


def test_the_digest_sees_values_types_shapes_and_order() -> None:
    x, y = torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 1])

    def digest(x: torch.Tensor, y: torch.Tensor) -> str:
        return Dataset("d", "classification", 2, {"train": Split(x, y)}).digest("train")

    order = torch.tensor([1, 0, 2])
    variants = [(x, y), (x + 1, y), (x.double(), y), (x.reshape(3, 1, 2), y), (x[order], y[order]), (x, 1 - y)]
    assert len({digest(*v) for v in variants}) == len(variants)
    assert digest(x, y) == digest(x.T.contiguous().T, y.clone())
    assert len(digest(x[:0], y[:0])) == 64


def test_a_shape_that_does_not_fit_the_network() -> None:
    with pytest.raises(DataUnavailable, match="the network takes inputs of 1 × 28 × 28, `numbered` has 1"):
        numbered(4).reshaped((1, 28, 28))


# ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────


def seen(batches: Batches) -> list[list[float]]:
    return [x.flatten().tolist() for x, _ in batches]


def test_an_epoch_is_a_permutation() -> None:
    batches = Batches(numbered(23).train, 5, seed=3)
    first, second = seen(batches), seen(batches)
    for epoch in (first, second):
        assert [len(b) for b in epoch] == [5, 5, 5, 5, 3]
        assert sorted(i for b in epoch for i in b) == list(range(23))
    assert first != second
    assert len(batches) == 5
    assert batches.position == Position(2, 0)


def test_inputs_and_targets_stay_together() -> None:
    for x, y in Batches(numbered(10).train, 4, seed=0):
        assert torch.equal(x.flatten().long() % 3, y)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    train = numbered(50).train
    torch.manual_seed(1)
    a = [seen(Batches(train, 7, seed, Position(epoch))) for seed in range(3) for epoch in range(3)]
    torch.manual_seed(2)
    torch.rand(3)
    b = [seen(Batches(train, 7, seed, Position(epoch))) for seed in range(3) for epoch in range(3)]
    assert a == b
    assert len({str(x) for x in a}) == 9
    assert Batches(train, 7, 0).order(0).tolist() == Batches(train, 3, 0).order(0).tolist()


@pytest.mark.parametrize("stop", range(11))
def test_a_run_taken_up_again_sees_the_same(stop: int) -> None:
    train = numbered(23).train
    whole = Batches(train, 5, seed=1)
    expected = seen(whole) + seen(whole)
    before = Batches(train, 5, seed=1)
    got: list[list[float]] = []
    while len(got) < stop:
        for x, _ in before:
            got.append(x.flatten().tolist())
            if len(got) == stop:
                break
    after = Batches(train, 5, seed=1, position=before.position)
    while len(got) < 10:
        got += seen(after)
    assert got == expected


def test_one_epoch_without_moving() -> None:
    batches = Batches(numbered(9).train, 2, seed=1)
    assert [x.tolist() for x, _ in batches.epoch(4, start=3)] == [x.tolist() for x, _ in batches.epoch(4)][3:]
    assert batches.position == Position(0, 0)


def test_batches_of_nothing() -> None:
    with pytest.raises(ValueError, match="batches of 0"):
        Batches(numbered(3).train, 0, seed=0)
