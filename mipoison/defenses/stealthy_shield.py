"""Stealthy Shield Defense (Zhuang, Yu, Qiu, Fang, Chen, Xia 2025, "Stealthy Shield Defense: a conditional
mutual information-based approach against black-box model inversion attacks", ICLR).

What image and answer have in common beyond the label y is the conditional mutual information,

    I(X; C' | Y) = E KL(c'(x) | q_y),   q_y the mean vector of the images with label y.

Each vector is moved towards q_y as far as a bound in l1 allows. The convex problem

    minimise  KL(p | q)   over p on the simplex with  |p - c|_1 <= t

has the solution q if that is within the bound, else p = min(max(c, a q), b q), with the levels a < 1 < b at
which t/2 of the mass is added and t/2 taken away (the Kuhn-Tucker conditions: log(p_k / q_k) is the same for
all scores that rise, and for all that fall). The mass added at a level, sum_k max(a q_k - c_k, 0), is the
largest of ``a Q_S - C_S`` over sets S of classes, and the largest is one of the K sets with the least ratios
c_k / q_k. So a is the least of (C_S + t/2) / Q_S over those sets, and b likewise: no search is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mipoison.config import Config, Knob, Plain
from mipoison.defenses.base import BaseDefense
from mipoison.defenses.state import State
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness
from mipoison.simplex import keep_label, label_of, project_labelled_simplex

LEAST = 1e-12
"""Least score of a mean vector: its ratios stay finite."""


@dataclass(frozen=True, kw_only=True)
class StealthyShieldConfig(Config):
    """Moves each vector towards its label's mean vector: least conditional mutual information in an l1 bound.

    Attributes:
        epsilon: bound on ``|c' - c|_1`` as a multiple of the vector's entropy in nats, 0 to 100: uncertain
            vectors may be changed more. The paper's code uses 0.5. 0 releases c.
        label: towards which label's mean. ``drawn``: as in the paper, a label drawn with probabilities
            ``softmax(c / temperature)``, in place of the true one that no query comes with. The label may be
            lost. ``own``: the vector's own label, which is kept; nothing is drawn.
        temperature: of the draw, 0.001 to 100; the paper's code uses 0.1.
    """

    SOURCE: ClassVar[str] = "Zhuang et al. 2025"

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "epsilon": Knob(low=0.05, high=10.0, log=True, help="l1 bound, as a multiple of the entropy")
    }
    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({}, {"epsilon": 2.0})

    epsilon: float = 0.5
    label: Literal["drawn", "own"] = "drawn"
    temperature: float = 0.1

    def validate(self) -> None:
        self.require("epsilon", 0 <= self.epsilon <= 100, "between 0 and 100")
        self.require("temperature", 1e-3 <= self.temperature <= 100, "between 0.001 and 100")

    def make(self) -> StealthyShield:
        return StealthyShield(self)


class StealthyShield(BaseDefense):
    """``argmin KL(p | q_y)`` over the vectors p with ``|p - c|_1 <= epsilon * H(c)``.

    The means are those of the private training images, by their true labels. (The paper's code is given a
    table of means; it does not show of which images.) A label without images has the mean score of all other
    images' labels, and the rest in equal shares. With ``label="own"``, a mean of which the label is no
    maximum is projected to where it is one.
    """

    uncertifiable = (
        "scores between the two levels are released as they are: a continuum, of which nobody has a bound"
    )

    mean_KK: Tensor

    def __init__(self, config: StealthyShieldConfig) -> None:
        self.config = config
        self.draws = config.label == "drawn" and config.epsilon > 0
        self.keeps_label = not self.draws

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """The mean vector of each label's private images."""
        c_NK, y_N = view.c_private_NK.to(view.device), view.y_private_N.to(view.device)
        mean_KK = label_means(c_NK, y_N)
        if self.config.label == "own":
            mean_KK = project_labelled_simplex(mean_KK, torch.arange(len(mean_KK), device=view.device))
        self.mean_KK = (mean_KK.clamp_min(LEAST) / mean_KK.clamp_min(LEAST).sum(1, keepdim=True)).float()

    def state(self) -> dict[str, Tensor]:
        return {"mean": self.mean_KK}

    def load_state(self, state: State) -> None:
        self.mean_KK = state["mean"]

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        if len(c_NK) == 0 or self.config.epsilon == 0:
            return c_NK.clone()
        wide_NK = c_NK.double()
        wide_NK = wide_NK / wide_NK.sum(1, keepdim=True)
        y_N = label_of(c_NK)
        if self.draws:
            y_N = drawn_label(wide_NK / self.config.temperature, rng.uniform(1, "label").to(c_NK.device))
        q_NK = self.mean_KK[y_N].double()
        entropy_N = torch.special.entr(wide_NK).sum(1)
        z_NK = nearest_in_kl(wide_NK, q_NK, self.config.epsilon * entropy_N).to(c_NK)
        return z_NK if self.draws else keep_label(z_NK, c_NK)


def label_means(c_NK: Tensor, y_N: Tensor) -> Tensor:
    """Mean vector of the rows with each label, (K, K), float64; an empty label's: see StealthyShield."""
    n_classes = c_NK.shape[1]
    one_hot_NK = F.one_hot(y_N, n_classes).double()
    wide_NK = c_NK.double()
    count_K = one_hot_NK.sum(0)
    mean_KK = one_hot_NK.mT @ wide_NK / count_K.clamp_min(1)[:, None]
    own = wide_NK.gather(1, y_N[:, None]).mean()
    other = (1 - own) / max(n_classes - 1, 1)
    absent_KK = torch.full_like(mean_KK, float(other)).fill_diagonal_(float(own))
    return torch.where((count_K > 0)[:, None], mean_KK, absent_KK)


def drawn_label(score_NK: Tensor, u_N1: Tensor) -> Tensor:
    """Labels (N,) with probabilities ``softmax(score)``: the u-quantile, u uniform in (0, 1)."""
    total_NK = torch.softmax(score_NK, 1).cumsum(1)
    return (u_N1 > total_NK).sum(1).clamp_max(score_NK.shape[1] - 1)


def nearest_in_kl(c_NK: Tensor, q_NK: Tensor, bound_N: Tensor) -> Tensor:
    """``argmin KL(p | q)`` over p on the simplex with ``|p - c|_1 <= bound``, see the module's text.

    Args:
        c_NK, q_NK: rows on the simplex, float64; q above 0.
        bound_N: at least 0.
    """
    half_N1 = bound_N[:, None] / 2
    order_NK = (c_NK / q_NK).sort(dim=1, stable=True).indices
    c_sorted, q_sorted = c_NK.gather(1, order_NK), q_NK.gather(1, order_NK)
    lifted_NK = (c_sorted.cumsum(1) + half_N1) / q_sorted.cumsum(1)
    c_rest, q_rest = (v.flip(1).cumsum(1) for v in (c_sorted, q_sorted))
    a_N1 = lifted_NK.amin(1, keepdim=True)
    b_N1 = ((c_rest - half_N1) / q_rest).amax(1, keepdim=True)
    p_NK = torch.minimum(torch.maximum(c_NK, a_N1 * q_NK), b_N1 * q_NK)
    near_N1 = (c_NK - q_NK).abs().sum(1, keepdim=True) <= bound_N[:, None]
    return torch.where(near_N1, q_NK, p_NK)
