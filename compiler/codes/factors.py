"""P236–P240: tensors that are made of factors."""

from __future__ import annotations

from prunelang.compiler.codes.base import Code

FACTORS = (
    Code(
        "P236",
        "rank or count that nothing chooses",
        "`low_rank()`, `tt()` or `sparse()` names no rank or count, and no budget or price counts what it stores.",
        "Without a cost the best choice would be the dense tensor.",
        "Write the rank or the count, or add a bound such as `params(net) ≤ 10%`, `macs(net) ≤ 10%` or "
        "`bytes(net) ≤ 100 KB`, or a price `α * params(net)` in the objective.",
    ),
    Code(
        "P237",
        "ranks that fit no train",
        "The list of ranks does not have one number for each bond of the train, or the matrix cannot be cut into so "
        "many cores.",
        "A train of d cores has d − 1 bonds, and every core needs entries of its own.",
        "Give one rank for each bond, or one number for all of them.",
    ),
    Code(
        "P238",
        "set that has no place in a sum",
        "A sum of sets has a part that bounds the tensor itself: a box, blocks, n of m.",
        "Each part of a sum is stored in its own way, and these sets are no way to store a tensor.",
        "Take the part out of the sum. A sum is of low_rank, tt, codebook, sparse, {…} and scaled({…}).",
    ),
    Code(
        "P240",
        "rank at which factors cost more than the dense tensor",
        "At the rank that is asked for the factors store more numbers, or take more multiply-adds, than the matrix.",
        "U and V of rank r store r(m + n) numbers where the matrix has mn; the cores of a train grow with the square "
        "of its ranks.",
        "Lower the rank to the one that the note gives, cut into the modes that it names, or keep the layer dense.",
    ),
)
