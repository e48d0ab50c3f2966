"""Label-only: one-hot vectors. No defense that keeps the label can leak less than the label does."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from mipoison.config import Config
from mipoison.defenses.base import BaseDefense
from mipoison.randomness import QueryRandomness
from mipoison.simplex import label_of


@dataclass(frozen=True, kw_only=True)
class LabelOnlyConfig(Config):
    """One-hot vector of the label: the least leakage that a label-preserving defense can have."""

    def make(self) -> LabelOnly:
        return LabelOnly()


class LabelOnly(BaseDefense):
    """Releases one-hot vectors."""

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        return F.one_hot(label_of(c_NK), c_NK.shape[1]).to(c_NK)
