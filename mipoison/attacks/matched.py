"""Matching attacker: gives the vectors that it inverts the certainty of its own, label by label.

A classifier is more certain of the images that it was trained on than of others, so that what an attacker
learned on its own images does not fit the private ones (a covariate shift). Whoever holds many stolen vectors
sees the shift without any private image: the distribution of their log-odds differs from that of its own
answers. This attacker maps quantile to quantile before it reconstructs.

It reconstructs a batch, so the rest of a batch takes part in each reconstruction; the metrics hand over all
private training, or all private test vectors. What that means for certificates:

- Releases without noise: within scope. The map depends on the batch only through the set of its vectors,
  which is a constant of the pool, and equal vectors get equal images, since ties share their mean rank. It is
  thus a function of one released row, built from the pool, as the pool game allows.
- Noise: out of scope. That certificate holds for answers that are reconstructed one at a time, and the other
  vectors of the pool carry noise of their own and tell, by exclusion, of this one's image. The check
  ``beats_certificate`` does not judge this attacker there.

Shape suffixes: N vectors, M own answers, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipoison.attacks.ensemble import CheapStackConfig, Stack
from mipoison.attacks.sizes import sized
from mipoison.attacks.tuned import RecordedAnswers
from mipoison.protocols import Oracle, ThreatModel
from mipoison.simplex import keep_label, label_of

Array = NDArray[np.float64]
LEAST = 20
"""Vectors of a label, stolen and own each, below which its vectors stay as they are: a single stolen vector
has no quantile, and few have rough ones."""
POWERS = (1e-3, 1e3)
"""Bounds of the exponents: a vector whose odds would need another one is as certain as these make it."""
BISECTIONS = 50


@dataclass(frozen=True, kw_only=True)
class MatchedConfig(CheapStackConfig):
    """Gives the stolen vectors of each label the quantiles of log-odds of its own answers, then reconstructs
    as ``stack-cheap`` does: undoes that a victim is more certain of its training images.

    Attributes:
        matching: ``power`` raises a vector to the power that gives it the matched log-odds; nothing else. See
            CheapStackConfig for the others.
    """

    COST: ClassVar[int] = 1

    matching: Literal["power"] = "power"

    def make(self) -> Matched:
        return Matched(sized(self))


def log_odds(c_NK: Tensor, label_N: Tensor) -> Tensor:
    """Logarithm of the label's score over the sum of the others, float64; infinite if these are all 0."""
    c_NK = c_NK.double()
    top_N = c_NK.gather(1, label_N[:, None])[:, 0]
    return top_N.log() - c_NK.scatter(1, label_N[:, None], 0.0).sum(1).log()


def matched_quantiles(value_N: Array, own_M: Array) -> Array:
    """The values of ``own`` at the ranks of ``value``: the same order and, on average, the same distribution.

    Args:
        value_N: equal ones share their mean rank. own_M: finite, any order; interpolated linearly.
    """
    import scipy.stats

    share_N = (scipy.stats.rankdata(value_N) - 0.5) / len(value_N)
    return np.asarray(np.interp(share_N, (np.arange(len(own_M)) + 0.5) / len(own_M), np.sort(own_M)))


def with_log_odds(c_NK: Tensor, target_N: Tensor) -> Tensor:
    """The power of each vector, scaled to sum to 1, that has these log-odds of its label.

    A power keeps the order of the scores and what is 0, and is what a larger scale of the logits does. Found
    by bisection; vectors of one non-zero score stay as they are.
    """
    label_N = label_of(c_NK)
    log_NK = c_NK.double().log()
    log_NK = log_NK - log_NK.gather(1, label_N[:, None])  # at most 0, and 0 for the label
    low_N, high_N = (torch.full((len(c_NK),), p, dtype=torch.float64).log() for p in POWERS)
    for _ in range(BISECTIONS):
        middle_N = (low_N + high_N) / 2
        power_NK = torch.exp(log_NK * middle_N.exp()[:, None])
        below_N = log_odds(power_NK, label_N) < target_N
        low_N, high_N = torch.where(below_N, middle_N, low_N), torch.where(below_N, high_N, middle_N)
    power_NK = torch.exp(log_NK * low_N.exp()[:, None])
    power_NK = keep_label((power_NK / power_NK.sum(1, keepdim=True)).to(c_NK), c_NK)
    return torch.where(((c_NK > 0).sum(1) > 1)[:, None], power_NK, c_NK)


def matched_powers(c_NK: Tensor, own_MK: Tensor) -> Tensor:
    """Powers of vectors (N, K) whose log-odds have, label by label, the quantiles of those of own answers.

    Vectors of labels of which there are too few (``LEAST``), and those with infinite odds, are unchanged.
    """
    label_N, label_M = label_of(c_NK), label_of(own_MK)
    odds_N, own_M = log_odds(c_NK, label_N), log_odds(own_MK, label_M)
    out_NK = c_NK.clone()
    for k in range(c_NK.shape[1]):
        row_n = ((label_N == k) & odds_N.isfinite()).nonzero()[:, 0]
        own_m = own_M[(label_M == k) & own_M.isfinite()].numpy()
        if min(len(row_n), len(own_m)) >= LEAST:
            target_n = torch.from_numpy(matched_quantiles(odds_N[row_n].numpy(), own_m))
            out_NK[row_n] = with_log_odds(c_NK[row_n], target_n)
    return out_NK


class Matched(Stack):
    """The cheap stack behind a map of quantiles that is made anew for each batch of stolen vectors."""

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        c_NK = oracle.query(x_NCHW)
        super().fit(RecordedAnswers(c_NK), x_NCHW, known=known, rng=rng)
        self.own_NK = c_NK.cpu()

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) from all stolen vectors at once."""
        return super().reconstruct(matched_powers(c_NK.cpu(), self.own_NK))
