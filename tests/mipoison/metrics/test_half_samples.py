"""Half-samples: each an average over half of the pool, with the bootstrap's variance."""

import numpy as np
import pytest
import torch

from mipoison.metrics.half_samples import COLUMNS, HALVES, half_sample_errors, half_samples
from mipoison.randomness import generator


@pytest.mark.parametrize("n", [1, 2, 7, 361])
def test_every_row_is_the_mean_over_half_of_the_pool(n: int) -> None:
    weights = half_samples(n)
    assert weights.shape == (HALVES, n)
    size = max(n // 2, 1)
    for row in weights.tolist():
        assert sorted(set(row)) in ([0.0, 1 / size], [1 / size])
        assert sum(w > 0 for w in row) == size


def test_they_are_those_of_a_slow_loop_and_the_same_each_time() -> None:
    errors = torch.rand(91, generator=generator(0, "errors"))
    found = half_sample_errors(errors)
    assert list(found) == list(COLUMNS)
    assert found == half_sample_errors(errors.clone())
    for name, row in zip(COLUMNS, half_samples(91), strict=True):
        mine = [float(e) for e, w in zip(errors, row, strict=True) if w > 0]
        assert found[name] == pytest.approx(np.mean(mine), abs=1e-12)


def test_their_spread_is_that_of_a_mean_over_all_images() -> None:
    """E (half mean - mean)^2 = s^2 / n, as for the bootstrap, over many pools."""
    rng = np.random.default_rng(0)
    n, ratios = 400, []
    for _ in range(200):
        errors = rng.gamma(2.0, 1.0, n)
        halves = half_samples(n).numpy() @ errors
        ratios.append(((halves - errors.mean()) ** 2).mean() / (errors.var(ddof=1) / n))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 image, got 0"):
        half_sample_errors(torch.empty(0))
