"""The Pareto frontier of a study: what each setting costs, what it leaks at worst, which ones are dominated.

Every function here is pure: its input is episode records (a data frame, one row per setting, attacker and
seed), and the order of rows does not matter. Missing is null (``pd.NA``), never 0. A *setting* is one trial:
a defense with values for its knobs. The *suite* is every attacker with a successful episode in the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import moocore
import numpy as np
from numpy.typing import NDArray

from mipoison.defenses import LABEL_ONLY
from mipoison.metrics.excess import MARGIN
from mipoison.metrics.statistics import ROUNDING, mean_intervals
from study.analysis.knobs import knob_dtype, knobs_by_trial, knobs_text
from study.analysis.utility import bounded_means, face_values, seed_means
from study.analysis.verdicts import verdict_table
from study.analysis.worst_case import TRIAL, Worst, check_one_scene, find_worst, prepare
from study.records.constraints import Constraints

if TYPE_CHECKING:
    import pandas as pd

REFERENCE_MARGIN = 1.1
"""The reference point has this many times label-only's distortion, so that label-only itself counts."""
REFERENCE_ACCURACY = 1.05
"""Attack accuracy of the reference point. It is above 1, so that settings with an accuracy of 1 count: the
usual case, as the label alone gives every class away."""
COST = ("confidence_distortion", "accuracy_drop")
WORST = ("worst_attack_accuracy", "worst_reconstruction_error")
MEASURES = (*WORST, "excess_leakage", "excess_attack_accuracy")
"""Columns with an interval: ``<name>`` is the mean over seeds, ``<name>_low`` and ``_high`` bound it."""
COLUMNS: dict[str, str] = {
    **dict.fromkeys(("trial", "defense"), "string"),
    **dict.fromkeys(("n_seeds", "n_shared_seeds", "n_pairs", "n_failed"), "Int64"),
    **dict.fromkeys(("complete", "cut", "feasible", "within_margin", "beyond_margin"), "boolean"),
    **dict.fromkeys(COST, "Float64"),
    **{f"{name}{bound}": "Float64" for name in MEASURES for bound in ("", "_low", "_high")},
    "excess_leakage_bound": "Float64",
    **{f"{name}_attacker": "string" for name in WORST},
    "mean_image_error": "Float64",
    "dominated_by": "Int64",
}
"""Columns of a :func:`configuration_table` and their types; the knobs' columns (sorted) follow them."""


class Objective(NamedTuple):
    """A column of the :func:`configuration_table` and its better direction."""

    column: str
    maximise: bool


OBJECTIVES = (
    Objective("confidence_distortion", False),
    Objective("worst_attack_accuracy", False),
    Objective("worst_reconstruction_error", True),
)


@dataclass(frozen=True)
class Reference:
    """The corners of the box whose dominated share is the hypervolume, in the order of OBJECTIVES."""

    worst: tuple[float, float, float]
    ideal: tuple[float, float, float]


