"""Non-negative least squares where only inner products are known.

Shape suffixes: J weights, R directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HEAVY = 1e3
"""Weight of the equation that says what the weights sum to, beside products of about 1."""
LEAST_EIGENVALUE = 1e-9
"""Directions of at most this share of the largest eigenvalue have no say in what comes close to a target."""

Array = Tensor | NDArray[np.float64]


def non_negative_least_squares(
    gram_JJ: Array, target_J: Array | None = None, *, total: float | None = None
) -> NDArray[np.float64]:
    """Weights ``w >= 0`` (J,) of least ``w G w - 2 b w``: SciPy's NNLS on a square root of G.

    G is decomposed by the library of the arrays that are given, NumPy or torch: they round differently, and
    the records of each attacker were made by one of them.

    Args:
        gram_JJ: G, inner products of what is weighted, float64, of about 1: divide G and b by one number.
        target_J: b, inner products with what is to be matched. Directions in which all that is weighted
            agrees up to rounding are left out, since b is divided by them. None: b is 0, which is a question
            only with a total; all directions stay.
        total: what the weights sum to, in one equation that weighs HEAVY times as much; None: anything.
    """
    import scipy.optimize

    library: Any = torch if isinstance(gram_JJ, Tensor) else np
    value_J, basis_JJ = library.linalg.eigh(gram_JJ)
    if target_J is None:
        root_RJ = np.asarray(library.sqrt(value_J.clip(0))[:, None] * basis_JJ.T)
        right_R = np.zeros(len(root_RJ))
    else:
        keep_J = value_J > LEAST_EIGENVALUE * value_J.max()
        root_R, basis_RJ = library.sqrt(value_J[keep_J]), basis_JJ[:, keep_J].T
        root_RJ, right_R = np.asarray(root_R[:, None] * basis_RJ), np.asarray(basis_RJ @ target_J / root_R)
    if total is not None:
        root_RJ = np.vstack([root_RJ, np.full(len(gram_JJ), HEAVY)])
        right_R = np.append(right_R, HEAVY * total)
    found_J: NDArray[np.float64] = scipy.optimize.nnls(root_RJ, right_R)[0]
    return found_J
