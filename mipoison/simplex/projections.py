"""Projections that turn any row of scores into a confidence vector that a defense may release.

Shape suffixes: N rows (queries), K classes. `_N1` is a column that broadcasts over the classes.

All functions are vectorised over rows, do not change their inputs, compute in float64 and return the dtype of
the input (float32 or float64). The device must support float64, as CPU and CUDA do. An input that is not a
float32 or float64 matrix with at least one column, or (except in `label_of`) not finite, raises ValueError.

Two conventions hold everywhere in the project:
    label       the index of the first maximum of a confidence vector (`label_of`), the one tie rule
    distortion  the Euclidean distance between the released and the clean confidence vector, unitless,
                between 0 and sqrt(2); `budget` is its upper bound
"""

import torch
from torch import Tensor

from mipoison.simplex.checks import (
    budget_column,
    check_finite,
    check_labels,
    check_same_shape,
    check_shape,
    check_simplex,
)

_BISECTIONS = 64  # halves any bracket of float64 numbers (2,100 binades) below one part in 2**52


def label_of(c_NK: Tensor) -> Tensor:
    """Returns the label of every row: the index of its first maximum.

    `torch.argmax` documents the first maximum as its rule. Every part of the project that needs a label
    calls this function, so that ties mean the same thing everywhere.

    Args:
        c_NK: confidence vectors.

    Returns:
        Labels of shape (N,), int64.
    """
    check_shape("c_NK", c_NK)
    return c_NK.argmax(dim=1)


def project_tangent(v_NK: Tensor) -> Tensor:
    """Projects rows onto the tangent space of the simplex, the vectors that sum to zero.

    Args:
        v_NK: any finite rows.

    Returns:
        `v_NK` minus the mean of each row.
    """
    check_finite("v_NK", v_NK)
    return _tangent(v_NK.double()).to(v_NK.dtype)


def project_ball(d_NK: Tensor, budget: float | Tensor) -> Tensor:
    """Projects rows onto the l2 ball around zero.

    Args:
        d_NK: any finite rows.
        budget: radius, at least 0; one number or one per row, shape (N,).

    Returns:
        Rows no longer than `budget`, up to one rounding of each entry to the dtype of `d_NK`.

    Raises:
        ValueError: if a budget is negative, NaN or infinite.
    """
    check_finite("d_NK", d_NK)
    budget_N1 = budget_column(budget, d_NK)
    wide_NK = d_NK.double()
    unit_NK, length_N1 = _direction(wide_NK)
    return torch.where(length_N1 > budget_N1, unit_NK * budget_N1, wide_NK).to(d_NK.dtype)


def project_simplex(y_NK: Tensor) -> Tensor:
    """Projects rows onto the probability simplex (Held et al. 1974; Duchi et al. 2008, Fig. 1).

    Args:
        y_NK: any finite rows.

    Returns:
        The nearest rows that are non-negative and sum to 1.
    """
    check_finite("y_NK", y_NK)
    return _simplex(y_NK.double()).to(y_NK.dtype)


def project_argmax_cone(y_NK: Tensor, label_N: Tensor) -> Tensor:
    """Projects rows onto {z : z_label >= z_j for all j}.

    Isotonic regression on a star: the label's entry and those that exceed it meet at one pooled value M,
    so z = min(y, M) and z_label = M (Barlow et al. 1972, the pool-adjacent-violators argument for a tree).

    Args:
        y_NK: any finite rows.
        label_N: the entry of each row that has to be a maximum, in 0..K-1.

    Returns:
        The nearest rows whose label's entry is a maximum, perhaps a tied one.

    Raises:
        ValueError: if `label_N` does not index the columns of `y_NK`.
    """
    check_finite("y_NK", y_NK)
    check_labels(label_N, y_NK)
    return _cone(y_NK.double(), label_N[:, None]).to(y_NK.dtype)


def project_labelled_simplex(y_NK: Tensor, label_N: Tensor) -> Tensor:
    """Projects rows onto the part of the simplex where the label's entry is a maximum.

    The cone first, the simplex second, is the exact projection onto their intersection. Proof: let w be
    the projection of y onto the cone with multipliers m_j >= 0 for w_j <= w_label, so that w = y - A'm and
    m_j > 0 only where w_j = w_label. Let z = max(w - tau, 0) = w - tau + n, with n >= 0 and n_j z_j = 0. Then
    z = y - A'm - tau + n, which is stationarity for the intersection. The map w -> max(w - tau, 0) is
    monotone, so z_j <= z_label, and equal where w_j = w_label, so m stays complementary. All KKT conditions
    hold and the problem is strictly convex. (The other order is not exact.)

    Args:
        y_NK: any finite rows.
        label_N: the entry of each row that has to be a maximum, in 0..K-1.

    Returns:
        The nearest rows on the simplex whose label's entry is a maximum, perhaps a tied one.

    Raises:
        ValueError: as for `project_argmax_cone`.
    """
    check_finite("y_NK", y_NK)
    check_labels(label_N, y_NK)
    return _simplex(_cone(y_NK.double(), label_N[:, None])).to(y_NK.dtype)


