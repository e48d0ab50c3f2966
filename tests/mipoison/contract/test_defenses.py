"""The contract of defenses sees each promise broken; what keeps it is in tests/mipoison/defenses."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from mipoison.certificates.observation import CONTINUUM
from mipoison.config import Config, Knob
from mipoison.contract import DEFENSE_CHECKS, DefenseCase, run_checks
from mipoison.defenses.base import BaseDefense
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness
from mipoison.scene import Scene

CALLS = itertools.count(1)


class Good(BaseDefense):
    """Releases the clean vectors."""

    uncertifiable = CONTINUUM

    def __init__(self, config: Config) -> None:
        self.budget = getattr(config, "budget", 0.0)  # the planted configurations do not pickle

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        return c_NK.clone()


class OffSimplex(Good):
    def protect(self, c_NK, x_NCHW, picked_N, *, rng):  # type: ignore[no-untyped-def]
        return c_NK * 1.01


class SameMemory(Good):
    def protect(self, c_NK, x_NCHW, picked_N, *, rng):  # type: ignore[no-untyped-def]
        return c_NK


class OtherLabel(Good):
    def protect(self, c_NK, x_NCHW, picked_N, *, rng):  # type: ignore[no-untyped-def]
        return c_NK.roll(1, 1)


class Restless(Good):
    def protect(self, c_NK, x_NCHW, picked_N, *, rng):  # type: ignore[no-untyped-def]
        return torch.lerp(c_NK, torch.full_like(c_NK, 1 / c_NK.shape[1]), 1e-3 * (next(CALLS) % 7))


class DrawsUnsaid(Good):
    def protect(self, c_NK, x_NCHW, picked_N, *, rng):  # type: ignore[no-untyped-def]
        rng.uniform(1, "unsaid")
        return c_NK.clone()


class ReadsUnsaid(Good):
    def protect(self, c_NK, x_NCHW, picked_N, *, rng):  # type: ignore[no-untyped-def]
        share = 0.1 * x_NCHW.mean((1, 2, 3))[:, None]
        return torch.lerp(c_NK, torch.full_like(c_NK, 1 / c_NK.shape[1]), share.expand_as(c_NK))


class CouplesUnsaid(Good):
    def protect(self, c_NK, x_NCHW, picked_N, *, rng):  # type: ignore[no-untyped-def]
        return 0.9 * c_NK + 0.1 * c_NK.mean(0, keepdim=True) if len(c_NK) else c_NK.clone()


class ForgetsState(Good):
    share = 0.0

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        self.share = 0.2

    def protect(self, c_NK, x_NCHW, picked_N, *, rng):  # type: ignore[no-untyped-def]
        return torch.lerp(c_NK, torch.full_like(c_NK, 1 / c_NK.shape[1]), self.share)


class Unpicklable(Good):
    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        self.f = lambda c: c


class NoReason(Good):
    uncertifiable = BaseDefense.uncertifiable


class OverBudget(Good):
    def protect(self, c_NK, x_NCHW, picked_N, *, rng):  # type: ignore[no-untyped-def]
        return torch.lerp(c_NK, torch.full_like(c_NK, 1 / c_NK.shape[1]), min(1.0, self.budget * 50))


BROKEN: dict[type[Good], set[str]] = {
    Good: set(),
    OffSimplex: {"simplex", "hard_vectors", "largest_settings", "small_batches", "numbers_of_classes"},
    SameMemory: {"simplex"},
    OtherLabel: {"label", "hard_vectors", "largest_settings", "numbers_of_classes"},
    Restless: {"deterministic", "deterministic_fit", "batch_independence"},
    DrawsUnsaid: {"declares_draws"},
    ReadsUnsaid: {"declares_images", "shape_alone"},
    CouplesUnsaid: {"batch_independence"},
    ForgetsState: {"keeps_state"},
    Unpicklable: {"pickles"},
    NoReason: {"observation"},
    OverBudget: {"budget"},
}
"""What breaks which promises, at least; the good one none."""


def config_of(kind: type[Good]) -> type[Config]:
    @dataclass(frozen=True, kw_only=True)
    class BudgetConfig(Config):
        """A configuration with a budget."""

        budget: float = 0.01

        def make(self) -> Any:
            return kind(self)

    @dataclass(frozen=True, kw_only=True)
    class PlainConfig(Config):
        """A configuration without settings."""

        def make(self) -> Any:
            return kind(self)

    return BudgetConfig if kind in (OverBudget, Good) else PlainConfig


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_seen(kind: type[Good], tiny_scene: Scene) -> None:
    results = run_checks(DefenseCase("planted", config_of(kind), tiny_scene), DEFENSE_CHECKS)
    assert len(results) == len(DEFENSE_CHECKS)
    seen = {result.name for result in results if result.broken is not None}
    assert BROKEN[kind] <= seen
    if kind in (Good, SameMemory, DrawsUnsaid, ForgetsState, Unpicklable, NoReason, OverBudget):
        assert seen == BROKEN[kind], [r.broken for r in results if r.broken]


def test_knobs_that_the_configuration_refuses_are_seen(tiny_scene: Scene) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Narrow(Config):
        """Knobs wider than the bounds."""

        KNOBS: ClassVar[Mapping[str, Knob]] = {"weight": Knob(low=0.0, high=2.0, help="a share")}
        weight: float = 0.5

        def validate(self) -> None:
            self.require("weight", 0 <= self.weight <= 1, "between 0 and 1")

        def make(self) -> Any:
            return Good(self)

    (found,) = run_checks(DefenseCase("planted", Narrow, tiny_scene), DEFENSE_CHECKS[:1])
    assert "knob 'weight' may be 2.0, which the configuration refuses" in str(found.broken)
