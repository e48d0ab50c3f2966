"""What a worker does: its share of a trial's poisoning and attacks; alike for 0, 1 and many workers.

Poisoning is sharded by query (chunks of the service), attackers x seeds are spread over the ranks. Chunks and
attacks are each computed whole by one rank, so the records do not depend on how many ranks there are.
"""

from __future__ import annotations

import logging
import pickle
import time
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from mipoison.artifacts import ArtifactStore
from mipoison.attacks import ATTACKS
from mipoison.defenses import DEFENSES
from mipoison.episode import (
    PARTS,
    Deployment,
    EpisodeConfig,
    Released,
    attack_and_measure,
    deploy,
    failed_record,
    finish_release,
)
from mipoison.models.inversion import SubstituteConfig
from mipoison.scene import PATHS, Scene, SceneConfig, scene_for
from mipoison.service import chunk_count
from mipoison.storage import Storage, StorageError
from study.cut import cost_of, cut_record, dominated, stages
from study.together import fit_together, stacks

log = logging.getLogger(__name__)

PICTURES = 10
"""Reconstructions kept for the picture grid, of the first seed."""


class LostError(RuntimeError):
    """A process was lost (its machine went, it was killed, or ran out of memory): no fault of the setting."""


class Group(Protocol):
    """The ranks that share a trial."""

    rank: int
    size: int

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in order of rank, on every rank."""
        ...


class Alone:
    """A group of one: ``--workers 0``."""

    rank, size = 0, 1

    def gather(self, value: Any) -> list[Any]:
        return [value]


class TorchGroup:
    """The ranks of an initialised ``torch.distributed`` group (gloo or nccl); objects go over gloo."""

    def __init__(self) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        backend = torch.distributed.get_backend()
        self._group: Any = None if backend == "gloo" else torch.distributed.new_group(backend="gloo")

    def gather(self, value: Any) -> list[Any]:
        out: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(out, value, group=self._group)
        return out


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


def run_trial(spec: TrialSpec, group: Group | None = None) -> TrialResult:
    """Run a trial's episodes on these ranks; every rank returns all records, in the episodes' order.

    A failure becomes records that say so, but for a StorageError, which is raised: the trial is not finished
    then. Episodes finished by an earlier, interrupted attempt are read back.
    Cheap attackers come first (see ``Config.COST``); what is left of a trial that the label-only anchor
    dominates by then is cut, see :func:`study.cut.dominated`.
    """
    group = group or Alone()
    store = ArtifactStore(Storage(spec.root))
    episodes = spec.episodes()
    scenes: dict[int, Scene] = {}
    errors: dict[int, BaseException] = {}
    for episode in episodes:
        seed = episode.scene.seed
        if seed not in scenes and seed not in errors:
            try:
                scenes[seed] = scene_for(episode.scene, spec.root, spec.data_root)
            except StorageError:
                raise
            except Exception as error:
                log.warning("trial %s, seed %s: no scene: %s", spec.trial, seed, error, exc_info=True)
                errors[seed] = error
    errors = _shared(errors, group)
    # One view, should another process have finished something in between: rank 0's.
    done, pictures = group.gather(_finished(episodes, scenes, store, spec.stacked))[0]
    missing = [i for i in range(len(episodes)) if i not in done]
    deployments: dict[int, Deployment] = {}
    released: dict[int, Released] = {}
    for seed in sorted({episodes[i].scene.seed for i in missing} - set(errors)):
        try:
            deployments[seed] = deploy(scenes[seed], spec.defense, episodes[missing[0]].defense_config)
        except StorageError:
            raise
        except Exception as error:
            log.warning("trial %s, seed %s: %s", spec.trial, seed, error, exc_info=True)
            errors[seed] = error
    errors = _shared(errors, group)
    deployments = {seed: d for seed, d in deployments.items() if seed not in errors}
    _release(deployments, released, errors, group)
    for stage in stages(episodes):
        own = [i for i in stage if i in missing][group.rank :: group.size]
        mine = _attack(own, episodes, scenes, deployments, released, errors, pictures, store, spec.stacked)
        for share in group.gather((mine, pictures)):
            done |= share[0]
            pictures |= share[1]
        run = [i for i in range(len(episodes)) if cost_of(stage, episodes) >= episodes[i].attack_config.COST]
        if len(run) < len(episodes) and dominated([done[i] for i in run], spec.floor):
            # Those found in the store too, so that a record does not depend on what ran before.
            done |= {
                i: cut_record(episode, scenes[episode.scene.seed].split.fingerprint, len(run), len(episodes))
                for i, episode in enumerate(episodes)
                if i not in run
            }
            kept = {"truth", *(episodes[i].attack for i in run)}
            pictures = {name: picture for name, picture in pictures.items() if name in kept}
            break
    result = TrialResult([done[i] for i in range(len(episodes))], pictures)
    for made, reused in group.gather(artifacts_since([store, *(s.store for s in scenes.values())])):
        result.count(made, reused)
    return result


def _attack(
    indices: list[int],
    episodes: list[EpisodeConfig],
    scenes: Mapping[int, Scene],
    deployments: Mapping[int, Deployment],
    released: Mapping[int, Released],
    errors: Mapping[int, BaseException],
    pictures: dict[str, np.ndarray],
    store: ArtifactStore,
    stacked: str,
) -> dict[int, dict[str, Any]]:
    """Attack and measure some episodes: index -> record; pictures of the first seed are added."""
    mine: dict[int, dict[str, Any]] = {}
    ready = [i for i in indices if episodes[i].scene.seed not in errors]
    fitted = fit_together(ready, episodes, deployments) if stacks(stacked) else {}
    for i in indices:
        episode = episodes[i]
        seed = episode.scene.seed
        try:
            if seed in errors:
                raise errors[seed]
            deployment = deployments[seed]
            shared = fitted.pop(i, None)
            if isinstance(shared, Exception):
                raise shared
            more = {} if shared is None else {"fitted": shared}
            record, reconstructions = attack_and_measure(episode, deployment, released[seed], **more)
            record = _plain(record)
            picture = _to_bytes(deployment.scene, reconstructions["private_train"])
            key = _key(episode, deployment.scene, stacked)
            store.put_json("episode", key, {"record": record, "picture": picture.tolist()})
            if seed == episodes[0].scene.seed:
                pictures[episode.attack] = picture
        except StorageError:
            raise
        except Exception as error:
            log.warning(
                "episode %s (%s): %s", episode.episode_id, episode.attack, error, exc_info=seed not in errors
            )
            record = failed_record(episode, scenes[seed].split.fingerprint if seed in scenes else None, error)
        mine[i] = record
    return mine


def _shared(errors: dict[int, BaseException], group: Group) -> dict[int, BaseException]:
    """Every rank's errors, the lowest rank's first: all leave out the same seeds, or some would wait."""
    merged: dict[int, BaseException] = {}
    for share in reversed(group.gather({seed: _portable(error) for seed, error in errors.items()})):
        merged |= share
    return merged


def _portable(error: BaseException) -> BaseException:
    """The error, or its text where it cannot travel between processes."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _finished(
    episodes: list[EpisodeConfig], scenes: Mapping[int, Scene], store: ArtifactStore, stacked: str
) -> tuple[dict[int, dict[str, Any]], dict[str, np.ndarray]]:
    """Index -> record of the episodes finished before, by whatever attempt or study; and their pictures."""
    done: dict[int, dict[str, Any]] = {}
    pictures: dict[str, np.ndarray] = {}
    for i, episode in enumerate(episodes):
        scene = scenes.get(episode.scene.seed)
        found = store.find_json("episode", _key(episode, scene, stacked)) if scene else None
        if found is not None:
            done[i] = found["record"]
        if scene is not None and episode.scene.seed == episodes[0].scene.seed:
            pictures.setdefault("truth", _to_bytes(scene, scene.split.private_train.x_NCHW))
            if found is not None:
                pictures[episode.attack] = np.array(found["picture"], dtype=np.uint8)
    return done, pictures


