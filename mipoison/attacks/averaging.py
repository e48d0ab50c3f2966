"""Averaging attacker: queries each of its own images several times.

If a defense draws fresh noise for each query, the mean of q answers has noise smaller by a factor sqrt(q). If
the noise is a function of the query, all q answers are equal and the attacker only pays for more queries. The
vectors that it inverts later, those of private images, were released once and have all of their noise. With
``pool="each"`` it therefore trains on every answer separately, so that the decoder learns to cope with noise.

Shape suffixes: N samples, K classes.
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
    """A decoder that queries each of its images several times and trains on the mean answer, or on every one:
    undoes noise drawn afresh, not noise keyed by the query.

    Attributes:
        queries: number of queries q for each of its own images, 1 to 1024 (the oracle counts every one).
        pool: ``mean`` trains on the mean of the q answers, ``each`` on q pairs an image.
    """

    queries: int = 4
    pool: Literal["mean", "each"] = "mean"

    def validate(self) -> None:
        super().validate()
        self.require("queries", 1 <= self.queries <= 1024, "between 1 and 1024")
        # With pairs of one image on both sides of the split, memorising would look like generalising.
        self.require("validation", self.pool == "mean" or self.validation == 0, "0 with pool='each'")

    def make(self) -> Averaging:
        return Averaging(sized(self))


class Averaging(Decoder):
    """Averages or pools the answers and then trains a decoder; the view is applied after the mean."""

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
