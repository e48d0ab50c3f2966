"""The contract of attackers sees each promise broken; what keeps it is in tests/mipoison/attacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from mipoison.config import Config
from mipoison.contract import ATTACKER_CHECKS, AttackerCase, run_checks
from mipoison.protocols import Oracle, ThreatModel
from mipoison.scene import Scene


class Good:
    """Answers the mean image with a little noise of its own."""

    def __init__(self, scene: Scene) -> None:
        self.private = scene.split.private_train.x_NCHW[:1]

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        if len(x_NCHW) < 4:
            raise ValueError(f"needs at least 4 images, got {len(x_NCHW)}")
        self.ask(oracle, x_NCHW)
        self.mean = (x_NCHW.mean(0) + 0.01 * torch.randn(x_NCHW.shape[1:], generator=rng)).clamp(0, 1)
        self.learn(x_NCHW)
        del self.private

    def ask(self, oracle: Oracle, x_NCHW: Tensor) -> None:
        oracle.query(x_NCHW)

    def learn(self, x_NCHW: Tensor) -> None:
        """Nothing more."""

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        return self.mean.expand(len(c_NK), *self.mean.shape).clone()


class Bright(Good):
    def reconstruct(self, c_NK: Tensor) -> Tensor:
        return super().reconstruct(c_NK) + 1


class Double(Good):
    def reconstruct(self, c_NK: Tensor) -> Tensor:
        return super().reconstruct(c_NK).double()


class Global(Good):
    def learn(self, x_NCHW: Tensor) -> None:
        self.mean = (self.mean + 0.01 * torch.rand(self.mean.shape)).clamp(0, 1)


class Silent(Good):
    def ask(self, oracle: Oracle, x_NCHW: Tensor) -> None:
        """Asks nothing."""


class AsksPrivate(Good):
    def ask(self, oracle: Oracle, x_NCHW: Tensor) -> None:
        oracle.query(torch.cat([x_NCHW, self.private]))


class KeepsPrivate(Good):
    def learn(self, x_NCHW: Tensor) -> None:
        self.kept = self.private.clone()


class Overwrites(Good):
    def learn(self, x_NCHW: Tensor) -> None:
        x_NCHW.zero_()


class Greedy(Good):
    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        more = torch.zeros(max(0, 4 - len(x_NCHW)), *x_NCHW.shape[1:])
        super().fit(oracle, torch.cat([x_NCHW, more]), known=known, rng=rng)


class Fixed(Good):
    def learn(self, x_NCHW: Tensor) -> None:
        self.mean = x_NCHW.mean(0)


BROKEN: dict[type[Good], set[str]] = {
    Good: set(),
    Bright: {"images", "corners"},
    Double: {"images", "corners"},
    Global: {"deterministic", "global_state"},
    Silent: {"asks"},
    AsksPrivate: {"own_images"},
    KeepsPrivate: {"nothing_of_the_defender"},
    Overwrites: {"leaves_images"},
    Greedy: {"too_few_images"},
    Fixed: {"draws"},
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_seen(kind: type[Good], tiny_scene: Scene) -> None:
    @dataclass(frozen=True, kw_only=True)
    class PlantedConfig(Config):
        """A planted attacker."""

        def make(self) -> Any:
            return kind(tiny_scene)

    images = tiny_scene.split.attack_train.x_NCHW
    before = images.clone()
    results = run_checks(AttackerCase("planted", PlantedConfig(), tiny_scene), ATTACKER_CHECKS)
    images.copy_(before)  # one of them overwrites what it is given
    seen = {result.name for result in results if result.broken is not None}
    assert seen == BROKEN[kind], [r.broken for r in results if r.broken]


def test_one_that_draws_nothing_is_known_as_such(tiny_scene: Scene) -> None:
    @dataclass(frozen=True, kw_only=True)
    class FixedConfig(Config):
        """Draws nothing, from one image on."""

        def make(self) -> Any:
            return Fixed(tiny_scene)

    case = AttackerCase("fixed", FixedConfig(), tiny_scene, draws_nothing=True)
    assert [r.broken for r in run_checks(case, ATTACKER_CHECKS)] == [None] * len(ATTACKER_CHECKS)
