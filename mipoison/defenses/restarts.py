"""LPA's search with restarts: the best of several starts, then steps that keep the best vector so far.

The objective of Eq. 7 has many local optima in a vector's scores, and with log features it is flat where a
score is exactly zero. One descent from one random start therefore ends close to where it began. Here the fit
learns, on public images, a few starts that are good for many images; a query tries all of them and climbs
from the best. Every vector that is tried lies within the budget, on the simplex, and keeps the label.

Shape suffixes: N samples, M starts, K classes, CHW image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mipoison.alignment import Engine
from mipoison.defenses.descent import unit_rows
from mipoison.defenses.noise import random_direction
from mipoison.randomness import QueryRandomness
from mipoison.simplex import label_of, project_release, project_tangent

COUNT = 24
"""Starts that a query tries, besides the random one of Algorithm 1."""
DRAWN = 160
"""Random starts from which the fit chooses, besides the optima that it finds itself."""
IMAGES = 96
"""Public images, at most, on which the fit compares starts."""
FIT_ROUNDS = 6
"""Rounds that the fit climbs on each of them."""
JITTER = 0.25
"""Standard deviation of the natural logarithm of the factor by which a start is varied for each query."""
GAIN = 1e-6
"""Least relative improvement of the objective that counts. Without it, rounding would decide which of two
equal vectors is kept, and a query would be answered otherwise alone than among others."""
GROW, SHRINK, LONGEST = 1.5, 0.4, 3.0
"""Factors of a row's step after a success and a failure; the longest step in log space, in decades."""


@dataclass(frozen=True)
class Starts:
    """Starts of the search, as maps of a clean vector: all scores but the label's become ``keep c + add``.

    The label's score takes the rest, and the result is projected. A score is kept (keep 1, add 0), moved (1,
    any), replaced (0, positive) or zero (0, 0).

    Attributes:
        keep_MK, add_MK: float64.
    """

    keep_MK: Tensor
    add_MK: Tensor

    def __len__(self) -> int:
        return len(self.keep_MK)

    def __getitem__(self, rows: Tensor) -> Starts:
        return Starts(self.keep_MK[rows], self.add_MK[rows])

    def joined(self, other: Starts) -> Starts:
        """These starts and then the others."""
        return Starts(torch.cat([self.keep_MK, other.keep_MK]), torch.cat([self.add_MK, other.add_MK]))

    def vectors(
        self,
        m: int | Tensor,
        c_NK: Tensor,
        budget: float,
        *,
        keep_label: bool,
        factor_NK: Tensor | None = None,
    ) -> Tensor:
        """The starts (N, K) of clean vectors.

        Args:
            m: which start; one for all, or one per row (N,).
            factor_NK: varies the scores except the label's.
        """
        moved_NK = self.keep_MK[m] * c_NK.double() + self.add_MK[m]
        moved_NK = moved_NK if factor_NK is None else moved_NK * factor_NK
        label_N1 = label_of(c_NK)[:, None]
        rest_NK = moved_NK.scatter(1, label_N1, 0.0)
        own_N1 = 1 - rest_NK.clamp_min(0).sum(1, keepdim=True)
        return project_release(rest_NK.scatter(1, label_N1, own_N1), c_NK, budget, keep_label=keep_label)


