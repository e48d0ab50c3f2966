"""Runs trials on Ray: Tune schedules them; each runs in a Train worker group, or in Tune's actor itself.

Trials write their own records, so Tune's files are temporary.
"""

from __future__ import annotations

import dataclasses
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray import tune
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.tune.execution import class_cache

from mipoison.config import ConfigError
from study.executors.base import Ask, R, Tell
from study.executors.environment import RayPlan
from study.executors.local_ray import keep_signal_handlers, start_local, stop_ray
from study.executors.losses import NODE_RETRIES, RETRIES, loss_of
from study.executors.progress_actor import count_progress
from study.executors.tune import RETRY_WAIT_S, TrialErrors, TuneSearcher, trainable
from study.executors.worker_group import WorkerGroup, anchor_loop
from study.records.store import ProgressCallback, no_progress
from study.runtime.scratch import scratch_folder
from study.settings.resources import Resources
from study.trial.failure import LostError
from study.trial.preparation import count_preparation, prepare_scene, scenes_of
from study.trial.spec import TrialResult, TrialSpec
from study.trial.worker import run_trial

# Tune sends these variables along with each trial, and Ray logs them. Workers do not need them: those of a
# local Ray inherit this process's environment, and a cluster's machines have an instance profile.
class_cache.ENV_VARS_TO_PROPAGATE -= {
    name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")
}

LOST = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
)
"""Raised by Ray when a task's process, node or result was lost more often than the task is retried."""
HEAD = "node:__internal_head__"
"""A resource that only the head node has. A Tune trial that merely waits for its Train workers requests 0.001
of it and no CPU, because a CPU that it held would be missing for the workers."""


