"""What is known of each setting's leakage: measured, certified, possible, extrapolated.

All are shares of label-only's error, the larger of private train and private test images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from study.analysis.frontier import LABEL_ONLY
from study.analysis.verdicts import POOLS
from study.records.curves import FACES

EXCESS = "excess"
EXTRAPOLATED = "extrapolated_excess"
CERTIFIED, POSSIBLE = "certified_excess_worst", "possible_excess"
LIMIT, ERROR = "estimated_limit", "reconstruction_error"


def leakage_table(
    episodes: pd.DataFrame, verdicts: pd.DataFrame, curves: Sequence[Mapping[str, Any]] = ()
) -> pd.DataFrame:
    """One row per setting: EXCESS and EXTRAPOLATED with ``_low`` and ``_high``, CERTIFIED, POSSIBLE, LIMIT;
    null if unknown.

    ``excess`` is the verdict's, of train or test, whichever is larger; its ends are the larger ends of both.
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
    for end in ("", "_low", "_high"):
        table[EXCESS + end] = verdicts[[f"suite_excess{pool}{end}" for pool in POOLS]].max(axis=1)
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
    return table.reset_index()
