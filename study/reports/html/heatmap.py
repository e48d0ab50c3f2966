"""A coloured table of settings and attackers: mean error and excess over label-only, worst cells marked.

Here its cells are computed; ``templates/heatmap.html.jinja`` shows them.
"""

from __future__ import annotations

import functools
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from mipoison.defenses import ANCHORS, LABEL_ONLY
from study.records.status import PRUNED
from study.reports.html.chart_data import shown_name

SCALE = "cividis"
"""Colour map for red-green colour blindness, monotone in lightness (Nunez et al. 2018)."""
ABOVE = 0.1
"""Share above the label-only floor at which the colours end."""
NOTE = (
    "One row a setting, one column an attacker, mean over seeds. Number: reconstruction error, MSE x "
    "1000; with “excess leakage” chosen: 1 - error / label-only error of the same seed, in per cent. "
    "Dark leaks more; the colours end a tenth above the label-only floor, beyond which a weak attacker "
    "says nothing. ▲ marks the worst attacker of a row (the setting's worst case by error). “cut”: not "
    "run, because label-only had already dominated the setting or it was only screened. “failed”: no "
    "measurement at all; a "
    "number with † is the mean over those seeds that did not fail. An empty cell was never asked for."
)


Plain = dict[str, Any]


def heatmap(episodes: pd.DataFrame, configurations: pd.DataFrame) -> Plain:
    """Attackers (columns), rows with their cells, the colours of the scale, and a note.

    A switch between the two measures works without a script: each cell has both numbers and colours.
    """
    order = _rows(configurations)
    attackers = _columns(episodes)
    ok = _measured(episodes)
    asked = episodes.reindex(columns=["trial", "attack", "status", "error"])
    asked = asked[asked["trial"].isin(order["trial"])]
    cells = _statuses_and_errors(asked)
    errors = ok.groupby(["trial", "attack"])["reconstruction_error"].mean()
    excess = (
        ok.groupby(["trial", "attack"])["excess_leakage"].mean()
        if "excess_leakage" in ok
        else pd.Series(dtype=float)
    )
    bounds = _bounds(errors, configurations)
    rows = []
    for _, s in order.iterrows():
        trial = str(s["trial"])
        row = [errors.get((trial, a), np.nan) for a in attackers]
        worst = int(np.nanargmin(row)) if np.isfinite(np.asarray(row, dtype=float)).any() else -1
        shown = [
            _cell(cells.get((trial, a)), e, excess.get((trial, a), np.nan), bounds, i == worst)
            for i, (a, e) in enumerate(zip(attackers, row, strict=True))
        ]
        rows.append({"name": shown_name(s), "trial": trial, "cells": shown})
    stops = ",".join(colour(p)[0] for p in np.linspace(0, 1, 9))
    return {"attackers": attackers, "rows": rows, "stops": stops, "note": NOTE}


def _measured(episodes: pd.DataFrame) -> pd.DataFrame:
    """Successful episodes, with the columns that are shown here."""
    names = ["trial", "attack", "reconstruction_error", "excess_leakage"]
    return episodes.loc[episodes["status"] == "ok", [name for name in names if name in episodes]]


def _statuses_and_errors(episodes: pd.DataFrame) -> dict[tuple[str, str], tuple[list[str], set[str]]]:
    """(trial, attacker) -> statuses of its episodes, and their error messages."""
    out: dict[tuple[str, str], tuple[list[str], set[str]]] = {}
    columns = (episodes[name].astype(object) for name in ("trial", "attack", "status", "error"))
    for trial, attack, status, error in zip(*columns, strict=True):
        statuses, errors = out.setdefault((trial, attack), ([], set()))
        statuses.append(status)
        if not pd.isna(error):
            errors.add(str(error))
    return out


def _rows(configurations: pd.DataFrame) -> pd.DataFrame:
    """Settings in the table's order: anchors first, then by defense and distortion."""
    keys = configurations.assign(_later=~configurations["defense"].isin(ANCHORS))
    keys = keys.sort_values(["_later", "defense", "confidence_distortion", "trial"], kind="stable")
    return keys.drop(columns="_later")


def _columns(episodes: pd.DataFrame) -> list[str]:
    """Attackers by mean error over the settings that all of them faced, strongest first; then the rest."""
    ok = _measured(episodes)
    table = ok.pivot_table(index="trial", columns="attack", values="reconstruction_error", aggfunc="mean")
    strength = table.dropna().mean() if len(table.dropna()) else table.mean()
    known = [str(a) for a in strength.sort_values(kind="stable").index]
    return known + sorted(set(episodes["attack"].dropna()) - set(known))


def _bounds(
    errors: pd.Series, configurations: pd.DataFrame
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ends of the colour scales of errors and of excess: the least error, a tenth above the floor."""
    low, high = (float(errors.min()), float(errors.max())) if len(errors) else (0.0, 1.0)
    floor = configurations.loc[configurations["defense"] == LABEL_ONLY, "worst_reconstruction_error"].dropna()
    if not len(floor) or floor.iloc[0] <= 0:
        return (low, high), (0.0, 1.0)
    return (low, (1 + ABOVE) * float(floor.iloc[0])), (-ABOVE, max(1 - low / float(floor.iloc[0]), 0.0))


def _cell(
    cell: tuple[list[str], set[str]] | None,
    error: float,
    excess: float,
    bounds: tuple[tuple[float, float], tuple[float, float]],
    worst: bool,
) -> Plain | None:
    """One cell: ``gone`` and ``why`` without a measurement; else numbers, style, and marks."""
    if cell is None:
        return None
    statuses, errors = cell
    failed, cut = statuses.count("failed"), statuses.count(PRUNED)
    if pd.isna(error):
        reason = PRUNED if cut else "failed"
        return {"gone": reason, "why": "; ".join(sorted(errors)) or reason}
    light = colour(_place(error, *bounds[0]))
    dark = colour(1 - _place(excess, *bounds[1])) if not pd.isna(excess) else ("transparent", "inherit")
    return {
        "gone": None,
        "error": f"{1000 * error:.1f}",
        "excess": "-" if pd.isna(excess) else f"{100 * excess:+z.1f}",
        "style": f"--e:{light[0]};--ei:{light[1]};--x:{dark[0]};--xi:{dark[1]}",
        "worst": worst,
        "partly": f"{failed + cut} of {len(statuses)} seeds failed or cut" if failed or cut else None,
    }


def _place(value: float, low: float, high: float) -> float:
    return 0.5 if high <= low else (value - low) / (high - low)


@functools.cache
def _scale() -> matplotlib.colors.Colormap:
    return matplotlib.colormaps[SCALE]  # cached: matplotlib copies the colour map at each access


def colour(place: float) -> tuple[str, str]:
    """Background colour at a place in [0, 1] (0 dark), and black or white, whichever has more contrast."""
    red, green, blue, _ = _scale()(float(np.clip(place, 0, 1)))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    ink = "#000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#fff"  # the higher contrast (WCAG 2)
    return matplotlib.colors.to_hex((red, green, blue)), ink
