"""The small specs that are executed, emitted and bound, and the network of a user that some of them name."""

from __future__ import annotations

SGD = "sgd(lr = 0.1 * 0.98^k, momentum = 0.9, nesterov = true)"
LC = f"lc(steps = 2) with {SGD} for 1 epochs"


def spec(
    constraints: str = "",
    solver: str = LC,
    objective: str = "cross_entropy(net)",
    head: str = "model net = mlp([64, 12, 10])\ndata digits(batch = 128)",
    finetune: str = "sgd(lr = 0.05 * 0.9^epoch, momentum = 0.9) for 2 epochs",
) -> str:
    """A small spec with all three stages."""
    subject = f"subject to\n    {constraints}\n" if constraints else ""
    return (
        f"# Written for a test.\n{head}\nminimize {objective}\n{subject}"
        f"pretrain with sgd(lr = 0.2 * 0.9^epoch, momentum = 0.9) for 1 epochs\n"
        f"solve {solver}\nfinetune with {finetune}\nreport accuracy(net)\n"
    )


def blocks(constraints: str = "", options: str = "steps = 3", finish: str = "", trained: bool = False) -> str:
    """A spec that block coordinate descent solves."""
    subject = f"subject to\n    {constraints}\n" if constraints else ""
    first = "pretrain with sgd(lr = 0.1) for 1 epochs\n" if trained else ""
    head = "model net = mlp([64, 32, 16, 10])\ndata digits(batch = 128)\nminimize mse(net)\n"
    return f"{head}{subject}{first}solve bcd({options})\n{finish}report accuracy(net)\n"


def pruned(text: str, *methods: str) -> str:
    """The same with what `prune` does before and after one more epoch of training."""
    last = "finetune with sgd(lr = 0.05, momentum = 0.9) for 1 epochs"
    return text + "".join(f"prune {m}\n{last}\n" for m in methods)


