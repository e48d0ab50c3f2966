"""Finds the worst attackers of each setting, seed by seed, in the records of all settings at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mipoison.scene_config import PATHS
from study.records.status import PRUNED

if TYPE_CHECKING:
    import pandas as pd

ACCURACY, ERROR = "attack_accuracy", "reconstruction_error"
IDENTITY = ("trial", "episode_id", "attempt", "seed", "defense", "attack", "status")
SHARED = ("confidence_distortion", "model_accuracy", "protected_accuracy", "mean_image_error")
"""Measured once per setting and seed, and repeated in the record of every attacker."""
NEEDED = (*IDENTITY, ACCURACY, ERROR, *SHARED)
"""Columns that a ``configuration_table`` is computed from, besides those of knobs and scene."""
PLACE, TRIAL, SEED = "_place", "_trial", "_seed"
"""Columns of prepared rows: the row's original position; the indices of its trial and of its seed."""


class WorstCase(NamedTuple):
    """A setting's worst attackers, over the seeds on which the whole suite succeeded (the index)."""

    accuracy_attacker: str
    accuracy_by_seed: pd.Series
    error_attacker: str
    error_by_seed: pd.Series


@dataclass(frozen=True)
class Prepared:
    """Sorted records, one row per (trial, attack, seed).

    Attributes:
        rows: NEEDED and what else was asked for, ``n_classes``, ``_pruned``, ``_failed`` and the indices,
            sorted by trial, attack, seed.
        trials, seeds: the names and numbers that the indices refer to, sorted.
    """

    rows: pd.DataFrame
    trials: NDArray[Any]
    seeds: NDArray[Any]


@dataclass(frozen=True)
class Worst:
    """The worst cases of all trials; a trial without one has a count of 0.

    Attributes:
        trials: names, sorted. counts: of each trial, the seeds on which its whole suite succeeded.
        accuracy_attacker, error_attacker: the worst attacker of each trial, None without a worst case.
        trial, seed: one entry per trial and such seed, trial by trial: the trial's index, and the seed.
        accuracy, error: what the trial's worst attackers reach on that seed.
    """

    trials: NDArray[Any]
    counts: NDArray[np.int64]
    accuracy_attacker: NDArray[Any]
    error_attacker: NDArray[Any]
    trial: NDArray[np.int64]
    seed: NDArray[Any]
    accuracy: NDArray[np.float64]
    error: NDArray[np.float64]

    def case(self, place: int) -> WorstCase:
        """The worst case of one trial (by index), with its values by seed."""
        import pandas as pd

        start = int(self.counts[:place].sum())
        part = slice(start, start + int(self.counts[place]))
        index = pd.Index(self.seed[part], name="seed")
        accuracy, error = str(self.accuracy_attacker[place]), str(self.error_attacker[place])
        return WorstCase(
            accuracy,
            pd.Series(self.accuracy[part], index, name=accuracy),
            error,
            pd.Series(self.error[part], index, name=error),
        )


def check_one_scene(episodes: pd.DataFrame) -> None:
    """Raise ValueError if the rows mix data or scales, which cannot be compared."""
    places = {
        "scene.seed",
        *(f"scene.{name}" for name in PATHS),
    }  # paths may differ: what counts is the content
    for column in episodes.columns:
        if column in ("dataset", "auxiliary") or (column.startswith("scene.") and column not in places):
            found = map(str, episodes[column].dropna().unique())
            values = sorted({text.partition(":")[0] if column == "dataset" else text for text in found})
            if len(values) > 1:
                raise ValueError(f"episodes mix {column}: {', '.join(values)}; a frontier has one scene")
    if {"seed", "split"} <= {*episodes.columns} and (episodes.groupby("seed")["split"].nunique() > 1).any():
        raise ValueError("episodes mix the images of a seed (split); a frontier has one scene")


