"""DP-SGD: one step against a loop over images, its noise, its accounting, and that it learns its task."""

from __future__ import annotations

import builtins
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.special import gammaln, logsumexp
from torch import Tensor, nn

from mipoison.config import ConfigError
from mipoison.defenses.dp_sgd import DPSGDConfig, epsilon_spent, group_normalised, train_privately
from mipoison.models.classifier import ClassifierConfig, confidence_vectors
from mipoison.randomness import generator
from mipoison.training import seeded
from tests.mipoison.defenses.helpers import CPU, fitted, pictures, protect, vectors, view_of

VICTIM = ClassifierConfig(width=4, hidden=8, steps=10, batch=16)


@pytest.fixture
def opacus() -> Any:
    return pytest.importorskip("opacus", reason="needs the extra dp")


def network(seed: int = 0) -> nn.Module:
    """The private victim without dropout, so that one image's gradient is the same in and out of a batch."""
    with seeded(generator(seed, "net"), CPU):
        net = group_normalised(VICTIM, (1, 16, 16), 5)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


def looped_step(net: nn.Module, x: Tensor, y: Tensor, clip: float, expected: int) -> list[Tensor]:
    """The clipped gradients' sum over the expected number, one image after the other."""
    total = [torch.zeros_like(p) for p in net.parameters()]
    for i in range(len(x)):
        gradient = torch.autograd.grad(F.cross_entropy(net(x[i : i + 1]), y[i : i + 1]), [*net.parameters()])
        length = math.sqrt(sum(float(g.square().sum()) for g in gradient))
        for s, g in zip(total, gradient, strict=True):
            s += g * min(1.0, clip / length)
    return [s / expected for s in total]


@pytest.mark.parametrize("clip", [0.5, 1000.0])
def test_a_step_is_the_mean_of_clipped_gradients(opacus, clip: float, monkeypatch) -> None:
    """Without noise and with plain descent in place of Adam; the batch holds every image."""
    net, slow = network(), network()
    x, y = pictures(12), torch.arange(12) % 5
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    monkeypatch.setattr(
        torch.optim.lr_scheduler, "OneCycleLR", lambda o, lr, **_: torch.optim.lr_scheduler.ConstantLR(o, 1.0)
    )
    train_privately(net, x, y, noise_multiplier=0.0, clip=clip, steps=1, batch=12, lr=0.3, rng=generator(0))
    expected = looped_step(slow, x, y, clip, 12)
    for after, before, g in zip(net.parameters(), slow.parameters(), expected, strict=True):
        torch.testing.assert_close(after, before - 0.3 * g, rtol=1e-4, atol=1e-6)


def test_noise_has_the_stated_size(opacus, monkeypatch) -> None:
    """Weights after one step with and without noise differ by lr * multiplier * clip / batch a coordinate."""
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    monkeypatch.setattr(
        torch.optim.lr_scheduler, "OneCycleLR", lambda o, lr, **_: torch.optim.lr_scheduler.ConstantLR(o, 1.0)
    )
    flat = {}
    for multiplier in (0.0, 3.0):
        net = network()
        train_privately(
            net, pictures(12), torch.arange(12) % 5, noise_multiplier=multiplier, clip=0.5,
            steps=1, batch=12, lr=1.0, rng=generator(0),
        )  # fmt: skip
        flat[multiplier] = torch.cat([p.detach().flatten() for p in net.parameters()]).double()
    noise = (flat[3.0] - flat[0.0]) * 12 / (3.0 * 0.5)
    n = len(noise)
    assert n > 1000
    assert abs(float(noise.mean())) < 5 / math.sqrt(n)
    assert abs(float(noise.square().mean()) - 1) < 5 * math.sqrt(2 / n)


def slow_epsilon(sigma: float, q: float, steps: int, delta: float) -> float:
    """Integer orders only, from the binomial expansion (Mironov et al. 2019, Section 3.3), and the conversion
    of Canonne, Kamath, Steinke 2020, Proposition 12."""
    found = []
    for a in range(2, 200):
        k = range(a + 1)
        terms = [
            gammaln(a + 1) - gammaln(i + 1) - gammaln(a - i + 1)
            + (a - i) * (math.log1p(-q) if q < 1 else (0.0 if i == a else -math.inf)) + i * math.log(q)
            + (i * i - i) / (2 * sigma**2)
            for i in k
        ]  # fmt: skip
        rdp = steps * float(logsumexp(terms)) / (a - 1)
        found.append(rdp + math.log1p(-1 / a) - (math.log(delta) + math.log(a)) / (a - 1))
    return min(found)