def start_ray(plan: RayPlan, *, dashboard: bool = True, verbose: bool = False) -> str:
    """Connect to a cluster, or start a local Ray on loopback.

    Args:
        plan: from ``study.executors.environment.plan_ray``, made before Ray was imported.
        dashboard: serve the dashboard of a local Ray. verbose: show the logs of Ray and of the workers.

    Returns:
        The dashboard's URL, '' if there is no dashboard.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="ray")
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    options: dict[str, Any] = {
        "log_to_driver": verbose,
        "logging_level": logging.INFO if verbose else logging.ERROR,
    }
    if not plan.local:
        try:
            with keep_signal_handlers():
                context = ray.init(address=plan.address, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"cannot use {plan}: {str(error).splitlines()[0]}") from error
    else:
        context = start_local(
            plan,
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            object_store_memory=512 * 2**20,
            **options,
        )
    return f"http://{context.dashboard_url}" if context.dashboard_url else ""


def _gathered(refs: list[Any], on_progress: Callable[[int], None]) -> list[Any]:
    """The results in order; calls ``on_progress`` with their number whenever one arrives."""
    waiting = list(refs)
    while waiting:
        on_progress(len(refs) - len(waiting))
        _, waiting = ray.wait(waiting, num_returns=1)
    return list(ray.get(refs))


class RayExecutor:
    """Trials on the Ray that :func:`start_ray` connected to.

    Raises:
        ConfigError: the cluster lacks the resources of one trial, naming what is missing.
    """

    trainable: Any = staticmethod(trainable)
    """What a Tune trial runs; ``study.bench.sleeping_trials`` replaces it by trials of known length."""

    def __init__(self, asked: Resources, plan: RayPlan) -> None:
        there, most = ray.cluster_resources(), plan.most
        resources = {kind: max(there.get(kind, 0), most.get(kind, 0)) for kind in {*there, *most}}
        workers = asked.workers
        if workers is None:
            workers = 1 if resources.get("GPU", 0) > 0 else 0
        gpus = asked.gpus_per_worker
        if asked.workers is None and workers == 1 and gpus == 0:
            gpus = 1.0
        self.worker_group = WorkerGroup(workers, asked.cpus_per_worker, gpus, loopback=plan.local)
        need = {"CPU": max(workers, 1) * self.worker_group.cpus, "GPU": max(workers, 1) * gpus}
        short = [
            f"{n:g} {kind}s needed, {resources.get(kind, 0):g} {'at most' if most else 'there'}"
            for kind, n in need.items()
            if n > resources.get(kind, 0)
        ]
        if short and (most or not plan.growing):
            raise ConfigError(
                f"workers = {workers} with {self.worker_group.cpus:g} CPUs and {gpus:g} GPUs each: "
                f"more than the cluster has ({'; '.join(short)})"
            )
        fits = [int(resources.get(kind, 0) / n) for kind, n in need.items() if n]
        self.max_concurrent = asked.concurrent or max(1, min(fits, default=1))
        self._tasks_at_once = asked.concurrent or self.max_concurrent * max(workers, 1)
        self._need = need
        self._plan = plan

    def close(self) -> None:
        stop_ray(self._plan)

    def anchors(
        self, specs: list[TrialSpec], on_progress: ProgressCallback = no_progress
    ) -> list[TrialResult]:
        """As in :class:`Executor`. What was finished before a LostError is kept in the artifact store."""
        try:
            if self.worker_group.workers:
                return self._anchors_by_groups(specs, on_progress)
            first = specs[0]
            remote = ray.remote(
                num_cpus=self.worker_group.cpus, num_gpus=self.worker_group.gpus, max_retries=NODE_RETRIES
            )
            prepare, run = remote(prepare_scene), remote(run_trial)
            scenes = scenes_of(specs)
            of = len(scenes) + len(specs)
            refs = [prepare.remote(scene, first.root, first.data_root) for scene in scenes]
            prepared = _gathered(refs, lambda n: on_progress(n, of))
            results = [run.remote(spec) for spec in specs]
            return count_preparation(prepared, _gathered(results, lambda n: on_progress(len(scenes) + n, of)))
        except LOST as error:
            raise LostError(f"the anchors were lost again and again: {loss_of(str(error))}") from error

    def _anchors_by_groups(self, specs: list[TrialSpec], on_progress: ProgressCallback) -> list[TrialResult]:
        config: dict[str, Any] = {"specs": [dataclasses.asdict(s) for s in specs]}
        of = len(scenes_of(specs)) + len(specs)
        for tries in range(1 + RETRIES):
            try:
                with count_progress(lambda n: on_progress(n, of), HEAD) as actor:
                    return self.worker_group.train(anchor_loop, config | {"progress_actor": actor}, "anchors")
            except TrainingFailedError as error:
                if tries == RETRIES:
                    raise LostError(
                        f"the anchors were lost {1 + RETRIES} times: {str(error).splitlines()[0]}"
                    ) from error
                time.sleep(RETRY_WAIT_S)
        raise AssertionError

    def each(self, work: Callable[[TrialSpec], R], specs: list[TrialSpec]) -> Iterator[R | Exception]:
        """As in :class:`Executor`: one Ray task a spec, with the resources of a worker.

        No more run at once than ``--concurrent`` says, without it as many as the trials have workers. A task
        whose process or node was lost runs again, ``RETRIES`` times.
        """
        group = self.worker_group
        remote = ray.remote(num_cpus=group.cpus, num_gpus=group.gpus, max_retries=RETRIES)
        task = remote(work)
        refs: list[Any] = []
        running: list[Any] = []
        for place in range(len(specs)):
            while place >= len(refs) or refs[place] in running:
                while len(refs) < len(specs) and len(running) < self._tasks_at_once:
                    refs.append(task.remote(specs[len(refs)]))
                    running.append(refs[-1])
                _, running = ray.wait(running, num_returns=1)
            try:
                result: R | Exception = ray.get(refs[place])
            except Exception as error:
                result = error
            yield result

    def search(self, n: int, ask: Ask, tell: Tell) -> None:
        if self.worker_group.workers:
            resources = tune.PlacementGroupFactory([{HEAD: 0.001}])
        else:
            resources = tune.PlacementGroupFactory([{k: v for k, v in self._need.items() if v}])
        errors = TrialErrors()
        with scratch_folder("tune") as scratch:
            tune.Tuner(
                tune.with_resources(self.trainable, resources),
                tune_config=tune.TuneConfig(
                    search_alg=TuneSearcher(ask, tell, self.worker_group, n, errors),
                    num_samples=-1,  # the searcher decides when to stop, because it repeats lost trials
                    max_concurrent_trials=self.max_concurrent,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    verbose=0,
                    storage_path=scratch,
                    name="study",
                    callbacks=[errors],
                    failure_config=tune.FailureConfig(max_failures=0),
                ),
            ).fit()
