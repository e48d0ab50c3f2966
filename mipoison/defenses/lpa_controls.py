"""Controls of LPA: the same code, budget and random start, but another target gradient or image.

If the direction of LPA's target gradient matters, LPA beats these at equal distortion. They are defenses of
their own, so that a search tunes them as it tunes LPA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mipoison.config import Plain
from mipoison.defenses.lpa import LPA, LPAConfig
from mipoison.randomness import QueryRandomness


@dataclass(frozen=True, kw_only=True)
class LPAFlippedConfig(LPAConfig):
    """Control: LPA with its target gradient negated.

    LPA away from its target, towards what helps an attacker's training as far as the substitute can tell.

    Attributes:
        target: always ``flipped``. The others: see LPAConfig.
    """

    SOURCE: ClassVar[str] = ""

    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({},)

    target: Literal["flipped"] = "flipped"


@dataclass(frozen=True, kw_only=True)
class LPARandomConfig(LPAConfig):
    """Control: LPA towards a random target gradient.

    LPA towards a Gaussian direction in the substitute's parameters, one for all queries.

    Attributes:
        target: always ``random``. The others: see LPAConfig.
    """

    SOURCE: ClassVar[str] = ""

    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({},)

    target: Literal["random"] = "random"


@dataclass(frozen=True, kw_only=True)
class LPAShuffledConfig(LPAConfig):
    """Control: LPA that aligns each query with the image of another.

    LPA that aligns each query with the image of another query of its chunk (see :class:`LPAShuffled`).

    Attributes: see LPAConfig.
    """

    SOURCE: ClassVar[str] = ""

    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({},)

    def make(self) -> LPAShuffled:
        return LPAShuffled(self)


def partners(rng: QueryRandomness) -> Tensor:
    """For each query the index of another query of the chunk: its successor in an order drawn by the keys.

    No query is its own partner, unless the chunk has only one. Partners depend on which queries are in the
    chunk, and not on their order in it.
    """
    order_N = rng.uniform(1, "lpa shuffle")[:, 0].argsort(stable=True)
    return torch.empty_like(order_N).scatter_(0, order_N, order_N.roll(-1))


class LPAShuffled(LPA):
    """LPA with shuffled images: ``g(c_i + d; x_j)``, j another query. Its start d0 is that of LPA.

    This is a control and not meant to be deployed: answers depend on the other queries of the chunk, and a
    query alone is answered as LPA does. :meth:`alignment` is measured with each query's own image.
    """

    def __init__(self, config: LPAConfig) -> None:
        super().__init__(config)
        self.couples = True
        self.draws = True  # the order of the partners, even with a budget of 0

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        return super().protect(c_NK, x_NCHW[partners(rng).to(x_NCHW.device)], picked_N, rng=rng)
