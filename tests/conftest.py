"""What holds in every test: one thread, the same random numbers each time, and (pyproject.toml) warnings are errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.golden_support import golden

__all__ = ["golden"]

# Before anything imports torch, and inherited by the processes that tests start. With more threads the same sums come
# out in other orders, and two test processes on two cores slow each other down many times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what the tests got over the golden files")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Shape tables are neither read from nor written to the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNELANG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def repeatable() -> None:
    """Seeds torch and forbids its nondeterministic kernels, where a test module has imported it and only there."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
