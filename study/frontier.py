"""The frontier of a study: what each defense setting costs, what it leaks at worst, which ones nothing beats.

Everything here is a pure function of episode records (a data frame, one row per setting x attacker x seed):
neither the order of rows nor that of files matters. Missing is null (``pd.NA``), never 0. A *setting* is one
trial: a defense family with its knobs. The *suite* is every attacker with a successful episode in the frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import moocore
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mipoison.defenses import DEFENSES
from mipoison.metrics.statistics import ROUNDING, mean_interval
from study.cut import CUT

LABEL_ONLY, UNDEFENDED = "label-only", "none"
KNOB = "defense."
ACCURACY, ERROR = "attack_accuracy", "reconstruction_error"
REFERENCE_MARGIN = 1.1
"""The reference point lies this factor beyond the label-only distortion, so that label-only itself counts."""
REFERENCE_ACCURACY = 1.05
"""Beyond 1, so that settings count under which the label alone gives every class away (the usual case)."""
DROP_TOLERANCE = 1e-9
"""0.96 - 0.95 is 0.01 and a little: rounding must not make a setting infeasible."""
WORST = ("worst_attack_accuracy", "worst_reconstruction_error")
MEASURES = (*WORST, "excess_leakage", "excess_attack_accuracy")
"""What has an interval: ``<name>`` is the mean over seeds, ``<name>_low`` and ``_high`` its 95 % bounds."""
COLUMNS: dict[str, str] = {
    **dict.fromkeys(("trial", "defense"), "string"),
    **dict.fromkeys(("n_seeds", "n_shared_seeds", "n_pairs", "n_failed"), "Int64"),
    **dict.fromkeys(("complete", "cut", "feasible", "leaks_nothing"), "boolean"),
    **dict.fromkeys(("confidence_distortion", "accuracy_drop"), "Float64"),
    **{f"{name}{bound}": "Float64" for name in MEASURES for bound in ("", "_low", "_high")},
    **{f"{name}_attacker": "string" for name in WORST},
    "mean_image_error": "Float64",
    "dominated_by": "Int64",
}
"""Columns of a settings table and their types; the knobs (``defense.budget``, sorted) follow them."""
IDENTITY = ("trial", "episode_id", "attempt", "seed", "defense", "attack", "status")
SHARED = ("confidence_distortion", "model_accuracy", "protected_accuracy", "mean_image_error")
"""Measured once per setting and seed, and repeated in the record of every attacker."""
NEEDED = (*IDENTITY, ACCURACY, ERROR, *SHARED)
"""What a settings table is made of, but for knobs and what tells data and scales apart."""


class Objective(NamedTuple):
    """A column of the settings table and its better direction."""

    column: str
    maximise: bool


OBJECTIVES = (
    Objective("confidence_distortion", False),
    Objective("worst_attack_accuracy", False),
    Objective("worst_reconstruction_error", True),
)


@dataclass(frozen=True)
class Reference:
    """Corners that scale the hypervolume, in the order of OBJECTIVES: nothing counts beyond ``worst``."""

    worst: tuple[float, float, float]
    ideal: tuple[float, float, float]


class WorstCase(NamedTuple):
    """A setting's worst attackers, over the seeds on which the whole suite succeeded (the index)."""

    accuracy_attacker: str
    accuracy_by_seed: pd.Series
    error_attacker: str
    error_by_seed: pd.Series


