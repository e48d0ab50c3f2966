"""The table of a front's indicators: knee, hypervolume, what shares of the seeds attain."""

from __future__ import annotations

import numpy as np
import pandas as pd
from rich.table import Table

from mipoison.defenses import ANCHORS, LABEL_ONLY
from mipoison.metrics.statistics import Interval
from study.analysis.frontier import pareto_front, reference_point
from study.analysis.indicators import (
    LEVELS,
    attained_at,
    attainment,
    hypervolume_by_defense,
    hypervolume_by_seed,
    knee,
    seed_points,
)
from study.reports.cells import add_row, new_table, setting_name
from study.reports.findings import Findings
from study.runtime.plain import NOTHING, number


def spread_text(spread: Interval) -> str:
    """The interval over seeds of a share, cut off at 0 and 1 where it leaves them: then seeds are too few."""
    if spread.low is None or spread.high is None:
        return ""
    low, high = max(spread.low, 0.0), min(spread.high, 1.0)
    few = "" if (low, high) == (spread.low, spread.high) else " (cut off at 0 and 1: too few seeds)"
    return f" [{low:.3f}, {high:.3f}] over seeds{few}"


def indicators_report(found: Findings) -> Table:
    """Knee, hypervolume with its reference corners, and the error that shares of the seeds attain.

    What is compared between defenses is under the attackers that all settings faced.
    """
    episodes, configurations = found.episodes, found.configurations
    reference = reference_point(episodes)
    table = new_table(
        "Indicators of the frontier",
        "Hypervolume: share of the box between the fixed corners; distortion from 0 to 1.1 times that of "
        "label-only, attack accuracy from chance to 1.05, error from that of the mean image to 0; a "
        "defense's is taken with the anchors. Knee: farthest above the chord of the front of distortion and "
        "error. Attained: worst-case error that a quarter, half, three quarters of the seeds reach at no "
        f"more than that distortion, by settings of the defense. {found.alike_info}.",
        "indicator|", "value|",
    )  # fmt: skip
    pruned = int(configurations["cut"].fillna(False).sum())
    add_row(
        table,
        "settings that nothing dominates",
        f"{len(pareto_front(configurations))} of {len(configurations)}",
    )
    add_row(table, "settings cut short: not all attackers ran", str(pruned))
    best = knee(configurations)
    by_trial = configurations.set_index("trial", drop=False)
    add_row(table, "knee", NOTHING if best is None else f"{setting_name(by_trial.loc[best])} ({best})")
    if reference is not None:
        spread = hypervolume_by_seed(episodes, reference, found.constraints)
        shown = f"{spread.mean:.3f}{spread_text(spread)}"
        add_row(table, "hypervolume of all settings, mean of each seed's", shown)
        volumes = hypervolume_by_defense(found.comparable, reference)
        add_row(table, "hypervolume by defense", ", ".join(f"{f} {v:.3f}" for f, v in volumes.items()))
        corner = ", ".join(f"{v:.4g}" for v in (*reference.worst, *reference.ideal))
        add_row(table, "its corners (distortion, accuracy, error): worst, ideal", corner)
    points = seed_points(found.alike, found.comparable)
    defenses = sorted(set(points["defense"]) - set(ANCHORS))
    attained = {defense: attainment(points[points["defense"] == defense]) for defense in defenses}
    floor = by_trial.loc[by_trial["defense"] == LABEL_ONLY, "confidence_distortion"]
    for share in (0.1, 0.3, 1.0) if len(floor) and not pd.isna(floor.iloc[0]) else ():
        at = share * float(floor.iloc[0])
        for defense, reached in attained.items():
            values = [attained_at(reached, level, at) for level in LEVELS]
            if any(v is not None for v in values):
                text = ", ".join(number(np.nan if v is None else v) for v in values)
                add_row(table, f"attained at distortion {at:.3g}, {defense}", text)
    return table
