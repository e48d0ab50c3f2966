"""PGD: ascent on the substitute's reconstruction loss inside the l2 ball (a baseline of Zhou et al.)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mipoison.certificates.observation import BENT
from mipoison.config import Knob
from mipoison.defenses.base import AlignedConfig, SubstituteDefense
from mipoison.defenses.descent import descend
from mipoison.defenses.lpa import ALIGNMENT_KNOBS
from mipoison.models.inversion import InversionNet
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness


@dataclass(frozen=True, kw_only=True)
class PGDConfig(AlignedConfig):
    """Ascent on the substitute's reconstruction loss; the label may change.

    Attributes: see AlignedConfig; with ``rounds=0`` the random start is released.
    """

    SOURCE: ClassVar[str] = "Zhou et al., baseline"

    KNOBS: ClassVar[Mapping[str, Knob]] = ALIGNMENT_KNOBS

    def make(self) -> PGD:
        return PGD(self)


def loss_gradient(decoder: InversionNet, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
    """Gradient (N, K) in each vector of its own mean squared reconstruction error."""
    c = c_NK.detach().requires_grad_(True)
    with torch.enable_grad():
        error_N = (decoder(c) - x_NCHW).square().flatten(1).mean(1)
        (gradient,) = torch.autograd.grad(error_N.sum(), c)
    return gradient


class PGD(SubstituteDefense):
    """``max_d L(S; c + d, x)`` with |d| <= budget on the simplex: evasion, not poisoning."""

    uncertifiable = BENT

    keeps_label = False

    def __init__(self, config: PGDConfig) -> None:
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
            lambda z_NK: -loss_gradient(self.substitute, z_NK, x_NCHW),
            keep_label=False,
        )