def prepare(episodes: pd.DataFrame, also: Iterable[str] = ()) -> Prepared:
    """Reduce records to one row per (trial, attack, seed), sorted.

    Of several rows the successful one is kept; of several successful ones, the first attempt.

    Args:
        also: further columns of numbers to keep.
    """
    import pandas as pd

    measured = dict.fromkeys((ACCURACY, ERROR, *SHARED, *also))
    columns = dict.fromkeys((*NEEDED, *measured, *(["n_classes"] if "n_classes" in episodes else [])))
    rows = episodes.reindex(columns=list(columns)).reset_index(drop=True)
    rows[PLACE] = np.arange(len(rows))
    for column in measured:
        rows[column] = rows[column].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    rows["_pruned"] = (rows["status"] == PRUNED).fillna(False).astype(bool)
    rows["_failed"] = (rows["status"] != "ok").fillna(True).astype(bool) & ~rows["_pruned"]
    rows = rows[rows["trial"].notna()]
    key = ["trial", "attack", "seed"]
    # The measured values come last: they only order rows that are equal in everything before.
    rest = ["_failed", "attempt", "episode_id", ERROR, ACCURACY] if rows.duplicated(key).any() else []
    rows = rows.sort_values([*key, *rest], kind="stable").drop_duplicates(key).reset_index(drop=True)
    rows[TRIAL], trials = pd.factorize(rows["trial"])
    rows[SEED], seeds = pd.factorize(rows["seed"], sort=True)
    return Prepared(rows, np.asarray(trials, dtype=object), np.asarray(seeds))


def find_worst(prepared: Prepared) -> Worst:
    """Find the worst attackers: highest mean accuracy and lowest mean error over a trial's shared seeds.

    A missing attacker would make a setting look protected, so a seed counts only if all attackers succeeded.
    In a trial that was cut short, only attackers that ran are asked for: its worst case is a bound.
    """
    import pandas as pd

    rows, n_trials, n_seeds = prepared.rows, len(prepared.trials), len(prepared.seeds)
    usable = ~rows["_failed"] & ~rows["_pruned"] & rows[ERROR].notna() & rows[ACCURACY].notna()
    found = rows[usable & (rows[SEED] >= 0) & rows["attack"].notna()]
    place, names = pd.factorize(found["attack"], sort=True)
    attackers = np.asarray(names, dtype=object)
    at = (found[TRIAL].to_numpy(), found[SEED].to_numpy(), place)
    error, accuracy = np.full((2, n_trials, n_seeds, len(attackers)), np.nan)
    error[at], accuracy[at] = found[ERROR].to_numpy(), found[ACCURACY].to_numpy()
    gone = np.zeros((n_trials, len(attackers)), dtype=bool)
    pruned = rows[rows["_pruned"]]
    among = pd.Index(attackers).get_indexer(pruned["attack"])
    gone[pruned[TRIAL].to_numpy()[among >= 0], among[among >= 0]] = True
    present = ~np.isnan(error) & ~gone[:, None]
    shared = (present | gone[:, None]).all(axis=2) & present.any(axis=2)
    counts = shared.sum(axis=1)
    low, high = (_mean(values, shared, counts, gone) for values in (error, accuracy))
    chosen = (
        (np.where(np.isnan(low), np.inf, low), np.argmin, error),
        (np.where(np.isnan(high), -np.inf, high), np.argmax, accuracy),
    )
    trial, seed = np.nonzero(shared)
    found_worst = []
    for means, pick, values in chosen:  # of equals, the first by name
        best = pick(means, axis=1) if len(attackers) else np.zeros(n_trials, dtype=int)
        named = np.full(n_trials, None, dtype=object)
        named[counts > 0] = attackers[best[counts > 0]]
        found_worst.append((named, values[trial, seed, best[trial]]))
    (error_attacker, worst_error), (accuracy_attacker, worst_accuracy) = found_worst
    return Worst(
        prepared.trials, counts, accuracy_attacker, error_attacker, trial, prepared.seeds[seed],
        worst_accuracy, worst_error,
    )  # fmt: skip


def _mean(
    values: NDArray[np.float64], shared: NDArray[np.bool_], counts: NDArray[np.int64], gone: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The mean of each trial and attacker over the trial's shared seeds; NaN for attackers that were cut."""
    total = np.where(shared[:, :, None], values, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(gone, np.nan, total / np.maximum(counts, 1)[:, None])
