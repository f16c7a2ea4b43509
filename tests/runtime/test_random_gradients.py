"""Removal by random gradients, beside exact reachability."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F

from prunelang.runtime.pruning import remove_inactive_
from prunelang.runtime.zoo.mlp import mlp
from tests.runtime.test_reachability import kernels, removed


def test_random_gradients_also_remove_what_is_merely_inactive() -> None:
    net = mlp([3, 4, 2])
    with torch.no_grad():
        net.fc1.bias[1] = -100.0  # inactive on any input of usual size, but not cut off
        net.fc2.weight[:, 2] = 0  # cut off
    exact, masks, _ = removed(net, torch.randn(1, 3))
    assert masks["fc1.weight"].any(1).tolist() == [True, True, False, True]
    weights = kernels(net)
    kept = [torch.ones_like(w, dtype=torch.bool) for w in weights.values()]
    batch = torch.randn(64, 3), torch.randint(0, 2, (64,))
    remove_inactive_(net, list(weights.values()), kept, lambda o, x, y: F.cross_entropy(o, y), batch, 3, 0)
    assert kept[0].any(1).tolist() == [True, False, False, True]
    far = 1000 * torch.randn(50, 3)
    assert not torch.allclose(net(far), exact(far))


def test_a_weight_goes_only_if_its_gradient_vanishes_in_all_draws() -> None:
    net = mlp([2, 8, 2])
    weights = kernels(net)

    def kept(draws: int) -> int:
        new = copy.deepcopy(net)
        masks = [torch.ones_like(w, dtype=torch.bool) for w in weights.values()]
        batch = torch.randn(1, 2), torch.zeros(1, dtype=torch.int64)
        found = list(kernels(new).values())
        remove_inactive_(new, found, masks, lambda o, x, y: F.cross_entropy(o, y), batch, draws, 7)
        return sum(int(m.sum()) for m in masks)

    counts = [kept(d) for d in (1, 2, 40)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] == 32
