"""Averaging attacker: asks each of its own images several times.

Against fresh noise the mean of q answers has noise smaller by sqrt(q); against noise keyed by the query all q
answers are the same and nothing is won but a larger bill. What it inverts later, the vector released for a
private image, was released once and keeps its noise: so ``pool="each"`` trains on every answer as a pair of
its own, which teaches the decoder the noise that it will meet. Shape suffixes: N samples, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mipoison.attacks.decoder import Decoder, DecoderConfig
from mipoison.attacks.sizes import sized
from mipoison.protocols import Oracle, ThreatModel


@dataclass(frozen=True, kw_only=True)
class AveragingConfig(DecoderConfig):
    """A decoder that asks each of its images several times and trains on the mean answer, or on every one:
    undoes noise drawn afresh, not noise keyed by the query.

    Attributes:
        queries: how often each of its own images is asked, q from 1 to 1024 (the oracle counts every one).
        pool: ``mean`` trains on the mean of the q answers, ``each`` on q pairs an image.
    """

    queries: int = 4
    pool: Literal["mean", "each"] = "mean"

    def validate(self) -> None:
        super().validate()
        self.require("queries", 1 <= self.queries <= 1024, "between 1 and 1024")
        # Pairs of one image on both sides of the split would make memorising look like learning.
        self.require("validation", self.pool == "mean" or self.validation == 0, "0 with pool='each'")

    def make(self) -> Averaging:
        return Averaging(sized(self))


class Averaging(Decoder):
    """Averages (or pools) the answers before anything learns from them; the view comes after the mean."""

    config: AveragingConfig

    def pairs(self, oracle: Oracle, x_NCHW: Tensor, known: ThreatModel) -> tuple[Tensor, Tensor]:
        q = self.config.queries
        if self.config.pool == "each":
            answers = [self.apply_view(oracle.query(x_NCHW)) for _ in range(q)]
            return torch.cat(answers), x_NCHW.repeat(q, 1, 1, 1)
        first_NK = oracle.query(x_NCHW)
        total_NK = first_NK.double()
        for _ in range(q - 1):
            total_NK = total_NK + oracle.query(x_NCHW)
        return self.apply_view((total_NK / q).to(first_NK)), x_NCHW
