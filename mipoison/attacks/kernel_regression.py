"""A kernel ridge regression on answers, the first of which are its landmarks, and the voter made of it.

Shape suffixes: N answers, M landmarks, F features, K classes, P principal components.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mipoison.attacks.kernel_choice import path_of
from mipoison.attacks.kernel_ridge import Kernel
from mipoison.attacks.selection import Reading
from mipoison.simplex import label_of


@dataclass
class Voter:
    """One regression of an attacker, ready to predict."""

    standardise: Reading
    kernel: Kernel
    z_MF: Tensor
    label_M: Tensor
    weight_MP: Tensor

    def __call__(self, c_NK: Tensor) -> Tensor:
        """Predicted principal components (N, P), times the weight of this vote."""
        return self.vote(self.standardise(c_NK), label_of(c_NK.cpu()))

    def vote(self, z_NF: Tensor, label_N: Tensor) -> Tensor:
        """The same from what it reads in the vectors, and their labels."""
        return self.kernel(z_NF, label_N, self.z_MF, self.label_M) @ self.weight_MP


class LandmarkRegression:
    """Regressions of all penalties whose functions the kernels of landmarks span.

    Attributes:
        standardise: vectors -> features. kernel: between features.
        z_MF, label_M: the landmarks.
    """

    standardise: Reading
    kernel: Kernel
    z_MF: Tensor
    label_M: Tensor

    def gram(self, c_NK: Tensor) -> Tensor:
        """Kernel (N, M) between vectors and landmarks."""
        return self.kernel(self.standardise(c_NK), label_of(c_NK), self.z_MF, self.label_M)

    def weights(self, penalty: float) -> Tensor:
        """Weights (M, P) of the landmarks."""
        raise NotImplementedError

    def voter(self, penalty: float, vote: float | Tensor) -> Voter:
        """The regression of this penalty, times its vote: one, or one for each component (P,)."""
        return Voter(self.standardise, self.kernel, self.z_MF, self.label_M, vote * self.weights(penalty))


class Regression(LandmarkRegression):
    """Kernel ridge regressions of all penalties on answers.

    Args:
        standardise: vectors -> features.
        c_NK: answers. target_NP: what is predicted of each, float64.
        landmarks: how many of the first answers are landmarks; with N or more the regression is exact.
    """

    def __init__(
        self, standardise: Reading, kernel: Kernel, c_NK: Tensor, target_NP: Tensor, landmarks: int
    ) -> None:
        self.standardise, self.kernel = standardise, kernel
        z_NF, label_N = standardise(c_NK), label_of(c_NK)
        self.z_MF, self.label_M = z_NF[:landmarks], label_N[:landmarks]
        self.path = path_of(kernel, z_NF, label_N, landmarks)
        self.part_RP = self.path.projected(target_NP)

    def weights(self, penalty: float) -> Tensor:
        return self.path.weights(self.part_RP, penalty)
