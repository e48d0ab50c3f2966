"""What is decided before Ray is imported: which Ray to use, and the environment that it reads then."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import sys
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mipoison.config import ConfigError
from study.runtime.plain import visible_line
from study.runtime.scratch import (
    BASE_VARIABLE,
    DRIVER_VARIABLE,
    check_private,
    check_secret,
    read_own,
    run_folder,
)

log = logging.getLogger(__name__)

_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the records are the state; Tune's snapshots are scratch
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_task_oom_retries": "3",  # of the anchors; Ray's default is to try for ever
    # Tune's own handler returns from fit() as if all trials were done; without it Ctrl-C interrupts.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
AUTOSCALING = Path("~/ray_bootstrap_config.yaml")
"""What `ray up` leaves on a head node: resources may appear later."""
SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest socket below Ray's folder."""
GROWS_TO = "MIPOISON_GROWS_TO"
"""Environment variable that says it where no such file is (Kubernetes): ``{"CPU": 70, "GPU": 10}``."""


@dataclass(frozen=True)
class RayPlan:
    """Which Ray.

    Attributes:
        local: start a Ray of our own on loopback, with its sockets and logs in ``scratch``: this run's alone.
        address: for ``ray.init`` where it is not local.
        token: path of the token that was made for it, '' if there was one already.
        growing: the cluster scales itself, so that resources may appear later.
        most: resources that it may grow to, by name; empty where that is not known.
    """

    local: bool
    address: str | None = None
    scratch: str = ""
    token: str = ""
    growing: bool = False
    most: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return "a local Ray on loopback" if self.local else f"the Ray cluster at {self.address}"


def plan_ray(address: str | None) -> RayPlan:
    """Choose the named cluster, else this machine's, else a local Ray; set the environment accordingly.

    Must run before Ray is imported. ``ray.init(address="auto")`` is not used to find out: it attaches to any
    Ray on the machine, and hangs where a cluster left its address behind and died.

    Raises:
        ConfigError: nothing answers at the named address.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    most = autoscaling_limit()
    growing = most is not None
    if growing:  # machines take minutes to come; Train gives up on its workers after one
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "3600")
    named = address or os.environ.get("RAY_ADDRESS", "")
    if named in ("", "auto"):
        if found := _address_left_here():
            os.environ.pop("RAY_ADDRESS", None)
            return _cluster_at(found, growing, most)
        if address == "auto":
            raise ConfigError(
                "--address auto: no Ray node runs on this machine; leave --address out to start a local Ray"
            )
    elif named != "local":
        if "://" not in named and not _listens(named):
            source = "--address" if address else "RAY_ADDRESS"
            raise ConfigError(
                f"{source} {named}: nothing answers there; choose host:port of a Ray head, auto, or local"
            )
        return _cluster_at(named, growing, most)
    scratch, token = _local_environment()
    return RayPlan(local=True, scratch=scratch, token=token)


def _cluster_at(address: str, growing: bool, most: Mapping[str, float] | None) -> RayPlan:
    if Path("~/.ray/auth_token").expanduser().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray does so by itself only without an address
    return RayPlan(local=False, address=address, growing=growing, most=most or {})


def autoscaling_limit() -> dict[str, float] | None:
    """Resources that this machine's cluster may grow to: of all its workers, were all launched.

    Returns:
        None where nothing says that the cluster grows; an empty dict where it grows to an unknown size.

    Raises:
        ConfigError: the environment variable is not a JSON object of numbers.
    """
    if text := os.environ.get(GROWS_TO):
        try:
            return {str(name): float(amount) for name, amount in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f'{GROWS_TO} = {text!r}: must be JSON like {{"CPU": 70, "GPU": 10}}') from error
    try:  # JSON, whatever its name says
        config: dict[str, Any] = json.loads(AUTOSCALING.expanduser().read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    left, most = config.get("max_workers", 0), dict[str, float]()
    for name, kind in config.get("available_node_types", {}).items():
        if name == config.get("head_node_type") and len(config["available_node_types"]) > 1:
            continue
        count = min(left, kind.get("max_workers", left))
        left -= count
        for resource, amount in kind.get("resources", {}).items():
            most[resource] = most.get(resource, 0.0) + count * amount
    return most


def _address_left_here() -> str:
    """Where the node answers that `ray start` (or `ray up`) runs here, '' if none does.

    Whoever writes the file chooses which Ray runs our code and reads our images; so it counts only if we or
    root wrote it. The address is handed on as it was judged: Ray would read the file again.
    """
    path = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    try:
        address = read_own(path).strip()
    except FileNotFoundError:
        return ""
    except (ConfigError, OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        # An error, not a warning: who relies on that cluster should know why it is not used.
        log.error("%s is ignored (%s); name the cluster with --address host:port", path, visible_line(why))
        return ""
    return address if _listens(address) else ""


def _listens(address: str) -> bool:
    """Whether something accepts connections at host:port."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2):
            return True
    except (OSError, ValueError, OverflowError):  # ValueError: no number, or no host name
        return False


def _local_environment() -> tuple[str, str]:
    """Loopback and a token for a Ray of our own: its servers would listen on every interface, to anybody.

    Returns:
        A folder for Ray's sockets and logs in this process's private one, and the path of a new token beside
        it, '' if there was one. Ray opens its own folder to everybody; the private one keeps others out.

    Raises:
        ConfigError: the private folder cannot be had.
    """
    folder = run_folder()
    check_private(folder)
    os.environ[DRIVER_VARIABLE] = str(folder)
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # a node that keeps to 127.0.0.1
    token = ""
    if "RAY_AUTH_MODE" not in os.environ:
        token = str(folder / f"token-{uuid.uuid4().hex}")
        write_token(token)
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = token
    return str(folder / "r"), token


def check_length(scratch: str) -> None:
    """ConfigError where the paths of Ray's sockets would be longer than the system allows."""
    spare = SOCKET_BYTES - len(os.fsencode(scratch)) - len(SOCKET)
    if spare < 0:
        base = str(Path(scratch).parents[1])
        bytes_ = len(os.fsencode(base))
        raise ConfigError(
            f"{base} has {bytes_} bytes, at most {bytes_ + spare} leave room for the paths of Ray's sockets "
            f"({SOCKET_BYTES} bytes): set {BASE_VARIABLE} to a shorter path of your own"
        )


def write_token(path: str | Path) -> None:
    """A new token, for nobody but us."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)  # whatever the umask
        file.write(secrets.token_hex(32))


def check_privacy(scratch: str | Path) -> None:
    """After Ray has started, since it changes modes: whoever reads or replaces its token runs code as we.

    Args:
        scratch: Ray's folder, which it opens to everybody; the one around it must keep others out.

    Raises:
        ConfigError: another account can enter the folder around it, or read or replace the token.
    """
    check_private(Path(scratch).parent)
    if os.environ.get("RAY_AUTH_MODE") != "token" or "RAY_AUTH_TOKEN" in os.environ:
        return
    check_secret(Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser())
