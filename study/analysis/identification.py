"""How well each setting's strongest attacker tells the images of one label apart, on train and on test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mipoison.metrics.statistics import mean_intervals
from study.analysis.worst_case import TRIAL, find_worst, prepare
from study.records.curves import FACES

if TYPE_CHECKING:
    import pandas as pd

AUC = "identification_auc"
CHANCE = 0.5
"""Of the AUC; exact under label-only."""
POOLS = {ending: face for face, ending in FACES.items()}
"""Ending of a column -> the private images that it is measured on."""
IDENTIFIED = "identification"
COLUMNS: dict[str, str] = {
    "trial": "string",
    **{f"{IDENTIFIED}{end}": "Float64" for end in ("", "_low", "_high")},
    **{f"{IDENTIFIED}_{name}": "string" for name in ("attacker", "pool")},
}
"""Columns of an identification table and their types."""


def identification_table(episodes: pd.DataFrame) -> pd.DataFrame:
    """One row per setting whose identification AUC is known, sorted by trial; no rows in older records.

    The AUC is the largest mean over seeds, among attackers and among private train and private test images;
    the seeds are those on which the whole suite succeeded, as for every worst case. ``_low`` and ``_high``
    are the ends of that attacker's 95 % Student-t interval over seeds, within [0, 1]; null with one seed. The
    attacker is chosen by the same numbers, so that at chance the largest lies a little above it.

    Args:
        episodes: records of one scene with the column ``trial``.

    Returns:
        COLUMNS.
    """
    import pandas as pd

    empty = pd.DataFrame(columns=list(COLUMNS), dtype=object).astype(COLUMNS)
    names = {AUC + ending: pool for ending, pool in POOLS.items() if AUC + ending in episodes}
    if not names:
        return empty
    prepared = prepare(episodes, names)
    worst, rows = find_worst(prepared), prepared.rows
    shared = pd.MultiIndex.from_arrays([worst.trial, worst.seed])
    rows = rows[~rows["_failed"] & ~rows["_pruned"]]
    gone = prepared.rows.loc[prepared.rows["_pruned"], [TRIAL, "attack"]]
    out = pd.MultiIndex.from_frame(rows[[TRIAL, "attack"]]).isin(pd.MultiIndex.from_frame(gone))
    rows = rows[pd.MultiIndex.from_frame(rows[[TRIAL, "seed"]]).isin(shared) & ~out]
    keys = ["trial", "attack", "pool"]
    long = rows.rename(columns=names).melt(
        ["trial", "attack", "seed"], list(names.values()), "pool", IDENTIFIED
    )
    long = long.dropna(subset=[IDENTIFIED]).sort_values([*keys, "seed"], kind="stable")
    if long.empty:
        return empty
    groups = long.groupby(keys, sort=True)[IDENTIFIED]
    means = groups.mean()
    mean, low, high = mean_intervals(long[IDENTIFIED].to_numpy(dtype=float), groups.size().to_numpy())
    table = means.index.to_frame(index=False).assign(
        **{
            IDENTIFIED: mean,
            f"{IDENTIFIED}_low": np.clip(low, 0, 1),
            f"{IDENTIFIED}_high": np.clip(high, 0, 1),
        }
    )
    table = table.loc[table.groupby("trial", sort=True)[IDENTIFIED].idxmax()]
    table = table.rename(columns={"attack": f"{IDENTIFIED}_attacker", "pool": f"{IDENTIFIED}_pool"})
    return table.reindex(columns=list(COLUMNS)).astype(COLUMNS).reset_index(drop=True)
