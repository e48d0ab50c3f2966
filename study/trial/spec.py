"""A trial as plain values: what is to be run, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mipoison.attacks import ATTACKS, by_cost
from mipoison.defenses import DEFENSES
from mipoison.episode import EpisodeConfig
from mipoison.scene import SceneConfig


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
        stacked: whether attackers are trained together, see :func:`study.trial.joint_training.trains_jointly`.
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


@dataclass(frozen=True, kw_only=True)
class TrialTemplate:
    """What the trials of a study share, and the one place that describes a trial.

    Attributes:
        study, root, data_root, max_accuracy_drop, attackers, stacked: as in :class:`TrialSpec`; ``~`` and
            relative paths of the data folder are resolved here, since workers have other current folders.
        scenes: one a seed.
    """

    study: str
    root: str
    data_root: Path | str | None
    max_accuracy_drop: float
    attackers: tuple[str, ...]
    scenes: tuple[SceneConfig, ...]
    stacked: str = "auto"

    def spec(
        self,
        trial: str,
        defense: str,
        knobs: Mapping[str, Any],
        *,
        attempt: int = 0,
        attackers: tuple[str, ...] | None = None,
        floor: tuple[float, float, float] | None = None,
    ) -> TrialSpec:
        """The description of a trial.

        Args:
            trial, defense, knobs, attempt, floor: as in :class:`TrialSpec`.
            attackers: those of this trial, where they are not the study's.
        """
        return TrialSpec(
            study=self.study,
            max_accuracy_drop=self.max_accuracy_drop,
            trial=trial,
            attempt=attempt,
            defense=defense,
            knobs=dict(knobs),
            attackers=by_cost(self.attackers if attackers is None else attackers),
            floor=floor,
            scenes=tuple(scene.flat() for scene in self.scenes),
            root=self.root,
            stacked=self.stacked,
            data_root=None if self.data_root is None else str(Path(self.data_root).expanduser().resolve()),
        )


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


@dataclass(frozen=True)
class FinishedTrial:
    """A trial whose records were written.

    Attributes:
        trial, defense, knobs: its name and setting. rows: its records, one an episode.
        outcome: objectives (None where they cannot be told), counts of episodes and artifacts.
        before: finished by an earlier run of the study, which is resumed now.
        seconds: from its start to its records; 0 where that is not known.
    """

    trial: str
    defense: str
    knobs: Mapping[str, Any]
    rows: Sequence[dict[str, Any]]
    outcome: Mapping[str, float | None]
    before: bool = False
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether any of its episodes failed."""
        return any(row["status"] == "failed" for row in self.rows)
