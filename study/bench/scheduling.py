"""Measures scheduling efficiency with trials of known length on nodes simulated on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

from study.bench.measurement import Measurement
from study.bench.sleeping_trials import measure

NODES = (1, 4, 16)
LENGTH_S = 30.0
"""Half the time of a trial of the default study on one core."""
TRIALS_PER_NODE = 8
BAR = 0.9


def scheduling(*, quick: bool = False) -> Iterator[Measurement]:
    """Share of the nodes' time that is spent in trials, over the whole search and after its start."""
    length, each = (1.0, 2) if quick else (LENGTH_S, TRIALS_PER_NODE)
    for nodes in NODES[: 1 if quick else None]:
        found = measure(nodes, each, length)
        shares = {"whole search": found.efficiency, "after the start": found.steady}
        for name, share in shares.items():
            if share is None:
                continue
            asked = nodes == max(NODES) and name == "whole search"
            yield Measurement(
                benchmark="scheduling efficiency",
                case=f"{nodes} nodes, {name}",
                value=share,
                unit="of 1",
                bar=f">= {BAR:g}" if asked else "",
                holds=share >= BAR if asked else None,
                conditions=(
                    f"{each} trials of {length:g} s a node, one at a time, no work in them; simulated nodes "
                    f"on one machine, whose {os.cpu_count()} processors start all of them"
                ),
                note=f"{nodes} nodes: {found.start_s:.1f} s until half began, {found.wall_s:.1f} s in all.",
            )
