"""Gaussian noise and the label's grid: a release depends on nothing but what its certificate is of."""

import math

import pytest
import torch
from torch import Tensor

from mipoison.certificates.observation import Observation, Uncertifiable
from mipoison.config import ConfigError
from mipoison.defenses.noise import NoiseConfig, NoiseFreshConfig, TangentNoise
from mipoison.defenses.tail_noise import TailNoise, TailNoiseConfig, label_grid, tail_normal
from mipoison.randomness import QueryRandomness, generator
from mipoison.simplex import label_of, project_tangent
from tests.mipoison.defenses.helpers import ULP, assert_released, interior, pictures, protect, vectors

CORNERS = torch.tensor(
    [
        [0, 0, 1, 0, 0],
        [0.2] * 5,
        [0.5, 0.5, 0, 0, 0],
        [0.1, 0.4, 0.1, 0.4, 0],
        [1 - 3e-20, 1e-20, 1e-20, 1e-20, 0],
    ]
)


class Given(QueryRandomness):
    """Draws these numbers."""

    def __init__(self, g_NK: Tensor) -> None:
        super().__init__(torch.arange(len(g_NK)))
        self.g_NK = g_NK

    def normal(self, width: int, stream: str) -> Tensor:
        return self.g_NK


def release(defense: TangentNoise | TailNoise, c_NK: Tensor, g_NK: Tensor) -> Tensor:
    return defense.protect(c_NK, pictures(len(c_NK)), defense.pick(c_NK), rng=Given(g_NK))


@pytest.mark.parametrize("config", [NoiseConfig, TailNoiseConfig])
def test_the_law_is_young_and_older_settings_keep_their_identity(config: type) -> None:
    assert config().flat() == {"budget": 0.01, "randomness": "keyed"}
    assert config.recorded({"budget": 0.01, "randomness": "keyed"}).law == "sphere"
    gaussian = config(law="gaussian")
    assert gaussian.flat()["law"] == "gaussian"
    assert gaussian.digest() != config().digest()
    assert config.recorded(gaussian.flat()) == gaussian
    with pytest.raises(ConfigError, match="sphere, gaussian"):
        config(law="laplace")


@pytest.mark.parametrize("k", [3, 5, 10])
def test_the_noise_is_normal_on_the_tangent_and_its_mean_square_length_the_budget(k: int) -> None:
    """Inside the simplex nothing is cut: the covariance is sigma^2 times the projection onto the tangent."""
    n, budget = 40_000, 0.02
    c = torch.full((n, k), 0.5 / (k - 1), dtype=torch.float64)
    c[:, 1] = 0.5
    defense = TangentNoise(NoiseConfig(budget=budget, law="gaussian"))
    moved = defense.protect(c, torch.empty(n), defense.pick(c), rng=QueryRandomness(torch.arange(n))) - c
    assert float(moved.square().sum(1).mean()) == pytest.approx(budget**2, rel=0.02)
    expected = defense.sigma(k) ** 2 * (torch.eye(k, dtype=torch.float64) - 1 / k)
    assert float((moved.T @ moved / n - expected).abs().max()) < 5 * defense.sigma(k) ** 2 / math.sqrt(n)
    import scipy.stats

    assert scipy.stats.kstest((moved[:, 0] / moved[:, 0].std()).numpy(), "norm").pvalue > 1e-4


