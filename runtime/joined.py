"""A user's optimizer at the service of a program: what it moves in a step is what the program says.

Between steps it holds the groups that its owner gave it. Inside one, its groups are those of the graph: latents in the
place of the weights that they write, factors in the place of what they compose, trained levels beside them. Rates,
decay and moments are the user's own unless the spec's are asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from prunelang.compiler.graph import Batches, Factors, Optimizer, walk
from prunelang.compiler.graph.base import State
from prunelang.runtime.machine import Machine

Group = dict[str, Any]
NOT_OPTIONS = frozenset({"params", "param_names", "name"})


class Joined(torch.optim.Optimizer):
    """The groups and moments of one loop, for the steps of the user's optimizer `owner`.

    `groups` are (state name, index of the owner's group, tensors); the last of them, without a state name, are tensors
    that the program does not know. `options` are the spec's where they are to be followed.
    """

    def __init__(
        self,
        owner: torch.optim.Optimizer,
        groups: Iterable[tuple[str, int, list[Tensor]]],
        options: Mapping[str, Any] | None,
    ) -> None:
        self.owner, self.options, self.origins = owner, options, []
        self.defaults = owner.defaults
        self.state = defaultdict(dict)
        self.param_groups = []
        for name, origin, tensors in groups:
            self.origins.append(origin)
            self.param_groups.append({"params": tensors, "name": name})
        self.refresh()
        if options is not None:
            for group in self.param_groups:
                group.update(_fitting(options, group) if group["name"] else {})
        self.held: tuple[list[Group], Any] | None = None

    @property
    def coupled(self) -> bool:
        """Whether weight decay is added to the gradient, so that μW may ride on it."""
        kind = type(self.owner)
        if kind is torch.optim.SGD:
            return not any(g.get("maximize") for g in self.owner.param_groups)
        plain = not any(g.get("decoupled_weight_decay") or g.get("maximize") for g in self.owner.param_groups)
        return kind is torch.optim.Adam and plain

    def refresh(self) -> None:
        """The owner's options as they are now, under the pull that rides on its decay."""
        for origin, group in zip(self.origins, self.param_groups, strict=True):
            source = self.owner.param_groups[origin]
            follows = self.options is not None and group["name"] and "lr" in group
            if not follows:
                group.update({k: v for k, v in source.items() if k not in NOT_OPTIONS})
                if "pull" in group:
                    group["own_decay"] = group["weight_decay"]
                    group["weight_decay"] = group["own_decay"] + group["pull"]

    def begin(self) -> None:
        """Moments as at the start of training. A first step that is masked would leave those of momentum unset."""
        for group in self.param_groups:
            if group["name"] and group.get("momentum") and not group.get("dampening"):
                for p in group["params"]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)

    def keep_foreign(self, before: Joined | None) -> None:
        """Tensors that the program does not know keep their moments from loop to loop."""
        for group in self.param_groups if before is not None else ():
            for p in group["params"] if not group["name"] else ():
                if p in before.state:  # type: ignore[union-attr]  # there are no groups to walk otherwise
                    self.state[p] = before.state[p]  # type: ignore[union-attr]

    # ── one step of the owner ──

    @torch.no_grad()
    def unscale(self) -> None:
        """A scaler that leaves dividing to a fused kernel has not divided yet; closed forms need true gradients."""
        scale = getattr(self.owner, "grad_scale", None)
        if scale is None:
            return
        grads = [p.grad for g in self.owner.param_groups for p in g["params"] if p.grad is not None]
        if grads:
            torch._foreach_mul_(grads, scale.double().reciprocal().to(grads[0].dtype))
        self.owner.grad_scale = None  # type: ignore[attr-defined]  # read by fused kernels

    def lend(self, masked: Tensor | None) -> None:
        """From here to `take_back` the owner moves what the program moves; fused kernels read whether they are to."""
        self.refresh()
        self.held = (self.owner.param_groups, self.owner.state)
        self.owner.param_groups, self.owner.state = self.param_groups, self.state
        fused = any(g.get("fused") for g in self.param_groups)
        self.masks = masked is not None and fused and getattr(self.owner, "found_inf", None) is None
        if self.masks:
            self.owner.found_inf = masked  # type: ignore[attr-defined]

    def take_back(self) -> None:
        if self.held is not None:
            self.owner.param_groups, self.owner.state = self.held
            self.held = None
        if getattr(self, "masks", False):
            del self.owner.found_inf  # type: ignore[attr-defined]
            self.masks = False

    def zero_grad(self, set_to_none: bool = True) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    # ── state ──

    def saved(self) -> dict[str, Any]:
        """Options and moments in the order of the groups."""
        return {
            "groups": [{k: v for k, v in g.items() if k != "params"} for g in self.param_groups],
            "moments": [[_copied(self.state.get(p, {})) for p in g["params"]] for g in self.param_groups],
        }

    def put(self, saved: Mapping[str, Any]) -> None:
        for group, options, moments in zip(self.param_groups, saved["groups"], saved["moments"], strict=True):
            group.update(options)
            for p, found in zip(group["params"], moments, strict=True):
                self.state[p] = _copied(found)


