"""Feature sets: what an attacker may read in a released vector. All of them show the label's score.

A defense may change the small scores and leave the label's, or the other way round, and a logarithm without
a floor turns noise around zero into the largest feature of all. So no set is best against every defense, and
an attacker chooses among them on its own images.

Shape suffixes: N samples, K classes, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mipoison.linalg.ranks import mean_ranks
from mipoison.protocols import ThreatModel
from mipoison.simplex import label_of

POWER = 1 / 11
"""Exponent of the scores in :func:`powers`, as for MNIST in the code of Zhang et al."""
LEAST_FLOOR, MOST_FLOOR = 1e-6, 0.1
"""Range of the floor that is taken from a defense's budget."""


def log_odds(c_NK: Tensor, floor: float) -> Tensor:
    """``log c_top - log(1 - c_top)`` (N,), both at least the floor.

    The rest is the sum of the other scores in float64: one minus a float32 top score of almost 1 would
    have few digits left, or none.

    Args:
        c_NK: vectors, float64.
    """
    label_N1 = label_of(c_NK)[:, None]
    top_N = c_NK.gather(1, label_N1)[:, 0]
    rest_N = c_NK.scatter(1, label_N1, 0.0).sum(1)
    return top_N.clamp_min(floor).log() - rest_N.clamp_min(floor).log()


def no_scores(c_NK: Tensor, floor: float) -> Tensor:
    """Nothing (N, 0) beside the log-odds."""
    return c_NK[:, :0]


def logs(c_NK: Tensor, floor: float) -> Tensor:
    """Logarithms (N, K) of the scores; those below the floor count as the floor."""
    return c_NK.clamp_min(floor).log()


def centred_logs(c_NK: Tensor, floor: float) -> Tensor:
    """Logarithms less their mean over the classes (N, K): the victim's logits but for a constant (centred
    log-ratios; Aitchison, "The Statistical Analysis of Compositional Data", 1982)."""
    log_NK = logs(c_NK, floor)
    return log_NK - log_NK.mean(1, keepdim=True)


def raw_scores(c_NK: Tensor, floor: float) -> Tensor:
    """The scores themselves (N, K)."""
    return c_NK


def powers(c_NK: Tensor, floor: float) -> Tensor:
    """Amplified small scores ``c ** (1 / 11)`` (N, K): Amplified-MIA (Zhang, Wang, Huang and Zhang, "Analysis
    and Utilization of Hidden Information in Model Inversion Attacks", IEEE TIFS 2023)."""
    return c_NK.clamp_min(0) ** POWER


def ranks(c_NK: Tensor, floor: float) -> Tensor:
    """The rank (N, K) of each class's score, 0 for the largest; of equal scores all have their mean rank."""
    return (c_NK.shape[1] - mean_ranks(c_NK.sort(dim=1).values, c_NK)).to(c_NK)


def gaps(c_NK: Tensor, floor: float) -> Tensor:
    """Differences (N, K - 1) of neighbours among the sorted log scores, largest first."""
    sorted_NK = logs(c_NK, floor).sort(dim=1, descending=True).values
    return sorted_NK[:, :-1] - sorted_NK[:, 1:]


def shares(c_NK: Tensor, floor: float) -> Tensor:
    """Logarithms (N, K) of the other classes' shares of what the top score leaves; 0 at the top.

    They tell the same of a sure vector as of an unsure one. Shares below the floor count as the floor.
    """
    label_N1 = label_of(c_NK)[:, None]
    rest_NK = c_NK.scatter(1, label_N1, 0.0)
    share_NK = rest_NK / rest_NK.sum(1, keepdim=True).clamp_min(1e-300)
    return share_NK.clamp_min(floor).log().scatter(1, label_N1, 0.0)


@dataclass(frozen=True)
class FeatureSet:
    """What an attacker reads in a vector.

    Attributes:
        columns: vectors (N, K) in float64 and the floor -> features (N, F).
        floor: least score inside a logarithm; None: the defense's public budget.
        odds: whether the log-odds of the top score are one more feature. False where the others tell it.
    """

    columns: Callable[[Tensor, float], Tensor]
    floor: float | None
    odds: bool = True

    def __call__(self, c_NK: Tensor) -> Tensor:
        """Features (N, F), float64, on the CPU; the log-odds come first."""
        if self.floor is None:
            raise ValueError("the floor of this feature set is the defense's budget: see known_sets")
        c_NK = c_NK.cpu().double()
        found_NF = self.columns(c_NK, self.floor)
        return torch.cat([log_odds(c_NK, self.floor)[:, None], found_NF], 1) if self.odds else found_NF


FEATURE_SETS: dict[str, FeatureSet] = {
    "odds": FeatureSet(no_scores, 1e-6),
    "log-8": FeatureSet(logs, 1e-8),
    "log-6": FeatureSet(logs, 1e-6),
    "log-5": FeatureSet(logs, 1e-5),
    "log-3": FeatureSet(logs, 1e-3),
    "log-budget": FeatureSet(logs, None),
    "centred-8": FeatureSet(centred_logs, 1e-8, odds=False),
    "centred-4": FeatureSet(centred_logs, 1e-4),
    "centred-budget": FeatureSet(centred_logs, None),
    "power": FeatureSet(powers, 1e-6),
    "ranks": FeatureSet(ranks, 1e-6),
    "gaps": FeatureSet(gaps, 1e-5),
    "scores": FeatureSet(raw_scores, 1e-6),
    "shares": FeatureSet(shares, 1e-3),
}
"""Name -> feature set; the number is the exponent of the floor."""


def known_sets(known: ThreatModel) -> dict[str, FeatureSet]:
    """The sets that an attacker can form: those with the budget as their floor only where it is public."""
    budget = known.settings.get("budget")
    if not isinstance(budget, int | float) or isinstance(budget, bool) or budget <= 0:
        return {name: s for name, s in FEATURE_SETS.items() if s.floor is not None}
    floor = min(max(float(budget), LEAST_FLOOR), MOST_FLOOR)
    return {name: replace(s, floor=floor) if s.floor is None else s for name, s in FEATURE_SETS.items()}


def per_label(z_NF: Tensor, c_NK: Tensor) -> Tensor:
    """Features (N, F + 2 K) for a linear map: the label's one-hot is added, and its product with the first
    feature, which are the log-odds. So the pixels of each label follow a line of their own."""
    label_NK = F.one_hot(label_of(c_NK.cpu()), c_NK.shape[1]).to(z_NF)
    return torch.cat([z_NF, label_NK, label_NK * z_NF[:, :1]], 1)
