"""Mean errors over random halves of the pool: how much a mean depends on which images happened to be in it.

A mean over half of the images, drawn without replacement, has the bootstrap's variance around the mean over
all of them (McCarthy 1969, "Pseudo-replication: half samples"), and the halves are the same for every
attacker and every setting that is judged on the same pool, so that differences stay paired.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

HALVES = 16
"""Half-samples of a pool."""
COLUMNS = tuple(f"error_half.{r:02d}" for r in range(HALVES))
TEST_COLUMNS = tuple(f"error_half_test.{r:02d}" for r in range(HALVES))
"""Columns of :func:`half_sample_errors` on private train and on private test images."""


@functools.lru_cache(maxsize=8)
def half_samples(n: int) -> Tensor:
    """The half-samples of a pool of n images: weights (HALVES, n), float64, rows that sum to 1.

    Drawn once and for all by a generator of their own: they depend on n alone. A pool of one image has only
    itself.
    """
    if n < 1:
        raise ValueError(f"a pool needs at least 1 image, got {n}")
    rng = torch.Generator().manual_seed(1969)
    size = max(n // 2, 1)
    weights = torch.zeros(HALVES, n, dtype=torch.float64)
    for row in weights:
        row[torch.randperm(n, generator=rng)[:size]] = 1 / size
    return weights


def half_sample_errors(errors_N: Tensor, columns: tuple[str, ...] = COLUMNS) -> dict[str, float]:
    """Mean error over each half-sample, by column.

    Args:
        errors_N: per-image errors of one attacker, in the pool's order.
        columns: names, one a half-sample.

    Raises:
        ValueError: no images.
    """
    means = half_samples(len(errors_N)) @ errors_N.detach().cpu().double()
    return dict(zip(columns, means.tolist(), strict=True))
