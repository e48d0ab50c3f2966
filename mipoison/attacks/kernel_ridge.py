"""Kernel ridge regression of residuals from class means, with every leave-one-out error in closed form.

One eigendecomposition of a kernel matrix gives the solutions of all penalties. Leaving image i out of a
ridge regression changes its prediction as the diagonal of the hat matrix says (Golub, Heath and Wahba 1979);
here the class mean loses the image, too, and with it the targets of all images of that class move by
``r_i / (n - 1)``. Both are linear, so that a literal refit and the closed form agree to rounding. The
posterior mean of a Gaussian process with this covariance is the same function.

With more landmarks than images the regression is exact; with fewer it is Nystroem's (Williams and Seeger
2001): the functions are those that the landmarks' kernels span.

Shape suffixes: N images, M landmarks, F features, K classes, P principal components, L penalties, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mipoison.attacks.residuals import Residuals

PENALTIES = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0, 30.0)
"""Ridge penalties that are tried, where the kernel of an image with itself is 1."""
LEAST_EIGENVALUE = 1e-10
"""Eigenvalues below this share of the largest count as 0."""

PROFILES: dict[str, Callable[[Tensor], Tensor]] = {
    "gaussian": lambda d: torch.exp(-d.square() / 2),
    "laplacian": lambda d: torch.exp(-d),
    "matern": lambda d: (1 + math.sqrt(3) * d) * torch.exp(-math.sqrt(3) * d),
    "inverse": lambda d: (1 + d.square()).rsqrt(),
}
"""Kernels as functions of a distance in units of the bandwidth; ``matern`` has smoothness 3/2,
``inverse`` is the inverse multiquadric, which falls slowest."""


@dataclass(frozen=True)
class Kernel:
    """A kernel of features times one of labels.

    Attributes:
        profile: a name of PROFILES.
        width: bandwidth, in units of the root mean square difference per feature.
        across: factor between images of different labels, 0 to 1: how much one label learns from another.
    """

    profile: str
    width: float
    across: float = 0.2

    def __call__(self, z_NF: Tensor, label_N: Tensor, other_MF: Tensor, other_M: Tensor) -> Tensor:
        """Kernel (N, M) between two sets of standardised features with labels."""
        unit = self.width * math.sqrt(max(1, z_NF.shape[1]))
        # Equal vectors must be at distance 0, which the faster matrix product does not give.
        d_NM = torch.cdist(z_NF, other_MF, compute_mode="donot_use_mm_for_euclid_dist") / unit
        same_NM = label_N[:, None] == other_M
        return PROFILES[self.profile](d_NM) * torch.where(same_NM, 1.0, self.across).to(d_NM)


def whitening(gram_MM: Tensor, least: float = LEAST_EIGENVALUE) -> Tensor:
    """Combinations (M, R) of the landmarks that are orthonormal, without directions in which they agree:
    those whose eigenvalue is at most this share of the largest."""
    size_M, basis_MM = torch.linalg.eigh(gram_MM)
    kept_M = size_M > least * size_M[-1]
    return basis_MM[:, kept_M] / size_M[kept_M].sqrt()


class Path:
    """The regressions of all penalties on one kernel.

    Args:
        gram_NM: kernel between the images and the landmarks.
        gram_MM: kernel of the landmarks; None: they are the images.
    """

    def __init__(self, gram_NM: Tensor, gram_MM: Tensor | None = None) -> None:
        if gram_MM is None:
            size_R, self.q_NR = torch.linalg.eigh(gram_NM)
            self.size_R = size_R.clamp_min(0)
            self.to_landmarks_MR, self.exact = self.q_NR, True
            return
        white_MR = whitening(gram_MM)
        phi_NR = gram_NM @ white_MR
        size_R, turn_RR = torch.linalg.eigh(phi_NR.mT @ phi_NR)
        kept = size_R > LEAST_EIGENVALUE * size_R[-1]
        self.size_R, turn_RR = size_R[kept], turn_RR[:, kept]
        self.q_NR = phi_NR @ turn_RR / self.size_R.sqrt()
        self.to_landmarks_MR, self.exact = white_MR @ turn_RR * self.size_R.sqrt(), False

    def left_out(
        self, parts: Residuals, label_N: Tensor, penalties: tuple[float, ...] = PENALTIES
    ) -> list[Tensor]:
        """Errors (N, P) for each penalty: ``without`` less the prediction by a regression that has not seen
        the image, neither in the mean of its label nor in the regression.

        With the hat matrix H, the errors of a regression on fixed targets r are ``[(1 - H) r]_i`` over
        ``(1 - H)_ii``. The targets of an image's label all move when its mean loses the image, which adds
        ``[(1 - H) 1_label]_i`` times the move.
        """
        q_NR, kept_NP = self.q_NR, parts.rest_NP
        label_KR = torch.zeros(len(parts.mean_KD), q_NR.shape[1], dtype=q_NR.dtype)
        label_KR.index_add_(0, label_N, q_NR)
        square_NR, ones_NR, target_RP = q_NR.square(), q_NR * label_KR[label_N], q_NR.mT @ kept_NP
        penalty_L = torch.tensor(penalties, dtype=q_NR.dtype)
        shrink_RL = penalty_L / (self.size_R[:, None] + penalty_L)
        left_NL, ones_NL = square_NR @ shrink_RL, ones_NR @ shrink_RL
        outside_NP = torch.zeros_like(kept_NP)
        if not self.exact:
            left_NL += 1 - square_NR.sum(1, keepdim=True)
            ones_NL += 1 - ones_NR.sum(1, keepdim=True)
            outside_NP = kept_NP - q_NR @ target_RP
        left_NL = left_NL.clamp_min(1e-12)
        # An image that is alone with its label moves the mean of that label and no target.
        ones_NL = torch.where((parts.count_N == 1)[:, None], left_NL, ones_NL)
        moved_NP = parts.without_NP - kept_NP
        errors = []
        for shrink_R, left_N, ones_N in zip(shrink_RL.mT, left_NL.mT, ones_NL.mT, strict=True):
            fixed_NP = q_NR @ (shrink_R[:, None] * target_RP) + outside_NP
            errors.append((fixed_NP + moved_NP * ones_N[:, None]) / left_N[:, None])
        return errors

    def solution(self, target_NP: Tensor, penalty: float) -> Tensor:
        """Weights (M, P) of the landmarks: a prediction is the kernel to the landmarks times these."""
        return self.weights(self.projected(target_NP), penalty)

    def projected(self, target_NP: Tensor) -> Tensor:
        """The part (R, P) of targets that the regressions can reach: the same for all penalties."""
        return self.q_NR.mT @ target_NP

    def weights(self, part_RP: Tensor, penalty: float) -> Tensor:
        """The solution (M, P) for targets of which this is the reachable part."""
        return self.to_landmarks_MR @ (part_RP / (self.size_R + penalty)[:, None])
