"""The bottleneck's divergence is torch's, and its training output carries it."""

from __future__ import annotations

import torch

from mipoison.models.bottleneck import BottleneckNet, kl_to_standard_normal
from mipoison.models.classifier import ClassifierConfig
from mipoison.randomness import generator
from tests.mipoison.defenses.helpers import pictures


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
