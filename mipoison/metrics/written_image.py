"""Written image: what a defense that reads the query's image writes of it into its answer.

The classifier's vector is replaced by one constant per label, so that the label is all it says. Whatever an
attacker then finds in the released vectors beyond the label, the defense has put there.

The attacker has images of its own and the answers to them. It reconstructs an image as the mean image of the
label plus a kernel regression of what is left on the released vector minus the label's mean answer. Scores or
their roots, kernel (linear or Gaussian, over all labels or within each) and penalty are those of least
leave-one-out error on its own images, in closed form.

Whether it finds anything is tested on the private images: if the answer depends on the label and chance
alone, the reconstructions of one label may be exchanged among its images. Mean and variance of the sum of
products of residual and prediction over all such exchanges are known exactly (Hoeffding 1951, "A
combinatorial central limit theorem"), which gives a z-value without a drawn permutation.

Shape suffixes: N, M images, K classes, F features, D pixels, A the attacker's images, L labels, P penalties.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from mipoison.simplex import keep_label, label_of

PENALTIES = tuple(10.0**e for e in range(-4, 4))
"""Ridge penalties that are tried, in units of the kernel's mean diagonal."""
MOST_OWN, MOST_OF_A_POOL = 256, 128
"""Images of the attacker and of each private pool that are asked for, at most: a defense may be expensive."""
UNSURE = 0.25
"""Share of a label's vectors, the least sure ones, of which the constant is the mean. Next to a corner of the
simplex hardly any perturbation fits: there a defense writes little, whatever it reads."""
LEAST = 4
"""Images that an attacker needs."""
DUST = 1e-12
"""Scores that vary less do not vary: rounding alone moves the mean of equal numbers."""
ROUNDING = 1e-9
"""Predictions that differ by a smaller share of their size are equal."""


@dataclass(frozen=True)
class Written:
    """What an attacker finds on a pool of private images.

    Attributes:
        excess: share by which its error lies below that of the labels' mean images, at most 1; below 0 if it
            errs. It is what this attacker finds, not the most there is.
        z: standard deviations by which reconstructions fit their own images better than others of the label;
            about standard normal if nothing is written. 0 where all reconstructions of a label are equal.
    """

    excess: float
    z: float


WRITTEN_COLUMNS = tuple(f"written_{name}{end}" for end in ("", "_test") for name in ("excess", "z"))
"""Columns of private train and (``_test``) private test images."""


def label_constants(c_NK: Tensor, picked_N: Tensor) -> Tensor:
    """One vector for each label (K, K), of which the label is the first maximum.

    The mean of the least sure ones (``UNSURE``) of the label's vectors that the defense would change (of all
    of the label, if it would change none of them). One-hot for a label without vectors.

    Args:
        c_NK: clean vectors of the attacker's images. picked_N: those that the defense picks.
    """
    label_N, n_classes = label_of(c_NK), c_NK.shape[1]
    one_hot_KK = torch.eye(n_classes, dtype=torch.float64)
    constant_KK = one_hot_KK.clone()
    for label in label_N.unique():
        own_N = label_N == label
        own_MK = c_NK[own_N & picked_N] if bool((own_N & picked_N).any()) else c_NK[own_N]
        unsure_M = own_MK.amax(1).argsort(stable=True)[: math.ceil(UNSURE * len(own_MK))]
        constant_KK[label] = own_MK[unsure_M].double().mean(0)
    return keep_label(constant_KK.to(c_NK), one_hot_KK.to(c_NK))


SPACES: dict[str, Callable[[Tensor], Tensor]] = {
    "raw": lambda c_NK: c_NK.double(),
    "root": lambda c_NK: c_NK.double().clamp_min(0).sqrt(),
}
"""What of the answers is compared: the scores, or their roots, in which small scores count more."""


class LabelMeans:
    """Means over the attacker's rows of each label.

    Args:
        value_AD: rows. label_A: their labels, int64. n_classes: L.
    """

    def __init__(self, value_AD: Tensor, label_A: Tensor, n_classes: int) -> None:
        count_L = torch.bincount(label_A, minlength=n_classes)
        sum_LD = value_AD.new_zeros(n_classes, value_AD.shape[1]).index_add_(0, label_A, value_AD)
        self.known_L = count_L > 0
        self.mean_LD = sum_LD / count_L.clamp_min(1)[:, None]

    def __call__(self, label_N: Tensor) -> Tensor:
        """The label's mean for each row (N, D); zero for a label without any."""
        return self.mean_LD[label_N]


