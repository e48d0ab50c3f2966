"""What may be said of each setting: certified, safe, leaks or undecided, from the records alone.

On private train and on private test images: a claim holds on both or not at all. Shape suffixes: T
settings, S seeds, A attackers, H the mean over all images and those over half-samples.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mipoison.defenses import LABEL_ONLY
from mipoison.metrics import half_samples
from mipoison.metrics.check_conditions import LABEL_ONLY_TOLERANCE
from mipoison.metrics.excess import MARGIN, Excess, excess_intervals, seeds_needed, verdict
from study.analysis.attacked import Attacked, Attacks

if TYPE_CHECKING:
    import pandas as pd

POOLS = {
    "": ("reconstruction_error", *half_samples.COLUMNS),
    "_test": ("reconstruction_error_test", *half_samples.TEST_COLUMNS),
}
"""Ending of a pool's columns -> its mean error, and those over its half-samples."""
CERTIFIED = ("certified_excess", "certified_excess_test")
EXACT = ("smallest_cell", "smallest_cell_test")
"""Known where a certificate is exact: it counts cells, and holds however many answers an attacker compares.
That of noise speaks of one answer at a time, and of attackers who ask for no image of the same pixels: it
is a column, and no reason to call a setting certified."""
AGREEMENT = ("label_agreement", "attack_set_label_agreement")
BROKEN, VARIES = "check.beats_certificate", "check.repeated_queries_differ"
DOUBTS = (BROKEN, *(f"check.{n}" for n in ("hidden_channel", "writes_image", "asked_nothing")),
          VARIES)  # fmt: skip
"""Checks that say that more is in the answers than these attackers can read, or that they read too few."""
COLUMNS: dict[str, str] = {
    "trial": "string",
    "verdict": "string",
    **{f"suite_excess{pool}{end}": "Float64" for pool in POOLS for end in ("", "_low", "_high")},
    "suite_excess_worst": "Float64",
    "certified_excess_worst": "Float64",
    "seeds_to_decide": "Int64",
}
"""Columns of a verdict table and their types. ``suite_excess``: with the whole suite's best attacker, and its
one-sided 95 % bounds; ``_worst``: the larger of train and test. ``certified_excess_worst``: the largest
exact certificate over seeds and pools. ``seeds_to_decide``: how many more seeds would decide, of those
undecided."""


def verdict_table(episodes: pd.DataFrame, *, margin: float = MARGIN) -> pd.DataFrame:
    """One row per setting that was measured beside label-only on a common seed, sorted by trial.

    The seeds are those on which every attacker of the setting and of label-only succeeded. A setting whose
    record is not whole can be seen to leak, and is never safe: one that was cut short, lacks an attacker or a
    seed of label-only, or has a failed episode; one that flips labels, since attackers that trust labels then
    say little; one against which all attackers do worse than label-only's, which is their failure; one with a
    raised check of DOUBTS. It is certified only where every seed has an exact certificate on both pools, no
    attacker beat one, repeated queries get one answer, and no attacker gains more than the margin over these
    attackers' label-only error, which may lie above the best answer to a label. Label-only is certified, in
    older records too, as it tells nothing but the label. Where it is missing there is a verdict only for what
    is certified.

    Args:
        episodes: records of one scene with the column ``trial``.
        margin: excess leakage that is accepted, a share of label-only's error.
    """
    import pandas as pd

    names = [name for pool in POOLS.values() for name in pool]
    wanted = ["trial", "defense", "attack", "seed", "status", *names, *CERTIFIED, *EXACT, *AGREEMENT, *DOUBTS]
    rows = episodes.reindex(columns=wanted).reset_index(drop=True)
    anchor = rows[(rows["defense"] == LABEL_ONLY) & (rows["status"] == "ok")]
    attacks = Attacks(rows)
    by_trial = attacks.by_trial()
    certified = _certified(rows, by_trial, set(anchor["seed"].dropna()))
    of_labels = attacks.of(anchor.index.tolist())
    floor_seeds, floor_attackers = of_labels.seeds, of_labels.attackers
    floor_trial = anchor["trial"].iloc[0] if len(anchor) else None
    flips = _any(rows[list(AGREEMENT)].astype("Float64") < 1)
    doubtful = _any(rows[list(DOUBTS)].astype("boolean"))
    groups: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
    whole: dict[Any, bool] = {}
    doubted: dict[Any, bool] = {}
    for trial, attacked in by_trial.items():
        whole[trial] = (
            attacked.statuses == {"ok"}
            and set(floor_attackers) <= set(attacked.attackers)
            and set(floor_seeds) <= set(attacked.seeds)
            and not any(flips[i] for i in attacked.rows)
        )
        doubted[trial] = any(doubtful[i] for i in attacked.ok)
        groups[(attacked.seeds, attacked.attackers)].append(trial)
    indexed = rows[rows["status"] == "ok"].drop_duplicates(["trial", "seed", "attack"])
    indexed = indexed.set_index(["trial", "seed", "attack"])[names].astype("Float64")
    found: dict[Any, dict[str, Excess]] = defaultdict(dict)
    for (seeds, attackers), trials in groups.items():
        common = tuple(s for s in seeds if s in set(floor_seeds))
        if not common or not attackers or floor_trial is None:
            continue
        for pool, columns in POOLS.items():
            error = _errors(indexed, trials, common, attackers, columns)
            floor = _errors(indexed, [floor_trial], common, floor_attackers, columns)[0]
            known = np.isfinite(error).all(axis=(1, 2, 3))
            if np.isnan(floor).any() and not np.isnan(floor[..., 0]).any():  # records without half-samples
                error, floor = error[..., :1], floor[..., :1]
                known = np.isfinite(error).all(axis=(1, 2, 3))
            if not np.isfinite(floor).all() or not known.any() or not (floor > 0).all():
                continue
            excess = excess_intervals(error[known], floor, rng=np.random.default_rng(0))
            for trial, value in zip(np.asarray(trials, dtype=object)[known], excess, strict=True):
                found[trial][pool] = value
    out = [_row(t, found.get(t, {}), certified.get(t), whole[t], doubted[t], margin) for t in whole]
    return pd.DataFrame(out, columns=list(COLUMNS), dtype=object).astype(COLUMNS)


