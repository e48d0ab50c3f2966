"""Views: transformations that an attacker applies to released vectors before training and inversion.

Each view is a function of vectors (N, K), strength and generator; ``VIEWS`` is the registry.

Shape suffixes: N samples, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mipoison.defenses.rounding import apportion
from mipoison.protocols import ThreatModel
from mipoison.simplex import keep_label, label_of, project_simplex, project_tangent


def identity(c_NK: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """The released vectors, unchanged."""
    return c_NK


def noise(c_NK: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Add Gaussian noise that sums to zero, scaled to l2 length ``strength``, and project onto the simplex.

    This is the paper's noise attacker.
    """
    d_NK = project_tangent(torch.randn(c_NK.shape, generator=rng, dtype=torch.float64)).to(c_NK.device)
    d_NK = strength * d_NK / d_NK.norm(dim=1, keepdim=True).clamp_min(1e-300)
    return project_simplex(c_NK.double() + d_NK).to(c_NK)


def softmax(c_NK: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """A second softmax, ``softmax(strength * c)`` (the paper's softmax attacker has strength 1)."""
    return torch.softmax(strength * c_NK, 1)


def rounding(c_NK: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Round to ``strength`` decimals, which removes smaller perturbations."""
    return apportion(c_NK, 10 ** int(strength)).to(c_NK)


def label_only(c_NK: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """One-hot vectors of the labels, which contain nothing that a label-preserving defense can change."""
    return F.one_hot(label_of(c_NK), c_NK.shape[1]).to(c_NK)


def top_k(c_NK: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Keep the ``strength`` largest scores and replace the others by their mean; label and sum are kept.

    Among equal scores the first counts as the larger one, as for the label.
    """
    k = max(1, int(strength))
    if k >= c_NK.shape[1]:
        return c_NK.clone()
    order_NK = c_NK.sort(dim=1, descending=True, stable=True).indices
    keep_NK = torch.zeros_like(c_NK, dtype=torch.bool).scatter(1, order_NK[:, :k], True)
    share_N1 = c_NK.double().masked_fill(keep_NK, 0.0).sum(1, keepdim=True) / (c_NK.shape[1] - k)
    # The mean is at most the largest of its terms, but after rounding it may equal the label's score.
    return keep_label(torch.where(keep_NK, c_NK, share_N1.to(c_NK)), c_NK)


VIEWS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "identity": identity,
    "noise": noise,
    "softmax": softmax,
    "rounding": rounding,
    "label-only": label_only,
    "top-k": top_k,
}

LOSSY = ("rounding", "label-only", "top-k")
"""Views that show the same vectors for different answers, without randomness."""


def adapted_strength(view: str, known: ThreatModel) -> float:
    """The strength of a view if the attacker's configuration does not set it.

    With a public budget b, the noise has length b, and rounding uses the most decimals whose unit is at least
    2 b. Without one, the noise has length 0.01 and rounding uses two decimals. The softmax always has
    strength 1, and top-k keeps three scores.
    """
    budget = known.settings.get("budget")
    if view == "rounding":
        return 2.0 if not budget else float(min(6, max(0, math.floor(-math.log10(2 * budget)))))
    if view == "noise":
        return 0.01 if not budget else float(budget)
    return 3.0 if view == "top-k" else 1.0
