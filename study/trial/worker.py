"""One rank's share of a trial: poisoning and attacks. The records do not depend on the number of ranks.

The queries to poison are divided into chunks (those of the service), and the episodes are attacker x seed.
Each chunk and each episode is computed by a single rank.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mipoison.deployment import PARTS, Deployment, Released, deploy, finish_release
from mipoison.episode import EpisodeConfig, Fitted, attack_and_measure, failed_record
from mipoison.scene import Scene, scene_for
from mipoison.service import chunk_count
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage, StorageError
from study.search.pruning import DOMINATED, SCREENED, dominated, pruned_record, screening, stages
from study.trial.failure import LostError
from study.trial.finished_episodes import (
    FinishedEpisodes,
    episode_key,
    example_images,
    find_finished,
    store_episode,
)
from study.trial.joint_training import fit_jointly, trains_jointly
from study.trial.preparation import new_artifacts
from study.trial.ranks import Group, SingleRank
from study.trial.spec import TrialResult, TrialSpec

log = logging.getLogger(__name__)


@dataclass
class RunningSeed:
    """The state of one seed of a running trial.

    Attributes:
        scene, deployment, released: None until they are made.
        error: why the seed's episodes cannot run; None if they can.
    """

    scene: Scene | None = None
    deployment: Deployment | None = None
    released: Released | None = None
    error: BaseException | None = None

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the seed's data, None without a scene."""
        return None if self.scene is None else self.scene.split.fingerprint


@dataclass
class PoisonedShare:
    """What one rank has poisoned of a trial; the ranks exchange it.

    Attributes:
        vectors: (seed, part of the split) -> chunk -> released vectors.
        errors: seed -> why its poisoning failed on this rank.
        seconds: seed -> this rank's time for it. clean: seed -> the part of it that clean vectors took, which
            each rank computes for all chunks.
    """

    vectors: dict[tuple[int, str], dict[int, torch.Tensor]] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    clean: dict[int, float] = field(default_factory=dict)


class TrialRun:
    """A trial on this rank, from scenes to records. All ranks must call its methods in the same order.

    Args:
        spec: the trial. group: the ranks that share it.
    """

    def __init__(self, spec: TrialSpec, group: Group) -> None:
        self.spec, self.group = spec, group
        self.episodes = spec.episodes()
        self.store = ArtifactStore(Storage(spec.root))
        self.seeds = {episode.scene.seed: RunningSeed() for episode in self.episodes}

    def open_scenes(self) -> None:
        """Open every seed's scene; if that fails on any rank, all ranks leave the seed out."""
        configs = {episode.scene.seed: episode.scene for episode in self.episodes}
        for number, seed in self.seeds.items():
            try:
                seed.scene = scene_for(configs[number], self.spec.root, self.spec.data_root)
            except StorageError:
                raise
            except Exception as error:
                self._leave_out(number, error, "no scene: ")
        self._share_errors()

    def finished_before(self) -> FinishedEpisodes:
        """The episodes that an earlier attempt, or another study, has finished."""
        scenes = {number: seed.scene for number, seed in self.seeds.items() if seed.scene is not None}
        found = find_finished(self.store, self.episodes, scenes, self.spec.stacked)
        done = FinishedEpisodes()
        # All ranks use rank 0's view, as another process may add episodes between two lookups.
        done.add(self.group.gather(found)[0])
        return done

    def deploy(self, indices: Sequence[int]) -> None:
        """Fit the defense on the seeds of some episodes, then poison the queries of each seed."""
        for number in sorted({self.episodes[i].scene.seed for i in indices}):
            seed = self.seeds[number]
            if seed.error is None and seed.scene is not None:
                config = self.episodes[indices[0]].defense_config
                try:
                    seed.deployment = deploy(seed.scene, self.spec.defense, config)
                except StorageError:
                    raise
                except Exception as error:
                    self._leave_out(number, error)
        self._share_errors()
        self._release()

    def attack(self, indices: Sequence[int]) -> FinishedEpisodes:
        """Run some episodes' attacks and measure them on this rank."""
        mine = FinishedEpisodes()
        deployments = {n: seed.deployment for n, seed in self.seeds.items() if seed.deployment is not None}
        ready = [i for i in indices if self.seeds[self.episodes[i].scene.seed].error is None]
        together = trains_jointly(self.spec.stacked)
        fitted = fit_jointly(ready, self.episodes, deployments) if together else {}
        for i in indices:
            episode = self.episodes[i]
            seed = self.seeds[episode.scene.seed]
            try:
                record = self._attack_one(episode, seed, fitted.pop(i, None), mine.pictures)
            except StorageError:
                raise
            except Exception as error:
                traced = seed.error is None
                log.warning("episode %s (%s): %s", episode.episode_id, episode.attack, error, exc_info=traced)
                record = failed_record(episode, seed.fingerprint, error)
            mine.records[i] = record
        return mine

    def artifacts(self) -> tuple[int, int]:
        """The number of artifacts that this rank made and reused."""
        scenes = [seed.scene for seed in self.seeds.values() if seed.scene is not None]
        return new_artifacts([self.store, *(scene.store for scene in scenes)])

    def _attack_one(
        self,
        episode: EpisodeConfig,
        seed: RunningSeed,
        fitted: Fitted | Exception | None,
        pictures: dict[str, np.ndarray],
    ) -> dict[str, Any]:
        """Run one episode, store its record and return it; raises the seed's or the attacker's error."""
        if seed.error is not None:
            raise seed.error
        if isinstance(fitted, Exception):
            raise fitted
        assert seed.deployment is not None
        assert seed.released is not None
        more = () if fitted is None else (fitted,)
        record, reconstructions = attack_and_measure(episode, seed.deployment, seed.released, *more)
        scene = seed.deployment.scene
        picture = example_images(scene, reconstructions["private_train"])
        store_episode(self.store, episode_key(episode, scene, self.spec.stacked), record, picture)
        if seed is self.seeds[self.episodes[0].scene.seed]:
            pictures[episode.attack] = picture
        return record

    def _release(self) -> None:
        """Poison the queries of each deployed seed: the ranks share the chunks, and all get all answers."""
        share, turn = PoisonedShare(), 0
        deployments = {
            n: s.deployment for n, s in self.seeds.items() if s.deployment is not None and s.error is None
        }
        for number, deployment in deployments.items():
            start, before = time.perf_counter(), deployment.service.seconds_clean
            try:
                for part in PARTS:
                    x = getattr(deployment.scene.split, part).x_NCHW
                    ranks, chunks = self.group.size, range(chunk_count(len(x)))
                    own = [k for k in chunks if (turn + k) % ranks == self.group.rank]
                    turn += len(chunks)
                    share.vectors[number, part] = deployment.service.release_chunks(x, own)
            except Exception as error:
                log.warning("seed %s: poisoning failed: %s", number, error, exc_info=True)
                share.errors[number] = _portable(error)
            share.seconds[number] = time.perf_counter() - start
            share.clean[number] = deployment.service.seconds_clean - before
        everyone: list[PoisonedShare] = self.group.gather(share)
        for number, deployment in deployments.items():
            errors = [one.errors[number] for one in everyone if number in one.errors]
            if errors:
                self.seeds[number].error = errors[0]
                continue
            vectors = {}
            for part in PARTS:
                answers: dict[int, torch.Tensor] = {}
                for one in everyone:
                    answers |= one.vectors[number, part]
                vectors[part] = torch.cat([answers[k] for k in sorted(answers)])
            try:
                # Poisoning is summed over the ranks, clean vectors count once: the cost does not depend on
                # the number of ranks.
                poison = sum(one.seconds[number] - one.clean[number] for one in everyone)
                clean = sum(one.clean[number] for one in everyone) / len(everyone)
                self.seeds[number].released = finish_release(deployment, vectors, poison + clean, clean)
            except StorageError:
                raise
            except Exception as error:
                self._leave_out(number, error, "measuring released vectors failed: ")

    def _leave_out(self, number: int, error: Exception, what: str = "") -> None:
        log.warning("trial %s, seed %s: %s%s", self.spec.trial, number, what, error, exc_info=True)
        self.seeds[number].error = error

    def _share_errors(self) -> None:
        """Give every rank the errors of all ranks; the lowest rank's error of a seed counts.

        Otherwise ranks would disagree on the seeds to run, and some would wait for the others without end.
        """
        own = {n: _portable(seed.error) for n, seed in self.seeds.items() if seed.error is not None}
        for share in reversed(self.group.gather(own)):
            for number, error in share.items():
                self.seeds[number].error = error


