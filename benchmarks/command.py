"""What the benchmarks that train share on the command line: where data and rows are, and what to do with them."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.rows import Rows, merged, read

Namespace = argparse.Namespace


def parser_of(doc: str | None, name: str, seeds: Sequence[int] = (0, 1, 2)) -> argparse.ArgumentParser:
    """The options of ``python -m benchmarks.NAME``: the folder of MNIST, seeds, rows, a folder for runs."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    work = Path(tempfile.gettempdir()) / f"prunelang-{name.replace('_', '-')}"
    parser.add_argument("--root", help="folder of MNIST's idx files")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--json", type=Path, default=Path(f"benchmarks/{name}/result.json"))
    parser.add_argument("--work", type=Path, default=work)
    parser.add_argument("--dry-run", action="store_true", help="compile every spec and stop")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="JSON", help="add the rows of these files and stop")
    return parser


def together(args: Namespace) -> Rows:
    """The rows of the result and of the files that are to be merged into it."""
    return merged([*([args.json] if args.json.is_file() else []), *args.merge])


def carried_out(
    parser: argparse.ArgumentParser,
    args: Namespace,
    *,
    rehearse: Callable[[Namespace], None],
    measure: Callable[[Namespace, Rows], None],
    save: Callable[[Path, Rows], None],
) -> bool:
    """Rehearse, merge or measure; whether there are rows to show then."""
    if args.dry_run:
        rehearse(args)
        return False
    if args.merge:
        save(args.json, together(args))
    elif args.root is None:
        parser.error("--root is needed: the folder of MNIST's idx files")
    else:
        measure(args, read(args.json))
    return True
