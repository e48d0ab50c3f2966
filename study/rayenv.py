"""What has to be decided before Ray is imported: which Ray to use, and the environment that it reads at import."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

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
}


@dataclass(frozen=True)
class RayPlan:
    """Which Ray: the address of a cluster, or None and the scratch folder of a local one."""

    address: str | None
    scratch: str | None


def plan_ray(address: str | None) -> RayPlan:
    """Choose the named cluster, else this machine's, else a local Ray on loopback; set the environment accordingly.

    Must run before Ray is imported.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None and on_cluster_node():
        address = "auto"
    if address is not None and address != "local":
        return RayPlan(address, None)
    return RayPlan(None, _local_environment())


def on_cluster_node() -> bool:
    """Whether `ray start` (or `ray up`) runs a node of a cluster here: it leaves its address, and a live GCS, behind."""
    path = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    if not path.is_file():
        return False
    host, _, port = path.read_text().strip().rpartition(":")
    return port.isdigit() and _listens(host, int(port))


def _listens(host: str, port: int) -> bool:
    """A cluster that was killed leaves its address: only one that answers counts."""
    try:
        with socket.create_connection((host.strip("[]"), port), timeout=2):
            return True
    except OSError:
        return False


def _local_environment() -> str:
    """Loopback and a token for a Ray of our own: without them its servers listen on every interface, to anybody.

    Returns:
        A private folder for Ray's sockets and logs; short, since socket paths are limited to 107 bytes.
    """
    scratch = os.environ.get("MIPOISON_RAY_TMP") or str(Path(tempfile.gettempdir()) / f"mipoison-{os.getuid()}")
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # a node that keeps to 127.0.0.1
    if "RAY_AUTH_MODE" not in os.environ:
        token = Path(scratch) / f"token-{uuid.uuid4().hex}"
        descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    return scratch
