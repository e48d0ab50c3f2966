"""What a worker does: its share of a trial's poisoning and attacks; alike for 0, 1 and many workers.

Poisoning is sharded by query (chunks of the service), attackers x seeds are spread over the ranks. Chunks and
attacks are each computed whole by one rank, so the records do not depend on how many ranks there are.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mipoison.deployment import PARTS, Deployment, Released, deploy, finish_release
from mipoison.episode import EpisodeConfig, Fitted, attack_and_measure, failed_record
from mipoison.scene import Scene, scene_for
from mipoison.service import chunk_count
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage, StorageError
from study.search.pruning import cost_of, dominated, pruned_record, stages
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
    """One seed of a running trial, as far as this rank has come with it.

    Attributes:
        scene, deployment, released: None until they are made.
        error: why the seed's episodes cannot run; None while they can.
    """

    scene: Scene | None = None
    deployment: Deployment | None = None
    released: Released | None = None
    error: BaseException | None = None

    @property
    def fingerprint(self) -> str | None:
        """That of the seed's data, None where there is no scene."""
        return None if self.scene is None else self.scene.split.fingerprint


class TrialRun:
    """A trial on this rank, from its scenes to its records. Every rank calls the same methods in one order.

    Args:
        spec: the trial. group: the ranks that share it.
    """

    def __init__(self, spec: TrialSpec, group: Group) -> None:
        self.spec, self.group = spec, group
        self.episodes = spec.episodes()
        self.store = ArtifactStore(Storage(spec.root))
        self.seeds = {episode.scene.seed: RunningSeed() for episode in self.episodes}

    def open_scenes(self) -> None:
        """Open every seed's scene; a seed that lacks one on any rank is left out by all of them."""
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
        """The episodes finished before, by whatever attempt or study."""
        scenes = {number: seed.scene for number, seed in self.seeds.items() if seed.scene is not None}
        found = find_finished(self.store, self.episodes, scenes, self.spec.stacked)
        done = FinishedEpisodes()
        # One view, should another process have finished something in between: rank 0's.
        done.add(self.group.gather(found)[0])
        return done

    def deploy(self, indices: Sequence[int]) -> None:
        """Fit the defense on the seeds of some episodes and poison what is asked of each."""
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
        """Attack and measure some episodes, each whole on this rank."""
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
        """Artifacts that this rank made and reused."""
        scenes = [seed.scene for seed in self.seeds.values() if seed.scene is not None]
        return new_artifacts([self.store, *(scene.store for scene in scenes)])

    def _attack_one(
        self,
        episode: EpisodeConfig,
        seed: RunningSeed,
        fitted: Fitted | Exception | None,
        pictures: dict[str, np.ndarray],
    ) -> dict[str, Any]:
        """An episode's record, which is kept in the store, too; raises what went wrong."""
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
        """Poison the requests of each deployed seed, chunks dealt to the ranks; all get all answers."""
        shares: dict[tuple[int, str], Any] = {}
        seconds: dict[int, float] = {}
        turn = 0
        deployments = {
            n: s.deployment for n, s in self.seeds.items() if s.deployment is not None and s.error is None
        }
        for number, deployment in deployments.items():
            start = time.perf_counter()
            try:
                for part in PARTS:
                    x = getattr(deployment.scene.split, part).x_NCHW
                    ranks, chunks = self.group.size, range(chunk_count(len(x)))
                    own = [k for k in chunks if (turn + k) % ranks == self.group.rank]
                    turn += len(chunks)
                    shares[number, part] = deployment.service.release_chunks(x, own)
            except Exception as error:
                log.warning("seed %s: poisoning failed: %s", number, error, exc_info=True)
                shares[number, "error"] = _portable(error)
            seconds[number] = time.perf_counter() - start
        everyone = self.group.gather((shares, seconds))
        for number, deployment in deployments.items():
            failed = [share[number, "error"] for share, _ in everyone if (number, "error") in share]
            if failed:
                self.seeds[number].error = failed[0]
                continue
            vectors = {}
            for part in PARTS:
                answers: dict[int, torch.Tensor] = {}
                for share, _ in everyone:
                    answers |= share[number, part]
                vectors[part] = torch.cat([answers[k] for k in sorted(answers)])
            try:
                # Compute summed over the ranks: what the poisoning costs, not how long it took with many.
                cost = sum(taken[number] for _, taken in everyone)
                self.seeds[number].released = finish_release(deployment, vectors, cost)
            except StorageError:
                raise
            except Exception as error:
                self._leave_out(number, error, "measuring released vectors failed: ")

    def _leave_out(self, number: int, error: Exception, what: str = "") -> None:
        log.warning("trial %s, seed %s: %s%s", self.spec.trial, number, what, error, exc_info=True)
        self.seeds[number].error = error

    def _share_errors(self) -> None:
        """Every rank gets all ranks' errors, the lowest rank's first: else some would wait for the others."""
        own = {n: _portable(seed.error) for n, seed in self.seeds.items() if seed.error is not None}
        for share in reversed(self.group.gather(own)):
            for number, error in share.items():
                self.seeds[number].error = error


def run_trial(spec: TrialSpec, group: Group | None = None) -> TrialResult:
    """Run a trial's episodes on these ranks; every rank returns all records, in the episodes' order.

    A failure becomes records that say so, but for a StorageError, which is raised: the trial is not finished
    then. Episodes finished by an earlier, interrupted attempt are read back.
    Cheap attackers come first (see ``Config.COST``); what is left of a trial that the label-only anchor
    dominates by then is cut, see :func:`study.search.pruning.dominated`.
    """
    group = group or SingleRank()
    run = TrialRun(spec, group)
    episodes = run.episodes
    run.open_scenes()
    done = run.finished_before()
    missing = [i for i in range(len(episodes)) if i not in done.records]
    run.deploy(missing)
    for stage in stages(episodes):
        own = [i for i in stage if i in missing][group.rank :: group.size]
        for share in group.gather(run.attack(own)):
            done.add(share)
        ran = [i for i in range(len(episodes)) if cost_of(stage, episodes) >= episodes[i].attack_config.COST]
        if len(ran) < len(episodes) and dominated([done.records[i] for i in ran], spec.floor):
            # Those found in the store too, so that a record does not depend on what ran before.
            done.records |= {
                i: pruned_record(episode, run.seeds[episode.scene.seed].fingerprint, len(ran), len(episodes))
                for i, episode in enumerate(episodes)
                if i not in ran
            }
            kept = {"truth", *(episodes[i].attack for i in ran)}
            done.pictures = {name: picture for name, picture in done.pictures.items() if name in kept}
            break
    result = TrialResult([done.records[i] for i in range(len(episodes))], done.pictures)
    for made, reused in group.gather(run.artifacts()):
        result.count(made, reused)
    return result


def _portable(error: BaseException) -> BaseException:
    """The error, or its text where it cannot travel between processes."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def failed_trial(spec: TrialSpec, error: str) -> TrialResult:
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
    done = find_finished(ArtifactStore(Storage(spec.root)), episodes, scenes, spec.stacked)
    records = [done.records.get(i) or failed_record(e, None, lost) for i, e in enumerate(episodes)]
    return TrialResult(records, done.pictures)