def project_release(y_NK: Tensor, c_NK: Tensor, budget: float | Tensor, *, keep_label: bool = True) -> Tensor:
    """Projects rows onto everything a released vector has to satisfy at once, exactly.

    That is the simplex, the l2 ball of radius `budget` around the clean vector and, if asked, the cone on
    which the clean vector's label stays a maximum. With S the simplex (cut with the cone) and a multiplier
    lam >= 0 for the ball, the KKT conditions give z = P_S((y + lam c) / (1 + lam)): the projection of a point
    on the segment from c to y. The distance of z to c does not decrease along the segment, and c itself is
    feasible, so the point is found by bisection (see `_shorten`).

    The work is done outside autograd, so no gradient flows through. To train through a projection, use
    `project_labelled_simplex` and scale the step towards c: less than the nearest point, but feasible too.

    Args:
        y_NK: the rows to be projected, finite. Use float64, whatever the dtype of `c_NK`: entries rounded to
            float32 make the sum miss 1 by about 1e-8, which the projection spreads over the small scores.
        c_NK: clean confidence vectors, on the simplex within 1e-3 (sum and sign). A row that misses it (in
            float32 by about 1e-8) is divided by its sum, and `y_NK` is shifted by the same difference.
        budget: bound on the distortion, at least 0; one number or one per row, shape (N,).
        keep_label: keep `label_of(c_NK)`, ties and rounding included.

    Returns:
        Released rows in the dtype of `c_NK`: non-negative, with sum 1, and no further from `c_NK` than the
        budget. Sum and distance hold within 2.4e-7 in float32 (2 ulp of 1) and 1e-12 in float64 (up to about
        1,000 classes, then growing with K); the distance may be larger by what `c_NK` itself misses the
        simplex by. If the budget is 0, the row of `c_NK` is returned bit by bit.

    Raises:
        ValueError: if the shapes differ, `c_NK` is not on the simplex, or a budget is negative, NaN or
            infinite.
    """
    check_finite("y_NK", y_NK)
    check_finite("c_NK", c_NK)
    check_same_shape(y_NK, c_NK)
    check_simplex(c_NK)
    budget_N1 = budget_column(budget, c_NK)
    with torch.no_grad():
        label_N1 = label_of(c_NK)[:, None] if keep_label else None
        # Division keeps order, ties, zeros and the ratios of small scores. Projecting instead would add the
        # same 1e-8 to every entry of a float32 row, which erases small scores that the budget allows to keep.
        centre_NK = c_NK.double().clamp(min=0.0)
        centre_NK = centre_NK / centre_NK.sum(dim=1, keepdim=True)
        wish_NK = y_NK.double() + (centre_NK - c_NK)
        z_NK = feasible(wish_NK, label_N1)
        far_N1 = torch.linalg.vector_norm(z_NK - centre_NK, dim=1, keepdim=True) > budget_N1
        row_M = (far_N1 & (budget_N1 > 0)).squeeze(1).nonzero().squeeze(1)
        if len(row_M) > 0:
            label_M1 = None if label_N1 is None else label_N1[row_M]
            z_NK[row_M] = _shorten(wish_NK[row_M], centre_NK[row_M], z_NK[row_M], budget_N1[row_M], label_M1)
        z_NK = torch.where(budget_N1 > 0, z_NK.to(c_NK.dtype), c_NK)
        return z_NK if label_N1 is None else _lower_rivals(z_NK, c_NK, label_N1)


