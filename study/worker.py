"""What a worker does: its share of a trial's poisoning and attacks; alike for 0, 1 and many workers.

Poisoning is sharded by query (chunks of the service), attackers x seeds are spread over the ranks. Chunks and
attacks are each computed whole by one rank, so the records do not depend on how many ranks there are.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mipoison.artifacts import ArtifactStore
from mipoison.episode import (
    PARTS,
    Deployment,
    EpisodeConfig,
    Released,
    attack_and_measure,
    deploy,
    failed_record,
    finish_release,
    paths_of,
)
from mipoison.scene import PATHS, Scene, scene_for
from mipoison.service import chunk_count
from mipoison.storage import Storage, StorageError
from study.cut import cost_of, cut_record, dominated, stages
from study.failure import LostError
from study.group import Alone, Group
from study.preparation import artifacts_since
from study.reading import Unreadable, leave_out
from study.reading.pictures import episode_of
from study.records import episode_schema
from study.spec import TrialResult, TrialSpec
from study.together import fit_together, stacks

log = logging.getLogger(__name__)

PICTURES = 10
"""Reconstructions kept for the picture grid, of the first seed."""


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
        found = _found(store, _key(episode, scene, stacked)) if scene else None
        if found is not None:
            done[i] = found[0] | paths_of(episode)
        if scene is not None and episode.scene.seed == episodes[0].scene.seed:
            pictures.setdefault("truth", _to_bytes(scene, scene.split.private_train.x_NCHW))
            if found is not None:
                pictures[episode.attack] = found[1]
    return done, pictures


def _found(store: ArtifactStore, key: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray] | None:
    """A finished episode out of the store; None if it is not there, or of another shape: it runs again."""
    value = store.find_json("episode", key)
    try:
        return None if value is None else episode_of(value, episode_schema())
    except Unreadable as error:
        leave_out(store.name("episode", key), error)
        return None


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
