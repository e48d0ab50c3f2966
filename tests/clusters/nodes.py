"""A simulated cluster in a process of its own: head and nodes on this machine's loopback, driven over stdin.

``python nodes.py '{"nodes": 2, "cpus": 1, "gpus": 0, "dashboard": false, "scratch": "/tmp/x"}'`` prints
a line of JSON per command: first the address, then the answers to ``add`` and ``kill INDEX`` (0: the oldest).
Ends, and takes its nodes with it, when stdin closes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ray.cluster_utils import Cluster


def main() -> None:
    options = json.loads(sys.argv[1])
    common: dict[str, Any] = {"node_ip_address": "127.0.0.1", "temp_dir": options["scratch"]}
    cluster = Cluster(
        initialize_head=True,
        head_node_args=common
        | {
            "num_cpus": 0,
            "include_dashboard": options.get("dashboard", False),
            "dashboard_host": "127.0.0.1",
        },
    )

    nodes: list[Any] = []

    def add() -> None:
        gpus = {"num_gpus": options["gpus"]} if options.get("gpus") else {}
        nodes.append(
            cluster.add_node(
                num_cpus=options.get("cpus", 1),
                object_store_memory=80 * 2**20,
                node_ip_address="127.0.0.1",
                **gpus,
            )
        )

    for _ in range(options["nodes"]):
        add()
    print(json.dumps({"address": cluster.address, "nodes": len(nodes)}), flush=True)
    for line in sys.stdin:
        command = line.split()
        if command[0] == "add":
            add()
        elif command[0] == "kill":
            cluster.remove_node(nodes.pop(int(command[1])), allow_graceful=False)
        print(json.dumps({"nodes": len(nodes)}), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
