"""What each setting costs in utility: every face of it, as means over seeds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from mipoison.metrics.statistics import mean_intervals
from study.analysis.worst_case import SEED, TRIAL, Worst, find_worst, prepare
from study.records.constraints import FACES

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = tuple(dict.fromkeys(column for face in FACES.values() for column in face.columns))
"""Columns of the records that the faces are computed from."""


def face_values(rows: pd.DataFrame, faces: Iterable[str]) -> pd.DataFrame:
    """Each row's faces of utility, NaN where unknown; ``rows`` has their columns as floats."""
    import pandas as pd

    found = {}
    for name in faces:
        face = FACES[name]
        found[name] = rows[face.column] if face.less is None else rows[face.column] - rows[face.less]
    return pd.DataFrame(found, index=rows.index)


def bounded_means(rows: pd.DataFrame, n_trials: int, values: pd.DataFrame) -> pd.DataFrame:
    """Per trial (by index), means over all seeds with a successful episode; NaN if one of them has no value.

    Constraints are held to these: an attacker that failed on a seed does not take the seed's cost away.

    Args:
        rows, values: see :func:`seed_means`.
    """
    ok = (~rows["_failed"] & ~rows["_pruned"] & (rows[SEED] >= 0)).to_numpy()
    per_seed = values[ok].groupby([rows.loc[ok, TRIAL], rows.loc[ok, SEED]]).mean()
    means = per_seed.groupby(level=0).agg(lambda seeds: seeds.mean(skipna=False))
    return means.reindex(range(n_trials))


def seed_means(rows: pd.DataFrame, worst: Worst, values: pd.DataFrame) -> pd.DataFrame:
    """Per trial (by index), means over seeds of values that all attackers of a seed share; NaN where unknown.

    The seeds are those of the worst case; without one, all with a successful episode.

    Args:
        rows: see :func:`study.analysis.worst_case.prepare`. worst: their worst cases.
        values: one row per row of ``rows``.
    """
    import pandas as pd

    ok = (~rows["_failed"] & ~rows["_pruned"] & (rows[SEED] >= 0)).to_numpy()
    shared = pd.MultiIndex.from_arrays([worst.trial, worst.seed])
    on_shared = pd.MultiIndex.from_arrays([rows[TRIAL], rows["seed"]]).isin(shared)
    used = ok & (on_shared | (worst.counts == 0)[rows[TRIAL].to_numpy()])
    per_seed = values[used].groupby([rows.loc[used, TRIAL], rows.loc[used, SEED]]).mean()
    out = {}
    for name in values:
        known = per_seed[name].dropna()
        counts = np.bincount(known.index.get_level_values(TRIAL), minlength=len(worst.trials))
        out[name] = mean_intervals(known.to_numpy(dtype=float), counts)[0]
    return pd.DataFrame(out)


def utility_table(episodes: pd.DataFrame) -> pd.DataFrame:
    """One row per setting, sorted by trial: its faces of utility, and what they are differences of.

    Columns: trial, the names of FACES, COLUMNS; null where the records have no such number. They are means
    over the seeds of a ``configuration_table``.
    """
    import pandas as pd

    prepared = prepare(episodes, COLUMNS)
    rows = prepared.rows
    values = pd.concat([face_values(rows, FACES), rows[list(COLUMNS)]], axis=1)
    values = values.loc[:, ~values.columns.duplicated()]
    table = seed_means(rows, find_worst(prepared), values).astype("Float64")
    table.insert(0, "trial", pd.Series(prepared.trials, dtype="string"))
    return table
