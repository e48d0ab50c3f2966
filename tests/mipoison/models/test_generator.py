"""The generator of directions: on the tangent of the simplex, of unit length, from a Gaussian code."""

import torch
from torch.distributions import Normal, kl_divergence

from mipoison.models.generator import GeneratorNet
from mipoison.models.inversion import features
from mipoison.randomness import generator
from mipoison.training import seeded

K, CPU = 5, torch.device("cpu")


def made() -> tuple[GeneratorNet, torch.Tensor]:
    rng = generator(0, "generator")
    c = torch.softmax(2 * torch.randn(40, K, generator=rng), 1)
    log = features(c, "log")
    with seeded(rng, CPU):
        return GeneratorNet(log.mean(0), log.std(0), hidden=8, latent=3), c


def test_directions_are_unit_vectors_of_the_tangent() -> None:
    net, c = made()
    with torch.no_grad():
        d = net.eval()(c)
        noisy = net.direction(c, torch.randn(len(c), 3, generator=generator(1)))
    for found in (d, noisy):
        torch.testing.assert_close(found.norm(dim=1), torch.ones(len(c)))
        assert float(found.sum(1).abs().max()) < 1e-6
    assert not torch.allclose(d, noisy)


def test_training_output_carries_torchs_divergence() -> None:
    net, c = made()
    with torch.no_grad():
        out = net.train()(c)
        mu, sigma = net.moments(c)
    expected = kl_divergence(Normal(mu, sigma), Normal(torch.zeros(()), torch.ones(()))).sum(1)
    assert out.shape == (len(c), K + 1)
    torch.testing.assert_close(out[:, K], expected)


def test_log_scores_are_standardised_and_bounded() -> None:
    net, c = made()
    z = net.inputs(c)
    assert torch.equal(z[:, :K], c)
    torch.testing.assert_close(z[:, K:].mean(0), torch.zeros(K), atol=0.2, rtol=0)
    assert float(net.inputs(torch.tensor([[1.0, 0, 0, 0, 0]]))[:, K:].abs().max()) == 5
