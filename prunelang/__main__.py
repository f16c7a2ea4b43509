"""``python -m prunelang`` is ``prune``."""

from prunelang.cli import main

main()
