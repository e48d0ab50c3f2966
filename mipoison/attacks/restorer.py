"""Restorer: learns on a shadow victim to undo the defense, then inverts the restored vectors.

It has no access to the victim, but to images of its own and the labels that the API gives them. It trains a
shadow victim on one half of its images, labelled by the API; the other half serves as the shadow world's
D_inv. It deploys the public defense in front of the shadow victim, with the public settings but a substitute
and a secret of its own. There it sees clean and released vectors side by side, and trains a network that maps
released vectors back to clean ones.

Shape suffixes: N samples, K classes, F features, CHW image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipoison.attacks.decoder import Decoder, DecoderConfig
from mipoison.attacks.selection import Standardised
from mipoison.attacks.sizes import sized, sizes_of
from mipoison.config import choose
from mipoison.defenses import DEFENSES
from mipoison.defenses.pipeline import protect_chunks, victim_of
from mipoison.models.classifier import ClassifierConfig, confidence_vectors
from mipoison.models.inversion import InversionNet, SubstituteConfig
from mipoison.protocols import DefenderView, Oracle, ThreatModel
from mipoison.simplex import label_of
from mipoison.training import Job, apply, mse, seeded, train

LEAST_LOG = -16.0
"""Scores below e^-16, about 1e-7, count as e^-16: smaller ones are rounding errors of float32."""
LEARNING_RATE = 2e-3
"""Learning rate of the shadow victim and the restoring network; decoder and substitute use ``lr``."""


@dataclass(frozen=True, kw_only=True)
class RestorerConfig(DecoderConfig):
    """Puts the public defense in front of a shadow victim of its own, learns to undo it, and inverts the
    restored vectors.

    Shadow victim, substitute and decoder have the same width, steps and batch.

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


class RestoringNet(nn.Module):
    """Maps standardised features and log scores to restored log scores; untrained, it is the identity.

    Args:
        n_features: F. n_classes: K. hidden: units of each of the two hidden layers.
    """

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

    If there is no defense, or none is publicly known, vectors are inverted without being changed.
    """

    config: RestorerConfig

    def prepare(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> Job:
        """Query the API, train the restoring network, and prepare the decoder's training.

        Raises:
            ValueError: fewer than eight images (four in each half), or a defense that is not in DEFENSES,
                since this attacker needs the defense's code.
        """
        if len(x_NCHW) < 8:
            raise ValueError(f"the restorer needs at least 8 images of its own, got {len(x_NCHW)}")
        self.restoring: RestoringNet | None = None
        return super().prepare(oracle, x_NCHW, known=known, rng=rng)

    def pairs(self, oracle: Oracle, x_NCHW: Tensor, known: ThreatModel) -> tuple[Tensor, Tensor]:
        c_NK = oracle.query(x_NCHW)
        if known.defense not in (None, "none"):
            clean_NK, released_NK = self._shadow_vectors(c_NK, x_NCHW, known)
            self._learn(released_NK, clean_NK)
        return self.apply_view(c_NK), x_NCHW

    def apply_view(self, c_NK: Tensor) -> Tensor:
        """Restore released vectors (N, K), then apply the view."""
        if self.restoring is not None and len(c_NK):
            c_NK = apply(self.restoring, self._inputs(c_NK)).exp().cpu()
        return super().apply_view(c_NK)

    def _shadow_vectors(self, c_NK: Tensor, x_NCHW: Tensor, known: ThreatModel) -> tuple[Tensor, Tensor]:
        """Clean and released vectors of a shadow victim, for both halves of the attacker's images."""
        sizes, rng, n_classes = sizes_of(self.config), self.rng, c_NK.shape[1]
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
            steps=sizes.steps,
            batch=sizes.batch,
            lr=LEARNING_RATE,
            rng=rng,
        )
        clean = {
            part: confidence_vectors(shadow, x.to(self.device)).cpu()
            for part, x in (("private", private), ("public", public))
        }
        defense: Any = DEFENSES[name].from_flat(known.settings).make()
        defense.fit(self._view(shadow, private, public, clean, label_N, known), rng=rng)
        secret = int(torch.randint(0, 2**62, (1,), generator=rng)).to_bytes(8, "big")
        released = [
            z_NK
            for part, x in (("private", private), ("public", public))
            for z_NK in protect_chunks(defense, clean[part], x, secret=secret, device=self.device).values()
        ]
        return torch.cat([clean["private"], clean["public"]]), torch.cat(released)

    def _victim(self) -> ClassifierConfig:
        """Size and training of the shadow victim, since the attacker does not know the victim's."""
        sizes = sizes_of(self.config)
        return ClassifierConfig(
            width=sizes.width,
            hidden=4 * sizes.width,
            steps=sizes.steps,
            batch=sizes.batch,
            lr=LEARNING_RATE,
        )

    def _view(
        self,
        shadow: nn.Module,
        private: Tensor,
        public: Tensor,
        clean: dict[str, Tensor],
        label_N: Tensor,
        known: ThreatModel,
    ) -> DefenderView:
        """What the defender of the shadow victim would know."""
        sizes, rng, device = sizes_of(self.config), self.rng, self.device
        half = len(public) // 2
        rows = {"D1": slice(0, half), "D2": slice(half, None), "all": slice(None)}
        made: dict[SubstituteConfig, InversionNet] = {}

        def substitute_data(config: SubstituteConfig) -> tuple[Tensor, Tensor]:
            return clean["public"][rows[config.data]], public[rows[config.data]]

        def substitute(config: SubstituteConfig) -> InversionNet:
            if config not in made:
                c_NK, x_NCHW = substitute_data(config)
                with seeded(rng, device):
                    net = config.architecture(sizes.width).make(known.image_shape, c_NK.shape[1])
                train(
                    net.to(device), c_NK.to(device), x_NCHW.to(device), mse,
                    steps=sizes.steps, batch=sizes.batch, lr=sizes.lr,
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
            ask=victim_of(shadow, clean["private"].shape[1], device),
        )

    def _learn(self, released_NK: Tensor, clean_NK: Tensor) -> None:
        """Train the restoring network: least squares on log scores, from released to clean vectors."""
        sizes, rng = sizes_of(self.config), self.rng
        self.features = Standardised(released_NK, "all")
        inputs = self._inputs(released_NK)
        n_classes = clean_NK.shape[1]
        with seeded(rng, self.device):
            restoring = RestoringNet(inputs.shape[1] - n_classes, n_classes, self.config.hidden).to(
                self.device
            )
        train(
            restoring, inputs, clean_NK.log().clamp_min(LEAST_LOG).to(self.device), mse,
            steps=sizes.steps, batch=sizes.batch, lr=LEARNING_RATE, rng=rng,
        )  # fmt: skip
        self.restoring = restoring

    def _inputs(self, c_NK: Tensor) -> Tensor:
        log_NK = c_NK.cpu().log().clamp_min(LEAST_LOG)
        return torch.cat([self.features(c_NK).float(), log_NK], 1).to(self.device)
