"""Poi_MSE: LPA with the squared distance of gradients instead of their cosine (a baseline of Zhou et al.)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mipoison.defenses.lpa import LPAConfig


@dataclass(frozen=True, kw_only=True)
class PoiMSEConfig(LPAConfig):
    """LPA with ``||t - g||^2`` in place of the cosine.

    The target is a mean over the private data and much shorter than one query's gradient g. So the objective
    is mostly |g|^2, and the descent moves towards vectors that the substitute already inverts well.

    Attributes:
        objective: always ``distance``. The others: see LPAConfig.
    """

    SOURCE: ClassVar[str] = "Zhou et al., baseline"

    objective: Literal["distance"] = "distance"
