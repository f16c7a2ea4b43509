"""`prune emit`: a program as a standalone script, with the files that belong beside it."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prunelang.compiler.codegen import Array, ArrayData, DataSource, Emitted, IdxData, Symbol, emit
from prunelang.compiler.codegen.options import Options, Param, found
from prunelang.compiler.codegen.script import NONE
from prunelang.compiler.graph import walk
from prunelang.compiler.plan import Plan
from prunelang.compiler.problem import Measured
from prunelang.dsl.diagnostics import SpecError
from prunelang.runtime import registry
from prunelang.runtime.files import write_atomically, write_text

if TYPE_CHECKING:
    from torch import Tensor

    from prunelang.api import Program
    from prunelang.compiler.codegen.sources import DType

IDX = ("mnist", "fashion_mnist")
"""Data sets that a script reads itself, from the files that everyone has."""


def emit_program(program: Program, *, seed: int = 0) -> Emitted:
    """The script of a program, and its sidecar files by name. Raises `SpecError` when the program cannot be run."""
    from prunelang.api import compile_source

    data = data_source(program.plan, program.folder)
    first = written(program, data, seed)
    params = params_of(program)
    if not params:
        return first

    def moved(values: Mapping[str, str]) -> str | None:
        try:
            other = compile_source(
                program.plan.source,
                program.folder,
                params={**program.plan.parameters, **values},
                shapes=program.plan.table,
                dtype=program.dtype,
            )
            other.__dict__["train_size"] = program.train_size
            return main_of(written(other, data, seed).script)
        except SpecError:
            return None

    script = main_of(first.script)
    names = frozenset(n.id for n in ast.walk(ast.parse(first.script)) if isinstance(n, ast.Name))
    return written(program, data, seed, found(params, script, moved, names, totals_of(program)))


def written(program: Program, data: DataSource, seed: int, options: Options = NONE) -> Emitted:
    """The script of a program as it stands."""
    plan = program.plan
    return emit(
        program.graph,
        plan,
        network=symbol_of(registry.models[plan.model.constructor].factory),
        data=data,
        seed=seed,
        dtype=cast("DType", program.dtype),
        teachers={t.name: symbol_of(registry.models[t.constructor].factory) for t in plan.teachers},
        losses={name: symbol_of(registry.losses[name].factory) for name in _registered_losses(plan)},
        spiking=spiking_teachers(plan),
        options=options,
        chain=chain_of(plan, program.folder),
    )


def chain_of(plan: Plan, folder: Path) -> object:
    """The network's layers, where a stage splits it into them. Raises `SpecError` (P493) if it is no chain of them."""
    if all(s.solver is None or s.solver.descends for s in plan.stages):
        return None
    import torch

    from prunelang.inputs import build, chain_for

    with torch.random.fork_rng(devices=[]):
        return chain_for(plan, build(replace(plan.model, weights=None), plan, folder, "cpu", torch.float32))


def write_script(emitted: Emitted, output: Path) -> list[Path]:
    """Write the script and its sidecar files into the same folder; the paths, the script's first."""
    write_text(Path(output.name), emitted.script, root=output.parent)
    for name, content in emitted.sidecar.items():
        write_atomically(Path(name), content, root=output.parent)
    return [output, *(output.with_name(name) for name in emitted.sidecar)]


def symbol_of(factory: Any) -> Symbol:
    """Where a constructor or loss is defined, as a script can import it.

    A file that was given with ``--with`` is known here under a private name; a script imports it by the file's own.
    """
    module = factory.__module__
    loaded = sys.modules.get(module)
    if module.startswith(registry.PRIVATE) and loaded is not None and loaded.__file__ is not None:
        module = Path(loaded.__file__).stem
    return Symbol(module, factory.__qualname__)


def spiking_teachers(plan: Plan) -> frozenset[str]:
    """The teachers that are spiking networks, on inputs of the shape that the trained network reads."""
    shape = plan.table.input_shape
    found = (t for t in plan.teachers if registry.models[t.constructor].shapes(t.arguments, shape).steps)
    return frozenset(t.name for t in found)


def data_source(plan: Plan, folder: Path) -> DataSource:
    """How the script gets its samples: from idx files, or from a file beside it with the splits as `run` has them."""
    arguments = plan.data.arguments
    if plan.data.constructor in IDX:
        root = arguments.get("root")
        at = None if root is None else os.path.relpath(folder / Path(root).expanduser())
        return IdxData(plan.data.constructor, bool(arguments.get("center", True)), at)
    from prunelang.inputs import load_data

    splits = load_data(plan, folder, "cpu", "float32").splits
    inputs = {f"x_{name}": _array(split.inputs) for name, split in splits.items()}
    targets = {f"y_{name}": _array(split.targets) for name, split in splits.items()}
    return ArrayData(plan.data.constructor, inputs | targets)


def _array(tensor: Tensor) -> Array:
    from prunelang.runtime.standalone import SAFETENSORS

    code = next(code for code, dtype in SAFETENSORS.items() if dtype == tensor.dtype)
    values = tensor.detach().contiguous().numpy()
    return Array(code, tuple(tensor.shape), values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())


def _registered_losses(plan: Plan) -> Iterator[str]:
    """Losses of the stages that a user registered; those of the language are known to the code generator."""
    terms = (term for stage in plan.stages for term in stage.losses)
    names = (term.function.name for term in terms if isinstance(term.function, Measured))
    return (name for name in dict.fromkeys(names) if name in registry.losses)


# ── params as options ────────────────────────────────────────────────────────────────────────────────────────────


def params_of(program: Program) -> list[Param]:
    """The params of a spec that are numbers or percentages, with the values in force."""
    found = []
    for name, text in program.plan.parameters.items():
        number = text.strip().removesuffix("%")
        try:
            value = Fraction(number)
        except ValueError:
            continue  # a word, a size with a unit, a list
        percent = number != text.strip()
        found.append(Param(name, value / 100 if percent else value, percent))
    return [p for p in found if p.value]


def main_of(script: str) -> str:
    """The body of a script's main function."""
    return script.partition("\ndef main() -> None:\n")[2].partition("\n\n\n")[0]


def totals_of(program: Program) -> frozenset[int]:
    """Counts that a share can be of: the dense value of every bound of a projection, and of the network."""
    table = program.plan.table
    sizes = {t.name: t.size for t in table.tensors}
    kernels = sum(t.size for t in table.tensors if t.role == "weight")
    found = {kernels, sum(t.size for t in table.tensors if t.role != "buffer")}
    for step in walk(program.graph.program):
        for part in getattr(getattr(step, "onto", None), "parts", ()):
            for bound in part.bounds:
                costs = bound.get("coefficients", {})
                found.add(sum(a * sizes[t] for t, a in costs.items()) + bound.get("constant", 0))
    return frozenset(found)
