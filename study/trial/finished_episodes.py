"""Finished episodes in the artifact store, where a later attempt at the same episode finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mipoison.episode import EpisodeConfig, paths_of
from mipoison.plugins import source_of
from mipoison.scene import PATHS, Scene
from mipoison.storage.artifacts import ArtifactStore
from study.records.reading import Unreadable, leave_out
from study.records.reading.pictures import episode_of
from study.records.schema import episode_schema
from study.trial.joint_training import trains_jointly

PICTURES = 10
"""Reconstructions that are kept for the picture grid, of the first seed."""


@dataclass
class FinishedEpisodes:
    """The finished episodes of a trial.

    Attributes:
        records: index of the episode in the trial -> its record.
        pictures: attacker or ``truth`` -> reconstructions of the first seed, uint8 (n, C, H, W).
    """

    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, other: FinishedEpisodes) -> None:
        """Add the episodes that another rank has finished."""
        self.records |= other.records
        self.pictures |= other.pictures


def episode_key(episode: EpisodeConfig, scene: Scene, stacked: str) -> dict[str, Any]:
    """The artifact key of an episode: its settings and the scene's data, device and versions.

    Attackers trained jointly give numbers that differ by rounding, so their episodes have keys of their own.
    """
    more: dict[str, Any] = {"stacked": True} if trains_jointly(stacked) else {}
    sources = [source_of(config) for config in (episode.defense_config, episode.attack_config)]
    if any(source is not None for source in sources):
        more["plugins"] = sources  # an episode of changed code is another one
    return scene.spec(episode=episode.flat() | dict.fromkeys(f"scene.{name}" for name in PATHS), **more)


def store_episode(
    store: ArtifactStore, key: dict[str, Any], record: dict[str, Any], picture: np.ndarray
) -> None:
    """Store a finished episode.

    Raises:
        FloatingPointError: a measurement is not finite, so that the episode counts as failed.
    """
    for name, value in record.items():
        if isinstance(value, float) and not np.isfinite(value):
            raise FloatingPointError(f"{name} = {value}: not finite")
    store.put_json("episode", key, {"record": record, "picture": picture.tolist()})


def find_finished(
    store: ArtifactStore, episodes: Sequence[EpisodeConfig], scenes: Mapping[int, Scene], stacked: str
) -> FinishedEpisodes:
    """The episodes of a trial that the store holds, from any attempt of any study.

    Args:
        scenes: seed -> scene; only episodes of these seeds are looked up. stacked: as in ``TrialSpec``.
    """
    done = FinishedEpisodes()
    for i, episode in enumerate(episodes):
        scene = scenes.get(episode.scene.seed)
        found = _found(store, episode_key(episode, scene, stacked)) if scene else None
        if found is not None:
            done.records[i] = found[0] | paths_of(episode)
        if scene is not None and episode.scene.seed == episodes[0].scene.seed:
            done.pictures.setdefault("truth", example_images(scene, scene.split.private_train.x_NCHW))
            if found is not None:
                done.pictures[episode.attack] = found[1]
    return done


def _found(store: ArtifactStore, key: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray] | None:
    """An episode's record and picture; None, so that it runs again, if there is none or a damaged one."""
    value = store.find_json("episode", key)
    try:
        return None if value is None else episode_of(value, episode_schema())
    except Unreadable as error:
        leave_out(store.name("episode", key), error)
        return None


def example_images(scene: Scene, images_NCHW: torch.Tensor) -> np.ndarray:
    """The first two images of each private class, as uint8 (n, C, H, W)."""
    y = scene.split.private_train.y_N
    rows = torch.cat([torch.nonzero(y == label)[:2, 0] for label in range(scene.split.n_classes)])[:PICTURES]
    return (images_NCHW[rows].clamp(0, 1) * 255).round().byte().numpy()
