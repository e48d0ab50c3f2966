"""LPA: label-preserving poisoning of every vector (Zhou et al., Section V-B, Algorithm 1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mipoison.alignment import (
    Aligned,
    Engine,
    EngineName,
    make_engine,
    parameter_gradient,
    parameters_of,
    target_gradient,
)
from mipoison.certificates.observation import BENT
from mipoison.config import Knob, Plain
from mipoison.defenses.base import AlignedConfig, AlignedDefense, SubstituteDefense
from mipoison.defenses.descent import descend
from mipoison.defenses.restarts import Starts, best_start, climb, learn_starts
from mipoison.defenses.state import State
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness

ALIGNMENT_KNOBS: Mapping[str, Knob] = {
    "budget": Knob(low=1e-4, high=0.7, log=True, help="l2 bound on c' - c"),
    "rounds": Knob(low=1, high=20, log=True, integer=True, help="alignment rounds"),
    "step": Knob(low=0.05, high=1.0, log=True, help="step: decades of the scores, or share of the budget"),
    "substitute_features": Knob(choices=("log", "raw"), help="input features of the substitute"),
}
"""What a search varies of a defense that is optimised for each query."""


@dataclass(frozen=True, kw_only=True)
class LPAConfig(AlignedConfig):
    """Label-preserving poisoning by gradient alignment with a substitute inversion model.

    Attributes:
        budget: l2 bound on c' - c, [0, 1.5]; 0 releases the clean vector.
        rounds: optimisation rounds R, at least 0. With 0 the start is released; of the search ``descent``
            that is noise of the same length.
        step: alpha in (0, 2]. Of the search ``descent``, and on raw features, it is relative to the budget.
            Of ``restarts`` on log features it is in decades of the scores, and the first step's alone.
        search: ``restarts``: the best of several starts, then steps of their own for each row, in log space
            if the substitute has log features; the best vector is kept (see
            mipoison.defenses.restarts). ``descent``: Algorithm 1 to the letter, one random start and steps of
            one length, which hardly aligns (study/FINDINGS.md); records of before ``search`` was a field.
        scope: ``sample`` aligns each query by itself, so that no user's answer depends on another's query.
            ``batch`` aligns a chunk of 128 together, as the paper words it.
        objective: ``cosine`` (Eq. 7), ``distance`` (||t - g||^2, the paper's Poi_MSE) or ``frozen`` (the
            cosine's gradient without its second term, which is cheaper; see study/PERFORMANCE.md).
        target: ``private`` (t = grad of -L over D_cla train). ``flipped`` (its negative) and ``random`` (a
            Gaussian direction) are controls that show whether the direction matters.
        loss: the defender's L, ``mse`` or ``psnr``, on which the substitute is trained. The target's
            direction does not depend on it: the gradient of -PSNR over a set is a positive multiple of that
            of MSE.
        refresh: number of rounds of the search ``descent`` that use one gradient, 1 to 1000. 1 is
            Algorithm 1. 2 halves the cost; see study/PERFORMANCE.md for its effect.
        keep_label: project onto the vectors whose maximum is the clean label.
        engine: how gradients are computed (see mipoison.alignment.ENGINES); ``auto``: the fastest here.
        randomness, substitute_...: see AlignedConfig.
    """

    SOURCE: ClassVar[str] = "Zhou et al., Section V-B"

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        **ALIGNMENT_KNOBS,
        "scope": Knob(choices=("sample", "batch"), help="align each query, or 128 together (Eq. 7)"),
    }

    BEFORE: ClassVar[Mapping[str, Plain | None]] = {"search": "descent"}

    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({}, {"budget": 0.003}, {"scope": "batch"})

    search: Literal["restarts", "descent"] = "restarts"
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


class LPA(AlignedDefense, SubstituteDefense):
    """Lowers ``1 - cos(t, g(c + d; x))`` over the released vectors within the budget."""

    uncertifiable = BENT

    starts: Starts

    def __init__(self, config: LPAConfig) -> None:
        self.config = config
        self.keeps_label = config.keep_label
        self.draws = config.budget > 0
        self.fresh = config.randomness == "fresh"
        self.couples = config.scope == "batch"

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Train or load the substitute; compute the target gradient once, over all of D_cla train; for the
        search ``restarts`` learn its starts on the substitute's share of the public images."""
        cfg = self.config
        self.substitute = view.substitute(dataclasses.replace(cfg.substitute(), loss=cfg.loss))
        x, c = view.x_private_NCHW.to(view.device), view.c_private_NK.to(view.device)
        if cfg.target == "private":
            self.target = target_gradient(self.substitute, c, x)
        elif cfg.target == "flipped":
            self.target = parameter_gradient(self.substitute, c, x)
        else:
            self.target = [torch.randn(p.shape, generator=rng).to(p) for p in parameters_of(self.substitute)]
        if self._restarts:
            c_NK, x_NCHW = (part.to(view.device) for part in view.substitute_data(cfg.substitute()))
            self.starts = learn_starts(
                self._engine_of_samples(),
                c_NK,
                x_NCHW,
                cfg.budget,
                step=cfg.step,
                keep_label=cfg.keep_label,
                rng=rng,
            )

    @property
    def _restarts(self) -> bool:
        return self.config.search == "restarts" and self.config.budget > 0

    def state(self) -> dict[str, Tensor]:
        tensors = super().state()
        if self._restarts:
            tensors |= {"starts.keep": self.starts.keep_MK, "starts.add": self.starts.add_MK}
        return tensors

    def load_state(self, state: State) -> None:
        super().load_state(state)
        if self._restarts:
            self.starts = Starts(state["starts.keep"], state["starts.add"])

    def align(self, c_NK: Tensor, x_NCHW: Tensor) -> Aligned:
        """Cosine to the target and the objective's gradient, by the configured scope and objective."""
        return self._engine_here().align(c_NK, x_NCHW)

    def _engine_here(self) -> Engine:
        return self.engine_for(self.config.engine, self.config.scope, self.config.objective)

    def _engine_of_samples(self) -> Engine:
        cfg = self.config
        if cfg.scope == "sample":
            return self._engine_here()
        return make_engine(cfg.engine, self.substitute, self.target, objective=cfg.objective)

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        cfg = self.config
        if not self._restarts or len(c_NK) == 0:
            return descend(
                cfg,
                c_NK,
                rng,
                lambda z_NK: self._engine_here().gradient(z_NK, x_NCHW),
                keep_label=cfg.keep_label,
                refresh=cfg.refresh,
            )
        z_NK = best_start(
            self._engine_of_samples(),
            self.starts,
            c_NK,
            x_NCHW,
            cfg.budget,
            keep_label=cfg.keep_label,
            rng=rng,
        )
        return climb(
            self._engine_here(), c_NK, x_NCHW, z_NK, cfg.budget,
            rounds=cfg.rounds, step=cfg.step, keep_label=cfg.keep_label,
        )  # fmt: skip

    def alignment(self, c_NK: Tensor, x_NCHW: Tensor) -> float | None:
        return self.mean_cosine(c_NK, x_NCHW, self.config.scope)
