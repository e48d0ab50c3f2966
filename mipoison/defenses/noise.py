"""Random noise on the simplex tangent: the control that LPA has to beat at equal distortion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mipoison.certificates.observation import CONTINUUM, Gaussian, Observation, Uncertifiable
from mipoison.config import Config, Knob, Plain
from mipoison.defenses.base import BaseDefense, Law, Randomness
from mipoison.randomness import QueryRandomness
from mipoison.simplex import keep_label, label_of, project_labelled_simplex, project_release, project_tangent


@dataclass(frozen=True, kw_only=True)
class NoiseConfig(Config):
    """Random noise on the simplex tangent, label kept; the control LPA has to beat.

    Attributes:
        budget: l2 length of the noise before the simplex and the label cut it, [0, 1.5].
        randomness: ``keyed`` (same query, same noise) or ``fresh``.
        law: ``sphere`` (each draw as long as the budget) or ``gaussian`` (the budget is the root mean square
            length: K - 1 dimensions of standard deviation budget / sqrt(K - 1), K classes).
    """

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "budget": Knob(low=1e-4, high=0.7, log=True, help="l2 length of the noise"),
        "law": Knob(choices=("sphere", "gaussian"), help="fixed length, or normal with a certificate"),
    }

    BEFORE: ClassVar[Mapping[str, Plain | None]] = {"law": "sphere"}

    # The simplex cuts a third off the noise: one and a half times LPA's starts give about its distortion.
    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({"budget": 0.015}, {"budget": 0.0045})

    budget: float = 0.01
    randomness: Randomness = "keyed"
    law: Law = "sphere"

    def validate(self) -> None:
        self.require("budget", 0 <= self.budget <= 1.5, "between 0 and 1.5 (l2 norm)")

    def make(self) -> TangentNoise:
        return TangentNoise(self)


@dataclass(frozen=True, kw_only=True)
class NoiseFreshConfig(NoiseConfig):
    """Control: ``noise`` drawn again at every query, to see what keying is worth: its noise averages out.

    Attributes:
        randomness: ``fresh``, nothing else. budget: see NoiseConfig.
    """

    randomness: Literal["fresh"] = "fresh"


def random_direction(c_NK: Tensor, rng: QueryRandomness, stream: str) -> Tensor:
    """Uniform unit directions in the tangent space (rows sum to 0), float64 (N, K); zero where K is 1."""
    d_NK = project_tangent(rng.normal(c_NK.shape[1], stream).to(c_NK.device))
    return d_NK / d_NK.norm(dim=1, keepdim=True).clamp_min(1e-300)


def settled(y_NK: Tensor, label_N: Tensor, dtype: torch.dtype) -> Tensor:
    """What may be released of noisy vectors: a function of them and the label, of nothing else.

    The nearest point of the simplex whose strict maximum is the label's. No clean vector enters, not even to
    bound the step, so that whoever sees ``y`` and the label knows at least as much as who sees the release.
    """
    z_NK = project_labelled_simplex(y_NK, label_N).to(dtype)
    return keep_label(z_NK, F.one_hot(label_N, y_NK.shape[1]).to(z_NK))


FIXED_LENGTH = "noise of a fixed length: the distance to the released vector tells the images apart"
"""Why the law ``sphere`` has no certificate."""


class TangentNoise(BaseDefense):
    """``c' = project(c + noise)``, the noise on the simplex tangent; the label is kept.

    Law ``sphere``: noise = budget * u, u uniform on the unit sphere; c' lies within the budget of c. Law
    ``gaussian``: noise = sigma * g, see :meth:`sigma`; the projection shortens it, as c is on the simplex.
    """

    def __init__(self, config: NoiseConfig) -> None:
        self.config = config
        self.draws = config.law == "sphere" or config.budget > 0
        self.fresh = config.randomness == "fresh"

    def sigma(self, n_classes: int) -> float:
        """Standard deviation of Gaussian noise in each of the tangent's K - 1 directions."""
        return self.config.budget / max(n_classes - 1, 1) ** 0.5

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        n_classes = c_NK.shape[1]
        if self.config.law == "sphere":
            moved_NK = c_NK.double() + self.config.budget * random_direction(c_NK, rng, "tangent noise")
            return project_release(moved_NK, c_NK, self.config.budget)
        if self.config.budget == 0:
            return c_NK.clone()
        g_NK = project_tangent(rng.normal(n_classes, "tangent noise").to(c_NK.device))
        return settled(c_NK.double() + self.sigma(n_classes) * g_NK, label_of(c_NK), c_NK.dtype)

    def observation(self, c_NK: Tensor, released_NK: Tensor) -> Observation | Uncertifiable:
        """The label, and the vector with its noise before the projection.

        The noise is stated in all K directions: along the ones it moves nothing, as a projection onto the
        simplex takes out what all scores share.
        """
        if self.config.budget == 0:
            return Uncertifiable(CONTINUUM)
        if self.config.law == "sphere":
            return Uncertifiable(FIXED_LENGTH)

        def release(rows_ND: Tensor, y_NM: Tensor) -> Tensor:
            return settled(y_NM, rows_ND[:, 0].long(), c_NK.dtype)

        return Observation(
            label_of(c_NK)[:, None], Gaussian(c_NK.double(), self.sigma(c_NK.shape[1]), release)
        )
