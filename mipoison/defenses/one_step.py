"""One-step LPA: the first-order solution of the alignment in closed form, without random start and rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mipoison.alignment import EngineName, target_gradient
from mipoison.certificates.observation import CONTINUUM
from mipoison.config import Config, Knob
from mipoison.defenses.base import AlignedDefense, SubstituteDefense
from mipoison.defenses.descent import unit_rows
from mipoison.models.inversion import SubstituteConfig
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness
from mipoison.simplex import project_release, project_tangent


@dataclass(frozen=True, kw_only=True)
class LPAOneStepConfig(Config):
    """One step of the budget's length along LPA's gradient: closed form, no random start.

    Attributes:
        budget: l2 length of the step before the simplex and the label cut it, [0, 1.5].
        substitute_features, substitute_extra_blocks, substitute_data: see AlignedConfig.
        engine: see LPAConfig.
    """

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "budget": Knob(low=1e-4, high=0.7, log=True, help="l2 length of the step"),
        "substitute_features": Knob(choices=("log", "raw"), help="input features of the substitute"),
    }

    budget: float = 0.01
    substitute_features: Literal["log", "raw"] = "log"
    substitute_extra_blocks: int = 0
    substitute_data: Literal["D1", "D2", "all"] = "D1"
    engine: EngineName = "auto"

    def validate(self) -> None:
        self.require("budget", 0 <= self.budget <= 1.5, "between 0 and 1.5 (l2 norm)")
        self.require("substitute_extra_blocks", 0 <= self.substitute_extra_blocks <= 3, "between 0 and 3")

    def make(self) -> LPAOneStep:
        return LPAOneStep(self)


class LPAOneStep(AlignedDefense, SubstituteDefense):
    """``d = budget * P u / |P u|``, where u is minus the gradient of ``1 - cos(t, g(c + d; x))`` at d = 0.

    P projects on the simplex tangent. This step is optimal to first order. Where a score is almost zero, log
    features change fast within the budget, and the first order is a poor approximation.
    """

    uncertifiable = CONTINUUM

    def __init__(self, config: LPAOneStepConfig) -> None:
        self.config = config

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Train or load the substitute; compute LPA's target gradient."""
        cfg = self.config
        self.substitute = view.substitute(
            SubstituteConfig(
                features=cfg.substitute_features,
                extra_blocks=cfg.substitute_extra_blocks,
                data=cfg.substitute_data,
            )
        )
        self.target = target_gradient(
            self.substitute, view.c_private_NK.to(view.device), view.x_private_NCHW.to(view.device)
        )

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        if self.config.budget == 0 or len(c_NK) == 0:
            return c_NK.clone()
        gradient_NK = self.engine_for(self.config.engine).gradient(c_NK, x_NCHW)
        step_NK = self.config.budget * unit_rows(project_tangent(gradient_NK.double()))
        return project_release(c_NK.double() - step_NK, c_NK, self.config.budget)

    def alignment(self, c_NK: Tensor, x_NCHW: Tensor) -> float | None:
        return self.mean_cosine(c_NK, x_NCHW)