BUDGET = "sparsity: ‖net.weights‖₀ ≤ 20%"
EACH = "layer: ∀ l ∈ net.layers: ‖l.weights‖₀ ≤ 20%"
MNIST = 'model net = mlp([784, 6, 10])\ndata mnist(root = "idx", batch = 20, validation = 20%, seed = 4)'
CASES: dict[str, str] = {
    "lc": spec(BUDGET),
    "lc_quadratic_penalty": spec(BUDGET, f"lc(steps = 2, method = penalty, μ = 1e-2 * 2^k) with {SGD} for 1 epochs"),
    "lc_l0_penalty": spec(objective="cross_entropy(net) + 1e-3·‖net.weights‖₀"),
    "lc_l1_penalty": spec(objective="cross_entropy(net) + 1e-3·‖net.weights‖₁"),
    "lc_group_penalty": spec(objective="cross_entropy(net) + 1e-2·group_norm1(net.weights, by = row)"),
    "lc_description_length": spec(
        "", f"lc(steps = 2, μ = 5 * 2^k) with {SGD} for 1 epochs", objective="description_length(net)"
    ),
    "lc_nested_budgets": spec('all: ‖net.weights‖₀ ≤ 20%\n    first: ‖net["fc1"].weights‖₀ ≤ 100'),
    "lc_budget_of_each_layer": spec(EACH),
    "lc_weighted_budgets": spec("size: bytes(net) ≤ 2 KB\n    " + BUDGET),
    "lc_kept_layer": spec('rest: ‖net.weights‖₀ ≤ 30%\n    last: net["fc2"].weights ∈ dense'),
    "lc_n_of_m": spec("cells: net.weights ∈ n_of_m(2, 4)"),
    "lc_groups": spec("rows: group_norm0(net.weights, by = row) ≤ 15"),
    "lc_channels": spec("compute: macs(net) ≤ 60%"),
    "lc_channels_and_count": spec("compute: flops(net) ≤ 60%\n    " + BUDGET),
    "lc_l1_ball": spec("ball: ‖net.weights‖₁ ≤ 20"),
    "lc_box": spec("box: net.weights ∈ box(-0.25, 0.25)"),
    "lc_largest_entry": spec("largest: ‖net.weights‖∞ ≤ 0.3"),
    "lc_frozen_layer": spec(
        BUDGET, head='model net = mlp([64, 12, 10])\nfreeze net["fc2"].params\ndata digits(batch = 128)'
    ),
    "lc_adamw_in_steps": spec(
        BUDGET,
        "lc(steps = 2) with adamw(lr = ramp(1e-2, 1e-3, 0, 1, shape = cosine)) for 7 steps",
        finetune=("adam(lr = steps(1e-2, [5 steps, 1e-3])) for 15 steps"),
    ),
    "admm": spec(BUDGET, f"admm(steps = 3) with {SGD} for 5 steps"),
    "ista": spec(BUDGET, "ista() with sgd(lr = ramp(0.2, 0.01, 0, 1), momentum = 0.9) for 3 epochs"),
    "ista_lats": spec(
        BUDGET, "ista(threshold = lats) with sgd(lr = 0.2 / (1 + step) + 0.1 * 0.9^epoch, momentum = 0.9) for 3 epochs"
    ),
    "ista_stds_sine": spec(BUDGET, "ista(threshold = stds_sine) with adam(lr = 1e-2) for 3 epochs"),
    "ista_stds_linear": spec(BUDGET, "ista(threshold = stds_linear) with sgd(lr = 0.1) for 20 steps"),
    "ista_pgh": spec(BUDGET, "ista(threshold = pgh, β = 0.01, reach = 0.7) with sgd(lr = 0.1) for 3 epochs"),
    "ista_fixed": spec(BUDGET, "ista(threshold = fixed) with sgd(lr = 0.1) for 3 epochs"),
    "ista_str": spec(BUDGET, "ista(threshold = str) with sgd(lr = 0.1, momentum = 0.9) for 3 epochs"),
    "ista_str_each_layer": spec(EACH, "ista(threshold = str) with adamw(lr = 1e-2) for 3 epochs"),
    "ista_str_without_a_count": spec(
        "", "ista(threshold = str, s = -3) with sgd(lr = 0.1, weight_decay = 1e-3) for 3 epochs"
    ),
    "ista_l1_penalty": spec(
        "",
        "ista() with sgd(lr = 0.1 * 0.9^epoch, momentum = 0.9) for 3 epochs",
        "cross_entropy(net) + 1e-2·‖net.weights‖₁",
    ),
    "ista_two_penalties": spec(
        "",
        "ista(threshold = stds_linear, reach = 0.8) with sgd(lr = 0.1) for 3 epochs",
        'cross_entropy(net) + (1e-2 + p / 1000)·‖net["fc1"].weights‖₁ + 2e-2·‖net["fc2"].weights‖₁',
    ),
    "ista_an_end_of_its_own": spec(
        BUDGET, "ista(D = 0.02, threshold = lats) with sgd(lr = 0.1, momentum = 0.9) for 3 epochs"
    ),
    "ista_fixed_without_a_count": spec("", "ista(threshold = fixed, D = 0.05) with sgd(lr = 0.1) for 3 epochs"),
    "ista_threshold_of_each_layer": spec(EACH, "ista() with sgd(lr = 0.1) for 3 epochs"),
    "drr": spec(BUDGET, "drr() with sgd(lr = 0.1, momentum = 0.9) for 5 epochs"),
    "drr_for_each_layer_under_adam": spec(EACH, "drr(β = 9, reach = 0.5) with adam(lr = 1e-3) for 4 epochs"),
    "drr_beside_a_kept_layer": spec(
        'rest: ‖net.weights‖₀ ≤ 30%\n    last: net["fc2"].weights ∈ dense',
        "drr(α = ramp(0, 1e-3, 0, 0.5)) with adamw(lr = 1e-3) for 2 epochs",
    ),
    "drr_penalty": spec(
        solver="drr() with sgd(lr = 0.1) for 2 epochs",
        objective='cross_entropy(net) + 1e-4·drr(net["fc1"].weights, 7) + 1e-3·‖net["fc2"].weights‖₀',
    ),
    "drr_description_length": spec(
        "", "drr() with sgd(lr = 0.1) for 2 epochs", objective="0.5 * description_length(net)"
    ),
    "rl1_description_length": spec("", "rl1() with sgd(lr = 0.1) for 2 epochs", objective="description_length(net)"),
    "rl1": spec(BUDGET, "rl1() with sgd(lr = 0.1, momentum = 0.9, weight_decay = 1e-4) for 4 epochs"),
    "rl1_penalty": spec(
        solver="rl1() with sgd(lr = 0.1 * 0.9^epoch) for 2 epochs",
        objective="cross_entropy(net) + 1e-4 * 0.5^epoch·‖net.weights‖₁",
    ),
    "pmmp": spec(BUDGET, "pmmp() with adam(lr = 0.01 * 0.9^epoch) for 3 epochs"),
    "pmmp_multiplier_of_each_layer": spec(
        EACH, "pmmp(granularity = layerwise, cap = 2, rate = 0.1 * (2 - p)) with sgd(lr = 0.1) for 3 epochs"
    ),
    "pmmp_weight_that_moves": spec(
        BUDGET, "pmmp(α = 1e-3 * p, update = simultaneous, dual_rate = 0.1 * 0.5^epoch) with adamw() for 30 steps"
    ),
    "pmmp_l0_penalty": spec("", "pmmp() with adam() for 2 epochs", "cross_entropy(net) + 1e-3·‖net.weights‖₀"),
    "gda": spec(BUDGET, "gda() with sgd(lr = 0.1, momentum = 0.9) for 3 epochs"),
    "gda_for_each_layer_under_adam": spec(EACH, "gda() with adam(lr = 5e-3 * 0.9^epoch) for 3 epochs"),
    "gda_one_level_for_all": spec(
        BUDGET, "gda(granularity = global, reach = 0.5) with sgd(lr = 0.1, momentum = 0.9) for 40 steps"
    ),
    "gda_two_budgets": spec(
        "sparsity: ‖net.weights‖₀ ≤ 20%\n    file: bytes(net, format = csr) ≤ 1500 B",
        "gda() with sgd(lr = 0.1, momentum = 0.9) for 3 epochs",
    ),
    "gda_weighted_budget": spec(
        'sparsity: ‖net.weights‖₀ ≤ 30%\n    work: ‖net["fc1"].weights‖₀ + 3·‖net["fc2"].weights‖₀ ≤ 300',
        "gda() with sgd(lr = 0.1, momentum = 0.9) for 3 epochs",
    ),
    "gda_sequential": spec(BUDGET, "gda(mode = sequential) with sgd(lr = 0.1, momentum = 0.9) for 3 epochs"),
    "gda_hard": spec(BUDGET, "gda(hard = true) with sgd(lr = 0.1, momentum = 0.9) for 3 epochs"),
    "gda_hard_under_adam": spec(BUDGET, "gda(hard = true) with adam(lr = 5e-3) for 3 epochs"),
    "gda_simultaneous": spec(BUDGET, "gda(update = simultaneous) with sgd(lr = 0.1, momentum = 0.9) for 3 epochs"),
    "gda_extragradient": spec(BUDGET, "gda(update = extragradient) with sgd(lr = 0.1, momentum = 0.9) for 3 epochs"),
    "gda_nupi": spec(BUDGET, "gda(update = nupi) with sgd(lr = 0.1, momentum = 0.9) for 3 epochs"),
    "channels_and_a_count": spec("work: params(net) ≤ 70%\n    sparsity: ‖net.weights‖₀ ≤ 30%"),
    "gda_channels": spec("work: macs(net) ≤ 60%", "gda() with sgd(lr = 0.1, momentum = 0.9) for 3 epochs"),
    "gda_channels_hard_under_adam": spec("work: macs(net) ≤ 60%", "gda(hard = true) with adam(lr = 5e-3) for 3 epochs"),
    "gda_cheapest_format": spec(
        "file: bytes(net, format = best) ≤ 2 KB", "gda() with sgd(lr = 0.1, momentum = 0.9) for 3 epochs"
    ),
    "gda_l0_penalty": spec(
        "", "gda() with sgd(lr = 0.1, momentum = 0.9) for 3 epochs", "cross_entropy(net) + 1e-3·‖net.weights‖₀"
    ),
    "gda_penalty_that_moves": spec(
        'first: ‖net["fc1"].weights‖₀ ≤ 30%',
        "gda() with adam(lr = 5e-3) for 3 epochs",
        'cross_entropy(net) + 2e-2 * p·‖net["fc2"].weights‖₀',
    ),
    "gda_beside_frozen_weights": spec(
        "sparsity: ‖net.weights‖₀ ≤ 40%",
        "gda() with sgd(lr = 0.1, momentum = 0.9) for 3 epochs",
        head='model net = mlp([64, 12, 10])\ndata digits(batch = 128)\nfreeze net["fc2"].weights',
    ),
    "idx_files": spec(BUDGET, f"lc(steps = 2, μ = 0.05 * 2^k) with {SGD} for 1 epochs", head=MNIST)
    + "report accuracy(net, on = validation)\n",
    "starting_weights": spec(
        BUDGET, head='model net = mlp([64, 12, 10]) from "start.safetensors"\ndata digits(batch = 128)'
    ),
    "distillation": spec(
        BUDGET,
        objective="0.5·cross_entropy(net) + 0.5·distill(net, big, T = 2)",
        head="model net = mlp([64, 12, 10])\n"
        'model big = mlp([64, 16, 10]) from "teacher.safetensors" frozen\ndata digits(batch = 128)',
    ),
    "prune_after_solve": pruned(spec(BUDGET), "tamade(δ = 5%)", "reachability()"),
    "prune_without_solve": "model net = mlp([64, 12, 10])\ndata digits(batch = 128)\nminimize 2·cross_entropy(net)\n"
    "subject to\n    all: ‖net.weights‖₀ ≤ 90%\npretrain with sgd(lr = 0.2, momentum = 0.9) for 3 epochs\n"
    "prune tamade(δ = 10%, on = train)\nprune reachability(method = random_gradient)\n"
    "finetune with sgd(lr = 0.1) for 2 epochs\n",
    "prune_on_idx_files": pruned(spec(BUDGET, head=MNIST), "tamade(δ = 0)", "reachability()"),
    "prune_a_network_with_normalisation": pruned(
        spec("sparsity: ‖net.weights‖₀ ≤ 4%", head="model net = normed()\ndata digits(batch = 128)"),
        "reachability()",
        "tamade(δ = 1%)",
    ),
    "prune_with_a_teacher": pruned(
        spec(
            BUDGET,
            objective="0.5·cross_entropy(net) + 0.5·distill(net, big, T = 2)",
            head="model net = mlp([64, 12, 10])\n"
            'model big = mlp([64, 16, 10]) from "teacher.safetensors" frozen\ndata digits(batch = 128)',
        ),
        "tamade(δ = 1%)",
        "reachability(method = random_gradient, draws = 1)",
    ),
    "measured_against_base": spec(
        BUDGET + "\n    near: accuracy(net) ≥ base - 5 pp\n    low: cross_entropy(net) ≤ 1.2 * base + 0.05",
        head="model net = mlp([64, 12, 10])\ndata digits(batch = 128, validation = 40%)",
        finetune="sgd(lr = 0.3, momentum = 0.9) for 4 epochs",
    ),
    "until_saturated": spec(
        BUDGET,
        "ista() with sgd(lr = 0.1, momentum = 0.9) for 9 epochs until saturated(window = 2 epochs)",
        finetune="sgd(lr = 1, momentum = 0.9) for 9 epochs until saturated(window = 3 epochs, on = train)",
        objective="0.5·cross_entropy(net) + mse(net)",
    ),
    "until_saturated_on_idx_files": spec(
        BUDGET, head=MNIST, finetune="sgd(lr = 0.2, momentum = 0.9) for 9 epochs until saturated(window = 2 epochs)"
    ),
    "until_under_a_penalty": spec(
        BUDGET,
        "rl1(α = 1e-3) with sgd(lr = 0.2, momentum = 0.9) for 9 epochs until saturated(window = 2 epochs)",
    ),
    "finetune_keeps_the_best": spec(
        BUDGET + "\n    good: accuracy(net, on = validation) ≥ 90%",
        finetune="sgd(lr = 1, momentum = 0.9) for 4 epochs",
    ),
    "finetune_keeps_the_best_on_idx_files": spec(
        "sparsity: ‖net.weights‖₀ ≤ 25%\n    good: cross_entropy(net, on = validation) ≤ 1",
        head=MNIST,
        finetune="sgd(lr = 3 * 0.5^epoch, momentum = 0.9) for 4 epochs",
    ),
    "until_with_a_threshold_of_each_layer": spec(
        BUDGET,
        "ista(threshold = str) with sgd(lr = 0.1, momentum = 0.9) for 9 epochs until saturated(window = 2 epochs)",
    ),
    "until_with_gates": spec(BUDGET, "pmmp() with adam(lr = 0.02) for 9 epochs until saturated(window = 2 epochs)"),
    "until_while_a_penalty_is_steered": spec(
        BUDGET, "drr(reach = 0.4) with adam(lr = 0.02) for 9 epochs until saturated(window = 2 epochs)"
    ),
    "base_without_solve": "model net = mlp([64, 12, 10])\ndata digits(batch = 128, validation = 30%)\n"
    "minimize cross_entropy(net)\nsubject to\n    near: accuracy(net) ≥ base - 2 pp\n"
    "pretrain with sgd(lr = 0.2, momentum = 0.9) for 3 epochs\nprune tamade(δ = 10%)\n"
    "finetune with sgd(lr = 1, momentum = 0.9) for 3 epochs\n",
    "solve_with_nothing_to_compress": "model net = mlp([64, 12, 10])\ndata digits(batch = 128)\n"
    "minimize cross_entropy(net)\nsolve lc(steps = 2) with sgd(lr = 0.2, momentum = 0.9) for 3 epochs\n"
    "prune tamade(δ = 4%)\n"
    "solve ista() with sgd(lr = 0.1 * (1 - 0.5*p)) for 2 epochs\n",
    "bcd_dense": blocks(),
    "bcd_from_trained_weights": blocks(finish="finetune with sgd(lr = 0.01) for 1 epochs\n", trained=True),
    "bcd_counts": blocks(
        'joint: ‖net["fc1"].weights‖₀ + ‖net["fc2"].weights‖₀ ≤ 300\n    last: ‖net["fc3"].weights‖₀ ≤ 60'
    ),
    "bcd_low_rank_and_count": blocks('r: rank(net["fc1"].weights) ≤ 4\n    s: ‖net["fc2"].weights‖₀ ≤ 20%'),
    "bcd_train": blocks('t: net["fc1"].weights ∈ tt(modes = [[4, 8], [8, 8]], r = 3)'),
    "bcd_refused_steps": blocks(options="steps = 3, α = 1e-12, τ = 1e9"),
    "until_with_a_teacher": spec(
        BUDGET,
        objective="distill(net, big, T = 2)",
        head="model net = mlp([64, 12, 10])\n"
        'model big = mlp([64, 16, 10]) from "teacher.safetensors" frozen\ndata digits(batch = 128)',
        finetune="sgd(lr = 0.5, momentum = 0.9) for 40 steps until saturated(window = 2 epochs)",
    ),
    "own_network_with_normalisation": spec(
        BUDGET,
        head="model net = normed()\ndata digits(batch = 128)",
        finetune="sgd(lr = 0.5, momentum = 0.9) for 6 epochs until saturated(window = 2 epochs)",
    )
    + "finetune with sgd(lr = 0.01) for 1 epochs\n",
    "spiking": spec(BUDGET, head="model net = snn_mlp([64, 12, 10], T = 3)\ndata digits(batch = 128)"),
    "spiking_drawn": spec(
        BUDGET,
        "ista(threshold = stds_sine) with adam(lr = 1e-2) for 2 epochs",
        "mse(net)",
        "model net = snn_conv(width = 3, T = 2, inputs = [1, 8, 8], convs = 2, encoding = poisson, readout = rate, "
        "dropout = 0.2)\ndata digits(batch = 128)",
    ),
    "spiking_own": spec(
        BUDGET,
        "drr() with adam(lr = 1e-2) for 2 epochs",
        "distill(net, teacher)",
        'model net = remembering()\nmodel teacher = remembering() from "remembering.safetensors" frozen\n'
        "data digits(batch = 128)",
    ),
}

OWN_NETWORK = """
import torch
from spikingjelly.activation_based import neuron
from torch import nn

try:
    from prunelang.register import model
except ImportError:  # in a script that stands alone

    def model(build):
        return build


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 12, bias=False)
        self.norm = nn.BatchNorm1d(12)
        self.fc2 = nn.Linear(12, 10)

    def forward(self, x):
        return self.fc2(torch.relu(self.norm(self.fc1(x))))


@model
def normed():
    return Normed()


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.lif, self.fc2 = nn.Linear(64, 12), neuron.LIFNode(v_threshold=0.1), nn.Linear(12, 10)

    def forward(self, x):
        return sum(self.fc2(self.lif(self.fc1(x))) for _ in range(3))


@model
def remembering():
    return Remembering()
"""
