"""The estimated limit against loops, scikit-learn's neighbours, known residual variances and cells."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from mipoison.metrics import estimated_limit as module
from mipoison.metrics.estimated_limit import (
    SPACES,
    contributions,
    estimated_limit,
    label_and_odds,
    limit_columns,
    log_scores,
)


def vectors(n: int, k: int, seed: int = 0) -> Tensor:
    return torch.softmax(3 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed)), 1).double()


def images(n: int, seed: int = 1) -> Tensor:
    return torch.rand(n, 1, 3, 3, generator=torch.Generator().manual_seed(seed))


def by_loops(z_NF: Tensor, x_ND: Tensor) -> float:
    z, x = z_NF.numpy(), x_ND.numpy() - x_ND.numpy().mean(0)
    total = 0.0
    for i in range(len(z)):
        distance = {j: float(((z[i] - z[j]) ** 2).sum()) ** 0.5 for j in range(len(z)) if j != i}
        least = min(distance.values())
        near = np.mean([x[j] for j, d in distance.items() if d <= least * (1 + 1e-9)], axis=0)
        total += float((x[i] * x[i]).sum() - (x[i] * near).sum())
    return total / x.size


@pytest.mark.parametrize("decimals", [None, 2, 1, 0])
@pytest.mark.parametrize(("chunk", "nearest"), [(128, 4), (7, 2), (7, 1000)])
def test_every_space_is_the_loop_with_ties(
    decimals: int | None, chunk: int, nearest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where more neighbours are tied than were sought first, and where all vectors were sought."""
    monkeypatch.setattr(module, "CHUNK", chunk)
    monkeypatch.setattr(module, "NEAREST", nearest)
    c = vectors(70, 4)
    if decimals is not None:  # cells of several vectors, and lone ones with several neighbours as near
        grid = 10**decimals
        c = torch.cat([c[:, :3].mul(grid).round() / grid, c[:, :1]], 1)
        c[:, 3] = 1 - c[:, :3].sum(1)
        c = c.clamp_min(0) / c.clamp_min(0).sum(1, keepdim=True)
    x = images(70)
    loops = []
    for space in SPACES.values():
        loops.append(by_loops(space(c), x.double().flatten(1)))
        assert contributions(space(c), x.double().flatten(1)).mean() == pytest.approx(loops[-1], abs=1e-12)
    found = estimated_limit(c, x, rng=np.random.default_rng(0))
    assert found.mean == pytest.approx(min(loops), abs=1e-12)


def test_neighbours_are_scikit_learns_where_scores_are_tiny() -> None:
    """Vectors a billionth apart, which the expanded square would confuse."""
    rng = np.random.default_rng(0)
    tail = 10 ** rng.uniform(-12, -7, (300, 4))
    c = torch.from_numpy(np.column_stack([1 - tail.sum(1), tail]))
    x_ND = images(300).double().flatten(1)
    for space in (SPACES["raw"], log_scores):
        z = space(c).numpy()
        near = NearestNeighbors(n_neighbors=2, algorithm="kd_tree").fit(z).kneighbors(z)[1]
        other = np.where(near[:, 0] == np.arange(300), near[:, 1], near[:, 0])
        x = x_ND.numpy() - x_ND.numpy().mean(0)
        expected = (x * (x - x[other])).mean(1)
        assert contributions(space(c), x_ND) == pytest.approx(expected, abs=1e-12)


def test_a_known_residual_variance_is_found_and_covered() -> None:
    """Images are a smooth function of the vector plus noise of variance 0.01: no attacker gets below that."""
    inside, estimates = 0, []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        top = rng.uniform(0.5, 0.99, 400)
        c = torch.from_numpy(np.column_stack([top, (1 - top) * 0.7, (1 - top) * 0.3]))
        signal = 0.5 + 0.3 * np.sin(3 * top)[:, None] * np.linspace(-1, 1, 12)
        noise = rng.uniform(-1, 1, (400, 12)) * (0.03**0.5)
        x = torch.from_numpy(signal + noise).reshape(400, 1, 3, 4)
        found = estimated_limit(c, x, rng=rng)
        estimates.append(found.mean)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.mean <= found.high
        inside += found.low <= 0.01 <= found.high
    assert np.mean(estimates) == pytest.approx(0.01, rel=0.01)
    assert inside >= 33  # of 40; 38 expected, the least of three spaces lies a little low


