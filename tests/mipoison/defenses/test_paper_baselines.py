"""The paper's baselines against closed forms: wrong signs, lost labels and wrong densities are caught."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from mipoison.defenses import DEFENSES
from mipoison.defenses.advexa import restore_label
from mipoison.defenses.onepara import truncated_laplace
from mipoison.defenses.pgd import loss_gradient
from mipoison.models.bottleneck import BottleneckNet, kl_to_standard_normal
from mipoison.models.classifier import ClassifierConfig
from mipoison.randomness import QueryRandomness, generator
from mipoison.simplex import label_of
from tests.mipoison.defenses.test_contract import fitted, pictures, protect, vectors, view_of


def losses(decoder, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
    return (decoder(c_NK) - x_NCHW).square().flatten(1).mean(1).detach()


def test_the_loss_gradient_is_that_of_finite_differences(make_decoder) -> None:
    net = make_decoder(5, features="raw").double()
    c, x = vectors(4).double(), pictures(4).double()
    found, h = loss_gradient(net, c, x), 1e-6
    for k in range(5):
        step = torch.zeros(5, dtype=torch.float64)
        step[k] = h
        slope = (losses(net, c + step, x) - losses(net, c - step, x)) / (2 * h)
        torch.testing.assert_close(found[:, k], slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["pgd", "advexa"])
def test_ascent_goes_up(name, make_decoder) -> None:
    """The substitute's loss is above the clean one's and above a random start's, for nearly every query."""
    net = make_decoder(5, features="raw")
    c, x = vectors(60, sharpness=0.7), pictures(60)
    budget = 0.1
    z = protect(fitted(name, view_of(net, 5), budget=budget, rounds=20), c, x)
    start = protect(fitted("noise", view_of(net, 5), budget=budget), c, x)
    assert float((losses(net, z, x) > losses(net, c, x)).double().mean()) > 0.95
    assert float((losses(net, z, x) > losses(net, start, x)).double().mean()) > 0.9


def test_pgd_may_lose_the_label_and_advexa_may_not(make_decoder) -> None:
    net = make_decoder(5, features="raw")
    c, x = vectors(80, sharpness=0.3), pictures(80)
    free, kept = (
        protect(fitted(name, view_of(net, 5), budget=0.3, rounds=20), c, x) for name in ("pgd", "advexa")
    )
    assert not torch.equal(label_of(free), label_of(c))
    assert torch.equal(label_of(kept), label_of(c))
    assert float((kept - c).norm(dim=1).mean()) > 0.02  # it does move


def test_the_label_modifier_exchanges_two_scores() -> None:
    z = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    assert restore_label(z, torch.tensor([2, 0])).tolist() == [
        pytest.approx([0.2, 0.3, 0.5]),
        pytest.approx([0.6, 0.3, 0.1]),
    ]


def test_poi_mse_lowers_the_distance(make_decoder) -> None:
    from mipoison.alignment import norm_of, parameter_gradient

    net = make_decoder(5, width=4, features="raw")
    view = view_of(net, 5)
    c, x = vectors(12, sharpness=0.7), pictures(12)
    defense = fitted("poi-mse", view, budget=0.1, rounds=40, step=0.05)
    start = fitted("poi-mse", view, budget=0.1, rounds=0)

    def distance(z: Tensor) -> list[float]:
        gradients = [parameter_gradient(net, z[i : i + 1], x[i : i + 1]) for i in range(len(z))]
        return [
            float(norm_of([t - g for t, g in zip(defense.target, own, strict=True)])) for own in gradients
        ]

    before, after = distance(protect(start, c, x)), distance(protect(defense, c, x))
    assert np.mean(after) < np.mean(before)
    assert np.mean(np.array(after) < np.array(before)) > 0.9


@pytest.mark.parametrize("rate", [1e-3, 1.0, 50.0, 5e4])
@pytest.mark.parametrize(("low", "centre", "high"), [(0.1, 0.2, 0.7), (0.0, 0.0, 0.3), (0.4, 1.0, 1.0)])
def test_the_mechanism_draws_from_its_density(rate, low, centre, high) -> None:
    u = torch.linspace(0.001, 0.999, 41, dtype=torch.float64)
    full = [torch.full_like(u, v) for v in (centre, low, high)]
    y = truncated_laplace(u, *full, rate)
    assert bool(((y >= low) & (y <= high)).all())
    assert bool((y.diff() >= 0).all())

    def mass(a: float, b: float) -> float:
        ends = sorted({a, min(max(centre, a), b), b})
        pieces = list(itertools.pairwise(ends))
        if rate < 1e3:
            return sum(
                quad(lambda t: np.exp(-rate * abs(t - centre)), p, q, epsabs=1e-14)[0] for p, q in pieces
            )
        nearest = [(q - p, min(abs(p - centre), abs(q - centre))) for p, q in pieces]  # quad misses the peak
        return sum(-np.expm1(-rate * length) * np.exp(-rate * near) / rate for length, near in nearest)

    whole = mass(low, high)
    for share, value in zip(u.tolist()[::8], y.tolist()[::8], strict=True):
        assert mass(low, value) / whole == pytest.approx(share, abs=1e-6)


