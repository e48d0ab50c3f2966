"""A retrained network is trained once on the private images, and loaded as it was left."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mipoison.defenses.retraining import retrained
from mipoison.models.classifier import ClassifierConfig
from mipoison.randomness import generator
from tests.mipoison.defenses.helpers import view_of


class Store:
    """Keeps what was trained, by kind and settings."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Tensor]] = {}

    def __call__(
        self,
        kind: str,
        settings: Mapping[str, Any],
        make: Callable[[], dict[str, Tensor]],
        like: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        key = f"{kind} {sorted(settings.items(), key=str)}"
        if key not in self.kept:
            self.kept[key] = make()
        return {name: value.clone() for name, value in self.kept[key].items()}


def test_it_is_trained_once_and_loaded_as_it_was_left(make_decoder) -> None:
    store = Store()
    view = dataclasses.replace(view_of(make_decoder(3), 3), trained=store)
    fitted: list[int] = []

    def build(config: ClassifierConfig, image_shape: tuple[int, int, int], n_classes: int) -> nn.Module:
        assert config.width == view.victim.width
        size = image_shape[0] * image_shape[1] * image_shape[2]
        return nn.Sequential(nn.Flatten(), nn.Linear(size, n_classes), nn.Dropout(0.5))

    def fit(net: nn.Module, x_NCHW: Tensor, y_N: Tensor) -> None:
        assert torch.equal(x_NCHW, view.x_private_NCHW)
        assert torch.equal(y_N, view.y_private_N)
        fitted.append(1)
        with torch.no_grad():
            net[1].bias += torch.arange(3.0)  # type: ignore[index]

    def found(a: int, victim: ClassifierConfig = view.victim, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)  # of the global generator, from which nothing may be drawn
        own, rng = dataclasses.replace(view, victim=victim), generator(0, "retrained")
        return retrained(own, "some", {"a": a}, build=build, fit=fit, rng=rng)

    first, again = found(1), found(1, seed=5)
    assert sum(fitted) == 1
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), again.parameters(), strict=True))
    assert not first.training
    assert not any(p.requires_grad for p in first.parameters())
    found(2, seed=6)
    assert sum(fitted) == 2  # other settings, another network
    found(2, dataclasses.replace(view.victim, steps=11), seed=7)
    assert sum(fitted) == 3  # another victim
    weights = [state["1.weight"] for state in store.kept.values()]
    assert all(torch.equal(weights[0], w) for w in weights)  # drawn from rng alone
