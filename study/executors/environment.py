"""Choose the Ray to use and set the environment variables that Ray reads when it is imported."""

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
    "RAY_task_oom_retries": "3",  # for the anchors' tasks; Ray's default is to retry without limit
    # With Tune's own SIGINT handler, fit() returns on Ctrl-C as if all trials had finished.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
AUTOSCALING = Path("~/ray_bootstrap_config.yaml")
"""`ray up` writes this file on a head node. Where it exists, the autoscaler may add machines later."""
SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest path of a socket below Ray's folder."""
GROWS_TO = "MIPOISON_GROWS_TO"
"""Environment variable with the resources that an autoscaling cluster may reach, where ``ray up`` wrote no
file (Kubernetes): ``{"CPU": 70, "GPU": 10}``."""


@dataclass(frozen=True)
class RayPlan:
    """The Ray that a run uses.

    Attributes:
        local: start a Ray on loopback for this run only, with its sockets and logs in ``scratch``.
        address: the address for ``ray.init`` if the Ray is not local.
        token: path of the token file made for the local Ray; '' if the user configured a token.
        growing: the cluster has an autoscaler, so that resources may be added later.
        most: the resources that the autoscaler may reach, by name; empty if that is not known.
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
    """Choose the named cluster, else the cluster of this machine, else a local Ray; set Ray's environment.

    Call it before Ray is imported. ``ray.init(address="auto")`` would not do: it connects to any Ray on the
    machine, and hangs if a cluster has died and left its address file.

    Raises:
        ConfigError: nothing answers at the named address.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    most = autoscaling_limit()
    growing = most is not None
    if growing:  # machines take minutes to start; by default Train waits one minute for its workers
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
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray sets it by itself only if no address is given
    return RayPlan(local=False, address=address, growing=growing, most=most or {})


def autoscaling_limit() -> dict[str, float] | None:
    """The resources that the autoscaler of this machine's cluster may reach, with every worker launched.

    Returns:
        None if the cluster has no autoscaler; an empty dict if it has one with an unknown limit.

    Raises:
        ConfigError: the environment variable is not a JSON object of numbers.
    """
    if text := os.environ.get(GROWS_TO):
        try:
            return {str(name): float(amount) for name, amount in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f'{GROWS_TO} = {text!r}: must be JSON like {{"CPU": 70, "GPU": 10}}') from error
    try:  # the file holds JSON in spite of its name
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
    """The address of the Ray node that `ray start` or `ray up` started on this machine; '' if none answers.

    The author of the address file decides which Ray runs our code and reads our images. The file is therefore
    used only if this account or root wrote it. The address itself is returned, because Ray would read the
    file again and another account might have replaced it by then.
    """
    path = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    try:
        address = read_own(path).strip()
    except FileNotFoundError:
        return ""
    except (ConfigError, OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        # Logged as an error, so that a user who expects this cluster learns why it is not used.
        log.error("%s is ignored (%s); name the cluster with --address host:port", path, visible_line(why))
        return ""
    return address if _listens(address) else ""


def _listens(address: str) -> bool:
    """Whether something accepts connections at host:port."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2):
            return True
    except (OSError, ValueError, OverflowError):  # ValueError: the port or the host name is malformed
        return False


def _local_environment() -> tuple[str, str]:
    """Restrict the local Ray to loopback and to callers that have its token.

    By default Ray's servers listen on every interface and accept anybody.

    Returns:
        The folder for Ray's sockets and logs, and the path of a new token file ('' if the user configured a
        token). Both lie in this process's private folder, because Ray makes its own folder world-readable.

    Raises:
        ConfigError: the private folder cannot be created, or other accounts can enter it.
    """
    folder = run_folder()
    check_private(folder)
    os.environ[DRIVER_VARIABLE] = str(folder)
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # the node binds to 127.0.0.1 only
    token = ""
    if "RAY_AUTH_MODE" not in os.environ:
        token = str(folder / f"token-{uuid.uuid4().hex}")
        write_token(token)
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = token
    return str(folder / "r"), token


def check_length(scratch: str) -> None:
    """Raise ConfigError if the paths of Ray's sockets would exceed the operating system's limit."""
    spare = SOCKET_BYTES - len(os.fsencode(scratch)) - len(SOCKET)
    if spare < 0:
        base = str(Path(scratch).parents[1])
        bytes_ = len(os.fsencode(base))
        raise ConfigError(
            f"{base} has {bytes_} bytes, at most {bytes_ + spare} leave room for the paths of Ray's sockets "
            f"({SOCKET_BYTES} bytes): set {BASE_VARIABLE} to a shorter path of your own"
        )


def write_token(path: str | Path) -> None:
    """Write a new random token to a file that only this account can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)  # the umask may have removed more
        file.write(secrets.token_hex(32))


def check_privacy(scratch: str | Path) -> None:
    """Check that no other account can reach Ray's folder or token, and so run code as this account.

    Call it after Ray has started, because Ray changes file modes when it starts.

    Args:
        scratch: Ray's folder. Ray makes it world-readable; its parent must keep other accounts out.

    Raises:
        ConfigError: another account can enter the parent folder, or can read or replace the token.
    """
    check_private(Path(scratch).parent)
    if os.environ.get("RAY_AUTH_MODE") != "token" or "RAY_AUTH_TOKEN" in os.environ:
        return
    check_secret(Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser())
