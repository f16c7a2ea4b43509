"""The graph is the program: an emitted script ends at the weights of the executor, bit for bit.

The scripts of all cases run in one further process, where prunelang cannot be imported.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prunelang.api import Program, compile
from prunelang.compiler.codegen import Emitted, emit
from prunelang.compiler.codegen.feasible import BALLS, PENALTIES
from prunelang.emission import chain_of, data_source, emit_program, spiking_teachers, symbol_of
from prunelang.execution import RunOptions, Session
from prunelang.runtime import operators, registry
from prunelang.runtime.execute import run
from prunelang.runtime.zoo.mlp import mlp
from tests.runtime.emitted_cases import CASES, OWN_NETWORK

SEED = 3
RUN_ALL = """
import importlib.util, runpy, sys, traceback
from pathlib import Path

sys.modules["prunelang"] = None  # importing it raises from here on
for folder in sys.argv[1:]:
    sys.path.insert(0, folder)
    sys.argv = ["train.py", "--out", str(Path(folder, "trained.safetensors"))]
    with open(Path(folder, "out.txt"), "w") as out:
        sys.stdout = out
        try:
            runpy.run_path(str(Path(folder, "train.py")), run_name="__main__")
        except BaseException:
            traceback.print_exc(file=out)
    sys.stdout = sys.__stdout__
    sys.path.remove(folder)
