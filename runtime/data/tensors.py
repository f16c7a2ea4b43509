"""A user's own arrays from one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from prunelang.compiler.catalog import Task
from prunelang.runtime.data.dataset import Dataset, DataUnavailable, Split

SPLITS: Final = ("train", "validation", "test")
ARRAYS: Final = tuple(f"{axis}_{split}" for split in SPLITS for axis in "xy")


def tensors(path: Path) -> Dataset:
    """``x_train, y_train`` and, if present, ``x_validation, y_validation, x_test, y_test`` of a .safetensors or .npz.

    The targets tell the task: whole numbers, one for each input, are classes; whole numbers in the shape of whole
    inputs are tokens of a language; numbers with a point are a regression. Pickled arrays are refused.
    """
    arrays = _read(path)
    unknown = sorted(set(arrays) - set(ARRAYS))
    if unknown:
        raise DataUnavailable("P504", f"`{path}` holds `{unknown[0]}`", f"The arrays are named {', '.join(ARRAYS)}.")
    splits = {s: _split(path, s, arrays) for s in SPLITS if f"x_{s}" in arrays or f"y_{s}" in arrays}
    if "train" not in splits:
        raise DataUnavailable("P504", f"`{path}` holds no `x_train`", "")
    task = _task(splits["train"])
    _check(path, task, splits)
    classes = 0 if task == "regression" else 1 + int(max(s.targets.max() for s in splits.values()))
    return Dataset("tensors", task, classes, splits)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix == ".npz":
            import numpy

            with numpy.load(path, allow_pickle=False) as archive:
                return {name: torch.from_numpy(archive[name]) for name in archive.files}
    except FileNotFoundError as e:
        raise DataUnavailable("P501", f"`{path}` does not exist", "") from e
    except Exception as e:  # each reader has its own errors for a damaged file
        raise DataUnavailable("P502", f"`{path}` cannot be read: {e}", "") from e
    raise DataUnavailable("P502", f"`{path}` is neither .safetensors nor .npz", "")


def _split(path: Path, split: str, arrays: Mapping[str, Tensor]) -> Split:
    for name in (f"x_{split}", f"y_{split}"):
        if name not in arrays:
            raise DataUnavailable("P504", f"`{path}` holds no `{name}`", "")
    x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
    if x.dim() < 2 or y.dim() < 1 or not len(x):
        raise DataUnavailable(
            "P504", f"`x_{split}` in `{path}` has shape {tuple(x.shape)}: samples × numbers is due", ""
        )
    return Split(_plain(x), _plain(y))


def _plain(t: Tensor) -> Tensor:
    """Numbers with a point as float32, whole ones as int64."""
    return t.to(torch.float32 if t.is_floating_point() else torch.int64)


def _task(train: Split) -> Task:
    if train.targets.is_floating_point():
        return "regression"
    return "classification" if train.targets.dim() == 1 else "language"


def _check(path: Path, task: Task, splits: Mapping[str, Split]) -> None:
    shape = splits["train"].inputs.shape[1:]
    for name, s in splits.items():
        if s.inputs.shape[1:] != shape or _task(s) != task:
            raise DataUnavailable("P504", f"`x_{name}`, `y_{name}` in `{path}` differ from train in shape or type", "")
        if s.inputs.is_floating_point() and not bool(s.inputs.isfinite().all()):
            raise DataUnavailable("P504", f"`x_{name}` in `{path}` holds values that are not finite", "")
        if task == "regression" and not bool(s.targets.isfinite().all()):
            raise DataUnavailable("P504", f"`y_{name}` in `{path}` holds values that are not finite", "")
        if task != "regression" and int(s.targets.min()) < 0:
            raise DataUnavailable("P504", f"`y_{name}` in `{path}` holds a negative class", "")
        if task == "language" and s.inputs.shape != s.targets.shape:
            raise DataUnavailable("P504", f"`x_{name}` and `y_{name}` in `{path}` differ in shape", "")
