"""A coloured table of settings and attackers: mean error and excess over label-only, worst cells marked."""

from __future__ import annotations

import functools

import matplotlib
import numpy as np
import pandas as pd

from mipoison.defenses import ANCHORS, LABEL_ONLY
from study.records.status import PRUNED
from study.reports.cells import setting_name
from study.reports.html.markup import escape, note, scroller

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


def heatmap(episodes: pd.DataFrame, configurations: pd.DataFrame) -> str:
    """The table, with a switch between the two measures that works without a script."""
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
    head = "".join(f'<th scope="col"><span>{escape(a)}</span></th>' for a in attackers)
    body = []
    for _, s in order.iterrows():
        trial = str(s["trial"])
        row = [errors.get((trial, a), np.nan) for a in attackers]
        worst = int(np.nanargmin(row)) if np.isfinite(np.asarray(row, dtype=float)).any() else -1
        tds = [
            _cell(cells.get((trial, a)), e, excess.get((trial, a), np.nan), bounds, i == worst)
            for i, (a, e) in enumerate(zip(attackers, row, strict=True))
        ]
        name = f"{escape(setting_name(s))}<small>{escape(trial)}</small>"
        body.append(f'<tr><th scope="row">{name}</th>{"".join(tds)}</tr>')
    caption = f"{len(order)} settings x {len(attackers)} attackers"
    inner = (
        f"<table><caption>{escape(caption)}</caption><thead><tr><th "
        f"scope='col'>setting</th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )
    return (
        '<div class="heat"><fieldset class="switch"><legend>show</legend>'
        '<label><input type="radio" name="heat" value="error" checked>error (MSE x 1000)</label>'
        '<label><input type="radio" name="heat" value="excess" class="excess">excess leakage (%)</label>'
        f"</fieldset>{_legend()}{scroller('Attackers by setting', inner)}</div>{note(NOTE)}"
    )


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
) -> str:
    if cell is None:
        return "<td></td>"
    statuses, errors = cell
    failed, cut = statuses.count("failed"), statuses.count(PRUNED)
    if pd.isna(error):
        reason = PRUNED if cut else "failed"
        why = escape("; ".join(sorted(errors)) or reason)
        return f'<td class="gone" title="{why}">{reason}</td>'
    light = colour(_place(error, *bounds[0]))
    excess_text = "-" if pd.isna(excess) else f"{100 * excess:+.1f}"
    dark = colour(1 - _place(excess, *bounds[1])) if not pd.isna(excess) else ("transparent", "inherit")
    mark = "▲" if worst else ""
    partly = "†" if failed or cut else ""
    title = f' title="{failed + cut} of {len(statuses)} seeds failed or cut"' if partly else ""
    style = f"--e:{light[0]};--ei:{light[1]};--x:{dark[0]};--xi:{dark[1]}"
    classes = ' class="worst"' if worst else ""
    return (
        f'<td{classes} style="{style}"{title}><span class="e">{1000 * error:.1f}</span>'
        f'<span class="x">{excess_text}</span>{partly}<b>{mark}</b></td>'
    )


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


def _legend() -> str:
    stops = ",".join(colour(p)[0] for p in np.linspace(0, 1, 9))
    return (
        '<p class="scale"><span>leaks more</span>'
        f'<i style="background:linear-gradient(90deg,{stops})"></i><span>leaks less</span></p>'
    )
