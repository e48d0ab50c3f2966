"""Estimated limit: the error that seems possible, from the released vectors alone, without any attacker.

The least mean squared error of any function of a vector is the residual variance of the images given the
vector. Devroye, Gyorfi, Lugosi and Walk, "A nearest neighbor estimate of the residual variance" (Electronic
Journal of Statistics 12, 2018) estimate it by

    L = mean |x_i|^2 - mean <x_i, x_nn(i)>,

per pixel, where nn(i) is the nearest other released vector. It is an estimate and no guarantee: neighbours
that are far apart make it too large. So it is taken in several spaces, and the least counts.

Shape suffixes: N vectors, K classes, F features, D pixels, U distinct vectors, S spaces, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipoison.metrics.statistics import Interval
from mipoison.metrics.utility import checked_vectors
from mipoison.simplex import label_of

if TYPE_CHECKING:
    from scipy.sparse import csr_array

LOG_FLOOR = float(np.exp(-50))
"""Least score inside a logarithm: decoders clamp scores there, too."""
CHUNK = 128
"""Images that are compared with their neighbours' mean at once: few enough for a processor's cache."""
NEAREST = 4
"""Nearest vectors that are sought first; where all are tied, the others are sought by their distance."""
TIED = 1e-9
"""Relative difference up to which two distances are one: on a grid many are, but for rounding."""


def label_and_odds(c_NK: Tensor) -> Tensor:
    """The log-odds of the top score, and the label, which weighs more than any difference of log-odds: a
    neighbour has the same label unless no other vector has it. Features (N, 1 + K)."""
    top_N, label_N = c_NK.max(dim=1).values, label_of(c_NK)
    rest_N = c_NK.scatter(1, label_N[:, None], 0.0).sum(dim=1)  # 1 - top would lose all small scores
    odds_N = top_N.clamp_min(LOG_FLOOR).log() - rest_N.clamp_min(LOG_FLOOR).log()
    apart = 1.0 + float(odds_N.max() - odds_N.min())
    return torch.cat([odds_N[:, None], apart * torch.eye(c_NK.shape[1], dtype=c_NK.dtype)[label_N]], dim=1)


def raw_scores(c_NK: Tensor) -> Tensor:
    """The scores themselves (N, K)."""
    return c_NK


def log_scores(c_NK: Tensor) -> Tensor:
    """Their logarithms (N, K), in which the tail of a vector counts as much as its head."""
    return c_NK.clamp_min(LOG_FLOOR).log()


SPACES: dict[str, Callable[[Tensor], Tensor]] = {
    "label and odds": label_and_odds,
    "raw": raw_scores,
    "log": log_scores,
}
"""Where neighbours are sought: name -> features of released vectors."""


def estimated_limit(
    c_NK: Tensor, x_NCHW: Tensor, *, rng: np.random.Generator, level: float = 0.95, resamples: int = 400
) -> Interval:
    """The least of the spaces' estimates, with a percentile bootstrap interval.

    Equal vectors are equally near, and so may be others: the mean of all nearest images stands for x_nn(i).
    Of a finite codebook the estimate is therefore the unbiased variance within the cells of equal vectors,
    ``n / (n - 1)`` times that of a cell of n images. An estimate below zero, which no variance is, is 0.

    The interval resamples the images' contributions, with the neighbours that they have among all vectors (in
    a resample, an image's nearest neighbour would be its own copy), and takes the least space anew each time.

    Args:
        c_NK: released vectors, at least two.
        x_NCHW: the images behind them, in the same order.
        rng: draws the resamples; the only source of randomness.
        level: coverage in (0, 1).
        resamples: number of bootstrap means.

    Raises:
        ValueError: fewer than two vectors, rows off the simplex, or another number of images.
    """
    c_NK = checked_vectors("released", c_NK)
    if len(c_NK) < 2 or len(c_NK) != len(x_NCHW):
        raise ValueError(
            f"the estimated limit needs at least two vectors and an image for each of them, got {len(c_NK)} "
            f"vectors and {len(x_NCHW)} images"
        )
    x_ND = x_NCHW.detach().cpu().double().flatten(1)
    part_SN = np.stack([contributions(space(c_NK), x_ND) for space in SPACES.values()])
    counts_RN = rng.multinomial(len(c_NK), np.full(len(c_NK), 1 / len(c_NK)), size=resamples)
    means_R = (counts_RN @ part_SN.T / len(c_NK)).min(axis=1)
    low, high = np.quantile(means_R, [(1 - level) / 2, (1 + level) / 2]).clip(0)
    return Interval(max(0.0, float(part_SN.mean(axis=1).min())), float(low), float(high), len(c_NK))


def contributions(z_NF: Tensor, x_ND: Tensor) -> NDArray[np.float64]:
    """What each image adds to L, per pixel (N,): ``|x_i|^2 - <x_i, x_nn(i)>``, nn(i) in the space of z.

    The mean image is subtracted first. That changes no variance, and takes away the noise that a common
    ``|mean|^2`` makes when some vectors are the neighbour of many and others of none.
    """
    x_ND = x_ND - x_ND.mean(0)
    cell_z_UF, cell_N, size_U = torch.unique(z_NF, dim=0, return_inverse=True, return_counts=True)
    sum_UD = torch.zeros(len(size_U), x_ND.shape[1], dtype=x_ND.dtype).index_add_(0, cell_N, x_ND)
    part_N = torch.empty(len(x_ND), dtype=x_ND.dtype)
    for shared_B in (size_U[cell_N] > 1).nonzero()[:, 0].split(CHUNK):
        x_BD, cell_B = x_ND[shared_B], cell_N[shared_B]
        others_BD = (sum_UD[cell_B] - x_BD) / (size_U[cell_B, None] - 1)
        part_N[shared_B] = (x_BD * (x_BD - others_BD)).mean(dim=1)
    alone_M = (size_U[cell_N] == 1).nonzero()[:, 0]
    if len(alone_M):
        nearest_MU = _nearest_others(cell_z_UF.numpy(), cell_N[alone_M].numpy())
        count_M = torch.from_numpy(nearest_MU @ size_U.double().numpy())
        for at_B in torch.arange(len(alone_M)).split(CHUNK):
            x_BD, chosen_BU = x_ND[alone_M[at_B]], nearest_MU[at_B.numpy()]
            near_BD = torch.from_numpy(chosen_BU @ sum_UD.numpy()) / count_M[at_B, None]
            part_N[alone_M[at_B]] = (x_BD * (x_BD - near_BD)).mean(dim=1)
    return part_N.numpy()


def _nearest_others(z_UF: NDArray[np.float64], own_M: NDArray[np.int64]) -> csr_array:
    """The nearest other cells of the cells own_M, ties included: ones in a sparse matrix (M, U).

    A k-d tree takes differences of features, so that its distances keep their digits where vectors are a
    billionth apart; those by a matrix product of squares would not. With 60 features it takes as long as
    computing all distances, with 10 a fraction.
    """
    from scipy.sparse import csr_array
    from scipy.spatial import KDTree

    tree, z_MF = KDTree(z_UF), z_UF[own_M]
    few = min(NEAREST, len(z_UF))
    distance_MP, cell_MP = tree.query(z_MF, k=few)
    # The cell itself is the nearest, at distance 0, so that the second distance is that of the nearest other.
    limit_M = distance_MP[:, 1] * (1 + TIED)
    near_MP = (distance_MP <= limit_M[:, None]) & (cell_MP != own_M[:, None])
    crowded_M = (distance_MP[:, -1] <= limit_M) & (few < len(z_UF))  # more may be tied than were asked for
    near_MP[crowded_M] = False
    row, place = near_MP.nonzero()
    rows, cells = [row], [cell_MP[row, place]]
    many = crowded_M.nonzero()[0]
    for m, found in zip(many, tree.query_ball_point(z_MF[many], limit_M[many]), strict=True):
        others = np.setdiff1d(found, own_M[m])
        rows.append(np.full(len(others), m))
        cells.append(others)
    place = (np.concatenate(rows), np.concatenate(cells))
    return csr_array((np.ones(len(place[0])), place), shape=(len(own_M), len(z_UF)))


LIMIT_NAMES = ("estimated_limit", "estimated_limit_low", "estimated_limit_high")
ESTIMATED_LIMIT_COLUMNS = tuple(f"{name}{end}" for end in ("", "_test") for name in LIMIT_NAMES)
"""Columns of private train and (``_test``) private test images."""


def limit_columns(
    c_NK: Tensor, x_NCHW: Tensor, *, rng: np.random.Generator, suffix: str = ""
) -> dict[str, float | None]:
    """Columns of a record; None where there are fewer than two images."""
    names = [f"{name}{suffix}" for name in LIMIT_NAMES]
    if len(c_NK) < 2:
        return dict.fromkeys(names)
    found = estimated_limit(c_NK, x_NCHW, rng=rng)
    return dict(zip(names, (found.mean, found.low, found.high), strict=True))
