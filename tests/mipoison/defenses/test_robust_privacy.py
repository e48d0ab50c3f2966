"""Robust Privacy: votes against a plain loop, one classifier for each copy, the radius, what is certified."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from mipoison.certificates import Observation, Uncertifiable
from mipoison.certificates.observation import CONTINUUM
from mipoison.config import ConfigError
from mipoison.defenses.pipeline import Pipeline, victim_of
from mipoison.defenses.robust_privacy import KEYED, RobustPrivacyConfig, certified_radius
from mipoison.randomness import QueryRandomness, content_keys, generator
from tests.mipoison.defenses.helpers import CPU, fitted, linear_victim, pictures, protect, vectors, view_of

SECRET = b"secret"


@pytest.fixture(scope="module")
def view(make_decoder):
    return view_of(make_decoder(5), 5)


def looped(x: Tensor, sigma: float, samples: int, noise: Tensor, how: str) -> Tensor:
    """One image, one copy, one question at a time, in float64. noise: (N or 1, S, D)."""
    net = copy.deepcopy(linear_victim(5)).double()
    out = torch.zeros(len(x), 5, dtype=torch.float64)
    for i in range(len(x)):
        for s in range(samples):
            pixels = x[i].double().flatten() + sigma * noise[i % len(noise), s].double()
            c = torch.softmax(net(pixels.clamp(0, 1)[None]), 1)[0]
            if how == "mean":
                out[i] += c / samples
            else:
                out[i, int(c.argmax())] += 1 / samples
    if how == "label":
        best = out.argmax(1)
        out = torch.zeros_like(out)
        out[torch.arange(len(x)), best] = 1
    return out


@pytest.mark.parametrize("how", ["votes", "label", "mean"])
def test_answers_are_those_of_a_loop(view, how: str) -> None:
    x, sigma, samples = pictures(20, seed=3), 0.4, 7
    common = fitted("robust-privacy", view, sigma=sigma, samples=samples, releases=how, noise="common")
    keyed = fitted("robust-privacy", view, sigma=sigma, samples=samples, releases=how)
    keys = QueryRandomness(content_keys(x, SECRET))
    drawn = torch.stack([keys.normal(256, f"smoothing {s}") for s in range(samples)], 1)
    for defense, noise in ((common, common.noise_SCHW.flatten(1)[None]), (keyed, drawn)):
        z = protect(defense, vectors(20), x)
        expected = looped(x, sigma, samples, noise, how)
        torch.testing.assert_close(z.double(), expected, rtol=0, atol=1e-6)
    assert len(torch.unique(protect(keyed, vectors(20), x), dim=0)) > 2


def test_noise_is_standard_normal_and_of_each_image_its_own(view) -> None:
    keyed = fitted("robust-privacy", view)
    x = pictures(40)
    keys = QueryRandomness(content_keys(x, SECRET))
    noise = torch.cat([keyed._noise(x, s, keys).flatten(1) for s in range(4)])
    assert scipy.stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    correlation = torch.corrcoef(noise)
    assert float((correlation - torch.eye(len(noise))).abs().max()) < 0.45


def test_votes_come_nearer_to_the_smoothed_classifier_with_more_copies(view) -> None:
    """The exact law for a linear victim with two classes: the label's chance is a normal probability."""
    net = linear_victim(2)
    x, sigma = 0.4 + 0.2 * pictures(60), 0.05  # pixels that noise takes out of [0, 1] once in 1e15 draws
    slope = (net[1].weight[1] - net[1].weight[0]).double()
    chance = scipy.stats.norm.cdf((x.flatten(1).double() @ slope) / (sigma * float(slope.norm())))
    error = {}
    for samples in (4, 256):
        defense = fitted("robust-privacy", view, sigma=sigma, samples=samples)
        behind = defense.behind(victim_of(net, 2, CPU))
        votes = protect(behind, torch.full((60, 2), 0.5), x)[:, 1].double()
        error[samples] = float((votes - torch.as_tensor(chance)).square().mean().sqrt())
        expected = float(torch.as_tensor(chance * (1 - chance)).mean().div(samples).sqrt())
        assert 0.6 * expected < error[samples] < 1.5 * expected
    assert error[256] < 0.3 * error[4]


