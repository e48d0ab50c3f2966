"""The pool game: which image of a known pool does a released vector belong to, and what does it look like?

An index I is drawn uniformly from a pool of N images, the attacker sees the release for image I and may have
been built from anything but the key, the pool itself included. No reconstruction has a mean error below the
Bayes error ``B = E[Var(X_I | release)] / D``, and no guess is right more often than ``E[max_i P(I = i |
release)]``. One release at a time: who sees the noisy releases of all images at once may match them.

Shape suffixes: N images, D pixels, C cells, M dimensions of the noise, S draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mipoison.certificates.observation import Gaussian

CONFIDENCE = 0.99
"""Of each one-sided limit where a posterior is averaged over draws, whatever its distribution."""
RUN = 0.999
"""Share of runs in which an attacker's realised error lies within the tolerance, as of a normal mean."""
SMALL_CELL = 5
"""Images of a cell that counts as small: fewer than these."""
DRAWS = 30_000
"""Draws of the noise at most, over all images together."""
MULTIPLICATIONS = 3e10
"""What the draws may cost: a few seconds on one core. Fewer are drawn from pools where each costs more."""
EXPONENTIAL = 50
"""What an image's weight in a posterior costs, in multiplications."""
PAIRS = 2**17
"""Entries of posteriors that are computed at once: few enough for a processor's cache."""
LEAST = -600.0
"""Logarithm of a posterior, relative to the own image's, below which images count as equally impossible: less
than e^-600 adds nothing to a sum, and numbers near the smallest that there are take many times as long."""
COLUMNS = 128
"""Pixels that are in memory in double precision at once."""


@dataclass(frozen=True)
class PoolBound:
    """What nobody can beat on a pool.

    Attributes:
        error: mean squared error per pixel, from below.
        identification: chance to name the image, from above.
        tolerance: by how much one run's mean error may lie below ``error`` by chance; 0 without noise. For
            the Bayes attacker, and for one that lets its answer swing with the noise, which can have more
            luck at a greater mean error.
        smallest_cell: images of the smallest cell, None with noise.
        share_in_small_cells: share of the images in cells of fewer than ``SMALL_CELL``, None with noise.
    """

    error: float
    identification: float
    tolerance: float = 0.0
    smallest_cell: int | None = None
    share_in_small_cells: float | None = None


def cells_of(rows_ND: Tensor) -> Tensor:
    """The number of each image's cell, (N,): images whose rows are equal to the bit (0 and -0 differ)."""
    rows = rows_ND.detach().cpu().contiguous().numpy()
    packed = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    _, cell = np.unique(packed, axis=0, return_inverse=True) if packed.size else (None, np.zeros(len(rows)))
    return torch.as_tensor(np.asarray(cell, dtype=np.int64).reshape(-1))


def within_variance(cell_N: Tensor, x_ND: Tensor) -> float:
    """Mean squared distance per pixel to the mean image of one's cell, in double precision."""
    size_C = torch.bincount(cell_N).double()
    total = 0.0
    for start in range(0, x_ND.shape[1], COLUMNS):
        part = x_ND[:, start : start + COLUMNS].double()
        sums = torch.zeros(len(size_C), part.shape[1], dtype=torch.float64).index_add_(0, cell_N, part)
        total += float((part - (sums / size_C.clamp_min(1)[:, None])[cell_N]).square().sum())
    return total / x_ND.numel()


def exact(cell_N: Tensor, x_ND: Tensor, label_N: Tensor | None = None) -> PoolBound:
    """The bound where a release tells the cell and nothing more: no sampling.

    It holds in every run for attackers who answer equal rows alike, and in the mean for those who draw random
    numbers of their own (``noise`` of the suite), as a draw may happen to fit.

    Args:
        cell_N: cells, numbered from 0. x_ND: the images.
        label_N: clean labels. Identification is measured among the images of one clean label, so that who
            names an image is told the label beside the cell; None: the cell tells it.
    """
    size_C = torch.bincount(cell_N)
    told_NM = cell_N[:, None] if label_N is None else torch.stack([cell_N, label_N.to(cell_N)], 1)
    return PoolBound(
        error=within_variance(cell_N, x_ND),
        identification=len(torch.unique(told_NM, dim=0)) / len(cell_N),
        smallest_cell=int(size_C.min()),
        share_in_small_cells=float((size_C[cell_N] < SMALL_CELL).double().mean()),
    )