def draw_starts(n: int, n_classes: int, budget: float, rng: torch.Generator) -> Starts:
    """Random starts: a third moves along the simplex, by the budget's length; in the others each score is
    drawn apart.

    Of those scores a quarter is kept, a quarter is zero, and half is log-uniform in the six decades below the
    budget. A start of the first kind often ends with exact zeros, which no step in log space reaches.
    """
    shape = (n, n_classes)
    kind, height, noise = (torch.rand(shape, generator=rng, dtype=torch.float64) for _ in range(3))
    keep = (kind < 0.25).double()
    add = torch.where(kind < 0.5, 0.0, budget * 10 ** (-6 * height))
    along = project_tangent(torch.erfinv(2 * noise.clamp(1e-9, 1 - 1e-9) - 1))
    third = slice(0, n // 3)
    keep[third] = 1.0
    add[third] = budget * unit_rows(along[third])
    return Starts(keep, add)


def learn_starts(
    engine: Engine,
    c_NK: Tensor,
    x_NCHW: Tensor,
    budget: float,
    *,
    keep_label: bool,
    step: float,
    rng: torch.Generator,
) -> Starts:
    """Choose the starts that together are best for public images.

    Random starts are tried on each image; the best vector of each, improved by a few rounds, becomes a start
    as well. Of all these, COUNT are taken one by one, each the one that most lowers the mean over the images
    of the best objective.

    Args:
        engine: of sample scope. c_NK, x_NCHW: clean vectors and public images; the first IMAGES are used.
        step: see :func:`climb`.
    """
    c_NK, x_NCHW = c_NK[:IMAGES], x_NCHW[:IMAGES]
    drawn = draw_starts(DRAWN, c_NK.shape[1], budget, rng)
    drawn = Starts(drawn.keep_MK.to(c_NK.device), drawn.add_MK.to(c_NK.device))
    if len(c_NK) == 0:
        return drawn[torch.arange(COUNT, device=c_NK.device)]

    def judged(starts: Starts) -> Tensor:
        tried = (starts.vectors(m, c_NK, budget, keep_label=keep_label) for m in range(len(starts)))
        return torch.stack([engine.values(z_NK, x_NCHW) for z_NK in tried], 1)

    value_NM = judged(drawn)
    best_NK = drawn.vectors(value_NM.argmin(1), c_NK, budget, keep_label=keep_label)
    best_NK = climb(
        engine, c_NK, x_NCHW, best_NK, budget, rounds=FIT_ROUNDS, step=step, keep_label=keep_label
    ).double()
    # For images of other labels, the score of this image's label is kept.
    label_N1 = label_of(c_NK)[:, None]
    found = Starts(torch.zeros_like(best_NK).scatter(1, label_N1, 1.0), best_NK.scatter(1, label_N1, 0.0))
    return drawn.joined(found)[complementary(torch.cat([value_NM, judged(found)], 1), COUNT)]


def complementary(value_NM: Tensor, count: int) -> Tensor:
    """Indices (count,) of the columns whose row-wise minimum is small in the mean, chosen greedily."""
    value_NM = torch.nan_to_num(value_NM.double(), nan=torch.inf, posinf=1e300)
    least_N1, chosen = torch.full_like(value_NM[:, :1], 1e300), list[Tensor]()
    for _ in range(count):
        chosen.append(torch.minimum(value_NM, least_N1).mean(0).argmin())
        least_N1 = torch.minimum(least_N1, value_NM[:, chosen[-1], None])
    return torch.stack(chosen)


def climb(
    engine: Engine,
    c_NK: Tensor,
    x_NCHW: Tensor,
    z_NK: Tensor,
    budget: float,
    *,
    rounds: int,
    step: float,
    keep_label: bool,
) -> Tensor:
    """Steps down the objective from a start; each row keeps its best vector and has a step of its own.

    A step that improves a row is accepted and the next one is longer; otherwise the next one starts at the
    best vector again and is shorter. With log features a step multiplies the scores, since the objective
    changes with their logarithms; zeros stay zero. With raw features it is a step along the simplex.

    Args:
        engine: whose objective is lowered. c_NK: clean vectors. z_NK: the starts, released vectors.
        rounds: gradients that are computed, at least 0.
        step: length of the first step: in decades of the scores (log features) or relative to the budget.

    Returns:
        Released vectors (N, K), of which no row is worse than its start.
    """
    multiply = engine.decoder.kind == "log"
    best_NK, best_N = z_NK, torch.full_like(c_NK[:, 0], torch.inf)
    step_N1 = torch.full_like(c_NK[:, :1], step, dtype=torch.float64)
    way_NK = torch.zeros_like(c_NK, dtype=torch.float64)
    for i in range(rounds + 1):
        if i == rounds:
            value_N = engine.values(z_NK, x_NCHW) if rounds else best_N
        else:
            found = engine.align(z_NK, x_NCHW)
            value_N = found.value_N
        better_N1 = (value_N < best_N - GAIN * best_N.abs().nan_to_num(posinf=0.0))[:, None]
        best_NK = torch.where(better_N1, z_NK, best_NK)
        if i == rounds:
            break
        best_N = torch.where(better_N1[:, 0], value_N, best_N)
        slope_NK = found.gradient_NK.double()
        slope_NK = slope_NK * z_NK.double() if multiply else project_tangent(slope_NK.nan_to_num())
        way_NK = torch.where(better_N1, -unit_rows(slope_NK), way_NK)
        if i > 0:
            step_N1 = (step_N1 * torch.where(better_N1, GROW, SHRINK)).clamp_max(LONGEST)
        if multiply:
            moved_NK = best_NK.double() * 10 ** (step_N1 * way_NK)
            moved_NK = moved_NK / moved_NK.sum(1, keepdim=True)
        else:
            moved_NK = best_NK.double() + budget * step_N1 * way_NK
        z_NK = project_release(moved_NK, c_NK, budget, keep_label=keep_label)
    return best_NK


def best_start(
    engine: Engine,
    starts: Starts,
    c_NK: Tensor,
    x_NCHW: Tensor,
    budget: float,
    *,
    keep_label: bool,
    rng: QueryRandomness,
) -> Tensor:
    """For each query the best of Algorithm 1's random start and the learned ones, varied by the query's keys.

    Args:
        engine: of sample scope.
    """
    random_NK = c_NK.double() + budget * random_direction(c_NK, rng, "lpa start")
    best_NK = project_release(random_NK, c_NK, budget, keep_label=keep_label)
    best_N = engine.values(best_NK, x_NCHW)
    shape = (len(c_NK), len(starts), c_NK.shape[1])
    normal_NMK = rng.normal(shape[1] * shape[2], "lpa starts").view(shape)
    factor_NMK = torch.exp(JITTER * normal_NMK).to(c_NK.device)
    for m in range(len(starts)):
        z_NK = starts.vectors(m, c_NK, budget, keep_label=keep_label, factor_NK=factor_NMK[:, m])
        value_N = engine.values(z_NK, x_NCHW)
        better_N = value_N < best_N - GAIN * best_N.abs()
        best_NK, best_N = (
            torch.where(better_N[:, None], z_NK, best_NK),
            torch.where(better_N, value_N, best_N),
        )
    return best_NK
