"""`prune fmt` on files: nothing is written unless the text changed, and then atomically."""

from __future__ import annotations

import difflib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from prunelang.dsl.formatter import format_spec
from prunelang.dsl.parser import parse
from prunelang.dsl.spans import Source


def format_file(
    path: str, read: Callable[[str], tuple[Source, Path]], keep: bool, show: bool, ascii_only: bool
) -> bool:
    """Format one file, or stdin to stdout for ``-``. True when the text was, or (with `keep`) would be, changed."""
    source, _ = read(path)
    parse(source.text, source.name)  # for errors with the file's name
    new = format_spec(source.text, style="ascii" if ascii_only else "unicode")
    if show and new != source.text:
        old_lines, new_lines = source.text.splitlines(keepends=True), new.splitlines(keepends=True)
        sys.stdout.writelines(difflib.unified_diff(old_lines, new_lines, path, path + " (formatted)"))
    if path == "-" and not keep:
        sys.stdout.write(new)
        return False
    if new != source.text and not keep:
        _replace(Path(path), new)
        return False
    return new != source.text


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-", suffix=path.suffix)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
            out.write(text)
        os.chmod(name, path.stat().st_mode & 0o7777)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