def configuration_table(
    episodes: pd.DataFrame, *, constraints: Constraints, margin: float = MARGIN
) -> pd.DataFrame:
    """One row per setting: cost, worst case, leakage beyond the label, number of settings that dominate it.

    Distortion, accuracy drop and the faces of utility that the constraints bound are means over seeds, each
    seed once. Worst-case attack accuracy is that of the attacker with the highest mean over seeds, worst-case
    error that of the one with the lowest, both over the seeds on which the whole suite succeeded (cost is
    taken on the same seeds; if there are none, on every successful one). Excess leakage compares the worst
    attacker by error with label-only's, per seed ``1 - error / label-only error``. ``excess_leakage_bound``
    is the upper end of its one-sided 95 % Student-t interval: an upper bound for these attackers, not for
    others. ``within_margin`` is a test of non-inferiority: the bound lies between 0 and the margin. A bound
    below zero fails, since attackers that do worse than one who reads labels alone are no evidence. A wide
    interval fails; null with one seed. ``beyond_margin``: the excess leakage's interval lies above
    the margin, and so does 1 - mean error / label-only's mean error; of a setting that was cut, the
    ``verdict_table`` says "leaks" besides.

    Args:
        episodes: records of one scene (see ``mipoison.episode``) with the column ``trial``.
        constraints: a setting that does not satisfy them on the mean of all its seeds, also those on which
            an attacker failed, is not feasible.
        margin: excess leakage that is accepted, a share of label-only's error.

    Returns:
        COLUMNS, then the knobs (``defense.<knob>``), sorted by trial. Intervals are null with one seed, the
        worst case where it cannot be computed, excess leakage without a label-only anchor. ``complete``: no
        episode failed, is missing or was cut. ``cut``: not all attackers ran, since label-only dominated
        the setting before, or since it was only screened. Its worst case is a bound (all attackers together
        can only do better). ``dominated_by``: how many feasible settings that were not cut dominate it.

    Raises:
        ValueError: the rows mix data or scales, or a trial has two values of one knob.
    """
    import pandas as pd

    check_one_scene(episodes)
    prepared = prepare(episodes, constraints.columns)
    rows, trials, worst = prepared.rows, prepared.trials, find_worst(prepared)
    owner, n = rows[TRIAL].to_numpy(), len(trials)
    knobs = knobs_by_trial(episodes.reset_index(drop=True), rows, trials)
    first = np.unique(owner, return_index=True)[1]
    n_failed, n_rows = np.bincount(owner[rows["_failed"]], minlength=n), np.bincount(owner, minlength=n)
    is_pruned = np.bincount(owner[rows["_pruned"]], minlength=n) > 0
    n_seeds = rows.groupby(TRIAL)["seed"].nunique().to_numpy(dtype=int)
    missing = n_seeds * rows["attack"].nunique() - n_rows
    faces = face_values(rows, dict.fromkeys((*COST, *constraints.bounds)))
    cost = seed_means(rows, worst, faces.assign(mean_image_error=rows["mean_image_error"]))
    columns: dict[str, NDArray[Any]] = {
        "trial": trials,
        "defense": rows["defense"].to_numpy(dtype=object)[first],
        "n_seeds": n_seeds,
        "n_shared_seeds": worst.counts,
        "n_failed": n_failed,
        "cut": is_pruned,
        "complete": (n_failed == 0) & (missing == 0) & ~is_pruned,
        "feasible": constraints.satisfied(bounded_means(rows, n, faces[list(constraints.bounds)])),
        **{name: cost[name].to_numpy() for name in (*COST, "mean_image_error")},
        **_spread("worst_attack_accuracy", worst.accuracy, worst.counts),
        **_spread("worst_reconstruction_error", worst.error, worst.counts),
        "worst_attack_accuracy_attacker": worst.accuracy_attacker,
        "worst_reconstruction_error_attacker": worst.error_attacker,
        **_excess(worst, rows["defense"].to_numpy(dtype=object)[first] == LABEL_ONLY, margin),
        **knobs,
    }
    table = pd.DataFrame(
        {name: pd.Series(values, dtype=object) for name, values in columns.items()},
        columns=[*COLUMNS, *knobs],
    )
    table = table.astype(object).where(table.notna(), None)
    table = table.astype(COLUMNS | {c: knob_dtype(c, table[c]) for c in knobs})
    table["dominated_by"] = _dominated_by(table)
    doubtful = table["cut"].fillna(False) & table["beyond_margin"].fillna(False)
    if doubtful.any():
        wanted = episodes["trial"].isin(table.loc[doubtful, "trial"]) | (episodes["defense"] == LABEL_ONLY)
        verdicts = verdict_table(episodes[wanted], margin=margin).set_index("trial")["verdict"]
        shown = table["trial"].map(verdicts) == "leaks"
        table["beyond_margin"] = table["beyond_margin"] & (~doubtful | shown.fillna(False))
    return table