def test_each_pipeline_asks_its_own_classifier(view) -> None:
    """One fitted defense behind two classifiers: neither takes the other's place."""
    defense = fitted("robust-privacy", view, noise="common")
    x = pictures(30)
    alike, other = linear_victim(5), nn.Sequential(nn.Flatten(), nn.Linear(256, 5)).requires_grad_(False)
    first, second = (Pipeline(net, defense, 5, CPU) for net in (alike, other))
    assert torch.equal(first.release(x, secret=None), protect(defense, vectors(30), x))
    assert not torch.equal(second.release(x, secret=None), first.release(x, secret=None))
    assert torch.equal(first.release(x, secret=None), protect(defense, vectors(30), x))


def test_a_saved_defense_asks_whom_it_is_put_behind(view) -> None:
    defense = fitted("robust-privacy", view, noise="common")
    x = pictures(10)
    loaded = RobustPrivacyConfig(noise="common").make()
    loaded.load_state(defense.state())
    with pytest.raises(ConfigError, match="asks the classifier again"):
        protect(loaded, vectors(10), x)
    behind = Pipeline(linear_victim(5), loaded, 5, CPU)
    assert torch.equal(behind.release(x, secret=None), protect(defense, vectors(10), x))
    again = pickle.loads(pickle.dumps(defense))
    assert torch.equal(protect(again, vectors(10), x), protect(defense, vectors(10), x))


def test_the_radius_against_the_library_and_the_formula() -> None:
    votes = torch.tensor([[100, 0, 0], [90, 10, 0], [50, 25, 25], [34, 33, 33]])
    found = certified_radius(votes, sigma=0.5, alpha=0.003)
    assert float(found[0]) == pytest.approx(0.5 * scipy.stats.norm.ppf(0.001 ** (1 / 100)), rel=1e-9)
    low = scipy.stats.binomtest(90, 100, alternative="greater").proportion_ci(0.999, "exact").low
    assert float(found[1]) == pytest.approx(0.5 * scipy.stats.norm.ppf(low), rel=1e-9)
    assert found[2:].tolist() == [0.0, 0.0]


def test_the_label_is_the_same_within_the_radius() -> None:
    """A linear victim, where the distance to the boundary is known: the radius is below it, and near it."""
    net = linear_victim(2)
    x, sigma, samples = 0.4 + 0.2 * pictures(40), 0.05, 2000
    slope = net[1].weight[1] - net[1].weight[0]
    distance = (x.flatten(1) @ slope).abs() / slope.norm()
    noise = torch.randn(40, samples, 256, generator=generator(1))
    right = ((x.flatten(1)[:, None] + sigma * noise) @ slope > 0).sum(1)
    radius = certified_radius(torch.stack([samples - right, right], 1), sigma)
    assert bool((radius <= distance.double()).all())
    unsure = (right > 20) & (right < samples - 20)
    assert int(unsure.sum()) > 5
    assert bool((radius[unsure] > distance[unsure].double() - 0.3 * sigma).all())


def test_what_is_certified(view) -> None:
    c, x = vectors(30), pictures(30)
    for noise, how, expected in (
        ("common", "votes", None), ("common", "label", None), ("common", "mean", CONTINUUM),
        ("keyed", "votes", KEYED), ("keyed", "label", KEYED),
    ):  # fmt: skip
        defense = fitted("robust-privacy", view, noise=noise, releases=how)
        assert defense.draws == (noise == "keyed")
        stated = defense.observation(c, protect(defense, c, x))
        if expected is None:
            assert isinstance(stated, Observation)
            assert bool((stated.rows_ND * 16 == (stated.rows_ND * 16).round()).all())
        else:
            assert isinstance(stated, Uncertifiable)
            assert stated.reason == expected


def test_without_a_classifier_it_says_so(view) -> None:
    defense = RobustPrivacyConfig().make()
    with pytest.raises(ConfigError, match="asks the classifier again"):
        protect(defense, vectors(3), pictures(3))
    assert protect(defense, vectors(3)[:0], pictures(3)[:0]).shape == (0, 5)
    assert math.isfinite(RobustPrivacyConfig().sigma)
