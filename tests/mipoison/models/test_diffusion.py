"""The diffusion model against closed forms: its schedule, its moments, its sampling."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mipoison.models.diffusion import DiffusionNet, cosine_alpha_bar, diffuse, guided, sample
from mipoison.randomness import generator
from tests.mipoison.attacks.test_diffusion import SHAPE


def net(**changes: int) -> DiffusionNet:
    torch.manual_seed(0)
    return DiffusionNet(SHAPE, 3, **{"width": 4, "timesteps": 50, "drop": 0.1, **changes}).eval()


@pytest.mark.parametrize("timesteps", [2, 50, 1000])
def test_the_schedule_is_the_cosine(timesteps: int) -> None:
    ab = cosine_alpha_bar(timesteps)
    assert bool((ab.diff() < 0).all())
    assert 0 < float(ab[-1]) < float(ab[0]) < 1
    t = timesteps // 2  # before the clip: the product telescopes to f(t) / f(0)
    f = [math.cos((s / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2 for s in (0, t)]
    assert float(ab[t - 1]) == pytest.approx(f[1] / f[0], rel=1e-9)


def test_diffused_images_have_the_schedule_s_moments() -> None:
    x, rng = torch.full((4000, 1, 1, 1), 0.6), generator(0)
    noisy = diffuse(x, torch.randn(x.shape, generator=rng), torch.full((4000,), 0.3))
    assert float(noisy.mean()) == pytest.approx(0.6 * math.sqrt(0.3), abs=0.05)
    assert float(noisy.var()) == pytest.approx(0.7, rel=0.08)


def test_guidance_by_hand() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0])
    assert torch.equal(guided(a, b, 0.0), a)
    assert guided(a, b, 2.0).tolist() == [3 * 1.0 - 2 * 0.5, 3 * 2.0 - 2 * 3.0]


@pytest.mark.parametrize("guidance", [0.0, 0.5, 2.0])
def test_sampling_with_the_true_noise_finds_the_image(
    guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DDIM is exact where the predicted noise is: from any start, whatever the number of steps."""
    model = net()
    truth = torch.rand(2, *SHAPE, generator=generator(1))
    at: dict[str, Tensor] = {}

    def embed(t_N: Tensor, f_NK: Tensor, kept_N: Tensor) -> Tensor:
        at["t"] = t_N
        return t_N

    def noise(x: Tensor, e: Tensor) -> Tensor:
        ab = model.alpha_bar[at["t"]].float()[:, None, None, None]
        return (x - ab.sqrt() * (2 * truth - 1)) / (1 - ab).sqrt()

    monkeypatch.setattr(model, "embed", embed)
    monkeypatch.setattr(model, "noise", noise)
    for steps in (1, 7, 50):
        found = sample(model, torch.zeros(2, 3), torch.randn(SHAPE), guidance=guidance, steps=steps)
        torch.testing.assert_close(found, truth, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 32, 32), (1, 64, 64)])
def test_every_image_size(shape: tuple[int, int, int]) -> None:
    model = DiffusionNet(shape, 4, width=4, timesteps=10, drop=0.5)
    x = torch.rand(3, *shape)
    error = model(torch.cat([torch.zeros(3, 4), x.flatten(1)], 1))
    assert error.shape == (3,)
    error.sum().backward()
    assert model.nothing.grad is not None
    assert all(p.grad is not None for p in model.condition.parameters())
    with pytest.raises(ValueError, match="28 is not supported"):
        DiffusionNet((1, 28, 28), 4, width=4, timesteps=10, drop=0.5)
