"""Restorer: learns to undo the defense in a world of its own, c' -> c, before it inverts anything.

It has no victim, but images of its own and the labels that the API gives them. So it splits its images: on
one half, labelled by the API, it trains a shadow victim (the shadow world's private data); the other half is
the shadow world's D_inv. There it puts the public defense, with the public settings and a substitute and a
secret of its own, in front of the shadow victim, sees clean and released vectors side by side, and learns the
way back.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipoison.attacks.decoder import Decoder, DecoderConfig
from mipoison.attacks.selection import Standardised
from mipoison.attacks.sizes import sized
from mipoison.config import choose
from mipoison.defenses import DEFENSES
from mipoison.defenses.pipeline import protect_chunks
from mipoison.models.classifier import ClassifierConfig, confidence_vectors
from mipoison.models.inversion import InversionNet, SubstituteConfig
from mipoison.protocols import DefenderView, Oracle, ThreatModel
from mipoison.simplex import label_of
from mipoison.training import Job, apply, mse, seeded, train

LOG_FLOOR = -16.0
"""Scores below e^-16, about 1e-7, count as that: what is smaller is float32 noise of the shadow victim."""
LEARNING_RATE = 2e-3
"""Of the shadow victim and the restoring network; the decoder and the substitute take the scale's."""


@dataclass(frozen=True, kw_only=True)
class RestorerConfig(DecoderConfig):
    """Puts the public defense in front of a shadow victim of its own, learns to undo it, and inverts the
    restored vectors.

    Shadow victim, substitute and decoder share width, steps and batch.

    Attributes:
        hidden: units of the restoring network's two hidden layers, at least 1.
    """

    COST: ClassVar[int] = 2

    hidden: int = 64

    def validate(self) -> None:
        super().validate()
        self.require("hidden", self.hidden >= 1, "at least 1")

    def make(self) -> Restorer:
        return Restorer(sized(self))


