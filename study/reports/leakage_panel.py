"""The panel of the frontier figure that shows what is known of each setting's leakage over its distortion.

What the suite's worst attacker reaches, with its interval; what no attacker can exceed, where there is a
certificate; what seems possible by the estimated limit; what an attacker would reach with ever more images,
where there is a learning curve. All are shares of label-only's error, the larger of private train and private
test images.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from mipoison.metrics.excess import MARGIN
from study.reports.leakage import CERTIFIED, EXCESS, EXTRAPOLATED, POSSIBLE

CAP = Path([(-1, -0.7), (-1, 0), (1, 0), (1, -0.7)])
"""A ceiling, its upper edge at the value; a dash is what fresh seeds measure."""
BESIDE = 0.11
"""Inches to the right of its setting at which the extrapolated excess stands, so that no mark covers it."""
TICKS = (-0.02, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def draw_possible(axes: Axes, group: pd.DataFrame, column: str, colour: str) -> None:
    """Draw what seems possible by the estimated limit: an error (LIMIT) or an excess (POSSIBLE)."""
    known = group.dropna(subset=["confidence_distortion", column])
    x, y = (known[name].to_numpy(dtype=float) for name in ("confidence_distortion", column))
    axes.scatter(x, y, marker="x", s=26, color=colour, linewidths=1.1, alpha=0.8, zorder=3)


def draw_bounds(axes: Axes, group: pd.DataFrame, colour: str) -> None:
    """Draw certificates, joined to what was measured, what seems possible, and what is extrapolated with its
    interval, of one defense's settings."""
    certified = group.dropna(subset=["confidence_distortion", EXCESS, CERTIFIED])
    x, measured, bound = (
        certified[name].to_numpy(dtype=float) for name in ("confidence_distortion", EXCESS, CERTIFIED)
    )
    axes.vlines(x, measured, bound, color=colour, lw=1.0, alpha=0.45, zorder=2)
    axes.scatter(x, bound, marker=CAP, s=90, facecolors="none", edgecolors=colour, linewidths=1.8, zorder=3)
    draw_possible(axes, group, POSSIBLE, colour)
    curved = group.dropna(subset=["confidence_distortion", EXTRAPOLATED])
    if len(curved):
        x, low, value, high = (
            curved[name].to_numpy(dtype=float)
            for name in ("confidence_distortion", *(EXTRAPOLATED + end for end in ("_low", "", "_high")))
        )
        figure = axes.get_figure()
        assert figure is not None
        beside = axes.transData + ScaledTranslation(BESIDE, 0, figure.dpi_scale_trans)
        axes.vlines(x, low, high, color=colour, lw=1.0, ls=(0, (1, 1.5)), zorder=3, transform=beside)
        axes.scatter(x, value, marker="+", s=60, color=colour, linewidths=1.3, zorder=3, transform=beside)


def finish(axes: Axes, table: pd.DataFrame, margin: float) -> list[Line2D]:
    """Scale the axis of leakage, draw the lines of zero and of the margin; returns what the legend says."""
    axes.set_yscale("symlog", linthresh=MARGIN, linscale=0.7)
    tops = (
        table[[EXCESS, f"{EXCESS}_high", CERTIFIED, POSSIBLE, f"{EXTRAPOLATED}_high"]]
        .astype("Float64")
        .max()
        .max()
    )
    axes.set_ylim(-MARGIN, 0.1 if pd.isna(tops) else max(0.1, min(1.0, float(tops)) * 1.25))
    axes.yaxis.set_major_locator(FixedLocator(list(TICKS)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.axhline(0, color="black", ls="--", lw=1.1, zorder=1)
    axes.axhline(margin, color="#009E73", ls=(0, (1, 1)), lw=1.2, zorder=1)
    handles = [Line2D([], [], color="#009E73", ls=(0, (1, 1)), lw=1.2, label=f"margin of {margin:g}")]
    if table[CERTIFIED].notna().any():
        handles.append(
            Line2D(
                [],
                [],
                marker=CAP,
                ms=9,
                mew=1.8,
                mfc="none",
                lw=0,
                label="certificate (if any): no attacker gains more",
                color="#777777",
            )
        )
    if table[POSSIBLE].notna().any():
        handles.append(
            Line2D([], [], marker="x", ms=5, lw=0, label="seems possible (estimated limit)", color="#777777")
        )
    if table[EXTRAPOLATED].notna().any():
        label = "extrapolated (bounds nothing)"
        handles.append(Line2D([], [], marker="+", ms=8, ls=(0, (1, 2)), lw=1, label=label, color="#777777"))
    return handles
