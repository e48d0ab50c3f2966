"""Indicators of a whole front: knee, attainment over seeds, hypervolume with its spread.

The knee and the attainment use two objectives: confidence distortion (to be minimised) and worst-case
reconstruction error (to be maximised). Worst-case attack accuracy is left out: where the label alone gives
the class away it is 1 for most settings, and would only add ties.
"""

from __future__ import annotations

import moocore
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mipoison.defenses import ANCHORS
from mipoison.metrics.statistics import Interval, mean_interval
from study.analysis.frontier import Reference, configuration_table, hypervolume, measured
from study.analysis.worst_case import NEEDED, find_worst, prepare
from study.records.constraints import Constraints

DISTORTION, ERROR = "confidence_distortion", "worst_reconstruction_error"
LEVELS = (25.0, 50.0, 75.0)
"""Percentiles of the attainment function: what at least so many per cent of the seeds attain."""


def usable(configurations: pd.DataFrame) -> pd.DataFrame:
    """The settings that may be on a front: feasible and measured against every attacker."""
    return configurations[measured(configurations)].dropna(subset=[DISTORTION, ERROR])


def knee(configurations: pd.DataFrame) -> str | None:
    """The trial at the knee of the front of distortion and worst-case error.

    The knee is the point farthest above the chord between the front's ends, both objectives scaled to [0, 1]
    between those ends (Das 1999, "On characterizing the knee of the Pareto curve based on normal-boundary
    intersection"): beyond it, more distortion buys the least.

    Returns:
        None with fewer than three points on the front, or if none lies above the chord.
    """
    rows = usable(configurations)
    points = rows[[DISTORTION, ERROR]].to_numpy(dtype=float)
    if len(points) < 3:
        return None
    on = moocore.is_nondominated(points, maximise=[False, True], keep_weakly=False)
    front = rows[on].sort_values([DISTORTION, "trial"], kind="stable")
    if len(front) < 3:
        return None
    x, y = (front[name].to_numpy(dtype=float) for name in (DISTORTION, ERROR))
    x, y = (x - x[0]) / (x[-1] - x[0]), (y - y[0]) / (y[-1] - y[0])
    above = (y - x) / np.sqrt(2.0)
    return str(front["trial"].iloc[int(above.argmax())]) if above.max() > 0 else None


def seed_points(episodes: pd.DataFrame, configurations: pd.DataFrame) -> pd.DataFrame:
    """Per setting and seed: distortion and the error of the setting's worst attacker.

    Columns: trial, defense, seed, distortion, error. Only settings that may be on a front.
    """
    kept = usable(configurations).set_index("trial")["defense"]
    ok = episodes.loc[episodes["status"] == "ok", ["trial", "seed", DISTORTION]]
    distortion = ok.groupby(["trial", "seed"])[DISTORTION].mean()
    worst = find_worst(prepare(episodes))
    trial = worst.trials[worst.trial]
    points = pd.DataFrame({"trial": trial, "seed": worst.seed, "error": worst.error})
    points.insert(1, "defense", kept.reindex(trial).to_numpy(dtype=object))
    points.insert(
        3, "distortion", distortion.reindex(pd.MultiIndex.from_arrays([trial, worst.seed])).to_numpy()
    )
    return points[points["trial"].isin(kept.index)].reset_index(drop=True)


def attainment(points: pd.DataFrame, levels: tuple[float, ...] = LEVELS) -> pd.DataFrame:
    """Empirical attainment function over seeds (Grunert da Fonseca et al. 2001), by ``moocore.eaf``.

    Args:
        points: see :func:`seed_points`; every seed is one run of the optimiser, in the function's terms.
        levels: percentiles in (0, 100].

    Returns:
        Columns level, distortion, error, ordered by level and distortion. A row says: on ``level`` per cent
        of the seeds some setting has at most that distortion and at least that error. Empty without points.
    """
    columns = ["level", "distortion", "error"]
    if points.empty:
        return pd.DataFrame(columns=columns, dtype=float)
    _, sets = np.unique(points["seed"].to_numpy(dtype=int), return_inverse=True)
    values = np.stack([points["distortion"].to_numpy(dtype=float), -points["error"].to_numpy(dtype=float)], 1)
    order = np.argsort(sets, kind="stable")  # moocore wants a set's points together
    found = moocore.eaf(values[order], sets[order] + 1, percentiles=list(levels))
    table = pd.DataFrame({"level": found[:, 2], "distortion": found[:, 0], "error": -found[:, 1]})
    return table.sort_values(columns, kind="stable", ignore_index=True)


def attained_at(table: pd.DataFrame, level: float, distortion: float) -> float | None:
    """The error that ``level`` per cent of the seeds attain at no more than a distortion; None if none do."""
    rows = table[np.isclose(table["level"], level) & (table["distortion"] <= distortion)]
    return float(rows["error"].max()) if len(rows) else None


def hypervolume_by_seed(episodes: pd.DataFrame, reference: Reference, constraints: Constraints) -> Interval:
    """Hypervolume of each seed's own front, within the study's fixed corners: mean and 95 % interval."""
    # Other columns are not needed, and would be copied for each seed.
    episodes = episodes.reindex(columns=[*dict.fromkeys((*NEEDED, *constraints.columns))])
    values: NDArray[np.float64] = np.array(
        [
            hypervolume(configuration_table(rows, constraints=constraints), reference)
            for _, rows in episodes.groupby("seed")
        ]
    )
    return mean_interval(values)


def hypervolume_by_defense(configurations: pd.DataFrame, reference: Reference) -> dict[str, float]:
    """Defense -> hypervolume of its settings and the anchors; ``anchors`` -> that of the anchors alone."""
    anchors = configurations["defense"].isin(ANCHORS)
    defenses = sorted(configurations.loc[~anchors, "defense"].unique())
    volumes = {"anchors": hypervolume(configurations[anchors], reference)}
    return volumes | {
        f: hypervolume(configurations[anchors | (configurations["defense"] == f)], reference)
        for f in defenses
    }
