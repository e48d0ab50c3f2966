"""A victim trained with DP-SGD (Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang 2016, "Deep learning
with differential privacy", arXiv 1607.00133), by Opacus (Yousefpour et al. 2021, arXiv 2109.12298).

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipoison.config import Config, ConfigError, Knob, Plain
from mipoison.defenses.base import BaseDefense
from mipoison.defenses.retraining import retrained
from mipoison.models.classifier import ClassifierConfig
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness
from mipoison.training import seeded

GROUPS = 32
"""Most groups of a group normalisation, as Opacus chooses them."""


@dataclass(frozen=True, kw_only=True)
class DPSGDConfig(Config):
    """The victim is replaced by one that is trained with DP-SGD: clipped gradients of each image, plus noise.

    Attributes:
        noise_multiplier: standard deviation of the noise on a batch's summed gradient, in units of ``clip``,
            0 to 100. 0 clips alone, and guarantees nothing.
        clip: largest l2 norm of one image's gradient, above 0, at most 1000.
    """

    SOURCE: ClassVar[str] = "Abadi et al. 2016"
    EXTRAS: ClassVar[Mapping[str, str]] = {"opacus": "dp"}

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "noise_multiplier": Knob(low=0.3, high=10.0, log=True, help="noise, in units of the clipped norm"),
        "clip": Knob(low=0.1, high=5.0, log=True, help="largest norm of one image's gradient"),
    }
    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({}, {"noise_multiplier": 4.0})

    noise_multiplier: float = 1.0
    clip: float = 1.0

    def validate(self) -> None:
        self.require("noise_multiplier", 0 <= self.noise_multiplier <= 100, "between 0 and 100")
        self.require("clip", 0 < self.clip <= 1000, "above 0 and at most 1000 (l2 norm)")

    def make(self) -> DPSGD:
        return DPSGD(self)


class DPSGD(BaseDefense):
    """Answers with another classifier: the victim's architecture, trained with DP-SGD on the private images.

    Batch normalisation, which mixes the images of a batch, is replaced by group normalisation. Steps, batch
    and learning rate are the victim's. Batches are Poisson samples, as the accounting assumes.

    The guarantee is on the *weights*: whether an image was trained on changes the distribution of the trained
    network by little (:func:`epsilon_spent`). It is none on the *answer* to an image, which is computed from
    that image. This is not post-processing: the clean vector is ignored, and the distortion is the distance
    between two classifiers' answers.
    """

    keeps_label = False
    retrains = True
    reads_image = True

    def __init__(self, config: DPSGDConfig) -> None:
        self.config = config

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Train on the private images, or load the trained network.

        Raises:
            ConfigError: the network has to be trained, and Opacus is not installed.
        """
        cfg, victim = self.config, view.victim

        def fit(net: nn.Module, x_NCHW: Tensor, y_N: Tensor) -> None:
            train_privately(
                net, x_NCHW, y_N, noise_multiplier=cfg.noise_multiplier, clip=cfg.clip,
                steps=victim.steps, batch=victim.batch, lr=victim.lr, rng=rng,
            )  # fmt: skip

        self.network = retrained(view, "dp-sgd", cfg.flat(), build=group_normalised, fit=fit, rng=rng)

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        if len(c_NK) == 0:
            return c_NK.clone()
        with torch.no_grad():
            return torch.softmax(self.network(x_NCHW), 1).to(c_NK)


def group_normalised(
    config: ClassifierConfig, image_shape: tuple[int, int, int], n_classes: int
) -> nn.Module:
    """An untrained victim with group normalisation in place of batch normalisation."""
    net = config.make(image_shape, n_classes)
    for block in net.modules():
        for name, layer in block.named_children():
            if isinstance(layer, nn.BatchNorm2d):
                channels = layer.num_features
                setattr(block, name, nn.GroupNorm(math.gcd(GROUPS, channels), channels))
    return net


def train_privately(
    net: nn.Module,
    x_NCHW: Tensor,
    y_N: Tensor,
    *,
    noise_multiplier: float,
    clip: float,
    steps: int,
    batch: int,
    lr: float,
    rng: torch.Generator,
) -> None:
    """Train a classifier in place with DP-SGD; Adam takes the noisy gradients.

    Each step samples every image with probability ``batch / N``, clips the gradient of each to ``clip``,
    adds normal noise of standard deviation ``noise_multiplier * clip`` to every coordinate of the sum, and
    divides by ``batch``. A step without images is noise alone. The learning rate follows the cycle of
    :func:`mipoison.training.train`.

    Args:
        net: on the device of the images, without layers that mix the images of a batch.
        batch: expected images of a step; at most N are used.
        lr: peak learning rate.
        rng: CPU generator of batches, noise and dropout.

    Raises:
        ConfigError: Opacus is not installed.
    """
    try:
        from opacus import GradSampleModule
        from opacus.optimizers import DPOptimizer
    except ImportError as error:
        raise _missing(error) from error
    n, size = len(x_NCHW), min(batch, len(x_NCHW))
    noise = torch.Generator(x_NCHW.device).manual_seed(int(torch.randint(0, 2**62, (1,), generator=rng)))
    model = GradSampleModule(net, loss_reduction="sum")
    optimiser = DPOptimizer(
        torch.optim.Adam(net.parameters(), lr=lr),
        noise_multiplier=noise_multiplier, max_grad_norm=clip, expected_batch_size=size, generator=noise,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser.original_optimizer, lr, total_steps=max(steps, 2), cycle_momentum=False
    )
    model.train()
    with seeded(rng, x_NCHW.device), warnings.catch_warnings():
        # Images need no gradient, of which the hooks of Opacus make torch warn, and the schedule does not see
        # the steps of the optimiser that Opacus puts around Adam.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\..*|mipoison\..*")
        for _ in range(steps):
            rows = (torch.rand(n, generator=rng) < size / n).nonzero()[:, 0].to(x_NCHW.device)
            optimiser.zero_grad()
            F.cross_entropy(model(x_NCHW[rows]), y_N[rows], reduction="sum").backward()
            optimiser.step()
            schedule.step()
    model.remove_hooks()
    net.eval()


def epsilon_spent(config: DPSGDConfig, n_images: int, victim: ClassifierConfig) -> float:
    """The epsilon of the trained weights for delta = 1 / n_images; infinite without noise.

    For neighbouring data sets that differ in the presence of one image, by Renyi differential privacy of the
    Poisson-sampled Gaussian mechanism (Mironov, Talwar, Zhang 2019, arXiv 1908.10530). The knobs themselves
    and the choice among several trained networks are not accounted for.

    Raises:
        ConfigError: Opacus is not installed.
    """
    if config.noise_multiplier == 0:
        return math.inf
    try:
        from opacus.accountants import RDPAccountant
    except ImportError as error:
        raise _missing(error) from error
    accountant = RDPAccountant()
    rate = min(victim.batch, n_images) / n_images
    accountant.history = [(config.noise_multiplier, rate, victim.steps)]
    return float(accountant.get_epsilon(delta=1 / n_images))


def _missing(error: ImportError) -> ConfigError:
    return ConfigError(
        f"defense dp-sgd needs Opacus ({error}): install the extra dp (pip install 'mipoison[dp]')"
    )