"""


@dataclass(frozen=True)
class Outcome:
    """A case run both ways."""

    executed: Mapping[str, Tensor]
    emitted: Mapping[str, Tensor] | None
    output: str


def write_inputs(folder: Path) -> None:
    """The files that the specs name: idx images, weights to start from, a teacher."""
    generator = torch.Generator().manual_seed(1)
    (folder / "idx").mkdir()
    for name, count in (("train", 100), ("t10k", 40)):
        images = torch.randint(0, 256, (count * 784,), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, 10, (count,), generator=generator, dtype=torch.uint8)
        heads = (struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28), struct.pack(">4BI", 0, 0, 8, 1, count))
        (folder / "idx" / f"{name}-images-idx3-ubyte").write_bytes(heads[0] + images.numpy().tobytes())
        (folder / "idx" / f"{name}-labels-idx1-ubyte").write_bytes(heads[1] + labels.numpy().tobytes())
    torch.manual_seed(7)
    save_file(mlp([64, 12, 10]).state_dict(), folder / "start.safetensors")
    save_file(mlp([64, 16, 10]).state_dict(), folder / "teacher.safetensors")
    fc1, fc2 = nn.Linear(64, 12), nn.Linear(12, 10)
    tensors = {f"{n}.{k}": v for n, m in (("fc1", fc1), ("fc2", fc2)) for k, v in m.state_dict().items()}
    save_file(tensors, folder / "remembering.safetensors")
    (folder / "own_networks.py").write_text(OWN_NETWORK)


def executed(program: Program, folder: Path) -> tuple[Emitted, dict[str, Tensor]]:
    """The script of the graph, and the weights that the executor ends at."""
    program.require_runnable()
    session = Session(program.plan, program.folder, RunOptions(out=folder, seed=SEED, dtype="float64"))
    emitted = emit(
        session.graph,
        program.plan,
        network=symbol_of(registry.models[program.plan.model.constructor].factory),
        data=data_source(program.plan, program.folder),
        seed=SEED,
        dtype="float64",
        teachers={t.name: symbol_of(registry.models[t.constructor].factory) for t in program.plan.teachers},
        spiking=spiking_teachers(program.plan),
        chain=chain_of(program.plan, program.folder),
    )
    run(session.machine(lambda event: None, lambda: False))
    return emitted, {n: t.detach().clone() for n, t in session.model.state_dict().items()}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """Every case, executed here and emitted there."""
    root = tmp_path_factory.mktemp("emitted")
    weights: dict[str, dict[str, Tensor]] = {}
    torch.use_deterministic_algorithms(True)
    with pytest.MonkeyPatch.context() as patch:
        for name, text in CASES.items():
            folder = root / name
            folder.mkdir()
            write_inputs(folder)
            patch.chdir(folder)
            if "normed()" in text or "remembering()" in text:
                own = ("normed", "remembering")
                known = {k: v for k, v in registry.models._entries.items() if k not in own}
                patch.setattr(registry.models, "_entries", known)
                registry.load_user_code(folder / "own_networks.py")
            (folder / "case.prune").write_text(text)
            emitted, weights[name] = executed(compile(folder / "case.prune", dtype="float64"), folder)
            absolute = emitted.script.replace('Path("', f'Path("{folder}/')  # all scripts run in one process
            (folder / "train.py").write_text(absolute)
            for file, content in emitted.sidecar.items():
                (folder / file).write_bytes(content)
    folders = [str(root / name) for name in CASES]
    subprocess.run([sys.executable, "-I", "-c", RUN_ALL, *folders], check=True, cwd=root, timeout=240)

    def outcome(name: str) -> Outcome:
        file = root / name / "trained.safetensors"
        output = (root / name / "out.txt").read_text()
        return Outcome(weights[name], load_file(file) if file.exists() else None, output)

    return {name: outcome(name) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_the_script_ends_at_the_weights_of_the_executor_bit_for_bit(name: str, outcomes: Mapping[str, Outcome]) -> None:
    outcome = outcomes[name]
    assert outcome.emitted is not None, outcome.output
    assert outcome.emitted.keys() == outcome.executed.keys()
    for tensor, value in outcome.executed.items():
        assert bits(outcome.emitted[tensor]) == bits(value), f"{tensor}\n{outcome.output}"


def bits(tensor: Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    """A tensor by its bytes, −0.0 as the 0.0 that a file holds."""
    clean = torch.where(tensor == 0, 0, tensor) if tensor.is_floating_point() else tensor
    return tensor.dtype, tensor.shape, clean.contiguous().numpy().tobytes()


def test_training_changed_the_weights(outcomes: Mapping[str, Outcome]) -> None:
    """Equality of scripts that do nothing would prove nothing."""
    ends = {bits(outcomes[name].executed["fc1.weight"])[2] for name in CASES}
    assert len(ends) == len(CASES)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("lc", ["sparsity: 177 ≤ 177"]),
        ("lc_nested_budgets", ["first: 100 ≤ 100", "all: 177 ≤ 177"]),
        ("lc_n_of_m", ["cells: 2 ≤ 2 of every 4"]),
        ("lc_groups", ["rows: 15 groups ≤ 15"]),
        ("lc_largest_entry", ["largest: 0.3 ≤ 0.3"]),
        ("ista", ["sparsity: 177 ≤ 177", "accuracy(net) on test: "]),
        ("finetune_keeps_the_best", ["good (≥ 0.9) on certify: "]),
        ("finetune_keeps_the_best_on_idx_files", ["good (≤ 1) on certify: "]),
    ],
)
def test_the_script_prints_a_line_per_constraint(name: str, lines: list[str], outcomes: Mapping[str, Outcome]) -> None:
    printed = outcomes[name].output.splitlines()
    for line in lines:
        assert any(p.startswith(line) for p in printed), outcomes[name].output


def test_a_seed_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The face emits the same script, with the seed that is asked for."""
    monkeypatch.chdir(tmp_path)
    emitted = emit_program(compile(CASES["lc"], dtype="float64"), seed=11)
    assert 'parser.add_argument("--seed", type=int, default=11' in emitted.script
    assert list(emitted.sidecar) == ["digits.safetensors"]


@pytest.mark.parametrize("name", BALLS)
def test_balls_are_those_of_the_executor(name: str) -> None:
    module, kind, arguments = BALLS[name]
    assert same_operator(operators.ball(name, 0.5), module, kind, arguments.format(0.5))


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_are_those_of_the_executor(name: str) -> None:
    module, kind, arguments = PENALTIES[name]
    assert same_operator(operators.penalty(name, 0.5, "row"), module, kind, arguments.format("0.5", "'row'"))


def same_operator(found: object, module: str, kind: str, arguments: str) -> bool:
    import importlib
    from ast import literal_eval

    factory: Callable[..., object] = getattr(importlib.import_module(f"prunelang.runtime.prox.{module}"), kind)
    return found == factory(*literal_eval(f"({arguments},)"))