def sampled(
    cell_N: Tensor,
    gaussian: Gaussian,
    x_ND: Tensor,
    *,
    rng: torch.Generator,
    askings: int = 1,
    draws: int = DRAWS,
) -> PoolBound:
    """The bound where a release tells the cell and a noisy point, by one-sided ``CONFIDENCE`` limits.

    It is a bound for answers that are reconstructed one at a time. Who matches the answers to all images of
    the pool with each other can do better (noise 0.002 on digits: 2 % of the error), and who asks for an
    image of the same 8-bit pixels is given the same keyed noise.

    The noise is drawn equally often for each image, and once for each of a random selection where the pool is
    too large for two. Each draw gives the posterior's own variance and maximum, which have less spread than
    the squared error and the hit of a single reconstruction.

    Args:
        cell_N: cells of the discrete part. x_ND: the images. rng: draws the noise.
        askings: answers with independent noise that the attacker has to each image (fresh noise alone); their
            mean tells all, with sigma / sqrt(askings).
        draws: at most, over all images.
    """
    from scipy.special import ndtri

    n, d = x_ND.shape
    size_N = torch.bincount(cell_N)[cell_N].double()
    each = float((size_N * (size_N.clamp_max(d) + EXPONENTIAL)).mean())
    draws = max(100, min(draws, int(MULTIPLICATIONS / each)))
    times = draws // n
    if times >= 2:
        image_S = torch.arange(n).repeat_interleave(times)
    else:
        times, image_S = 1, torch.randint(n, (draws,), generator=rng).sort().values
    found = _posteriors(
        cell_N, image_S, gaussian.means_NM.double(), gaussian.sigma / math.sqrt(askings), x_ND, rng
    )
    z, copies = float(ndtri(RUN)), _copies(x_ND)
    return PoolBound(
        # The cells' own variance bounds B from above: noise tells more, never less.
        error=min(
            max(float(found.variance_S.mean()) - _margin(found.variance_S, times, found.radius), 0.0),
            within_variance(cell_N, x_ND),
        ),
        identification=min(float(found.top_S.mean()) + _margin(found.top_S, times, 1.0), 1.0),
        tolerance=_luck(_variance(found.error_S, times), found.swing, z * math.sqrt(copies / n)),
    )


def _copies(x_ND: Tensor) -> float:
    """By how much copies among the images inflate the variance of a mean over one draw; 1 without copies.

    Keyed noise follows the 8-bit pixels, so that copies share it.
    """
    pixels = (x_ND * 255).round().to(torch.uint8).numpy()
    packed = np.ascontiguousarray(pixels).view(np.dtype((np.void, pixels.shape[1])))
    counts = np.unique(packed, return_counts=True)[1]
    return float((counts.astype(float) ** 2).sum() / len(x_ND))


def _variance(value_S: Tensor, times: int) -> float:
    """Variance of a draw, of ``times`` draws for each image in a row (1: images drawn at random)."""
    return float(value_S.view(-1, times).var(1).mean() if times > 1 else value_S.var())


def _luck(variance: float, swing: float, scale: float) -> float:
    """The most by which an attacker's error in one run is below the Bayes error, ``scale`` deviations off.

    An answer that is off the posterior mean by ``delta(y)``, of mean square m, has an error of m more in the
    mean and a variance of 4 m swing more per image: the maximum over m of ``scale * sqrt(variance + 4 m
    swing) - m``, for swings that are not correlated with the Bayes error (else up to half as much more).
    Where noise hides everything, the Bayes attacker always answers the cell's mean image and has no luck,
    while one that lets its answer swing with the noise has some.
    """
    if variance >= (2 * scale * swing) ** 2:
        return scale * math.sqrt(variance)
    return scale**2 * swing + variance / (4 * swing)


def _margin(value_S: Tensor, times: int, most: float) -> float:
    """How far a mean of independent draws is off the true one at most, with probability CONFIDENCE a side.

    Empirical Bernstein bound (Maurer and Pontil 2009, Theorems 3, 7 and 10; the variances of the images'
    draws add up to one self-bounding function). A normal approximation fails for rare large values.

    Args:
        value_S: between 0 and ``most``, in rows of ``times`` (see :func:`_variance`).
    """
    log, draws = math.log(2 / (1 - CONFIDENCE)), len(value_S)
    degrees = draws - draws // times if times > 1 else draws - 1
    linear = 2 * math.sqrt(draws / degrees) + 1 / 3
    return math.sqrt(2 * log * _variance(value_S, times) / draws) + linear * log * most / draws


