"""Views: what an attacker does to released vectors before anything else learns from them.

Each view is a function of (vectors, strength, generator); ``VIEWS`` is the one table.
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
    """The released vectors as they are."""
    return c_NK


def noise(c_NK: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Gaussian tangent noise of l2 length ``strength``, back on the simplex (the paper's noise attacker)."""
    d_NK = project_tangent(torch.randn(c_NK.shape, generator=rng, dtype=torch.float64)).to(c_NK.device)
    d_NK = strength * d_NK / d_NK.norm(dim=1, keepdim=True).clamp_min(1e-300)
    return project_simplex(c_NK.double() + d_NK).to(c_NK)


def softmax(c_NK: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Softmax once more, ``softmax(strength * c)`` (the paper's softmax attacker, strength 1)."""
    return torch.softmax(strength * c_NK, 1)


def rounding(c_NK: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Rounded to ``strength`` decimals, so that a perturbation smaller than a unit disappears."""
    return apportion(c_NK, 10 ** int(strength)).to(c_NK)


def label_only(c_NK: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """One-hot of the label: throws away everything that an argmax-preserving defense could have perturbed."""
    return F.one_hot(label_of(c_NK), c_NK.shape[1]).to(c_NK)


def top_k(c_NK: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """The ``strength`` largest scores; the others share what remains equally. Label and sum are kept.

    Of equal scores the first counts as larger, as for the label.
    """
    k = max(1, int(strength))
    if k >= c_NK.shape[1]:
        return c_NK.clone()
    order_NK = c_NK.sort(dim=1, descending=True, stable=True).indices
    keep_NK = torch.zeros_like(c_NK, dtype=torch.bool).scatter(1, order_NK[:, :k], True)
    share_N1 = c_NK.double().masked_fill(keep_NK, 0.0).sum(1, keepdim=True) / (c_NK.shape[1] - k)
    # A mean is at most the largest of its terms, but rounded it may tie with the label.
    return keep_label(torch.where(keep_NK, c_NK, share_N1.to(c_NK)), c_NK)


VIEWS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "identity": identity,
    "noise": noise,
    "softmax": softmax,
    "rounding": rounding,
    "label-only": label_only,
    "top-k": top_k,
}


def adapted_strength(view: str, known: ThreatModel) -> float:
    """A view's strength against a known defense: noise of its budget, rounding just coarser than twice that.

    Without a public budget: noise 0.01, two decimals. Always: softmax at temperature 1, the three top scores.
    """
    budget = known.settings.get("budget")
    if view == "rounding":
        return 2.0 if not budget else float(min(6, max(0, math.floor(-math.log10(2 * budget)))))
    if view == "noise":
        return 0.01 if not budget else float(budget)
    return 3.0 if view == "top-k" else 1.0
