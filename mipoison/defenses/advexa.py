"""AdvExa: adversarial perturbation of vectors with a label modifier (after Wen, Yiu, Hui 2021, "Defending
against model inversion attack by adversarial examples"), as Zhou et al. use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mipoison.certificates.observation import CONTINUUM
from mipoison.config import Knob
from mipoison.defenses.base import AlignedConfig, SubstituteDefense
from mipoison.defenses.lpa import ALIGNMENT_KNOBS
from mipoison.defenses.pgd import loss_gradient
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness
from mipoison.simplex import label_of, project_release, project_tangent


@dataclass(frozen=True, kw_only=True)
class AdvExaConfig(AlignedConfig):
    """Signed ascent on the reconstruction loss with a label modifier.

    Attributes: see AlignedConfig. ``randomness`` has no effect, because this defense draws nothing.
    """

    SOURCE: ClassVar[str] = "Wen et al. 2021, as described"

    KNOBS: ClassVar[Mapping[str, Knob]] = ALIGNMENT_KNOBS

    def make(self) -> AdvExa:
        return AdvExa(self)


def restore_label(z_NK: Tensor, label_N: Tensor) -> Tensor:
    """The label modifier: if another score has become the largest, it is swapped with the label's score."""
    top_N1, own_N1 = z_NK.argmax(1, keepdim=True), label_N[:, None]
    largest, own = z_NK.gather(1, top_N1), z_NK.gather(1, own_N1)
    return z_NK.scatter(1, top_N1, own).scatter(1, own_N1, largest)


class AdvExa(SubstituteDefense):
    """Repeats a signed step, the label modifier and rescaling to the budget; then projects once.

    The original's code is not public. Order and length of the steps follow the paper's description. A signed
    step has the l2 length ``step * budget``. Rescaling can leave the simplex; the final projection returns to
    it.
    """

    uncertifiable = CONTINUUM

    def __init__(self, config: AdvExaConfig) -> None:
        self.config = config

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Train or load the substitute."""
        self.substitute = view.substitute(self.config.substitute())

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        cfg = self.config
        if cfg.budget == 0 or len(c_NK) == 0:
            return c_NK.clone()
        label_N, clean_NK = label_of(c_NK), c_NK.double()
        z_NK = clean_NK
        for _ in range(cfg.rounds):
            inside_NK = z_NK.clamp_min(0).to(c_NK)  # log features need scores of 0 or more
            sign_NK = project_tangent(loss_gradient(self.substitute, inside_NK, x_NCHW).double().sign())
            length_N1 = sign_NK.norm(dim=1, keepdim=True).clamp_min(1e-300)
            z_NK = restore_label(z_NK + cfg.step * cfg.budget * sign_NK / length_N1, label_N)
            d_NK = z_NK - clean_NK
            scale_N1 = cfg.budget / d_NK.norm(dim=1, keepdim=True).clamp_min(1e-300)
            z_NK = clean_NK + d_NK * scale_N1.clamp_max(1.0)
        return project_release(z_NK, c_NK, cfg.budget)
