"""The description of a trial and its results, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mipoison.attacks import ATTACKS, by_cost
from mipoison.defenses import DEFENSES
from mipoison.episode import EpisodeConfig
from mipoison.plugins import load_plugins
from mipoison.scene import SceneConfig
from study.records.constraints import Constraints


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One trial: a setting against every attacker on every seed. Plain values, to be sent between processes.

    Attributes:
        trial: its id. attempt: the number of earlier attempts.
        defense, knobs: the setting. attackers: names of ATTACKS. scenes: flat SceneConfigs, one per seed.
        root: storage root. data_root: the data folder, None for the default.
        study: the study's name. constraints: flat Constraints, what a feasible setting may cost in utility.
        floor: the label-only anchor's mean distortion, worst-case attack accuracy and worst-case error under
            the same attackers and seeds; a trial that it dominates is pruned. None: never prune.
        stacked: whether attackers are trained jointly, one of ``study.trial.joint_training.STACKED``.
        screen: run only the attackers that screen (``Config.SCREENS``).
        plugins: references of plug-ins, which are loaded wherever a specification arrives. The user of this
            process named them, never a record.
    """

    study: str
    constraints: Mapping[str, float | None]
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
    screen: bool = False
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        load_plugins(self.plugins)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

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
    """What all trials of a study share. Every TrialSpec is built by :meth:`spec`.

    Attributes:
        study, root, data_root, attackers, stacked, plugins: as in :class:`TrialSpec`; ``~`` and relative
            paths of the data folder are resolved here, since workers have other current folders.
        constraints: what a feasible setting may cost in utility. scenes: one per seed.
    """

    study: str
    root: str
    data_root: Path | str | None
    constraints: Constraints
    attackers: tuple[str, ...]
    scenes: tuple[SceneConfig, ...]
    stacked: str = "auto"
    plugins: tuple[str, ...] = ()

    def spec(
        self,
        trial: str,
        defense: str,
        knobs: Mapping[str, Any],
        *,
        attempt: int = 0,
        attackers: tuple[str, ...] | None = None,
        floor: tuple[float, float, float] | None = None,
        screen: bool = False,
    ) -> TrialSpec:
        """The description of a trial.

        Args:
            trial, defense, knobs, attempt, floor, screen: as in :class:`TrialSpec`.
            attackers: the trial's attackers; None for the study's.
        """
        return TrialSpec(
            study=self.study,
            constraints=self.constraints.flat(),
            trial=trial,
            attempt=attempt,
            defense=defense,
            knobs=dict(knobs),
            attackers=by_cost(self.attackers if attackers is None else attackers),
            floor=floor,
            screen=screen,
            scenes=tuple(scene.flat() for scene in self.scenes),
            root=self.root,
            stacked=self.stacked,
            plugins=self.plugins,
            data_root=None if self.data_root is None else str(Path(self.data_root).expanduser().resolve()),
        )


@dataclass
class TrialResult:
    """What a trial's episodes measured.

    Attributes:
        records: one per episode, without the columns that compare records with each other.
        pictures: attacker or ``truth`` -> uint8 (n, C, H, W).
        made, reused: the number of artifacts that were trained, and that were found in the store.
    """

    records: list[dict[str, Any]]
    pictures: dict[str, np.ndarray]
    made: int = 0
    reused: int = 0

    def count(self, made: int, reused: int) -> None:
        """Add to the numbers of artifacts made and reused."""
        self.made += made
        self.reused += reused


@dataclass(frozen=True, kw_only=True)
class StartedTrial:
    """A trial that was started, as ``trials/<trial>.json`` describes it; ``attempt`` counts from 0."""

    trial: str
    defense: str
    knobs: Mapping[str, Any]
    attempt: int

    def document(self) -> dict[str, Any]:
        """The content of its file; the file's name has the trial's."""
        return {"defense": self.defense, "knobs": dict(self.knobs), "attempt": self.attempt}


@dataclass(frozen=True)
class FinishedTrial:
    """A trial whose records have been written.

    Attributes:
        trial, defense, knobs: its name and setting. rows: its records, one per episode.
        outcome: objectives (None if unknown), and counts of episodes and artifacts.
        before: an earlier run of the study finished it.
        seconds: from its start until its records were written; 0 if unknown.
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