def _prepared(episodes: pd.DataFrame) -> pd.DataFrame:
    """One row per (trial, attack, seed), sorted; of several a successful one, then the first attempt and id.

    Raises:
        ValueError: the rows mix data or scales, which cannot be compared.
    """
    for column in episodes.columns:
        if column in ("dataset", "auxiliary") or (column.startswith("scene.") and column != "scene.seed"):
            values = sorted(map(str, episodes[column].dropna().unique()))
            if len(values) > 1:
                raise ValueError(f"episodes mix {column}: {', '.join(values)}; a frontier has one scene")
    missing = [c for c in NEEDED if c not in episodes.columns]
    rows = episodes.reset_index(drop=True).reindex(columns=[*episodes.columns, *missing])
    for column in (ACCURACY, ERROR, *SHARED):
        rows[column] = rows[column].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    rows["_cut"] = (rows["status"] == CUT).fillna(False).astype(bool)
    rows["_failed"] = (rows["status"] != "ok").fillna(True).astype(bool) & ~rows["_cut"]
    # The measured values at the end only order attempts that nothing else tells apart.
    key = ["trial", "attack", "seed"]
    rows = rows.sort_values([*key, "_failed", "attempt", "episode_id", ERROR, ACCURACY], kind="stable")
    return rows.drop_duplicates(key).reset_index(drop=True)


def _worst_cases(rows: pd.DataFrame) -> dict[str, WorstCase]:
    found = rows[~rows["_failed"] & ~rows["_cut"] & rows[ERROR].notna() & rows[ACCURACY].notna()]
    cases: dict[str, WorstCase] = {}
    if found.empty:
        return cases
    # Attackers that a trial lacks on a seed are null there, and the seed is dropped.
    grid = found.pivot(index=["trial", "seed"], columns="attack", values=[ERROR, ACCURACY])
    cut = rows[rows["_cut"]].groupby("trial")["attack"].unique()
    for trial, by_seed in grid.sort_index().groupby(level="trial", sort=True):
        if trial in cut.index:  # the worst case over the attackers that ran: it is at least so bad
            by_seed = by_seed.drop(columns=cut[trial], level="attack", errors="ignore")
        by_seed = by_seed.dropna()
        if by_seed.empty:
            continue
        error, accuracy = (by_seed[name].droplevel("trial") for name in (ERROR, ACCURACY))
        low, high = str(error.mean().idxmin()), str(accuracy.mean().idxmax())  # of equals, the first by name
        cases[str(trial)] = WorstCase(high, accuracy[high], low, error[low])
    return cases


def worst_cases(episodes: pd.DataFrame) -> dict[str, WorstCase]:
    """Trial -> its worst attackers, seed by seed; trials that never faced the whole suite are absent.

    A missing attacker would make a setting look protected, so a seed counts only if all attackers succeeded.
    """
    return _worst_cases(_prepared(episodes))


def _per_seed(rows: pd.DataFrame, values: pd.Series) -> float | None:
    """Mean over seeds of a value that all attackers of a seed share; None if there is none."""
    per_seed = values.groupby(rows["seed"]).mean().dropna()
    return float(per_seed.mean()) if len(per_seed) else None


def _spread(name: str, by_seed: pd.Series) -> dict[str, Any]:
    """Mean and 95 % Student-t interval over seeds as columns; nothing without values."""
    if by_seed.empty:
        return {}
    interval = mean_interval(by_seed.to_numpy(dtype=float))
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _excess(case: WorstCase, floor: WorstCase) -> dict[str, Any]:
    """What the worst case gains over the label-only floor, paired by seed."""
    ratio = (case.error_by_seed / floor.error_by_seed[floor.error_by_seed > 0]).dropna()
    gain = (case.accuracy_by_seed - floor.accuracy_by_seed).dropna()
    columns = _spread("excess_leakage", 1 - ratio) | _spread("excess_attack_accuracy", gain)
    if len(ratio):
        columns["n_pairs"] = len(ratio)
        low, mean = columns["excess_leakage_low"], columns["excess_leakage"]
        columns["leaks_nothing"] = (mean if low is None else low) <= ROUNDING
    return columns


def _knobs(group: pd.DataFrame, columns: list[str]) -> dict[str, Any]:
    knobs: dict[str, Any] = {}
    for column in columns:
        values = group[column].dropna().unique()
        if len(values) > 1:
            trial = group["trial"].iloc[0]
            raise ValueError(f"trial {trial!r} has several values of {column}: {list(values)}")
        knobs[column] = values[0] if len(values) else None
    return knobs