def test_a_codebook_has_the_unbiased_variance_within_its_cells() -> None:
    label_N = torch.arange(60) % 5
    c, x = torch.eye(5)[label_N], images(60)
    within = sum(float(x[label_N == k].double().flatten(1).var(0).sum()) * 12 for k in range(5)) / (60 * 9)
    found = estimated_limit(c, x, rng=np.random.default_rng(0))
    assert found.mean == pytest.approx(within, abs=1e-12)
    certificate = sum(float((x[label_N == k] - x[label_N == k].mean(0)).square().sum()) for k in range(5)) / (
        60 * 9
    )
    assert certificate <= found.mean  # what knows the images themselves may do better


def test_where_the_image_is_a_function_of_the_vector_next_to_nothing_is_left() -> None:
    top = torch.linspace(0.5, 0.9, 500, dtype=torch.float64)
    c = torch.stack([top, 1 - top], 1)
    x = top[:, None, None, None].expand(-1, 1, 2, 2)
    found = estimated_limit(c, x, rng=np.random.default_rng(0))
    assert 0 <= found.mean < 1e-3 * float(x.var())
    assert found.low is not None
    assert found.low >= 0


def test_a_neighbour_has_the_same_label() -> None:
    c = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9], [0.4, 0.6]]).double()
    distance = torch.cdist(label_and_odds(c), label_and_odds(c)) + 1e9 * torch.eye(4)
    assert distance.argmin(1).tolist() == [1, 0, 3, 2]
    certain = torch.tensor([[1.0, 0.0], [1.0, 1e-15], [0.0, 1.0]])
    assert bool(torch.isfinite(label_and_odds(certain.double())).all())


def test_the_generator_decides() -> None:
    c, x = vectors(50, 3), images(50)
    first, again, other = (estimated_limit(c, x, rng=np.random.default_rng(s)) for s in (0, 0, 1))
    assert first == again
    assert (first.mean, first.n) == (other.mean, 50)
    assert first.low != other.low


def test_columns_and_what_is_refused() -> None:
    rng = np.random.default_rng(0)
    assert set(limit_columns(vectors(1, 3), images(1), rng=rng).values()) == {None}
    names = [*limit_columns(vectors(9, 3), images(9), rng=rng)]
    names += limit_columns(vectors(9, 3), images(9), rng=rng, suffix="_test")
    assert tuple(names) == module.ESTIMATED_LIMIT_COLUMNS
    with pytest.raises(ValueError, match="at least two vectors"):
        estimated_limit(vectors(1, 3), images(1), rng=rng)
    with pytest.raises(ValueError, match="5 vectors and 4 images"):
        estimated_limit(vectors(5, 3), images(4), rng=rng)
    with pytest.raises(ValueError, match="simplex"):
        estimated_limit(2 * vectors(5, 3), images(5), rng=rng)


def test_many_features_and_vectors_too_close_for_squares() -> None:
    """Sixty classes; and vectors so close that the squares of their distances are 0."""
    c, x = vectors(60, 60), images(60).double().flatten(1)
    for space in SPACES.values():
        assert contributions(space(c), x).mean() == pytest.approx(by_loops(space(c), x), abs=1e-12)
    close = torch.arange(9).double()[:, None] * 1e-180
    assert contributions(close, x[:9]).mean() == pytest.approx(by_loops(close, x[:9]), abs=1e-12)


def test_ten_thousand_vectors_take_little() -> None:
    """One to two seconds; all distances took five."""
    c, x = vectors(10_000, 10), images(10_000)
    start = time.process_time()
    estimated_limit(c, x, rng=np.random.default_rng(0))
    assert time.process_time() - start < 5
