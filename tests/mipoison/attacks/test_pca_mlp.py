"""The PCA-MLP starts as the mean image of the label, and learns what its images add to it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mipoison.attacks.pca_mlp as module
from mipoison.attacks.pca_mlp import PCAMLPConfig
from mipoison.config import ConfigError
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator
from tests.mipoison.attacks.helpers import Brightness, grey

KNOWN = ThreatModel(None, {}, (1, 16, 16))


def fit(x: Tensor, **changes: Any) -> Any:
    attack = PCAMLPConfig(**changes).make()
    attack.fit(Brightness(), x, known=KNOWN, rng=generator(0))
    return attack


def test_it_reads_the_brightness() -> None:
    x, private = grey(120), grey(60, seed=1)
    attack = fit(x)
    c = Brightness().query(private)
    mean = torch.stack([x[Brightness().query(x).argmax(1) == k].mean(0) for k in range(2)])[c.argmax(1)]
    error = float((attack.reconstruct(c) - private).square().mean())
    assert error < 0.2 * float((mean - private).square().mean())


def test_untrained_it_is_the_mean_of_the_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "train", lambda model, *a, **k: model.eval())
    x = grey(40)
    attack, c = fit(x), Brightness().query(x)
    for k in range(2):
        torch.testing.assert_close(attack.reconstruct(torch.eye(2))[k], x[c.argmax(1) == k].mean(0))


def test_every_image_validates_one_network_and_trains_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    original = module.train

    def spy(model: nn.Module, inputs: Tensor, targets: Tensor, *rest: Any, **kwargs: Any) -> nn.Module:
        calls.append((targets, kwargs["validation"].targets))
        return original(model, inputs, targets, *rest, **kwargs)

    monkeypatch.setattr(module, "train", spy)
    attack = fit(grey(41), steps=20)
    every = sorted(row.numpy().tobytes() for row in (attack.parts.rest_NP / attack.scale).float())
    assert len(calls) == attack.config.networks
    for shown, held in calls:
        assert sorted(row.numpy().tobytes() for part in (shown, held) for row in part) == every
    assert sorted(row.numpy().tobytes() for _, held in calls for row in held) == every


@pytest.mark.parametrize(
    "changes", [{"networks": 1}, {"components": 0}, {"lr": 0.0}, {"noise": -0.1}, {"patience": 0}]
)
def test_bounds(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        PCAMLPConfig(**changes)
