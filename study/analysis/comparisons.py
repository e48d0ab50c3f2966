"""Compares defenses with controls of equal distortion: paired by seed, p-values adjusted by Holm's method."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mipoison.defenses import ANCHORS
from mipoison.metrics.statistics import ROUNDING, mean_intervals, paired_differences
from study.analysis.frontier import LABEL_ONLY
from study.analysis.worst_case import find_worst, prepare

NEAR = 1.5
"""Two settings have equal distortion if the larger is at most this factor above the smaller."""
NO_DIFFERENCE, TOO_FEW = "no difference shown", "too few seeds"
CONTROLS = ("noise", "tail-noise", "rounding")
"""Defenses without an idea: one that does not protect better at equal distortion adds nothing."""
PAIRS = {
    "trial": "string",
    "defense": "string",
    "other": "string",
    "other_trial": "string",
    "confidence_distortion": "Float64",
    "other_confidence_distortion": "Float64",
    "difference": "Float64",
    "difference_low": "Float64",
    "difference_high": "Float64",
    "n_pairs": "Int64",
    "verdict": "string",
    "p_holm": "Float64",
}


def equal_distortion(
    episodes: pd.DataFrame, configurations: pd.DataFrame, controls: tuple[str, ...] = CONTROLS
) -> pd.DataFrame:
    """Compare each setting with the setting of each control that is nearest in log distortion (within NEAR).

    All defenses but the controls and the anchors are compared, a setting that was evaluated twice once.
    Settings cut short are left out. An error above that of label-only's worst attacker on the same seed
    counts as that error: whoever sees the scores can ignore them, so the rest is the attackers' failure.

    Returns:
        One row per setting and control within NEAR, ordered by defense and distortion: both trials and
        distortions; the mean over paired seeds of the setting's worst-case error minus the control's, with
        its 95 % Student-t interval; a verdict. ``A beats B`` needs three seeds or more, and the Student-t and
        the bootstrap interval (see ``paired_difference``) both to exclude zero. ``p_holm``: the paired
        t-test's p, adjusted by Holm (1979) for the number of comparisons in the table.
    """
    worst = find_worst(prepare(episodes))
    seeds, seed = np.unique(worst.seed, return_inverse=True)
    errors = np.full((len(worst.trials), len(seeds)), np.nan)
    errors[worst.trial, seed] = worst.error
    errors = np.minimum(errors, _floor(errors, worst.trials, configurations))  # NaN stays: unknown
    known = worst.trials[worst.counts > 0]
    whole = ~configurations["cut"].fillna(False).astype(bool)
    usable = configurations[whole & configurations["trial"].isin(known)].dropna(
        subset=["confidence_distortion"]
    )
    usable = usable[usable["confidence_distortion"] > 0]
    usable = usable[~usable.duplicated(["defense", *(c for c in usable if c.startswith("defense."))])]
    usable = usable.sort_values(["confidence_distortion", "trial"], kind="stable", ignore_index=True)
    pairs = _neighbours(usable, controls)
    by_seed = errors[pd.Index(worst.trials).get_indexer(usable["trial"])]
    own, near = (by_seed[pairs[name].to_numpy(dtype=int)] for name in ("own", "near"))
    both = ~np.isnan(own) & ~np.isnan(near)
    n_pairs = both.sum(axis=1)
    compared: dict[int, tuple[Any, ...]] = {}
    for n in np.unique(n_pairs[n_pairs > 0]):
        places = np.flatnonzero(n_pairs == n)
        a, b = (values[places][both[places]].reshape(-1, n) for values in (own, near))
        paired = paired_differences(a, b, rng=np.random.default_rng(0))
        _, low, high = mean_intervals((a - b).ravel(), np.full(len(a), n))
        p = _paired_p(a - b) if n >= 3 else np.full(len(a), np.nan)
        compared |= dict(zip(places.tolist(), zip(paired, low, high, p, strict=True), strict=True))
    trials, defenses, distortions = (
        usable[c].to_numpy(dtype=object) for c in ("trial", "defense", "confidence_distortion")
    )
    rows = []
    for place, (i, j, other) in enumerate(pairs.itertuples(index=False)):
        if place not in compared:
            continue
        difference, *numbers = compared[place]
        bounds = [None if np.isnan(v) else v for v in numbers[:2]]
        verdict = TOO_FEW if difference.n < 3 else NO_DIFFERENCE
        if difference.significant:
            names = (defenses[i], other) if difference.mean > 0 else (other, defenses[i])
            verdict = f"{names[0]} beats {names[1]}"
        measured = (distortions[i], distortions[j], difference.mean, *bounds, difference.n)
        rows.append(
            (
                trials[i],
                defenses[i],
                other,
                trials[j],
                *measured,
                verdict,
                None if np.isnan(numbers[2]) else numbers[2],
            )
        )
    table = pd.DataFrame(rows, columns=list(PAIRS), dtype=object).astype(PAIRS)
    table["p_holm"] = holm(table["p_holm"])
    return table


def _floor(errors: NDArray[np.float64], trials: NDArray[Any], configurations: pd.DataFrame) -> Any:
    """Error of label-only's worst attacker on each seed; infinite where it is unknown."""
    anchors = configurations.loc[configurations["defense"] == LABEL_ONLY, "trial"]
    rows = errors[pd.Index(trials).isin(anchors)]
    return np.nan_to_num(rows[0], nan=np.inf) if len(rows) else np.inf


def _neighbours(usable: pd.DataFrame, controls: tuple[str, ...]) -> pd.DataFrame:
    """Row numbers of each setting (``own``) and of each control's nearest setting (``near``), within NEAR."""
    logs = np.log(usable["confidence_distortion"].to_numpy(dtype=float))
    of_control = [np.flatnonzero((usable["defense"] == other).to_numpy(dtype=bool)) for other in controls]
    compared = usable[~usable["defense"].isin([*controls, *ANCHORS])]
    pairs = []
    for i in compared.sort_values("defense", kind="stable").index:
        for other, places in zip(controls, of_control, strict=True):
            apart = np.abs(logs[places] - logs[i])
            if len(apart) and apart.min() <= math.log(NEAR):
                pairs.append((i, int(places[apart.argmin()]), other))
    return pd.DataFrame(pairs, columns=["own", "near", "other"])


def _paired_p(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """The paired t-test's p of each row of differences. A constant row gets 1 if it is zero, else 0."""
    import scipy.stats

    constant = np.ptp(differences, axis=1) <= ROUNDING * np.abs(differences).max(axis=1)
    p = (~differences.any(axis=1)).astype(float)
    if not constant.all():
        p[~constant] = scipy.stats.ttest_1samp(differences[~constant], 0.0, axis=1).pvalue
    return p


def holm(p: pd.Series) -> pd.Series:
    """Adjust p-values for their number (Holm 1979). Missing ones stay missing and do not count."""
    found = p.dropna().astype(float).sort_values(kind="stable")
    n = len(found)
    adjusted = np.minimum(np.maximum.accumulate(found.to_numpy() * (n - np.arange(n))), 1.0)
    return pd.Series(adjusted, index=found.index).reindex(p.index).astype("Float64")
