"""A trial as plain values: what is to be run, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mipoison.attacks import ATTACKS
from mipoison.defenses import DEFENSES
from mipoison.episode import EpisodeConfig
from mipoison.scene import SceneConfig


class LostError(RuntimeError):
    """A process was lost (its machine went, it was killed, or ran out of memory): no fault of the setting."""


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One trial: a setting against every attacker on every seed. Plain values: it travels between processes.

    Attributes:
        trial: its id. attempt: which try this is.
        defense, knobs: the setting. attackers: names of ATTACKS. scenes: flat SceneConfigs, one a seed.
        root: storage root. data_root: the data folder, None for the default.
        study: the study's name. max_accuracy_drop: its constraint.
        floor: the label-only anchor's mean distortion, worst-case attack accuracy and worst-case error under
            the same attackers and seeds; a trial that it dominates is cut short. None: never cut short.
        stacked: whether attackers are trained together, see :func:`study.together.stacks`.
    """

    study: str
    max_accuracy_drop: float
    trial: str
    attempt: int
    defense: str
    knobs: Mapping[str, Any]
    attackers: tuple[str, ...]
    scenes: tuple[Mapping[str, Any], ...]
    root: str
    data_root: str | None
    floor: tuple[float, float, float] | None = None
    stacked: str = "auto"

    def episodes(self) -> list[EpisodeConfig]:
        """The trial's episodes, seed by seed."""
        config = DEFENSES[self.defense](**self.knobs)
        return [
            EpisodeConfig(
                scene=SceneConfig(**scene),
                defense=self.defense,
                defense_config=config,
                attack=name,
                attack_config=ATTACKS[name],
            )
            for scene in self.scenes
            for name in self.attackers
        ]


@dataclass
class TrialResult:
    """Raw records (no columns across them yet); pictures: attacker or ``truth`` -> uint8 (n, C, H, W).

    made, reused: artifacts that were trained, or found in the store.
    """

    records: list[dict[str, Any]]
    pictures: dict[str, np.ndarray]
    made: int = 0
    reused: int = 0

    def count(self, made: int, reused: int) -> None:
        """Add to the artifacts made and reused."""
        self.made += made
        self.reused += reused
