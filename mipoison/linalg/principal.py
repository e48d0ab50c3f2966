"""Principal components of few or many rows, by one eigendecomposition.

Shape suffixes: N rows, D columns, R components (the smaller of N and D).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ALL = slice(None)
LEAST_LENGTH = 1e-6
"""Combinations of the rows of less than this share of the longest one's length are no direction."""


class PrincipalComponents:
    """The directions in which rows vary most: a singular value decomposition ``X = U S V^T`` by the
    eigenvectors of the smaller of two matrices of products, ``X X^T`` of rows and ``X^T X`` of columns.

    Squaring costs half of the digits: singular values below about 1e-8 of the largest are noise.

    Args:
        x_ND: the rows, floating point. Whoever calls has subtracted a mean, of all rows or of each label's.

    Attributes:
        square_R: squares of the singular values, ascending: the sums of squares along the directions. Zeros
            come out as rounding errors of either sign.
    """

    def __init__(self, x_ND: Tensor) -> None:
        self.x_ND, self.wide = x_ND, x_ND.shape[1] > len(x_ND)
        self.square_R, self.vector_RR = torch.linalg.eigh(x_ND @ x_ND.mT if self.wide else x_ND.mT @ x_ND)

    def leading(self, count: int, least: float) -> Tensor:
        """Places of the last components, int64, ascending: ``count`` (at least 1) or as many as vary.

        A component varies if its sum of squares is above ``least`` times the largest, and above ``least``
        squared.
        """
        return (self.square_R > least * self.square_R[-1].clamp_min(least)).nonzero()[-count:, 0]

    def directions(
        self,
        chosen: Tensor | slice = ALL,
        *,
        largest_first: bool = False,
        divisor: Literal["singular value", "length"] = "singular value",
    ) -> Tensor:
        """Orthonormal directions (D, r), columns of V. The common sign of its columns and U's is arbitrary.

        Args:
            chosen: places of the components; their order is ascending.
            largest_first: turn the order round.
            divisor: of the combinations of rows that are the directions where N < D. The ``singular value``
                is for components that are known to vary; of others the result is not finite. Their own
                ``length`` is for components chosen by their number alone: those of no length are left out.
        """
        vector_Rr, root_r = self.vector_RR[:, chosen], self.square_R[chosen].sqrt()
        if largest_first:
            vector_Rr, root_r = vector_Rr.flip(1), root_r.flip(0)
        if not self.wide:
            return vector_Rr
        along_Dr = self.x_ND.mT @ vector_Rr
        if divisor == "singular value":
            return along_Dr / root_r
        length_r = along_Dr.norm(dim=0)
        keep_r = length_r > LEAST_LENGTH * length_r.amax().clamp_min(1e-300)
        return along_Dr[:, keep_r] / length_r[keep_r]

    def scores(self, chosen: Tensor | slice = ALL) -> Tensor:
        """The rows along the directions, each column of length 1: (N, r), columns of U."""
        vector_Rr = self.vector_RR[:, chosen]
        return vector_Rr if self.wide else self.x_ND @ vector_Rr / self.square_R[chosen].sqrt()
