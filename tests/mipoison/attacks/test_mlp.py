"""The MLP trains on the training part only, and keeps the state that is best on the held-out part."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mipoison.attacks.mlp as mlp_module
from mipoison.attacks.mlp import MLPConfig
from mipoison.config import ConfigError
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator
from tests.mipoison.attacks.helpers import Brightness, grey

SHAPE = (1, 16, 16)
KNOWN = ThreatModel(None, {}, SHAPE)
SIZES: dict[str, Any] = {"width": 1, "steps": 150, "batch": 32, "lr": 1e-2}


@pytest.mark.parametrize("inputs", ["log", "raw", "all", "chosen"])
def test_it_beats_the_mean_image_on_an_easy_oracle(inputs: Any) -> None:
    x, private = grey(120), grey(60, seed=1)
    attack = MLPConfig(inputs=inputs, **SIZES).make()
    attack.fit(Brightness(), x, known=KNOWN, rng=generator(0))
    error = (attack.reconstruct(Brightness().query(private)) - private).square().mean()
    assert float(error) < 0.2 * float((x.mean(0) - private).square().mean())


def test_its_validation_images_are_no_training_images(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    original = mlp_module.train

    def spy(model: nn.Module, inputs: Tensor, targets: Tensor, *rest: Any, **kwargs: Any) -> nn.Module:
        calls.append((inputs, targets, kwargs))
        return original(model, inputs, targets, *rest, **kwargs)

    monkeypatch.setattr(mlp_module, "train", spy)
    x = grey(40)
    attack = MLPConfig(inputs="all", validation=0.25, patience=2, **SIZES).make()
    oracle = Brightness()
    attack.fit(oracle, x, known=KNOWN, rng=generator(0))
    assert oracle.queries == 40
    ((inputs, targets, kwargs),) = calls
    validation = kwargs["validation"]
    assert (len(validation.targets), validation.every, validation.patience) == (10, 7, 2)
    rows = [row.numpy().tobytes() for part in (targets, validation.targets) for row in part]
    assert sorted(rows) == sorted(row.numpy().tobytes() for row in x)
    for z, images in ((inputs, targets), (validation.inputs, validation.targets)):  # pairs stay pairs
        expected = attack.standardise(oracle.query(images.reshape(-1, *SHAPE))).float()
        torch.testing.assert_close(z, expected)


@pytest.mark.parametrize("changes", [{"validation": 0.0}, {"validation": 0.6}, {"patience": 0}, {"lr": 0.0}])
def test_bounds(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        MLPConfig(**changes)
