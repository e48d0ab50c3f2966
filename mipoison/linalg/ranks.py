"""Ranks of values among others; equal values share the mean of their ranks.

Shape suffixes: R rows, N sorted values, M values.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mean_ranks(sorted_RN: Tensor, value_RM: Tensor) -> Tensor:
    """Ranks (R, M), float64, from 1 for the least, of values among those of their row.

    A value that is not among them has the mean of its neighbours' ranks: 1/2 below all, N + 1/2 above all.

    Args:
        sorted_RN: the values to compare with, each row in ascending order.
    """
    value_RM = value_RM.contiguous()
    below_RM = torch.searchsorted(sorted_RN, value_RM)
    not_above_RM = torch.searchsorted(sorted_RN, value_RM, right=True)
    return (below_RM + not_above_RM + 1).double() / 2
