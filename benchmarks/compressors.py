"""General compressors at their strongest common settings: what coded files are compared with."""

from __future__ import annotations

import lzma
from collections.abc import Callable

import brotli
import zstandard

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "LZMA2 (xz -9e)": lambda raw: lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME),
    "zstd -19": lambda raw: zstandard.ZstdCompressor(level=19).compress(raw),
    "brotli 11": lambda raw: bytes(brotli.compress(raw, quality=11, lgwin=24)),
}


def lengths(raw: bytes) -> dict[str, int]:
    """Bytes after each of them."""
    return {name: len(compress(raw)) for name, compress in COMPRESSORS.items()}
