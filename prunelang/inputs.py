"""What a run starts from: the data set of a plan, and its networks with their starting weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from prunelang.compiler.graph.calibration import SAMPLES
from prunelang.compiler.graph.calibration import SPLIT as CALIBRATION
from prunelang.compiler.measured import halves_validation
from prunelang.compiler.plan import ModelPlan, Plan, TeacherPlan
from prunelang.compiler.shapes import ShapeTable
from prunelang.compiler.synops import budgets
from prunelang.dsl.diagnostics import Diagnostic, SpecError
from prunelang.runtime import registry
from prunelang.runtime.blocks.descent import Chain
from prunelang.runtime.chains import NotAChain, chain_of
from prunelang.runtime.data import Dataset
from prunelang.runtime.spiking.state import at_rest
from prunelang.runtime.weights import load_weights

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def load_data(plan: Plan, folder: Path, device: str, dtype: str) -> Dataset:
    """The data set of a plan as the network reads it; a validation split is cut off only if something reads it."""
    data = registry.data[plan.data.constructor].load(folder, **plan.data.arguments)
    data = data.reshaped(plan.table.input_shape)
    if plan.data.reads_validation:
        data = data.split(plan.data.validation, plan.data.seed)
    if halves_validation(plan.problem):
        data = data.halved(plan.data.seed)
    if budgets(plan.problem):
        data = data.sampled(CALIBRATION, SAMPLES)
    splits = {
        name: replace(s, inputs=_in_dtype(s.inputs, dtype), targets=_in_dtype(s.targets, dtype))
        for name, s in data.splits.items()
    }
    return replace(data, splits=splits).to(device)


def _in_dtype(tensor: torch.Tensor, dtype: str) -> torch.Tensor:
    """Numbers with a point in the type that the run computes in; classes and tokens as they are."""
    return tensor.to(DTYPES[dtype]) if tensor.is_floating_point() else tensor


def build(model: ModelPlan | TeacherPlan, plan: Plan, folder: Path, device: str, dtype: torch.dtype) -> nn.Module:
    """The network with its starting weights."""
    net = registry.models[model.constructor].build(**model.arguments).to(dtype)
    if model.weights is not None:
        arrays = load_weights(folder / model.weights, stored_table(model, plan))
        net.load_state_dict({k: torch.from_numpy(v.copy()).to(dtype) for k, v in arrays.items()}, strict=False)
    return at_rest(net.to(device))


def chain_for(plan: Plan, net: nn.Module) -> Chain | None:
    """The network as a chain of layers, where a stage splits it into them. Raises `SpecError` (P493) if it is none."""
    spans = [s.span for s in plan.stages if s.solver is not None and not s.solver.descends]
    if not spans:
        return None
    try:
        return chain_of(net, plan.table.input_shape)
    except NotAChain as error:
        hint = "chains are of linear layers and convolutions with biases, a ReLU after each but the last"
        found = Diagnostic("P493", "error", f"the network cannot be split: {error}", spans[0], hint=hint)
        raise SpecError([found], plan.source) from error


def stored_table(model: ModelPlan | TeacherPlan, plan: Plan) -> ShapeTable:
    """What a weights file is checked against: float32, as files are, whatever the run computes in."""
    if isinstance(model, ModelPlan):
        return plan.table.in_dtype("float32")
    return registry.models[model.constructor].shapes(model.arguments, plan.table.input_shape)
