"""The protected classifier as a Ray Serve deployment: several requests' images in, released vectors out.

Imported after ``study.executors.environment`` has set Ray's environment. HTTP ends before it, in
``study.serving.front``. Shape
suffixes: N images, K classes, CHW image.
"""

from __future__ import annotations

import gc
import importlib
import os
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ReplicaState

from mipoison.serving.unit import load_unit
from mipoison.serving.wrap import ProtectedClassifier
from mipoison.victims.own import load_victim
from study.serving.lanes import Answer
from study.serving.request_parsing import RequestError

SECRET_VARIABLE = "MIPOISON_SECRET"


@dataclass(frozen=True)
class Served:
    """What is served, as plain values; the secret is read from the environment where it is needed.

    Attributes:
        unit: folder. victim, victim_state: see ``mipoison.victims.own``. device: None for the GPU if there is
            one.
        threads: CPU threads of torch.
    """

    unit: str
    victim: str
    victim_state: str | None
    device: str | None
    threads: int

    def load(self) -> ProtectedClassifier:
        """The protected classifier.

        Raises:
            ConfigError: unit, classifier or secret that cannot be used.
        """
        unit = load_unit(self.unit, device=self.device)
        return unit.wrap(load_victim(self.victim, self.victim_state), secret=os.environ.get(SECRET_VARIABLE))


@serve.deployment(max_ongoing_requests=2)
class Endpoint:
    """One copy of the classifier."""

    def __init__(self, served: Served) -> None:
        keep_to_loopback()
        torch.set_num_threads(served.threads)
        self.protected = served.load()
        gc.collect()
        gc.freeze()  # as in study.serving.front
        self.one_at_a_time = threading.Lock()  # a user's module need not bear two callers

    def release(self, requests: list[np.ndarray]) -> list[np.ndarray]:
        """Several requests' released vectors; none depends on the others."""
        with self.one_at_a_time:
            # Copies: arrays that come out of Ray's memory cannot be written to, and torch warns of that.
            answers = self.protected.answer([torch.from_numpy(x_NCHW.copy()) for x_NCHW in requests])
        return [c_NK.cpu().numpy() for c_NK in answers]


def answering(handle: DeploymentHandle) -> Answer:
    """What gives released vectors for several requests' images, through Ray Serve."""

    async def answer(requests: list[np.ndarray]) -> list[np.ndarray]:
        try:
            return await handle.release.remote(requests)
        except (RayActorError, DeploymentUnavailableError, BackPressureError) as error:
            raise RequestError(503, "no copy of the classifier is there; try again in a second") from error

    return answer


def fault(app: str) -> str:
    """What is wrong with a Ray Serve application: '' while at least one copy of the classifier runs."""
    application = serve.status().applications.get(app)
    if application is None:
        return "the classifier is not loaded"
    for deployment in application.deployments.values():
        if not deployment.replica_states.get(ReplicaState.RUNNING, 0):
            return "no copy of the classifier runs"
    return ""


def keep_to_loopback() -> bool:
    """Have Ray Serve's gRPC server of this process listen on 127.0.0.1, where Ray hard-codes all interfaces.

    Called in a replica before Ray starts that server. There is no setting for it: the function of Ray's own
    that opens the port is wrapped. ``study.serving.listeners`` looks afterwards whether that helped.

    Returns:
        False where this version of Ray opens the port in another way; the start of the server then says so.
    """
    try:
        replica: Any = importlib.import_module("ray.serve._private.replica")
        opens = replica.add_port_to_grpc_server
    except (ImportError, AttributeError):
        return False

    def on_loopback(server: Any, address: str) -> Any:
        return opens(server, address.replace("[::]:", "127.0.0.1:"))

    replica.add_port_to_grpc_server = on_loopback
    return True
