"""The checker's parts, one concern a file; `prunelang.compiler.check` is the driver."""
