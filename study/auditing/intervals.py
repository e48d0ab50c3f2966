"""Excess leakage of one endpoint with an interval.

One endpoint is one victim and one draw of images: there are no seeds to resample. The interval covers what a
full study of this endpoint would find, with all of the auditor's images, by adding up:

- which private images were asked: bootstrap over them, attackers and floor on the same resamples;
- which attacker is the worst: the low end scores the one that is best on a resample on the images that are
  not in it, the high end takes the best on all;
- which public images the attacker has: gains with disjoint halves of them differ by it, and the variance of
  a half is twice that of the whole;
- that the study's attackers have more public images than were asked, and that some attack was not tried: the
  high end adds what doubling the images brings (a half against all), for each doubling that is left, and
  ``UNTRIED`` of the gain.

Shape suffixes: N images, A attackers, B attackers on labels, R resamples, S splits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RESAMPLES = 1000
QUANTILE, CHOSEN_QUANTILE = 1.96, 2.5
"""Two-sided 95 %; and for the low end, where the best of several attackers was chosen by its error: 2.5 %
over four of them (Bonferroni)."""
UNTRIED = 0.1
"""Share of the gain, and ``UNTRIED_LEAST`` in all, by which attackers of a full study may be better than the
audit's: those trained by gradients, or that know the defense's settings."""
UNTRIED_LEAST = 0.003


@dataclass(frozen=True)
class AuditedExcess:
    """Excess leakage: the share of the label-only error by which the worst attacker's lies below it.

    Attributes:
        estimate: at least 0. low, high: 95 % interval of what a full study would find; at least 0.
        gain: before it is cut at 0. attacker: the worst. images: asked private images.
        by_images, by_training: standard deviations. by_reach: what the high end adds for more images and
            attackers.
    """

    estimate: float
    low: float
    high: float
    gain: float
    attacker: str
    images: int
    by_images: float
    by_training: float
    by_reach: float


def excess_of(
    scores: Mapping[str, Array],
    labels: Mapping[str, Array],
    halves_S2: Array | None,
    *,
    doublings: float,
    rng: np.random.Generator,
) -> AuditedExcess:
    """The excess on one pool.

    Args:
        scores: attacker -> errors (N,) on the answers. labels: the same on one-hot labels, same images.
        halves_S2: gains of one attacker with halves of its images; None: not measured.
        doublings: how often the asked public images would have to be doubled to be all public images.
        rng: draws the resamples.

    Raises:
        ValueError: the label alone tells everything, so that there is no excess.
    """
    names = list(scores)
    error_AN, floor_BN = (np.stack(list(of.values())) for of in (scores, labels))
    n = error_AN.shape[1]
    floor = float(floor_BN.mean(1).min())
    if not floor > 0:
        raise ValueError("the label-only error is 0: the label tells everything")
    gain_A = 1 - error_AN.mean(1) / floor
    worst = int(gain_A.argmax())
    count_RN = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)
    inside_AR, inside_BR = error_AN @ count_RN.T / n, floor_BN @ count_RN.T / n
    best_B = int(floor_BN.mean(1).argmin())
    own_R = 1 - inside_AR[worst] / inside_BR[best_B]
    out_RN = count_RN == 0
    left_R = np.maximum(out_RN.sum(1), 1)
    outside_AR, outside_BR = error_AN @ out_RN.T / left_R, floor_BN @ out_RN.T / left_R
    chosen_R, fixed_R = inside_AR.argmin(0), inside_BR.argmin(0)
    rows = np.arange(RESAMPLES)
    fair = 1 - float(outside_AR[chosen_R, rows].mean() / max(outside_BR[fixed_R, rows].mean(), 1e-300))
    gain, by_images = float(gain_A[worst]), float(own_R.std(ddof=1))
    by_training, slope = 0.0, 0.0
    if halves_S2 is not None and halves_S2.size:
        by_training = math.sqrt(float((np.diff(halves_S2, axis=1) ** 2).mean()) / 4)
        slope = max(0.0, gain - float(halves_S2.mean()))
    reach = slope * max(0.0, doublings) + max(UNTRIED_LEAST, UNTRIED * max(gain, 0.0))
    spread = math.hypot(by_images, by_training)
    return AuditedExcess(
        estimate=max(0.0, gain),
        low=max(0.0, min(gain, fair) - CHOSEN_QUANTILE * spread),
        high=max(0.0, gain) + QUANTILE * spread + reach,
        gain=gain,
        attacker=names[worst],
        images=n,
        by_images=by_images,
        by_training=by_training,
        by_reach=reach,
    )
