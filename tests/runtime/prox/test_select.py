"""Selection against a stable sort, on data made to be hard: ties, zeros, denormals, sorted layouts, half precision."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from prunelang.runtime.prox import scan, select
from prunelang.runtime.prox.scan import DeviceScan, NonFinite
from prunelang.runtime.prox.select import Selector, Threshold, kth_magnitude, project_topk_, select_key, topk_mask_

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def naive_masks(tensors: list[Tensor], kappa: int) -> list[Tensor]:
    """Stable sort of the concatenation in float64: ties go to the lowest global index."""
    v = torch.cat([t.detach().double().abs().reshape(-1) for t in tensors])
    keep = torch.zeros(v.numel(), dtype=torch.bool)
    keep[torch.sort(v, descending=True, stable=True).indices[:kappa]] = True
    return [k.reshape(t.shape) for k, t in zip(keep.split([t.numel() for t in tensors]), tensors, strict=True)]


def hard_vectors(n: int, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    g = torch.Generator().manual_seed(n)
    normal = torch.randn(n, generator=g, dtype=torch.float64)
    yield "normal", normal.to(dtype)
    yield "all equal", torch.full((n,), -0.25, dtype=dtype)
    yield "zeros", torch.zeros(n, dtype=dtype) * -1
    yield "heavy ties", (normal * 2).round().to(dtype)
    yield "mostly zero", torch.where(normal > 1.5, normal, 0 * normal).to(dtype)
    yield "sorted", normal.abs().sort().values.to(dtype)
    yield "denormal", (normal * torch.finfo(dtype).tiny / 4).to(dtype)
    yield "wide range", (normal * 10.0 ** torch.linspace(-4, 4, n, dtype=torch.float64)).to(dtype)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few thousand entries take the paths of millions."""
    monkeypatch.setattr(scan, "BLOCK", 64)
    monkeypatch.setattr(select, "BLOCK", 64)
    monkeypatch.setattr(select, "SAMPLE", 128)
    monkeypatch.setattr(select, "SMALL", 32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_selection_equals_a_stable_sort(dtype: torch.dtype, small_blocks: None) -> None:
    for name, v in hard_vectors(3001, dtype):
        tensors = [v[:1000].reshape(10, 100), v[1000:1000], v[1000:1003], v[1003:].reshape(-1, 6)]
        for kappa in (0, 1, 17, 999, 1500, 3000, 3001, 9999):
            expected = naive_masks(tensors, kappa)
            masks = [torch.zeros(t.shape, dtype=torch.bool) for t in tensors]
            found = topk_mask_(tensors, kappa, masks)
            assert all(torch.equal(a, b) for a, b in zip(masks, expected, strict=True)), (name, kappa)
            assert found.greater + found.ties_to_keep == min(kappa, 3001)
            copies = [t.clone() for t in tensors]
            project_topk_(copies, kappa)
            for copy, t, m in zip(copies, tensors, expected, strict=True):
                assert torch.equal(copy, torch.where(m, t, torch.zeros_like(t))), (name, kappa)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_device_path_agrees_with_host_path(dtype: torch.dtype, small_blocks: None) -> None:
    for name, v in hard_vectors(2500, dtype):
        parts = [v[:7], v[7:7], v[7:2000], v[2000:]]
        for kappa in (0, 1, 40, 1250, 2499, 2500):
            on_device = select_key(DeviceScan(parts, chunk=300), kappa, 2500, None)
            assert on_device[1:] == kth_magnitude(parts, kappa)[1:], (name, kappa)


def test_warm_start_changes_time_never_the_result(small_blocks: None) -> None:
    rng = np.random.default_rng(0)
    selector = Selector()
    v = torch.from_numpy(rng.standard_normal(5000).astype(np.float32))
    for turn in range(40):
        drift = 10.0 ** rng.integers(-6, 1)
        v = v + torch.from_numpy((drift * rng.standard_normal(5000)).astype(np.float32))
        if turn % 7 == 3:
            v = v.round()
        kappa = int(rng.integers(0, 5001)) if turn % 5 == 0 else 700
        assert selector.threshold([v], kappa) == kth_magnitude([v], kappa)


def test_one_pass_suffices_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[tuple[int, int]] = []
    count = scan.HostScan.count
    monkeypatch.setattr(
        scan.HostScan, "count", lambda self, lo, hi, gather: passes.append((lo, hi)) or count(self, lo, hi, gather)
    )
    v = torch.randn(300_000, generator=torch.Generator().manual_seed(1))
    selector = Selector()
    for _ in range(3):
        selector.threshold([v], 15_000)
    assert len(passes) == 3


def test_a_threshold_that_keeps_moving_is_followed_without_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a minimax, whose levels fall from step to step while the weights shake."""
    passes, samples = [0], [0]
    count, sample = scan.HostScan.count, scan.HostScan.sample

    def counted(self: scan.HostScan, lo: int, hi: int, gather: bool) -> tuple[int, int, np.ndarray]:
        passes[0] += 1
        return count(self, lo, hi, gather)

    def sampled(self: scan.HostScan, size: int, seed: int) -> np.ndarray:
        samples[0] += 1
        return sample(self, size, seed)

    generator = torch.Generator().manual_seed(2)
    v = torch.randn(200_000, generator=generator)
    selector, found = Selector(), []
    with monkeypatch.context() as patch:
        patch.setattr(scan.HostScan, "count", counted)
        patch.setattr(scan.HostScan, "sample", sampled)
        for turn in range(60):
            v = v + 1e-3 * torch.randn(len(v), generator=generator)
            kappa = 150_000 - 1500 * turn
            found.append((selector.threshold([v], kappa), v, kappa))
    assert samples[0] <= 3
    assert passes[0] <= 90
    assert all(threshold == kth_magnitude([w], kappa) for threshold, w, kappa in found)


def test_a_jump_is_met_on_both_sides(small_blocks: None) -> None:
    """Brackets beside one that missed: at the ends of the keys, among ties, and where nothing is near."""
    generator = torch.Generator().manual_seed(3)
    for name, v in hard_vectors(4000, torch.float32):
        host, device = Selector(), Selector()
        kappas = torch.randint(0, 4001, (60,), generator=generator).tolist()
        for kappa in (*kappas, 1, 4000, 1, 3999, 2, 2000, 2100, 1900):
            expected = kth_magnitude([v], kappa)
            assert host.threshold([v], kappa) == expected, (name, kappa)
            assert select_key(DeviceScan([v], chunk=700), kappa, 4000, device)[1:] == expected[1:], (name, kappa)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_non_finite_entries_are_named(dtype: torch.dtype, value: float) -> None:
    tensors = [torch.ones(9, dtype=dtype), torch.ones(70_000, dtype=dtype)]
    tensors[1][65_999] = value
    for kappa in (0, 5, 80_000):
        with pytest.raises(NonFinite) as caught:
            kth_magnitude(tensors, kappa)
        assert caught.value.index == 1
        with pytest.raises(NonFinite) as caught:
            select_key(DeviceScan(tensors), min(kappa, 70_009), 70_009, None)
        assert caught.value.index == 1


def test_layouts_and_parameters() -> None:
    w = torch.randn(6, 5, 4, 3, generator=torch.Generator().manual_seed(2)).round(decimals=1)
    for t in (w.to(memory_format=torch.channels_last), w.permute(2, 0, 3, 1), w[:, 1:4], torch.nn.Parameter(w.clone())):
        expected = naive_masks([t], 50)[0]
        mask = torch.zeros(t.shape, dtype=torch.bool)
        topk_mask_([t], 50, [mask])
        assert torch.equal(mask, expected)
        before = t.detach().clone()
        project_topk_([t], 50)
        assert torch.equal(t.detach(), before * expected)


def test_mixed_dtypes_are_ranked_by_value() -> None:
    tensors = [torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16), torch.tensor([2.0, 2.5, 0.1])]
    project_topk_(tensors, 3)
    assert tensors[0].tolist() == [0.0, 2.0, 3.0]
    assert tensors[1].tolist() == [0.0, 2.5, 0.0]


def test_flush_to_zero_does_not_change_the_count() -> None:
    v = torch.tensor([1e-42, -3e-42, 2e-42, 1.0])
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        mask = torch.zeros(4, dtype=torch.bool)
        project_topk_([v], 3, [mask])
    finally:
        torch.set_flush_denormal(False)
    assert mask.tolist() == [False, True, True, True]
    assert v.tolist() == torch.tensor([0.0, -3e-42, 2e-42, 1.0]).tolist()


def test_refusals() -> None:
    with pytest.raises(ValueError, match="-1"):
        kth_magnitude([torch.ones(2)], -1)
    with pytest.raises(TypeError, match="int64"):
        kth_magnitude([torch.ones(2, dtype=torch.int64)], 1)
    assert kth_magnitude([], 3) == Threshold(float("inf"), 0, 0, 0, 0)
