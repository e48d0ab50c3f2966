"""Made-up vectors, pictures and a defender's view of any number of classes, without any training.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mipoison.defenses.pipeline import victim_of
from mipoison.models.classifier import ClassifierConfig
from mipoison.models.inversion import InversionConfig, InversionNet, SubstituteConfig
from mipoison.protocols import DefenderView
from mipoison.randomness import generator
from mipoison.training import seeded

CPU = torch.device("cpu")
SHAPE = (1, 16, 16)


def vectors(n: int, k: int = 5, seed: int = 0, sharpness: float = 2.0) -> Tensor:
    """Confidence vectors (n, k); a larger sharpness brings them nearer to the corners."""
    return torch.softmax(sharpness * torch.randn(n, k, generator=generator(seed, "c")), 1)


def pictures(n: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Tensor:
    """Noise (n, C, H, W) in [0, 1]."""
    return torch.rand(n, *shape, generator=generator(seed, "x"))


def linear_victim(n_classes: int, shape: tuple[int, int, int] = SHAPE) -> nn.Module:
    """A random linear classifier of pictures, to which all grey images are alike: noisy copies differ."""
    pixels = shape[0] * shape[1] * shape[2]
    linear = nn.Linear(pixels, n_classes)
    weight = torch.randn(n_classes, pixels, generator=generator(n_classes, "victim"))
    with torch.no_grad():
        linear.bias.zero_()
        linear.weight.copy_(0.3 * (weight - weight.mean(1, keepdim=True)))
    return nn.Sequential(nn.Flatten(), linear).requires_grad_(False).eval()


def untrained_decoder(
    n_classes: int, config: SubstituteConfig, shape: tuple[int, int, int] = SHAPE
) -> InversionNet:
    """A frozen inversion model whose batch-norm layers have random statistics, not the identity."""
    rng = generator(n_classes, "contract decoder")
    made = InversionConfig(features=config.features, extra_blocks=config.extra_blocks, width=2)
    with seeded(rng, CPU):
        net = made.make(shape, n_classes)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            n = layer.num_features
            layer.running_mean = 0.3 * torch.randn(n, generator=rng)
            layer.running_var = 0.5 + torch.rand(n, generator=rng)
            layer.weight.data = 0.7 + 0.6 * torch.rand(n, generator=rng)
            layer.bias.data = 0.3 * torch.randn(n, generator=rng)
    return net.eval().requires_grad_(False)


def view_of(n_classes: int, shape: tuple[int, int, int] = SHAPE, n: int = 30) -> DefenderView:
    """A defender's side: made-up images and vectors, untrained substitutes, a linear classifier."""
    c, x = vectors(n, n_classes, seed=5), pictures(n, shape, seed=5)
    return DefenderView(
        x_private_NCHW=x,
        c_private_NK=c,
        y_private_N=c.argmax(1),
        substitute=lambda config: untrained_decoder(n_classes, config, shape),
        substitute_data=lambda config: (c, x),
        n_classes=n_classes,
        device=CPU,
        victim=ClassifierConfig(width=4, hidden=8, steps=10, batch=16),
        ask=victim_of(linear_victim(n_classes, shape), n_classes, CPU),
    )
