"""How a codebook is fitted: medians, principal directions, and the dual problem of its cells."""

from __future__ import annotations

import inspect
from typing import NamedTuple

import torch
from torch import Tensor

from mipoison.linalg.principal import PrincipalComponents

RANGES = (0.6, 0.8, 0.95)
"""Upper ends of the ranges of the label's score that have a codeword of their own."""
LEAST_VECTORS = 5
"""Vectors that a codeword is a median of, at least."""
PRIOR = 5.0
"""Images at the label's mean that every cell is thought to hold: the mean of a small cell is shrunk to it."""
TEMPERATURES = (0.1, 0.03, 0.01)
"""Temperatures of the soft minimum, one after the other: with a hard one the dual is not smooth."""
ROUNDS = 3
"""Times that the sizes of the cells are counted again."""
ITERATIONS = 60
MOST_ROWS = 2000
"""Images that principal directions are computed of, at most."""


class Cells(NamedTuple):
    """Of each of M cells: tilt (on R directions), offset and images left to it; and each image's cell."""

    tilt_MR: Tensor
    offset_M: Tensor
    size_M: Tensor
    chosen_N: Tensor


def median(c_NK: Tensor) -> Tensor:
    """The geometric median (least mean l2 distance), by Weiszfeld's iteration."""
    m_K = c_NK.mean(0)
    for _ in range(60):
        weight_N = 1 / (c_NK - m_K).norm(dim=1).clamp_min(1e-6)
        m_K = (c_NK * weight_N[:, None]).sum(0) / weight_N.sum()
    return m_K


def codewords(c_NK: Tensor, label_N: Tensor) -> Tensor:
    """(L, J, K): of each label its median, then those of RANGES; too few vectors repeat the label's median.

    A label with fewer than LEAST_VECTORS has its one-hot vector. Of each codeword the label's score is the
    maximum.
    """
    n_classes = c_NK.shape[1]
    top_N = c_NK.amax(1)
    rows = []
    for label in range(n_classes):
        mine_N = label_N == label
        main_K = torch.zeros_like(c_NK[0])
        main_K[label] = 1.0
        if int(mine_N.sum()) >= LEAST_VECTORS:
            main_K = _with_label_on_top(median(c_NK[mine_N]), label)
        row, low = [main_K], 0.0
        for high in RANGES:
            inside_N = mine_N & (top_N >= low) & (top_N < high)
            enough = int(inside_N.sum()) >= LEAST_VECTORS
            row.append(_with_label_on_top(median(c_NK[inside_N]), label) if enough else main_K)
            low = high
        rows.append(torch.stack(row))
    return torch.stack(rows)


def refitted(own_LJK: Tensor, c_NK: Tensor, chosen_N: Tensor) -> Tensor:
    """Codewords as medians of the vectors that chose them, where there are LEAST_VECTORS."""
    new_LJK = own_LJK.clone()
    for label, row in enumerate(own_LJK):
        for j in range(len(row)):
            mine_N = chosen_N == label * len(row) + j
            if int(mine_N.sum()) >= LEAST_VECTORS:
                new_LJK[label, j] = _with_label_on_top(median(c_NK[mine_N]), label)
    return new_LJK


def _with_label_on_top(z_K: Tensor, label: int) -> Tensor:
    """The vector with its label's score raised to the greatest, if it is not, and its sum brought to one."""
    raised_K = z_K.clamp_min(0).clone()
    raised_K[label] = raised_K.amax()
    return raised_K / raised_K.sum()


def leading_directions(away_ND: Tensor, count: int) -> Tensor:
    """The first principal components (D, R), R = ``count`` or as many as there are."""
    rows = torch.linspace(0, len(away_ND) - 1, min(len(away_ND), MOST_ROWS)).round().long()
    parts = PrincipalComponents(away_ND[rows.to(away_ND.device)])
    real_R = parts.square_R > 1e-12 * parts.square_R[-1].clamp_min(1e-300)
    if not bool(real_R.any()):  # images that do not differ: a direction on which nothing is seen
        return away_ND.new_zeros(away_ND.shape[1], 1)
    # Chosen from all directions: fewer columns in one product round otherwise than in recorded codebooks.
    return parts.directions()[:, real_R].flip(1)[:, :count].contiguous()


def fitted_cells(
    cell_NU: Tensor, distance_NU: Tensor, deviation_NR: Tensor, n_cells: int,
    *, rate: float, variance: float, crowding: float,
) -> Cells:  # fmt: skip
    """Solve the dual problem for the cells' mean deviations, then tilt and offset follow.

    Args:
        cell_NU: the cells that each image may go to. distance_NU: their distance, infinite where it may not.
        deviation_NR: each image's deviation from its label's mean, on the R directions.
        rate: what a unit of explained variance costs. variance: F, within labels.
        crowding: times the variance that a cell explains by chance, one image's share of which is 1 / size.
    """
    allowed_NU = torch.isfinite(distance_NU)
    cell_NU = torch.where(allowed_NU, cell_NU, cell_NU[:, :1])
    multiplier = rate / max(variance, 1e-300)
    mean_MR = deviation_NR.new_zeros(n_cells, deviation_NR.shape[1])
    size_M = torch.bincount(_choice(distance_NU, cell_NU), minlength=n_cells)
    for round_ in range(ROUNDS):
        offset_M = rate * crowding / (1 + size_M)
        base_NU = distance_NU + offset_M[cell_NU]
        for temperature in TEMPERATURES if round_ == 0 else TEMPERATURES[-1:]:
            if rate > 0:
                mean_MR = _ascend(mean_MR, cell_NU, base_NU, deviation_NR, multiplier, temperature)
        chosen_N = _choice(base_NU + _linear_term(mean_MR, cell_NU, deviation_NR, multiplier), cell_NU)
        size_M = torch.bincount(chosen_N, minlength=n_cells)
    offset_M = rate * crowding / (1 + size_M) - multiplier * mean_MR.square().sum(1)
    return Cells(2 * multiplier * mean_MR, offset_M, size_M, chosen_N)


def _choice(cost_NU: Tensor, cell_NU: Tensor) -> Tensor:
    return cell_NU.gather(1, cost_NU.argmin(1, keepdim=True))[:, 0]


def _linear_term(mean_MR: Tensor, cell_NU: Tensor, deviation_NR: Tensor, multiplier: float) -> Tensor:
    """``multiplier (2 w . deviation - |w|^2)`` of each image and candidate."""
    all_NM = 2 * deviation_NR @ mean_MR.T - mean_MR.square().sum(1)
    return multiplier * all_NM.gather(1, cell_NU)


class _LBFGS(torch.optim.LBFGS):
    """Without the wrappers that keep torch's compiler away: they import it, which takes a process 2 s."""

    add_param_group = inspect.unwrap(torch.optim.LBFGS.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.LBFGS.zero_grad)


def _ascend(
    mean_MR: Tensor,
    cell_NU: Tensor,
    base_NU: Tensor,
    deviation_NR: Tensor,
    multiplier: float,
    temperature: float,
) -> Tensor:
    """Maximise the concave dual, its minimum softened, by L-BFGS."""
    w_MR = mean_MR.clone().requires_grad_(True)
    optimiser = _LBFGS([w_MR], max_iter=ITERATIONS, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        cost_NU = base_NU + _linear_term(w_MR, cell_NU, deviation_NR, multiplier)
        soft_N = -temperature * torch.logsumexp(-cost_NU / temperature, 1)
        value = (PRIOR * multiplier * w_MR.square().sum() - soft_N.sum()) / len(deviation_NR)
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    return w_MR.detach()
