"""What is decided before Ray is imported: which Ray to use, and the environment that it reads then."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from mipoison.config import ConfigError

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
    # Tune's own handler returns from fit() as if all trials were done; without it Ctrl-C interrupts.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
AUTOSCALING = Path("~/ray_bootstrap_config.yaml")
"""What `ray up` leaves on a head node: resources may appear later."""


@dataclass(frozen=True)
class RayPlan:
    """Which Ray.

    Attributes:
        local: start a Ray of our own on loopback, with its sockets and logs in ``scratch``.
        address: for ``ray.init`` where it is not local; None: Ray finds this machine's node.
        token: path of the token that was made for it, '' if there was one already.
        growing: the cluster scales itself, so that resources may appear later.
    """

    local: bool
    address: str | None = None
    scratch: str = ""
    token: str = ""
    growing: bool = False

    def __str__(self) -> str:
        return (
            "a local Ray on loopback"
            if self.local
            else f"the Ray cluster at {self.address or 'this machine'}"
        )


def plan_ray(address: str | None) -> RayPlan:
    """Choose the named cluster, else this machine's, else a local Ray; set the environment accordingly.

    Must run before Ray is imported. ``ray.init(address="auto")`` is not used to find out: it attaches to any
    Ray on the machine, and hangs where a cluster left its address behind and died.

    Raises:
        ConfigError: nothing answers at the named address.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    growing = AUTOSCALING.expanduser().exists()
    named = address or os.environ.get("RAY_ADDRESS", "")
    if named in ("", "auto"):
        if _address_file_answers():
            os.environ.pop("RAY_ADDRESS", None)
            return RayPlan(local=False, growing=growing)
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
        if Path("~/.ray/auth_token").expanduser().exists():
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray does so by itself only without an address
        return RayPlan(local=False, address=named, growing=growing)
    scratch, token = _local_environment()
    return RayPlan(local=True, scratch=scratch, token=token)


def _address_file_answers() -> bool:
    """Whether `ray start` (or `ray up`) runs a node here; one that was killed leaves its address, too."""
    path = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    try:
        return _listens(path.read_text().strip())
    except OSError:
        return False


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
        A private folder for Ray's sockets and logs (short, since socket paths are limited to 107 bytes), and
        the path of a new token, '' if there was one.
    """
    scratch = os.environ.get("MIPOISON_RAY_TMP") or str(
        Path(tempfile.gettempdir()) / f"mipoison-{os.getuid()}"
    )
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    if os.stat(scratch).st_uid != os.getuid():
        raise ConfigError(f"{scratch} is somebody else's; set MIPOISON_RAY_TMP to a short path of your own")
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # a node that keeps to 127.0.0.1
    token = ""
    if "RAY_AUTH_MODE" not in os.environ:
        token = str(Path(scratch) / f"token-{uuid.uuid4().hex}")
        descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = token
    return scratch, token
