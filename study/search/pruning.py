"""Pruning: attackers run in order of cost, and a trial stops once label-only dominates its setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mipoison.episode import EpisodeConfig, base_record
from study.records.status import PRUNED

Point = tuple[float, float, float]
"""Mean distortion, worst-case attack accuracy, worst-case reconstruction error."""


def cost_of(stage: Sequence[int], episodes: Sequence[EpisodeConfig]) -> int:
    """The cost class of the episodes of a stage."""
    return episodes[stage[0]].attack_config.COST


def stages(episodes: Sequence[EpisodeConfig]) -> list[list[int]]:
    """The indices of a trial's episodes (of all seeds), grouped by the cost class of their attacker."""
    costs = sorted({e.attack_config.COST for e in episodes})
    return [[i for i, e in enumerate(episodes) if cost == e.attack_config.COST] for cost in costs]


def worst_point(records: Sequence[Mapping[str, Any]]) -> Point | None:
    """A setting's objectives over the attackers that have run; None unless all their episodes succeeded.

    As in ``study.analysis.frontier``, distortion is the mean over the seeds, and the worst attackers are
    those with the highest mean accuracy and with the lowest mean error over the seeds.
    """
    measured = ("confidence_distortion", "attack_accuracy", "reconstruction_error")
    if not records or any(r["status"] != "ok" or None in [r[name] for name in measured] for r in records):
        return None
    by_attack: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        by_attack.setdefault(record["attack"], []).append(record)
    if len({tuple(sorted(r["seed"] for r in rows)) for rows in by_attack.values()}) != 1:
        return None
    first = next(iter(by_attack.values()))
    return (
        float(np.mean([r["confidence_distortion"] for r in first])),
        max(float(np.mean([r["attack_accuracy"] for r in rows])) for rows in by_attack.values()),
        min(float(np.mean([r["reconstruction_error"] for r in rows])) for rows in by_attack.values()),
    )


def dominated(records: Sequence[Mapping[str, Any]], floor: Point | None) -> bool:
    """Whether the label-only anchor dominates the setting, given the attackers that have run.

    Pruning does not change the frontier: a further attacker can only raise the highest accuracy and lower the
    lowest error, and the distortion does not depend on attackers, so a dominated setting stays dominated.
    (This assumes that none of the remaining attackers would fail, as a failure on a seed removes that seed
    from the worst case.)
    """
    point = None if floor is None else worst_point(records)
    if point is None or floor is None:
        return False
    no_worse = floor[0] <= point[0] and floor[1] <= point[1] and floor[2] >= point[2]
    return no_worse and floor != point


def pruned_record(config: EpisodeConfig, fingerprint: str | None, n_run: int, n_all: int) -> dict[str, Any]:
    """The record of a pruned episode: it has no measurements and counts neither as success nor as failure."""
    text = f"not run: after {n_run} of {n_all} episodes the label-only anchor dominated the setting"
    return base_record(config, fingerprint) | {"status": PRUNED, "error": text}
