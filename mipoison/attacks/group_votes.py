"""Votes for each group of principal components by itself.

The leading components are what scores tell most of, and their best regressions are others than those of small
ones: a sharper function for the first, more averaging for the rest. Groups are few and large, since weights
are fitted to few images.

Shape suffixes: V voters, N images, P principal components.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mipoison.attacks.kernel import votes

ENDS = (4, 16)
"""Ends of the groups of leading components; the last group is all that remains."""


def group_votes(error_VNP: list[Tensor], components: int, ends: tuple[int, ...] = ENDS) -> Tensor:
    """Weights (V, components), float64, at least 0; those of each component sum to 1.

    Args:
        error_VNP: errors of each voter on the same images, in principal components of these.
        components: how many are predicted. These may be others than those of the errors, but are also in
            order of their variance; what is beyond the last one has the weights of the last group.
        ends: of all groups but the last; none: one group.
    """
    count = error_VNP[0].shape[1]
    starts = [0, *(end for end in ends if end < count)]
    weight_VP = torch.zeros(len(error_VNP), components, dtype=torch.float64)
    for start, end in zip(starts, [*starts[1:], count], strict=True):
        found_V = torch.from_numpy(votes([error_NP[:, start:end] for error_NP in error_VNP]))
        weight_VP[:, start:] = found_V[:, None]
    return weight_VP
