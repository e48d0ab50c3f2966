"""MAD, adapted to inversion (Orekondy, Schiele, Fritz 2020, "Prediction poisoning: towards defenses against
DNN model stealing attacks", arXiv 1906.10908)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mipoison.alignment import angle_samples
from mipoison.certificates.observation import BENT
from mipoison.config import Knob
from mipoison.defenses.base import AlignedConfig, SubstituteDefense
from mipoison.defenses.descent import descend
from mipoison.defenses.lpa import ALIGNMENT_KNOBS
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness


@dataclass(frozen=True, kw_only=True)
class MADConfig(AlignedConfig):
    """Turns each query's training gradient away from the clean one, through a substitute inversion model.

    Attributes: see AlignedConfig; with ``rounds=0`` the random start is released, noise of the same length.
    """

    SOURCE: ClassVar[str] = "Orekondy et al. 2020, adapted"

    KNOBS: ClassVar[Mapping[str, Knob]] = ALIGNMENT_KNOBS

    def make(self) -> MAD:
        return MAD(self)


class MAD(SubstituteDefense):
    """Turns each query's training gradient as far as the budget allows: ``min_d cos(g(c + d; x), g(c; x))``.

    The paper's attacker trains a classifier on the released vectors. Here two things differ. The gradient is
    that of a substitute inversion model's reconstruction loss. The optimum is sought by projected descent
    from LPA's random start, since the gradient vanishes at d = 0, instead of among the corners of the
    simplex.
    """

    uncertifiable = BENT

    def __init__(self, config: MADConfig) -> None:
        self.config = config
        self.draws = config.budget > 0
        self.fresh = config.randomness == "fresh"

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Train or load the substitute."""
        self.substitute = view.substitute(self.config.substitute())

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        return descend(
            self.config,
            c_NK,
            rng,
            lambda z_NK: angle_samples(self.substitute, z_NK, c_NK, x_NCHW).gradient_NK,
        )
