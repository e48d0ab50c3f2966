"""Which settings a page draws and lists, where there are more than the eye can tell apart."""

from __future__ import annotations

import moocore
import numpy as np
import pandas as pd

from mipoison.defenses import ANCHORS
from study.analysis.frontier import pareto_front
from study.analysis.indicators import DISTORTION, ERROR, usable

MOST = 1000
"""Settings that are drawn and listed: 1,000 make a page of 4 MB, 10,000 one that no browser likes."""


def thinned(settings: pd.DataFrame, most: int = MOST) -> pd.DataFrame:
    """At most so many settings, or all that must be there: anchors, the frontier, each family's own front.

    The others are picked evenly from those in order of family and distortion.
    """
    if len(settings) <= most:
        return settings
    kept = settings["defense"].isin(ANCHORS) | settings["trial"].isin(pareto_front(settings)["trial"])
    rows = usable(settings)
    for _, family in rows.groupby("defense"):
        points = family[[DISTORTION, ERROR]].to_numpy(dtype=float)
        kept[family.index[moocore.is_nondominated(points, maximise=[False, True], keep_weakly=True)]] = True
    others = settings[~kept].sort_values(["defense", DISTORTION, "trial"], kind="stable").index
    room = max(0, min(most - int(kept.sum()), len(others)))
    kept[others[np.linspace(0, len(others) - 1, room).round().astype(int)]] = True
    return settings[kept]


def explained(shown: int, of: int) -> str:
    """A sentence on what is left out; empty if nothing is."""
    if shown == of:
        return ""
    return (
        f"Of {of} settings {shown} are drawn and listed here: the anchors, the frontier, each family's own "
        "front, and the others evenly over families and distortion. Counts, worst cases, intervals and "
        "statistics are those of all settings; what is not listed is in the records, under its trial's name."
    )
