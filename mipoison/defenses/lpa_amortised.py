"""Amortised LPA: a variational encoder-decoder answers with one forward pass (Zhou et al., Section VIII)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mipoison.alignment import Engine, EngineName, angle_samples, make_engine, target_gradient
from mipoison.certificates.observation import BENT
from mipoison.config import Config, Knob, Plain
from mipoison.defenses.base import BaseDefense, Randomness
from mipoison.defenses.descent import unit_rows
from mipoison.defenses.state import State, module_state, part
from mipoison.models.generator import GeneratorNet
from mipoison.models.inversion import SubstituteConfig, features
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness
from mipoison.simplex import project_release, project_tangent
from mipoison.training import seeded, train


@dataclass(frozen=True, kw_only=True)
class LPAAmortisedConfig(Config):
    """A variational encoder-decoder in place of LPA's rounds: one forward pass, no image needed.

    Attributes:
        budget: l2 length of the perturbation before the simplex and the label cut it, [0, 1.5].
        target: ``own``: each query's training gradient is turned against that of its clean vector. This is
            the paper's VAE with the sign of LPA's target, a gradient of -L; with the other sign the best it
            could do is to change nothing. ``private``: aligned with LPA's target over D_cla train.
        substitute_features, substitute_data: the substitute inversion model, see AlignedConfig.
        hidden, latent: units of the network. steps, batch, lr: its training. kl: weight of the divergence.
        randomness: ``keyed`` or ``fresh`` draw of the latent code.
        engine: of target ``private``, see LPAConfig.
    """

    SOURCE: ClassVar[str] = "Zhou et al., Section VIII"

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "budget": Knob(low=1e-4, high=0.7, log=True, help="l2 length of the perturbation"),
        "target": Knob(choices=("own", "private"), help="what the gradient is turned to"),
        "substitute_features": Knob(choices=("log", "raw"), help="input features of the substitute"),
    }
    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({}, {"budget": 0.003})

    budget: float = 0.01
    target: Literal["own", "private"] = "own"
    substitute_features: Literal["log", "raw"] = "log"
    substitute_data: Literal["D1", "D2", "all"] = "D1"
    hidden: int = 64
    latent: int = 8
    steps: int = 150
    batch: int = 64
    lr: float = 5e-3
    kl: float = 1e-3
    randomness: Randomness = "keyed"
    engine: EngineName = "auto"

    def validate(self) -> None:
        self.require("budget", 0 <= self.budget <= 1.5, "between 0 and 1.5 (l2 norm)")
        self.require("batch", self.batch >= 2, "at least 2")
        for name in ("hidden", "latent", "steps"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.require("lr", self.lr > 0, "above 0")
        self.require("kl", self.kl >= 0, "at least 0")

    def make(self) -> LPAAmortised:
        return LPAAmortised(self)


class LPAAmortised(BaseDefense):
    """``c' = project(c + budget * G(c, z))``, G trained on the alignment of what it releases.

    G is trained on the defender's share of public images. The projection is exact and not differentiable. So
    the objective's gradient is computed at the released vector, scaled to unit length as LPA's steps are, and
    passed to the network as if there were no projection (straight through).
    """

    uncertifiable = BENT

    def __init__(self, config: LPAAmortisedConfig) -> None:
        self.config = config
        self.draws = config.budget > 0
        self.fresh = config.randomness == "fresh"

    def _gradient(self, z_NK: Tensor, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
        """Gradient of the objective: cos(g(z), g(c)) for ``own``, 1 - cos(t, g(z)) for ``private``."""
        if self.config.target == "own":
            return angle_samples(self.substitute, z_NK, c_NK, x_NCHW).gradient_NK
        return self._engine(self.config.engine).gradient(z_NK, x_NCHW)

    def _engine(self, name: str) -> Engine:
        return make_engine(name, self.substitute, self.aim)

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Train or load the substitute and the generator."""
        cfg, device = self.config, view.device
        share = SubstituteConfig(features=cfg.substitute_features, data=cfg.substitute_data)
        self.substitute = view.substitute(share)
        if cfg.target == "private":
            self.aim = target_gradient(
                self.substitute, view.c_private_NK.to(device), view.x_private_NCHW.to(device)
            )
        c_NK, x_NCHW = (part.to(device) for part in view.substitute_data(share))
        log_NK = features(c_NK, "log")
        mean_K, scale_K = log_NK.mean(0), log_NK.std(0, correction=0).clamp_min(1e-3)

        def loss(output_NM: Tensor, pair_NP: Tensor) -> Tensor:
            d_NK, kl_N = output_NM[:, :-1], output_NM[:, -1]
            c, x = pair_NP[:, : d_NK.shape[1]], pair_NP[:, d_NK.shape[1] :].unflatten(1, x_NCHW.shape[1:])
            z = project_release(c.double() + cfg.budget * d_NK.detach().double(), c, cfg.budget)
            gradient = unit_rows(project_tangent(self._gradient(z, c, x).double())).to(c)
            return (d_NK * gradient).sum(1).mean() + cfg.kl * kl_N.mean()

        def make() -> dict[str, Tensor]:
            with seeded(rng, device):
                net = GeneratorNet(mean_K, scale_K, hidden=cfg.hidden, latent=cfg.latent).to(device)
            pairs = torch.cat([c_NK, x_NCHW.flatten(1)], 1)
            train(net, c_NK, pairs, loss, steps=cfg.steps, batch=cfg.batch, lr=cfg.lr, rng=rng)
            return net.state_dict()

        net = GeneratorNet(mean_K, scale_K, hidden=cfg.hidden, latent=cfg.latent)
        if cfg.budget > 0:
            settings = {k: v for k, v in cfg.flat().items() if k != "randomness"}
            net.load_state_dict(view.trained("generator", settings, make))
        self.generator = net.requires_grad_(False).eval().to(device)

    def state(self) -> dict[str, Tensor]:
        """The generator only: substitute and target are needed in training and not afterwards."""
        return module_state("generator", self.generator)

    def load_state(self, state: State) -> None:
        tensors = part(state, "generator")
        net = GeneratorNet(
            tensors["mean_K"], tensors["scale_K"], hidden=self.config.hidden, latent=self.config.latent
        )
        net.load_state_dict(tensors)
        self.generator = net.requires_grad_(False).eval().to(tensors["mean_K"].device)

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        if self.config.budget == 0 or len(c_NK) == 0:
            return c_NK.clone()
        noise_NZ = rng.normal(self.generator.latent, "amortised").to(c_NK)
        with torch.no_grad():
            d_NK = self.generator.direction(c_NK, noise_NZ).double()
        return project_release(c_NK.double() + self.config.budget * d_NK, c_NK, self.config.budget)

    def alignment(self, c_NK: Tensor, x_NCHW: Tensor) -> float | None:
        """Mean cosine to the private target.

        None for ``own``, which has no such target, and for a defense that was loaded from a state, which does
        not contain the target.
        """
        if self.config.target == "own" or len(c_NK) == 0 or not hasattr(self, "aim"):
            return None
        return float(self._engine("double-backward").align(c_NK, x_NCHW).cosine_N.mean())
