"""Measures how busy the study's executor keeps a cluster, with trials of known length on simulated nodes.

Trials sleep, so that 16 nodes can share two cores; all else is as in a study: Tune, our searcher, reused
actors, placement groups. Start-up is slower than on 16 machines, as two cores start 16 Python processes.
Memory is read from /proc (Linux only).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipoison.metrics.memory import peak_resident_mb
from study.bench.simulated_cluster import Nodes, private_environment
from study.trial.failure import TrialFailure

TIMEOUT_S = 900
"""A measurement that takes longer is killed."""


@dataclass(frozen=True)
class Scheduling:
    """One measurement.

    Attributes:
        nodes: simulated nodes of one CPU; as many trials run at once.
        trials: number of trials. length_s: seconds that each slept.
        wall_s: seconds of the whole search, start and end of Tune included.
        efficiency: trials x length / (nodes x wall_s).
        start_s: from the search's start until half of the nodes had begun their first trial.
        steady: the efficiency between two moments: when the last node began its first trial, and when the
            first node ran out of trials. None if a node had fewer than two trials.
        gap_s, gap_95_s: median and 95th percentile of the pause of a node between two trials.
        driver_cpu_s: CPU seconds of the driver's process per trial.
        driver_mb: growth of the driver's peak memory during the search, in MB.
        gcs_mb, nodes_mb: memory (proportional share) of the head's store of tables, and of all Ray's
            processes per node, in MB, at the end of the search.
    """

    nodes: int
    trials: int
    length_s: float
    wall_s: float
    efficiency: float
    start_s: float
    steady: float | None
    gap_s: float | None
    gap_95_s: float | None
    driver_cpu_s: float
    driver_mb: float
    gcs_mb: float
    nodes_mb: float


def measure(nodes: int, trials_per_node: int, length_s: float) -> Scheduling:
    """Start a simulated cluster of one-CPU nodes, run trials of known length on it, and shut it down.

    Raises:
        RuntimeError: the cluster or the search failed, with the end of what it printed.
    """
    with private_environment() as environment, Nodes(environment, nodes) as cluster:
        return measure_on(cluster, environment, nodes * trials_per_node, length_s)


def measure_on(cluster: Nodes, environment: dict[str, str], trials: int, length_s: float) -> Scheduling:
    """Like :func:`measure`, on a running cluster."""
    order = {"address": cluster.address, "trials": trials, "length_s": length_s}
    done = subprocess.run(
        [sys.executable, "-c", "from study.bench.sleeping_trials import drive; drive()", json.dumps(order)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"nodes"')]
    if done.returncode or not lines:
        raise RuntimeError(f"the search failed: {(done.stdout + done.stderr)[-3000:]}")
    below = memory_of(cluster.process.pid)
    gcs = sum(mb for name, mb in below if "gcs_server" in name)
    found = json.loads(lines[-1])
    count = max(1, found["nodes"])
    return Scheduling(**found, gcs_mb=gcs, nodes_mb=(sum(mb for _, mb in below) - gcs) / count)


def drive() -> None:
    """Run the driver: connect to the cluster, search, print a measurement as JSON."""
    from study.executors.environment import plan_ray
    from study.settings.resources import Resources

    order = json.loads(sys.argv[1])
    plan = plan_ray(order["address"])
    from study.executors.ray_executor import RayExecutor, start_ray

    class Sleepers(RayExecutor):
        trainable = staticmethod(sleep_trial)

    start_ray(plan)
    executor = Sleepers(Resources(workers=0), plan)
    spans: list[dict[str, float]] = []
    before, cpu, began = peak_resident_mb(), time.process_time(), time.time()
    executor.search(order["trials"], _asker(order["length_s"]), lambda _, end: spans.append(_checked(end)))
    wall, cpu = time.time() - began, time.process_time() - cpu
    row = summary(spans, executor.max_concurrent, order["length_s"], began, wall)
    row |= {"driver_cpu_s": cpu / len(spans), "driver_mb": peak_resident_mb() - before}
    executor.close()
    print(json.dumps(row))


def sleep_trial(config: dict[str, Any]) -> dict[str, Any]:
    """A Tune trainable that sleeps for a known time instead of running episodes."""
    began = time.time()
    time.sleep(config["spec"]["knobs"]["seconds"])
    span = {"node": float(os.getpid()), "began": began, "ended": time.time()}
    return {"outcome": json.dumps(span), "done": True}


def _asker(length_s: float) -> Any:
    from study.trial.spec import TrialSpec

    def ask() -> TrialSpec:
        return TrialSpec(
            study="scaling",
            constraints={},
            trial="t",
            attempt=0,
            defense="none",
            knobs={"seconds": length_s},
            attackers=(),
            scenes=(),
            root="",
            data_root=None,
        )

    return ask


def _checked(end: Any) -> dict[str, float]:
    if isinstance(end, TrialFailure):
        raise RuntimeError(end.message)
    return dict(end)


def summary(
    spans: list[dict[str, float]], nodes: int, length_s: float, began: float, wall_s: float
) -> dict[str, Any]:
    """Efficiency and pauses, from the trials' start and end times (seconds since the epoch) by node."""
    by_node: dict[float, list[tuple[float, float]]] = defaultdict(list)
    for span in spans:
        by_node[span["node"]].append((span["began"], span["ended"]))
    firsts, lasts, gaps = [], [], []
    for runs in by_node.values():
        runs.sort()
        firsts.append(runs[0][0])
        lasts.append(runs[-1][1])
        gaps += [after[0] - before[1] for before, after in itertools.pairwise(runs)]
    opened, closed = max(firsts), min(lasts)
    inside = sum(max(0.0, min(s["ended"], closed) - max(s["began"], opened)) for s in spans)
    gaps.sort()
    return {
        "nodes": nodes,
        "trials": len(spans),
        "length_s": length_s,
        "wall_s": wall_s,
        "efficiency": len(spans) * length_s / (nodes * wall_s),
        "start_s": sorted(firsts)[len(firsts) // 2] - began,
        "steady": inside / (nodes * (closed - opened)) if closed > opened and gaps else None,
        "gap_s": gaps[len(gaps) // 2] if gaps else None,
        "gap_95_s": gaps[min(len(gaps) - 1, int(0.95 * len(gaps)))] if gaps else None,
    }


def memory_of(pid: int) -> list[tuple[str, float]]:
    """(command, proportional memory in MB) of a process and its descendants; empty without /proc."""
    children: dict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            children[int(path.read_text().rpartition(")")[2].split()[1])].append(int(path.parent.name))
        except OSError:
            continue
    found, queue = [], [pid]
    while queue:
        one = queue.pop()
        queue += children[one]
        try:
            command = Path(f"/proc/{one}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            share = re.search(
                r"^Pss:\s+(\d+) kB", Path(f"/proc/{one}/smaps_rollup").read_text(), re.MULTILINE
            )
        except OSError:
            continue
        if share:
            found.append((command[:200], int(share[1]) / 1024))
    return found
