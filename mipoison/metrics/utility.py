"""Utility: accuracy, distortion and calibration of released vectors, which are what a defense costs.

Torch tensors in, plain Python floats out. Everything is computed in float64 on the CPU, so that a number does
not depend on the device or the precision that produced the vectors. Clean and released vectors are rows on
the probability simplex; anything else (logits, percentages, NaN) raises ValueError.

Shape suffixes: N samples, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipoison.linalg.ranks import mean_ranks
from mipoison.metrics.constants import KL_FLOOR as KL_FLOOR

SIMPLEX_TOLERANCE = 1e-3
"""How far a row may be off the simplex (sum, negative entries) before it counts as no confidence vector."""


def _matrix(name: str, c_NK: Tensor) -> Tensor:
    """``c_NK`` in float64 on the CPU; raises ValueError if it is not a non-empty, finite matrix."""
    if c_NK.ndim != 2 or 0 in c_NK.shape:
        raise ValueError(f"{name} must be a non-empty (N, K) matrix, got shape {tuple(c_NK.shape)}")
    c_NK = c_NK.detach().cpu().double()
    if not bool(torch.isfinite(c_NK).all()):
        bad = int((~torch.isfinite(c_NK)).any(dim=1).sum())
        raise ValueError(f"{name} has non-finite values in {bad} of {len(c_NK)} rows")
    return c_NK


def checked_vectors(name: str, c_NK: Tensor) -> Tensor:
    """:func:`_matrix` for confidence vectors: raises ValueError too if a row is off the simplex."""
    c_NK = _matrix(name, c_NK)
    lowest = float(c_NK.min())
    off = float((c_NK.sum(dim=1) - 1).abs().max())
    if lowest < -SIMPLEX_TOLERANCE or off > SIMPLEX_TOLERANCE:
        raise ValueError(
            f"{name} must have rows on the simplex (within {SIMPLEX_TOLERANCE}): "
            f"its least entry is {lowest:g} and a row sum is {off:g} away from 1"
        )
    return c_NK


def checked_pair(clean_NK: Tensor, released_NK: Tensor) -> tuple[Tensor, Tensor]:
    if clean_NK.shape != released_NK.shape:
        raise ValueError(
            f"clean and released vectors differ in shape: {tuple(clean_NK.shape)}, {tuple(released_NK.shape)}"
        )
    return checked_vectors("clean", clean_NK), checked_vectors("released", released_NK)


def checked_labels(y_N: Tensor, n: int, k: int) -> Tensor:
    """``y_N`` as int64 on the CPU; raises ValueError if it does not hold ``n`` labels in 0..k-1."""
    if y_N.shape != (n,):
        raise ValueError(f"labels must have shape ({n},) like the vectors' rows, got {tuple(y_N.shape)}")
    if y_N.is_floating_point() or y_N.is_complex() or y_N.dtype == torch.bool:
        raise ValueError(f"labels must be integers, got {y_N.dtype}")
    y_N = y_N.detach().cpu().long()
    low, high = int(y_N.min()), int(y_N.max())
    if low < 0 or high >= k:
        raise ValueError(f"labels must lie in 0..{k - 1} for vectors of {k} classes, got {low}..{high}")
    return y_N


def label_recovery(
    clean_train_NK: Tensor, released_train_NK: Tensor, clean_NK: Tensor, released_NK: Tensor
) -> float:
    """Share of clean labels, in [0, 1], that can be read from whole released vectors.

    The best of three readers: the first maximum; the nearest of the training vectors; multinomial logistic
    regression on scores and log scores. The latter two learn from an attacker's queries (released vectors and
    the clean labels behind them). A defense that flips labels but leaves them readable has a recovery above
    its label agreement.

    Args:
        clean_train_NK: what the readers learn from; the first 1,000 rows are used.
        released_train_NK: what was released for those.
        clean_NK: what they are judged on.
        released_NK: what was released for those.

    Raises:
        ValueError: shapes differ, or rows are off the simplex.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    clean_train_NK, released_train_NK = (v[:1000] for v in checked_pair(clean_train_NK, released_train_NK))
    clean_NK, released_NK = checked_pair(clean_NK, released_NK)
    label_N = clean_NK.argmax(dim=1).numpy()
    found = [float((released_NK.argmax(dim=1).numpy() == label_N).mean())]
    known_N = clean_train_NK.argmax(dim=1).numpy()
    if found[0] < 1 and len(set(known_N.tolist())) > 1:
        inputs, asked = _reader_inputs(released_train_NK), _reader_inputs(released_NK)
        for reader in (KNeighborsClassifier(1), LogisticRegression(max_iter=200)):
            model = make_pipeline(StandardScaler(), reader).fit(inputs, known_N)
            found.append(float((model.predict(asked) == label_N).mean()))
    return max(found)


def _reader_inputs(c_NK: Tensor) -> NDArray[np.float64]:
    return torch.cat([c_NK, c_NK.clamp_min(KL_FLOOR).log()], 1).numpy()


