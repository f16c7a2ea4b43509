"""Which update makes minimax pruning competitive with DRR at equal budget: LeNet-300-100, MNIST, 2 % kept.

    python -m benchmarks.pmmp_study --root MNIST_FOLDER --seeds 0 1 2 --json benchmarks/pmmp_study/result.json

Every candidate starts from the same dense network of a seed (10 epochs), has 15 epochs of Adam with a cosine step size,
is cut to the 5 324 largest weights and has 5 epochs under that mask. The judge is the test error at the end; beside it
stand the error right after the cut and the share ‖removed‖/‖θ‖ that the cut took. With `--only` some candidates.
Rows that the JSON file has already are kept.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from prunelang.runtime.data import Batches, Dataset
from prunelang.runtime.registry import data, models

KEPT, DENSE, EPOCHS, FINETUNE, BATCH, LR = 5_324, 10, 15, 5, 256, 1e-3
REACH = 0.5  # share of the 15 epochs at which a steered α arrives at 2 %


@dataclass(frozen=True)
class Candidate:
    """One way to run the objective ``L + αΣγ + Σ u((θ − wγ)² + w²γ(1 − γ))``.

    `alpha` None: α is set five times an epoch so that κ(t) of the u θ² are above it. `update` says how u rises: adam
    (simultaneous), plain, nupi, or a schedule that is geometric or linear in time and ends at `rate`. `eliminated`: w
    and γ at their inner minimum, w = θ and γ = 1[uθ² > α]. `optimistic`: which gradients are extrapolated, 2g − g_past.
    """

    update: str = "adam"
    alpha: float | None = None
    rate: float = LR
    optimistic: str = ""
    reset: int = 0  # epochs between resets of u
    eliminated: bool = False
    inner: bool = False  # w at its inner minimum θ, γ trained
    shared: bool = False  # one u a tensor
    reach: float = REACH
    drive: bool = False  # from reach on the rank that sets α follows the share that a cut would remove
    start: float = 0.01  # of a scheduled u, as a share of its end
    beta: float = 5.0  # of drr


class Flat:
    """The weights of the network as one vector, and everything else."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        weights = [p for p in net.parameters() if p.dim() > 1]
        self.rest = [p for p in net.parameters() if p.dim() == 1]
        self.sizes = [p.numel() for p in weights]
        self.theta = nn.Parameter(torch.cat([p.detach().flatten() for p in weights]))
        self.theta.grad = self.grad = torch.zeros_like(self.theta)
        values, grads = torch.split(self.theta.detach(), self.sizes), torch.split(self.grad, self.sizes)
        for p, x, g in zip(weights, values, grads, strict=True):
            p.data, p.grad = x.view_as(p), g.view_as(p)

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        self.grad.zero_()
        for p in self.rest:
            p.grad = None
        loss = cross_entropy(self.net(x), y)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return self.grad

    def totals(self, v: Tensor) -> Tensor:
        """The sum over each tensor, given to all its entries."""
        return torch.cat([x.sum().expand(n) for x, n in zip(torch.split(v, self.sizes), self.sizes, strict=True)])