def _knob_dtype(column: str, values: pd.Series) -> str:
    """By the field's type in the configurations, so that it is stable; for unknown knobs by the values."""
    name = column.removeprefix(KNOB)
    kinds: set[type] = {c.field_kinds()[name][0] for c in DEFENSES.values() if name in c.field_kinds()}
    if not kinds:
        kinds = {type(v.item() if isinstance(v, np.generic) else v) for v in values.dropna()}
    accepted: dict[str, set[type]] = {"boolean": {bool}, "Int64": {int}, "Float64": {int, float}}
    return next((dtype for dtype, types in accepted.items() if kinds and kinds <= types), "string")


def settings_table(episodes: pd.DataFrame, *, max_accuracy_drop: float) -> pd.DataFrame:
    """One row per setting: its cost, its worst case, what it leaks beyond the label, what dominates it.

    Distortion and accuracy drop are means over seeds, each seed once. Worst-case attack accuracy is that of
    the attacker with the highest mean over seeds, worst-case error that of the one with the lowest, both over
    the seeds on which the whole suite succeeded (cost is taken on the same seeds; if there are none, on every
    successful one). Excess leakage sets the worst attacker by error against label-only's, per seed
    ``1 - error / label-only error``. ``leaks_nothing``: its 95 % Student-t interval reaches down to zero (one
    seed: the value does), so that no leakage beyond the label is shown; few seeds show little.

    Args:
        episodes: records of one scene (see ``mipoison.episode``) with the column ``trial``.
        max_accuracy_drop: share of accuracy in [0, 1]; a setting that costs more is not feasible.

    Returns:
        COLUMNS and the knobs (``defense.<knob>``), sorted by trial. Intervals are null with one seed, the
        worst case where it cannot be computed, excess leakage without a label-only anchor. ``complete``: no
        episode failed, is missing or was cut. ``cut``: the label-only anchor dominated the setting before the
        whole suite had run, so its worst case is a bound (at least so bad) and it is never on the frontier.
        ``dominated_by``: how many feasible settings dominate it.

    Raises:
        ValueError: the rows mix data or scales, or a trial has two values of one knob.
    """
    rows = _prepared(episodes)
    cases = _worst_cases(rows)
    anchors = sorted(rows.loc[rows["defense"] == LABEL_ONLY, "trial"].unique())
    floors = [cases[trial] for trial in anchors if trial in cases]
    knobs = sorted(c for c in rows.columns if c.startswith(KNOB))
    n_attackers = rows["attack"].nunique()
    limit = max_accuracy_drop + DROP_TOLERANCE
    settings = []
    for trial, group in rows.groupby("trial", sort=True):
        case, n_failed, n_seeds = cases.get(str(trial)), int(group["_failed"].sum()), group["seed"].nunique()
        ok = group[~group["_failed"] & ~group["_cut"]]
        used = ok if case is None else ok[ok["seed"].isin(case.error_by_seed.index)]
        drop = _per_seed(used, used["model_accuracy"] - used["protected_accuracy"])
        row: dict[str, Any] = {"trial": trial, "defense": group["defense"].iloc[0], **_knobs(group, knobs)}
        n_shared = 0 if case is None else len(case.error_by_seed)
        row |= {"n_seeds": n_seeds, "n_shared_seeds": n_shared, "n_pairs": 0}
        is_cut = bool(group["_cut"].any())
        n_missing = n_seeds * n_attackers - len(group)
        row |= {"n_failed": n_failed, "cut": is_cut, "complete": not (n_failed or n_missing or is_cut)}
        row |= {name: _per_seed(used, used[name]) for name in ("confidence_distortion", "mean_image_error")}
        row |= {"accuracy_drop": drop, "feasible": False if drop is None else drop <= limit}
        if case is not None:
            for name, attacker, by_seed in zip(WORST, case[::2], case[1::2], strict=True):
                row |= _spread(name, by_seed) | {f"{name}_attacker": attacker}
            row |= _excess(case, floors[0]) if floors else {}
        settings.append(row)
    table = pd.DataFrame(settings, columns=[*COLUMNS, *knobs], dtype=object)
    table = table.astype(COLUMNS | {c: _knob_dtype(c, table[c]) for c in knobs})
    table["dominated_by"] = _dominated_by(table)
    return table


