"""How many different answers each setting gave to the private images, and whether that is one a label.

A setting with one answer a label tells the label and nothing more, whatever its scores look like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mipoison.metrics.distinct import DISTINCT_COLUMNS
from study.analysis.verdicts import CERTIFIED, EXACT

if TYPE_CHECKING:
    import pandas as pd

ONE_A_LABEL = "one_answer_a_label"
NOTHING = 1e-9
"""A certified excess that is 0, but for sums in floating point."""


def distinct_table(episodes: pd.DataFrame) -> pd.DataFrame:
    """One row per setting: DISTINCT_COLUMNS, the largest over its seeds, and ONE_A_LABEL; null if unknown.

    It is one answer a label where no pool of any seed has more answers than labels. Of older records, which
    do not count them, it is known only where an exact certificate is 0 on every seed and pool.

    Args:
        episodes: records of one scene with the column ``trial``.
    """
    import pandas as pd

    names = list(DISTINCT_COLUMNS)
    ok = episodes[episodes["status"] == "ok"].reindex(columns=["trial", "seed", *names, *CERTIFIED, *EXACT])
    rows = ok.drop_duplicates(["trial", "seed"]).set_index("trial").drop(columns="seed").astype("Float64")
    counts = rows[names]
    of_trial = counts.groupby(level=0)
    table = of_trial.max().astype("Int64")
    answers, labels = (
        counts[[f"{name}{pool}" for pool in ("", "_test")]].to_numpy(dtype=float, na_value=np.nan)
        for name in ("distinct_releases", "distinct_labels")
    )
    counted = ~counts.isna().any(axis=1).groupby(level=0).any()
    few = pd.Series((answers <= labels).all(axis=1), rows.index).groupby(level=0).all()
    sure = ~rows[[*CERTIFIED, *EXACT]].isna().any(axis=1)
    nothing = sure & (rows[list(CERTIFIED)].abs() <= NOTHING).all(axis=1).fillna(False)
    certain = nothing.groupby(level=0).all()
    one = few.astype("boolean").where(counted)
    table[ONE_A_LABEL] = one.where(counted | ~certain, True)
    return table.reset_index()
