"""Pruning and screening: which episodes of a trial need not run.

Attackers run in order of cost, and a trial stops once label-only dominates its setting. A trial that is
screened faces only the attackers that screen; ``study.session.confirmation`` decides which settings the
whole suite attacks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mipoison.attacks import ATTACKS, LABEL_ATTACKER
from mipoison.episode import EpisodeConfig, base_record
from study.records.status import PRUNED
from study.search.objectives import SearchObjective

Point = tuple[float, float, float]
"""Mean distortion, worst-case attack accuracy, worst-case reconstruction error."""


def can_screen(attackers: Collection[str], objectives: Iterable[SearchObjective]) -> bool:
    """Whether some of these attackers screen settings before the others run.

    The attacker that knows the label alone tells no setting from another, so that it does not suffice. With
    an objective in which label-only is not the best, a setting that the frontier lacks may be the one that
    was searched for: then all attackers run.
    """
    if not all(objective.best_at_label_only for objective in objectives):
        return False
    some = any(ATTACKS[name].SCREENS and name != LABEL_ATTACKER for name in attackers)
    return some and not all(ATTACKS[name].SCREENS for name in attackers)


def screened_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A trial's records of attackers that screen: what screening measured, also if others ran later."""
    return [r for r in records if r["attack"] in ATTACKS and ATTACKS[r["attack"]].SCREENS]


def screening(episodes: Sequence[EpisodeConfig]) -> list[int]:
    """The indices of the episodes whose attackers screen."""
    return [i for i, e in enumerate(episodes) if e.attack_config.SCREENS]


def stages(episodes: Sequence[EpisodeConfig], planned: Sequence[int]) -> list[list[int]]:
    """The indices of the planned episodes (of all seeds), grouped by the cost class of their attacker."""
    costs = sorted({episodes[i].attack_config.COST for i in planned})
    return [[i for i in planned if cost == episodes[i].attack_config.COST] for cost in costs]


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


DOMINATED = "after {ran} of {all} episodes the label-only anchor dominated the setting"
SCREENED = "the setting was screened, by {ran} of {all} episodes"
"""Why an episode was not run."""


def pruned_record(
    config: EpisodeConfig, fingerprint: str | None, n_run: int, n_all: int, why: str
) -> dict[str, Any]:
    """The record of an episode that was not run: it has no measurements, and is no success and no failure.

    Args:
        why: DOMINATED or SCREENED.
    """
    text = f"not run: {why.format(ran=n_run, all=n_all)}"
    return base_record(config, fingerprint) | {"status": PRUNED, "error": text}
