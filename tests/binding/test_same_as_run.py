"""`bind` in the loop of the page on embedding ends where `run` ends, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from prunelang.api import compile
from prunelang.compiler.solvers.base import solvers
from prunelang.runtime import registry
from tests.binding.loops import differing, executed, looped, of_one_optimizer
from tests.runtime.emitted_cases import CASES as PLAIN
from tests.runtime.test_composed_emitted import CASES as COMPOSED
from tests.runtime.test_emitted import write_inputs

CASES = {**PLAIN, **{f"composed_{name}": text for name, text in COMPOSED.items()}}
REFUSED = {"bcd"}
LONG = {"prune_after_solve"}  # two pruners that measure again and again


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("bound")
    write_inputs(root)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        own = ("normed", "remembering")
        known = {n: e for n, e in registry.models._entries.items() if n not in own}
        patch.setattr(registry.models, "_entries", known)
        registry.load_user_code(root / "own_networks.py")
        yield root
    torch.use_deterministic_algorithms(before)


TAKEN = [name for name, text in CASES.items() if not any(f"solve {word}(" in text for word in REFUSED)]


@pytest.mark.parametrize("name", sorted(set(TAKEN) - LONG))
def test_bound_is_run(name: str, folder: Path) -> None:
    if "snn" in CASES[name] or "remembering" in CASES[name]:
        pytest.importorskip("spikingjelly")
    file = folder / "case.prune"
    file.write_text(CASES[name])
    file.write_text(of_one_optimizer(CASES[name]))
    program = compile(file, dtype="float64")
    assert differing(executed(program), looped(program).tensors) == []


def test_every_solver_has_a_case_or_is_refused() -> None:
    used = {word for word in solvers() if any(f"solve {word}(" in text for text in CASES.values())}
    assert used | REFUSED >= solvers().keys()
