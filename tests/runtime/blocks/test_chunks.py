"""Chunks in every kind of memory: what is written is read, and an iteration that is refused leaves the old values."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from prunelang.runtime.blocks.chunks import Chunks, Store, fitting_rows
from tests.runtime.blocks.generic import normal

STORES: list[Store] = ["device", "host", "disk"]


def filled(chunks: Chunks, values: torch.Tensor) -> None:
    for j in range(len(chunks)):
        chunks.write(j, values[j * chunks.rows : (j + 1) * chunks.rows])


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_written_accepted_refused(store: Store, dtype: torch.dtype, tmp_path: Path) -> None:
    chunks = Chunks(10, (2, 3), 4, store=store, dtype=dtype, folder=tmp_path)
    assert len(chunks) == 3
    first, second = normal(10, 2, 3, seed=0).to(dtype), normal(10, 2, 3, seed=1).to(dtype)
    filled(chunks, first)
    chunks.accept()
    filled(chunks, second)
    assert torch.equal(torch.cat([chunks.old(j) for j in range(3)]), first)
    assert torch.equal(torch.cat([chunks.new(j) for j in range(3)]), second)
    filled(chunks, first * 2)  # refused: written over, old values untouched
    assert torch.equal(torch.cat([chunks.old(j) for j in range(3)]), first)
    assert chunks.old(2).shape == (2, 2, 3)


def test_nothing_is_left_on_disk(tmp_path: Path) -> None:
    chunks = Chunks(1000, (50,), 100, store="disk", folder=tmp_path)
    assert os.listdir(tmp_path) == []
    filled(chunks, normal(1000, 50, seed=0).float())
    chunks.accept()
    assert chunks.old(9).isfinite().all()


def test_a_single_buffer() -> None:
    chunks = Chunks(4, (2,), 4, single=True)
    filled(chunks, torch.ones(4, 2))
    assert torch.equal(chunks.old(0), torch.ones(4, 2))


def test_data_are_not_copied() -> None:
    data = normal(7, 3, seed=0)
    chunks = Chunks.of(data, 3, "cpu")
    assert len(chunks) == 3
    assert chunks.old(2).shape == (1, 3)
    assert chunks.old(1).data_ptr() == data[3:].data_ptr()


def test_sizes() -> None:
    with pytest.raises(ValueError, match="0"):
        Chunks(4, (2,), 0)
    assert fitting_rows(1000, torch.float32, 4_000_000) == 1000
    assert fitting_rows(10**12, torch.float32) == 1
    assert fitting_rows(1, torch.float32) == 8192