def project_release_inside(y_NK: Tensor, c_NK: Tensor, *, keep_label: bool = True) -> Tensor:
    """`project_release` for rows that lie within the budget, as a fixed sequence of tensor operations.

    A projection onto a convex set does not increase distances, and the clean vector lies in the set. A row
    within the budget therefore stays within it, and no search is needed. The operations do not depend on the
    data and nothing is checked, so that the function can be traced and exported.

    Args:
        y_NK: the rows to be projected, finite, each no further from its clean vector than the budget.
        c_NK: clean confidence vectors, on the simplex within 1e-3.
        keep_label: keep `label_of(c_NK)`, ties and rounding included.

    Returns:
        Released rows in the dtype of `c_NK`, those of `project_release`.
    """
    label_N1 = c_NK.argmax(dim=1, keepdim=True) if keep_label else None
    centre_NK = c_NK.double().clamp(min=0.0)
    centre_NK = centre_NK / centre_NK.sum(dim=1, keepdim=True)
    z_NK = feasible(y_NK.double() + (centre_NK - c_NK), label_N1).to(c_NK.dtype)
    return z_NK if label_N1 is None else _lower_rivals(z_NK, c_NK, label_N1)


def keep_label(z_NK: Tensor, c_NK: Tensor) -> Tensor:
    """Makes the clean vector's label the only maximum of a released vector, in the dtype of the release.

    This is the last step after a projection onto the argmax cone and a cast, since both may leave ties, and
    the position decides a tie. Entries equal to or larger than the label's entry are lowered to the next
    number below it. After such a projection they can only be equal, so no entry changes by more than one ulp:
    the sum falls and the distortion grows by at most one ulp of 1 (float32: 1.2e-7). Rows that equal the
    clean row bit by bit are not changed.

    Args:
        z_NK: released vectors from `project_labelled_simplex` or similar, rounded to the dtype of `c_NK`.
        c_NK: clean confidence vectors.

    Returns:
        A new tensor with `label_of` equal to `label_of(c_NK)` in every row.

    Raises:
        ValueError: if shapes or dtypes differ, or the label's entry is not positive (on the simplex, where it
            is at least 1/K, there is always a number below it).
    """
    check_finite("z_NK", z_NK)
    check_finite("c_NK", c_NK)
    check_same_shape(z_NK, c_NK)
    if z_NK.dtype != c_NK.dtype:
        raise ValueError(f"z_NK must have the dtype of c_NK, {c_NK.dtype}, got {z_NK.dtype}")
    label_N1 = label_of(c_NK)[:, None]
    top_N1 = z_NK.gather(1, label_N1)
    bad_N = (top_N1 <= 0).squeeze(1)
    if bad_N.any():
        row = int(bad_N.nonzero()[0])
        raise ValueError(f"z_NK must be above 0 at the label of c_NK, got {top_N1[row].item()} in row {row}")
    return _lower_rivals(z_NK, c_NK, label_N1)


# Implementation. Inputs and outputs are float64 (except in `_lower_rivals`); arguments have been checked.


def _tangent(v_NK: Tensor) -> Tensor:
    return v_NK - v_NK.mean(dim=1, keepdim=True)


