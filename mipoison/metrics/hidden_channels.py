"""Hidden channels: does a part of the released vectors that nobody looks at follow the image?

Regressors see scores; users see two decimals. A defense, or a fault in one, can write the image where neither
looks: into the sign of a zero, low-order digits, the sum of a row, the order of scores that are equal but for
rounding. Such a channel is closed by releasing a canonical form, and found here by a permutation test:

- Images whose vectors look alike (same label, same scores to two decimals) form a cell. Within a cell, what
  hides in the vector may not tell one image from another.
- The statistic is the largest correlation, within cells, of a hidden feature with a principal component of
  the images. Under the null hypothesis the images of a cell can be exchanged, so that its distribution is
  that over permutations of images within cells, whatever features and images are like.

Of a continuous score the digits after the third significant one are as good as random within a cell, which
is why undefended vectors pass. Shape suffixes: N vectors, K classes, F features, P components, D pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mipoison.linalg.principal import PrincipalComponents
from mipoison.simplex import label_of

VISIBLE = 2
"""Decimals of the scores that make a cell."""
DIGITS = range(3, 7)
"""Significant digits after which what follows is a hidden feature."""
STEP = 3
"""Decimals that are told apart before later digits count as hidden."""
NEAR_TIE = 1e-5
"""Relative difference of two scores that counts as a tie of which only the order shows."""
COMPONENTS = 16
"""Principal components of the images within cells."""
ROWS = 1000
"""Vectors that are looked at, the first ones."""
PAIRS = 2**22
"""Pairs of scores in memory at once."""
PERMUTATIONS = 1999
"""Most permutations; the least p value is one over one more."""
EXCEEDING = 20
"""Permutations that exceed the statistic after which no more are drawn (Besag and Clifford 1991): p is then
near enough. Without a channel that takes a few dozen permutations."""


def hidden_features(c_NK: Tensor) -> Tensor:
    """Signs of zeros, deviations of sums from 1, low-order digits, order of near ties: float64 (N, F)."""
    c_NK = c_NK.detach().cpu()
    negative_NK = (torch.signbit(c_NK) & (c_NK == 0)).double()
    c_NK = c_NK.double()
    sum_N1 = (c_NK.sum(1, keepdim=True) - 1).clamp(-1e-3, 1e-3)
    digits = (unexplained(digits_after(c_NK, k), c_NK) for k in DIGITS)
    return torch.cat([negative_NK, sum_N1, *digits, near_ties(c_NK)], 1)


def unexplained(digits_NK: Tensor, c_NK: Tensor) -> Tensor:
    """Digits less their mean over the vectors whose score of this class is the same to three decimals.

    On a grid of some hundred steps the later digits only repeat which step it is, which is no secret.
    """
    step_NK = (c_NK * 10**STEP).round().long()
    rest_NK = torch.empty_like(digits_NK)
    for k in range(c_NK.shape[1]):
        rest_NK[:, k] = _within(digits_NK[:, k : k + 1], step_NK[:, k].unique(return_inverse=True)[1])[:, 0]
    return rest_NK


def digits_after(c_NK: Tensor, significant: int) -> Tensor:
    """What remains of each score after so many significant digits, in [-0.5, 0.5] units of the last.

    It is 0 where it is no more than the rounding of a float32 number, for scores of 0, and for scores so
    close to 1 that these digits are seen in one minus the score.
    """
    size_NK = c_NK.abs()
    unit_NK = 10.0 ** (size_NK.clamp_min(1e-30).log10().floor() - significant + 1)
    count_NK = size_NK / unit_NK
    rest_NK = count_NK - count_NK.round()
    exact_NK = rest_NK.abs() * unit_NK <= 2.0**-23 * size_NK
    return torch.where(exact_NK | (1 - size_NK <= 20 * unit_NK) | (size_NK <= 1e-30), 0.0, rest_NK)


def near_ties(c_NK: Tensor) -> Tensor:
    """For each score, how many others are just below it less how many are just above it (N, K)."""
    found = []
    for part_BK in c_NK.split(max(1, PAIRS // c_NK.shape[1] ** 2)):
        apart_BKK = part_BK[:, :, None] - part_BK[:, None, :]
        near_BKK = apart_BKK.abs() <= NEAR_TIE * torch.maximum(part_BK[:, :, None], part_BK[:, None, :])
        found.append((apart_BKK.sign() * near_BKK).sum(2))
    return torch.cat(found)


def visible_cells(c_NK: Tensor) -> Tensor:
    """The cell of each vector, int64 (N,): same label and same scores to two decimals."""
    shown_NK = (c_NK.detach().cpu().double() * 10**VISIBLE).round()
    shown_NK = torch.cat([shown_NK, label_of(c_NK.detach().cpu())[:, None].double()], 1)
    return torch.unique(shown_NK + 0.0, dim=0, return_inverse=True)[1]  # -0 + 0 is 0: one cell


def _within(v_NF: Tensor, cell_N: Tensor) -> Tensor:
    """Deviations from the mean of one's cell."""
    size_C1 = torch.bincount(cell_N)[:, None].double()
    sum_CF = torch.zeros(len(size_C1), v_NF.shape[1], dtype=v_NF.dtype).index_add_(0, cell_N, v_NF)
    return v_NF - (sum_CF / size_C1)[cell_N]


