"""Simulates a Ray cluster on this machine's loopback interface, for tests and benchmarks.

Every node is a raylet with the given number of CPUs (and of GPUs, which need not exist); the head has none.
Home, temporary files and token are private, so that no other Ray of the user is affected.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from study.executors.environment import check_privacy, write_token
from study.runtime.scratch import make_run

ROOT = Path(__file__).resolve().parents[2]
END_S = 60
"""A cluster that takes longer to shut down is killed."""


@contextlib.contextmanager
def private_environment(**more: str) -> Iterator[dict[str, str]]:
    """Environment variables with a private home, temporary folder and token; the folder is removed at exit.

    The path is short, since Ray puts sockets below it (at most 107 bytes). Folders of killed processes are
    removed as well.
    """
    run = make_run(Path(os.path.realpath("/tmp")) / f"mipoison-{os.getuid()}")
    folder, token = str(run.path), run.path / "token"
    try:
        write_token(token)
        drop = ("RAY_", "PYTEST_", "MIPOISON_")
        yield {k: v for k, v in os.environ.items() if not k.startswith(drop)} | {
            "HOME": folder,
            "TMPDIR": folder,
            "MIPOISON_RAY_TMP": f"{folder}/r",
            "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray then binds to 127.0.0.1
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            **more,
        }
    finally:
        run.remove()


class Nodes:
    """A running simulated cluster.

    Args:
        environment: from :func:`private_environment`.
        nodes: number of nodes besides the head.
        cpus, gpus: of each node.
        dashboard: whether the head serves the dashboard and its job server.

    Attributes:
        address: for ``--address``. dashboard: host:port, '' if off. environment: of its processes.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        nodes: int,
        *,
        cpus: float = 1,
        gpus: float = 0,
        dashboard: bool = False,
    ) -> None:
        self.environment = dict(environment)
        scratch = f"{environment['TMPDIR']}/ray"  # where Ray looks for its address file
        os.makedirs(scratch, exist_ok=True)
        options = {"nodes": nodes, "cpus": cpus, "gpus": gpus, "dashboard": dashboard, "scratch": scratch}
        self._log = Path(scratch) / "nodes.log"
        with open(self._log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "study.bench.simulated_cluster", json.dumps(options)],
                env=self.environment,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        answer = self._answer()
        self.address, self.dashboard = str(answer["address"]), str(answer["dashboard"])

    def add(self) -> None:
        """Add a node."""
        self._say("add")

    def kill(self, index: int = 0) -> None:
        """Kill a node (0: the oldest) and its workers at once, as if the machine were lost."""
        self._say(f"kill {index}")

    def _say(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                return dict(json.loads(line))
        log = self._log.read_text()[-2000:]
        raise RuntimeError(f"the simulated cluster ended with exit code {self.process.wait()}: {log}")

    def close(self) -> None:
        """Shut down the cluster and its nodes."""
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                self.process.wait(timeout=END_S)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def main() -> None:
    """Run the cluster: print a line of JSON at the start and after each command; end when stdin closes."""
    from ray.cluster_utils import Cluster

    options = json.loads(sys.argv[1])
    head: dict[str, Any] = {
        "node_ip_address": "127.0.0.1",
        "temp_dir": options["scratch"],
        "num_cpus": 0,
        "object_store_memory": 80 * 2**20,
        "include_dashboard": options["dashboard"],
        "dashboard_host": "127.0.0.1",
        "dashboard_agent_listen_port": 0,  # jobs fail where the default port is taken
    }
    if options["dashboard"]:
        with socket.create_server(("127.0.0.1", 0)) as server:  # the default port may be taken
            head["dashboard_port"] = server.getsockname()[1]
    cluster = Cluster(initialize_head=True, head_node_args=head)
    gpus = {"num_gpus": options["gpus"]} if options["gpus"] else {}
    node = {
        "num_cpus": options["cpus"],
        "object_store_memory": 80 * 2**20,
        "node_ip_address": "127.0.0.1",
        **gpus,
    }
    nodes = [cluster.add_node(**node) for _ in range(options["nodes"])]
    check_privacy(options["scratch"])  # Ray changes file modes
    url = getattr(cluster.head_node, "webui_url", None) if options["dashboard"] else None
    print(json.dumps({"address": cluster.address, "dashboard": url or ""}), flush=True)
    for line in sys.stdin:
        command, *index = line.split()
        if command == "add":
            nodes.append(cluster.add_node(**node))
        elif command == "kill":
            cluster.remove_node(nodes.pop(int(index[0])), allow_graceful=False)
        print(json.dumps({"nodes": len(nodes)}), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
