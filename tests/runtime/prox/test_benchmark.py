"""The benchmark of the projection runs, and its contenders agree."""

from __future__ import annotations

import pytest

from benchmarks.projection.run import contenders_for, measure, table


def test_measures_every_contender() -> None:
    result = measure(size=60_000, device="cpu", threads=1, repeats=3)
    ratios = result["ratio_to_sum"]
    assert set(ratios) == {
        "selection, warm",
        "selection, cold",
        "projection",
        "torch.kthvalue",
        "torch.topk",
        "numpy.partition",
        "numpy, stable mergesort",
    }
    assert all(0 < r["min"] <= r["median"] <= r["max"] for r in ratios.values())
    assert (ratios["selection, warm"]["limit"], ratios["selection, cold"]["limit"]) == (5.0, 8.0)
    assert "selection, warm" in table(result)


def test_a_wrong_contender_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(x: object, kappa: int) -> object:
        return contenders_for(x, kappa) | {"wrong": (lambda: None, lambda: -1.0)}  # type: ignore[arg-type]

    monkeypatch.setattr("benchmarks.projection.run.contenders_for", wrong)
    with pytest.raises(AssertionError, match="wrong finds another threshold"):
        measure(size=1000, device="cpu", threads=1, repeats=1)
