"""Serve a protected classifier over HTTP: it answers with released vectors instead of confidence vectors.

``python study/serve.py --unit FOLDER --victim module:factory``; ``--help`` explains every setting.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a while
    from study.runtime.signals import exit_on_signal

    exit_on_signal()

import contextlib
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

from mipoison.config import ConfigError
from mipoison.storage.files import StorageError
from study.executors.environment import RayPlan, check_privacy, plan_ray
from study.runtime.arguments import parse
from study.runtime.entry import DONE, FAILED, USAGE
from study.runtime.scratch import temporary_run_folder
from study.runtime.signals import Interrupts, as_command, interruptible
from study.serving.listeners import listeners, listening
from study.serving.privacy_label import read_label

if TYPE_CHECKING:
    from mipoison.serving.wrap import ProtectedClassifier
    from study.serving.door import Door
    from study.serving.http_server import HttpServer

LOOPBACK = ("127.0.0.1", "localhost", "::1")
APP = "mipoison"
"""Name of the application in Ray Serve."""
DRAIN_S = 15
"""How many seconds a stopping server waits for requests in progress."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Serve a classifier behind its post-processing unit, on a Ray Serve of this machine alone.

    POST /release: a PNG or JPEG file, an .npy array, {"images": [...]}, or a form of such files; answers
    {"released": [[...]], "labels": [...]}. GET /health, /label, /metrics, /openapi.json. The secret of keyed
    randomness is read from the environment variable MIPOISON_SECRET (16 to 64 bytes), the hashes of API keys
    from MIPOISON_API_KEYS (NAME:SHA256,NAME:SHA256).
    """

    unit: str
    """folder (or s3://bucket/prefix) that Unit.save wrote"""
    victim: str | None = None
    """the classifier: module:factory (in the current folder or an installed package) or file.pt2; default:
    the one that protect kept in the unit's folder"""
    victim_state: str | None = None
    """weights for module:factory: .safetensors, or a state dict (.pt, loaded with weights_only)"""
    resize: Literal["bilinear", "bicubic", "lanczos", "box", "nearest", "none"] | None = None
    """how pictures of another size are resized (their central part of the right aspect ratio); none, and the
    default: they are refused, as the images that the unit was fitted on may have been resized otherwise"""
    queries_per_key: int | None = None
    """images that each client may ask for in all, per API key, without keys per address; beyond: 429"""
    queries_renewed_s: float | None = None
    """seconds after which a client's budget is renewed; default: never"""
    query_store: Path | None = None
    """SQLite file that keeps the count over a restart; default: UNIT.queries.sqlite beside the unit"""
    trusted_proxy: tuple[str, ...] = ()
    """addresses or networks of proxies whose X-Forwarded-For tells the client's address"""
    plugin: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODULE [MODULE ...]")] = ()
    """plug-ins of the unit's defense: modules, or names of installed ones. They run code; one
    that only the unit names is never loaded"""
    host: str = "127.0.0.1"
    """address to listen on; beyond loopback, put TLS and authentication in front of it"""
    port: int = 8000
    """port to listen on"""
    replicas: int = 1
    """copies of the classifier that share the requests"""
    gpus_per_replica: float = 0.0
    """GPUs of a replica (fractions share one); 0: the CPU"""
    threads: int = 1
    """CPU threads of torch in a replica"""
    verbose: bool = False
    """show Ray's logs and one line a request"""

    def check(self) -> None:
        """Raise ConfigError for a value that is out of bounds, or a port that is in use."""
        if self.victim is None and self.victim_state is not None:
            raise ConfigError(f"--victim-state {self.victim_state!r} without --victim module:factory")
        for name, low, high in (("port", 1, 65535), ("replicas", 1, 1000), ("threads", 1, 1024)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be between {low} and {high}")
        if not 0 <= self.gpus_per_replica <= 64:
            raise ConfigError(f"gpus_per_replica = {self.gpus_per_replica}: must be between 0 and 64")
        if self.queries_per_key is not None and not 1 <= self.queries_per_key <= 2**53:
            raise ConfigError(f"queries_per_key = {self.queries_per_key}: must be at least 1")
        if self.queries_renewed_s is not None and not 1 <= self.queries_renewed_s <= 1e10:
            raise ConfigError(f"queries_renewed_s = {self.queries_renewed_s}: must be at least 1")
        if self.queries_per_key is None and (self.queries_renewed_s, self.query_store) != (None, None):
            raise ConfigError("queries_renewed_s and query_store belong to queries_per_key: give that, too")
        if self.queries_per_key is not None and self.query_store is None and "://" in self.unit:
            raise ConfigError(f"query_store: give a file of this machine, the unit is at {self.unit}")
        listening(self.host, self.port).close()


EXAMPLES = (
    "--unit unit",
    "--unit unit --victim net:make --victim-state weights.safetensors --port 8001",
)
"""Shown by ``--help``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted.

    Returns:
        The exit code. 0: stopped by Ctrl-C, SIGTERM or SIGHUP, the normal end of a server. 1: it did not
        start. 2: invalid input.
    """
    with interruptible() as interrupts:
        return _main(arguments, interrupts)


def _main(arguments: Sequence[str] | None, interrupts: Interrupts) -> int:
    # Imported here, because the processes that read request bodies import this file and need no torch.
    from study.runtime.progress import Progress, loading

    console, errors = Console(highlight=False), Console(stderr=True, highlight=False, soft_wrap=True)
    settings = parse(Arguments, arguments, "serve", examples=EXAMPLES)
    with ExitStack() as held:
        try:
            settings.check()
            held.enter_context(temporary_run_folder())
            plan = plan_ray("local")  # Ray reads its environment when it is imported
            with loading(console):
                served = _served(settings)
                protected = served.load()  # here first: what is wrong is said before anything starts
            door = _door(settings)
            if door.budget is not None:
                held.callback(door.budget.close)
            server = _http_server(settings, protected, door, read_label(served.unit))
            held.callback(_stop, plan)
            held.callback(server.stop, DRAIN_S)
            with interrupts.override_errors(), Progress(console) as progress:
                for i, (text, step) in enumerate(steps := _steps(settings, plan, served, server)):
                    progress.note(text, i, len(steps))
                    step()
            if settings.host not in LOOPBACK:
                missing = "no TLS" if door.keys is not None else "no TLS and no API keys"
                console.print(f"other machines may reach {settings.host}: the server has {missing}")
            for heard in _beyond_loopback(settings.port):
                console.print(f"{heard}: reachable from other machines, needs Ray's token", soft_wrap=True)
            console.print(f"serving {protected.extra_repr()}", soft_wrap=True, markup=False)
            console.print(_said_of(door), soft_wrap=True, markup=False)
            console.print(f"http://{settings.host}:{settings.port}/release; Ctrl-C stops", soft_wrap=True)
            while interrupts.received is None:  # other code may have caught the KeyboardInterrupt
                time.sleep(1)
            console.print("stopping")
        except (ConfigError, StorageError) as error:
            errors.print(f"error: {error}", style="bold red", markup=False)
            return USAGE
        except KeyboardInterrupt:
            console.print("stopping")
        except (RuntimeError, TimeoutError) as error:
            errors.print(f"error: Ray Serve did not start: {str(error).splitlines()[0]}", markup=False)
            return FAILED
    return DONE


def _served(settings: Arguments) -> Any:
    """What the replicas load: this unit as it is now, and no other; raises ConfigError without Ray Serve."""
    try:
        from mipoison.serving.unit import unit_sha256
        from study.serving.endpoint import Served
    except ImportError as error:
        raise ConfigError(f'Ray Serve is missing ({error}): pip install -e ".[serve]"') from error
    unit = settings.unit if "://" in settings.unit else os.path.abspath(os.path.expanduser(settings.unit))
    return Served(
        unit=unit,
        unit_sha256=unit_sha256(unit),
        victim=settings.victim,
        victim_state=settings.victim_state,
        device="cuda" if settings.gpus_per_replica else "cpu",
        threads=settings.threads,
        plugins=settings.plugin,
    )


def _door(settings: Arguments) -> Door:
    """Who may ask, and how much: of the environment and the settings.

    Raises:
        ConfigError: keys or proxies of another form, or a file that cannot be written.
    """
    # Here, because the processes that read request bodies import this file.
    from study.serving.api_keys import VARIABLE, ApiKeys
    from study.serving.budget import QueryBudget
    from study.serving.door import Door, networks

    text = os.environ.pop(VARIABLE, None)  # Ray's processes need no hashes
    keys = None if text is None else ApiKeys.from_text(text)
    proxies, budget = networks(settings.trusted_proxy), None
    if settings.queries_per_key is not None:
        unit = Path(os.path.abspath(os.path.expanduser(settings.unit)))
        path = settings.query_store or unit.with_name(f"{unit.name}.queries.sqlite")
        budget = QueryBudget(path.expanduser(), settings.queries_per_key, settings.queries_renewed_s)
    return Door(keys, budget, proxies)


def _said_of(door: Door) -> str:
    n = 0 if door.keys is None else len(door.keys)
    keys = f"{n or 'no'} API key{'s' * (n != 1)}"
    if door.budget is None:
        return f"{keys}; queries are not counted"
    renewed = "" if door.budget.renewed_s is None else f", renewed after {door.budget.renewed_s:g} s"
    who = "address" if door.keys is None else "key"
    return f"{keys}; {door.budget.most} queries for each {who}{renewed}, counted in {door.budget.path}"


def _http_server(
    settings: Arguments, protected: ProtectedClassifier, door: Door, label: bytes | None
) -> HttpServer:
    """Create the HTTP server, which listens from now on."""
    # Here, because the processes that read request bodies import this file and need no server.
    from study.serving.http_server import HttpServer

    return HttpServer(
        settings.host,
        settings.port,
        image_shape=protected.image_shape,
        n_classes=protected.n_classes,
        couples=protected.couples,
        max_batches=settings.replicas,
        resize=None if settings.resize == "none" else settings.resize,
        label=label,
        door=door,
    )


def _beyond_loopback(port: int) -> list[str]:
    """Ports of this process and its children, other than the endpoint's, that other machines may reach."""
    return [
        f"{heard.process} {heard.address}:{heard.port}"
        for heard in listeners(os.getpid())
        if not heard.on_loopback and not (heard.pid == os.getpid() and heard.port == port)
    ]


def _steps(
    settings: Arguments, plan: RayPlan, served: Any, server: HttpServer
) -> list[tuple[str, Callable[[], Any]]]:
    """The named steps that start a local Ray, the deployment and the HTTP server, in order.

    When the last step returns, the server answers requests.
    """
    # Ray reads its environment when it is imported, and Ray Serve may not be installed.
    from ray import serve
    from ray.serve.config import ProxyLocation

    from study.executors.local_ray import start_local
    from study.serving.endpoint import Endpoint, answer_through, fault_of

    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    level = logging.INFO if settings.verbose else logging.ERROR
    actor = {"num_cpus": 0, "num_gpus": settings.gpus_per_replica}
    deployment = Endpoint.options(num_replicas=settings.replicas, ray_actor_options=actor)  # type: ignore[attr-defined]

    def ray_() -> None:
        start_local(
            plan,
            include_dashboard=False,
            object_store_memory=128 * 2**20,
            log_to_driver=settings.verbose,
            logging_level=level,
        )
        logging.getLogger("ray.serve").setLevel(level)

    def replicas() -> None:
        serve.start(proxy_location=ProxyLocation.Disabled)
        serve.run(deployment.bind(served), name=APP, route_prefix=None)
        check_privacy(plan.scratch)

    def http() -> None:
        server.start(answer_through(serve.get_app_handle(APP)), partial(fault_of, APP))

    copies = "1 copy" if settings.replicas == 1 else f"{settings.replicas} copies"
    return [
        ("starting Ray", ray_),
        (f"loading the classifier ({copies})", replicas),
        ("starting the HTTP server", http),
    ]


def _stop(plan: RayPlan) -> None:
    """Wait for requests in progress, at most ``DRAIN_S`` seconds, then stop the local Ray."""
    # Ray reads its environment when it is imported.
    import ray

    from study.executors.local_ray import stop_ray

    if ray.is_initialized():
        draining = threading.Thread(target=_drain, daemon=True)
        draining.start()
        draining.join(DRAIN_S)
    stop_ray(plan)


def _drain() -> None:
    from ray import serve  # as in _steps

    # Not serve.shutdown, whose controller prints the end of its own process as a failed task.
    with contextlib.suppress(Exception):  # Serve may not have started, or not answer; Ray is stopped anyway
        serve.delete(APP)


if __name__ == "__main__":
    sys.exit(as_command(main))