def _direction(v_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Returns unit rows and their lengths (N, 1); a zero row stays zero."""
    # Scaled before squaring: 1e200 squared overflows.
    size_N1 = v_NK.abs().amax(dim=1, keepdim=True)
    scaled_NK = v_NK / torch.where(size_N1 > 0, size_N1, 1.0)
    length_N1 = torch.linalg.vector_norm(scaled_NK, dim=1, keepdim=True)
    return scaled_NK / torch.where(size_N1 > 0, length_N1, 1.0), size_N1 * length_N1


def _simplex(y_NK: Tensor) -> Tensor:
    # Only entries less than 1 below the maximum can stay positive, so shifting the maximum to 0 and clamping
    # at -1 does not change the result. It keeps the sums small: at 1e30 one ulp is 1e14 and "- 1" has no
    # effect.
    y_NK = (y_NK - y_NK.amax(dim=1, keepdim=True)).clamp(min=-1.0)
    total_NK = y_NK.sort(dim=1, descending=True).values.cumsum(dim=1)
    # Every k largest entries sum to at most 1 after the cut, and the support's to 1: tau is the maximum.
    tau_N1 = ((total_NK - 1.0) / _counts(y_NK)).amax(dim=1, keepdim=True)
    return (y_NK - tau_N1).clamp(min=0.0)


def _cone(y_NK: Tensor, label_N1: Tensor) -> Tensor:
    # The mean of the label's entry and the k largest others grows with k as long as the next entry exceeds
    # it, and then falls, so the pooled value is its maximum over k.
    others_NK = y_NK.scatter(1, label_N1, torch.inf).sort(dim=1, descending=True).values
    own_N1 = y_NK.gather(1, label_N1)
    total_NK = torch.cat([own_N1, others_NK[:, 1:]], dim=1).cumsum(dim=1)
    pooled_N1 = (total_NK / _counts(y_NK)).amax(dim=1, keepdim=True)
    return torch.minimum(y_NK, pooled_N1).scatter(1, label_N1, pooled_N1)


def _counts(y_NK: Tensor) -> Tensor:
    return torch.arange(1, y_NK.shape[1] + 1, dtype=y_NK.dtype, device=y_NK.device)


def feasible(y_NK: Tensor, label_N1: Tensor | None) -> Tensor:
    """Nearest rows of the simplex on which the label is a maximum, float64: unchecked, to be exported."""
    return _simplex(y_NK if label_N1 is None else _cone(y_NK, label_N1))


def _shorten(
    wish_NK: Tensor, c_NK: Tensor, outside_NK: Tensor, budget_N1: Tensor, label_N1: Tensor | None
) -> Tensor:
    """Finds the point at distance `budget` on the curve z(r) = P_S(c + r u), u the unit vector to the wish.

    The wish is the row to be projected. `outside_NK` is its projection, which lies beyond the budget; all
    budgets are above 0. r lies between `budget`, since a projection does not lengthen a step, and the length
    of the wish. As that may be 1e30, the bracket is bisected on a logarithmic scale. In every other round a
    secant step is taken instead: z(r) is piecewise linear, so if both ends lie on one piece, the chord
    between them intersects the sphere at the solution. Usually a few rounds are enough.
    """
    # All points of S have the same sum, so only the part of the wish tangent to that plane matters.
    u_NK, length_N1 = _direction(_tangent(wish_NK - c_NK))
    low_N1, high_N1 = budget_N1, torch.maximum(length_N1, budget_N1)
    inside_NK = c_NK
    tolerance_N1 = 1e-13 * budget_N1 + 1e-15 * c_NK.shape[1] ** 0.5  # the latter: rounding of z itself
    r_N1 = low_N1  # in the interior of S, z(r) = c + r u, and this is the solution
    for turn in range(2 * _BISECTIONS):
        z_NK = feasible(c_NK + r_N1 * u_NK, label_N1)
        distance_N1 = torch.linalg.vector_norm(z_NK - c_NK, dim=1, keepdim=True)
        done_N1 = (distance_N1 - budget_N1).abs() <= tolerance_N1
        # r = low is inside by theory, so rounding errors there must not close the bracket.
        within_N1 = (distance_N1 <= budget_N1) | done_N1 | (r_N1 <= low_N1)
        low_N1, inside_NK = torch.where(within_N1, r_N1, low_N1), torch.where(within_N1, z_NK, inside_NK)
        high_N1, outside_NK = torch.where(within_N1, high_N1, r_N1), torch.where(within_N1, outside_NK, z_NK)
        if done_N1.all():
            break
        if turn % 2:
            next_N1 = low_N1.sqrt() * high_N1.sqrt()
        else:
            next_N1 = _chord(low_N1, high_N1, inside_NK - c_NK, outside_NK - inside_NK, budget_N1)
        # A row that is done stays done, as it is evaluated again at the same r.
        r_N1 = torch.where(done_N1, r_N1, next_N1)
    # The excess that the tolerance allows is not removed by scaling: that would turn some zeros into 1e-18,
    # and an attacker who takes logarithms would see the difference.
    return inside_NK


def _chord(low_N1: Tensor, high_N1: Tensor, p_NK: Tensor, q_NK: Tensor, budget_N1: Tensor) -> Tensor:
    """Solves |p + w q| = budget for w in [0, 1]; returns that share of the way from low to high."""
    a_N1 = (q_NK * q_NK).sum(dim=1, keepdim=True)
    b_N1 = (p_NK * q_NK).sum(dim=1, keepdim=True).clamp(min=0.0)  # monotone projection: not negative
    gap_N1 = (budget_N1**2 - (p_NK * p_NK).sum(dim=1, keepdim=True)).clamp(min=0.0)
    root_N1 = b_N1 + (b_N1**2 + a_N1 * gap_N1).sqrt()  # the form without cancellation
    share_N1 = (gap_N1 / torch.where(root_N1 > 0, root_N1, 1.0)).clamp(max=1.0)
    return low_N1 + share_N1 * (high_N1 - low_N1)


def _lower_rivals(z_NK: Tensor, c_NK: Tensor, label_N1: Tensor) -> Tensor:
    top_N1 = z_NK.gather(1, label_N1)
    below_N1 = torch.nextafter(top_N1, torch.zeros_like(top_N1))
    strict_NK = torch.minimum(z_NK, below_N1).scatter(1, label_N1, top_N1)
    # A clean row may have a tie that its label won by position; it is released as it is.
    return torch.where((z_NK == c_NK).all(dim=1, keepdim=True), z_NK, strict_NK)
