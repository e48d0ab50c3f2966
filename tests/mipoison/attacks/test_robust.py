"""Robust training adds noise of the right size in every batch and none at inversion; it uses the Huber
loss."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mipoison.attacks.decoder as decoder_module
from mipoison.attacks.robust import Robust, RobustConfig
from mipoison.config import ConfigError
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator

SHAPE = (1, 16, 16)
SIZES: dict[str, Any] = {"width": 2, "steps": 12, "batch": 16, "lr": 5e-3}


class Even:
    """Vectors in the middle of the simplex, where noise keeps its length."""

    n_classes, queries = 4, 0

    def query(self, x_NCHW: Tensor) -> Tensor:
        return torch.full((len(x_NCHW), 4), 0.25)


def fit(config: RobustConfig, settings: dict[str, Any]) -> Robust:
    attack = config.make()
    x = torch.rand(30, *SHAPE, generator=generator(0))
    attack.fit(Even(), x, known=ThreatModel("lpa", settings, SHAPE), rng=generator(0))
    return attack


@pytest.mark.parametrize(
    ("noise", "settings", "length"),
    [
        (None, {"budget": 0.07}, 0.07),
        (None, {}, 0.0),
        (None, {"budget": None}, 0.0),
        (0.2, {"budget": 0.07}, 0.2),
        (0.0, {"budget": 1.0}, 0.0),
    ],
)
def test_every_batch_has_fresh_noise(
    monkeypatch: pytest.MonkeyPatch, noise: float | None, settings: dict[str, Any], length: float
) -> None:
    seen: list[Tensor] = []
    original = decoder_module.train

    def spy(model: nn.Module, inputs: Tensor, *rest: Any, **kwargs: Any) -> nn.Module:
        hook = model.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
        original(model, inputs, *rest, **kwargs)
        hook.remove()
        return model

    monkeypatch.setattr(decoder_module, "train", spy)
    attack = fit(RobustConfig(noise=noise, **SIZES), settings)
    assert len(seen) == SIZES["steps"]
    for batch in seen:
        torch.testing.assert_close(
            (batch - 0.25).norm(dim=1), torch.full((16,), length), atol=1e-6, rtol=1e-3
        )
    assert length == 0 or len({batch.numpy().tobytes() for batch in seen}) == len(seen)
    c = torch.softmax(torch.randn(9, 4, generator=generator(1)), 1)
    torch.testing.assert_close(attack.reconstruct(c), attack.model(c).detach())  # as they are


def test_the_loss_by_hand() -> None:
    a, b = torch.tensor([0.5, 0.5]), torch.tensor([0.4, 1.0])
    huber = Robust(RobustConfig(huber=0.25, **SIZES)).loss(a, b)
    # Inside: half the square. Outside: delta times (distance less half of delta).
    assert float(huber) == pytest.approx((0.1**2 / 2 + 0.25 * (0.5 - 0.125)) / 2)
    plain = Robust(RobustConfig(huber=0.0, **SIZES)).loss(a, b)
    assert float(plain) == pytest.approx((0.1**2 + 0.5**2) / 2)


@pytest.mark.parametrize("changes", [{"noise": -0.1}, {"huber": -1.0}, {"view": "none"}])
def test_bounds(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        RobustConfig(**changes)
