"""Cutting a trial short: cheap attackers first, and no more of them once label-only dominates the setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mipoison.episode import EpisodeConfig, base_record
from study.records.status import PRUNED

Point = tuple[float, float, float]
"""Mean distortion, worst-case attack accuracy, worst-case reconstruction error."""


def cost_of(stage: Sequence[int], episodes: Sequence[EpisodeConfig]) -> int:
    """The cost class that the episodes of one stage share."""
    return episodes[stage[0]].attack_config.COST


def stages(episodes: Sequence[EpisodeConfig]) -> list[list[int]]:
    """Indices of a trial's episodes, all seeds together, by the cost class of their attacker."""
    costs = sorted({e.attack_config.COST for e in episodes})
    return [[i for i, e in enumerate(episodes) if cost == e.attack_config.COST] for cost in costs]


def worst_point(records: Sequence[Mapping[str, Any]]) -> Point | None:
    """A setting's objectives over the attackers that ran; None unless all of their episodes succeeded.

    As in ``study.analysis.frontier``: distortion is the mean over seeds, the worst attackers are those with
    the highest mean accuracy and with the lowest mean error over the seeds.
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
    """Whether the label-only anchor is nowhere worse and somewhere better than the setting already is.

    Sound, as the worst case is over attackers: one more can only raise the highest accuracy and lower the
    lowest error, and the distortion does not depend on them. What is dominated now stays dominated, so the
    frontier is the one that the whole suite would give. (An attacker that fails on a seed takes the seed out
    of the worst case; that no attacker that was not run would have failed is assumed.)
    """
    point = None if floor is None else worst_point(records)
    if point is None or floor is None:
        return False
    no_worse = floor[0] <= point[0] and floor[1] <= point[1] and floor[2] >= point[2]
    return no_worse and floor != point


def pruned_record(config: EpisodeConfig, fingerprint: str | None, n_run: int, n_all: int) -> dict[str, Any]:
    """The record of an episode that was cut: nothing measured, neither a success nor a failure."""
    text = f"not run: after {n_run} of {n_all} episodes the label-only anchor dominated the setting"
    return base_record(config, fingerprint) | {"status": PRUNED, "error": text}
