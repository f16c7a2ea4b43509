"""`prune export --shrink`: a run's network without the units that have no weights left, or with layers of factors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelang.dsl.numbers import grouped
from prunelang.report import FORMAT_VERSION
from prunelang.runtime.certificate import FACTORS, SHAPES, SPEC, WEIGHTS
from prunelang.runtime.factor_files import check_sums
from prunelang.runtime.files import FileProblem, read_text, sha256
from prunelang.verification import certificate_of, factors_of_run, plan_of, table_of_run

if TYPE_CHECKING:
    from torch import nn

    from prunelang.compiler.problem import Problem
    from prunelang.compiler.shapes import ShapeTable
    from prunelang.runtime.shrink import Shrunk


@dataclass(frozen=True)
class WrittenShrunk:
    """Both files of a shrunk network, its length in bytes, and what it costs now and before."""

    path: Path
    description: Path
    bytes: int
    dense: int  # length of the dense file that it was made from
    units: dict[str, tuple[int, int]]  # group → members that were kept, of how many
    reasons: dict[str, str]  # why a group cannot get smaller
    macs: tuple[int, int]  # now and before
    params: tuple[int, int]
    factored: dict[str, str]  # layer → the factors that it multiplies by
    unfactored: dict[str, str]  # tensor → what it is made of, where its layer stays dense all the same

    def text(self) -> str:
        kept = ", ".join(f"{name} {k} of {n}" for name, (k, n) in self.units.items())
        units = f"units: {kept}" if kept else "no units can be removed"
        share = f"{100 * self.bytes / self.dense:.1f} % of the {grouped(self.dense)} B of the dense file"
        lines = [f"{self.path}: {grouped(self.bytes)} B, {share}; {self.description.name} says how to build it"]
        lines += [f"factored: {name}, {how}" for name, how in self.factored.items()]
        lines.append("units: all stay beside layers of factors" if self.factored else units)
        for name, (now, before) in (("macs", self.macs), ("params", self.params)):
            lines.append(f"{name}: {grouped(now)} of {grouped(before)}")
        lines += [f"{name} stays dense: no layer multiplies by {how}" for name, how in self.unfactored.items()]
        lines += [f"{name} stays whole: {reason}" for name, reason in self.reasons.items() if not self.factored]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "file": str(self.path),
            "description": str(self.description),
            "bytes": self.bytes,
            "dense_bytes": self.dense,
            "units": {name: {"kept": k, "of": n} for name, (k, n) in self.units.items()},
            "whole": self.reasons,
            "factored": self.factored,
            "unfactored": self.unfactored,
            "macs": self.macs[0],
            "dense_macs": self.macs[1],
            "params": self.params[0],
            "dense_params": self.params[1],
        }


def shrink_directory(run: Path, out: Path | None = None) -> WrittenShrunk:
    """Write the certified network of a run without the units that have no weights left, or with layers of factors.

    Raises `FileProblem`, P517 where the weights or factors are not those that were certified; `ShrinkProblem` P530 to
    P537, where a module cannot be made smaller.
    """
    import torch

    from prunelang.compiler.compositions import agreed
    from prunelang.runtime import registry
    from prunelang.runtime.packed import described
    from prunelang.runtime.shrink import shrunk
    from prunelang.runtime.shrunk import save_shrunk
    from prunelang.runtime.spiking.state import at_rest
    from prunelang.runtime.weights import load_weights

    weights, certificate = run / WEIGHTS, certificate_of(run)
    if sha256(weights) != certificate.weights_hash:
        raise FileProblem("P517", f"{weights} is not the file that was certified", f"`prune verify {run}` says more.")
    target = out if out is not None else run / "shrunk.safetensors"
    if target.resolve().parent == run.resolve() and target.stem in {Path(n).stem for n in (WEIGHTS, SHAPES, FACTORS)}:
        raise FileProblem("P511", f"{target} would replace files of the run", "Give another name with -o.")
    table = table_of_run(run)
    factors = factors_of_run(run, certificate, table)
    plan = plan_of(run, read_text(run / SPEC), table)
    entry = registry.models[plan.model.constructor]
    arrays = load_weights(weights, table)
    check_sums(factors, arrays, table, run / FACTORS)
    with registry.seeded(0):
        net = entry.build(**plan.model.arguments)
    net = at_rest(net.to(getattr(torch, _dtype(table))))
    net.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in arrays.items()}, strict=False)
    dtype = None if entry.facts.input_dtype == "float32" else entry.facts.input_dtype
    asked = [m.composition for m in agreed(plan.problem.constraints, table)]
    small = shrunk(net, table.input_shape, dtype=dtype, factors=factors, asked=asked)
    if small.placed:
        _only_factors(plan.problem, net, small)
    description = save_shrunk(small, plan.model.constructor, plan.model.arguments, target)
    layers = {p.tensor for p in small.placed}
    return WrittenShrunk(
        path=target,
        description=description,
        bytes=target.stat().st_size,
        dense=weights.stat().st_size,
        units={g.name: (len(small.members[g.name]), g.size) for g in small.dense.channels if not g.reason},
        reasons={g.name: g.reason for g in small.dense.channels if g.reason},
        macs=(_macs(small.table), _macs(small.dense)),
        params=(_params(small.table), _params(small.dense)),
        factored={p.path: p.text() for p in small.placed},
        unfactored={name: how for name, how in described(factors).items() if name not in layers},
    )


def _only_factors(problem: Problem, net: nn.Module, small: Shrunk) -> None:
    """Whether no constraint counts units that are left out. Errors: `ShrinkProblem` P534."""
    from prunelang.compiler.problem import Structural
    from prunelang.runtime.same_outputs import ShrinkProblem
    from prunelang.runtime.shrink import surviving

    left = surviving(small.dense, net.state_dict(keep_vars=False))
    gone = [g.name for g in small.dense.channels if len(left[g.name]) < g.size]
    counted = [c.label for c in problem.constraints if isinstance(c.function, Structural)]
    if gone and counted:
        message = f"`{counted[0]}` counts units that are cut out, of {gone[0]} first, and layers multiply by factors"
        raise ShrinkProblem("P534", message, "Layers are made smaller in one way or the other, never in both.")


def _dtype(table: ShapeTable) -> str:
    return next((t.dtype for t in table.tensors if t.dtype.startswith("float")), "float32")


def _macs(table: ShapeTable) -> int:
    return sum(x.uses * table.tensor[x.weight].size for x in table.layers) + sum(p.macs for p in table.products)


def _params(table: ShapeTable) -> int:
    return sum(t.size for t in table.tensors if t.role != "buffer")
