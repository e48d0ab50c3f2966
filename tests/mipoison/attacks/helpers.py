"""What the tests of the attackers share: an easy victim, its images, and an attacker fitted to it."""

from typing import Any

import torch
from torch import Tensor

from mipoison.attacks.decoder import DecoderConfig
from mipoison.protocols import Attack, ThreatModel
from mipoison.randomness import generator

SHAPE = (1, 16, 16)

KNOWN = ThreatModel("noise", {"budget": 0.01, "randomness": "keyed"}, SHAPE)

BLIND = ThreatModel(None, {}, SHAPE)


class Spy:
    """An oracle that keeps what it was asked."""

    def __init__(self, answer, n_classes: int) -> None:
        self.answer, self.n_classes, self.asked = answer, n_classes, []

    @property
    def queries(self) -> int:
        return sum(len(x) for x in self.asked)

    def query(self, x_NCHW: Tensor) -> Tensor:
        self.asked.append(x_NCHW.clone())
        return self.answer(x_NCHW)


def brightness(x_NCHW: Tensor) -> Tensor:
    """An easy victim: two scores that tell how bright the image is."""
    b = x_NCHW.mean((1, 2, 3)).clamp(0.02, 0.98)
    return torch.stack([b, 1 - b], 1)


class Brightness:
    """That victim behind an API which counts its answers."""

    n_classes, queries = 2, 0

    def query(self, x_NCHW: Tensor) -> Tensor:
        self.queries += len(x_NCHW)
        return brightness(x_NCHW)


def grey(n: int, seed: int = 0) -> Tensor:
    """Flat grey images of any brightness."""
    rng = generator(seed, "grey")
    return (torch.rand(n, 1, 1, 1, generator=rng) + 0.02 * torch.randn(n, *SHAPE, generator=rng)).clamp(0, 1)


def fit(config: Any, x_NCHW: Tensor, oracle: Any = None, known: ThreatModel = KNOWN, seed: int = 0) -> Attack:
    attack: Attack = config.make()
    attack.fit(oracle or Spy(brightness, 2), x_NCHW, known=known, rng=generator(seed, "attack"))
    return attack


def decoder(**changes: Any) -> DecoderConfig:
    return DecoderConfig(**{"width": 2, "steps": 15, "batch": 16, "lr": 5e-3, **changes})
