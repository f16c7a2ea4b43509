"""The optimisers that a stage may name after ``with``; each is torch's own, with its own options."""

from __future__ import annotations

from typing import ClassVar, Literal

from prunelang.compiler.options import Options, number, option
from prunelang.compiler.schedule import Schedule

LR_CLOCKS = ("epoch", "step", "k", "p")


class Optimizer(Options):
    kind: ClassVar[Literal["solver", "optimizer"]] = "optimizer"
    lr: Schedule


class Sgd(Optimizer):
    word: ClassVar[str] = "sgd"
    doc: ClassVar[str] = "Stochastic gradient descent: v ← βv + g; W ← W − lr·v (Nesterov: W ← W − lr(g + βv))."
    reference: ClassVar[str] = "torch.optim.SGD; Sutskever et al., ICML 2013"

    lr: Schedule = option("step size", gt=0, clocks=LR_CLOCKS)
    momentum: Schedule = option("β, heavy-ball momentum", number("0"), ge=0, lt=1)
    nesterov: bool = option("Nesterov's form of the momentum step; needs momentum > 0", False)
    weight_decay: Schedule = option("coupled decay: g ← g + wd·W", number("0"), ge=0)


class Adam(Optimizer):
    word: ClassVar[str] = "adam"
    doc: ClassVar[str] = "Adam: moments m, v with bias correction; W ← W − lr·m̂/(√v̂ + ε)."
    reference: ClassVar[str] = "torch.optim.Adam; Kingma & Ba, ICLR 2015"

    lr: Schedule = option("step size", number("1e-3"), gt=0, clocks=LR_CLOCKS)
    beta1: Schedule = option("decay of the first moment", number("0.9"), ge=0, lt=1)
    beta2: Schedule = option("decay of the second moment", number("0.999"), ge=0, lt=1)
    eps: Schedule = option("ε in the denominator", number("1e-8"), gt=0)
    weight_decay: Schedule = option("coupled decay: g ← g + wd·W", number("0"), ge=0)


class AdamW(Adam):
    word: ClassVar[str] = "adamw"
    doc: ClassVar[str] = "Adam with decoupled weight decay: W ← W − lr·wd·W before the step."
    reference: ClassVar[str] = "torch.optim.AdamW; Loshchilov & Hutter, ICLR 2019"

    weight_decay: Schedule = option("decoupled decay", number("0.01"), ge=0)


OPTIMIZERS: dict[str, type[Optimizer]] = {o.word: o for o in (Sgd, Adam, AdamW)}
