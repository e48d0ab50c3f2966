"""The quality of a search so far, from the trials' outcomes; fast for any number of trials.

The report computes the same from all records. Doing so after every trial would take about 20 ms per finished
trial each time, quadratic time in all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mipoison.defenses import ANCHORS
from study.analysis.frontier import OBJECTIVES, Reference, hypervolume, reference_point
from study.records.constraints import Constraints
from study.records.schema import to_frame, to_table
from study.runtime.plain import NOTHING
from study.trial.run import Record

if TYPE_CHECKING:
    import pandas as pd

ACCURACY, DISTORTION = "worst_attack_accuracy", "confidence_distortion"
EXCESS, IDENTIFICATION = "suite_excess_worst", "worst_identification_auc"


class Least(NamedTuple):
    """The least value among the settings, and the distortion that it costs."""

    value: float
    distortion: float

    def __str__(self) -> str:
        return f"{self.value:.3f} (distortion {self.distortion:.2g})"


class Quality(NamedTuple):
    """How good the feasible settings are; None: not known yet.

    Attributes:
        accuracy: the lowest worst-case attack accuracy, anchors included (share).
        hypervolume: share of the box between the reference corners.
        excess: the least worst-case excess leakage of the settings that were searched (share).
        identification: their least identification AUC, 0.5 is chance.
        screened: whether settings count that only a part of the suite has attacked, so that these numbers are
            bounds in their favour.
    """

    accuracy: float | None = None
    hypervolume: float | None = None
    excess: Least | None = None
    identification: Least | None = None
    screened: bool = False

    def text(self, *, shared_classes: bool) -> str:
        """For the progress line. Where both sides share the classes, attack accuracy says nothing."""
        told = [f"least excess leakage {self.excess or NOTHING}"]
        if shared_classes:
            told.append(f"identification AUC {self.identification or NOTHING}")
        else:
            told.append(f"attack accuracy {_number(self.accuracy)}")
        bound = " (bounds: not all attackers have run)" if self.screened else ""
        return f"{', '.join(told)} | hypervolume {_number(self.hypervolume)}{bound}"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def quality(
    outcomes: Mapping[str, Mapping[str, float | None]], corner: Reference | None, constraints: Constraints
) -> Quality:
    """The quality of the settings so far.

    Args:
        outcomes: trial -> outcome, of all finished trials and anchors (see ``study.trial.run.outcome_of``).
        corner: the reference point of the hypervolume; None: it is not known.
        constraints: settings that do not satisfy them are not feasible.
    """
    import pandas as pd

    columns = [
        *dict.fromkeys(
            [*(o.column for o in OBJECTIVES), *constraints.bounds, "cut", "screened", EXCESS, IDENTIFICATION]
        )
    ]
    table = pd.DataFrame(
        [[o.get(c) for c in columns] for o in outcomes.values()], columns=columns, dtype="Float64"
    )
    table["feasible"] = pd.array(constraints.satisfied(table), dtype="boolean")
    screened = (table["screened"] > 0).fillna(False)
    table["cut"] = ((table["cut"] > 0).fillna(False) & ~screened).astype("boolean")
    feasible = table["feasible"].to_numpy(dtype=bool)
    # Label-only has the least leakage by definition, and of a cut setting not all attackers have run.
    is_anchor = np.array([trial in ANCHORS for trial in outcomes], dtype=bool)
    searched = table[feasible & ~is_anchor & ~table["cut"].to_numpy(dtype=bool)]
    best = table.loc[feasible, ACCURACY].min()
    return Quality(
        accuracy=None if pd.isna(best) else float(best),
        hypervolume=hypervolume(table, corner) if corner else None,
        excess=_least(searched, EXCESS),
        identification=_least(searched, IDENTIFICATION),
        screened=bool(screened.any()),
    )


def corner_of(anchors: list[Record]) -> Reference | None:
    """The reference point that the anchors' records define; None while it is not known."""
    return reference_point(to_frame(to_table(anchors))) if anchors else None


def _least(table: pd.DataFrame, column: str) -> Least | None:
    """Of equally good settings, the one of least distortion."""
    known = table[[column, DISTORTION]].dropna()
    if known.empty:
        return None
    value, distortion = known.sort_values([column, DISTORTION], kind="stable").iloc[0]
    return Least(float(value), float(distortion))
