"""MemGuard-style noise (Jia, Salem, Backes, Zhang, Gong 2019, "MemGuard: defending against black-box
membership inference attacks via adversarial examples", arXiv 1909.10594)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipoison.certificates.observation import CONTINUUM
from mipoison.config import Config, Knob
from mipoison.defenses.base import BaseDefense
from mipoison.defenses.descent import unit_rows
from mipoison.defenses.purifier import LogScores
from mipoison.defenses.state import State, module_state, part
from mipoison.models.inversion import SubstituteConfig
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness
from mipoison.simplex import project_release, project_tangent
from mipoison.training import seeded, train


@dataclass(frozen=True, kw_only=True)
class MemGuardConfig(Config):
    """MemGuard-style: the least noise that leaves a classifier of private and public vectors undecided.

    Attributes:
        budget: l2 bound on c' - c, [0, 1.5].
        rounds: steps towards the membership classifier's boundary, 0 to 1000.
        hidden: units of the classifier. steps: Adam steps. batch: vectors per step.
        public_data: the share of D_inv whose clean vectors stand for non-members.
    """

    SOURCE: ClassVar[str] = "Jia et al. 2019, adapted"

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "budget": Knob(low=1e-4, high=0.7, log=True, help="l2 bound on c' - c"),
    }

    budget: float = 0.05
    rounds: int = 20
    hidden: int = 32
    steps: int = 300
    batch: int = 64
    public_data: Literal["D1", "D2", "all"] = "all"

    def validate(self) -> None:
        self.require("budget", 0 <= self.budget <= 1.5, "between 0 and 1.5 (l2 norm)")
        self.require("rounds", 0 <= self.rounds <= 1000, "between 0 and 1000")
        self.require("hidden", self.hidden >= 1, "at least 1")
        self.require("steps", self.steps >= 1, "at least 1")
        self.require("batch", self.batch >= 2, "at least 2")

    def make(self) -> MemGuard:
        return MemGuard(self)


class MemGuard(BaseDefense):
    """The least noise that leaves a membership classifier undecided, found by Newton steps on the simplex.

    The defender's classifier h separates private vectors (members) from public ones. Each vector moves along
    ``-h P grad h / |P grad h|^2`` towards ``h = 0``, within the budget and on the simplex, and keeps its
    label. A step after which |h| is not smaller is undone, and the next one is half as long. Unlike in the
    original, no vectors are released clean at random, and the distortion is bounded for each vector instead
    of in the mean.
    """

    uncertifiable = CONTINUUM

    def __init__(self, config: MemGuardConfig) -> None:
        self.config = config

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Train the membership classifier, with weights that balance the two sides."""
        cfg = self.config
        public_NK = view.substitute_data(SubstituteConfig(data=cfg.public_data))[0].to(view.device)
        private_NK = view.c_private_NK.to(view.device)
        c_NK = torch.cat([private_NK, public_NK])
        member_N = (torch.arange(len(c_NK), device=view.device) < len(private_NK)).float()
        weight = torch.tensor(len(public_NK) / max(len(private_NK), 1), device=view.device)
        with seeded(rng, view.device):
            net = self._network(c_NK).to(view.device)

        def loss(logit_N1: Tensor, target_N: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(logit_N1[:, 0], target_N, pos_weight=weight)

        train(net, c_NK, member_N, loss, steps=cfg.steps, batch=cfg.batch, lr=1e-2, rng=rng)
        self.classifier = net.requires_grad_(False)

    def _network(self, c_NK: Tensor) -> nn.Sequential:
        """An untrained classifier that standardises its inputs by the statistics of ``c_NK``."""
        hidden = self.config.hidden
        return nn.Sequential(
            LogScores(c_NK), nn.Linear(c_NK.shape[1], hidden), nn.Tanh(), nn.Linear(hidden, 1)
        )

    def state(self) -> dict[str, Tensor]:
        return module_state("classifier", self.classifier)

    def load_state(self, state: State) -> None:
        tensors = part(state, "classifier")
        net = self._network(tensors["0.mean"].new_zeros(2, len(tensors["0.mean"])))
        net.load_state_dict(tensors)
        self.classifier = net.requires_grad_(False).eval().to(tensors["0.mean"].device)

    def membership(self, c_NK: Tensor) -> tuple[Tensor, Tensor]:
        """Logit of being a member (N,), and its gradient (N, K) in the vector; float64."""
        with torch.enable_grad():
            c = c_NK.detach().requires_grad_(True)
            h_N = self.classifier(c)[:, 0]
            (gradient_NK,) = torch.autograd.grad(h_N.sum(), c)
        return h_N.detach().double(), gradient_NK.double()

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        cfg = self.config
        best_NK = c_NK.clone()
        if cfg.budget == 0 or len(c_NK) == 0:
            return best_NK
        h_N, gradient_NK = self.membership(best_NK)
        damping_N = torch.ones_like(h_N)
        for _ in range(cfg.rounds):
            slope_NK = project_tangent(gradient_NK)
            length_N = (h_N / slope_NK.norm(dim=1).clamp_min(1e-12)).clamp(-cfg.budget, cfg.budget)
            wish_NK = best_NK.double() - (damping_N * length_N)[:, None] * unit_rows(slope_NK)
            z_NK = project_release(wish_NK, c_NK, cfg.budget)
            h_z_N, gradient_z_NK = self.membership(z_NK)
            better_N = h_z_N.abs() < h_N.abs()
            best_NK = torch.where(better_N[:, None], z_NK, best_NK)
            gradient_NK = torch.where(better_N[:, None], gradient_z_NK, gradient_NK)
            h_N = torch.where(better_N, h_z_N, h_N)
            damping_N = torch.where(better_N, (2 * damping_N).clamp_max(1), damping_N / 2)
        return best_NK