def lost_trial(spec: TrialSpec, error: str) -> TrialResult:
    """What is left of a lost trial: its finished episodes, and failures that name the error."""
    episodes = spec.episodes()
    scenes: dict[int, Scene] = {}
    for episode in episodes:
        try:
            scenes[episode.scene.seed] = scene_for(episode.scene, spec.root, spec.data_root)
        except StorageError:
            raise
        except Exception as unreadable:
            log.warning("seed %s: no scene: %s", episode.scene.seed, unreadable)
    lost = LostError(error)
    done, pictures = _finished(episodes, scenes, ArtifactStore(Storage(spec.root)), spec.stacked)
    records = [done.get(i) or failed_record(e, None, lost) for i, e in enumerate(episodes)]
    return TrialResult(records, pictures)


def _key(episode: EpisodeConfig, scene: Scene, stacked: str) -> dict[str, Any]:
    """Key of a finished episode: its settings and the scene's data, device and versions.

    Attackers trained together give other numbers, within rounding: those are other episodes.
    """
    more = {"stacked": True} if stacks(stacked) else {}
    return scene.spec(episode=episode.flat() | dict.fromkeys(f"scene.{name}" for name in PATHS), **more)


def _release(
    deployments: dict[int, Deployment],
    released: dict[int, Released],
    errors: dict[int, BaseException],
    group: Group,
) -> None:
    """Poison every seed's requests, chunks dealt to the ranks; put the answers together on all of them."""
    shares: dict[tuple[int, str], Any] = {}
    seconds: dict[int, float] = {}
    turn = 0
    for seed, deployment in deployments.items():
        start = time.perf_counter()
        try:
            for part in PARTS:
                x = getattr(deployment.scene.split, part).x_NCHW
                own = [k for k in range(chunk_count(len(x))) if (turn + k) % group.size == group.rank]
                turn += chunk_count(len(x))
                shares[seed, part] = deployment.service.release_chunks(x, own)
        except Exception as error:
            log.warning("seed %s: poisoning failed: %s", seed, error, exc_info=True)
            shares[seed, "error"] = _portable(error)
        seconds[seed] = time.perf_counter() - start
    everyone = group.gather((shares, seconds))
    for seed, deployment in deployments.items():
        failed = [s[seed, "error"] for s, _ in everyone if (seed, "error") in s]
        if failed:
            errors[seed] = failed[0]
            continue
        vectors = {}
        for part in PARTS:
            chunks: dict[int, torch.Tensor] = {}
            for share, _ in everyone:
                chunks |= share[seed, part]
            vectors[part] = torch.cat([chunks[k] for k in sorted(chunks)])
        try:
            # Compute summed over the ranks: what the poisoning costs, not how long it took with many of them.
            released[seed] = finish_release(deployment, vectors, sum(t[seed] for _, t in everyone))
        except StorageError:
            raise
        except Exception as error:
            log.warning("seed %s: measuring released vectors failed: %s", seed, error, exc_info=True)
            errors[seed] = error


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """A measurement that is not finite is a failed episode, not a number."""
    for key, value in record.items():
        if isinstance(value, float) and not np.isfinite(value):
            raise FloatingPointError(f"{key} = {value}: not finite")
    return record


