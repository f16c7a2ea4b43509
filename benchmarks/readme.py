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
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bcd import page as bcd
from benchmarks.emitted import page as emitted
from benchmarks.factors import page as factors
from benchmarks.markdown import spread_text as _spread
from benchmarks.markdown import table as _table
from benchmarks.minimax import page as minimax
from benchmarks.one_default import page as one_default
from benchmarks.resume import page as resume
from benchmarks.spiking import page as spiking
from benchmarks.train_layers import page as train_layers
from prunelang.dsl.numbers import grouped

HERE = Path(__file__).parent
PAGES = (HERE.parent / "README.md", HERE / "README.md")
MARKED = re.compile(r"(<!-- numbers: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
METHODS = {
    "gda": "`gda`",
    "lc": "`lc`",
    "ista": "`ista` (S-LATS)",
    "ista lats": "`ista`, LATS",
    "ista stds_sine": "`ista`, STDS sine",
    "ista stds_linear": "`ista`, STDS linear",
    "ista pgh": "`ista`, PGH",
    "ista str": "`ista`, STR",
    "drr": "`drr`",
    "rl1": "`rl1`",
    "pmmp": "`pmmp`",
    "gradual magnitude": "gradual magnitude",
    "one-shot + finetune": "one-shot, fine-tuned",
}
NETWORKS = {"lenet_300_100": "LeNet-300-100", "lenet_5": "LeNet-5"}
OVERHEADS = {
    "lc": "`lc`",
    "ista": "`ista`",
    "gda": "`gda`",
    "bind": "`lc` through `bind`",
    "bind ista": "`ista` through `bind`",
}
OVERS = ("over_bare", "over_bare_fused")
STUDIED = {
    "drr α=0.0001": "`drr`, α = 1e-4",
    "drr α=3e-05": "`drr`, α = 3e-5",
    "drr α=1e-05": "`drr`, α = 1e-5",
    "simultaneous α=0.01": "as published: α = 0.01, every variable by Adam",
    "simultaneous": "α steered to the count",
    "optimistic u": "α steered to the count; u along 2r − r₋",
    "simultaneous driven": "α steered until the cut is small",
    "optimistic driven": "α steered until the cut is small; u along 2r − r₋",
    "resets driven": "α steered until the cut is small; u reset every 3 epochs",
    "νPI driven": "α steered until the cut is small; u by νPI",
    "u rate ×10": "α steered to the count; u ten times as fast",
    "u rate ×0.1": "α steered to the count; u ten times as slow",
    "simultaneous, u a tensor": "α steered to the count; one u for each tensor",
    "inner w, u linear to 3.5": "w at its inner minimum; u raised by a schedule",
    "eliminated, u to 1": "w and γ at their inner minima; u raised by a schedule",
}
COMPRESSED = {
    "pruned and rounded": "pruned and rounded weights",
    "pruned float32": "pruned float32 file",
    "dense float32": "dense float32 file",
}
PICTURE = HERE.parent / "docs" / "images" / "teacher_student.svg"
Json = dict[str, Any]


def lenet300(result: Json) -> str:
    """Test error by method and share of weights: mean over seeds, and the range where there are several."""
    found = result["summary"]
    levels = [x for x in ("5%", "2%", "1%") if any(k.endswith(f" at {x}") for k in found)]
    measured = {k.rpartition(" at ")[0] for k in found}
    rows = [
        [shown, *(_error(found.get(f"{name} at {x}")) for x in levels)]
        for name, shown in METHODS.items()
        if name in measured
    ]
    return (
        "**LeNet-300-100 on MNIST**: test error in % at a share of the 266 200 weights. Every method starts from the "
        f"same dense network of a seed (test error {found['dense at 100%']['mean']:.2f} %, after 20 epochs), sees the "
        "same batches of 256, and has the same budget of 40 epochs. The methods in code type are specs of this "
        "repository; the others are loops written by hand. Means over seeds, the lowest and highest in brackets, in "
        "parentheses how many.\n\n" + _table(["", *levels], rows)
    )


def _error(found: Json | None) -> str:
    return "–" if found is None else _spread(found, 2)


def l0_methods(result: Json) -> str:
    """Compression and error of the relaxations and of two methods that take a count, at matched accuracy."""
    rows = []
    for name, methods in result["summary"].items():
        epochs = sum(result["epochs"][name].values())
        base, _, suffix = name.partition(", ")
        title = f"{NETWORKS[base]}, {suffix + ', ' * bool(suffix)}{epochs} epochs"
        for method, r in methods.items():
            shown = "dense" if method == "dense" else f"`{method}`, {r['strength']}{'' if r['within'] else ' †'}"
            cells = [_spread(r[k], d) if k in r else "–" for k, d in (("error", 2), ("drop", 2), ("ratio", 1))]
            rows.append([title, shown, *cells, grouped(round(r["bytes"]["mean"]))])
            title = ""
    return (
        "**Relaxations of ‖w‖₀ on MNIST**: test error in %, how much that is above the dense network of the same seed, "
        "weights in all over weights kept, and bytes of the coded file. `drr`, `rl1` and `pmmp` minimise the loss plus "
        "α for every weight that is not 0, and TAMADE and reachability prune; `lc` and `ista` are asked for a count. α "
        f"and the count are the strongest tried that cost at most {result['drop']:g} points on the validation split of "
        "seed 0 († none did: the mildest). Means over seeds, the lowest and highest in brackets, in parentheses how "
        "many.\n\n" + _table(["network, epochs in all", "method", "test error", "drop", "ratio", "bytes"], rows)
    )


def reversed_form(result: Json) -> str:
    """Fewest weights under floors on accuracy."""
    digits = {"kept": 0, "ratio": 1, "certified accuracy": 2, "test accuracy": 2}
    rows = [
        [floor, *(_spread(r[k], d) for k, d in digits.items()), f"{r['met']} of {r['kept']['seeds']}"]
        for floor, r in result["summary"].items()
    ]
    head = ["floor", "weights kept", "ratio", "accuracy on `certify`", "on test", "floor met"]
    return (
        "**Fewest weights for an accuracy** (`specs/reversed_lenet300.prune`, at 98 % "
        "`benchmarks/reversed/dropout.prune`, which trains with dropout): LeNet-300-100 on MNIST, "
        "`minimize ‖net.weights‖₀ subject to accuracy(net) ≥ floor` on validation. *Floor met* counts certificates "
        "whose confidence bound holds on the half of validation that the search did not see. Means over seeds, the "
        "lowest and highest in brackets, in parentheses how many.\n\n" + _table(head, rows)
    )


def teacher_student(result: Json) -> str:
    """Sizes at the least test loss and the least description length."""
    rows = [
        [
            grouped(int(size)),
            f"{r['least test loss']:.0f}",
            _listed(r["best by seed"]["test"]),
            f"{r['least description']:.0f}",
            _listed(r["best by seed"]["description"]),
        ]
        for size, r in result["summary"].items()
    ]
    head = ["samples", "kept at the least test loss", "by seed", "kept at the least description length", "by seed"]
    return (
        "**How many weights are worth keeping** (`specs/teacher_student.prune`): a student with "
        f"{result['parameters']} parameters learns a teacher of 72 from samples with noise {result['noise']:g}, "
        "penalised by `drr` at strengths from 0 to 0.01. The description is −log₂ of the targets' density at the known "
        "noise, log₂ C(N, k) for the positions, and 8 bits for each of the k values. In the first and third column "
        "means over seeds: of the loss and the bits at every strength, and of the size where they are least.\n\n"
        + _table(head, rows)
        + "\n\n![Test loss and description length over the weights kept](docs/images/teacher_student.svg)"
        * PICTURE.is_file()
    )


def _listed(values: list[float]) -> str:
    return ", ".join(f"{v:g}" for v in sorted(values))


def pmmp_study(result: Json) -> str:
    """Test error of the ways to run the minimax, beside `drr`."""
    found = result["summary"]
    digits = {"error": 2, "before": 2, "cut": 2, "removed": 3, "seeds": 0}
    rows = [
        [shown, *(f"{r[k]:.{d}f}" for k, d in digits.items())]
        for name, shown in STUDIED.items()
        if (r := found.get(name))
    ]
    head = ["", "test error", "before the cut", "after the cut", "share cut", "seeds"]
    return (
        "**How to run the minimax of `pmmp`**: LeNet-300-100 on MNIST, 2 % of the weights, 15 epochs with the penalty "
        "from the same dense network of a seed, a cut to 5 324 weights, 5 epochs under that mask. Test error in %; "
        "*share cut* is ‖removed‖/‖W‖. Where there are several seeds, their mean. "
        f"{len(found)} settings were tried, most with one seed, which is a screening and no ranking. "
        f"{_verdict(found)}\n\n" + _table(head, rows)
    )


def _verdict(found: Json) -> str:
    """Which is ahead where there are most seeds."""
    gates, drr = (
        max((r for k, r in found.items() if k.startswith("drr") is side), key=lambda r: (r["seeds"], -r["error"]))
        for side in (False, True)
    )
    outcome = "is ahead of" if gates["error"] < drr["error"] else "is not ahead of"
    return (
        f"Where there are most seeds, the minimax ends at {gates['error']:.2f} % ({gates['seeds']}) and {outcome} "
        f"`drr` with {drr['error']:.2f} % ({drr['seeds']})."
    )


def coded(result: Json) -> str:
    """Bytes of a network in every format, and after general compressors."""
    runs = result["runs"]
    lines: list[tuple[str, Callable[[Json], str]]] = [
        ("**coded**, 8 bits a value", partial(_at, "formats", "coded")),
        ("entropy of positions and values", lambda r: grouped(r["entropy bound"])),
        *((f"`{x}`", partial(_at, "formats", x)) for x in ("csr", "bitmask", "dense")),
        *(
            (f"{x}, of the {shown}", partial(_at, group, x))
            for group, shown in COMPRESSED.items()
            for x in next(iter(runs.values()))[group]
        ),
        ("accuracy before rounding, %", lambda r: f"{100 * r['accuracy before rounding']:.2f}"),
        ("accuracy of the coded file, %", lambda r: f"{100 * r['accuracy after rounding']:.2f}"),
    ]
    return (
        "**The coded file** of LeNet-300-100 on MNIST at a share of its weights, in bytes; kernels on 8 bits a value, "
        "everything else to the last bit. The entropy counts positions and values as if they were independent; the "
        "file adapts to rows, columns and neighbours, and can be shorter. *Rounded* is one byte for each entry of a "
        "kernel after the rounding of the coded file. One run each.\n\n"
        + _table(["", *runs], [[shown, *(show(r) for r in runs.values())] for shown, show in lines])
    )


def _at(group: str, name: str, run: Json) -> str:
    return grouped(run[group][name])


def description_length(result: Json) -> str:
    """Bytes for a whole text: a network and what it does not predict, beside general compressors."""
    net = result["byte_transformer"]
    sizes = {8: (net["model bytes, coded"], net["total bytes"])}
    coarser = net["on coarser grids"].items()
    sizes |= {int(k.split()[0]): (r["model bytes, coded"], r["total bytes"]) for k, r in coarser}
    rows = [
        [f"transformer, {bits} bits a value", grouped(model), grouped(total - model), grouped(total)]
        for bits, (model, total) in sizes.items()
    ]
    rows += [[name, "–", "–", grouped(r["total bytes"])] for name, r in result["compressors"].items()]
    least, rival = min(t for _, t in sizes.values()), result["compressors"]["LZMA2 (xz -9e)"]["total bytes"]
    verdict = "loses to" if least > rival else "beats"
    text = result["what"].removeprefix("bits for ").partition(",")[0]
    return (
        f"**A text as a network and what it does not predict**: {text}, in bytes. A byte-level "
        f"transformer ({net['layers']} layers of width {net['width']}, "
        f"{grouped(net['kernel weights kept'])} kernel weights kept) is trained on the text under `minimize "
        f"description_length(net)`, once, and its coded weights count. It {verdict} LZMA2 over the whole file: on "
        f"its best grid it takes {least / rival:.2f} times the bytes. Only the first row was trained for; the coarser "
        "grids round the same weights.\n\n" + _table(["", "model", "text", "total"], rows)
    )


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
        [name, shown, f"{r['step_ms']['bare']} ms", *(_ratio(r[over][loop]) for over in OVERS)]
        for name, r in result["networks"].items()
        for loop, shown in OVERHEADS.items()
        if loop in r["over_bare"]
    ]
    return (
        "**Overhead**: time of one epoch of the compiled program, or of one's own loop with a program bound to it, "
        f"over that of the loop one would write by hand, batch 256, {_where(result)}; medians of {result['rounds']} "
        "rounds, quartiles in brackets. *Over fused*: over the same loop with torch's fused SGD, which the program "
        "uses.\n\n" + _table(["network", "", "bare step", "over bare", "over fused"], rows)
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
    "factors": (
        factors.section,
        "The compressions of the LC toolkit's table have no result in this checkout",
        "--root MNIST_FOLDER",
    ),
    "bcd": (
        bcd.section,
        "Block coordinate descent has no result in this checkout",
        "--decrease --compare --sensitivity --root MNIST_FOLDER",
    ),
    "train_layers": (train_layers.section, "The time of factored layers has no result in this checkout", ""),
    "l0_methods": (l0_methods, "The relaxations have no result in this checkout", "--root MNIST_FOLDER"),
    "minimax": (minimax.section, "Minimax under budgets has no result in this checkout", "--root MNIST_FOLDER"),
    "one_default": (
        one_default.section,
        "One default for all networks has no result in this checkout",
        "--root MNIST_FOLDER",
    ),
    "spiking": (spiking.section, "Spiking networks have no result in this checkout", "--root MNIST_FOLDER"),
    "reversed": (reversed_form, "The floors on accuracy have no result in this checkout", "--root MNIST_FOLDER"),
    "teacher_student": (teacher_student, "Teacher and student have no result in this checkout", ""),
    "pmmp_study": (pmmp_study, "The study of the minimax has no result in this checkout", "--root MNIST_FOLDER"),
    "coded": (coded, "The coded file has no result in this checkout", "--root MNIST_FOLDER"),
    "description_length": (
        description_length,
        "The description length of a text has no result in this checkout",
        "--text TINY_SHAKESPEARE",
    ),
    "overhead": (overhead, "The overhead has no result in this checkout", "--json benchmarks/overhead/result.json"),
    "emitted": (emitted.section, "The scripts have no result in this checkout", ""),
    "resume": (resume.section, "The kills have no result in this checkout", "--json benchmarks/resume/result.json"),
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
        return f"{missing}; `python -m benchmarks.{name}{' ' * bool(arguments)}{arguments}` makes one.\n"
    return write(json.loads(path.read_text(encoding="utf-8"))) + "\n"


def written(page: str, root: str = "") -> str:
    """The text of a page with every section as it should be; `root` leads from it to the folder of the README.

    Raises KeyError for a benchmark that is not known.
    """
    return MARKED.sub(lambda m: m[1] + section(m[2]).replace("](docs/", f"]({root}docs/") + m[4], page)


def _where(result: Json) -> str:
    threads = "one thread" if result["threads"] == 1 else f"{result['threads']} threads"
    return f"on {result['device']} with {threads}, torch {result['torch']}"


def main(arguments: list[str]) -> int:
    """0, or with ``--check`` 1 where a page is out of date."""
    stale = []
    for page in PAGES:
        now = page.read_text(encoding="utf-8")
        new = written(now, "../" if page.parent == HERE else "")
        if new != now:
            stale.append(page)
            if "--check" not in arguments:
                page.write_text(new, encoding="utf-8")
    if "--check" not in arguments:
        return 0
    for page in stale:
        sys.stderr.write(
            f"{page.parent.name}/{page.name} shows other numbers than the results: run `python -m benchmarks.readme`\n"
        )
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
