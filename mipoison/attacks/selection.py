"""Features and cross-validation folds for attackers that choose settings on their own data.

Shape suffixes: N samples, K classes, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mipoison.attacks.feature_sets import FeatureSet, known_sets
from mipoison.linalg.ranks import mean_ranks
from mipoison.models.inversion import features
from mipoison.protocols import ThreatModel
from mipoison.simplex import label_of

Kind = Literal["log", "raw", "all"]
KINDS: tuple[Kind, ...] = ("log", "raw", "all")
Inputs = Literal["log", "raw", "all", "tuned", "chosen"]
"""What a configuration says of features: one kind; ``tuned``, the best of the three kinds (as in records of
before); or ``chosen``, the best of all feature sets."""


def feature_choices(inputs: Inputs, known: ThreatModel) -> list[Kind | FeatureSet]:
    """The features that compete, for a configuration's ``inputs``."""
    if inputs == "chosen":
        return list(known_sets(known).values())
    return list(KINDS) if inputs == "tuned" else [inputs]


def score_features(c_NK: Tensor, kind: Kind) -> Tensor:
    """Features (N, F) of confidence vectors, float64, on the CPU.

    Args:
        kind: ``log`` or ``raw`` scores (F = K), or ``all``, which is both and the label's one-hot (F = 3 K).
            A defense that keeps the label cannot change the one-hot part.
    """
    c_NK = c_NK.cpu().double()
    if kind != "all":
        return features(c_NK, kind)
    label_NK = F.one_hot(label_of(c_NK), c_NK.shape[1]).double()
    return torch.cat([features(c_NK, "log"), c_NK, label_NK], 1)


def plain_features(c_NK: Tensor, kind: Kind | FeatureSet) -> Tensor:
    """Features (N, F) of a feature set or a kind, as they are, float64, on the CPU."""
    return kind(c_NK) if isinstance(kind, FeatureSet) else score_features(c_NK, kind)


class Standardised:
    """Maps confidence vectors to features with mean 0 and standard deviation 1 over the attacker's answers.

    Features are first clamped to their range in those answers, because a linear decoder would extrapolate
    beyond it, e.g. at a score of exactly 0. Features that do not vary become 0.

    Args:
        c_NK: the attacker's answers. kind: a feature set, or see :func:`score_features`.
    """

    def __init__(self, c_NK: Tensor, kind: Kind | FeatureSet) -> None:
        self.kind = kind
        z_NF = plain_features(c_NK, kind)
        self.mean_F, self.scale_F = z_NF.mean(0), z_NF.std(0, correction=0)
        # A constant feature has a deviation of about 1e-16 because of rounding; it counts as 0.
        self.scale_F[self.scale_F <= 1e-12 * (1 + self.mean_F.abs())] = torch.inf
        self.low_F, self.high_F = z_NF.amin(0), z_NF.amax(0)

    def __call__(self, c_NK: Tensor) -> Tensor:
        """Features (N, F), float64, on the CPU."""
        return self.scaled(plain_features(c_NK, self.kind))

    def scaled(self, z_NF: Tensor) -> Tensor:
        """Plain features (N, F), clamped and standardised."""
        return (z_NF.clamp(self.low_F, self.high_F) - self.mean_F) / self.scale_F


LEAST_RANKED = 8
"""A label with fewer answers is ranked among all of them."""


class RankedByLabel:
    """Maps confidence vectors to the normal scores of their features' ranks among the answers of their label.

    A defense stretches the scores of each label otherwise, and a rank survives any increasing map (van der
    Waerden's scores: the normal quantile of the rank). Equal values have their mean rank, and values beyond
    the answers' the scores of the extremes. Features that do not vary within a label become 0 there.

    Args:
        c_NK: the attacker's answers. kind: a feature set, or see :func:`score_features`.
    """

    def __init__(self, c_NK: Tensor, kind: Kind | FeatureSet) -> None:
        self.kind = kind
        z_NF, label_N = plain_features(c_NK, kind), label_of(c_NK.cpu())
        self.sorted_KFN: list[Tensor] = []
        for label in range(c_NK.shape[1]):
            own_NF = z_NF[label_N == label]
            own_NF = own_NF if len(own_NF) >= LEAST_RANKED else z_NF
            self.sorted_KFN.append(own_NF.mT.contiguous().sort(dim=1).values)

    def __call__(self, c_NK: Tensor) -> Tensor:
        """Features (N, F), float64, on the CPU."""
        z_NF, label_N = plain_features(c_NK, self.kind), label_of(c_NK.cpu())
        out_NF = torch.zeros_like(z_NF)
        for label, sorted_FN in enumerate(self.sorted_KFN):
            of_N = label_N == label
            share_FN = mean_ranks(sorted_FN, z_NF[of_N].mT) / (sorted_FN.shape[1] + 1)
            varies_F1 = (sorted_FN[:, -1] > sorted_FN[:, 0])[:, None]
            out_NF[of_N] = torch.where(varies_F1, torch.special.ndtri(share_FN), 0.0).mT
        return out_NF


Reading = Standardised | RankedByLabel
"""What a regression reads in an answer."""


class Together:
    """Several standardised feature sets and the label's one-hot, side by side: the input of a network.

    Args:
        parts: the feature sets, fitted to the attacker's answers.
    """

    def __init__(self, parts: Sequence[Standardised]) -> None:
        self.parts = list(parts)

    def __call__(self, c_NK: Tensor) -> Tensor:
        """Features (N, F), float64, on the CPU; the one-hot has about the spread of the others."""
        label_NK = F.one_hot(label_of(c_NK.cpu()), c_NK.shape[1])
        return torch.cat([*(part(c_NK) for part in self.parts), 2.0 * label_NK], 1)


def folds(n: int, count: int, rng: torch.Generator) -> Tensor:
    """The fold of each of n samples, int64 (n,): ``count`` folds, or n if that is smaller, of nearly equal
    size."""
    fold_N = torch.empty(n, dtype=torch.int64)
    fold_N[torch.randperm(n, generator=rng)] = torch.arange(n) % min(count, n)
    return fold_N
