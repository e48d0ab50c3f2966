"""A network that is trained in place of the victim, for defenses that retrain it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from mipoison.config import Plain
from mipoison.models.classifier import ClassifierConfig
from mipoison.protocols import DefenderView
from mipoison.training import seeded

Network = TypeVar("Network", bound=nn.Module)


def retrained(
    view: DefenderView,
    kind: str,
    settings: Mapping[str, Plain | None],
    *,
    build: Callable[[ClassifierConfig, tuple[int, int, int], int], Network],
    fit: Callable[[Network, Tensor, Tensor], None],
    rng: torch.Generator,
) -> Network:
    """The network, trained on the private images or loaded: frozen, in eval mode, on the device.

    Args:
        kind, settings: what it is stored under, with the victim's settings; they name all that it depends on.
        build: makes the untrained network, given the victim's configuration, (C, H, W) and the number of
            classes. Its initial parameters follow from ``rng``.
        fit: trains it in place on images and labels.
    """
    victim, device = view.victim, view.device
    channels, height, width = view.x_private_NCHW.shape[1:]
    sizes = (victim, (int(channels), int(height), int(width)), view.n_classes)

    def make() -> dict[str, Tensor]:
        with seeded(rng, device):
            net = build(*sizes).to(device)
        fit(net, view.x_private_NCHW.to(device), view.y_private_N.to(device))
        return net.state_dict()

    state = view.trained(kind, {**settings, "victim": victim.flat()}, make)
    with torch.device("meta"):
        net = build(*sizes)
    net.load_state_dict(state, assign=True)
    return net.requires_grad_(False).eval().to(device)
