"""Which private image a reconstruction shows: identification among the images of one label.

Where attacker and victim know the same classes, the label alone gives a reconstruction's class away, and
attack accuracy is 1 for every defense. What scores add to the label is *which* image of the class was asked.
So each reconstruction is held against the private images that the victim gives the same label on clean
vectors, its own image among them. If all reconstructions of a label are equal, as under label-only, every
number here is its chance exactly, not only on average: one image of a label is the nearest, whichever it is.

The images of one part (private train, or test) are the pool. Shape suffixes: N images, CHW image, n images of
one label, B of them at once, D pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mipoison.metrics.leakage import check_image_pair

ROWS = 1024
"""Reconstructions that are compared at once: bounds memory, does not change a value."""

ROUNDING = 1e-12
"""Distances and correlations this close, in units of the greatest of their label, are one value: equal
images stay tied whatever the order of summation."""


IDENTIFICATION_COLUMNS = (
    *(f"identification_{name}{end}" for end in ("", "_test") for name in ("rate", "auc", "mrr", "chance")),
    *(f"clean_identification_{name}{end}" for end in ("", "_test") for name in ("rate", "auc")),
)
"""Columns of a record, on private train and (``_test``) private test images; ``clean``: reconstructions from
clean vectors. Records of before have none of clean vectors of the test images."""


@dataclass(frozen=True)
class Identification:
    """How well reconstructions single out their images.

    Attributes:
        rate: mean chance, in [0, 1], that the image nearest to the reconstruction (squared distance) is the
            right one; images that are equally near share the rank evenly.
        mrr: mean reciprocal rank, in (0, 1]; of tied ranks, their mean.
        chance: what ``rate`` is if a reconstruction tells the label alone: labels / N.
        auc: mean share, in [0, 1], of the label's other images whose correlation with the reconstruction is
            less than the right one's, ties counting half; chance is 0.5. The correlation is that of
            residuals: the cosine of ``x - mu`` and ``xhat - mu``, mu the mean image of the label. Images that
            are alone with their label have nothing to be told from and are left out; None if all are.
    """

    rate: float
    mrr: float
    chance: float
    auc: float | None

    def columns(self, suffix: str = "") -> dict[str, float | None]:
        """Columns of a record, e.g. ``identification_rate_test`` with the suffix ``_test``."""
        named = {"rate": self.rate, "auc": self.auc, "mrr": self.mrr, "chance": self.chance}
        return {f"identification_{name}{suffix}": value for name, value in named.items()}

    def clean_columns(self, suffix: str = "") -> dict[str, float | None]:
        """Columns of a record, of reconstructions from clean vectors; the chance is that of released ones."""
        return {
            f"clean_identification_rate{suffix}": self.rate,
            f"clean_identification_auc{suffix}": self.auc,
        }


def identification(rec_NCHW: Tensor, x_NCHW: Tensor, label_N: Tensor) -> Identification:
    """Hold every reconstruction against the private images of its label.

    Args:
        rec_NCHW: reconstructions, in the order of ``x_NCHW``.
        x_NCHW: the private images, pixels in [0, 1].
        label_N: the victim's label of each image (of its clean vector): the pool that it has to be found in.

    Raises:
        ValueError: no images, shapes that differ, or labels that are not whole numbers.
    """
    check_image_pair(rec_NCHW, x_NCHW)
    n = len(x_NCHW)
    if label_N.shape != (n,) or label_N.is_floating_point():
        raise ValueError(f"labels must be {n} whole numbers, got {label_N.dtype} {tuple(label_N.shape)}")
    rec_ND, x_ND = (t.detach().cpu().flatten(1).double() for t in (rec_NCHW, x_NCHW))
    label_N = label_N.cpu()
    harmonic_N = torch.cat([torch.zeros(1).double(), (1 / torch.arange(1, n + 1).double()).cumsum(0)])
    labels = label_N.unique()
    rate, mrr, auc, told = 0.0, 0.0, 0.0, 0
    for label in labels:
        place_n = (label_N == label).nonzero()[:, 0]
        closer_n, equal_n, below_n = _standing(rec_ND[place_n], x_ND[place_n])
        rate += float((1 / equal_n[closer_n == 0]).sum())
        mrr += float(((harmonic_N[closer_n + equal_n] - harmonic_N[closer_n]) / equal_n).sum())
        if len(place_n) > 1:
            auc += float(below_n.sum()) / (len(place_n) - 1)
            told += len(place_n)
    return Identification(  # sums of shares may exceed 1 by rounding
        rate=min(1.0, rate / n),
        mrr=min(1.0, mrr / n),
        chance=len(labels) / n,
        auc=min(1.0, auc / told) if told else None,
    )


def _standing(rec_nD: Tensor, x_nD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How the right image stands among those of its label, for each reconstruction.

    Returns:
        Images that are nearer, and those that are as near (itself included), int64 (n,); images whose
        correlation is less, ties counting half, float64 (n,).
    """
    mean_D = x_nD.mean(0)
    x_nD, rec_nD = x_nD - mean_D, rec_nD - mean_D
    square_n = x_nD.square().sum(1)
    norm_n = square_n.sqrt()
    direction_n = torch.where(norm_n > ROUNDING * norm_n.max(), 1 / norm_n.clamp_min(1e-300), 0.0)
    closer, equal, below = [], [], []
    for start in range(0, len(x_nD), ROWS):
        dot_Bn = rec_nD[start : start + ROWS] @ x_nD.T
        own_B = torch.arange(start, start + len(dot_Bn))
        # |x - rec|^2 up to |rec|^2, which is the same for all images
        distance_Bn = square_n - 2 * dot_Bn
        less_Bn, tied_Bn = _against(distance_Bn, own_B, scale=float(square_n.max() + 2 * dot_Bn.abs().max()))
        closer.append(less_Bn.sum(1))
        equal.append(tied_Bn.sum(1))
        cosine_Bn = dot_Bn * direction_n
        less_Bn, tied_Bn = _against(cosine_Bn, own_B, scale=float(cosine_Bn.abs().max()))
        below.append(less_Bn.sum(1) + (tied_Bn.sum(1) - 1) / 2)
    return torch.cat(closer), torch.cat(equal), torch.cat(below)


def _against(value_Bn: Tensor, own_B: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Where a value is less than the row's own one, and where it is equal up to rounding."""
    gap_Bn = value_Bn - value_Bn.gather(1, own_B[:, None])
    return gap_Bn < -ROUNDING * scale, gap_Bn.abs() <= ROUNDING * scale
