"""Noise: its length is the budget, its direction uniform on the tangent sphere."""

import math

import torch

from mipoison.defenses.noise import NoiseConfig, TangentNoise, random_direction
from mipoison.randomness import QueryRandomness, content_keys
from tests.mipoison.defenses.helpers import ULP, interior, pictures, protect


def test_noise_has_the_length_of_the_budget_in_the_interior() -> None:
    c, x = interior(200), pictures(200)
    for budget in (1e-3, 0.01, 0.1):
        moved = protect(TangentNoise(NoiseConfig(budget=budget)), c.double(), x) - c.double()
        torch.testing.assert_close(
            moved.norm(dim=1), torch.full((200,), budget, dtype=torch.float64), rtol=1e-4, atol=0
        )
        single = protect(TangentNoise(NoiseConfig(budget=budget)), c, x).double() - c.double()
        assert float((single.norm(dim=1) - budget).abs().max()) < 2 * ULP


def test_noise_directions_are_uniform_on_the_tangent_sphere() -> None:
    n, k = 20_000, 5
    rng = QueryRandomness(torch.arange(n))
    d = random_direction(torch.empty(n, k), rng, "tangent noise")
    assert float(d.sum(1).abs().max()) < 1e-12
    torch.testing.assert_close(d.norm(dim=1), torch.ones(n, dtype=torch.float64))
    assert float(d.mean(0).norm()) < 4 / math.sqrt(n)
    covariance = d.T @ d / n
    expected = (torch.eye(k, dtype=torch.float64) - 1 / k) / (k - 1)
    assert float((covariance - expected).abs().max()) < 4 * 0.3 / math.sqrt(n)
    # On a sphere in three dimensions each coordinate is uniform (Archimedes): K = 4 has such a tangent space.
    import scipy.stats

    axis = torch.tensor([1.0, -1.0, 0.0, 0.0], dtype=torch.float64) / math.sqrt(2)
    height = random_direction(torch.empty(n, 4), rng, "s") @ axis
    assert scipy.stats.kstest(height.numpy(), "uniform", args=(-1, 2)).pvalue > 1e-4


def test_noise_is_the_budget_times_its_direction() -> None:
    c, x = interior(20).double(), pictures(20)
    rng = QueryRandomness(content_keys(x, b"secret"))
    moved = protect(TangentNoise(NoiseConfig(budget=0.05)), c, x) - c
    torch.testing.assert_close(moved / 0.05, random_direction(c, rng, "tangent noise"), rtol=0, atol=1e-6)
