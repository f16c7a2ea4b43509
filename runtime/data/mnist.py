"""MNIST and Fashion-MNIST from their four idx files.

Y. LeCun, C. Cortes, C. Burges: the MNIST database. H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST, 2017.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import numpy
import torch
from torch import Tensor

from prunelang.runtime.data.dataset import Dataset, DataUnavailable, Split
from prunelang.runtime.data.download import fetch

FILES: Final = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}


@dataclass(frozen=True)
class Origin:
    """Where the packed files can be had, and their md5 in the order of FILES."""

    name: str
    mirror: str
    md5: tuple[str, str, str, str]


MNIST: Final = Origin(
    "mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
)
FASHION: Final = Origin(
    "fashion_mnist",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
)


def mnist(root: Path | None = None, center: bool = True, download: bool = False) -> Dataset:
    """60 000 train and 10 000 test images of 1 × 28 × 28, divided by 255; with `center`, minus the mean of train."""
    return _load(MNIST, root, center, download)


def fashion_mnist(root: Path | None = None, center: bool = True, download: bool = False) -> Dataset:
    """60 000 train and 10 000 test images of 1 × 28 × 28, prepared as MNIST is."""
    return _load(FASHION, root, center, download)


def _load(origin: Origin, root: Path | None, center: bool, download: bool) -> Dataset:
    paths = _find(origin, root, download)
    raw = {key: read_idx(path) for key, path in paths.items()}
    splits = {split: Split(x, y) for split, (x, y) in prepared(raw, center).items()}
    return Dataset(origin.name, "classification", 10, splits)


def prepared(raw: Mapping[tuple[str, str], Tensor], center: bool) -> dict[str, tuple[Tensor, Tensor]]:
    """Images and labels by split: images divided by 255; with `center`, minus the mean of train."""
    mean = raw["train", "images"].sum(0, dtype=torch.int64).double() / len(raw["train", "images"])  # exact until here
    shift = mean if center else torch.zeros_like(mean)
    splits = ("train", "test")
    return {s: (_scaled(raw[s, "images"], shift), raw[s, "labels"].to(torch.int64)) for s in splits}


def _scaled(images: Tensor, shift: Tensor) -> Tensor:
    """(images − shift) / 255 in float32, N × 1 × H × W."""
    return images.to(torch.float32).sub_(shift.to(torch.float32)).div_(255).unsqueeze(1)


def read_idx(path: Path) -> Tensor:
    """The tensor of bytes in an idx file, packed or not. Errors: `DataUnavailable` (P502)."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as e:
        raise DataUnavailable("P502", f"{path} cannot be read: {e}", "Fetch the file again.") from e
    rank = content[3] if len(content) > 3 and content[:3] == b"\0\0\x08" else 0
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i]) for i in range(rank))
    if rank == 0 or len(content) != 4 + 4 * rank + prod(shape):
        raise DataUnavailable("P502", f"{path} is not a whole idx file of bytes", "Fetch the file again.")
    return torch.from_numpy(numpy.frombuffer(content, numpy.uint8, offset=4 + 4 * rank).reshape(shape).copy())


def folders(name: str, root: Path | None) -> list[Path]:
    """Where files are looked for: `root` alone if given, else PRUNELANG_DATA and its folder of that name."""
    if root is not None:
        return [root]
    base = os.environ.get("PRUNELANG_DATA")
    return [Path(base) / name, Path(base)] if base else []


def _find(origin: Origin, root: Path | None, download: bool) -> dict[tuple[str, str], Path]:
    places = folders(origin.name, root)
    for folder in places:
        found = {key: p for key, name in FILES.items() for p in (folder / name, folder / f"{name}.gz") if p.is_file()}
        if len(found) == len(FILES):
            return found
    if not places:
        raise _missing(origin, "no folder is named", places)
    if not download:
        raise _missing(origin, "the idx files are not in " + " or ".join(map(str, places)), places)
    names = zip(FILES.items(), origin.md5, strict=True)
    return {key: fetch(f"{origin.mirror}{name}.gz", places[0] / f"{name}.gz", md5) for (key, name), md5 in names}


def _missing(origin: Origin, what: str, places: list[Path]) -> DataUnavailable:
    where = "the folder" if places else 'a folder, named by `root = "…"` or the variable PRUNELANG_DATA'
    names = "\n".join(f"    {origin.mirror}{name}.gz" for name in FILES.values())
    hint = f"Put these four files into {where}, packed or not, or write `download = true`:\n{names}"
    return DataUnavailable("P501", f"`{origin.name}` is not here: {what}", hint)
