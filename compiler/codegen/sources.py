"""What an emitted script is made from, and what it comes to: plain records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal, TypeAlias


@dataclass(frozen=True, order=True)
class Symbol:
    """A name at the top level of a module. Those of prunelang are inlined, others imported."""

    module: str
    name: str

    @property
    def inlined(self) -> bool:
        return self.module == "prunelang" or self.module.startswith("prunelang.")


@dataclass(frozen=True)
class Array:
    """A tensor as bytes: little-endian, in the order of rows. `dtype` as safetensors calls it: F32, I64, …"""

    dtype: str
    shape: tuple[int, ...]
    content: bytes


@dataclass(frozen=True)
class IdxData:
    """MNIST and its kind: four idx files in a folder, read by the script itself. `root` is the folder's default."""

    name: str
    center: bool
    root: str | None = None


@dataclass(frozen=True)
class ArrayData:
    """Any other data set: the splits as the run has them, for a file beside the script.

    Names are ``x_train, y_train, x_test, …``, the inputs in the network's shape, validation cut off already.
    """

    name: str
    arrays: Mapping[str, Array]


DataSource: TypeAlias = IdxData | ArrayData
DType: TypeAlias = Literal["float32", "float64"]


@dataclass(frozen=True)
class Emitted:
    """The script, and the files that lie beside it under the given names."""

    script: str
    sidecar: Mapping[str, bytes] = field(default_factory=dict)


_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8}


def safetensors(arrays: Mapping[str, Array]) -> bytes:
    """The arrays as one safetensors file. Raises `ValueError` where bytes and shape differ."""
    header: dict[str, object] = {}
    end = 0
    for name, a in arrays.items():
        if len(a.content) * 8 != prod(a.shape) * _BITS[a.dtype]:
            raise ValueError(f"{name}: {len(a.content)} bytes are not {a.dtype} of shape {a.shape}")
        begin, end = end, end + len(a.content)
        header[name] = {"dtype": a.dtype, "shape": list(a.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(a.content for a in arrays.values())])
