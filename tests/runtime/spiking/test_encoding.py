"""Direct and Poisson encoding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunelang.runtime.spiking.encoding import Direct, Poisson, each_step


def keep(x: Tensor) -> Tensor:
    return x


def test_a_layer_sees_all_steps_as_one_batch() -> None:
    seen: list[torch.Size] = []

    def double(x: Tensor) -> Tensor:
        seen.append(x.shape)
        return 2 * x[:, :2]

    x = torch.randn(4, 3, 5)
    assert torch.equal(each_step(double, x), 2 * x[:, :, :2])
    assert seen == [(12, 5)]


def test_direct_encoding_calls_the_first_layer_once() -> None:
    seen: list[torch.Size] = []
    layer = nn.Linear(5, 2)
    layer.register_forward_hook(lambda m, inputs, y: seen.append(inputs[0].shape))
    x = torch.randn(3, 5)
    y = Direct(7)(x, layer)
    assert y.shape == (7, 3, 2)
    assert all(torch.equal(y_t, layer(x)) for y_t in y)
    assert seen[0] == (3, 5)


def test_poisson_spikes_have_the_entries_as_their_rates() -> None:
    torch.manual_seed(0)
    x = torch.tensor([[0.0, 0.25, 0.5, 1.0, -1.0, 2.0]])
    encode = Poisson(4000).train()
    spikes = encode(x, keep)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    rates = spikes.mean((0, 1))
    assert rates[[0, 3, 4, 5]].tolist() == [0.0, 1.0, 0.0, 1.0]
    torch.testing.assert_close(rates[1:3], x[0, 1:3], atol=0.04, rtol=0.0)  # five standard deviations


def test_training_draws_from_the_global_generator() -> None:
    x, encode = torch.full((2, 50), 0.5), Poisson(3).train()
    torch.manual_seed(1)
    first, second = encode(x, keep), encode(x, keep)
    torch.manual_seed(1)
    assert torch.equal(encode(x, keep), first)
    assert not torch.equal(first, second)
    assert not torch.equal(first[:, 0], first[:, 1])  # each sample has a draw of its own


def test_evaluation_repeats_and_depends_on_the_sample_alone() -> None:
    x, encode = torch.rand(6, 50), Poisson(3).eval()
    state = torch.get_rng_state()
    first = encode(x, keep)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(encode(x, keep), first)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    assert torch.equal(encode(x[order], keep), first[:, order])
    assert torch.equal(torch.cat([encode(x[:1], keep), encode(x[1:], keep)], 1), first)


def test_the_draw_of_evaluation_is_uniform() -> None:
    spikes = Poisson(2000).eval()(torch.tensor([[0.1, 0.5, 0.9]]), keep)
    torch.testing.assert_close(spikes.mean((0, 1)), torch.tensor([0.1, 0.5, 0.9]), atol=0.06, rtol=0.0)
