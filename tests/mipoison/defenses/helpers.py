"""What the tests of the defenses share: vectors and pictures, a defender's view, and a fitted defense."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mipoison.defenses import DEFENSES, restarts
from mipoison.defenses.pipeline import victim_of
from mipoison.models.classifier import ClassifierConfig
from mipoison.models.inversion import InversionNet
from mipoison.protocols import DefenderView, Defense
from mipoison.randomness import QueryRandomness, content_keys, generator

CPU = torch.device("cpu")
MakeDecoder = Callable[..., InversionNet]


ULP = 2.4e-7  # what project_release promises in float32


def view_of(decoder: InversionNet, n_classes: int, n: int = 30) -> DefenderView:
    """A defender's side without any training."""
    c, x = vectors(n, n_classes, seed=5), pictures(n, seed=5)
    return DefenderView(
        x_private_NCHW=x,
        c_private_NK=c,
        y_private_N=c.argmax(1),
        substitute=lambda config: decoder,
        substitute_data=lambda config: (c, x),
        n_classes=n_classes,
        device=CPU,
        victim=ClassifierConfig(width=4, hidden=8, steps=10, batch=16),
        ask=victim_of(linear_victim(n_classes), n_classes, CPU),
    )


def linear_victim(n_classes: int) -> nn.Module:
    """A random linear classifier of pictures, to which all grey images are alike: noisy copies differ."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, n_classes)).requires_grad_(False)
    weight = torch.randn(n_classes, 256, generator=generator(n_classes, "victim"))
    net[1].bias.zero_()
    net[1].weight.copy_(0.3 * (weight - weight.mean(1, keepdim=True)))
    return net.eval()


def vectors(n: int, k: int = 5, seed: int = 0, sharpness: float = 2.0) -> Tensor:
    return torch.softmax(sharpness * torch.randn(n, k, generator=generator(seed, "c")), 1)


def pictures(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 16, 16, generator=generator(seed, "x"))


def few_starts(patch: pytest.MonkeyPatch) -> None:
    """LPA learns its starts from few trials, 80 times faster, where nobody asks how well it aligns."""
    for name, few in {"DRAWN": 24, "IMAGES": 8, "COUNT": 6, "FIT_ROUNDS": 2}.items():
        patch.setattr(restarts, name, few)


def skip_without_library(name: str) -> None:
    """Skip the test of a defense whose optional library is not installed."""
    if name == "dp-sgd":
        pytest.importorskip("opacus", reason="dp-sgd needs the extra dp")


def fitted(name: str, view: DefenderView, **changes: Any) -> Defense:
    skip_without_library(name)
    defense: Defense = DEFENSES[name](**changes).make()  # type: ignore[attr-defined]
    defense.fit(view, rng=generator(0, "defense", name))
    return defense


def protect(defense: Defense, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor | None = None) -> Tensor:
    picked_N = defense.pick(c_NK) if picked_N is None else picked_N
    return defense.protect(c_NK, x_NCHW, picked_N, rng=QueryRandomness(content_keys(x_NCHW, b"secret")))


# --------------------------------------------------------------------------------------------------- noise


def interior(n: int, k: int = 5) -> Tensor:
    """Rows well inside the simplex, with a clear label."""
    c = torch.full((n, k), 0.15)
    c[:, 1] = 1 - 0.15 * (k - 1)
    return c


def assert_released(z_NK: Tensor, c_NK: Tensor) -> None:
    assert z_NK.shape == c_NK.shape
    assert z_NK.dtype == c_NK.dtype
    assert z_NK.device == c_NK.device
    assert not z_NK.requires_grad
    assert bool((z_NK >= 0).all())
    assert bool(((z_NK.double().sum(1) - 1).abs() < 1e-5).all())
