"""A study as a Ray job on a cluster like ``aws.yaml``'s: a head without CPUs, no worker, a token.

The machines that it asks for never come here; studies that end are the fault tests' business.
"""

from __future__ import annotations

import copy
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config
from simulated import arguments, descendants

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
CONFIG = yaml.safe_load((ROOT / "clusters" / "aws.yaml").read_text())

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(480)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Machines:
    """The nodes of one cluster, each a foreground process that is ended by its process id."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.token = folder, secrets.token_hex(32)
        home = folder / "home"
        (home / ".ray").mkdir(parents=True)
        (home / ".ray" / "auth_token").write_text(self.token)
        # The file that `ray up` writes on the head; it contains the limits of the autoscaler.
        config = prepare_config(copy.deepcopy(CONFIG))
        (home / "ray_bootstrap_config.yaml").write_text(json.dumps(config))
        self.port, self.dashboard = free_port(), free_port()
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MIPOISON_", "PYTEST_"))}
        self.environment = keep | {
            "HOME": str(home),
            "TMPDIR": str(folder),
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_ADDRESS": f"http://127.0.0.1:{self.dashboard}",
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *command: str) -> None:
        """Start one node, with its output in a file."""
        environment = {k: v for k, v in self.environment.items() if k != "RAY_ADDRESS"}
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                command, env=environment, cwd=self.folder, start_new_session=True,
                stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        self.processes.append(process)

    def head(self) -> None:
        """Start the head with the cluster file's options, except for ports and the autoscaler."""
        command = next(c for c in CONFIG["head_start_ray_commands"] if "ray start" in c)
        before = command.partition("ray start")[0].split()
        self.environment |= dict(word.split("=", 1) for word in before if "=" in word)
        assert self.environment["RAY_AUTH_MODE"] == "token"
        options = [
            option
            for option in shlex.split(command.partition("ray start")[2])
            if not option.startswith(("--port", "--object-manager-port", "--autoscaling-config"))
        ]
        assert options == ["--head", "--num-cpus=0", "--dashboard-host=127.0.0.1"]
        self.start(
            "head", RAY, "start", "--block", "--node-ip-address=127.0.0.1", *options,
            f"--port={self.port}", f"--dashboard-port={self.dashboard}", f"--temp-dir={self.folder}/ray",
            f"--ray-client-server-port={free_port()}",  # the default one may be in use
            f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=100000000",
        )  # fmt: skip

    def ask(self, path: str, token: str | None) -> Any:
        """The dashboard's answer."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.dashboard}{path}")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def ray(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a user does on their own machine."""
        return subprocess.run(
            [RAY, *words], env=self.environment | environment, cwd=self.folder,
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip

    def wait_for(self, happened: Callable[[], bool], what: str, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while True:
            with suppress(OSError, KeyError):  # the dashboard has not started yet
                if happened():
                    return
            logs = "".join(p.read_text(errors="replace")[-1500:] for p in self.folder.glob("*.log"))
            assert time.monotonic() < deadline, f"no {what} within {limit_s} s\n{logs}"
            assert all(p.poll() is None for p in self.processes), logs
            time.sleep(0.5)

    def close(self) -> None:
        """The ids of our processes and of their descendants."""
        ours = [pid for p in self.processes for pid in (p.pid, *descendants(p.pid))]
        for process in self.processes[::-1]:
            process.terminate()
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
        for pid in ours:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait(timeout=15)


@pytest.fixture
def machines() -> Iterator[Machines]:
    with tempfile.TemporaryDirectory(prefix="job", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Machines(Path(folder))
        try:
            yield made
        finally:
            made.close()


def test_a_study_is_submitted_and_asks_for_machines(machines: Machines) -> None:
    machines.head()
    machines.wait_for(lambda: bool(machines.ask("/api/version", machines.token)), "dashboard", 120)
    storage = machines.folder / "studies"
    small = arguments(storage, trials=1, seeds=1, attackers=("passive",))
    study = [sys.executable, str(ROOT / "study" / "pareto.py"), *small]
    study += ["--workers", "2", "--gpus-per-worker", "0.5"]

    # Without the token, or with a wrong one, the job is refused and nothing runs.
    for token in (None, secrets.token_hex(32)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            machines.ask("/api/jobs/", token)
        assert refused.value.code in (401, 403)
    other = secrets.token_hex(32)
    stranger = machines.ray("job", "submit", "--no-wait", "--", *study, RAY_AUTH_TOKEN=other)
    assert stranger.returncode != 0
    assert "token" in stranger.stdout + stranger.stderr
    assert machines.ask("/api/jobs/", machines.token) == []

    # With it, the job runs on the head without CPUs and requests two half GPUs, which no node has yet.
    submitted = stranger
    for _ in range(5):
        submitted = machines.ray("job", "submit", "--submission-id", "mnist", "--no-wait", "--", *study)
        if "try again later" not in submitted.stderr:  # Ray's answer while the head's agent is starting
            break
        time.sleep(3)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr

    def job() -> dict[str, Any]:
        return dict(machines.ask("/api/jobs/mnist", machines.token))

    def asked_for() -> bool:
        status = machines.ask("/api/cluster_status?format=1", machines.token)["data"]["clusterStatus"]
        assert job()["status"] in ("PENDING", "RUNNING"), job()
        return "'GPU': 0.5" in status and "pending placement groups" in status

    machines.wait_for(asked_for, "demand for GPUs", 240)
    assert job()["status"] == "RUNNING"

    logs = machines.ask("/api/jobs/mnist/logs", machines.token)["logs"]
    assert "preparing victims" in logs
    # The token is neither in the job's log nor in the study's files.
    assert machines.token not in logs + submitted.stdout
    stored = [path for path in storage.rglob("*") if path.is_file()]
    assert stored
    assert not any(machines.token.encode() in path.read_bytes() for path in stored)
