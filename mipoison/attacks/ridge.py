"""Ridge attacker: linear regression of the pixels on the scores, in closed form.

It trains nothing by gradients, so there is no gradient that a defense could steer: a small change of an
answer changes the normal equations by a small amount. On a feature set it regresses what the images add to
the mean image of their label, with a line of the log-odds for each label.

Shape suffixes: N samples, K classes, F features, D pixels, P penalties, CHW image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mipoison.attacks.feature_sets import FeatureSet, per_label
from mipoison.attacks.selection import KINDS, Inputs, Kind, Standardised, feature_choices, folds
from mipoison.config import Config, Plain
from mipoison.models.label_means import label_means
from mipoison.protocols import Oracle, ThreatModel
from mipoison.simplex import label_of

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridge penalties that are tried, per sample: the squared coefficients are weighted with N times this."""

SHORTLIST = 3
"""Number of feature sets that are compared on all folds."""


@dataclass(frozen=True, kw_only=True)
class RidgeConfig(Config):
    """Linear regression of the pixels on the scores, in closed form: no gradient to poison.

    Attributes:
        inputs: features, standardised: ``chosen``, the best of FEATURE_SETS on the attacker's own held-out
            images, regressing what is left of the label's mean image, with a line of the log-odds for each
            label; or those of earlier records, ``log`` or ``raw`` scores, ``all`` (both and the label's
            one-hot), or ``tuned`` for the best of the three.
        folds: number of cross-validation folds, 2 to 20. The features and the penalty with the least
            held-out error are used; the solutions of the folds are averaged.
        data: the attacker's own images: ``all`` of D_inv train, or a stratified half ``D1`` or ``D2``.
    """

    COST: ClassVar[int] = 0
    SCREENS: ClassVar[bool] = True
    BEFORE: ClassVar[Mapping[str, Plain | None]] = {"inputs": "tuned"}

    inputs: Inputs = "chosen"
    folds: int = 5
    data: Literal["all", "D1", "D2"] = "all"

    def validate(self) -> None:
        self.require("folds", 2 <= self.folds <= 20, "between 2 and 20")

    def make(self) -> Ridge:
        return Ridge(self)


def ridge_path(z_NF: Tensor, x_ND: Tensor, penalties: tuple[float, ...]) -> list[tuple[Tensor, Tensor]]:
    """Minimise ``|x - b - z w|^2 + N p |w|^2`` for every penalty p.

    One eigendecomposition of the centred normal matrix gives all solutions exactly.

    Args:
        z_NF: features, float64. x_ND: pixels, float64. penalties: values of p.

    Returns:
        For each p, the coefficients w (F, D) and the intercepts b (D,).
    """
    mean_F, mean_D = z_NF.mean(0), x_ND.mean(0)
    z_NF, x_ND = z_NF - mean_F, x_ND - mean_D
    size_F, basis_FF = torch.linalg.eigh(z_NF.mT @ z_NF)
    target_FD = basis_FF.mT @ (z_NF.mT @ x_ND)
    path = []
    for penalty in penalties:
        w_FD = basis_FF @ (target_FD / (size_F.clamp_min(0) + len(z_NF) * penalty)[:, None])
        path.append((w_FD, mean_D - mean_F @ w_FD))
    return path


def columns(standardise: Standardised, c_NK: Tensor) -> Tensor:
    """What the pixels are linear in: standardised features, and for a feature set a line of each label."""
    z_NF = standardise(c_NK)
    return per_label(z_NF, c_NK) if isinstance(standardise.kind, FeatureSet) else z_NF


@dataclass
class Regression:
    """A linear map from features to pixels, the mean over the folds.

    Attributes:
        loss: squared error on held-out images, summed.
        mean_KD: mean images of the labels, to which it adds; zero for inputs that are no feature set.
    """

    standardise: Standardised
    penalty: float
    loss: float
    mean_KD: Tensor
    w_FD: Tensor
    b_D: Tensor


class Ridge:
    """Queries its images once and solves linear systems."""

    def __init__(self, config: RidgeConfig) -> None:
        self.config = config

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Query the API and solve the linear systems in float64; ``rng`` draws the folds.

        Raises:
            ValueError: fewer than four images.
        """
        if len(x_NCHW) < 4:
            raise ValueError(f"the ridge attacker needs at least 4 images of its own, got {len(x_NCHW)}")
        self.shape = known.image_shape
        c_NK, x_ND = oracle.query(x_NCHW).cpu(), x_NCHW.cpu().double().flatten(1)
        fold_N = folds(len(x_ND), self.config.folds, rng)
        choices = feature_choices(self.config.inputs, known)
        if len(choices) > len(KINDS):  # the first fold sorts out most of them
            choices.sort(key=lambda kind: self._validated(kind, c_NK, x_ND, fold_N, 1).loss)
            choices = choices[:SHORTLIST]
        best = min(
            (self._validated(kind, c_NK, x_ND, fold_N, int(fold_N.max()) + 1) for kind in choices),
            key=lambda found: found.loss,
        )
        self.standardise, self.penalty, self.mean_KD = best.standardise, best.penalty, best.mean_KD
        self.w_FD, self.b_D = best.w_FD, best.b_D

    def _validated(
        self, kind: Kind | FeatureSet, c_NK: Tensor, x_ND: Tensor, fold_N: Tensor, count: int
    ) -> Regression:
        """The regression on these features with the penalty that is best on the first ``count`` folds."""
        standardise = Standardised(c_NK, replace(kind, odds=True) if isinstance(kind, FeatureSet) else kind)
        z_NF, label_N = columns(standardise, c_NK), label_of(c_NK)
        paths, means, error_P = [], [], torch.zeros(len(PENALTIES), dtype=torch.float64)
        for k in range(count):
            rest, held = fold_N != k, fold_N == k
            mean_KD = torch.zeros(c_NK.shape[1], x_ND.shape[1], dtype=torch.float64)
            if isinstance(kind, FeatureSet):
                mean_KD = label_means(label_N[rest], x_ND[rest], c_NK.shape[1])
            path = ridge_path(z_NF[rest], x_ND[rest] - mean_KD[label_N[rest]], PENALTIES)
            z, x, mean = z_NF[held], x_ND[held], mean_KD[label_N[held]]
            error_P += torch.stack([((mean + z @ w + b).clamp(0, 1) - x).square().sum() for w, b in path])
            paths.append(path)
            means.append(mean_KD)
        p = int(error_P.argmin())
        return Regression(
            standardise=standardise,
            penalty=PENALTIES[p],
            loss=float(error_P[p]),
            mean_KD=torch.stack(means).mean(0),
            w_FD=torch.stack([path[p][0] for path in paths]).mean(0),
            b_D=torch.stack([path[p][1] for path in paths]).mean(0),
        )

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) from released vectors."""
        c_NK = c_NK.cpu()
        x_ND = self.mean_KD[label_of(c_NK)] + columns(self.standardise, c_NK) @ self.w_FD + self.b_D
        return x_ND.clamp(0, 1).float().reshape(-1, *self.shape)
