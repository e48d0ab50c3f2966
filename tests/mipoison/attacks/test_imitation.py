"""Simulated releases of an imitated victim: which defenses, which noise, which regression, and what for."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mipoison.attacks import imitation
from mipoison.attacks.imitation import ManyPairs, releases, simulator
from mipoison.attacks.kernel_ridge import Kernel
from mipoison.attacks.mixtures import MixturesConfig
from mipoison.attacks.selection import Standardised
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator
from tests.mipoison.attacks.helpers import BLIND, SHAPE, Spy, brightness, fit, grey


def known(name: str, **settings: Any) -> ThreatModel:
    return ThreatModel(name, settings, SHAPE)


@pytest.mark.parametrize(
    "model",
    [
        BLIND,
        known("none"),
        known("rounding", decimals=1),  # draws nothing
        known("noise", law="gaussian", budget=0.0),
        known("lpa"),  # reads the image, and has a substitute
        known("stealthy-shield"),  # is fitted to private vectors
        known("robust-privacy"),  # asks the victim again
        known("somebody's own"),
    ],
)
def test_what_cannot_be_drawn_from_the_settings_alone_is_not_simulated(model: ThreatModel) -> None:
    assert simulator(model, generator(0)) is None


def test_simulated_noise_follows_the_law_of_the_defense() -> None:
    """Far from the simplex' border noise is as long as the budget, in every direction of the plane alike."""
    simulate = simulator(known("noise", budget=0.05), generator(0))
    assert simulate is not None
    c = torch.tensor([0.5, 0.3, 0.2])
    moved = (simulate(c.repeat(4000, 1)) - c).double().numpy()
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 0.05, rtol=1e-4)
    np.testing.assert_allclose(moved.mean(0), 0, atol=0.002)
    plane = np.eye(3) - 1 / 3  # covariance of a uniform direction in the plane: budget^2 / 2 of its projector
    np.testing.assert_allclose(np.cov(moved.T), plane * 0.05**2 / 2, atol=0.0001)
    assert len(np.unique(moved, axis=0)) == len(moved)


def test_an_imitation_knows_less_of_the_noise_than_the_answers() -> None:
    x, rng = grey(300), generator(1)
    clean = brightness(x)
    noise = 0.1 * torch.randn(300, 1, generator=rng)
    answers = (clean + noise * torch.tensor([1.0, -1.0])).clamp(0, 1)
    found = imitation.imitation(x, answers, generator(2))
    new = grey(200, 7)
    error = float((found(new) - brightness(new)).square().mean())
    assert error < 0.5 * float((answers - clean).square().mean())
    assert torch.equal(found(new), imitation.imitation(x, answers, generator(2))(new))


@pytest.mark.parametrize("sides", [(32, 32), (32, 16), (16, 32), (20, 16)])
def test_images_of_other_sides_and_channels_are_imitated(sides: tuple[int, int]) -> None:
    x = torch.rand(8, 3, *sides, generator=generator(0))
    found = imitation.imitation(x, torch.eye(4).repeat(2, 1), generator(0))(x)
    assert found.shape == (8, 4)
    torch.testing.assert_close(found.sum(1), torch.ones(8))


def test_every_imitation_s_vectors_are_released_equally_often() -> None:
    x = grey(10)
    first, second = torch.tensor([0.9, 0.1]), torch.tensor([0.2, 0.8])
    c, of = releases(
        lambda c: c, [lambda x: first.repeat(len(x), 1), lambda x: second.repeat(len(x), 1)], x, 75
    )
    assert c.shape == (60, 2)
    for row, times in ((first, 3), (second, 3)):
        assert torch.bincount(of[(c == row).all(1)], minlength=10).tolist() == [times] * 10
    c, of = releases(lambda c: c, [lambda x: first.repeat(len(x), 1)], x, 4)
    assert of.tolist() == [0, 1, 2, 3]


def test_the_regression_is_the_normal_equations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imitation, "LANDMARKS", 20)
    monkeypatch.setattr(imitation, "CHUNK", 16)
    rng = generator(0)
    c = torch.softmax(2 * torch.randn(50, 3, generator=rng), 1)
    y = torch.randn(50, 4, generator=rng, dtype=torch.float64)
    found = ManyPairs(Standardised(c, "log"), Kernel("matern", 1.0, across=0.5), c, y, rng)
    assert len(found.z_MF) == 20
    gram = found.gram(c).numpy()
    own = found.kernel(found.z_MF, found.label_M, found.z_MF, found.label_M).numpy()
    expected = np.linalg.solve(gram.T @ gram + 3.0 * own, gram.T @ y.numpy())
    np.testing.assert_allclose(gram @ found.weights(3.0).numpy(), gram @ expected, atol=1e-4)
    np.testing.assert_allclose(
        found.voter(3.0, 0.5)(c).numpy(), 0.5 * gram @ found.weights(3.0).numpy(), atol=1e-12
    )


def noisy(seed: int) -> Any:
    """The defense ``noise`` before a victim whose scores, near a corner, tell how bright an image is."""
    simulate = simulator(known("noise", budget=0.06), generator(seed, "noise"))
    assert simulate is not None
    return lambda x_NCHW: simulate(near_a_corner(x_NCHW))


def near_a_corner(x_NCHW: Tensor) -> Tensor:
    b_N1 = 0.06 * brightness(x_NCHW)[:, :1]
    return torch.cat([1 - b_N1, 0.7 * b_N1, 0.3 * b_N1], 1)


def test_simulated_releases_help_where_noise_hides_the_scores() -> None:
    gains, model = [], known("noise", budget=0.06)
    for seed in (1, 2):
        x, stolen = grey(120, seed), grey(500, seed + 100)
        c = noisy(seed + 50)(stolen)
        errors = [
            float((fit(config, x, Spy(noisy(seed), 3), model).reconstruct(c) - stolen).square().mean())
            for config in (
                MixturesConfig(made="mixtures", each=4, simulated=5000),
                MixturesConfig(made="mixtures", each=4, simulated=0),
            )
        ]
        gains.append(1 - errors[0] / errors[1])
    assert np.mean(gains) > 0.005


def says_nothing(seed: int) -> Any:
    """Answers that have nothing to do with the image, with the noise of the defense."""
    rng, simulate = generator(seed, "answers"), simulator(known("noise", budget=0.1), generator(seed))
    assert simulate is not None
    return lambda x_NCHW: simulate(near_a_corner(torch.rand(len(x_NCHW), 1, 1, 1, generator=rng)))


@pytest.mark.long
def test_answers_that_say_nothing_are_not_believed() -> None:
    """At most a little is lost against simulating nothing, on the same answers."""
    losses, model = [], known("noise", budget=0.1)
    for seed in (1, 2, 3):
        x, stolen = grey(100, seed), grey(500, seed + 100)
        c = says_nothing(seed + 10)(stolen)
        mine, plain = (
            float((fit(config, x, Spy(says_nothing(seed), 3), model).reconstruct(c) - stolen).square().mean())
            for config in (MixturesConfig(), MixturesConfig(simulated=0))
        )
        losses.append(mine / plain - 1)
    assert np.mean(losses) < 0.02


def test_records_of_before_simulated_nothing_and_asked_about_mixtures() -> None:
    before = MixturesConfig.recorded({"each": 4})
    assert before == MixturesConfig(simulated=0, made="mixtures", each=4, levels=1)
    assert MixturesConfig().digest() != MixturesConfig(simulated=0).digest()
