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


class Standardised:
    """Maps confidence vectors to features with mean 0 and standard deviation 1 over the attacker's answers.

    Features are first clamped to their range in those answers, because a linear decoder would extrapolate
    beyond it, e.g. at a score of exactly 0. Features that do not vary become 0.

    Args:
        c_NK: the attacker's answers. kind: a feature set, or see :func:`score_features`.
    """

    def __init__(self, c_NK: Tensor, kind: Kind | FeatureSet) -> None:
        self.kind = kind
        z_NF = self._plain(c_NK)
        self.mean_F, self.scale_F = z_NF.mean(0), z_NF.std(0, correction=0)
        # A constant feature has a deviation of about 1e-16 because of rounding; it counts as 0.
        self.scale_F[self.scale_F <= 1e-12 * (1 + self.mean_F.abs())] = torch.inf
        self.low_F, self.high_F = z_NF.amin(0), z_NF.amax(0)

    def __call__(self, c_NK: Tensor) -> Tensor:
        """Features (N, F), float64, on the CPU."""
        z_NF = self._plain(c_NK).clamp(self.low_F, self.high_F)
        return (z_NF - self.mean_F) / self.scale_F

    def _plain(self, c_NK: Tensor) -> Tensor:
        return self.kind(c_NK) if isinstance(self.kind, FeatureSet) else score_features(c_NK, self.kind)


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
