"""Ridge attacker: linear regression of the pixels on the scores, in closed form.

It trains nothing by gradients, so there is no gradient that a defense could steer: a small change of an
answer changes the normal equations by a small amount.

Shape suffixes: N samples, K classes, F features, D pixels, P penalties, CHW image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mipoison.attacks.selection import KINDS, Kind, Standardised, folds
from mipoison.config import Config
from mipoison.protocols import Oracle, ThreatModel

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridge penalties that are tried, per sample: the squared coefficients are weighted with N times this."""


@dataclass(frozen=True, kw_only=True)
class RidgeConfig(Config):
    """Linear regression of the pixels on the scores, in closed form: no gradient to poison.

    Attributes:
        inputs: features, standardised: ``log`` or ``raw`` scores, ``all`` (both and the label's one-hot), or
            ``tuned`` for the best of the three on the attacker's own held-out images.
        folds: number of cross-validation folds, 2 to 20. The features and the penalty with the least
            held-out error are used; the solutions of the folds are averaged.
        data: the attacker's own images: ``all`` of D_inv train, or a stratified half ``D1`` or ``D2``.
    """

    COST: ClassVar[int] = 0

    inputs: Literal["log", "raw", "all", "tuned"] = "tuned"
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
        c_NK, x_ND = oracle.query(x_NCHW), x_NCHW.cpu().double().flatten(1)
        fold_N = folds(len(x_ND), self.config.folds, rng)
        kinds: tuple[Kind, ...] = KINDS if self.config.inputs == "tuned" else (self.config.inputs,)
        best = torch.inf
        for kind in kinds:
            standardise = Standardised(c_NK, kind)
            z_NF = standardise(c_NK)
            paths, error_P = [], torch.zeros(len(PENALTIES), dtype=torch.float64)
            for k in range(int(fold_N.max()) + 1):
                path = ridge_path(z_NF[fold_N != k], x_ND[fold_N != k], PENALTIES)
                z, x = z_NF[fold_N == k], x_ND[fold_N == k]
                error_P += torch.stack([((z @ w + b).clamp(0, 1) - x).square().sum() for w, b in path])
                paths.append(path)
            p = int(error_P.argmin())
            if float(error_P[p]) < best:
                best, self.standardise, self.penalty = float(error_P[p]), standardise, PENALTIES[p]
                self.w_FD = torch.stack([path[p][0] for path in paths]).mean(0)
                self.b_D = torch.stack([path[p][1] for path in paths]).mean(0)

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) from released vectors."""
        x_ND = self.standardise(c_NK) @ self.w_FD + self.b_D
        return x_ND.clamp(0, 1).float().reshape(-1, *self.shape)
