"""The decoder attacker: an inversion model trained on its own released vectors (Yang et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mipoison.attacks.sizes import sized, sizes_of
from mipoison.attacks.views import VIEWS, adapted_strength
from mipoison.config import Config
from mipoison.models.inversion import InversionConfig
from mipoison.protocols import Oracle, ThreatModel
from mipoison.training import RECONSTRUCTION_LOSSES, Job, Validation, apply, seeded, train


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(Config):
    """Trains a decoder (Yang et al. 2019, arXiv 1902.08552) on the answers to its own images.

    Attributes:
        features: input features, ``log`` or ``raw``, see :class:`mipoison.models.inversion.InversionConfig`.
        extra_blocks: blocks in addition to the standard number, 0 to 3 (mismatched architecture).
        loss: training loss, ``mse`` or ``psnr`` (mismatched loss).
        data: the attacker's own images: ``all`` of D_inv train, or a stratified half ``D1`` or ``D2``. By
            default substitutes are trained on D1, so D2 is the half that the defender did not use.
        view: the transformation of released vectors before training and inversion, one of VIEWS.
        strength: the view's parameter (l2 length of the noise, inverse temperature of the softmax, decimals
            of the rounding, k), at least 0. None adapts it to the defense's public budget, see
            :func:`mipoison.attacks.views.adapted_strength`.
        validation: share of the attacker's images held out for early stopping, [0, 0.5]; 0 disables it.
        patience: number of checks without progress, of ten in a training, after which training stops.
        width, steps, batch, lr: network size and training (Adam, betas 0.5 and 0.999, amsgrad). In an
            episode, None means the value of the scene; elsewhere that of
            :data:`mipoison.attacks.sizes.DEFAULT_SIZES`.
    """

    features: Literal["log", "raw"] = "log"
    extra_blocks: int = 0
    loss: Literal["mse", "psnr"] = "mse"
    data: Literal["all", "D1", "D2"] = "all"
    view: str = "identity"
    strength: float | None = None
    validation: float = 0.0
    patience: int = 3
    width: int | None = None
    steps: int | None = None
    batch: int | None = None
    lr: float | None = None

    def validate(self) -> None:
        self.one_of("view", VIEWS)
        self.require("extra_blocks", 0 <= self.extra_blocks <= 3, "between 0 and 3")
        self.require("strength", self.strength is None or self.strength >= 0, "at least 0")
        self.require("validation", 0 <= self.validation <= 0.5, "between 0 and 0.5 (share of the images)")
        for name in ("patience", "width", "steps", "batch"):
            value = getattr(self, name)
            self.require(name, value is None or value >= 1, "at least 1")
        self.require("lr", self.lr is None or self.lr > 0, "above 0")

    def make(self) -> Decoder:
        return Decoder(sized(self))


class Decoder:
    """An attacker that queries its images once and trains an inversion model on the answers.

    Variants override :meth:`pairs` (the training data), :meth:`apply_view` (the transformation of released
    vectors), :meth:`loss` or :meth:`augment`. A variant that overrides :meth:`fit` is not trained together
    with others, see :func:`trains_in_one_job`.
    """

    def __init__(self, config: DecoderConfig, device: torch.device | None = None) -> None:
        self.config = config
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Query the API and train. All randomness comes from ``rng``.

        Args:
            oracle: the defended API. x_NCHW: the attacker's own images. known: what is public.

        Raises:
            ValueError: fewer than four images.
        """
        job = self.prepare(oracle, x_NCHW, known=known, rng=rng)
        train(job.model, job.inputs, job.targets, job.loss, **job.options())
        self.finish()

    def prepare(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> Job:
        """The part of :meth:`fit` before training: query the API, build the pairs, initialise the network.

        Returns:
            The training as a job. The caller runs it, alone or together with others, and then calls
            :meth:`finish`.
        """
        cfg, sizes = self.config, sizes_of(self.config)
        if len(x_NCHW) < 4:
            raise ValueError(f"the decoder attacker needs at least 4 images of its own, got {len(x_NCHW)}")
        self.rng = rng
        self.strength = cfg.strength if cfg.strength is not None else adapted_strength(cfg.view, known)
        c_NK, x_NCHW = self.pairs(oracle, x_NCHW, known)
        c_NK, x_NCHW = c_NK.to(self.device), x_NCHW.to(self.device)
        validation = None
        if cfg.validation > 0:
            held = max(1, round(cfg.validation * len(x_NCHW)))
            order = torch.randperm(len(x_NCHW), generator=rng).to(self.device)
            validation = Validation(
                c_NK[order[:held]],
                x_NCHW[order[:held]],
                every=max(1, sizes.steps // 10),
                patience=cfg.patience,
            )
            c_NK, x_NCHW = c_NK[order[held:]], x_NCHW[order[held:]]
        architecture = InversionConfig(
            features=cfg.features, extra_blocks=cfg.extra_blocks, width=sizes.width
        )
        with seeded(rng, self.device):
            self.model = architecture.make(known.image_shape, oracle.n_classes).to(self.device)
        return Job(
            model=self.model,
            inputs=c_NK,
            targets=x_NCHW,
            # If a variant does not override the loss, pass the plain function: jobs that share a loss are
            # computed together, and bound methods of two attackers would never be equal.
            loss=RECONSTRUCTION_LOSSES[cfg.loss] if type(self).loss is Decoder.loss else self.loss,
            steps=sizes.steps,
            batch=sizes.batch,
            lr=sizes.lr,
            betas=(0.5, 0.999),
            amsgrad=True,
            rng=rng,
            augment=None if type(self).augment is Decoder.augment else self.augment,
            validation=validation,
        )

    def finish(self) -> None:
        """The part of :meth:`fit` after training: draws the seed of :meth:`reconstruct`."""
        self.later = int(torch.randint(0, 2**62, (1,), generator=self.rng))

    def augment(self, c_NK: Tensor, rng: torch.Generator) -> Tensor:
        """Change the confidence vectors (N, K) of a training batch; by default nothing."""
        return c_NK

    def loss(self, output_NCHW: Tensor, x_NCHW: Tensor) -> Tensor:
        """The training loss."""
        return RECONSTRUCTION_LOSSES[self.config.loss](output_NCHW, x_NCHW)

    def pairs(self, oracle: Oracle, x_NCHW: Tensor, known: ThreatModel) -> tuple[Tensor, Tensor]:
        """Query the API, and return the vectors and images to train on; by default each image is queried
        once."""
        return self.apply_view(oracle.query(x_NCHW)), x_NCHW

    def apply_view(self, c_NK: Tensor) -> Tensor:
        """Transform released vectors (N, K) before training or inversion."""
        return VIEWS[self.config.view](c_NK, self.strength, self.rng)

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) from released vectors; equal vectors give equal images.

        This holds for a view that adds noise too, as each call starts from the same seed.
        """
        self.rng = torch.Generator().manual_seed(self.later)
        return apply(self.model, self.apply_view(c_NK).to(self.device)).cpu()


def trains_in_one_job(attack: object) -> bool:
    """Whether the attacker's training is a single job, which may run together with others."""
    return isinstance(attack, Decoder) and type(attack).fit is Decoder.fit
