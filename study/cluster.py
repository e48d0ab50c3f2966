"""Trials on Ray: Tune schedules them, a Train worker group (or, with 0 workers, the trial itself) runs each.

A local Ray listens on loopback alone. Trials write their own records; what Tune keeps is scratch.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import tempfile
import time
import uuid
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _TorchBackend
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.tune.search import Searcher

from mipoison.config import ConfigError
from study.driver import Ask, Done
from study.rayenv import RayPlan
from study.settings import StudySettings
from study.trial import execute
from study.worker import TorchGroup, TrialResult, TrialSpec, after, prepare_scene, run_trial, scenes_of

HEAD = "node:__internal_head__"
"""A resource that Ray gives the head node. A trial that only waits for its Train workers takes a crumb of it:
holding any share of a CPU it would starve them."""
RETRIES = 3
"""Times that a trial whose process died is started again; finished episodes are not repeated."""
RETRY_WAIT_S = 5
GROUP_TIMEOUT_S = 1800


# ---------------------------------------------------------------- starting Ray


def start_ray(settings: StudySettings, plan: RayPlan) -> str:
    """Connect to a cluster, or start a local Ray on loopback.

    Args:
        plan: made before Ray was imported (see ``study.rayenv``).

    Returns:
        The dashboard's URL, '' if there is none.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="ray")
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    options: dict[str, Any] = {
        "log_to_driver": settings.verbose,
        "logging_level": logging.INFO if settings.verbose else logging.ERROR,
    }
    if not plan.local:
        try:
            context = ray.init(address=plan.address, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"cannot use {plan}: {str(error).splitlines()[0]}") from error
    else:
        context = ray.init(
            address="local",
            include_dashboard=settings.dashboard,
            dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1",
            _temp_dir=plan.scratch,
            object_store_memory=512 * 2**20,
            **options,
        )
    return f"http://{context.dashboard_url}" if context.dashboard_url else ""


def stop_ray(plan: RayPlan) -> None:
    """Disconnect; a local Ray ends, and its logs and token go."""
    node: Any = ray._private.worker._global_node
    session = node.get_session_dir_path() if plan.local and node is not None else ""
    ray.shutdown()
    if session:
        shutil.rmtree(session, ignore_errors=True)
        if plan.token:
            Path(plan.token).unlink(missing_ok=True)


# ---------------------------------------------------------------- worker groups


def _join(path: str, rank: int, size: int, timeout_s: float) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = torch.distributed.FileStore(path, size)
    torch.distributed.init_process_group(
        "gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=timeout_s)
    )


class _LoopbackBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        path = str(Path(tempfile.gettempdir()) / f"mipoison-group-{uuid.uuid4().hex}")
        size = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(i, _join, path, i, size, backend_config.timeout_s)
                for i in range(size)
            ]
        )


@dataclasses.dataclass
class LoopbackTorchConfig(TorchConfig):
    """Meets over a file, for a Ray on one machine: a TCP store would listen on every interface."""

    @property
    def backend_cls(self) -> type:
        return _LoopbackBackend


def _anchor_loop(config: dict[str, Any]) -> list[TrialResult]:
    """Train loop of the preparation (scenes dealt to the ranks) and the anchors (each by the whole group)."""
    group = TorchGroup()
    specs = [TrialSpec(**spec) for spec in config["specs"]]
    prepared = [
        prepare_scene(scene, specs[0].root, specs[0].data_root)
        for i, scene in enumerate(scenes_of(specs))
        if i % group.size == group.rank
    ]
    everyone = group.gather(prepared)  # nobody starts before everything is prepared
    return after(
        [counts for share in everyone for counts in share], [run_trial(spec, group) for spec in specs]
    )


def _trial_loop(config: dict[str, Any]) -> Any:
    """Train loop of a trial: rank 0 writes the records and returns the outcome."""
    return execute(TrialSpec(**config["spec"]), TorchGroup())


@dataclasses.dataclass(frozen=True)
class Crew:
    """How many workers with what; plain values, sent along with each trial."""

    workers: int
    cpus: float
    gpus: float
    loopback: bool

    def train(self, loop: Any, config: dict[str, Any], name: str) -> Any:
        """Run a loop as a Ray Train run and return rank 0's return value."""
        scratch = tempfile.mkdtemp(prefix="mipoison-train-")
        torch_config = (LoopbackTorchConfig if self.loopback else TorchConfig)(
            backend="gloo", timeout_s=GROUP_TIMEOUT_S
        )
        try:
            result = TorchTrainer(
                loop,
                train_loop_config=config,
                torch_config=torch_config,
                scaling_config=ScalingConfig(
                    num_workers=self.workers,
                    use_gpu=self.gpus > 0,
                    resources_per_worker={"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})},
                ),
                # Train retries for ever by default; Tune starts the whole trial again instead.
                run_config=RunConfig(
                    storage_path=scratch,
                    name=name,
                    failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),  # type: ignore[call-arg]
                ),
            ).fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return result.return_value  # type: ignore[attr-defined]


