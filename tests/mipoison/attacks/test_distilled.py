"""Distillation: the decoder learns from the student, whose answers are closer to the clean ones."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mipoison.attacks.decoder as decoder_module
from mipoison.attacks.distilled import DistilledConfig
from mipoison.config import ConfigError
from mipoison.protocols import ThreatModel
from mipoison.randomness import generator

SHAPE = (1, 16, 16)
KNOWN = ThreatModel("noise", {"budget": 0.3}, SHAPE)
SIZES: dict[str, Any] = {"width": 4, "steps": 150, "batch": 32, "lr": 5e-3}


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 1, 1, generator=generator(seed, "x")).expand(n, *SHAPE).clone()


def clean(x_NCHW: Tensor) -> Tensor:
    b = 0.3 + 0.4 * x_NCHW.mean((1, 2, 3))
    return torch.stack([b, 1 - b], 1)


class Noisy:
    """A smooth victim whose answers are off by up to 0.2 at random."""

    n_classes, queries = 2, 0

    def query(self, x_NCHW: Tensor) -> Tensor:
        self.queries += len(x_NCHW)
        off = 0.4 * torch.rand(len(x_NCHW), 1, generator=generator(7)) - 0.2
        return clean(x_NCHW) + torch.cat([off, -off], 1)


def test_the_decoder_learns_from_smoother_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Tensor, Tensor]] = []
    original = decoder_module.train

    def spy(model: nn.Module, inputs: Tensor, targets: Tensor, *rest: Any, **kwargs: Any) -> nn.Module:
        calls.append((inputs, targets))
        return original(model, inputs, targets, *rest, **kwargs)

    monkeypatch.setattr(decoder_module, "train", spy)
    x, oracle = images(200), Noisy()
    attack = DistilledConfig(**SIZES).make()
    attack.fit(oracle, x, known=KNOWN, rng=generator(0))
    ((inputs, targets),) = calls
    assert oracle.queries == 200
    assert torch.equal(targets, x)
    noise = (Noisy().query(x) - clean(x)).norm(dim=1).mean()
    assert float((inputs - clean(x)).norm(dim=1).mean()) < 0.5 * float(noise)
    c = clean(images(5, seed=1))
    torch.testing.assert_close(attack.reconstruct(c), attack.model(c).detach())  # as they are


def test_bounds() -> None:
    with pytest.raises(ConfigError, match="student_lr"):
        DistilledConfig(student_lr=0.0)
