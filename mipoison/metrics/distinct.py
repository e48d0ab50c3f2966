"""How many different answers a pool of images gets, and how many labels: one answer a label tells the label.

Shape suffixes: N samples, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mipoison.simplex import label_of

DISTINCT_COLUMNS = (
    "distinct_releases", "distinct_releases_test", "distinct_labels", "distinct_labels_test",
)  # fmt: skip
"""Of private training and (``_test``) test images: different released vectors, and different clean labels."""


def distinct_columns(released_NK: Tensor, clean_NK: Tensor, suffix: str = "") -> dict[str, int | None]:
    """A record's columns of one pool; None where it has no image.

    Args:
        released_NK, clean_NK: the pool's released and clean vectors. suffix: of the columns.
    """
    answers = len(torch.unique(released_NK, dim=0)) if len(released_NK) else None
    labels = len(torch.unique(label_of(clean_NK))) if len(clean_NK) else None
    return {f"distinct_releases{suffix}": answers, f"distinct_labels{suffix}": labels}
