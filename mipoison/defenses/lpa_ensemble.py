"""Ensemble LPA: alignment with several substitutes at once, which Zhou et al. leave to future work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mipoison.alignment import EngineName, make_engine, target_gradient
from mipoison.certificates.observation import BENT
from mipoison.config import Knob
from mipoison.defenses.base import BaseDefense, DescentConfig
from mipoison.defenses.descent import descend, unit_rows
from mipoison.defenses.lpa import LPAConfig
from mipoison.defenses.state import State, decoder_from, decoder_state, list_from, list_state
from mipoison.models.inversion import SubstituteConfig
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness
from mipoison.simplex import project_tangent


@dataclass(frozen=True, kw_only=True)
class LPAEnsembleConfig(DescentConfig):
    """LPA along the mean gradient of several substitutes.

    Attributes:
        budget, rounds, step, randomness: see DescentConfig.
        members: ``features`` (log and raw), ``architectures`` (standard and one block more, with log
            features) or ``all`` (both features with both architectures: four substitutes at four times the
            cost).
        substitute_data: the share of D_inv that all substitutes are trained on. engine: see LPAConfig.
    """

    SOURCE: ClassVar[str] = "Zhou et al., future work"

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        **{name: LPAConfig.KNOBS[name] for name in ("budget", "rounds", "step")},
        "members": Knob(choices=("features", "architectures", "all"), help="which substitutes"),
    }

    members: Literal["features", "architectures", "all"] = "features"
    substitute_data: Literal["D1", "D2", "all"] = "D1"
    engine: EngineName = "auto"

    def substitutes(self) -> list[SubstituteConfig]:
        """The substitutes' configurations."""
        kinds: tuple[Literal["log", "raw"], ...] = (
            ("log",) if self.members == "architectures" else ("log", "raw")
        )
        extra = (0,) if self.members == "features" else (0, 1)
        return [
            SubstituteConfig(features=kind, extra_blocks=blocks, data=self.substitute_data)
            for blocks in extra
            for kind in kinds
        ]

    def make(self) -> LPAEnsemble:
        return LPAEnsemble(self)


class LPAEnsemble(BaseDefense):
    """LPA along the mean of the substitutes' gradients, each scaled to unit length.

    A gradient through log features is larger by a factor 1/c than one through raw features. Without the
    scaling the substitutes with log features would decide the direction.
    """

    reads_image = True
    uncertifiable = BENT

    def __init__(self, config: LPAEnsembleConfig) -> None:
        self.config = config
        self.draws = config.budget > 0
        self.fresh = config.randomness == "fresh"

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Train or load the substitutes; compute each one's target gradient."""
        c_NK, x_NCHW = view.c_private_NK.to(view.device), view.x_private_NCHW.to(view.device)
        self.substitutes = [view.substitute(config) for config in self.config.substitutes()]
        self.targets = [target_gradient(s, c_NK, x_NCHW) for s in self.substitutes]
        self._make_engines()

    def _make_engines(self) -> None:
        pairs = list(zip(self.substitutes, self.targets, strict=True))
        self.engines = [make_engine(self.config.engine, *pair) for pair in pairs]
        self.references = [make_engine("double-backward", *pair) for pair in pairs]

    def state(self) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for i, (substitute, target) in enumerate(zip(self.substitutes, self.targets, strict=True)):
            out |= decoder_state(f"substitute{i}", substitute) | list_state(f"target{i}", target)
        return out

    def load_state(self, state: State) -> None:
        members = range(len(self.config.substitutes()))
        self.substitutes = [decoder_from(state, f"substitute{i}") for i in members]
        self.targets = [list_from(state, f"target{i}") for i in members]
        self._make_engines()

    def gradient(self, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
        """Mean of the substitutes' unit alignment gradients on the tangent (N, K), float64."""
        return torch.stack(
            [unit_rows(project_tangent(engine.gradient(c_NK, x_NCHW).double())) for engine in self.engines]
        ).mean(0)

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        return descend(self.config, c_NK, rng, lambda z_NK: self.gradient(z_NK, x_NCHW))

    def alignment(self, c_NK: Tensor, x_NCHW: Tensor) -> float | None:
        """Mean cosine over samples and substitutes."""
        if len(c_NK) == 0:
            return None
        return sum(
            float(engine.align(c_NK, x_NCHW).cosine_N.mean()) / len(self.references)
            for engine in self.references
        )