def accuracy(c_NK: Tensor, y_N: Tensor) -> float:
    """Share of rows, in [0, 1], whose first maximum is at the label.

    Args:
        c_NK: scores of any scale (confidence vectors or logits).
        y_N: integer labels in 0..K-1.

    Raises:
        ValueError: shapes disagree, the input is empty or not finite, or a label is out of range.
    """
    scores_NK = _matrix("scores", c_NK)
    y_N = checked_labels(y_N, *scores_NK.shape)
    return float((scores_NK.argmax(dim=1) == y_N).double().mean())


def confidence_distortion(clean_NK: Tensor, released_NK: Tensor) -> float:
    """Mean l2 norm of ``released - clean`` (the paper's distortion); in [0, sqrt(2)]."""
    clean, released = checked_pair(clean_NK, released_NK)
    return float((released - clean).norm(dim=1).mean())


def label_agreement(clean_NK: Tensor, released_NK: Tensor) -> float:
    """Share of rows, in [0, 1], that keep their label.

    The label is the index of the first maximum (the rule of ``torch.argmax``): a released vector that ties
    the top score with an earlier class counts as flipped.
    """
    clean, released = checked_pair(clean_NK, released_NK)
    return float((clean.argmax(dim=1) == released.argmax(dim=1)).double().mean())


def kl_divergence(clean_NK: Tensor, released_NK: Tensor) -> float:
    """Mean KL(clean || released) in nats.

    Both vectors are first divided by their sum: float32 rows miss 1 by about 1e-7, which at budgets of 1e-4
    is as large as the divergence itself. Inside the logarithms every probability is at least ``KL_FLOOR`` =
    1e-12, so a score released as zero costs ``p * ln(p / 1e-12)``, at most 27.6 nats, and one-hot answers
    stay finite. Equal vectors give exactly 0; the floor lets a value fall below 0 by at most K * 1e-12.
    """
    pair = (c.clamp_min(0) for c in checked_pair(clean_NK, released_NK))
    clean, released = (c / c.sum(dim=1, keepdim=True) for c in pair)
    log_ratio = clean.clamp_min(KL_FLOOR).log() - released.clamp_min(KL_FLOOR).log()
    return float((clean * log_ratio).sum(dim=1).mean())


def expected_calibration_error(released_NK: Tensor, y_N: Tensor, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017), in [0, 1].

    Confidence is the largest score. The bins ``((b-1)/bins, b/bins]`` are equally wide; each contributes its
    share of the rows times ``|accuracy - mean confidence|``.

    Raises:
        ValueError: as :func:`accuracy`, or ``bins`` below 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    released = checked_vectors("released", released_NK)
    y_N = checked_labels(y_N, *released.shape)
    confidence_N, label_N = released.max(dim=1).values, released.argmax(dim=1)
    bin_N = ((confidence_N * bins).ceil().long() - 1).clamp(0, bins - 1)
    # share * |accuracy - confidence| of a bin is |sum of (hit - confidence)| / N
    gap_N = (label_N == y_N).double() - confidence_N
    return float(torch.bincount(bin_N, weights=gap_N, minlength=bins).abs().sum() / len(y_N))


def _average_ranks(c_NK: Tensor) -> Tensor:
    """Ranks 1..K within each row; equal scores share the mean of their ranks."""
    return mean_ranks(c_NK.sort(dim=1).values, c_NK)


def rank_correlations(a_NK: Tensor, b_NK: Tensor) -> Tensor:
    """Spearman's rank correlation of each row (N,); 0 where the scores of either row are all equal."""
    centre = (a_NK.shape[1] + 1) / 2  # the mean of 1..K, with ties too
    a, b = _average_ranks(a_NK) - centre, _average_ranks(b_NK) - centre
    scale = (a.square().sum(dim=1) * b.square().sum(dim=1)).sqrt()
    return torch.where(scale > 0, (a * b).sum(dim=1) / scale.clamp_min(1e-300), 0.0)


def rank_correlation(clean_NK: Tensor, released_NK: Tensor) -> float:
    """Mean over the rows of Spearman's rank correlation, in [-1, 1], ties at their average rank.

    Spearman's coefficient is undefined for a row whose scores are all equal. Such a row, clean or released,
    counts as 0 (it carries no order), also where both are constant.
    """
    return float(rank_correlations(*checked_pair(clean_NK, released_NK)).mean())


def utility_metrics(clean_NK: Tensor, released_NK: Tensor, y_N: Tensor) -> dict[str, float]:
    """All utility columns of a record, from the same queries' clean and released vectors and true labels."""
    return {
        "model_accuracy": accuracy(clean_NK, y_N),
        "protected_accuracy": accuracy(released_NK, y_N),
        "confidence_distortion": confidence_distortion(clean_NK, released_NK),
        "label_agreement": label_agreement(clean_NK, released_NK),
        "kl": kl_divergence(clean_NK, released_NK),
        "ece": expected_calibration_error(released_NK, y_N),
        "rank_correlation": rank_correlation(clean_NK, released_NK),
    }
