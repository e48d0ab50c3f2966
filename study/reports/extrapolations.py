"""Learning curves as reports show them: cut off where a certificate says that no attacker comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from study.analysis.verdicts import EXACT
from study.records.curves import FACES

CERTIFIED_ERROR = "certified_error"
CUT = "cut_by_certificate"


def certified_errors(episodes: pd.DataFrame) -> dict[tuple[str, str], float]:
    """(Trial, face) -> the error (MSE) that no attacker comes below, mean over seeds; of exact certificates.

    Absent where a seed has no certificate, or one that is not exact and speaks of one answer at a time.
    """
    ok = episodes[episodes["status"] == "ok"]
    known: dict[tuple[str, str], float] = {}
    for (face, ending), exact in zip(FACES.items(), EXACT, strict=True):
        rows = ok.reindex(columns=["trial", "seed", CERTIFIED_ERROR + ending, exact])
        rows = (
            rows.drop_duplicates(["trial", "seed"]).set_index("trial").drop(columns="seed").astype("Float64")
        )
        whole = rows.notna().all(axis=1).groupby(level=0).all()
        means = rows[CERTIFIED_ERROR + ending].groupby(level=0).mean()
        known |= {(str(trial), face): float(means[trial]) for trial in whole.index[whole]}
    return known


def bounded_curves(curves: Sequence[Mapping[str, Any]], episodes: pd.DataFrame) -> list[dict[str, Any]]:
    """The curves with no limit below the certified error, and no gain that would need one.

    Args:
        curves: rows of ``study.records.curves``.

    Returns:
        The rows; CUT says whether a certificate lies above the interval's lower end.
    """
    bounds = certified_errors(episodes) if curves else {}
    out = []
    for row in curves:
        least = bounds.get((row["trial"], row["face"]), 0.0)
        cut: dict[str, Any] = {CUT: row["limit_low"] < least}
        most = 1 - least / row["errors"][-1] if row["errors"][-1] > 0 else row["gain_high"]
        for end in ("", "_low", "_high"):
            cut[f"limit{end}"] = max(row[f"limit{end}"], least)
            cut[f"gain{end}"] = min(row[f"gain{end}"], most)
        out.append({**row, **cut})
    return out
