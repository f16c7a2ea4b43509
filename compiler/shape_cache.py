"""Shape tables on disk, so that a spec over a network of the zoo is checked without torch.

A table is a pure function of the constructor's text, the input shape and the code that was traced; all three are in
the key, so an entry can be missing but never stale. An entry holds its own digest: a damaged one reads as missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from prunelang.compiler.shapes import FORMAT_VERSION, ShapeTable


def directory() -> Path:
    """``$PRUNELANG_CACHE/shapes``, else ``shapes`` under prunelang's folder of the XDG cache."""
    own = os.environ.get("PRUNELANG_CACHE")
    if own:
        return Path(own) / "shapes"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "prunelang" / "shapes"


def key(model: str, input_shape: Iterable[int], sources: Iterable[Path]) -> str:
    """sha256 over the constructor's text, the shape of one input, the bytes of the sources, and the table's format."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources]
    text = json.dumps([FORMAT_VERSION, model, list(input_shape), digests], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read(key: str, model: str) -> ShapeTable | None:
    """The table stored under `key`, or None if there is none that is whole and of this `model`."""
    try:
        entry = json.loads((directory() / f"{key}.json").read_text(encoding="utf-8"))
        table = ShapeTable.from_json(entry["table"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return table if table.model == model and table.digest == entry["sha256"] else None


def write(key: str, table: ShapeTable) -> None:
    """Stores `table`, under another name first and then renamed. A cache that cannot be written is left alone."""
    folder = directory()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".", suffix=".tmp")
    except OSError:
        return
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump({"sha256": table.digest, "table": table.to_json()}, out, ensure_ascii=False)
        os.replace(name, folder / f"{key}.json")
    except OSError:
        Path(name).unlink(missing_ok=True)
