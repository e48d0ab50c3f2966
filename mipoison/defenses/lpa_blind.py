"""Blind LPA: aligns with the mean image of the label in place of the query's image.

LPA's perturbation is a function of the query's image, so it writes of that image into the answer. Here the
answer depends on the confidence vector and the keyed start alone: what an attacker finds in it beyond the
label was in the vector before.

Shape suffixes: N queries, K classes, CHW image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mipoison.config import Plain
from mipoison.defenses.lpa import LPA, LPAConfig
from mipoison.defenses.state import State
from mipoison.models.label_means import label_means
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness
from mipoison.simplex import label_of


@dataclass(frozen=True, kw_only=True)
class LPABlindConfig(LPAConfig):
    """LPA that does not read the query's image: the label's mean image stands for it in the alignment.

    Attributes:
        stand_in: mean of the ``public`` images with the label (of the substitute's share of D_inv), or of the
            ``private`` ones, which a saved unit then contains. Of a label without images, the mean of all.
        The others: see LPAConfig.
    """

    SOURCE: ClassVar[str] = ""

    BEFORE: ClassVar[Mapping[str, Plain | None]] = {}

    stand_in: Literal["public", "private"] = "public"

    def make(self) -> LPABlind:
        return LPABlind(self)


def mean_images(c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
    """Mean image of the vectors with each label (K, C, H, W); of a label without any, the mean image of all.

    Raises:
        ValueError: no images.
    """
    if len(x_NCHW) == 0:
        raise ValueError("there is no image to take the label's mean of")
    mean_KD = label_means(label_of(c_NK), x_NCHW.double().flatten(1), c_NK.shape[1])
    return mean_KD.to(x_NCHW).unflatten(1, x_NCHW.shape[1:])


class LPABlind(LPA):
    """LPA's search (see LPAConfig) on ``1 - cos(t, g(c + d; mean image of c's label))``.

    :meth:`alignment` is measured with each query's own image, as for LPA.
    """

    reads_image = False
    config: LPABlindConfig

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """As LPA; and the mean image of each label."""
        super().fit(view, rng=rng)
        pairs = view.c_private_NK, view.x_private_NCHW
        if self.config.stand_in == "public":
            pairs = view.substitute_data(self.config.substitute())
        self.mean_KCHW = mean_images(*pairs).to(view.device)

    def state(self) -> dict[str, Tensor]:
        return super().state() | {"label_means": self.mean_KCHW}

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.mean_KCHW = state["label_means"]

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        return super().protect(c_NK, self.mean_KCHW[label_of(c_NK)], picked_N, rng=rng)
