"""The order of the scores below the top one: what is left of it, against the clean vector.

A defense that keeps labels keeps the first place, so the first place is left out: the clean vector's label
is taken out of both vectors, and the K - 1 other scores are compared. Shape suffixes: N vectors, K classes, T
the classes below the top one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mipoison.metrics.utility import checked_pair, rank_correlations
from mipoison.simplex import label_of

TOPS = (2, 5)
RANKING_COLUMNS = ("tail_rank_correlation", *(f"top{m}_agreement" for m in TOPS))
"""Columns of :func:`ranking_metrics`."""


def below_the_top(clean_NK: Tensor, released_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Both vectors without the clean one's label (its first maximum): (N, T) each, T = K - 1."""
    clean_NK, released_NK = checked_pair(clean_NK, released_NK)
    n, k = clean_NK.shape
    rest_NK = torch.ones(n, k, dtype=torch.bool).scatter(1, label_of(clean_NK)[:, None], False)
    return clean_NK[rest_NK].view(n, k - 1), released_NK[rest_NK].view(n, k - 1)


def tail_rank_correlation(clean_NK: Tensor, released_NK: Tensor) -> float:
    """Mean over the rows of Spearman's correlation among the scores below the top one, in [-1, 1].

    Ties are at their average rank; a row whose scores below the top one are all equal, clean or released, has
    no order and counts as 0: label-only has 0.

    Raises:
        ValueError: fewer than three classes (one score has no order), other shapes, rows off the simplex.
    """
    if clean_NK.shape[1] < 3:
        raise ValueError(f"an order below the top score needs three classes or more, got {clean_NK.shape[1]}")
    return float(rank_correlations(*below_the_top(clean_NK, released_NK)).mean())


def top_agreement(clean_NK: Tensor, released_NK: Tensor, m: int) -> float:
    """Mean share, in [0, 1], of the places 2 to m of the released vector that classes of the clean vector's
    places 2 to m have. The label's place is not counted.

    Released scores that tie at the last place share the places that are left evenly, as if their order was
    drawn. Clean scores that tie there all belong: where the clean vector has no order, none is broken. So
    equal vectors have 1, and one-hot answers the chance (m - 1) / (K - 1) where clean scores do not tie.

    Raises:
        ValueError: m below 2, or K at most m (all classes are among the first m then).
    """
    k = clean_NK.shape[1]
    if not 2 <= m < k:
        raise ValueError(f"top-m agreement needs 2 <= m < {k} classes, got m = {m}")
    clean_NT, released_NT = below_the_top(clean_NK, released_NK)
    places = m - 1
    belongs_NT = clean_NT >= clean_NT.topk(places, dim=1).values[:, -1:]
    last_N1 = released_NT.topk(places, dim=1).values[:, -1:]
    above_NT, tied_NT = released_NT > last_N1, released_NT == last_N1
    share_N1 = (places - above_NT.sum(1, keepdim=True)).double() / tied_NT.sum(1, keepdim=True)
    held_NT = above_NT.double() + tied_NT * share_N1
    share_N = (held_NT * belongs_NT).sum(dim=1) / places
    return float(share_N.clamp_max(1).mean())


def ranking_metrics(clean_NK: Tensor, released_NK: Tensor) -> dict[str, float | None]:
    """The columns of a record; None where there are too few classes for a number to mean something."""
    k = clean_NK.shape[1]
    values = [
        tail_rank_correlation(clean_NK, released_NK) if k >= 3 else None,
        *(top_agreement(clean_NK, released_NK, m) if k > m else None for m in TOPS),
    ]
    return dict(zip(RANKING_COLUMNS, values, strict=True))