class ResidualKernel:
    """Kernel regression of images' residuals from the label's mean, on residuals of released vectors.

    Args:
        released_AK: answers to the attacker's images, of which the label's mean is subtracted.
        x_AD: these images. label_A: their labels. n_classes: L.

    Raises:
        ValueError: fewer than ``LEAST`` images, or another number of answers or labels.
    """

    def __init__(self, released_AK: Tensor, x_AD: Tensor, label_A: Tensor, n_classes: int) -> None:
        if len(x_AD) < LEAST or not len(x_AD) == len(released_AK) == len(label_A):
            raise ValueError(
                f"at least {LEAST} images with answer and label are needed, got {len(x_AD)} images, "
                f"{len(released_AK)} answers and {len(label_A)} labels"
            )
        x_AD = x_AD.double()
        self.label_A = label_A
        self.means = LabelMeans(x_AD, label_A, n_classes)
        self.spaces = {name: _Space(of(released_AK), label_A, n_classes) for name, of in SPACES.items()}
        residual_AD = x_AD - self.means(label_A)
        self.kind: tuple[str, str, str] = ("raw", "linear", "all")
        self.weight_AD = torch.zeros_like(residual_AD)
        best = float(residual_AD.square().sum())
        gram_AA = residual_AD @ residual_AD.mT
        for kind in product(SPACES, ("linear", "gaussian"), ("all", "label")):
            kernel_AA = self._kernel(kind, released_AK, label_A)
            unit = float(kernel_AA.diagonal().mean())
            if not unit > 0:
                continue
            size_A, basis_AA = torch.linalg.eigh(kernel_AA)
            size_A = size_A.clamp_min(0)
            for penalty in PENALTIES:
                error = _left_out(size_A, basis_AA, gram_AA, penalty * unit)
                if error < best:
                    best, self.kind = error, kind
                    inverse_A = 1 / (size_A + penalty * unit)
                    self.weight_AD = basis_AA @ (inverse_A[:, None] * (basis_AA.mT @ residual_AD))

    def _kernel(self, kind: tuple[str, str, str], released_NK: Tensor, label_N: Tensor) -> Tensor:
        """Kernel (N, A) of these answers and the attacker's."""
        name, shape, scope = kind
        space = self.spaces[name]
        z_NK = space(SPACES[name](released_NK), label_N)
        if shape == "linear":
            kernel_NA = z_NK @ space.z_AK.mT
        else:
            kernel_NA = torch.exp(-torch.cdist(z_NK, space.z_AK).square() / (2 * space.width))
        return kernel_NA * (label_N[:, None] == self.label_A[None]) if scope == "label" else kernel_NA

    def predict(self, released_NK: Tensor, label_N: Tensor) -> Tensor:
        """Predicted residuals (N, D) from the label's mean image; zero for a label that has none."""
        away_ND = self._kernel(self.kind, released_NK, label_N) @ self.weight_AD
        return away_ND * self.means.known_L[label_N][:, None]


class _Space:
    """Answers minus their label's mean, in units of their deviation, within the range of the attacker's."""

    def __init__(self, value_AK: Tensor, label_A: Tensor, n_classes: int) -> None:
        self.means = LabelMeans(value_AK, label_A, n_classes)
        away_AK = value_AK - self.means(label_A)
        scale_K = away_AK.square().mean(0).sqrt()
        self.scale_K = torch.where(scale_K > DUST, scale_K, torch.inf)
        self.width = max(1, int(torch.isfinite(self.scale_K).sum()))
        self.z_AK = away_AK / self.scale_K
        self.low_K, self.high_K = self.z_AK.amin(0), self.z_AK.amax(0)

    def __call__(self, value_NK: Tensor, label_N: Tensor) -> Tensor:
        # A linear kernel would extrapolate without bound.
        return ((value_NK - self.means(label_N)) / self.scale_K).clamp(self.low_K, self.high_K)


def _left_out(size_A: Tensor, basis_AA: Tensor, gram_AA: Tensor, penalty: float) -> float:
    """Leave-one-out error of ridge in a kernel's eigenbasis: ``sum_i |r_i|^2 / (1 - h_ii)^2``.

    ``r = (I - H) y`` are the residuals of all at once and ``h`` the diagonal of the hat matrix H; of the
    targets y only their inner products are needed.

    The kernel attacker's errors (:mod:`mipoison.attacks.kernel_ridge`) are others: there the mean of a label
    loses the image, too, which moves the targets, and each image's own errors are needed for a vote. Here the
    means stay, since the sum only ranks kernels and penalties.
    """
    kept_A = penalty / (size_A + penalty)
    rest_AA = (basis_AA * kept_A) @ basis_AA.mT  # I - H
    error_A = ((rest_AA @ gram_AA) * rest_AA).sum(1)
    return float((error_A / rest_AA.diagonal().clamp_min(1e-9).square()).sum())


def exchange_z(residual_ND: Tensor, predicted_ND: Tensor, label_N: Tensor) -> float:
    """Standard deviations by which ``sum_i <residual_i, predicted_i>`` exceeds its mean over all exchanges.

    An exchange permutes the predictions among the images of one label, every permutation as likely. With
    residuals and predictions centred in each label, the mean is 0 and the variance of a label of n images
    ``sum_ij <residual_i, predicted_j>^2 / (n - 1)``.
    """
    total, variance = 0.0, 0.0
    for label in label_N.unique():
        own_N = label_N == label
        n = int(own_N.sum())
        if n < 2:
            continue
        residual, predicted = residual_ND[own_N], predicted_ND[own_N]
        centred = predicted - predicted.mean(0)
        if float(centred.norm()) <= ROUNDING * float(predicted.norm()):
            continue
        product_nn = (residual - residual.mean(0)) @ centred.mT
        total += float(product_nn.diagonal().sum())
        variance += float(product_nn.square().sum()) / (n - 1)
    return total / math.sqrt(variance) if variance > 0 else 0.0


def written_image(attacker: ResidualKernel, released_NK: Tensor, x_ND: Tensor, label_N: Tensor) -> Written:
    """What the attacker finds on a pool of private images.

    Args:
        attacker: fitted on its own images.
        released_NK: answers to the pool, from the labels' constants. x_ND: its images. label_N: their labels.
    """
    known_N = attacker.means.known_L[label_N]
    residual_ND = (x_ND.double() - attacker.means(label_N))[known_N]
    predicted_ND = attacker.predict(released_NK, label_N)[known_N]
    floor = float(residual_ND.square().sum())
    error = float((residual_ND - predicted_ND).square().sum())
    z = exchange_z(residual_ND, predicted_ND, label_N[known_N])
    return Written(excess=1 - error / floor if floor > 0 else 0.0, z=z)
