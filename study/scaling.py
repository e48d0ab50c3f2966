"""Measure how well a study keeps a cluster busy, on simulated nodes.

``python study/scaling.py --nodes 16 --length 10`` prints one measurement per line as JSON, see
:mod:`study.bench.sleeping_trials`.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a while
    from study.runtime.signals import exit_on_signal

    exit_on_signal()

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from study.bench.json_lines import print_measurement
from study.bench.simulated_cluster import Nodes, private_environment
from study.bench.sleeping_trials import measure_on
from study.runtime.arguments import parse
from study.runtime.progress import Progress
from study.runtime.signals import as_command, until_signalled


@dataclass(frozen=True)
class Arguments:
    """Scheduling efficiency on simulated nodes."""

    nodes: tuple[int, ...] = (1, 4, 16)
    """simulated nodes of one CPU, one or more numbers"""
    length: tuple[float, ...] = (2.0, 10.0, 30.0)
    """seconds of a trial, one or more"""
    per_node: int = 6
    """trials per node"""
    out: Path | None = None
    """append the measurements there, one JSON object a line"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every combination; starts one simulated cluster for each number of nodes.

    Returns:
        The exit code: 0 success, 128 + the number of a signal.
    """
    return until_signalled(lambda: _measure_all(arguments))


def _measure_all(arguments: Sequence[str] | None) -> None:
    chosen = parse(Arguments, arguments, "scaling")
    done, of = itertools.count(), len(chosen.nodes) * len(chosen.length)
    with Progress(Console(stderr=True)) as progress:
        for nodes in chosen.nodes:
            with private_environment() as environment, Nodes(environment, nodes) as cluster:
                for length in chosen.length:
                    progress.brief(f"{nodes} nodes, trials of {length:g} s", next(done), of)
                    print_measurement(
                        measure_on(cluster, environment, nodes * chosen.per_node, length), chosen.out
                    )


if __name__ == "__main__":
    sys.exit(as_command(main))