def test_onepara_keeps_ranks_and_tends_to_the_identity() -> None:
    c, x = vectors(200, 8), pictures(200)
    for epsilon in (0.1, 10.0, 1e9):
        defense = DEFENSES["onepara"](epsilon=epsilon).make()
        z = protect(defense, c, x)
        assert torch.equal(z.argsort(1), c.argsort(1))
    torch.testing.assert_close(z, c, rtol=0, atol=1e-6)
    near, far = (
        float((protect(DEFENSES["onepara"](epsilon=e).make(), c, x) - c).norm(dim=1).mean()) for e in (1e3, 1)
    )
    assert near < far


def test_no_normalised_vector_is_as_far_as_the_paper_says() -> None:
    """From one-hot to uniform is 0.894 for five classes: the reported 0.991 is beyond it."""
    c = torch.eye(5).repeat(40, 1)
    z = protect(DEFENSES["onepara"](epsilon=0.1).make(), c, pictures(200))
    assert float((z - c).norm(dim=1).max()) <= np.sqrt(1 - 1 / 5) + 1e-6


def test_the_divergence_is_that_of_torch() -> None:
    mu, sigma = torch.randn(6, 4, generator=generator(0)), torch.rand(6, 4, generator=generator(1)) + 0.1
    slow = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu, sigma), torch.distributions.Normal(0.0, 1.0)
    ).sum(1)
    torch.testing.assert_close(kl_to_standard_normal(mu, sigma), slow)


def test_training_output_carries_the_divergence() -> None:
    net = BottleneckNet(ClassifierConfig(width=4, hidden=8), (1, 16, 16), 3)
    x = pictures(5)
    net.train()
    torch.manual_seed(0)
    out = net(x)
    net.train()
    assert out.shape == (5, 4)
    net.eval()
    assert net(x).shape == (5, 3)
    torch.testing.assert_close(net(x), net.logits(x, torch.zeros(5, 8)))


def test_mid_learns_its_task_and_beta_squeezes_it(tiny_scene) -> None:
    c, x = tiny_scene.clean["private_test"], tiny_scene.split.private_test.x_NCHW
    y = tiny_scene.split.private_test.y_N
    agreement, spread = {}, {}
    for beta in (1e-4, 5.0):
        defense = fitted("mid", tiny_scene.view(), beta=beta)
        z = protect(defense, c, x)
        agreement[beta] = float((z.argmax(1) == y).double().mean())
        mu, sigma = defense.network.bottleneck(x)
        spread[beta] = float(kl_to_standard_normal(mu, sigma).mean())
    assert agreement[1e-4] > 0.85
    assert spread[5.0] < 0.2 * spread[1e-4]


def test_mid_sampling(tiny_scene) -> None:
    c, x = tiny_scene.clean["private_test"][:8], tiny_scene.split.private_test.x_NCHW[:8]
    answers = {}
    for sampling in ("keyed", "fresh", "mean"):
        defense = fitted("mid", tiny_scene.view(), sampling=sampling)
        assert defense.fresh == (sampling == "fresh")
        answers[sampling] = [
            defense.protect(c, x, defense.pick(c), rng=QueryRandomness(torch.arange(8) + shift))
            for shift in (0, 100)
        ]
    assert torch.equal(answers["keyed"][0], answers["fresh"][0])  # one network, one draw per key
    assert not torch.equal(*answers["keyed"])
    assert torch.equal(*answers["mean"])


def test_mid_is_trained_once_per_scene_and_settings(tiny_scene) -> None:
    fitted("mid", tiny_scene.view(), beta=0.3)
    before = tiny_scene.store.made
    fitted("mid", tiny_scene.view(), beta=0.3)
    fitted("mid", tiny_scene.view(), beta=0.3, sampling="mean")
    assert tiny_scene.store.made == before
    fitted("mid", tiny_scene.view(), beta=0.31)
    assert tiny_scene.store.made == before + 1