class Pmmp:
    def __init__(self, c: Candidate, flat: Flat, total: int) -> None:
        self.c, self.flat, self.total, self.done = c, flat, total, 0
        theta = flat.theta.detach()
        self.w, self.gamma, self.u = theta.clone(), torch.ones_like(theta), torch.zeros_like(theta)
        for x in (self.w, self.gamma, self.u):
            x.grad = torch.zeros_like(x)
        self.primal = torch.optim.Adam([self.w, self.gamma], lr=LR)
        self.dual = torch.optim.Adam([self.u], lr=c.rate, maximize=True)
        self.past: dict[str, Tensor] = {}
        self.smooth = torch.zeros_like(theta)
        self.alpha = c.alpha or 0.0
        self.rank = float(KEPT)

    def steer(self) -> None:
        if self.c.alpha is None:
            n = self.u.numel()
            kept = max(KEPT, round(n * (KEPT / n) ** (self.done / self.total / self.c.reach)))
            if self.c.drive and kept == KEPT:
                magnitudes = self.flat.theta.detach().abs()
                cut = float(magnitudes.topk(len(magnitudes) - KEPT, largest=False).values.norm() / magnitudes.norm())
                self.rank = min(KEPT, max(self.rank * (0.97 if cut > 0.02 else 1.02), 0.2 * KEPT))
                kept = round(self.rank)
            value = (self.u * self.flat.theta.detach().square()).kthvalue(max(1, n - kept)).values
            self.alpha = float(value)

    def ahead(self, name: str, g: Tensor) -> Tensor:
        """2g − g_past."""
        past = self.past.get(name, g)
        self.past[name] = g.clone()
        return 2 * g - past

    @torch.no_grad()
    def add(self, g_theta: Tensor, lr: float) -> None:
        """The gradients of all variables at one point; θ's is left in its place, the others step here."""
        c, u, theta = self.c, self.u, self.flat.theta
        if self.done % 47 == 0:
            self.steer()
        if c.eliminated:
            self.gamma = (u * theta.square() > self.alpha).to(theta)
            pull, residual = 2 * u * theta * (1 - self.gamma), theta.square() * (1 - self.gamma)
        else:
            w, gamma = self.w, self.gamma
            if c.inner:
                w.copy_(theta)
            apart = theta - w * gamma
            pull = 2 * u * (theta * (1 - gamma) if c.inner else apart)
            residual = apart.square() + w.square() * gamma * (1 - gamma)
            w.grad = -2 * u * gamma * (theta - w)
            gamma.grad = self.alpha + u * w * (w - 2 * theta)
            if c.optimistic == "all":
                pull, w.grad = self.ahead("θ", pull), self.ahead("w", w.grad)
                gamma.grad = self.ahead("γ", gamma.grad)
        g_theta.add_(pull)
        self.ascend(self.flat.totals(residual) if c.shared else residual, lr)
        if not c.eliminated:
            self.primal.param_groups[0]["lr"] = lr
            self.primal.step()
            self.gamma.clamp_(0, 1)
        self.done += 1

    def ascend(self, residual: Tensor, lr: float) -> None:
        c, u = self.c, self.u
        g = self.ahead("u", residual) if c.optimistic else residual
        if c.update == "adam":
            u.grad = g
            self.dual.step()
        elif c.update == "plain":
            u.add_(g, alpha=c.rate)
        elif c.update == "nupi":
            new = 0.9 * self.smooth + 0.1 * residual
            u.add_(residual, alpha=c.rate).add_(new - self.smooth, alpha=10 * c.rate)
            self.smooth = new
        elif c.update == "scheduled":
            u.fill_(c.rate * (c.start ** (1 - self.done / self.total)))
        elif c.update == "linear":
            u.fill_(c.rate * self.done / self.total)
        u.clamp_(min=0)
        if c.reset and (self.done + 1) % (235 * c.reset) == 0 and self.done < 0.7 * self.total:
            u.zero_()
            self.dual.state.clear()


class Drr:
    """``L + αΣ(1 − e^{−β|θ|})`` with α fixed."""

    def __init__(self, c: Candidate, flat: Flat, total: int) -> None:
        self.c, self.flat = c, flat

    @torch.no_grad()
    def add(self, g_theta: Tensor, lr: float) -> None:
        assert self.c.alpha is not None
        theta = self.flat.theta
        g_theta.add_(theta.sign() * torch.exp(-self.c.beta * theta.abs()), alpha=self.c.alpha * self.c.beta)


CANDIDATES: dict[str, tuple[type, Candidate]] = {
    **{f"drr α={a:g}": (Drr, Candidate(alpha=a)) for a in (1e-5, 3e-5, 1e-4)},
    # as published: α fixed, everything by Adam
    "simultaneous α=0.01": (Pmmp, Candidate(alpha=1e-2)),
    # α steered by the ranks of u θ²
    "simultaneous": (Pmmp, Candidate()),
    "simultaneous at once": (Pmmp, Candidate(reach=1e-9)),
    "u rate ×0.1": (Pmmp, Candidate(rate=0.1 * LR)),
    "u rate ×10": (Pmmp, Candidate(rate=10 * LR)),
    "optimistic u": (Pmmp, Candidate(optimistic="u")),
    "optimistic all": (Pmmp, Candidate(optimistic="all")),
    "νPI": (Pmmp, Candidate("nupi", rate=1.0)),
    "simultaneous, u a tensor": (Pmmp, Candidate(shared=True)),
    # the same, pressed until the cut removes next to nothing
    "simultaneous driven": (Pmmp, Candidate(drive=True)),
    "optimistic driven": (Pmmp, Candidate(optimistic="u", drive=True)),
    "νPI driven": (Pmmp, Candidate("nupi", rate=30.0, drive=True)),
    "resets driven": (Pmmp, Candidate(reset=3, drive=True)),
    "u rate ×3 driven": (Pmmp, Candidate(rate=3 * LR, drive=True)),
    # inner minima taken exactly: of w, then of γ as well
    "inner w": (Pmmp, Candidate(inner=True)),
    "inner w, u linear to 3.5": (Pmmp, Candidate("linear", rate=3.5, inner=True)),
    "eliminated, u to 0.1": (Pmmp, Candidate("scheduled", rate=0.1, eliminated=True)),
    "eliminated, u to 1": (Pmmp, Candidate("scheduled", rate=1.0, eliminated=True)),
    "eliminated at once, u to 0.1": (Pmmp, Candidate("scheduled", rate=0.1, eliminated=True, reach=1e-9)),
    "eliminated, u a tensor": (Pmmp, Candidate("plain", rate=1e-4, eliminated=True, shared=True)),
    "eliminated, u to 1, α=1e-4": (Pmmp, Candidate("scheduled", rate=1.0, alpha=1e-4, eliminated=True, start=1e-3)),
}