def run_trial(spec: TrialSpec, group: Group | None = None) -> TrialResult:
    """Run a trial's episodes on these ranks; every rank returns all records, in the episodes' order.

    Episodes that an earlier attempt finished are read from the store. Attackers run in order of cost (see
    ``Config.COST``); once the label-only anchor dominates the setting, the remaining episodes are pruned, see
    :func:`study.search.pruning.dominated`. Of a trial that is to be screened only the attackers that screen
    run, and its records say so. A failed episode becomes a record with the error.

    Raises:
        StorageError: nothing can be stored; the trial stays unfinished.
    """
    group = group or SingleRank()
    run = TrialRun(spec, group)
    episodes = run.episodes
    run.open_scenes()
    done = run.finished_before()
    planned = screening(episodes) if spec.screen else list(range(len(episodes)))
    missing = [i for i in planned if i not in done.records]
    run.deploy(missing)
    ran: list[int] = []
    why = SCREENED
    for stage in stages(episodes, planned):
        own = [i for i in stage if i in missing][group.rank :: group.size]
        for share in group.gather(run.attack(own)):
            done.add(share)
        ran += stage
        if len(ran) < len(episodes) and dominated([done.records[i] for i in ran], spec.floor):
            why = DOMINATED
            break
    if len(ran) < len(episodes):
        # Also those found in the store, so that records do not depend on what ran before.
        done.records |= {
            i: pruned_record(episode, run.seeds[episode.scene.seed].fingerprint, len(ran), len(episodes), why)
            for i, episode in enumerate(episodes)
            if i not in ran
        }
        kept = {"truth", *(episodes[i].attack for i in ran)}
        done.pictures = {name: picture for name, picture in done.pictures.items() if name in kept}
        if why is SCREENED:
            done.records = {i: record | {"screened": True} for i, record in done.records.items()}
    result = TrialResult([done.records[i] for i in range(len(episodes))], done.pictures)
    for made, reused in group.gather(run.artifacts()):
        result.count(made, reused)
    return result


def _portable(error: BaseException) -> BaseException:
    """The error, or a RuntimeError with its text if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def failed_trial(spec: TrialSpec, error: str) -> TrialResult:
    """The result of a lost trial: its finished episodes, and failed records with the error for the others."""
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
    done = find_finished(ArtifactStore(Storage(spec.root)), episodes, scenes, spec.stacked)
    records = [done.records.get(i) or failed_record(e, None, lost) for i, e in enumerate(episodes)]
    return TrialResult(records, done.pictures)