def test_the_release_is_a_function_of_the_noisy_vector_and_the_label() -> None:
    """Other clean vectors, other draws, the same sum of both: the same release, bit for bit."""
    one, two = vectors(400, sharpness=3.0), vectors(400, seed=1, sharpness=3.0)
    same = label_of(one) == label_of(two)
    one, two = one[same].double(), two[same].double()
    assert len(one) > 50
    for budget in (0.01, 0.3, 1.5):
        defense = TangentNoise(NoiseConfig(budget=budget, law="gaussian"))
        g = torch.randn(len(one), 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        other = g + (project_tangent(one) - project_tangent(two)) / defense.sigma(5)
        z_one, z_two = release(defense, one, g).float(), release(defense, two, other).float()
        assert float((z_one != z_two).any(1).double().mean()) < 0.02  # the last bit of a float64 sum
        torch.testing.assert_close(z_one, z_two, rtol=0, atol=ULP)
        assert not torch.equal(release(defense, one, g).float(), release(defense, two, g).float())


def test_a_certificate_s_law_never_releases_the_clean_vector_but_at_budget_zero() -> None:
    c, x = torch.cat([CORNERS, vectors(200, sharpness=6.0)]), pictures(205)
    for cls in (NoiseConfig, NoiseFreshConfig):
        zero = protect(cls(law="gaussian", budget=0.0).make(), c, x)
        assert torch.equal(zero, c)
    z = protect(NoiseConfig(law="gaussian", budget=1e-3).make(), c, x)
    assert_released(z, c)
    assert torch.equal(label_of(z), label_of(c))
    # Projected onto a convex set that holds c: never further than the noise was long.
    assert float((z - c).norm(dim=1).max()) < 5e-3


@pytest.mark.parametrize("k", [2, 3, 5, 40])
@pytest.mark.parametrize("budget", [1e-4, 0.05, 1.5])
@pytest.mark.parametrize("law", ["sphere", "gaussian"])
@pytest.mark.parametrize("steps", [0, 1, 3, 20])
def test_tail_noise_keeps_label_score_and_sum(k: int, budget: float, law: str, steps: int) -> None:
    c = torch.cat([vectors(60, k), vectors(60, k, sharpness=30.0), torch.full((1, k), 1 / k), torch.eye(k)])
    z = protect(TailNoise(TailNoiseConfig(budget=budget, law=law, label_steps=steps)), c, pictures(len(c)))
    assert_released(z, c)
    label = label_of(c)
    assert torch.equal(label_of(z), label)
    top = c.gather(1, label[:, None])
    expected = top if steps == 0 else label_grid(top, steps, k).to(c)
    assert torch.equal(z.gather(1, label[:, None]), expected)


def test_the_label_s_grid_is_the_nearest_multiple_from_one_over_k_on() -> None:
    top = torch.linspace(0.2, 1, 4001, dtype=torch.float64)[:, None]
    for steps in (1, 2, 3, 5, 20, 100):
        grid = [j / steps for j in range(steps + 1) if j / steps >= 0.2 - 1e-12]
        nearest = (top - torch.tensor([grid], dtype=torch.float64)).abs().amin(1, keepdim=True)
        assert float(((label_grid(top, steps, 5) - top).abs() - nearest).abs().max()) < 1e-12


def test_tail_noise_inside_the_simplex_has_the_stated_covariance() -> None:
    n, k, budget = 40_000, 5, 0.02
    c = interior(n, k).double()
    defense = TailNoise(TailNoiseConfig(budget=budget, law="gaussian"))
    moved = defense.protect(c, torch.empty(n), defense.pick(c), rng=QueryRandomness(torch.arange(n))) - c
    assert bool((moved[:, 1] == 0).all())
    assert float(moved.square().sum(1).mean()) == pytest.approx(budget**2, rel=0.02)
    tail = torch.tensor([1.0, 0, 1, 1, 1], dtype=torch.float64)
    expected = defense.sigma(k) ** 2 * (torch.diag(tail) - torch.outer(tail, tail) / 4)
    assert float((moved.T @ moved / n - expected).abs().max()) < 5 * defense.sigma(k) ** 2 / math.sqrt(n)


def test_tail_release_is_a_function_of_label_grid_and_noisy_tail() -> None:
    one, two = vectors(9000), vectors(9000, seed=1)
    defense = TailNoise(TailNoiseConfig(budget=0.1, law="gaussian", label_steps=5))
    (top_one, tail_one), (top_two, tail_two) = defense.parts(one), defense.parts(two)
    same = (label_of(one) == label_of(two)) & (top_one == top_two)[:, 0] & (top_one < 1)[:, 0]
    one, two = one[same], two[same]
    assert len(one) > 50
    g = torch.randn(len(one), 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    other = tail_normal(one, Given(g)) + (tail_one[same] - tail_two[same]) / defense.sigma(5)
    torch.testing.assert_close(release(defense, one, g), release(defense, two, other), rtol=0, atol=ULP)
    assert not torch.equal(release(defense, one, g), release(defense, two, g))


LAWS = [
    NoiseConfig(law="gaussian", budget=0.1),
    NoiseFreshConfig(law="gaussian", budget=0.01),
    TailNoiseConfig(law="gaussian", budget=0.1, label_steps=5),
    TailNoiseConfig(law="gaussian", label_steps=1),
]


@pytest.mark.parametrize("config", LAWS, ids=str)
def test_the_stated_law_is_that_of_the_release(config: NoiseConfig | TailNoiseConfig) -> None:
    """The defense under many keys against its statement under other normal numbers: Kolmogorov-Smirnov."""
    import scipy.stats

    defense, n = config.make(), 10_000
    for row in (vectors(1), vectors(1, seed=3, sharpness=6.0), torch.tensor([[0.2, 0.3, 0.3, 0.1, 0.1]])):
        c = row.expand(n, 5).contiguous()
        z = defense.protect(c, torch.empty(n), defense.pick(c), rng=QueryRandomness(torch.arange(n)))
        stated = defense.observation(c, z)
        assert isinstance(stated, Observation)
        assert stated.gaussian is not None
        g = torch.randn(stated.gaussian.means_NM.shape, generator=generator(1, "law"), dtype=torch.float64)
        y = stated.gaussian.means_NM.double() + stated.gaussian.sigma * g
        other = stated.gaussian.release(stated.rows_ND, y)
        assert other.dtype == z.dtype
        for j in range(5):
            assert scipy.stats.ks_2samp(z[:, j].numpy(), other[:, j].numpy()).pvalue > 1e-4


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (NoiseConfig(), "fixed length"),
        (NoiseConfig(budget=0.0, law="gaussian"), "continuum"),
        (TailNoiseConfig(law="gaussian"), "stays exact"),
        (TailNoiseConfig(label_steps=5), "fixed length"),
        (TailNoiseConfig(label_steps=5, law="gaussian", budget=0.0), "continuum"),
    ],
)
def test_other_settings_have_no_certificate(config: NoiseConfig | TailNoiseConfig, reason: str) -> None:
    stated = config.make().observation(vectors(4), vectors(4))
    assert isinstance(stated, Uncertifiable)
    assert reason in stated.reason


@pytest.mark.parametrize("budget", [0.0, 0.1])
@pytest.mark.parametrize("cls", [NoiseConfig, TailNoiseConfig])
def test_what_draws_says_so(cls: type, budget: float) -> None:
    """Without noise the Gaussian laws ask for no numbers, and so for no secret."""
    defense, c = cls(law="gaussian", budget=budget).make(), vectors(9)
    assert defense.draws is (budget > 0)
    if not defense.draws:
        assert torch.equal(defense.protect(c, pictures(9), defense.pick(c), rng=None), c)
