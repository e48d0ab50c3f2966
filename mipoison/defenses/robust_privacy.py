"""Robust Privacy: randomised smoothing of the answers (Jin, Zhang, Liu, Xu, Yang, Zhang, Zou 2026, "Robust
Privacy: inference-stage privacy through certified robustness", arXiv 2601.17360; smoothing as in Cohen,
Rosenfeld, Kolter 2019, arXiv 1902.02918).

Shape suffixes: N queries, S noisy copies, K classes, CHW image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mipoison.certificates.observation import CONTINUUM, Observation, Uncertifiable
from mipoison.config import Config, ConfigError, Knob, Plain
from mipoison.defenses.base import BaseDefense
from mipoison.defenses.state import State
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness
from mipoison.simplex import label_of

KEYED = "a key draws the noise, so that an image's votes follow a law that is known only by estimate"


@dataclass(frozen=True, kw_only=True)
class RobustPrivacyConfig(Config):
    """Randomised smoothing: the victim votes on noisy copies of the image, and the votes are released.

    Attributes:
        sigma: standard deviation of the noise on each pixel (pixels in [0, 1]), above 0, at most 10.
        samples: noisy copies of each image, 1 to 10,000; as many questions to the victim.
        releases: ``votes`` (share of the copies that get each label), ``label`` (the label with most votes,
            one-hot) or ``mean`` (mean confidence vector of the copies).
        noise: ``keyed`` (a draw of its own for each image, which image and secret determine) or ``common``
            (one draw for all images, when it is fitted). With ``common``, votes and label are a function of
            the image without a key, and certified.
    """

    SOURCE: ClassVar[str] = "Jin et al. 2026, as described"

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "sigma": Knob(low=0.02, high=1.0, log=True, help="noise on a pixel"),
        "samples": Knob(low=2, high=64, log=True, integer=True, help="noisy copies of an image"),
        "noise": Knob(choices=("keyed", "common"), help="drawn for each image, or once for all"),
    }
    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({}, {"noise": "common"})

    sigma: float = 0.25
    samples: int = 16
    releases: Literal["votes", "label", "mean"] = "votes"
    noise: Literal["keyed", "common"] = "keyed"

    def validate(self) -> None:
        self.require("sigma", 0 < self.sigma <= 10, "above 0 and at most 10 (pixels in [0, 1])")
        self.require("samples", 1 <= self.samples <= 10_000, "between 1 and 10,000")

    def make(self) -> RobustPrivacy:
        return RobustPrivacy(self)


class RobustPrivacy(BaseDefense):
    """Votes, or mean vectors, of the victim on noisy copies of each image; noisy pixels are cut to [0, 1].

    It asks the victim again for each copy: see :meth:`behind`. The clean vector is ignored, and the label may
    change.

    What the method certifies is that the *label* of the smoothed classifier is the same for all images within
    an l2 radius (:func:`certified_radius`): who sees that label alone cannot tell these images apart. That is
    said of images that close, of the label, and not of the votes, which differ within the radius.
    The certificate of :meth:`observation` is another one: it bounds the error of every reconstruction of a
    whole pool of images, and counts images with equal answers.
    """

    keeps_label = False
    reads_image = True
    asks_again = True

    noise_SCHW: Tensor | None = None

    def __init__(self, config: RobustPrivacyConfig) -> None:
        self.config = config
        self.draws = config.noise == "keyed"
        self._ask: Callable[[Tensor], Tensor] | None = None

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Draws the common noise, if noise is common."""
        self._ask = view.ask
        if self.config.noise == "common":
            shape = (self.config.samples, *view.x_private_NCHW.shape[1:])
            self.noise_SCHW = torch.randn(shape, generator=rng).to(view.device)

    def behind(self, ask: Callable[[Tensor], Tensor]) -> RobustPrivacy:
        """A copy that asks this classifier."""
        bound = copy.copy(self)
        bound._ask = ask
        return bound

    def state(self) -> dict[str, Tensor]:
        return {} if self.noise_SCHW is None else {"noise": self.noise_SCHW}

    def load_state(self, state: State) -> None:
        if self.config.noise == "common":
            self.noise_SCHW = state["noise"]

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        if len(c_NK) == 0:
            return c_NK.clone()
        sum_NK = self.answers(x_NCHW, c_NK.shape[1], rng)
        if self.config.releases == "label":
            return F.one_hot(label_of(sum_NK), c_NK.shape[1]).to(c_NK)
        return (sum_NK / self.config.samples).to(c_NK)

    def answers(self, x_NCHW: Tensor, n_classes: int, rng: QueryRandomness) -> Tensor:
        """Number of votes for each class, or sum of the confidence vectors, of all copies: (N, K), float64.

        Raises:
            ConfigError: it does not know whom to ask.
        """
        if self._ask is None:
            raise ConfigError(
                "robust-privacy asks the classifier again: fit it on a view that has `ask`, or put it behind "
                "one (mipoison.defenses.pipeline.Pipeline, Unit.wrap)"
            )
        total_NK = x_NCHW.new_zeros(len(x_NCHW), n_classes, dtype=torch.float64)
        for i in range(self.config.samples):
            noisy_NCHW = (x_NCHW + self.config.sigma * self._noise(x_NCHW, i, rng)).clamp(0, 1)
            c_NK = self._ask(noisy_NCHW).to(total_NK)
            if self.config.releases != "mean":
                c_NK = F.one_hot(label_of(c_NK), n_classes).to(total_NK)
            total_NK += c_NK
        return total_NK

    def _noise(self, x_NCHW: Tensor, i: int, rng: QueryRandomness) -> Tensor:
        """Standard normal noise of the i-th copy: one image for all, or one for each."""
        if self.noise_SCHW is not None:
            return self.noise_SCHW[i : i + 1]
        return rng.normal(x_NCHW[0].numel(), f"smoothing {i}").to(x_NCHW).reshape(x_NCHW.shape)

    def observation(self, c_NK: Tensor, released_NK: Tensor) -> Observation | Uncertifiable:
        """The released rows, where noise is common and they take finitely many values."""
        if self.config.noise == "keyed":
            return Uncertifiable(KEYED)
        return Uncertifiable(CONTINUUM) if self.config.releases == "mean" else Observation(released_NK)


def certified_radius(votes_NK: Tensor, sigma: float, alpha: float = 0.001) -> Tensor:
    """l2 radius around each image in which the smoothed classifier's label is the same: (N,), float64.

    ``sigma`` times the normal quantile of a lower bound on the chance of the label with most votes (Cohen et
    al. 2019, Theorem 1), 0 where the bound is at most one half. Clopper and Pearson's bound is taken at level
    ``alpha / K``, since the same votes choose the label. The copies' noise must be independent.

    Args:
        votes_NK: number of votes for each class. alpha: chance that an image's radius is too large.
    """
    import scipy.stats

    count_N, total_N = votes_NK.double().amax(1).cpu().numpy(), votes_NK.double().sum(1).cpu().numpy()
    low_N = scipy.stats.beta.ppf(alpha / votes_NK.shape[1], count_N, total_N - count_N + 1)
    return torch.as_tensor(sigma * scipy.stats.norm.ppf(low_N)).clamp_min(0)
