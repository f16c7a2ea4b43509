"""The section of the pages that shows the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.bcd.settings import ALONE, BCD, DEFAULTS, DENSE, FACTORS, METHODS
from benchmarks.markdown import spread_text, table
from prunelang.dsl.numbers import grouped

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "bcd.svg"
SHOWN = {BCD: "`bcd`", "factors": "the same cores by SGD", "lc": "`lc`", DENSE: "dense, by SGD"}


def section(result: dict[str, Any]) -> str:
    """The certificate, the comparison with gradients, and the sensitivity to options; each if it was measured."""
    found = result["summary"]
    parts = [write(found[study], result) for study, write in STUDIES.items() if found.get(study)]
    return "\n\n".join(parts)


def _decrease(found: dict[str, Any], result: dict[str, Any]) -> str:
    rows = []
    for key, r in found.items():
        name, _, blocks = key.partition("/")
        numbers = [grouped(r[k]) for k in ("iterations", "accepted", "violations")]
        rows.append([f"{name}, {blocks}", *numbers, str(r["failed"]), _accuracy(r)])
    broken, total = (sum(r[k] for r in found.values()) for k in ("violations", "accepted"))
    runs = sum(r["runs"] for r in found.values())
    return (
        "**The certificate of `bcd`**: complete runs on the embedded digits with dense, tensor-train and pruned "
        "layers, the CNN with a convolution behind a convolution. Every iteration must satisfy L(Pᵏ) ≤ L(Pᵏ⁻¹) − "
        "λ‖ΔP‖² up to 64 ε L, computed again from the numbers in the history. "
        f"Violations: {grouped(broken)} in {grouped(total)} iterations of {runs} runs.\n\n"
        + table(["", "iterations", "accepted", "violations", "failed runs", "test accuracy, %"], rows)
        + "\n\n![The objective, and the least residual below its bound](docs/images/bcd.svg)" * PICTURE.is_file()
    )


def _compare(found: dict[str, Any], result: dict[str, Any]) -> str:
    rows = []
    points = dict.fromkeys(tuple(key.split("/")[:2]) for key in found)
    for name, ratio in sorted(points, key=lambda p: (p[0] != "mlp", -float(p[1]))):
        for method in METHODS:
            by_passes, by_time = (found.get(f"{name}/{ratio}/{method}/{x}") for x in ("passes", "time"))
            if by_passes or by_time:
                at = f"{name}, {ratio}" if ratio != "1" else name
                cells = [_accuracy(by_passes), _seconds(by_passes), _accuracy(by_time), _seconds(by_time)]
                rows.append([f"{at}, {SHOWN[method]}", *cells])
    bcd = [r for key, r in found.items() if f"/{BCD}/" in key and "violations" in r]
    broken, total = (sum(r[k] for r in bcd) for k in ("violations", "iterations"))
    passes = ", ".join(f"{n} {p}" for n, p in result["passes"].items())
    published = "; ".join(
        f"{n} {', '.join(f'{a} at {r}' for r, a in by.items())}" for n, by in result["published"].items()
    )
    head = ["network, ratio", "equal passes", "s", "equal time", "s"]
    return (
        "**Tensor trains on MNIST**: test accuracy in % where the network stores a share of its dense numbers. `bcd` "
        "takes no gradient; the same cores are trained by SGD (`solve factors()`), `lc` projects onto the same trains, "
        f"and the dense network is as large as before. *Equal passes*: epochs as many as `bcd` has iterations ({passes}"
        "). *Equal time*: as many as take the processor time of `bcd`. Seconds of one thread. "
        f"Violations of the decrease: {grouped(broken)} in {grouped(total)} iterations. The authors' logs of a wider "
        f"network on 6 000 images, up to 2 000 iterations: {published}. {_verdict(found)}\n\n" + table(head, rows)
    )


def _verdict(found: dict[str, Any]) -> str:
    """At how many points `bcd` is at or above the others that were measured there."""
    ahead = points = 0
    for key in (key for key, r in found.items() if f"/{BCD}/" in key and r["accuracy"]):
        name, ratio, _, _ = key.split("/")
        own = found[key]["accuracy"]["mean"]
        others = [found.get(f"{name}/{ratio}/{m}/{x}") for m in ("factors", "lc") for x in ("passes", "time")]
        beside = [r["accuracy"]["mean"] for r in others if r and r["accuracy"]]
        points += bool(beside)
        ahead += bool(beside) and own >= max(beside)
    return f"`bcd` has the best mean among the compressed networks at {ahead} of {points} points."


def _sensitivity(found: dict[str, Any], result: dict[str, Any]) -> str:
    grid = [[f"γ × {g}", *(_accuracy(found.get(f"γ={g} ρ={r}")) for r in FACTORS)] for g in FACTORS]
    lines = []
    for x in ALONE:
        cells = [found.get("γ=1 ρ=1" if v == "1" else f"{x}={v}") for v in FACTORS]
        lines.append([x, *(_accuracy(c) for c in cells)])
    means = [r["accuracy"]["mean"] for r in found.values() if r["accuracy"]]
    defaults = ", ".join(f"{x} = {v}" for x, v in DEFAULTS.items())
    return (
        "**How much the options of `bcd` matter**: test accuracy in % on the embedded digits, with a tensor train. "
        f"Factors are relative to the defaults ({defaults}). Over all settings the "
        f"means lie between {min(means):.1f} and {max(means):.1f} %.\n\n"
        + table(["", *(f"ρ × {r}" for r in FACTORS)], grid)
        + "\n\n"
        + table(["alone", *(f"× {v}" for v in FACTORS)], lines)
    )


STUDIES = {"decrease": _decrease, "compare": _compare, "sensitivity": _sensitivity}


def _accuracy(found: dict[str, Any] | None) -> str:
    return "–" if found is None or not found["accuracy"] else spread_text(found["accuracy"], 2)


def _seconds(found: dict[str, Any] | None) -> str:
    return "–" if found is None else f"{found['processor']['mean']:.0f}"