@pytest.mark.parametrize(
    ("sigma", "n", "batch", "steps"),
    [(4.0, 361, 128, 100), (8.0, 361, 128, 600), (2.0, 5000, 128, 600), (1.1, 60_000, 256, 2000)],
)
def test_epsilon_against_the_binomial_expansion(opacus, sigma: float, n: int, batch: int, steps: int) -> None:
    """The library also tries fractional orders, so that it may be a little below, and never above."""
    victim = ClassifierConfig(steps=steps, batch=batch)
    ours = epsilon_spent(DPSGDConfig(noise_multiplier=sigma), n, victim)
    expected = slow_epsilon(sigma, min(batch, n) / n, steps, 1 / n)
    assert 0.97 * expected <= ours <= expected * (1 + 1e-9)


def test_epsilon_of_one_whole_batch_step_is_that_of_the_gaussian_mechanism(opacus) -> None:
    """One step on everything is the plain mechanism; its exact epsilon (Balle & Wang 2018) is below."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    sigma, n = 2.0, 100
    ours = epsilon_spent(DPSGDConfig(noise_multiplier=sigma), n, ClassifierConfig(steps=1, batch=n))

    def excess(e: float) -> float:
        return norm.cdf(0.5 / sigma - e * sigma) - math.exp(e) * norm.cdf(-0.5 / sigma - e * sigma) - 1 / n

    exact = brentq(excess, 0, 50)
    assert exact < ours < 1.5 * exact


def test_more_noise_and_fewer_steps_spend_less(opacus) -> None:
    spent = [epsilon_spent(DPSGDConfig(noise_multiplier=s), 361, VICTIM) for s in (0.5, 1.0, 2.0, 8.0)]
    assert all(a > b for a, b in pairwise(spent))
    assert epsilon_spent(DPSGDConfig(noise_multiplier=0.0), 361, VICTIM) == math.inf


def test_no_image_changes_the_answer_to_another(opacus) -> None:
    """Group normalisation: in training mode too, which per-image gradients rest on."""
    net = network().train()
    x = pictures(6)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert sum(isinstance(m, nn.GroupNorm) for m in net.modules()) == 2
    torch.testing.assert_close(net(x)[2:3], net(x[2:3]), rtol=1e-5, atol=1e-6)


def test_it_learns_its_task_and_noise_costs(opacus, tiny_scene) -> None:
    c, x = tiny_scene.clean["private_test"], tiny_scene.split.private_test.x_NCHW
    right = {}
    for multiplier in (0.0, 50.0):
        defense = fitted("dp-sgd", tiny_scene.view(), noise_multiplier=multiplier)
        z = protect(defense, c, x)
        torch.testing.assert_close(z, confidence_vectors(defense.network, x), rtol=0, atol=1e-6)
        right[multiplier] = float((z.argmax(1) == tiny_scene.split.private_test.y_N).double().mean())
    assert right[0.0] > 0.7
    assert right[50.0] < right[0.0] - 0.2


def test_it_is_trained_once_per_scene_and_settings(opacus, tiny_scene) -> None:
    fitted("dp-sgd", tiny_scene.view(), noise_multiplier=2.5)
    before = tiny_scene.store.made
    again = fitted("dp-sgd", tiny_scene.view(), noise_multiplier=2.5)
    assert tiny_scene.store.made == before
    assert not again.draws
    fitted("dp-sgd", tiny_scene.view(), noise_multiplier=2.5, clip=0.7)
    assert tiny_scene.store.made == before + 1


def test_without_opacus_the_error_names_the_extra(monkeypatch, make_decoder) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "opacus":
            raise ImportError("No module named 'opacus'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"mipoison\[dp\]"):
        fitted("dp-sgd", view_of(make_decoder(5), 5))
    with pytest.raises(ConfigError, match=r"mipoison\[dp\]"):
        epsilon_spent(DPSGDConfig(), 361, VICTIM)
    assert protect(fitted("none", view_of(make_decoder(5), 5)), vectors(3), pictures(3)).shape == (3, 5)
