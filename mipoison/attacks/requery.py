"""Re-querying attacker: asks the API about its own reconstructions, and learns what the answers miss.

An attacker who reconstructs an image can ask the API about the reconstruction. Where the answer differs from
the vector that was to be inverted, the reconstruction is not right yet, and the difference says in which
direction. It has this from its own images: each is reconstructed by a member that did not learn from it, the
reconstruction is asked (so that it asks twice as many images as it has), and a corrector learns what is
missing from the vector and the difference.

An attacker holds the API while it learns, not while it reconstructs: its queries are counted until then, and
stolen vectors come after. So the answer to a stolen vector's reconstruction is predicted, by a regression on
the pairs (reconstruction, answer) that it has asked, and the corrector learns from such predictions, too.

Shape suffixes: N samples, K classes, F features, P components, D pixels, CHW image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mipoison.attacks.class_mean import ClassMeanConfig
from mipoison.attacks.feature_sets import logs
from mipoison.attacks.kernel import KernelConfig
from mipoison.attacks.ridge import PENALTIES, RidgeConfig, ridge_path
from mipoison.attacks.selection import folds
from mipoison.attacks.tuned import RecordedAnswers
from mipoison.attacks.weighting import leading_components
from mipoison.config import Config
from mipoison.protocols import Attack, Oracle, ThreatModel
from mipoison.simplex import label_of

FIRST: dict[str, Config] = {"kernel": KernelConfig(), "ridge": RidgeConfig(), "class-mean": ClassMeanConfig()}
FLOOR = 1e-5
"""Least score inside a logarithm."""
COMPONENTS = 32
"""Principal components of the reconstructions from which the API's answer is predicted."""


@dataclass(frozen=True, kw_only=True)
class RequeryConfig(Config):
    """Asks about its own reconstructions, compares the answers with the vectors that it inverted, and learns
    a correction from the difference.

    Attributes:
        first: the attacker whose reconstructions are corrected.
        folds: of the cross-validation on its own images, 2 to 20.
        data: the attacker's own images: ``all`` of D_inv train, or a stratified half ``D1`` or ``D2``.
    """

    COST: ClassVar[int] = 1

    first: Literal["kernel", "ridge", "class-mean"] = "kernel"
    folds: int = 5
    data: Literal["all", "D1", "D2"] = "all"

    def validate(self) -> None:
        self.require("folds", 2 <= self.folds <= 20, "between 2 and 20")

    def make(self) -> Requery:
        return Requery(self)


class Linear:
    """Ridge regression on standardised features; the penalty has the least cross-validated error.

    Args:
        z_NF: features. y_ND: targets, both float64. fold_N: folds of the cross-validation.

    Attributes:
        left_out_ND: predictions for each row by the folds without it.
        gain: share of the squared targets that these explain.
    """

    def __init__(self, z_NF: Tensor, y_ND: Tensor, fold_N: Tensor) -> None:
        self.mean_F, scale_F = z_NF.mean(0), z_NF.std(0, correction=0)
        self.scale_F = torch.where(scale_F > 1e-9, scale_F, torch.inf)
        z_NF = (z_NF - self.mean_F) / self.scale_F
        found = torch.zeros(len(PENALTIES), *y_ND.shape, dtype=y_ND.dtype)
        for fold in range(int(fold_N.max()) + 1):
            held = fold_N == fold
            for p, (w_FD, b_D) in enumerate(ridge_path(z_NF[~held], y_ND[~held], PENALTIES)):
                found[p, held] = z_NF[held] @ w_FD + b_D
        error_P = (found - y_ND).square().flatten(1).sum(1)
        best = int(error_P.argmin())
        self.left_out_ND = found[best]
        self.gain = 1 - float(error_P[best] / y_ND.square().sum().clamp_min(1e-300))
        self.w_FD, self.b_D = ridge_path(z_NF, y_ND, (PENALTIES[best],))[0]

    def __call__(self, z_NF: Tensor) -> Tensor:
        return (z_NF - self.mean_F) / self.scale_F @ self.w_FD + self.b_D


class Requery:
    """Queries its images and its reconstructions of them, once each.

    Attributes:
        gain: after :meth:`fit`, the share of the first reconstructions' squared error that the correction
            takes away on the attacker's own images, by cross-validation. At 0 or below none is made.
    """

    def __init__(self, config: RequeryConfig) -> None:
        self.config = config

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Query, reconstruct, query the reconstructions, and learn mirror and corrector; ``rng`` draws folds.

        Raises:
            ValueError: fewer than eight images.
        """
        if len(x_NCHW) < 8:
            raise ValueError(
                f"the re-querying attacker needs at least 8 images of its own, got {len(x_NCHW)}"
            )
        self.shape = known.image_shape
        c_NK, x_NCHW = oracle.query(x_NCHW), x_NCHW.cpu().float()
        fold_N = folds(len(x_NCHW), self.config.folds, rng)
        first_NCHW = torch.zeros_like(x_NCHW)
        self.fits: list[Attack] = []
        for fold in range(int(fold_N.max()) + 1):
            held = fold_N == fold
            attack: Attack = FIRST[self.config.first].make()
            attack.fit(RecordedAnswers(c_NK[~held]), x_NCHW[~held], known=known, rng=rng)
            first_NCHW[held] = attack.reconstruct(c_NK[held])
            self.fits.append(attack)
        again_NK = oracle.query(first_NCHW)
        first_ND = first_NCHW.double().flatten(1)
        self.center_D = first_ND.mean(0)
        self.basis_DP = leading_components(first_ND - self.center_D, COMPONENTS)
        self.mirror = Linear(self._seen(first_ND, c_NK), logs(again_NK.double(), FLOOR), fold_N)
        rest_ND = x_NCHW.double().flatten(1) - first_ND
        self.corrector = Linear(self._missed(c_NK, self.mirror.left_out_ND), rest_ND, fold_N)
        self.gain = self.corrector.gain

    def _seen(self, first_ND: Tensor, c_NK: Tensor) -> Tensor:
        """What the mirror sees: the reconstruction's components, and the label that it was made of."""
        label_NK = F.one_hot(label_of(c_NK.cpu()), c_NK.shape[1]).double()
        return torch.cat([(first_ND - self.center_D) @ self.basis_DP, label_NK], 1)

    @staticmethod
    def _missed(c_NK: Tensor, mirrored_NK: Tensor) -> Tensor:
        """What the corrector sees: log scores, their difference to the answer, also for each label alone."""
        log_NK = logs(c_NK.cpu().double(), FLOOR)
        gap_NK = log_NK - mirrored_NK
        label_N = label_of(c_NK.cpu())
        label_NK = F.one_hot(label_N, c_NK.shape[1]).double()
        own_N1 = gap_NK.gather(1, label_N[:, None])
        return torch.cat([log_NK, gap_NK, label_NK, label_NK * own_N1], 1)

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) from released vectors."""
        first_ND = torch.stack([a.reconstruct(c_NK).flatten(1) for a in self.fits]).double().mean(0)
        if self.gain > 0:
            mirrored_NK = self.mirror(self._seen(first_ND, c_NK))
            first_ND = first_ND + self.corrector(self._missed(c_NK, mirrored_NK))
        return first_ND.clamp(0, 1).float().reshape(-1, *self.shape)