def _points(settings: pd.DataFrame) -> NDArray[np.float64]:
    return settings[[o.column for o in OBJECTIVES]].to_numpy(dtype=float, na_value=np.nan)


def _eligible(settings: pd.DataFrame) -> NDArray[np.bool_]:
    """Feasible, every objective known, faced the whole suite."""
    feasible: NDArray[np.bool_] = settings["feasible"].fillna(False).to_numpy(dtype=bool)
    feasible = feasible & ~settings["cut"].fillna(False).to_numpy(dtype=bool)
    return feasible & np.isfinite(_points(settings)).all(axis=1)


def _dominated_by(settings: pd.DataFrame) -> pd.Series:
    """How many feasible settings are nowhere worse and somewhere better; null if an objective is unknown."""
    points = _points(settings) * np.array([-1.0 if o.maximise else 1.0 for o in OBJECTIVES])
    rivals = points[_eligible(settings)]
    counts = [
        int(((rivals <= p).all(axis=1) & (rivals < p).any(axis=1)).sum()) if np.isfinite(p).all() else None
        for p in points
    ]
    return pd.Series(pd.array(counts, dtype="Int64"), index=settings.index)


def pareto_front(settings: pd.DataFrame) -> pd.DataFrame:
    """Feasible settings, anchors too, that none dominates; by distortion, then trial; equals all stay."""
    candidates = settings[_eligible(settings)]
    if len(candidates):
        maximise = [o.maximise for o in OBJECTIVES]
        kept = moocore.is_nondominated(_points(candidates), maximise=maximise, keep_weakly=True)
        candidates = candidates[kept]
    return candidates.sort_values(["confidence_distortion", "trial"], kind="stable").reset_index(drop=True)


def frontier_table(episodes: pd.DataFrame, max_accuracy_drop: float) -> pd.DataFrame:
    """What ``frontier.parquet`` holds: a function of the rows alone, with fixed column order and types."""
    return pareto_front(settings_table(episodes, max_accuracy_drop=max_accuracy_drop))


def reference_point(episodes: pd.DataFrame) -> Reference | None:
    """The fixed corners of the hypervolume, known as soon as the label-only anchor is measured.

    Worst: 1.1 times the label-only distortion, attack accuracy 1.05, error 0. Ideal: distortion 0, attack
    accuracy 1 / ``n_classes`` (a column; 0 if unknown), the error of the attack set's mean image.

    Returns:
        None while label-only's distortion (above 0) or its mean image error is unknown.
    """
    rows = _prepared(episodes)
    floor = rows[~rows["_failed"] & ~rows["_cut"] & (rows["defense"] == LABEL_ONLY)]
    distortion = _per_seed(floor, floor["confidence_distortion"])
    mean_image = _per_seed(floor, floor["mean_image_error"])
    if not distortion or not mean_image:
        return None
    classes = floor["n_classes"].dropna().tolist() if "n_classes" in floor else []
    chance = 1 / int(classes[0]) if classes else 0.0
    return Reference((REFERENCE_MARGIN * distortion, REFERENCE_ACCURACY, 0.0), (0.0, chance, mean_image))