Complete = Callable[[Tensor, float], None]


def train(flat: Flat, dataset: Dataset, seed: int, first: int, epochs: int, add: Complete) -> None:
    """Adam with a cosine step size on θ and the rest; `add` completes θ's gradient."""
    flat.net.train()
    feed = Batches(dataset.train, BATCH, seed)
    total, done = epochs * len(feed), 0
    optimizer = torch.optim.Adam([flat.theta, *flat.rest], lr=LR)
    for epoch in range(epochs):
        for x, y in feed.epoch(first + epoch):
            lr = 0.5 * LR * (1 + math.cos(math.pi * done / total))
            optimizer.param_groups[0]["lr"] = lr
            add(flat.gradient(x, y), lr)
            optimizer.step()
            done += 1


@torch.no_grad()
def error(net: nn.Module, dataset: Dataset) -> float:
    net.eval()
    return round(100 * float((net(dataset.test.inputs).argmax(1) != dataset.test.targets).float().mean()), 2)


def trial(name: str, seed: int, dense: dict[str, Tensor], dataset: Dataset) -> dict[str, Any]:
    kind, candidate = CANDIDATES[name]
    torch.manual_seed(seed)
    net = models["lenet_300_100"].build()
    net.load_state_dict(dense)
    flat = Flat(net)
    total = EPOCHS * len(Batches(dataset.train, BATCH, seed))
    method = kind(candidate, flat, total)
    start = time.process_time()
    train(flat, dataset, seed, DENSE, EPOCHS, method.add)
    seconds = time.process_time() - start
    before = error(net, dataset)
    theta = flat.theta.detach()
    mask = torch.zeros_like(theta)
    mask[theta.abs().topk(KEPT).indices] = 1.0
    removed = float((theta * (1 - mask)).norm() / theta.norm())
    theta.mul_(mask)
    cut = error(net, dataset)

    def masked(g: Tensor, lr: float) -> None:
        g.mul_(mask)

    train(flat, dataset, seed, DENSE + EPOCHS, FINETUNE, masked)
    assert int(theta.count_nonzero()) <= KEPT
    extra = {"kept by γ": int((method.gamma > 0.5).sum()), "α": method.alpha} if isinstance(method, Pmmp) else {}
    found = {"error": error(net, dataset), "before": before, "cut": cut, "removed": round(removed, 4)}
    return {**found, **extra, "seconds": round(seconds, 1)}


def dense_network(seed: int, dataset: Dataset) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    net = models["lenet_300_100"].build()
    train(Flat(net), dataset, seed, 0, DENSE, lambda g, lr: None)
    return {k: v.clone() for k, v in net.state_dict().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of MNIST's idx files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/pmmp_study/result.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    dataset = data["mnist"].load(root=args.root).reshaped((784,))
    rows: dict[str, Any] = json.loads(args.json.read_text())["runs"] if args.json.exists() else {}
    for seed in args.seeds:
        wanted = [name for name in args.only if f"{name}/{seed}" not in rows]
        dense = dense_network(seed, dataset) if wanted else {}
        for name in wanted:
            rows[f"{name}/{seed}"] = trial(name, seed, dense, dataset)
            print(name, seed, rows[f"{name}/{seed}"], flush=True)
            save(args.json, rows)


def save(path: Path, rows: dict[str, Any]) -> None:
    document = {
        "what": "LeNet-300-100, MNIST, 2 % kept: 15 epochs with a penalty, cut, 5 epochs masked; test error in %",
        "torch": torch.__version__,
        "summary": dict(summary(rows)),
        "runs": rows,
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def summary(rows: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for key, row in rows.items():
        groups.setdefault(key.rsplit("/", 1)[0], []).append(row)
    for name, group in sorted(groups.items(), key=lambda x: statistics.fmean(r["error"] for r in x[1])):
        means = {k: round(statistics.fmean(r[k] for r in group), 4) for k in ("error", "before", "cut", "removed")}
        yield name, means | {"seeds": len(group)}


if __name__ == "__main__":
    main()
