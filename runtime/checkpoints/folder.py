"""``checkpoints/NNNNNN/``: numbered directories that are whole or not there, with the digest of every byte in them.

A checkpoint is written under a temporary name, synchronised, and renamed; only then are older ones removed. So a
process may be killed, and a disk may fill up, at any moment: what was there before is still there, and is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import torch
from safetensors.torch import load
from torch import Tensor

from prunelang.runtime.files import TEMPORARY, FileProblem, digest, parse_json, synchronise_folder

CHECKPOINTS, TENSORS, STATE, META = "checkpoints", "state.safetensors", "state.json", "meta.json"
FORMAT_VERSION: Final = 1
KEPT: Final = 2
CODES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read: every byte of it has the digest that it was written with."""

    path: Path
    number: int
    state: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]  # what the writer said of the run that it belongs to


def write(out: Path, state: Mapping[str, Any], tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """The next checkpoint of a run directory; all but the last `KEPT` go afterwards.

    Errors: `FileProblem` P525 where it cannot be written, with all earlier ones as they were.
    """
    root = out / CHECKPOINTS
    temporary = root / f"{TEMPORARY}{uuid4().hex}"
    number = max(numbers(out), default=0) + 1
    target = root / f"{number:06d}"
    try:
        root.mkdir(exist_ok=True)
        temporary.mkdir()
        files = {
            TENSORS: _written(temporary / TENSORS, _safetensors(tensors)),
            STATE: _written(temporary / STATE, [json.dumps(state, ensure_ascii=False, allow_nan=False).encode()]),
        }
        meta = {"format_version": FORMAT_VERSION, "number": number, "files": files, "of": facts}
        _written(temporary / META, [_meta_bytes(meta)])
        synchronise_folder(temporary)
        os.rename(temporary, target)
        synchronise_folder(root)
    except OSError as error:
        raise FileProblem(
            "P525", f"{target} cannot be written: {error.strerror or error}", _what_is_left(out)
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in sorted(numbers(out))[:-KEPT]:
        _remove(root / f"{old:06d}")
    return target


def _what_is_left(out: Path) -> str:
    left = numbers(out)
    if not left:
        return "There is no earlier checkpoint."
    return f"Checkpoint {max(left):06d} is whole. Make room, then `prune resume {out}` goes on from there."


def numbers(out: Path) -> list[int]:
    """The numbers of the checkpoints in a run directory, whole or not, oldest first."""
    root = out / CHECKPOINTS
    names = (p.name for p in root.iterdir()) if root.is_dir() else iter(())
    return sorted(int(n) for n in names if n.isdecimal() and len(n) >= 6)


def read(out: Path, number: int) -> Checkpoint:
    """A checkpoint with every byte checked. Errors: `FileProblem` P520 damaged, P521 of another version."""
    path = out / CHECKPOINTS / f"{number:06d}"
    raw = _bytes(path / META)
    try:
        meta = parse_json(raw.decode(), path / META)
    except (UnicodeDecodeError, FileProblem) as error:
        raise _damaged(path, f"{META} is not what was written") from error
    if not isinstance(meta, dict) or _meta_bytes({k: v for k, v in meta.items() if k != "digest"}) != raw:
        raise _damaged(path, f"{META} does not have its own digest")
    if meta.get("format_version") != FORMAT_VERSION:
        message = f"{path} is of format {meta.get('format_version')!r}, this is {FORMAT_VERSION}"
        raise FileProblem("P521", message, "Resume with the version that wrote it.")
    if meta["number"] != number:
        raise _damaged(path, f"it says that it is number {meta['number']}")
    content = {name: _checked(path / name, meta["files"][name]) for name in (TENSORS, STATE)}
    try:
        return Checkpoint(path, number, json.loads(content[STATE]), load(content[TENSORS]), meta["of"])
    except Exception as error:  # whatever reads these bytes: they are what was written, so the writer was another
        raise _damaged(path, str(error)) from error


def clear(out: Path) -> None:
    """Remove all checkpoints: of a run that is finished, or that is begun anew."""
    root = out / CHECKPOINTS
    if root.is_dir():
        _remove(root)


def sweep(out: Path) -> None:
    """Remove what writers that were killed left; only under the lock of the run."""
    root = out / CHECKPOINTS
    for folder in (out, root):
        for left in folder.glob(f"{TEMPORARY}*") if folder.is_dir() else ():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _remove(folder: Path) -> None:
    """Out of the way by one rename first, so that no half of it is ever taken for a damaged one."""
    aside = folder.with_name(f"{TEMPORARY}{uuid4().hex}")
    try:
        os.rename(folder, aside)
    except OSError:
        return  # it is there still, and whole
    shutil.rmtree(aside, ignore_errors=True)


def _safetensors(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The pieces of a safetensors file: the bits as they are, tensor by tensor, wide types first."""
    header: dict[str, Any] = {}
    order = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    end = 0
    for name, t in order:
        begin, end = end, end + t.numel() * t.element_size()
        header[name] = {"dtype": CODES[t.dtype], "shape": list(t.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8, b" ")
    yield len(text).to_bytes(8, "little") + text
    for _, t in order:
        if t.numel():
            yield t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _written(path: Path, chunks: Iterator[bytes | memoryview] | list[bytes]) -> dict[str, Any]:
    """Writes and synchronises a file; its length and digest."""
    sum_, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
            sum_.update(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": sum_.hexdigest()}


def _meta_bytes(meta: Mapping[str, Any]) -> bytes:
    """``meta.json`` with its own digest, in the one form that is accepted."""
    plain = json.dumps(meta, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False)
    own = {**meta, "digest": digest(plain.encode())}
    return (json.dumps(own, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _damaged(path.parent, f"{path.name}: {error.strerror or error}") from error


def _checked(path: Path, stated: Mapping[str, Any]) -> bytes:
    raw = _bytes(path)
    if len(raw) != stated["bytes"]:
        raise _damaged(path.parent, f"{path.name} has {len(raw)} bytes of {stated['bytes']}")
    if digest(raw) != stated["sha256"]:
        raise _damaged(path.parent, f"{path.name} was changed after it was written")
    return raw


def _damaged(path: Path, what: str) -> FileProblem:
    return FileProblem("P520", f"checkpoint {path} is damaged: {what}")