@dataclass(frozen=True)
class _Found:
    """Of each draw: Var(X | y) / D, the squared error per pixel of E[X | y], and the largest posterior.

    Of all cells: ``radius``, the largest variance that a posterior can have, and ``swing``, the largest
    variance of the images in one direction (from above: the norm of all); both per pixel.
    """

    variance_S: Tensor
    error_S: Tensor
    top_S: Tensor
    radius: float = 0.0
    swing: float = 0.0


def _posteriors(
    cell_N: Tensor, image_S: Tensor, means_NM: Tensor, sigma: float, x_ND: Tensor, rng: torch.Generator
) -> _Found:
    noise_SM = torch.randn(len(image_S), means_NM.shape[1], dtype=torch.float64, generator=rng)
    variance_S, error_S = torch.zeros(2, len(image_S), dtype=torch.float64)
    top_S = torch.ones(len(image_S), dtype=torch.float64)
    drawn, radius, swing = cell_N[image_S], 0.0, 0.0
    for cell in (torch.bincount(cell_N) > 1).nonzero()[:, 0].tolist():
        member_n = (cell_N == cell).nonzero()[:, 0]
        rows = (drawn == cell).nonzero()[:, 0]
        picture = _Pictures(x_ND[member_n].double())
        radius, swing = max(radius, picture.radius), max(swing, picture.swing)
        if not len(rows):
            continue
        own = torch.searchsorted(member_n, image_S[rows])
        # Centred, so that neither the squares of distances nor those of pixels cancel.
        z_nM = (means_NM[member_n] - means_NM[member_n].mean(0)) / sigma
        # For all draws of an image; by differences, as squares of means far apart would cancel.
        apart_nn = torch.cdist(z_nM, z_nM, compute_mode="donot_use_mm_for_euclid_dist").square_().div_(2)
        for part in torch.arange(len(rows)).split(max(1, PAIRS // len(member_n))):
            row, i = rows[part], own[part]
            # -|y - c_j|^2 / (2 sigma^2) + |y - c_i|^2 / (2 sigma^2), written so that sigma may be tiny.
            log_p = noise_SM[row] @ z_nM.T
            log_p.sub_(log_p.gather(1, i[:, None])).sub_(apart_nn[i])
            p = torch.softmax(log_p.clamp_min_(LEAST), 1)
            top_S[row] = p.amax(1)
            variance_S[row], error_S[row] = picture.moments(p, i)
    return _Found(variance_S, error_S, top_S, radius, swing)


class _Pictures:
    """A cell's images, ready for inner products with posterior means.

    Where the cell has fewer images than pixels, all products are read off the images' Gram matrix.
    """

    def __init__(self, x_nD: Tensor) -> None:
        x_nD = x_nD - x_nD.mean(0)
        self.pixels = x_nD.shape[1]
        self.square_n = x_nD.square().sum(1)
        self.x_nD = x_nD if len(x_nD) >= self.pixels else None
        self.gram_nn = x_nD @ x_nD.T if self.x_nD is None else None
        square = x_nD.T @ x_nD if self.gram_nn is None else self.gram_nn
        self.radius = float(self.square_n.max()) / self.pixels
        self.swing = float(square.norm()) / len(x_nD) / self.pixels

    def moments(self, p_Sn: Tensor, i_S: Tensor) -> tuple[Tensor, Tensor]:
        """Var(X | y) / D and |x_i - E[X | y]|^2 / D of each posterior."""
        if self.gram_nn is not None:
            product_Sn = p_Sn @ self.gram_nn
            mean_square_S = (product_Sn * p_Sn).sum(1)
            with_own_S = product_Sn.gather(1, i_S[:, None])[:, 0]
        else:
            assert self.x_nD is not None
            mean_SD = p_Sn @ self.x_nD
            mean_square_S = mean_SD.square().sum(1)
            with_own_S = (mean_SD * self.x_nD[i_S]).sum(1)
        variance_S = (p_Sn @ self.square_n - mean_square_S).clamp_min(0)
        error_S = (self.square_n[i_S] - 2 * with_own_S + mean_square_S).clamp_min(0)
        return variance_S / self.pixels, error_S / self.pixels
