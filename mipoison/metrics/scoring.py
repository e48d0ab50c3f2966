"""Proper scores of confidence vectors on true labels: what probabilities are worth to those who use them.

Shape suffixes: N vectors, K classes.
"""

from __future__ import annotations

from torch import Tensor

from mipoison.metrics.utility import (
    KL_FLOOR,
    checked_labels,
    checked_vectors,
    expected_calibration_error,
)

SCORING_COLUMNS = ("log_loss", "brier_score", "clean_log_loss", "clean_brier_score", "clean_ece")
"""Columns of :func:`scoring_metrics`."""


def _shares(name: str, c_NK: Tensor) -> Tensor:
    """Rows that add up to 1 exactly: in single precision they miss it by 1e-7."""
    c_NK = checked_vectors(name, c_NK).clamp_min(0)
    return c_NK / c_NK.sum(dim=1, keepdim=True)


def log_loss(c_NK: Tensor, y_N: Tensor) -> float:
    """Mean of ``-ln p`` in nats, p the true label's score, at least ``KL_FLOOR`` = 1e-12.

    A score of exactly 0 for the true label therefore costs 27.6 nats: what one-hot answers pay for each error
    is set by that floor, and means "as bad as it gets".

    Args:
        c_NK: confidence vectors.
        y_N: integer labels in 0..K-1.
    """
    c_NK = _shares("vectors", c_NK)
    y_N = checked_labels(y_N, *c_NK.shape)
    return float(-c_NK.gather(1, y_N[:, None]).clamp_min(KL_FLOOR).log().mean())


def brier_score(c_NK: Tensor, y_N: Tensor) -> float:
    """Mean squared distance, in [0, 2], of the vector to the true label's one-hot vector (Brier 1950: summed
    over the classes, so for two classes twice the score of one of them).

    Args:
        c_NK: confidence vectors.
        y_N: integer labels in 0..K-1.
    """
    c_NK = _shares("vectors", c_NK)
    y_N = checked_labels(y_N, *c_NK.shape)
    right_N = c_NK.gather(1, y_N[:, None])[:, 0]
    return float((c_NK.square().sum(dim=1) - 2 * right_N + 1).mean())


def scoring_metrics(clean_NK: Tensor, released_NK: Tensor, y_N: Tensor) -> dict[str, float]:
    """The columns of a record: released vectors' scores (``ece`` is among the utility columns), and clean
    ones' to compare them with."""
    values = (
        log_loss(released_NK, y_N),
        brier_score(released_NK, y_N),
        log_loss(clean_NK, y_N),
        brier_score(clean_NK, y_N),
        expected_calibration_error(clean_NK, y_N),
    )
    return dict(zip(SCORING_COLUMNS, values, strict=True))