def _varying(v_NF: Tensor, cell_N: Tensor) -> Tensor:
    """Deviations within cells, each column scaled to length 1; those that vary by rounding alone left out."""
    within_NF = _within(v_NF, cell_N)
    length_F = within_NF.norm(dim=0)
    keep_F = length_F > 1e-9 * v_NF.norm(dim=0)
    return within_NF[:, keep_F] / length_F[keep_F]


def _leading(x_ND: Tensor) -> Tensor:
    """The images along their leading principal components, each of length 1: (N, P), P at most COMPONENTS."""
    largest = float(x_ND.abs().max())
    if largest < 1e-9:  # equal images but for rounding: an eigendecomposition of that need not converge
        return x_ND[:, :0]
    parts = PrincipalComponents(x_ND / largest)
    return parts.scores(parts.leading(COMPONENTS, 1e-9))


def hidden_channel_p(c_NK: Tensor, x_NCHW: Tensor, *, rng: torch.Generator) -> float | None:
    """The p value of the permutation test: small if what is hidden in the vectors follows the images.

    Args:
        c_NK: released vectors. x_NCHW: the images that were asked, in the same order.
        rng: draws the permutations.

    Returns:
        A p value, or None where nothing can be tested: nothing hidden varies within cells, or no two vectors
        look alike.

    Raises:
        ValueError: another number of images than of vectors.
    """
    if len(c_NK) != len(x_NCHW):
        raise ValueError(f"{len(c_NK)} vectors and {len(x_NCHW)} images: one each")
    c_NK, x_NCHW = c_NK[:ROWS], x_NCHW[:ROWS]
    cell_N = visible_cells(c_NK)
    alike_N = torch.bincount(cell_N, minlength=1)[cell_N] > 1
    if not alike_N.any():
        return None
    c_NK, x_NCHW, cell_N = c_NK[alike_N.to(c_NK.device)], x_NCHW[alike_N.to(x_NCHW.device)], cell_N[alike_N]
    z_NF = _varying(hidden_features(c_NK), cell_N)
    y_NP = _leading(_within(x_NCHW.detach().cpu().double().flatten(1), cell_N))
    if not z_NF.shape[1] or not y_NP.shape[1]:
        return None
    statistic = float((z_NF.mT @ y_NP).abs().max())
    place_N = cell_N.argsort()
    exceeding = 0
    for drawn in range(1, PERMUTATIONS + 1):
        # Sorted by cell, and at random within: the image at a place moves to another of the same cell.
        keys_N = cell_N + torch.rand(len(cell_N), generator=rng, dtype=torch.float64)
        y = y_NP[keys_N.argsort()]
        exceeding += float((z_NF[place_N].mT @ y).abs().max()) >= statistic * (1 - 1e-12)
        if exceeding == EXCEEDING:
            return exceeding / drawn
    return (exceeding + 1) / (PERMUTATIONS + 1)
