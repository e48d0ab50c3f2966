"""Codebook: a few released vectors per label, chosen so that the choice says little of the image.

A release that takes finitely many values has an exact certificate: nobody reconstructs the private images
better than by the mean image of each cell (images with one released row). What a cell gives away beyond the
label is how far its mean image lies from the label's. The defender sees the images too, so that the choice
among codewords can weigh that:

    release argmin over codewords z of the label:  |c - z| + offset_z + tilt_z . (x - mean image of the label)

The tilt adds to the cost of a cell for images like its mean. Its best values solve a convex
problem. Let m_z be the cells' mean deviations and F the variance within labels. The mean distortion plus
``rate`` times the explained variance, sum_z p_z |m_z|^2 / F, has for any vectors w_z the lower bound

    mean over images of min over z of  |c - z| + rate / F (2 w_z . (x - mean) - |w_z|^2),

with equality at its maximum over w, where w_z = m_z: no choice among these codewords, randomised or not, does
better on the images that it was computed on (Fenchel duality; |s|^2 / n is the perspective of a square).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mipoison.certificates.observation import Observation
from mipoison.config import Config, Knob, Plain
from mipoison.defenses.base import BaseDefense
from mipoison.defenses.codebook_fit import Cells, codewords, fitted_cells, leading_directions, refitted
from mipoison.defenses.rounding import apportion
from mipoison.defenses.state import State
from mipoison.models.inversion import SubstituteConfig
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness
from mipoison.simplex import keep_label, label_of

REFITS = 2
"""Times that codewords become the medians of those who chose them, and are weighed again."""
MOST_IMAGES = 4000
"""Images of each side that it is fitted on, at most: evenly spaced ones of more."""


@dataclass(frozen=True, kw_only=True)
class CodebookConfig(Config):
    """Few codewords per label, fitted so that the choice among them says little of the image; certified.

    Of each label: its median vector, the medians of three ranges of its score, the points of a coarse grid.

    Attributes:
        weight: what a unit of certified excess costs, in distortions of label-only, 0 to 10,000. 0 releases
            the nearest codeword; at 50, one percent of excess weighs half of label-only's distortion.
        steps: steps of the grid, 2 to 1,000; 0 releases fitted medians alone.
        crowding: what a cell's sampling noise costs, in units of what it explains by chance, 0 to 100. It
            raises the cost of small cells, since a cell of one image is read in full.
        directions: principal components of the images that are weighed, 1 to 1,000.
        fitted_on: ``private`` and ``public`` images, or ``both``. Public ones are less certain than private
            training images, as new ones are. ``private`` where public images show other classes.
    """

    SOURCE: ClassVar[str] = "ours; duals as in Blahut 1972"

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "weight": Knob(low=1.0, high=200.0, log=True, help="price of certified excess"),
        "steps": Knob(low=2, high=20, log=True, integer=True, help="steps of the grid beside the medians"),
        "crowding": Knob(low=0.1, high=10.0, log=True, help="price of small cells"),
    }

    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({}, {"weight": 50.0}, {"weight": 200.0})

    weight: float = 20.0
    steps: int = 5
    crowding: float = 1.0
    directions: int = 20
    fitted_on: Literal["private", "public", "both"] = "both"

    def validate(self) -> None:
        self.require("weight", 0 <= self.weight <= 10_000, "between 0 and 10,000")
        self.require(
            "steps", self.steps == 0 or 2 <= self.steps <= 1000, "0 (no grid) or between 2 and 1,000"
        )
        self.require("crowding", 0 <= self.crowding <= 100, "between 0 and 100")
        self.require("directions", 1 <= self.directions <= 1000, "between 1 and 1,000")

    def make(self) -> Codebook:
        return Codebook(self)


class Codebook(BaseDefense):
    """Releases one of its label's codewords, or a grid point; the label keeps the strict maximum.

    State: codewords, grid points that images were put on when it was fitted, and for each of both the tilt
    (on ``axes``, principal components of the images) and the offset. No vector and no image of the private
    ones, but what they have in common: keep a saved unit like the classifier.
    """

    reads_image = True

    own_LJK: Tensor
    own_tilt_LJR: Tensor
    own_offset_LJ: Tensor
    grid_GK: Tensor
    grid_tilt_GR: Tensor
    grid_offset_G: Tensor
    unseen_offset: Tensor
    axes_DR: Tensor
    centre_LR: Tensor

    def __init__(self, config: CodebookConfig) -> None:
        self.config = config

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Codewords from the vectors, axes from the images, then the tilt and the offset of every cell; a
        stored fit of the same settings is loaded."""

        def make() -> dict[str, Tensor]:
            self._learn(view)
            return {name: value.contiguous() for name, value in self.state().items()}  # as when loaded

        state = view.trained("codebook", self.config.flat(), make)
        self.load_state({name: value.to(view.device) for name, value in state.items()})

    def _learn(self, view: DefenderView) -> None:
        cfg = self.config
        c_NK, x_ND = self._data(view)
        label_N = label_of(c_NK)
        sums_LD = x_ND.new_zeros(view.n_classes, x_ND.shape[1]).index_add_(0, label_N, x_ND)
        count_L = torch.bincount(label_N, minlength=view.n_classes)
        mean_LD = sums_LD / count_L.clamp_min(1)[:, None]
        away_ND = x_ND - mean_LD[label_N]
        variance = float(away_ND.square().sum(1).mean())
        self.axes_DR = leading_directions(away_ND, cfg.directions)
        self.centre_LR = mean_LD @ self.axes_DR
        one_hot_NK = F.one_hot(label_N, view.n_classes)
        rate = cfg.weight * float((c_NK - one_hot_NK).norm(dim=1).mean())
        places_GK, grid_N = self._places(c_NK, label_N)
        deviation_NR = x_ND @ self.axes_DR - self.centre_LR[label_N]
        self.own_LJK = codewords(c_NK, label_N)
        for again in range(REFITS, -1, -1):
            distance_NU = self._distances(c_NK, label_N, places_GK, grid_N)
            cells = fitted_cells(
                self._cell_indices(label_N, grid_N), distance_NU, deviation_NR,
                self.own_LJK[:, :, 0].numel() + len(places_GK),
                rate=rate, variance=variance, crowding=cfg.crowding,
            )  # fmt: skip
            if again:
                self.own_LJK = refitted(self.own_LJK, c_NK, cells.chosen_N)
        self._keep(cells, places_GK)
        self.unseen_offset = torch.tensor(rate * cfg.crowding, dtype=torch.float64, device=c_NK.device)

    def _data(self, view: DefenderView) -> tuple[Tensor, Tensor]:
        sides = []
        if self.config.fitted_on != "public":
            sides.append((view.c_private_NK, view.x_private_NCHW))
        if self.config.fitted_on != "private":
            sides.append(view.substitute_data(SubstituteConfig(data="all")))
        even = [torch.linspace(0, len(c) - 1, min(len(c), MOST_IMAGES)).round().long() for c, _ in sides]
        c_NK = torch.cat([c[i].to(view.device) for (c, _), i in zip(sides, even, strict=True)])
        x_ND = torch.cat([x[i].flatten(1).to(view.device) for (_, x), i in zip(sides, even, strict=True)])
        return c_NK.double(), x_ND.double()

    def _places(self, c_NK: Tensor, label_N: Tensor) -> tuple[Tensor, Tensor]:
        """Distinct (label, grid point) of these vectors, and which is whose; where that is the label, -1."""
        if self.config.steps == 0:
            return c_NK.new_zeros(0, c_NK.shape[1] + 1), torch.full_like(label_N, -1)
        place_NK = labelled(whole_steps(c_NK, self.config.steps), label_N)
        inside_N = ~is_one_hot(place_NK, self.config.steps)
        places_GK, which_M = torch.unique(place_NK[inside_N], dim=0, return_inverse=True)
        grid_N = torch.full_like(label_N, -1)
        grid_N[inside_N] = which_M
        return places_GK, grid_N

    def _cell_indices(self, label_N: Tensor, grid_N: Tensor) -> Tensor:
        """Cells that each image may go to (N, J + 1): its label's codewords, then its grid point."""
        n_labels, n_own = self.own_LJK.shape[:2]
        own_NJ = label_N[:, None] * n_own + torch.arange(n_own, device=label_N.device)
        return torch.cat([own_NJ, (n_labels * n_own + grid_N.clamp_min(0))[:, None]], 1)

    def _distances(self, c_NK: Tensor, label_N: Tensor, places_GK: Tensor, grid_N: Tensor) -> Tensor:
        """|c - z| of every candidate (N, J + 1); infinite where there is none."""
        own_NJ = (c_NK[:, None] - self.own_LJK[label_N]).norm(dim=2)
        own_NJ[:, 1:].masked_fill_((self.own_LJK[:, 1:] == self.own_LJK[:, :1]).all(2)[label_N], torch.inf)
        far_N = torch.full_like(own_NJ[:, 0], torch.inf)
        there_N = grid_N >= 0
        point_MK = places_GK[grid_N[there_N], 1:] / max(self.config.steps, 1)
        far_N[there_N] = (c_NK[there_N] - point_MK).norm(dim=1)
        return torch.cat([own_NJ, far_N[:, None]], 1)

    def _keep(self, cells: Cells, places_GK: Tensor) -> None:
        n_labels, n_own = self.own_LJK.shape[:2]
        split = n_labels * n_own
        self.own_tilt_LJR = cells.tilt_MR[:split].reshape(n_labels, n_own, -1)
        repeated_LJ = (self.own_LJK == self.own_LJK[:, :1]).all(2)
        repeated_LJ[:, 0] = False
        self.own_offset_LJ = (
            cells.offset_M[:split].reshape(n_labels, n_own).masked_fill(repeated_LJ, torch.inf)
        )
        used_G = cells.size_M[split:] > 0
        self.grid_GK = places_GK[used_G]
        self.grid_tilt_GR = cells.tilt_MR[split:][used_G]
        self.grid_offset_G = cells.offset_M[split:][used_G]

    def state(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in Codebook.__annotations__}

    def load_state(self, state: State) -> None:
        for name in Codebook.__annotations__:
            setattr(self, name, state[name])
        if not self.own_LJK.shape[:2] == self.own_offset_LJ.shape == self.own_tilt_LJR.shape[:2]:
            raise ValueError("codewords, offsets and tilts are not of one codebook")

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        if len(c_NK) == 0:
            return c_NK.clone()
        wide_NK, label_N = c_NK.double(), label_of(c_NK)
        deviation_NR = x_NCHW.flatten(1).double() @ self.axes_DR - self.centre_LR[label_N]
        own_NJK = self.own_LJK[label_N]
        cost_NJ = (wide_NK[:, None] - own_NJK).norm(dim=2) + self.own_offset_LJ[label_N]
        cost_NJ = cost_NJ + (self.own_tilt_LJR[label_N] * deviation_NR[:, None]).sum(2)
        z_NK = own_NJK[torch.arange(len(c_NK), device=c_NK.device), cost_NJ.argmin(1)]
        if self.config.steps > 0:
            whole_NK = whole_steps(wide_NK, self.config.steps)
            point_NK = whole_NK / self.config.steps
            offset_N = self._grid_cost(labelled(whole_NK, label_N), deviation_NR)
            cost_N = (wide_NK - point_NK).norm(dim=1) + offset_N
            z_NK = torch.where((cost_N < cost_NJ.amin(1))[:, None], point_NK, z_NK)
        z_NK = z_NK.to(c_NK)
        return keep_label(z_NK, F.one_hot(label_N, c_NK.shape[1]).to(z_NK))

    def _grid_cost(self, place_NK: Tensor, deviation_NR: Tensor) -> Tensor:
        """Offset and tilt of grid points; infinite for the label alone, which the median stands for."""
        offset_N = self.unseen_offset.expand(len(place_NK)).clone()
        if len(self.grid_GK) > 0:
            same_NG = (place_NK[:, None] == self.grid_GK[None]).all(2)
            which_N = same_NG.to(torch.uint8).argmax(1)
            known_N = self.grid_offset_G[which_N] + (self.grid_tilt_GR[which_N] * deviation_NR).sum(1)
            offset_N = torch.where(same_NG.any(1), known_N, offset_N)
        return torch.where(is_one_hot(place_NK, self.config.steps), torch.inf, offset_N)

    def observation(self, c_NK: Tensor, released_NK: Tensor) -> Observation:
        """The released rows: codewords and grid points, a function of vector and image without a key."""
        return Observation(released_NK)


def whole_steps(c_NK: Tensor, steps: int) -> Tensor:
    """The nearest grid point's whole numbers of steps, float64."""
    return (apportion(c_NK, steps) * steps).round()


def labelled(whole_NK: Tensor, label_N: Tensor) -> Tensor:
    """Grid points with their label in front: (N, K + 1). Where scores tie, two labels share a point."""
    return torch.cat([label_N[:, None].to(whole_NK), whole_NK], 1)


def is_one_hot(place_NK: Tensor, steps: int) -> Tensor:
    """Whether a grid point is a label's one-hot vector."""
    return (place_NK[:, 1:] == steps).any(1)
