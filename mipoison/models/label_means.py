"""The mean image of each label: the simplest inversion model, which a label alone is enough for.

Shape suffixes: N samples, K classes, D pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def label_means(label_N: Tensor, x_ND: Tensor, n_classes: int) -> Tensor:
    """Mean image (K, D) of each label, in the images' precision; of labels without images, the mean of all.

    Args:
        label_N: labels, 0 to K - 1. x_ND: at least one image.
    """
    count_K = torch.bincount(label_N, minlength=n_classes)
    total_KD = x_ND.new_zeros(n_classes, x_ND.shape[1]).index_add_(0, label_N, x_ND)
    return torch.where(count_K[:, None] > 0, total_KD / count_K[:, None].clamp_min(1), x_ND.mean(0))