def hypervolume(settings: pd.DataFrame, reference: Reference) -> float:
    """Share in [0, 1] of the box between the reference corners that the feasible settings dominate.

    Better than ideal counts as ideal, worse than the worst corner not at all. The anchors count, so that an
    undefended victim alone may have a hypervolume above 0.
    """
    worst, ideal = np.array(reference.worst), np.array(reference.ideal)
    scaled = (_points(settings)[_eligible(settings)] - ideal) / (worst - ideal)  # 0 ideal, 1 worst: minimised
    return float(moocore.hypervolume(np.clip(scaled, 0, 1), ref=[1.0, 1.0, 1.0])) if len(scaled) else 0.0


def knobs_text(setting: Mapping[str, Any]) -> str:
    """A setting's knobs in a few words: those a sweep explores, then others that are not at their default."""
    known = {k.removeprefix(KNOB): v for k, v in setting.items() if k.startswith(KNOB) and not pd.isna(v)}
    config = DEFENSES.get(str(setting["defense"]))
    shown = sorted(known)
    if config is not None:
        default = config().flat()
        shown = [name for name in config.KNOBS if name in known]
        shown += [n for n in default if n in known and n not in config.KNOBS and known[n] != default[n]]
    return " ".join(f"{name.replace('substitute_', 'sub_')}={_short(known[name])}" for name in shown)


def _short(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, (float, np.floating)) else str(value)


def family_table(settings: pd.DataFrame) -> pd.DataFrame:
    """Per family: how many settings, and the feasible one of least distortion with ``leaks_nothing``.

    Columns: defense, n_settings, and of that setting its knobs (short text), trial, distortion, n_pairs,
    excess leakage with its interval and the worst attackers; null if there is none. By distortion, then name.
    """
    kept = [c for c in COLUMNS if c.startswith("excess_leakage") or c.endswith("_attacker")]
    kept = ["trial", "confidence_distortion", "n_pairs", *kept]
    families = []
    for defense, group in settings.groupby("defense", sort=True):
        silent = group[_eligible(group) & group["leaks_nothing"].fillna(False).to_numpy(dtype=bool)]
        row: dict[str, Any] = {"defense": defense, "n_settings": len(group)}
        if len(silent):
            best = silent.sort_values(["confidence_distortion", "trial"], kind="stable").iloc[0]
            row |= {"knobs": knobs_text(best), **best[kept]}
        families.append(row)
    types = {"defense": "string", "n_settings": "Int64", "knobs": "string", **{c: COLUMNS[c] for c in kept}}
    table = pd.DataFrame(families, columns=list(types), dtype=object).astype(types)
    return table.sort_values(["confidence_distortion", "defense"], kind="stable").reset_index(drop=True)


BIAS = ("worst_reconstruction_error", "worst_attack_accuracy", "excess_leakage")
"""What is compared between the seeds of the search and fresh ones."""


def selection_bias(episodes: pd.DataFrame, fresh: pd.DataFrame, max_accuracy_drop: float) -> pd.DataFrame:
    """One row per re-evaluated setting, by distortion: each measure on the search's seeds and on fresh ones.

    Columns: trial, defense, knobs, confidence_distortion, then ``<measure>`` and ``<measure>_fresh`` for each
    of BIAS, with ``_low`` and ``_high`` of the excess leakage.
    """
    measures = [*BIAS, "excess_leakage_low", "excess_leakage_high"]
    before = settings_table(episodes, max_accuracy_drop=max_accuracy_drop)
    after = settings_table(fresh, max_accuracy_drop=max_accuracy_drop)[["trial", *measures]]
    merged = before.merge(after, on="trial", suffixes=("", "_fresh"), validate="one_to_one")
    knobs = [c for c in merged if c.startswith("defense.")]
    kept = ["trial", "defense", *knobs, "confidence_distortion"]
    columns = [*kept, *(name + end for name in measures for end in ("", "_fresh"))]
    return merged[columns].sort_values(["confidence_distortion", "trial"], kind="stable", ignore_index=True)
