"""From a graph to a standalone script."""

from prunelang.compiler.codegen.script import emit
from prunelang.compiler.codegen.sources import Array, ArrayData, DataSource, Emitted, IdxData, Symbol

__all__ = ["Array", "ArrayData", "DataSource", "Emitted", "IdxData", "Symbol", "emit"]
