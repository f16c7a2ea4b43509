"""Singular values of stored matrices with bounds on their error, and what they say of norm and rank.

A computed ``U S Vᵀ`` is close to one with orthonormal factors: these are within ``δ_U = ‖UᵀU − I‖_F`` of U (and so of
V), which with the residual ``‖A − U S Vᵀ‖_F`` bounds how far A is from a matrix whose singular values are exactly S. By
Weyl no σ_i is further off than that distance e, and by the triangle inequality the nuclear norm no further than e·√k.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import sqrt

import numpy as np

from prunelang.runtime.exact import Array, Value
from prunelang.runtime.factors import MANTISSA
from prunelang.runtime.stored import NotRecounted

EPS = float(np.finfo(np.float64).eps)
SAFE = 1.01  # covers what is of second order in EPS


@dataclass(frozen=True)
class Spectrum:
    """``|σ_i − values_i| ≤ error`` for all i, and the root of the sum of the squares of these differences as well."""

    values: Array
    error: float


def spectrum(matrix: Array) -> Spectrum:
    """Raises `NotRecounted` where the decomposition does not converge."""
    a = matrix.astype(np.float64)
    m, n = a.shape
    k = min(m, n)
    if not k:
        return Spectrum(np.zeros(0), 0.0)
    try:
        u, s, vt = np.linalg.svd(a, full_matrices=False)
    except np.linalg.LinAlgError as error:
        raise NotRecounted("a matrix whose singular values do not converge") from error
    one = np.eye(k)
    left = float(np.linalg.norm(u.T @ u - one)) + 2 * m * EPS * k
    right = float(np.linalg.norm(vt @ vt.T - one)) + 2 * n * EPS * k
    residual = float(np.linalg.norm(a - (u * s) @ vt)) + 2 * (k + 2) * EPS * sqrt(k) * float(np.linalg.norm(s))
    return Spectrum(s, SAFE * (residual + (left + right + left * right) * float(s[0])))


def nuclear(matrix: Array) -> Value:
    """``Σ_i σ_i`` between two bounds."""
    found = spectrum(matrix)
    total = sum((Fraction(float(x)) for x in found.values), Fraction(0))
    error = Fraction(found.error * sqrt(len(found.values)) * SAFE)
    return Value(max(Fraction(0), total - error), total + error)


def rank(matrix: Array, dtype: str) -> Value:
    """The least rank of a matrix of which this is the rounding: at least the number of singular values that rounding to
    `dtype` cannot have made, at most the number of rows and of columns with an entry."""
    most = min(int(np.count_nonzero(matrix.any(axis=1))), int(np.count_nonzero(matrix.any(axis=0))))
    found = spectrum(matrix)
    wide = np.abs(matrix.astype(np.float64))
    rounding = SAFE * 4 * 2.0 ** -MANTISSA[dtype] * float(np.linalg.norm(wide))  # two units in the last place and more
    sure = int(np.count_nonzero(found.values > found.error + rounding))
    return Value(Fraction(min(sure, most)), Fraction(most))
