"""Builds what is benchmarked: seeded, untrained decoders, vectors and fitted defenses of a given size.

The time of a gradient does not depend on training. Its quality does; ``study.bench.objectives`` measures it
on trained decoders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mipoison.config import Config
from mipoison.defenses import DEFENSES
from mipoison.models.inversion import InversionConfig, InversionNet
from mipoison.protocols import DefenderView, Defense
from mipoison.randomness import QueryRandomness, generator
from mipoison.scene import default_device
from mipoison.training import seeded


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of a benchmark: image side, channels, classes K, decoder width (ngf)."""

    side: int = 32
    channels: int = 1
    classes: int = 5
    width: int = 32

    def __str__(self) -> str:
        return f"{self.channels}x{self.side}x{self.side}, {self.classes} classes, decoder width {self.width}"


def decoder(size: Size, kind: str = "log") -> InversionNet:
    """A frozen decoder with batch statistics that are not the identity."""
    device, rng = default_device(), generator(0, "benchmark decoder")
    with seeded(rng, torch.device("cpu")):
        config = InversionConfig(features=kind, width=size.width)  # type: ignore[arg-type]
        net = config.make((size.channels, size.side, size.side), size.classes)
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean = 0.3 * torch.randn(layer.num_features, generator=rng)
            layer.running_var = 0.5 + torch.rand(layer.num_features, generator=rng)
    return net.eval().requires_grad_(False).to(device)


def pairs(size: Size, n: int) -> tuple[Tensor, Tensor]:
    """n confidence vectors (with high top scores, as of a trained victim) and images, on the device."""
    rng = generator(0, "benchmark pairs", n)
    c_NK = torch.softmax(4 * torch.randn(n, size.classes, generator=rng), 1)
    x_NCHW = torch.rand(n, size.channels, size.side, size.side, generator=rng)
    return c_NK.to(default_device()), x_NCHW.to(default_device())


def randomness(n: int) -> QueryRandomness:
    """Query randomness with n distinct keys."""
    return QueryRandomness(torch.arange(n, dtype=torch.int64))


def fitted(name: str, size: Size, **knobs: Any) -> Defense:
    """A defense fitted on 256 pairs, with an untrained substitute."""
    cls = DEFENSES[name]
    config: Config = cls(**{k: v for k, v in knobs.items() if k in cls.field_kinds()})
    c_NK, x_NCHW = pairs(size, 256)
    view = DefenderView(
        x_private_NCHW=x_NCHW,
        c_private_NK=c_NK,
        y_private_N=c_NK.argmax(1),
        substitute=lambda share: decoder(size, share.features),
        substitute_data=lambda share: (c_NK, x_NCHW),
        n_classes=size.classes,
        device=default_device(),
    )
    defense: Defense = config.make()
    defense.fit(view, rng=generator(0, "benchmark", name))
    return defense


def protect(defense: Defense, c_NK: Tensor, x_NCHW: Tensor) -> Tensor:
    """The released vectors of one request, computed in chunks as the service does."""
    picked_N = defense.pick(c_NK)
    rng = randomness(len(c_NK))
    chunks = [slice(i, i + 128) for i in range(0, len(c_NK), 128)]
    return torch.cat([defense.protect(c_NK[s], x_NCHW[s], picked_N[s], rng=rng[s]) for s in chunks])
