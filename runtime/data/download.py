"""Fetching one file, only ever on the user's explicit word (``download = true``)."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from prunelang.runtime.data.dataset import DataUnavailable

LIMIT = 256 * 2**20  # bytes; no file that we name is larger
TIMEOUT = 30.0  # seconds without an answer


def fetch(url: str, target: Path, md5: str) -> Path:
    """`target`, holding what `url` gave; checked by md5, written under another name and renamed.

    Errors: `DataUnavailable` P503 where there is no network or the mirror fails, P502 where the content differs.
    """
    try:
        with urlopen(url, timeout=TIMEOUT) as answer:
            content = answer.read(LIMIT + 1)
    except (URLError, OSError) as e:
        hint = f"Fetch it by hand and put it at {target}."
        raise DataUnavailable("P503", f"{url} cannot be fetched: {e}", hint) from e
    if len(content) > LIMIT or hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise DataUnavailable("P502", f"{url} is not the expected file (md5 {md5})", "Try another source.")
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return target
