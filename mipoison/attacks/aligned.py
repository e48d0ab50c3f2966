"""Aligning attacker: the mixing attacker, which also undoes that stolen vectors are distributed otherwise.

A classifier answers the images that it was trained on otherwise than others: it is surer, and its small
scores are smaller (:mod:`mipoison.attacks.matched`). How stolen vectors have to be changed to be like the
attacker's own answers cannot be judged without private images, and each way of doing it fails somewhere: a
power of each vector leaves differences between the classes, and moments of each class undo what only few
vectors show. So it reconstructs from the vectors as they are, from powers of them, and from vectors
with matched moments, and answers with the mean of the three images: where they err differently, the mean errs
less than they do on average. Where stolen vectors are like its own, the matching costs a little, and
``mixtures`` reads more.

What the matching module says of batches and certificates holds here: outside noise the reconstruction is a
function of one released row and of the pool.

Shape suffixes: N stolen vectors, M own answers, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mipoison.attacks.matched import LEAST, matched_powers
from mipoison.attacks.mixtures import Mixtures, MixturesConfig
from mipoison.attacks.tuned import RecordedAnswers
from mipoison.protocols import Oracle, ThreatModel
from mipoison.simplex import label_of

FLOOR = 1e-6
"""Least score of which a logarithm is taken."""


@dataclass(frozen=True, kw_only=True)
class AlignedConfig(MixturesConfig):
    """Reconstructs as ``mixtures`` does from stolen vectors as they are, with matched log-odds, and with
    matched moments, and answers with the mean: undoes that a victim is surer of its training images.

    See MixturesConfig for the attributes.
    """

    def make(self) -> Aligned:
        return Aligned(self)


def centred_logs(c_NK: Tensor) -> Tensor:
    """Logarithms of scores less their mean over the classes, float64."""
    log_NK = c_NK.double().clamp_min(FLOOR).log()
    return log_NK - log_NK.mean(1, keepdim=True)


def matched_moments(c_NK: Tensor, own_MK: Tensor) -> Tensor:
    """Vectors (N, K) whose centred logarithms have, label by label and class by class, the mean and the
    standard deviation of those of own answers (M, K).

    Vectors that would lose their label, and those of labels of which there are fewer than ``LEAST``, stolen
    or own, are unchanged.
    """
    label_N, label_M = label_of(c_NK), label_of(own_MK)
    z_NK, own_z_MK = centred_logs(c_NK), centred_logs(own_MK)
    out_NK = c_NK.clone()
    for k in range(c_NK.shape[1]):
        row_n, own_m = (label_N == k).nonzero()[:, 0], (label_M == k).nonzero()[:, 0]
        if min(len(row_n), len(own_m)) < LEAST:
            continue
        z_nK, own_mK = z_NK[row_n], own_z_MK[own_m]
        spread_K = own_mK.std(0) / z_nK.std(0).clamp_min(1e-9)
        matched_nK = (z_nK - z_nK.mean(0)) * spread_K + own_mK.mean(0)
        moved_nK = torch.softmax(matched_nK, 1).to(c_NK)
        kept_n = label_of(moved_nK) == k
        out_NK[row_n[kept_n]] = moved_nK[kept_n]
    return out_NK


class Aligned(Mixtures):
    """The mixing attacker behind three views of each batch of stolen vectors."""

    config: AlignedConfig

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """As the mixing attacker's; its own answers are kept."""
        c_NK = oracle.query(x_NCHW)
        super().fit(RecordedAnswers(c_NK, then=oracle), x_NCHW, known=known, rng=rng)
        self.own_NK = c_NK.cpu()

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) from all stolen vectors at once."""
        c_NK = c_NK.cpu()
        powers_NK, moments_NK = matched_powers(c_NK, self.own_NK), matched_moments(c_NK, self.own_NK)
        parts = [super(Aligned, self).reconstruct(v_NK) for v_NK in (c_NK, powers_NK, moments_NK)]
        return torch.stack(parts).mean(0)
