"""Aligning attacker: the mixing attacker, which also undoes that stolen vectors are distributed otherwise.

A classifier answers the images that it was trained on otherwise than others: it is surer, and its small
scores are smaller (:mod:`mipoison.attacks.matched`). How stolen vectors have to be changed to be like the
attacker's own answers cannot be judged without private images. This attacker matches them in two ways, each
label by itself, and answers with a weighted mean of the two images: the vectors' log-odds, by powers; and the
mean and the spread of each feature that a regression reads (of ranks: the ranks among the stolen vectors
themselves). Matched features are no longer those of one vector, and need not be: zeros, grids and noise stay
what they are. Where stolen vectors are like its own the matching costs a little, and ``mixtures`` reads more.

What the matching module says of batches and certificates holds here: outside noise the reconstruction is a
function of one released row and of the pool.

Shape suffixes: N stolen vectors, M own answers, K classes, F features, P principal components.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mipoison.attacks.kernel import CHUNK
from mipoison.attacks.kernel_regression import Voter
from mipoison.attacks.matched import LEAST, matched_powers
from mipoison.attacks.mixtures import Mixtures, MixturesConfig
from mipoison.attacks.selection import RankedByLabel, Reading, plain_features
from mipoison.attacks.tuned import RecordedAnswers
from mipoison.protocols import Oracle, ThreatModel
from mipoison.simplex import label_of

SHARE = 2 / 3
"""Weight of the images from matched features; those from matched powers have the rest."""


@dataclass(frozen=True, kw_only=True)
class AlignedConfig(MixturesConfig):
    """Reconstructs as ``mixtures`` does, from stolen vectors whose log-odds and features are matched to those
    of its own answers, label by label: undoes that a victim is surer of its training images.

    See MixturesConfig for the attributes.
    """

    def make(self) -> Aligned:
        return Aligned(self)


def matched_features(reading: Reading, c_NK: Tensor, own_MK: Tensor) -> Tensor:
    """What a regression reads in stolen vectors (N, F), matched to the own answers (M, K) label by label.

    Standardised features get the mean and the standard deviation that those of the own answers have; ranks
    are those among the stolen vectors. Labels of which there are fewer than ``LEAST`` vectors, stolen or own,
    are read as they are.
    """
    label_N, label_M = label_of(c_NK), label_of(own_MK)
    many_K = torch.stack([label.bincount(minlength=c_NK.shape[1]) >= LEAST for label in (label_N, label_M)])
    matched_N = many_K.all(0)[label_N]
    if isinstance(reading, RankedByLabel):
        out_NF = reading(c_NK)
        if bool(matched_N.any()):
            out_NF[matched_N] = RankedByLabel(c_NK, reading.kind)(c_NK)[matched_N]
        return out_NF
    z_NF, own_MF = plain_features(c_NK, reading.kind), plain_features(own_MK, reading.kind)
    for label in label_N[matched_N].unique().tolist():
        of_N, own_nF = label_N == label, own_MF[label_M == label]
        spread_F = own_nF.std(0) / z_NF[of_N].std(0).clamp_min(1e-9)
        z_NF[of_N] = (z_NF[of_N] - z_NF[of_N].mean(0)) * spread_F + own_nF.mean(0)
    return reading.scaled(z_NF)


class Aligned(Mixtures):
    """The mixing attacker on matched stolen vectors."""

    config: AlignedConfig

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """As the mixing attacker's; its own answers are kept."""
        c_NK = oracle.query(x_NCHW)
        super().fit(RecordedAnswers(c_NK, then=oracle), x_NCHW, known=known, rng=rng)
        self.own_NK = c_NK.cpu()

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) from all stolen vectors at once."""
        c_NK = c_NK.cpu()
        powers_NCHW = super().reconstruct(matched_powers(c_NK, self.own_NK))
        matched_ND = self.parts.images(label_of(c_NK), self.rest_of_matched(c_NK))
        return SHARE * matched_ND.float().reshape(-1, *self.shape) + (1 - SHARE) * powers_NCHW

    def rest_of_matched(self, c_NK: Tensor) -> Tensor:
        """Predicted principal components (N, P) of what the images add to the means of their labels, from
        matched features."""
        label_N = label_of(c_NK)

        def vote(voter: Voter) -> Tensor:
            z_NF = matched_features(voter.standardise, c_NK, self.own_NK)
            parts = zip(z_NF.split(CHUNK), label_N.split(CHUNK), strict=True)
            return torch.cat([voter.vote(*part) for part in parts])

        rest_NP = torch.zeros(len(c_NK), self.parts.rest_NP.shape[1], dtype=torch.float64)
        for voter in self.voters:
            rest_NP += self.share_P * vote(voter)
        for voter in self.others:
            rest_NP += vote(voter)
        return rest_NP
