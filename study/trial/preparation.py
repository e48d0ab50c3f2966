"""Training before the anchors run: victims, evaluators and substitutes of every seed."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from mipoison.models.inversion import SubstituteConfig
from mipoison.scene import SceneConfig, scene_for
from mipoison.storage.artifacts import ArtifactStore
from study.trial.spec import TrialResult, TrialSpec


def scenes_of(specs: list[TrialSpec]) -> list[Mapping[str, Any]]:
    """The distinct scenes of some trials, in order."""
    found: list[Mapping[str, Any]] = []
    for scene in (scene for spec in specs for scene in spec.scenes):
        if scene not in found:
            found.append(scene)
    return found


_counted: weakref.WeakKeyDictionary[ArtifactStore, tuple[int, int]] = weakref.WeakKeyDictionary()


def new_artifacts(stores: Iterable[ArtifactStore]) -> tuple[int, int]:
    """The number of artifacts that these stores made and reused since the last call for each store.

    Scenes are cached between trials and keep their stores, whose counts therefore go on.
    """
    made = reused = 0
    for store in stores:
        before = _counted.get(store, (0, 0))
        _counted[store] = store.made, store.reused
        made, reused = made + store.made - before[0], reused + store.reused - before[1]
    return made, reused


def prepare_scene(flat: Mapping[str, Any], root: str, data_root: str | None) -> tuple[int, int]:
    """Train victim, evaluators and the usual substitutes of one seed into the artifact store.

    Returns:
        The number of artifacts made and reused.
    """
    scene = scene_for(SceneConfig(**flat), root, data_root)
    for kind in ("log", "raw"):
        scene.substitute(SubstituteConfig(features=kind))
    return new_artifacts([scene.store])


def count_preparation(prepared: Iterable[tuple[int, int]], results: list[TrialResult]) -> list[TrialResult]:
    """Add the artifacts of the preparation to the counts of the first result; returns the results."""
    for made, reused in prepared:
        results[0].count(made, reused)
    return results