def _copied(moments: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.clone() if isinstance(v, Tensor) else v for k, v in moments.items()}


def _fitting(options: Mapping[str, Any], group: Group) -> Group:
    """The spec's options under torch's names."""
    rest = dict(options)
    if "betas" in group:
        rest["betas"] = (rest.pop("beta1"), rest.pop("beta2"))
    return rest


@dataclass
class BoundMachine(Machine):
    """A machine whose loops step with an optimizer that it was given; `rates` of the spec are followed if asked for."""

    owner: torch.optim.Optimizer = field(kw_only=True)
    rates: bool = field(kw_only=True, default=False)
    joined: Joined | None = None  # of the loop under way

    def __post_init__(self) -> None:
        super().__post_init__()
        self.loops = {s.optimizer for s in walk(self.graph.program) if isinstance(s, Batches)}
        place = {id(p): i for i, g in enumerate(self.owner.param_groups) for p in g["params"]}
        self.place = {name: place[id(t)] for name, t in self.tensors.items() if id(t) in place}

    def enter(self, name: str, again: bool = False) -> torch.optim.Optimizer:
        if name not in self.loops:
            return super().enter(name, again)
        node = self.nodes[name]
        assert isinstance(node, Optimizer)
        known = self.optimizers.get(name)
        if known is None or not (again or node.policy == "kept"):
            made = self.join(name)
            made.begin()
            made.keep_foreign(self.joined)
            self.optimizers[name] = known = made
        assert isinstance(known, Joined)
        self.joined = known
        return known

    def join(self, name: str) -> Joined:
        """The groups of that optimizer's tensors by the owner's groups that they belong to."""
        node = self.nodes[name]
        assert isinstance(node, Optimizer)
        groups = [(s, i, ts) for s in node.of for i, ts in self._by_group(s).items()]
        known = {id(t) for t in self.tensors.values()}
        for i, group in enumerate(self.owner.param_groups):
            foreign = [p for p in group["params"] if id(p) not in known]
            groups += [("", i, foreign)] if foreign else []
        options = {k: v if isinstance(v, bool) else self.value(v) for k, v in node.options.items()}
        return Joined(self.owner, groups, options if self.rates else None)

    def _by_group(self, state: str) -> dict[int, list[Tensor]]:
        found: dict[int, list[Tensor]] = {}
        for tensor, source in zip(self.values[state], self._sources(self.nodes[state]), strict=True):
            found.setdefault(self.place[source], []).append(tensor)
        return found

    def _sources(self, node: State) -> list[str]:
        """The network's tensor that each tensor of a state stands for."""
        if isinstance(node, Factors):
            return [n.rsplit(":", 1)[0] for n, t in self.factors.items() if t.is_floating_point()]
        names = list(self.names(node.name))
        return names if len(self.values[node.name]) == len(names) else names[:1] * len(self.values[node.name])
