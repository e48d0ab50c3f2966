"""Tuned attacker: tries several decoders on its own validation split, then trains the best on all its images.

No single decoder is best against all defenses: raw features are hardly affected by a small budget, and log
features use small scores if the defense leaves these unchanged. Each image is queried once for all attempts,
and no private image or vector takes part in the choice.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from mipoison.attacks.decoder import Decoder, DecoderConfig
from mipoison.attacks.sizes import sized, sizes_of
from mipoison.protocols import Oracle, ThreatModel

CANDIDATES: tuple[Mapping[str, Any], ...] = (
    {},
    {"features": "raw"},
    {"view": "label-only", "features": "raw"},
    {"view": "rounding"},
    {"steps": 0.5},
    {"features": "raw", "steps": 0.5},
    {"lr": 0.4},
    {"features": "raw", "lr": 0.4},
    {"steps": 2.0},
    {"features": "raw", "steps": 2.0},
    {"view": "top-k"},
    {"view": "noise"},
)
"""Changes of the settings, in the order in which they are tried; ``steps`` and ``lr`` are factors."""


@dataclass(frozen=True, kw_only=True)
class TunedConfig(DecoderConfig):
    """Tries six decoders on its own validation split and trains the best on all of its images.

    Attributes:
        tune: number of CANDIDATES that are tried, 1 to 12.
        judge: share of its images on which they are compared, [0.05, 0.5].
    """

    COST: ClassVar[int] = 2

    tune: int = 6
    judge: float = 0.2

    def validate(self) -> None:
        super().validate()
        self.require("tune", 1 <= self.tune <= len(CANDIDATES), f"between 1 and {len(CANDIDATES)}")
        self.require("judge", 0.05 <= self.judge <= 0.5, "between 0.05 and 0.5")

    def make(self) -> Tuned:
        return Tuned(sized(self))

    def candidates(self) -> list[DecoderConfig]:
        """Configurations of the decoders that are tried."""
        sizes = sizes_of(self)
        base = DecoderConfig(**{f.name: getattr(self, f.name) for f in fields(DecoderConfig)})
        out = []
        for changes in CANDIDATES[: self.tune]:
            values = dict(changes)
            if "steps" in values:
                values["steps"] = max(1, round(values["steps"] * sizes.steps))
            if "lr" in values:
                values["lr"] *= sizes.lr
            out.append(replace(base, **values))
        return out


class RecordedAnswers:
    """An oracle that returns stored answers, so that trying several decoders costs no further queries.

    Args:
        c_NK: the stored answers.
        then: answers whatever is asked after the first request. None: every request is the stored images.
    """

    def __init__(self, c_NK: Tensor, then: Oracle | None = None) -> None:
        self.c_NK, self.then = c_NK, then
        self.n_classes, self.queries = c_NK.shape[1], 0
        self._asked = False

    def query(self, x_NCHW: Tensor) -> Tensor:
        """The stored answers.

        Args:
            x_NCHW: the images that they are the answers to, in the same order.

        Raises:
            ValueError: another number of images.
        """
        if self._asked and self.then is not None:
            return self.then.query(x_NCHW)
        self._asked = True
        if len(x_NCHW) != len(self.c_NK):
            raise ValueError(f"{len(self.c_NK)} images were answered, asked for {len(x_NCHW)}")
        return self.c_NK.clone()


class Tuned(Decoder):
    """Trains the candidates and keeps the best.

    Attributes:
        errors: after :meth:`fit`, each candidate's mean squared error on the held-out images.
        best: configuration of the candidate with the least error.
        decoder: that candidate, trained on all images.
    """

    config: TunedConfig

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Query the API once, try the candidates, and train the best one again on all images.

        Raises:
            ValueError: fewer than eight images, since a decoder needs four and up to half are held out.
        """
        if len(x_NCHW) < 8:
            raise ValueError(f"the tuned attacker needs at least 8 images of its own, got {len(x_NCHW)}")
        c_NK = oracle.query(x_NCHW)
        order = torch.randperm(len(x_NCHW), generator=rng)
        held = max(1, round(self.config.judge * len(order)))
        judge, rest = order[:held], order[held:]
        candidates, self.errors = self.config.candidates(), []
        for candidate in candidates:
            attempt = candidate.make()
            attempt.fit(RecordedAnswers(c_NK[rest]), x_NCHW[rest], known=known, rng=rng)
            difference = attempt.reconstruct(c_NK[judge]) - x_NCHW[judge].cpu()
            self.errors.append(float(difference.square().mean()))
        self.best = candidates[self.errors.index(min(self.errors))]
        self.decoder = self.best.make()
        self.decoder.fit(RecordedAnswers(c_NK), x_NCHW, known=known, rng=rng)

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) from released vectors."""
        return self.decoder.reconstruct(c_NK)