class Restoring(nn.Module):
    """From standardised features and log scores to restored log scores; begins as the identity."""

    def __init__(self, n_features: int, n_classes: int, hidden: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        last = nn.Linear(hidden, n_classes)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.change = nn.Sequential(
            nn.Linear(n_features, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last
        )

    def forward(self, z_NF: Tensor) -> Tensor:
        features, log_NK = z_NF[:, : -self.n_classes], z_NF[:, -self.n_classes :]
        return F.log_softmax(log_NK + self.change(features), 1)


class Restorer(Decoder):
    """Restores released vectors, then inverts them as a decoder does.

    Against no defense, or one it knows nothing of, there is nothing to undo: vectors stay as they are.
    """

    config: RestorerConfig

    def prepare(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> Job:
        """Query, learn to restore, make the decoder's training ready.

        Raises:
            ValueError: for fewer than eight images (four a half), or a defense that is not in DEFENSES: its
                code is not public then, and an attacker without it is another attacker.
        """
        if len(x_NCHW) < 8:
            raise ValueError(f"the restorer needs at least 8 images of its own, got {len(x_NCHW)}")
        self.restoring: Restoring | None = None
        return super().prepare(oracle, x_NCHW, known=known, rng=rng)

    def pairs(self, oracle: Oracle, x_NCHW: Tensor, known: ThreatModel) -> tuple[Tensor, Tensor]:
        c_NK = oracle.query(x_NCHW)
        if known.defense not in (None, "none"):
            clean_NK, released_NK = self._shadow_world(c_NK, x_NCHW, known)
            self._learn(released_NK, clean_NK)
        return self.look(c_NK), x_NCHW

    def look(self, c_NK: Tensor) -> Tensor:
        """Restored vectors, then the view."""
        if self.restoring is not None and len(c_NK):
            c_NK = apply(self.restoring, self._inputs(c_NK)).exp().cpu()
        return super().look(c_NK)

    def _shadow_world(self, c_NK: Tensor, x_NCHW: Tensor, known: ThreatModel) -> tuple[Tensor, Tensor]:
        """Clean and released vectors of a shadow victim, for both halves of its own images."""
        cfg, rng, n_classes = self.config, self.rng, c_NK.shape[1]
        name = choose("defense (the restorer needs its code)", str(known.defense), DEFENSES)
        order = torch.randperm(len(x_NCHW), generator=rng)
        private, public = x_NCHW[order[: len(order) // 2]], x_NCHW[order[len(order) // 2 :]]
        label_N = label_of(c_NK)[order[: len(private)]]
        with seeded(rng, self.device):
            shadow = self._victim().make(known.image_shape, n_classes)
        train(
            shadow.to(self.device),
            private.to(self.device),
            label_N.to(self.device),
            F.cross_entropy,
            steps=cfg.steps or 1,
            batch=cfg.batch or 1,
            lr=LEARNING_RATE,
            rng=rng,
        )
        clean = {
            part: confidence_vectors(shadow, x.to(self.device)).cpu()
            for part, x in (("private", private), ("public", public))
        }
        defense: Any = DEFENSES[name].from_flat(known.settings).make()
        defense.fit(self._view(private, public, clean, label_N, known), rng=rng)
        secret = int(torch.randint(0, 2**62, (1,), generator=rng)).to_bytes(8, "big")
        released = [
            z_NK
            for part, x in (("private", private), ("public", public))
            for z_NK in protect_chunks(defense, clean[part], x, secret=secret, device=self.device).values()
        ]
        return torch.cat([clean["private"], clean["public"]]), torch.cat(released)

    def _victim(self) -> ClassifierConfig:
        """The attacker's guess at the victim's size and training."""
        cfg = self.config
        return ClassifierConfig(
            width=cfg.width or 1,
            hidden=4 * (cfg.width or 1),
            steps=cfg.steps or 1,
            batch=cfg.batch or 1,
            lr=LEARNING_RATE,
        )

    def _view(
        self,
        private: Tensor,
        public: Tensor,
        clean: dict[str, Tensor],
        label_N: Tensor,
        known: ThreatModel,
    ) -> DefenderView:
        """The defender's side of the shadow world."""
        cfg, rng, device = self.config, self.rng, self.device
        half = len(public) // 2
        rows = {"D1": slice(0, half), "D2": slice(half, None), "all": slice(None)}
        made: dict[SubstituteConfig, InversionNet] = {}

        def substitute_data(config: SubstituteConfig) -> tuple[Tensor, Tensor]:
            return clean["public"][rows[config.data]], public[rows[config.data]]

        def substitute(config: SubstituteConfig) -> InversionNet:
            if config not in made:
                c_NK, x_NCHW = substitute_data(config)
                with seeded(rng, device):
                    net = config.architecture(cfg.width or 1).make(known.image_shape, c_NK.shape[1])
                train(
                    net.to(device), c_NK.to(device), x_NCHW.to(device), mse,
                    steps=cfg.steps or 1, batch=cfg.batch or 1, lr=cfg.lr or 1e-3,
                    betas=(0.5, 0.999), amsgrad=True, rng=rng,
                )  # fmt: skip
                made[config] = net.requires_grad_(False).eval()
            return made[config]

        return DefenderView(
            x_private_NCHW=private,
            c_private_NK=clean["private"],
            y_private_N=label_N,
            victim=self._victim(),
            substitute=substitute,
            substitute_data=substitute_data,
            n_classes=clean["private"].shape[1],
            device=device,
        )

    def _learn(self, released_NK: Tensor, clean_NK: Tensor) -> None:
        """Least squares in log space, from released to clean vectors of the shadow victim."""
        cfg, rng = self.config, self.rng
        self.features = Standardised(released_NK, "all")
        inputs = self._inputs(released_NK)
        n_classes = clean_NK.shape[1]
        with seeded(rng, self.device):
            restoring = Restoring(inputs.shape[1] - n_classes, n_classes, cfg.hidden).to(self.device)
        train(
            restoring, inputs, clean_NK.log().clamp_min(LOG_FLOOR).to(self.device), mse,
            steps=cfg.steps or 1, batch=cfg.batch or 1, lr=LEARNING_RATE, rng=rng,
        )  # fmt: skip
        self.restoring = restoring

    def _inputs(self, c_NK: Tensor) -> Tensor:
        log_NK = c_NK.cpu().log().clamp_min(LOG_FLOOR)
        return torch.cat([self.features(c_NK).float(), log_NK], 1).to(self.device)