def _to_bytes(scene: Scene, images_NCHW: torch.Tensor) -> np.ndarray:
    """The first two images of each private class, as uint8 (n, C, H, W)."""
    y = scene.split.private_train.y_N
    rows = torch.cat([torch.nonzero(y == label)[:2, 0] for label in range(scene.split.n_classes)])[:PICTURES]
    return (images_NCHW[rows].clamp(0, 1) * 255).round().byte().numpy()


def scenes_of(specs: list[TrialSpec]) -> list[Mapping[str, Any]]:
    """The different scenes of some trials, in order."""
    found: list[Mapping[str, Any]] = []
    for scene in (scene for spec in specs for scene in spec.scenes):
        if scene not in found:
            found.append(scene)
    return found


_counted: weakref.WeakKeyDictionary[ArtifactStore, tuple[int, int]] = weakref.WeakKeyDictionary()


def artifacts_since(stores: Iterable[ArtifactStore]) -> tuple[int, int]:
    """Artifacts that these stores made and reused since they were last asked (scenes keep theirs)."""
    made = reused = 0
    for store in stores:
        before = _counted.get(store, (0, 0))
        _counted[store] = store.made, store.reused
        made, reused = made + store.made - before[0], reused + store.reused - before[1]
    return made, reused


def prepare_scene(flat: Mapping[str, Any], root: str, data_root: str | None) -> tuple[int, int]:
    """Preparation for one seed: victim, evaluators and the usual substitutes, into the artifact store.

    Returns:
        Artifacts made and reused.
    """
    scene = scene_for(SceneConfig(**flat), root, data_root)
    for kind in ("log", "raw"):
        scene.substitute(SubstituteConfig(features=kind))
    return artifacts_since([scene.store])


def after(prepared: Iterable[tuple[int, int]], results: list[TrialResult]) -> list[TrialResult]:
    """The results, with the artifacts of the preparation counted to the first."""
    for made, reused in prepared:
        results[0].count(made, reused)
    return results
