"""Run a trial, or the anchors, on several workers of a Ray Train worker group."""

from __future__ import annotations

import dataclasses
import functools
import os
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.worker_group import worker_group
from ray.util.placement_group import get_placement_group, placement_group, remove_placement_group

from study.runtime.scratch import scratch_folder
from study.trial.preparation import count_preparation, prepare_scene, scenes_of
from study.trial.ranks import TorchGroup
from study.trial.run import run_and_record
from study.trial.spec import TrialResult, TrialSpec
from study.trial.worker import run_trial

GROUP_TIMEOUT_S = 1800


def _join(path: str, rank: int, size: int, timeout_s: float) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = torch.distributed.FileStore(path, size)
    torch.distributed.init_process_group(
        "gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=timeout_s)
    )


class _LoopbackBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        path = str(Path(backend_config.folder) / f"group-{uuid.uuid4().hex}")
        size = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(i, _join, path, i, size, backend_config.timeout_s)
                for i in range(size)
            ]
        )


@dataclasses.dataclass
class LoopbackTorchConfig(TorchConfig):
    """Torch's process group with a rendezvous over a file, for a Ray on one machine.

    Train's own rendezvous opens a TCP store that listens on every interface.

    Attributes:
        folder: where the file is created; the caller of the run removes it.
    """

    folder: str = ""

    @property
    def backend_cls(self) -> type:
        return _LoopbackBackend


def anchor_loop(config: dict[str, Any]) -> list[TrialResult]:
    """Train loop that prepares the scenes (shared among the ranks), then runs each anchor on all ranks.

    The progress actor ``config["progress_actor"]`` counts every finished scene and anchor.
    """
    group, actor = TorchGroup(), config["progress_actor"]
    specs = [TrialSpec(**spec) for spec in config["specs"]]
    prepared, results = [], []
    for i, scene in enumerate(scenes_of(specs)):
        if i % group.size == group.rank:
            prepared.append(prepare_scene(scene, specs[0].root, specs[0].data_root))
            actor.add.remote()
    everyone = group.gather(prepared)  # a barrier: no rank starts an anchor before all scenes are prepared
    for spec in specs:
        results.append(run_trial(spec, group))
        if group.rank == 0:
            actor.add.remote()
    return count_preparation([counts for share in everyone for counts in share], results)


def trial_loop(config: dict[str, Any]) -> Any:
    """Train loop that runs a trial; rank 0 writes the records and returns the outcome."""
    return run_and_record(TrialSpec(**config["spec"]), TorchGroup())


class NamedGroup(ControllerCallback):
    """Gives the placement group of a Train run a name, so that the caller can release it.

    If the workers are lost while they start, Ray leaves the placement group to an actor that asks the
    dashboard whether the run still lives. Without a dashboard the resources would never be freed, and the
    next try could not start.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def after_controller_start(self, train_run_context: Any) -> None:
        """Train calls this in the controller's process, before it requests workers."""
        worker_group.placement_group = functools.partial(placement_group, name=self._name)


def release(name: str) -> None:
    """Remove the placement group with this name, if it still exists."""
    try:
        remove_placement_group(get_placement_group(name))
    except ValueError:  # Train has removed it
        return


class Trainer(TorchTrainer):
    """A TorchTrainer without its SIGINT handler, which stays installed after the run and exits with 0."""

    def _register_sigint_handler(self, controller: Any) -> None:
        return


@dataclasses.dataclass(frozen=True)
class WorkerGroup:
    """The size of a Train worker group and the resources of each worker; sent along with each trial.

    Attributes:
        workers: their number; 0 runs a trial in Tune's own actor.
        cpus, gpus: of each worker.
        loopback: Ray runs on this machine only, see :class:`LoopbackTorchConfig`.
    """

    workers: int
    cpus: float
    gpus: float
    loopback: bool

    def train(self, loop: Any, config: dict[str, Any], name: str) -> Any:
        """Run a loop as a Ray Train run and return rank 0's return value."""
        group = f"mipoison-{name}-{uuid.uuid4().hex}"
        options: dict[str, Any] = {"backend": "gloo", "timeout_s": GROUP_TIMEOUT_S}
        with scratch_folder("train") as scratch:
            torch_config = (
                LoopbackTorchConfig(**options, folder=scratch) if self.loopback else TorchConfig(**options)
            )
            try:
                result = Trainer(
                    loop,
                    train_loop_config=config,
                    torch_config=torch_config,
                    scaling_config=ScalingConfig(
                        num_workers=self.workers,
                        use_gpu=self.gpus > 0,
                        resources_per_worker={"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})},
                    ),
                    # By default Train retries without limit; here the caller repeats the whole trial.
                    run_config=RunConfig(
                        storage_path=scratch,
                        name=name,
                        callbacks=[NamedGroup(group)],  # type: ignore[list-item]
                        failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),  # type: ignore[call-arg]
                    ),
                ).fit()
            finally:
                release(group)
        return result.return_value  # type: ignore[attr-defined]
