"""What is known of each setting's leakage: measured, certified, possible, extrapolated.

All are shares of label-only's error, the larger of private train and private test images; the measured excess
is of one of them, see :func:`judged_pool`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from study.analysis.attacked import Attacks
from study.analysis.frontier import LABEL_ONLY
from study.analysis.verdicts import POOLS
from study.records.curves import FACES

EXCESS = "excess"
EXTRAPOLATED = "extrapolated_excess"
ATTACKER = {pool: f"suite_excess{pool}_attacker" for pool in POOLS}
"""Ending of a pool's columns -> the column of the attacker whose error is least on it."""
WORST_ATTACKER, WORST_POOL = f"{EXCESS}_attacker", f"{EXCESS}_pool"
CERTIFIED, POSSIBLE = "certified_excess_worst", "possible_excess"
LIMIT, ERROR = "estimated_limit", "reconstruction_error"


def leakage_table(
    episodes: pd.DataFrame, verdicts: pd.DataFrame, curves: Sequence[Mapping[str, Any]] = ()
) -> pd.DataFrame:
    """One row per setting: EXCESS and EXTRAPOLATED with ``_low`` and ``_high``, CERTIFIED, POSSIBLE, LIMIT;
    null if unknown. ATTACKER is the worst attacker on each pool; WORST_ATTACKER and WORST_POOL (``train``,
    ``test``) are those that EXCESS is of.

    ``excess`` and its ends are the verdict's, of one pool: :func:`judged_pool`.
    POSSIBLE is 1 - estimated limit / label-only's error, at least 0, means over the seeds; LIMIT is the mean
    estimated limit on private training images, an error. EXTRAPOLATED is
    the same of a learning curve's limit, its ends those of the curve's gain. Label-only's error is the
    measured one, so that label-only itself has an extrapolated excess: more images show better means.

    Args:
        episodes: records of one scene with the column ``trial``. verdicts: their ``verdict_table``.
        curves: rows of ``study.records.curves``.
    """
    verdicts = verdicts.set_index("trial")
    table = pd.DataFrame(index=verdicts.index)
    of_test = _is_test(judged_pool(verdicts))
    for end in ("", "_low", "_high"):
        train, test = (verdicts[f"suite_excess{pool}{end}"] for pool in POOLS)
        table[EXCESS + end] = test.where(of_test, train)
    table[CERTIFIED] = verdicts[CERTIFIED]
    ok = episodes[episodes["status"] == "ok"]
    names = [name + pool for name in (LIMIT, ERROR) for pool in POOLS]
    rows = ok.reindex(columns=["trial", "defense", "attack", *names])
    rows[names] = rows[names].astype("Float64")
    floor = rows[rows["defense"] == LABEL_ONLY].groupby("attack")[names].mean().min()
    limit = rows.groupby("trial")[names].mean()
    possible = pd.DataFrame({pool: 1 - limit[LIMIT + pool] / floor[ERROR + pool] for pool in POOLS})
    table[POSSIBLE] = possible.max(axis=1).clip(lower=0)
    for end in ("", "_low", "_high"):
        shares = [
            (
                row["trial"],
                1 - (1 - row[f"gain{end}"]) * row["errors"][-1] / floor[ERROR + FACES[row["face"]]],
            )
            for row in curves
            if not pd.isna(floor[ERROR + FACES[row["face"]]])
        ]
        largest = pd.DataFrame(shares, columns=["trial", "share"]).groupby("trial")["share"].max()
        table[EXTRAPOLATED + end] = largest.clip(lower=0).reindex(table.index).astype("Float64")
    table[LIMIT] = limit[LIMIT].reindex(table.index)
    return _with_attackers(table, episodes, verdicts).reset_index()


def judged_pool(verdicts: pd.DataFrame) -> pd.Series:
    """``train`` or ``test``: the pool whose upper limit is larger, as both have to keep to the margin.

    Where a limit is missing (one seed, not all attackers), that of the larger excess; where one pool was not
    measured, the other; null where none was.

    Args:
        verdicts: a ``verdict_table``.
    """
    (train, train_high), (test, test_high) = (
        (verdicts[f"suite_excess{pool}"], verdicts[f"suite_excess{pool}_high"]) for pool in POOLS
    )
    limited = train_high.notna() & test_high.notna()
    larger = (test_high > train_high).where(limited, test > train).fillna(False).astype(bool)
    of_test = (train.isna() & test.notna()) | larger
    pool = of_test.map({False: "train", True: "test"}).astype("string")
    return pool.where(train.notna() | test.notna())


def _is_test(pool: pd.Series) -> pd.Series:
    return (pool == "test").fillna(False).astype(bool)


def _with_attackers(table: pd.DataFrame, episodes: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns ATTACKER, WORST_ATTACKER and WORST_POOL; of equals, the first by name."""
    errors = [ERROR + pool for pool in POOLS]
    rows = episodes.reindex(columns=["trial", "defense", "attack", "seed", "status", *errors])
    attacks = Attacks(rows)
    floor = set(attacks.of(np.flatnonzero(rows["defense"] == LABEL_ONLY).tolist()).seeds)
    names, seeds = rows["attack"].tolist(), rows["seed"].tolist()
    values = rows[errors].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    found: dict[str, dict[str, str]] = {}
    for trial, attacked in attacks.by_trial().items():
        common = floor & set(attacked.seeds) or set(attacked.seeds)
        found[trial] = {}
        for pool, of_pool in zip(POOLS, values.T, strict=True):
            measured = defaultdict[str, list[float]](list)
            for i in attacked.ok:
                if seeds[i] in common and names[i] in attacked.succeeded and not math.isnan(of_pool[i]):
                    measured[names[i]].append(of_pool[i])
            if measured:
                mean = {name: math.fsum(v) / len(v) for name, v in sorted(measured.items())}
                found[trial][ATTACKER[pool]] = min(mean, key=lambda name: mean[name])
    named = pd.DataFrame.from_dict(found, orient="index", columns=list(ATTACKER.values()), dtype="string")
    table = table.join(named)
    table[WORST_POOL] = judged_pool(verdicts)
    of_test = _is_test(table[WORST_POOL])
    table[WORST_ATTACKER] = table[ATTACKER["_test"]].where(of_test, table[ATTACKER[""]])
    table[WORST_ATTACKER] = table[WORST_ATTACKER].where(table[EXCESS].notna())
    return table
