"""LPA: label-preserving poisoning of every vector (Zhou et al., Section V-B, Algorithm 1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mipoison.alignment import Aligned, Engine, EngineName, parameter_gradient, parameters_of, target_gradient
from mipoison.config import Knob, Plain
from mipoison.defenses.base import AlignedConfig, AlignedDefense, DescentConfig, SubstituteDefense
from mipoison.defenses.noise import random_direction
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness
from mipoison.simplex import project_release, project_tangent


@dataclass(frozen=True, kw_only=True)
class LPAConfig(AlignedConfig):
    """Label-preserving poisoning by gradient alignment with a substitute inversion model.

    Attributes:
        budget: l2 bound on c' - c, [0, 1.5]; 0 releases the clean vector.
        rounds: optimisation rounds R, at least 0. With 0 the random start d0 is released: noise of the same
            length.
        step: length of a step relative to the budget, alpha in (0, 2].
        scope: ``sample`` aligns each query by itself, so that no user's answer depends on another's query.
            ``batch`` aligns a chunk of 128 together, as the paper words it.
        objective: ``cosine`` (Eq. 7), ``distance`` (||t - g||^2, the paper's Poi_MSE) or ``frozen`` (the
            cosine's gradient without its second term, which is cheaper; see study/PERFORMANCE.md).
        target: ``private`` (t = grad of -L over D_cla train). ``flipped`` (its negative) and ``random`` (a
            Gaussian direction) are controls that show whether the direction matters.
        loss: the defender's L, ``mse`` or ``psnr``, on which the substitute is trained. The target's
            direction does not depend on it: the gradient of -PSNR over a set is a positive multiple of that
            of MSE.
        refresh: number of rounds that use one gradient, 1 to 1000. 1 is Algorithm 1. 2 halves the cost; see
            study/PERFORMANCE.md for its effect.
        keep_label: project onto the vectors whose maximum is the clean label.
        engine: how gradients are computed (see mipoison.alignment.ENGINES); ``auto``: the fastest here.
        randomness, substitute_...: see AlignedConfig.
    """

    SOURCE: ClassVar[str] = "Zhou et al., Section V-B"

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "budget": Knob(low=1e-4, high=0.7, log=True, help="l2 bound on c' - c"),
        "rounds": Knob(low=1, high=20, log=True, integer=True, help="alignment rounds"),
        "step": Knob(low=0.05, high=1.0, log=True, help="step length relative to the budget"),
        "substitute_features": Knob(choices=("log", "raw"), help="input features of the substitute"),
    }

    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({}, {"budget": 0.003})

    scope: Literal["sample", "batch"] = "sample"
    objective: Literal["cosine", "distance", "frozen"] = "cosine"
    target: Literal["private", "flipped", "random"] = "private"
    loss: Literal["mse", "psnr"] = "mse"
    refresh: int = 1
    keep_label: bool = True
    engine: EngineName = "auto"

    def validate(self) -> None:
        super().validate()
        self.require("refresh", 1 <= self.refresh <= 1000, "between 1 and 1000 (rounds)")

    def make(self) -> LPA:
        return LPA(self)


def unit_rows(g_NK: Tensor) -> Tensor:
    """Rows scaled to length one, in float64. Rows of zeros stay zero.

    Rows are divided by their largest entry first, because the square of a gradient overflows where log
    features have a score of 1e-20.
    """
    g_NK = torch.nan_to_num(g_NK.double(), nan=0.0, posinf=1e300, neginf=-1e300)
    g_NK = g_NK / g_NK.abs().amax(1, keepdim=True).clamp_min(1e-300)
    return g_NK / g_NK.norm(dim=1, keepdim=True).clamp_min(1e-300)


def descend(
    config: DescentConfig,
    c_NK: Tensor,
    rng: QueryRandomness,
    gradient: Callable[[Tensor], Tensor],
    *,
    keep_label: bool = True,
    refresh: int = 1,
) -> Tensor:
    """Projected descent from a random start of the budget's size (Algorithm 1, lines 3 to 9).

    Args:
        config: budget, rounds, step.
        c_NK: clean vectors.
        rng: draws the start, which is the same for all defenses that descend.
        gradient: of the objective in the released vectors (N, K). Only its direction on the simplex counts.
        keep_label: project onto the vectors whose maximum is the clean label.
        refresh: number of rounds that use one gradient, at least 1.
    """
    if config.budget == 0 or len(c_NK) == 0:
        return c_NK.clone()
    start_NK = c_NK.double() + config.budget * random_direction(c_NK, rng, "lpa start")
    z_NK = project_release(start_NK, c_NK, config.budget, keep_label=keep_label)
    direction_NK = torch.zeros_like(start_NK)
    for i in range(config.rounds):
        if i % refresh == 0:
            direction_NK = unit_rows(project_tangent(gradient(z_NK).double()))
        moved_NK = z_NK.double() - config.step * config.budget * direction_NK
        z_NK = project_release(moved_NK, c_NK, config.budget, keep_label=keep_label)
    return z_NK


class LPA(AlignedDefense, SubstituteDefense):
    """Projected descent on ``1 - cos(t, g(c + d; x))`` from a random start of the budget's size."""

    def __init__(self, config: LPAConfig) -> None:
        self.config = config
        self.keeps_label = config.keep_label
        self.draws = config.budget > 0
        self.fresh = config.randomness == "fresh"
        self.couples = config.scope == "batch"

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Train or load the substitute; compute the target gradient once, over all of D_cla train."""
        cfg = self.config
        self.substitute = view.substitute(dataclasses.replace(cfg.substitute(), loss=cfg.loss))
        x, c = view.x_private_NCHW.to(view.device), view.c_private_NK.to(view.device)
        if cfg.target == "private":
            self.target = target_gradient(self.substitute, c, x)
        elif cfg.target == "flipped":
            self.target = parameter_gradient(self.substitute, c, x)
        else:
            self.target = [torch.randn(p.shape, generator=rng).to(p) for p in parameters_of(self.substitute)]

    def align(self, c_NK: Tensor, x_NCHW: Tensor) -> Aligned:
        """Cosine to the target and the objective's gradient, by the configured scope and objective."""
        return self._engine_here().align(c_NK, x_NCHW)

    def _engine_here(self) -> Engine:
        return self.engine_for(self.config.engine, self.config.scope, self.config.objective)

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        return descend(
            self.config,
            c_NK,
            rng,
            lambda z_NK: self._engine_here().gradient(z_NK, x_NCHW),
            keep_label=self.config.keep_label,
            refresh=self.config.refresh,
        )

    def alignment(self, c_NK: Tensor, x_NCHW: Tensor) -> float | None:
        return self.mean_cosine(c_NK, x_NCHW, self.config.scope)
