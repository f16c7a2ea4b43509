"""`prune export --shrink`: a run's network without the units that have no weights left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelang.dsl.numbers import grouped
from prunelang.report import FORMAT_VERSION
from prunelang.runtime.certificate import SHAPES, SPEC, WEIGHTS
from prunelang.runtime.files import FileProblem, read_text, sha256
from prunelang.verification import certificate_of, plan_of, table_of_run

if TYPE_CHECKING:
    from prunelang.compiler.shapes import ShapeTable


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

    def text(self) -> str:
        kept = ", ".join(f"{name} {k} of {n}" for name, (k, n) in self.units.items())
        share = f"{100 * self.bytes / self.dense:.1f} % of the {grouped(self.dense)} B of the dense file"
        lines = [f"{self.path}: {grouped(self.bytes)} B, {share}; {self.description.name} says how to build it"]
        lines.append(f"units: {kept}" if kept else "no units can be removed")
        for name, (now, before) in (("macs", self.macs), ("params", self.params)):
            lines.append(f"{name}: {grouped(now)} of {grouped(before)}")
        lines += [f"{name} stays whole: {reason}" for name, reason in self.reasons.items()]
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
            "macs": self.macs[0],
            "dense_macs": self.macs[1],
            "params": self.params[0],
            "dense_params": self.params[1],
        }


def shrink_directory(run: Path, out: Path | None = None) -> WrittenShrunk:
    """Write the certified network of a run without the units that have no weights left.

    Raises `FileProblem`, P517 where the weights are not those that were certified; `ShrinkProblem` P530 to P532, where
    a module cannot be made smaller.
    """
    import torch

    from prunelang.runtime import registry
    from prunelang.runtime.shrink import shrunk
    from prunelang.runtime.shrunk import save_shrunk
    from prunelang.runtime.spiking.state import at_rest
    from prunelang.runtime.weights import load_weights

    weights = run / WEIGHTS
    if sha256(weights) != certificate_of(run).weights_hash:
        raise FileProblem("P517", f"{weights} is not the file that was certified", f"`prune verify {run}` says more.")
    target = out if out is not None else run / "shrunk.safetensors"
    if target.resolve().parent == run.resolve() and target.stem in {Path(n).stem for n in (WEIGHTS, SHAPES)}:
        raise FileProblem("P511", f"{target} would replace files of the run", "Give another name with -o.")
    table = table_of_run(run)
    model = plan_of(run, read_text(run / SPEC), table).model
    entry = registry.models[model.constructor]
    arrays = load_weights(weights, table)
    with registry.seeded(0):
        net = entry.build(**model.arguments)
    net = at_rest(net.to(getattr(torch, _dtype(table))))
    net.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in arrays.items()}, strict=False)
    dtype = None if entry.facts.input_dtype == "float32" else entry.facts.input_dtype
    small = shrunk(net, table.input_shape, dtype=dtype)
    description = save_shrunk(small, model.constructor, model.arguments, target)
    return WrittenShrunk(
        path=target,
        description=description,
        bytes=target.stat().st_size,
        dense=weights.stat().st_size,
        units={g.name: (len(small.members[g.name]), g.size) for g in small.dense.channels if not g.reason},
        reasons={g.name: g.reason for g in small.dense.channels if g.reason},
        macs=(_macs(small.table), _macs(small.dense)),
        params=(_params(small.table), _params(small.dense)),
    )


def _dtype(table: ShapeTable) -> str:
    return next((t.dtype for t in table.tensors if t.dtype.startswith("float")), "float32")


def _macs(table: ShapeTable) -> int:
    return sum(x.uses * table.tensor[x.weight].size for x in table.layers) + sum(p.macs for p in table.products)


def _params(table: ShapeTable) -> int:
    return sum(t.size for t in table.tensors if t.role != "buffer")
