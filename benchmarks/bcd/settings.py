"""What is compared and what is checked: networks, compression ratios, methods, blocks, and options varied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import prod
from typing import Final

from prunelang.compiler.forms import Modes
from prunelang.compiler.trains import full_ranks, parameters

BATCH: Final = 256
SGD: Final = "sgd(lr = {}, momentum = 0.9, nesterov = true)"
COSINE: Final = "ramp({}, {}, 0, 1, shape = cosine)"


# ── compare ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Network:
    """A constructor, numbers in its dense form, modes of the layers that become trains, and passes over the data."""

    constructor: str
    dense: int
    modes: Mapping[str, Modes]
    ratios: tuple[str, ...]
    passes: int


NETWORKS: Final[Mapping[str, Network]] = {
    "mlp": Network(
        "mlp([784, 500, 10])",
        785 * 500 + 501 * 10,
        {"fc1": ((5, 14), (10, 8), (10, 7))},
        ("0.77", "0.34", "0.09", "0.02"),
        10,
    ),
    "cnn": Network(
        "strided_cnn(channels = [8], hidden = [256, 256])",
        10 * 8 + 1353 * 256 + 257 * 256 + 257 * 10,
        {"fc1": ((4, 8), (8, 13), (8, 13)), "fc2": ((4, 4), (8, 8), (8, 8))},
        ("0.18", "0.013"),
        10,
    ),
}
BCD: Final = "bcd"
DENSE: Final = "dense"
METHODS: Final = (BCD, "factors", "lc", DENSE)
MATCHES: Final = ("passes", "time")
PUBLISHED: Final = {"cnn": {"0.013": 98.2, "0.18": 98.4}}
"""Test accuracies in % in the logs of the paper's authors: a wider network, 6 000 images, up to 2 000 iterations."""


@cache
def rank(name: str, ratio: str) -> int:
    """The largest bound on the ranks at which the network stores no more than `ratio` of its dense numbers."""
    network = NETWORKS[name]
    layers = {layer: prod(m for m, _ in modes) * prod(n for _, n in modes) for layer, modes in network.modes.items()}
    rest = network.dense - sum(layers.values())
    most = max(max(full_ranks(modes)) for modes in network.modes.values())
    fits = [r for r in range(1, most + 1) if rest + stored(name, r) <= Fraction(ratio) * network.dense]
    return max(fits)


def stored(name: str, r: int) -> int:
    """Numbers in the cores of the network's trains."""
    return sum(parameters(modes, r) for modes in NETWORKS[name].modes.values())


def compared(name: str, method: str, ratio: str, passes: int, root: str) -> str:
    """The spec of a method that reads the data `passes` times."""
    network = NETWORKS[name]
    loss = "mse(net)" if method == BCD else "cross_entropy(net)"
    lines = [
        f"model net = {network.constructor}",
        f'data mnist(root = "{root}", batch = {BATCH}, seed = 0)',
        f"minimize {loss}",
    ]
    if method != DENSE:
        r = rank(name, ratio)
        lines.append("subject to")
        for layer, modes in network.modes.items():
            listed = [list(pair) for pair in modes]
            lines.append(f'    {layer}: tt_rank(net["{layer}"].weights, modes = {listed}) ≤ {r}')
    return "\n".join((*lines, *stages(method, passes), 'report "accuracy": accuracy(net), "params": params(net)', ""))


def stages(method: str, passes: int) -> tuple[str, ...]:
    """The stages of a method, `passes` epochs or iterations in all; every rate falls along a cosine to a hundredth."""
    whole = SGD.format(COSINE.format("0.1", "1e-3"))
    if method == BCD:
        return (f"solve bcd(steps = {passes})",)
    if method == "factors":
        return (f"solve factors() with {whole} for {passes} epochs",)
    if method == DENSE:
        return (f"pretrain with {whole} for {passes} epochs",)
    before = max(1, passes // 4)
    within = max(1, passes // 2)
    after = passes - before - within
    found = (
        f"pretrain with {SGD.format(COSINE.format('0.1', '0.05'))} for {before} epochs",
        f"solve lc(μ = 1e-3 * 300^p, steps = {within}) with {SGD.format('0.05 * 0.2^p')} for 1 epochs",
    )
    return (*found, f"finetune with {SGD.format(COSINE.format('0.02', '1e-3'))} for {after} epochs")[
        : 3 if after else 2
    ]


# ── decrease ──────────────────────────────────────────────────────────────────────────────────────────────────────────

CHAINS: Final[Mapping[str, tuple[str, int]]] = {
    "mlp": ("mlp([64, 128, 64, 10])", 200),
    "cnn": ("strided_cnn(channels = [8, 16], hidden = [64], inputs = [1, 8, 8])", 150),
}
"""Networks for the digits, and iterations."""
BLOCKS: Final[Mapping[str, tuple[str, ...]]] = {
    "dense": (),
    "tt": ('train: tt_rank(net["fc1"].weights) ≤ 6',),
    "ℓ0": ('pruned: ‖net.weights except net["{last}"]‖₀ ≤ 10%',),
    "tt and ℓ0": ('train: tt_rank(net["fc1"].weights) ≤ 6', 'pruned: ‖net["{other}"].weights‖₀ ≤ 20%'),
}
NAMED: Final = {"mlp": {"last": "fc3", "other": "fc2"}, "cnn": {"last": "fc2", "other": "conv2"}}


def checked(name: str, blocks: str) -> str:
    """The spec of a run whose every iteration is checked."""
    constructor, steps = CHAINS[name]
    return _digits(constructor, [line.format(**NAMED[name]) for line in BLOCKS[blocks]], f"bcd(steps = {steps})")


# ── sensitivity ───────────────────────────────────────────────────────────────────────────────────────────────────────

FACTORS: Final = ("0.01", "0.1", "1", "10", "100")
DEFAULTS: Final = {"γ": "1", "ρ": "1", "τ": "0.001 * 10000^p", "ω": "0.001", "α": "0.1"}
ALONE: Final = ("τ", "ω", "α")
STEPS: Final = 100


def settings() -> dict[str, dict[str, float]]:
    """Options by name of a setting: multiples of γ and ρ on the whole grid, of the others one at a time."""
    found = {f"γ={g} ρ={r}": {"γ": float(g), "ρ": float(r)} for g in FACTORS for r in FACTORS}
    return found | {f"{x}={v}": {x: float(v)} for x in ALONE for v in FACTORS if v != "1"}


def varied(factors: Mapping[str, float]) -> str:
    """The spec of a run whose options are these multiples of the defaults."""
    given = "".join(f"{name} = {factor:g} * {DEFAULTS[name]}, " for name, factor in factors.items())
    return _digits(CHAINS["mlp"][0], list(BLOCKS["tt"]), f"bcd({given}steps = {STEPS})")


def _digits(constructor: str, constraints: list[str], solver: str) -> str:
    lines = [f"model net = {constructor}", "data digits(seed = 0)", "minimize mse(net)"]
    if constraints:
        lines += ["subject to", *(f"    {line}" for line in constraints)]
    return "\n".join((*lines, f"solve {solver}", 'report "accuracy": accuracy(net), "params": params(net)', ""))
