"""Writes the measured numbers into the pages that show them, from the `result.json` of each benchmark.

    python -m benchmarks.readme            write
    python -m benchmarks.readme --check    change nothing; exit with 1 if a page would change

A page has ``<!-- numbers: NAME -->`` and ``<!-- end -->`` around what is written here. A benchmark without a result
gets a sentence that says so.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunelang.dsl.numbers import grouped

HERE = Path(__file__).parent
PAGES = (HERE.parent / "README.md", HERE / "README.md")
MARKED = re.compile(r"(<!-- numbers: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
METHODS = {
    "lc": "`lc`",
    "ista": "`ista`",
    "gradual magnitude": "gradual magnitude",
    "one-shot + finetune": "one-shot, fine-tuned",
}
OVERS = ("over_bare", "over_bare_fused")
Json = dict[str, Any]


def lenet300(result: Json) -> str:
    """Test error by method and share of weights: mean over seeds, and the range where there are several."""
    found = result["summary"]
    levels = [x for x in ("5%", "2%", "1%") if any(k.endswith(f" at {x}") for k in found)]
    rows = [[shown, *(_error(found.get(f"{name} at {x}")) for x in levels)] for name, shown in METHODS.items()]
    return (
        "**LeNet-300-100 on MNIST**: test error in % at a share of the 266 200 weights. Every method starts from the "
        f"same dense network of a seed (test error {found['dense at 100%']['mean']:.2f} %, after 20 epochs), sees the "
        "same batches of 256, and has the same budget of 40 epochs. The methods in code type are specs of this "
        "repository; the others are loops written by hand. Means over seeds, the lowest and highest in brackets, in "
        "parentheses how many.\n\n" + _table(["", *levels], rows)
    )


def _error(found: Json | None) -> str:
    if found is None:
        return "–"
    spread = f" [{found['low']:.2f}, {found['high']:.2f}]" if found["seeds"] > 1 else ""
    return f"{found['mean']:.2f}{spread} ({found['seeds']})"


def lc_toolkit(result: Json) -> str:
    """The published setting of the LC toolkit, as a spec."""
    published = result["published"]
    return (
        f"**The LC toolkit's own setting** (`specs/lc_toolkit_lenet300.prune`): {result['what']}. Test error "
        f"{result['test error, %']:.2f} % with {grouped(result['got'])} weights ({result['status']}), one run, seed "
        f"{result['seed']}. The toolkit's page states {published['test error of the LC toolkit, %']:.2f} %, from a "
        f"network that had {published['test error of its reference network, %']:.2f} % before. The two runs share the "
        "schedule and not the starting weights: the schedule works here too, and no more is shown."
    )


def overhead(result: Json) -> str:
    """Time of compiled epochs over that of a bare loop."""
    rows = [
        [name, f"{r['step_ms']['bare']} ms", *(_ratio(r[over][loop]) for loop in ("lc", "ista") for over in OVERS)]
        for name, r in result["networks"].items()
    ]
    head = ["network", "bare step", "`lc`", "`lc`, over fused", "`ista`", "`ista`, over fused"]
    return (
        "**Overhead**: time of one epoch of the compiled program over that of the loop one would write by hand, batch "
        f"256, {_where(result)}; medians of {result['rounds']} rounds, quartiles in brackets. *Over fused*: over the "
        "same loop with torch's fused SGD, which the program uses.\n\n" + _table(head, rows)
    )


def _ratio(found: Json) -> str:
    low, high = found["quartiles"]
    return f"{found['median']:.2f} [{low:.2f}, {high:.2f}]"


def projection(result: Json) -> str:
    """Time of exact selection in units of one sum."""
    rows = [
        [name, *(f"{r[x]:.1f}" for x in ("min", "median", "max")), f"{r['limit']:g}" if "limit" in r else ""]
        for name, r in result["ratio_to_sum"].items()
    ]
    return (
        f"**Exact projection** onto the {result['kept']:.0%} largest of {grouped(result['weights'])} weights, in "
        f"units of one `x.sum()` of the same tensor ({result['sum_ms']['median']:.1f} ms), {_where(result)}. *Limit* "
        "is what the median is held to.\n\n" + _table(["", "least", "median", "greatest", "limit"], rows)
    )


def check(result: Json) -> str:
    """Seconds of checking, beside what importing torch takes."""
    found = {name: (f"{r['cpu_median']:.2f} s", f"{r['wall_median']:.2f} s") for name, r in result["seconds"].items()}
    rows = [[name, *times] for name, times in found.items() if name != "import torch"]
    return (
        "**Checking**: time of `prune check` with a saved table of shapes, after Python has started: a spec with a "
        "budget of weights and one of multiply-adds for ResNet-50, and for chains of layers with one budget more for "
        f"each layer. Importing torch, which it does not do, takes {found['import torch'][0]} there. Medians of "
        f"{result['rounds']}, Python {result['python']}, {result['machine']}.\n\n" + _table(["", "CPU", "clock"], rows)
    )


def gpu(result: Json) -> str:
    """What ran on the accelerator."""
    rows = [[c["name"], c["outcome"], c["detail"]] for c in result["checks"]]
    return f"**On {result['device']}**, torch {result['torch']}:\n\n" + _table(["check", "outcome", ""], rows)


WRITERS: dict[str, tuple[Callable[[Json], str], str, str]] = {
    "lenet300": (lenet300, "The comparison on MNIST has no result in this checkout", "--root MNIST_FOLDER"),
    "lc_toolkit": (lc_toolkit, "The LC toolkit's setting has no result in this checkout", "--root MNIST_FOLDER"),
    "overhead": (overhead, "The overhead has no result in this checkout", "--json benchmarks/overhead/result.json"),
    "projection": (
        projection,
        "The projection has no result in this checkout",
        "--json benchmarks/projection/result.json",
    ),
    "check": (check, "The time of checking has no result in this checkout", "--json benchmarks/check/result.json"),
    "gpu": (gpu, "**Nothing here has been run on a GPU yet.** There is no result", "--json benchmarks/gpu/result.json"),
}


def section(name: str, folder: Path = HERE) -> str:
    """What stands between the marks of a benchmark."""
    write, missing, arguments = WRITERS[name]
    path = folder / name / "result.json"
    if not path.is_file():
        return f"{missing}; `python -m benchmarks.{name} {arguments}` makes one.\n"
    return write(json.loads(path.read_text(encoding="utf-8"))) + "\n"


def written(page: str) -> str:
    """The text of a page with every section as it should be. Raises KeyError for a benchmark that is not known."""
    return MARKED.sub(lambda m: m[1] + section(m[2]) + m[4], page)


def _where(result: Json) -> str:
    threads = "one thread" if result["threads"] == 1 else f"{result['threads']} threads"
    return f"on {result['device']} with {threads}, torch {result['torch']}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str]) -> int:
    """0, or with ``--check`` 1 where a page is out of date."""
    stale = []
    for page in PAGES:
        now = page.read_text(encoding="utf-8")
        if written(now) != now:
            stale.append(page)
            if "--check" not in arguments:
                page.write_text(written(now), encoding="utf-8")
    if "--check" not in arguments:
        return 0
    for page in stale:
        sys.stderr.write(
            f"{page.parent.name}/{page.name} shows other numbers than the results: run `python -m benchmarks.readme`\n"
        )
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
