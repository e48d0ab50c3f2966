"""The protected classifier as a Ray Serve deployment: images of several requests in, released vectors out.

Import it after ``study.executors.environment`` has set Ray's environment. ``study.serving.http_server``
handles HTTP and calls it. Shape suffixes: N images, K classes, CHW image.
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

from mipoison.plugins import load_plugins
from mipoison.serving.from_scene import load_kept_victim
from mipoison.serving.unit import UnitError, load_unit, unit_sha256
from mipoison.serving.wrap import ProtectedClassifier
from mipoison.victims.own import load_victim
from study.serving.batch_queue import Answer
from study.serving.bounds import RequestError

SECRET_VARIABLE = "MIPOISON_SECRET"


@dataclass(frozen=True)
class Served:
    """What a replica loads, as plain values. It reads the secret from the environment.

    Attributes:
        unit: folder. victim, victim_state: see ``mipoison.victims.own``; None: the victim that is kept in the
            unit's folder. device: None for the GPU if there is one.
        threads: CPU threads of torch. plugins: references of plug-ins to load first.
        unit_sha256: see ``mipoison.serving.unit.unit_sha256``: no other unit is loaded; None: any.
    """

    unit: str
    victim: str | None
    victim_state: str | None
    device: str | None
    threads: int
    plugins: tuple[str, ...] = ()
    unit_sha256: str | None = None

    def load(self) -> ProtectedClassifier:
        """Load the protected classifier.

        Raises:
            ConfigError: unit, classifier or secret cannot be used, or the unit is not the stated one.
        """
        load_plugins(self.plugins)
        unit = load_unit(self.unit, device=self.device)
        # After it was read: a copy that starts later must not release by another unit than its siblings.
        if self.unit_sha256 is not None and unit_sha256(self.unit) != self.unit_sha256:
            raise UnitError(
                f"{self.unit}: the unit was replaced since the server started, which answers by the earlier "
                "one: start the server anew to serve this one"
            )
        if self.victim is None:
            victim: torch.nn.Module = load_kept_victim(self.unit, unit)
        else:
            victim = load_victim(self.victim, self.victim_state)
        return unit.wrap(victim, secret=os.environ.get(SECRET_VARIABLE))


@serve.deployment(max_ongoing_requests=2)
class Endpoint:
    """One replica of the protected classifier."""

    def __init__(self, served: Served) -> None:
        keep_to_loopback()
        torch.set_num_threads(served.threads)
        self.protected = served.load()
        gc.collect()
        gc.freeze()  # as in study.serving.http_server
        self.one_at_a_time = threading.Lock()  # a user's module need not be thread-safe

    def release(self, requests: list[np.ndarray]) -> list[np.ndarray]:
        """The released vectors of several requests. No request affects another's."""
        with self.one_at_a_time:
            # Copies: arrays in Ray's object store are read-only, and torch warns of that.
            answers = self.protected.answer([torch.from_numpy(x_NCHW.copy()) for x_NCHW in requests])
        return [c_NK.cpu().numpy() for c_NK in answers]


def answer_through(handle: DeploymentHandle) -> Answer:
    """A function that has a Ray Serve replica release vectors for the images of several requests."""

    async def answer(requests: list[np.ndarray]) -> list[np.ndarray]:
        try:
            return await handle.release.remote(requests)
        except (RayActorError, DeploymentUnavailableError, BackPressureError) as error:
            raise RequestError(
                503, "no replica of the classifier is running; try again in a second"
            ) from error

    return answer


def fault_of(app: str) -> str:
    """What is wrong with a Ray Serve application; '' while at least one replica runs."""
    application = serve.status().applications.get(app)
    if application is None:
        return "the classifier is not loaded"
    for deployment in application.deployments.values():
        if not deployment.replica_states.get(ReplicaState.RUNNING, 0):
            return "no replica of the classifier is running"
    return ""


def keep_to_loopback() -> bool:
    """Make Ray Serve's gRPC server in this process listen on 127.0.0.1 instead of all interfaces.

    A replica calls this before Ray starts that server. Ray has no setting for it, so Ray's function that
    opens the port is wrapped. ``study.serving.listeners`` checks afterwards on which addresses processes
    listen.

    Returns:
        False if this version of Ray opens the port in another way; ``study/serve.py`` then warns of it.
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
