"""The quality of a search so far, from the trials' outcomes; fast for any number of trials.

The report computes the same from all records. Doing so after every trial would take about 20 ms per finished
trial each time, quadratic time in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from study.analysis.frontier import DROP_TOLERANCE, OBJECTIVES, hypervolume, reference_point
from study.records.schema import to_frame, to_table
from study.search.sampler import CONSTRAINT
from study.trial.run import Record

ACCURACY = "worst_attack_accuracy"


def quality(
    outcomes: Iterable[Mapping[str, float | None]], anchors: list[Record], max_accuracy_drop: float
) -> tuple[float | None, float | None]:
    """The lowest worst-case attack accuracy of the feasible settings, and the hypervolume (shares).

    Args:
        outcomes: those of all finished trials, including anchors (see ``study.trial.run.outcome_of``).
        anchors: the anchors' records, which define the reference point of the hypervolume.
        max_accuracy_drop: settings with a larger accuracy drop are not feasible.

    Returns:
        Both numbers; None for one that is not known yet.
    """
    columns = [*(o.column for o in OBJECTIVES), CONSTRAINT, "cut"]
    table = pd.DataFrame([[o.get(c) for c in columns] for o in outcomes], columns=columns, dtype="Float64")
    table["feasible"] = (
        (table[CONSTRAINT] <= max_accuracy_drop + DROP_TOLERANCE).fillna(False).astype("boolean")
    )
    table["cut"] = (table["cut"] > 0).fillna(False).astype("boolean")
    best = table.loc[table["feasible"].astype(bool), ACCURACY].min()
    corner = reference_point(to_frame(to_table(anchors))) if anchors else None
    return None if pd.isna(best) else float(best), hypervolume(table, corner) if corner else None
