"""LeNet-300-100 on MNIST at equal budgets: our solvers beside gradual magnitude pruning and one-shot pruning."""
