"""Blocks of the splitting of a network into its layers, each with its exact minimiser: no automatic differentiation.

For a chain of affine layers ``A_i(V) = W_i V + b_i`` with ReLU between them (σ_i = ReLU for i < N, σ_N = identity),
n samples, ``V_0 = X`` and one-hot or real targets Y,

    L = (1/n) [ ½‖V_N − Y‖² + Σ_i (γ/2)‖V_i − σ_i(U_i)‖² + (ρ/2)‖U_i − A_i(V_{i−1})‖² ]
        + Σ_{i compressed} (τ/2)‖W_i − Δ_i(Θ_i)‖²

is minimised over one block after another, each with the proximal term ``(α/2)‖x − x_old‖²`` (of an activation:
``(α/2n)``). Rows are samples. Sums over samples are divided by n, so that γ, ρ, τ and α mean the same for any size of
the data set. Parameters are kept in float64, activations in float32 or float64.

Zeng, Lau, Lin & Yao, Global convergence of block coordinate descent in deep learning, ICML 2019; Li et al., On Model
Compression for Neural Networks: Framework, Algorithm, and Convergence Guarantee, arXiv 2303.06815.
"""