def _certified(rows: pd.DataFrame, by_trial: dict[str, Attacked], seeds: set[Any]) -> dict[Any, float]:
    """Trial -> largest exact certified excess over seeds and pools; absent if one is missing or was beaten,
    or if repeated queries differ.

    Args:
        seeds: label-only's; a trial needs a certificate on each of them and of its own.
    """
    defenses, seed = rows["defense"].tolist(), rows["seed"].tolist()
    known = rows[[*CERTIFIED, *EXACT]].notna().all(axis=1).tolist()
    # An exact certificate is over answers that are the same whenever the query is asked.
    broken = _any(rows[[BROKEN, VARIES]].astype("boolean"))
    largest = rows[list(CERTIFIED)].astype("Float64").max(axis=1).tolist()
    out = {}
    for trial, found in by_trial.items():
        ok = found.ok
        if not ok or any(broken[i] for i in ok):
            continue
        if all(known[i] for i in ok) and {seed[i] for i in ok} >= seeds | {seed[i] for i in found.rows}:
            out[trial] = float(max(largest[i] for i in ok))
        elif {defenses[i] for i in found.rows} == {LABEL_ONLY}:
            out[trial] = 0.0
    return out


def _any(flags: pd.DataFrame) -> list[bool]:
    """Whether any column of each row is true; missing ones are not."""
    values: list[bool] = flags.fillna(False).to_numpy(dtype=bool).any(axis=1).tolist()
    return values


def largest_certificates(rows: pd.DataFrame) -> dict[Any, float]:
    """Trial -> largest certified excess over seeds and pools; absent where a pool has none on some seed."""
    import pandas as pd

    ok = rows[rows["status"] == "ok"].drop_duplicates(["trial", "seed"])
    values = ok[list(CERTIFIED)].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    largest = pd.Series(values.max(axis=1), index=ok["trial"]) if len(ok) else pd.Series(dtype=float)
    return {trial: float(v.max()) for trial, v in largest.groupby(level=0) if not v.isna().any()}


def _errors(
    indexed: pd.DataFrame, trials: list[Any], seeds: tuple[Any, ...], attackers: tuple[Any, ...],
    columns: tuple[str, ...],
) -> NDArray[np.float64]:  # fmt: skip
    """Mean errors (T, S, A, H); NaN where one is missing."""
    import pandas as pd

    places = pd.MultiIndex.from_product([trials, seeds, attackers])
    values = indexed[list(columns)].reindex(places).to_numpy(dtype=float, na_value=np.nan)
    return values.reshape(len(trials), len(seeds), len(attackers), len(columns))


def _row(
    trial: Any, found: dict[str, Excess], certified: float | None, whole: bool, doubted: bool, margin: float
) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": trial, "certified_excess_worst": certified}
    for pool, excess in found.items():
        name = f"suite_excess{pool}"
        row |= {name: excess.mean, f"{name}_low": excess.low, f"{name}_high": excess.high if whole else None}
    if found:
        row["suite_excess_worst"] = max(excess.mean for excess in found.values())
    train, test = found.get(""), found.get("_test")
    if train is None:
        row["verdict"] = "certified" if certified is not None and certified <= margin else None
        return row
    whole = whole and all(excess.gain >= -LABEL_ONLY_TOLERANCE for excess in found.values())
    if any(excess.low is not None and excess.low > margin for excess in found.values()):
        certified = None
    trusted = whole and not doubted
    row["verdict"] = verdict(train, test, certified_excess=certified, margin=margin, whole=trusted)
    if row["verdict"] == "undecided" and trusted:
        row["seeds_to_decide"] = _more_seeds(list(found.values()), margin)
    return row


def _more_seeds(pools: list[Excess], margin: float) -> int | None:
    """How many more seeds would decide, if the means stay what they are: the setting leaks (the effect is its
    excess) or is safe (the effect is what is left up to the margin), whichever is shown with fewer."""
    spreads = [pool.spread for pool in pools if pool.spread is not None]
    if len(spreads) < len(pools):
        return None
    mean, seeds = max(pool.mean for pool in pools), min(pool.seeds for pool in pools)
    effect = max(mean, margin - mean)
    return max(seeds_needed(max(spreads), effect, pilot=seeds) - seeds, 1)