def _trainable(config: dict[str, Any]) -> dict[str, Any]:
    """A Tune trial: the worker function itself, or a Train run of it.

    The outcome is reported as JSON: Tune flattens nested results before the searcher sees them.
    """
    spec, crew = TrialSpec(**config["spec"]), Crew(**config["crew"])
    error = ""
    for _ in range(1 + RETRIES):
        try:
            if crew.workers == 0:
                return {"outcome": json.dumps(execute(spec)), "done": True}
            outcome = crew.train(_trial_loop, {"spec": config["spec"]}, spec.trial)
            return {"outcome": json.dumps(outcome), "done": True}
        except (OSError, TrainingFailedError) as failure:  # a lost worker, a storage that is away for a while
            error = f"{type(failure).__name__}: {failure}".splitlines()[0]
            time.sleep(RETRY_WAIT_S)
        except Exception as failure:  # raising would cost the actor, and its warm caches
            error = f"{type(failure).__name__}: {failure}".splitlines()[0]
            break
    return {"outcome": None, "error": error, "done": True}


class _Driver(Searcher):
    """Tune's searcher: asks the study's search for the next trial, and tells it the outcome.

    Ray's OptunaSearch would own the Optuna study; here the same search serves every executor, is taught from
    Parquet, and a missing or non-finite objective is a failed trial instead of the end of the run.
    """

    def __init__(self, ask: Ask, done: Done, crew: Crew, n: int) -> None:
        super().__init__(metric=None, mode=None)
        self._ask, self._done, self._crew, self._left = ask, done, dataclasses.asdict(crew), n
        self._specs: dict[str, TrialSpec] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if self._left <= 0:
            return Searcher.FINISHED
        self._left -= 1
        spec = self._ask()
        if spec is None:
            self._left = 0
            return Searcher.FINISHED
        self._specs[trial_id] = spec
        return {"spec": dataclasses.asdict(spec), "crew": self._crew}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        spec = self._specs.pop(trial_id, None)
        if spec is None:
            return
        outcome, reason = None, "the trial's process was lost (killed, or out of memory)"
        if result and not error:
            outcome, reason = json.loads(result.get("outcome") or "null"), result.get("error") or reason
        self._done(spec, outcome, None if outcome is not None else reason)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher into a snapshot that is never read: the records are the state."""
        return {"n": self._left}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a study is resumed from its records with --resume")


class RayExecutor:
    """Trials on the Ray that :func:`start_ray` connected to.

    Raises:
        ConfigError: the cluster lacks the resources of one trial, naming what is missing.
    """

    trainable: Any = staticmethod(_trainable)
    """What a Tune trial runs; ``study.scaling`` puts trials of known length there."""

    def __init__(self, settings: StudySettings, plan: RayPlan) -> None:
        there, most = ray.cluster_resources(), plan.most
        resources = {kind: max(there.get(kind, 0), most.get(kind, 0)) for kind in {*there, *most}}
        workers = settings.workers
        if workers is None:
            workers = 1 if resources.get("GPU", 0) > 0 else 0
        gpus = settings.gpus_per_worker
        if settings.workers is None and workers == 1 and gpus == 0:
            gpus = 1.0
        self.crew = Crew(workers, settings.cpus_per_worker, gpus, loopback=plan.local)
        need = {"CPU": max(workers, 1) * self.crew.cpus, "GPU": max(workers, 1) * gpus}
        short = [
            f"{n:g} {kind}s needed, {resources.get(kind, 0):g} {'at most' if most else 'there'}"
            for kind, n in need.items()
            if n > resources.get(kind, 0)
        ]
        if short and (most or not plan.growing):
            raise ConfigError(
                f"workers = {workers} with {self.crew.cpus:g} CPUs and {gpus:g} GPUs each: "
                f"more than the cluster has ({'; '.join(short)})"
            )
        fits = [int(resources.get(kind, 0) / n) for kind, n in need.items() if n]
        self.lanes = settings.concurrent or max(1, min(fits, default=1))
        self._need = need
        self._plan = plan

    def close(self) -> None:
        stop_ray(self._plan)

    def anchors(self, specs: list[TrialSpec]) -> list[TrialResult]:
        if self.crew.workers:
            return self.crew.train(_anchor_loop, {"specs": [dataclasses.asdict(s) for s in specs]}, "anchors")
        first = specs[0]
        prepare = ray.remote(num_cpus=self.crew.cpus, num_gpus=self.crew.gpus)(prepare_scene)
        prepared = ray.get([prepare.remote(scene, first.root, first.data_root) for scene in scenes_of(specs)])
        run = ray.remote(num_cpus=self.crew.cpus, num_gpus=self.crew.gpus)(run_trial)
        return after(prepared, ray.get([run.remote(spec) for spec in specs]))

    def search(self, n: int, ask: Ask, done: Done) -> None:
        if self.crew.workers:
            resources = tune.PlacementGroupFactory([{HEAD: 0.001}])
        else:
            resources = tune.PlacementGroupFactory([{k: v for k, v in self._need.items() if v}])
        scratch = tempfile.mkdtemp(prefix="mipoison-tune-")
        driver = _Driver(ask, done, self.crew, n)
        try:
            tune.Tuner(
                tune.with_resources(self.trainable, resources),
                tune_config=tune.TuneConfig(
                    search_alg=driver, num_samples=n, max_concurrent_trials=self.lanes, reuse_actors=True
                ),
                run_config=tune.RunConfig(
                    verbose=0,
                    storage_path=scratch,
                    name="study",
                    failure_config=tune.FailureConfig(max_failures=RETRIES),
                ),
            ).fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
