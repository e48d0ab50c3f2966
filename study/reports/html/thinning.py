"""Which settings the page shows, where a study has more than a browser can draw well."""

from __future__ import annotations

import moocore
import numpy as np
import pandas as pd

from mipoison.defenses import ANCHORS
from study.analysis.frontier import pareto_front
from study.analysis.indicators import DISTORTION, ERROR, usable

MOST = 1000
"""Most settings that are shown: 1,000 make a page of 4 MB; 10,000 make one that browsers draw slowly."""


def thinned(configurations: pd.DataFrame, most: int = MOST) -> pd.DataFrame:
    """At most ``most`` settings, except that anchors, the frontier and each defense's own front always stay.

    The others are picked evenly, in order of defense and distortion.
    """
    if len(configurations) <= most:
        return configurations
    kept = configurations["defense"].isin(ANCHORS) | configurations["trial"].isin(
        pareto_front(configurations)["trial"]
    )
    rows = usable(configurations)
    for _, group in rows.groupby("defense"):
        points = group[[DISTORTION, ERROR]].to_numpy(dtype=float)
        kept[group.index[moocore.is_nondominated(points, maximise=[False, True], keep_weakly=True)]] = True
    others = configurations[~kept].sort_values(["defense", DISTORTION, "trial"], kind="stable").index
    room = max(0, min(most - int(kept.sum()), len(others)))
    kept[others[np.linspace(0, len(others) - 1, room).round().astype(int)]] = True
    return configurations[kept]


def explain_thinning(shown: int, of: int) -> str:
    """A sentence on what :func:`thinned` left out; empty if nothing."""
    if shown == of:
        return ""
    return (
        f"Of {of} settings {shown} are drawn and listed here: the anchors, the frontier, each defense's own "
        "front, and the others evenly over defenses and distortion. Counts, worst cases, intervals and "
        "statistics are those of all settings; what is not listed is in the records, under its trial's name."
    )