def _spread(
    name: str, by_seed: NDArray[np.float64], counts: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Columns of mean and 95 % Student-t interval over seeds; NaN without values."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), mean_intervals(by_seed, counts), strict=True))


def _excess(worst: Worst, floors: NDArray[np.bool_], margin: float) -> dict[str, NDArray[Any]]:
    """Excess of each worst case over the label-only anchor (the first with a worst case), paired by seed."""
    n = len(worst.trials)
    found = np.flatnonzero(floors & (worst.counts > 0))
    if not len(found):
        return {"n_pairs": np.zeros(n, dtype=int)}
    floor = worst.case(int(found[0]))
    error, accuracy = (
        by_seed.reindex(worst.seed).to_numpy(dtype=float)
        for by_seed in (floor.error_by_seed[floor.error_by_seed > 0], floor.accuracy_by_seed)
    )
    ratio, gain = worst.error / error, worst.accuracy - accuracy
    known = ~np.isnan(ratio), ~np.isnan(gain)
    pairs, gains = (np.bincount(worst.trial[t], minlength=n) for t in known)
    columns = _spread("excess_leakage", 1 - ratio[known[0]], pairs)
    # The upper end of a two-sided 90 % interval is a one-sided 95 % bound; the floor is its own measure.
    bound = mean_intervals(1 - ratio[known[0]], pairs, level=0.90)[2]
    bound[found[0]] = 0.0
    within = ((bound >= -ROUNDING) & (bound <= margin)).astype(object)
    within[np.isnan(bound)] = None
    low = columns["excess_leakage_low"]
    with np.errstate(invalid="ignore"):
        means = np.bincount(worst.trial, worst.error, minlength=n) / worst.counts
    beyond = ((low > margin) & (means < (1 - margin) * means[found[0]])).astype(object)
    beyond[np.isnan(low)] = None
    return columns | _spread("excess_attack_accuracy", gain[known[1]], gains) | {
        "n_pairs": pairs, "excess_leakage_bound": bound, "within_margin": within, "beyond_margin": beyond,
    }  # fmt: skip


def _points(configurations: pd.DataFrame) -> NDArray[np.float64]:
    return configurations[[o.column for o in OBJECTIVES]].to_numpy(dtype=float, na_value=np.nan)


def measured(configurations: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether each setting is feasible and was attacked by all attackers: else its worst case is a bound."""
    feasible: NDArray[np.bool_] = configurations["feasible"].fillna(False).to_numpy(dtype=bool)
    return feasible & ~configurations["cut"].fillna(False).to_numpy(dtype=bool)


def _eligible(configurations: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether each setting may be on the frontier: feasible, every objective known, not cut short."""
    return measured(configurations) & np.isfinite(_points(configurations)).all(axis=1)


def _dominated_by(configurations: pd.DataFrame) -> pd.Series:
    """How many feasible settings are nowhere worse and somewhere better; null if an objective is unknown."""
    import pandas as pd

    points = _points(configurations) * np.array([-1.0 if o.maximise else 1.0 for o in OBJECTIVES])
    rivals = points[_eligible(configurations)]
    known = np.isfinite(points).all(axis=1)
    columns = np.ascontiguousarray(rivals.T)
    no_worse = [int(np.logical_and.reduce([r <= v for r, v in zip(columns, p, strict=True)]).sum())
                for p in points[known]]  # fmt: skip
    kinds, equal = np.unique(rivals, axis=0, return_counts=True)
    twins = {tuple(kind): int(n) for kind, n in zip(kinds.tolist(), equal, strict=True)}
    counts = np.full(len(points), None, dtype=object)
    counts[known] = [
        n - twins.get(tuple(p), 0) for n, p in zip(no_worse, points[known].tolist(), strict=True)
    ]
    return pd.Series(pd.array(counts, dtype="Int64"), index=configurations.index)


def nondominated(configurations: pd.DataFrame) -> pd.DataFrame:
    """The settings that none of the given ones dominates; equal ones all stay. Every objective is known."""
    if not len(configurations):
        return configurations
    maximise = [o.maximise for o in OBJECTIVES]
    return configurations[
        moocore.is_nondominated(_points(configurations), maximise=maximise, keep_weakly=True)
    ]


def pareto_front(configurations: pd.DataFrame) -> pd.DataFrame:
    """The feasible settings, anchors included, that no other dominates, by distortion, then trial.

    Settings with equal objectives all stay. A setting that was cut belongs to it only if it is
    :func:`settled`: neither one that all attackers attacked nor another settled one dominates it.
    """
    import pandas as pd

    parts = [configurations[rows] for rows in (_eligible(configurations), settled(configurations))]
    candidates = configurations.loc[pd.concat([nondominated(part) for part in parts]).index]
    return candidates.sort_values(["confidence_distortion", "trial"], kind="stable").reset_index(drop=True)


def settled(configurations: pd.DataFrame) -> pd.Series:
    """Whether each setting was cut, is feasible, dominated by none, and shown to leak beyond the margin.

    Its leakage is a lower bound, which more attackers would raise. They would not change which settings up to
    the margin are on the frontier: what dominates one of these has no lower error than it.
    """
    return _open(configurations) & configurations["beyond_margin"].fillna(False).astype(bool)


def waiting(configurations: pd.DataFrame) -> pd.Series:
    """Whether each setting is feasible, dominated by none and not settled, although not all attackers
    attacked it: true of some while a study is not finished."""
    return _open(configurations) & ~settled(configurations)


def _open(configurations: pd.DataFrame) -> pd.Series:
    found = configurations["cut"] & configurations["feasible"] & (configurations["dominated_by"] == 0)
    return found.fillna(False).astype(bool)


def frontier_table(episodes: pd.DataFrame, constraints: Constraints, margin: float = MARGIN) -> pd.DataFrame:
    """The content of ``frontier.parquet``: the Pareto front, with fixed column order and types."""
    return pareto_front(configuration_table(episodes, constraints=constraints, margin=margin))


def reference_point(episodes: pd.DataFrame) -> Reference | None:
    """The fixed corners of the hypervolume's box, known as soon as the label-only anchor is measured.

    Worst: 1.1 times the label-only distortion, attack accuracy 1.05, error 0. Ideal: distortion 0, attack
    accuracy 1 / ``n_classes`` (a column; 0 if unknown), the error of the attack set's mean image.

    Returns:
        None while label-only's distortion (above 0) or its mean image error is unknown.
    """
    check_one_scene(episodes)
    rows = prepare(episodes[episodes["defense"] == LABEL_ONLY]).rows
    floor = rows[~rows["_failed"] & ~rows["_pruned"]]
    distortion = _per_seed(floor, floor["confidence_distortion"])
    mean_image = _per_seed(floor, floor["mean_image_error"])
    if not distortion or not mean_image:
        return None
    classes = floor["n_classes"].dropna().tolist() if "n_classes" in floor else []
    chance = 1 / int(classes[0]) if classes else 0.0
    return Reference((REFERENCE_MARGIN * distortion, REFERENCE_ACCURACY, 0.0), (0.0, chance, mean_image))


def _per_seed(rows: pd.DataFrame, values: pd.Series) -> float | None:
    """Mean over seeds of a value that is the same for all attackers of a seed; None without values."""
    per_seed = values.groupby(rows["seed"]).mean().dropna()
    return float(per_seed.mean()) if len(per_seed) else None


def hypervolume(configurations: pd.DataFrame, reference: Reference) -> float:
    """Share in [0, 1] of the box between the reference corners that the feasible settings dominate.

    Objectives better than the ideal corner count as ideal; a setting beyond the worst corner adds nothing.
    Anchors count, so that the undefended victim alone may have a hypervolume above 0.
    """
    worst, ideal = np.array(reference.worst), np.array(reference.ideal)
    scaled = (_points(configurations)[_eligible(configurations)] - ideal) / (
        worst - ideal
    )  # 0 ideal, 1 worst: minimised
    return float(moocore.hypervolume(np.clip(scaled, 0, 1), ref=[1.0, 1.0, 1.0])) if len(scaled) else 0.0


def defense_table(configurations: pd.DataFrame) -> pd.DataFrame:
    """One row per defense: number of settings, and the cheapest feasible one that is within the margin.

    Columns: defense, n_settings, and of that setting its knobs (short text), trial, distortion, n_pairs,
    excess leakage with its interval and bound, and the worst attackers; null if no setting is within the
    margin. Ordered by distortion, then name.
    """
    import pandas as pd

    kept = [c for c in COLUMNS if c.startswith("excess_leakage") or c.endswith("_attacker")]
    kept = ["trial", "confidence_distortion", "n_pairs", *kept]
    defenses = []
    for defense, group in configurations.groupby("defense", sort=True):
        within = group[_eligible(group) & group["within_margin"].fillna(False).to_numpy(dtype=bool)]
        row: dict[str, Any] = {"defense": defense, "n_settings": len(group)}
        if len(within):
            best = within.sort_values(["confidence_distortion", "trial"], kind="stable").iloc[0]
            row |= {"knobs": knobs_text(best), **best[kept]}
        defenses.append(row)
    types = {"defense": "string", "n_settings": "Int64", "knobs": "string", **{c: COLUMNS[c] for c in kept}}
    table = pd.DataFrame(defenses, columns=list(types), dtype=object).astype(types)
    return table.sort_values(["confidence_distortion", "defense"], kind="stable").reset_index(drop=True)
