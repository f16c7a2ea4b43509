"""`Dataset`: whole splits as tensors in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import prod
from typing import Final

import torch
from torch import Tensor

from prunelang.compiler.catalog import Shape, Task

HALVES: Final = 0x5E1EC7  # sets the seed of the cut of validation apart from that of the cut of train


class DataUnavailable(Exception):
    """The data cannot be had, with a stable code, what is missing, and what to do about it.

    P501 files not found · P502 a file is damaged or not of its format · P503 the download failed ·
    P504 the data does not fit the network or its own declaration.
    """

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(f"[{code}] {message}\n{hint}" if hint else f"[{code}] {message}")
        self.code = code
        self.message = message
        self.hint = hint


@dataclass(frozen=True, eq=False)
class Split:
    """``inputs[i]`` goes with ``targets[i]``: N × shape and, by task, N classes, N × T bytes, or N × … numbers."""

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise DataUnavailable("P504", f"{len(self.inputs)} inputs go with {len(self.targets)} targets", "")

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, index: Tensor) -> Split:
        """The samples at `index`, in that order."""
        return Split(self.inputs.index_select(0, index), self.targets.index_select(0, index))

    def to(self, device: torch.device | str) -> Split:
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Splits ``train``, ``validation``, ``test`` (those that exist), what kind of task they pose, how many classes."""

    name: str
    task: Task
    classes: int  # 0 for regression
    splits: Mapping[str, Split]
    _digests: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def __getitem__(self, split: str) -> Split:
        """Errors: `DataUnavailable` (P504) for a split that does not exist."""
        if split in self.splits:
            return self.splits[split]
        has = ", ".join(self.splits)
        hint = "`split(validation, seed)` cuts one off train." if split == "validation" else ""
        raise DataUnavailable("P504", f"`{self.name}` has no split `{split}`; it has {has}", hint)

    @property
    def train(self) -> Split:
        return self["train"]

    @property
    def validation(self) -> Split:
        return self["validation"]

    @property
    def test(self) -> Split:
        return self["test"]

    @property
    def sample_shape(self) -> Shape:
        """Shape of one input."""
        return tuple(self.train.inputs.shape[1:])

    def digest(self, split: str) -> str:
        """sha256 over dtype, shape and bytes of inputs and targets, in order; independent of the device."""
        if split not in self._digests:
            h = hashlib.sha256()
            for tensor in (self[split].inputs, self[split].targets):
                array = tensor.detach().cpu().contiguous()
                h.update(f"{array.dtype} {tuple(array.shape)}\n".encode())
                h.update(array.flatten().view(torch.uint8).numpy().data)
            self._digests[split] = h.hexdigest()
        return self._digests[split]

    def split(self, validation: Fraction, seed: int) -> Dataset:
        """With a validation split: its own if it has one, else the share `validation` of train.

        Classes keep their shares (largest remainders); within a class a generator of its own, seeded by `seed`, draws.
        Both parts stay in the order of train. Sequences are cut at the end of train, since neighbours are alike.
        """
        if "validation" in self.splits:
            return self
        count = round(validation * len(self.train))
        if not 0 < count < len(self.train):
            message = f"a validation share of {float(validation):.4g} of {len(self.train)} samples leaves a split empty"
            raise DataUnavailable("P504", message, "")
        train, cut = self._cut(self.train, count, seed)
        return replace(self, splits={**self.splits, "train": train, "validation": cut})

    def halved(self, seed: int) -> Dataset:
        """With ``select`` and ``certify``: the validation split cut in two as `split` cuts train, the odd sample in
        ``certify``. Errors: `DataUnavailable` (P504) for a validation split of fewer than two samples."""
        whole = self.validation
        if len(whole) < 2:
            message = f"a validation split of {len(whole)} samples cannot be cut into `select` and `certify`"
            raise DataUnavailable("P504", message, "Give `data` a larger share: `validation = 20%`.")
        select, certify = self._cut(whole, len(whole) - len(whole) // 2, seed ^ HALVES)
        return replace(self, splits={**self.splits, "select": select, "certify": certify})

    def sampled(self, name: str, most: int) -> Dataset:
        """With a split `name` of at most `most` samples of train, evenly spaced. They stay in train."""
        size = min(most, len(self.train))
        index = torch.arange(size, device=self.train.inputs.device) * len(self.train) // size
        return replace(self, splits={**self.splits, name: self.train.take(index)})

    def _cut(self, whole: Split, count: int, seed: int) -> tuple[Split, Split]:
        """The rest and `count` samples of a split."""
        if self.task == "language":
            chosen = torch.arange(len(whole)) >= len(whole) - count
        else:
            labels = whole.targets.cpu() if self.task == "classification" else None
            chosen = _stratified(labels, len(whole), count, seed)
        device = whole.inputs.device
        rest, cut = ((~chosen).nonzero().flatten(), chosen.nonzero().flatten())
        return whole.take(rest.to(device)), whole.take(cut.to(device))

    def reshaped(self, input_shape: Shape) -> Dataset:
        """Inputs as views of the shape that a network asks for. Errors: `DataUnavailable` (P504) if sizes differ."""
        if input_shape == self.sample_shape:
            return self
        if prod(input_shape) != prod(self.sample_shape) or self.task == "language":
            message = (
                f"the network takes inputs of {_times(input_shape)}, `{self.name}` has {_times(self.sample_shape)}"
            )
            raise DataUnavailable("P504", message, "Give both the same size.")
        splits = {k: Split(s.inputs.reshape(-1, *input_shape), s.targets) for k, s in self.splits.items()}
        return replace(self, splits=splits)

    def to(self, device: torch.device | str) -> Dataset:
        return replace(self, splits={k: s.to(device) for k, s in self.splits.items()})


def _times(shape: Shape) -> str:
    return " × ".join(map(str, shape))


def _stratified(labels: Tensor | None, size: int, count: int, seed: int) -> Tensor:
    """A mask with `count` of `size` true, in each class as near to its share as whole numbers allow."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(size, dtype=torch.int64) if labels is None else labels
    members = [(labels == c).nonzero().flatten() for c in sorted(set(labels.tolist()))]
    shares = [Fraction(count * len(m), size) for m in members]
    counts = [int(s) for s in shares]
    by_remainder = sorted(range(len(members)), key=lambda c: (counts[c] - shares[c], c))
    for c in by_remainder[: count - sum(counts)]:
        counts[c] += 1
    chosen = torch.zeros(size, dtype=torch.bool)
    for m, n in zip(members, counts, strict=True):
        chosen[m[torch.randperm(len(m), generator=generator)[:n]]] = True
    return chosen
