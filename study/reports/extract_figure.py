"""The picture of a study's extract: how much a few well-known settings leak, at what distortion.

``python -m study.reports.extract_figure STUDY OUT.png`` draws README's from the committed records.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from mipoison.defenses import ANCHORS, LABEL_ONLY, UNDEFENDED
from study.records.finished import load
from study.reports.extract import shown_rows
from study.reports.figures import DPI, style_of
from study.reports.findings import Findings
from study.reports.leakage_panel import TICKS
from study.runtime.plain import visible_line

KNOWN = ("rounding", "noise", "tail-noise", "lpa")
"""Defenses that README speaks of, besides what the study recommends."""
WORST, CERTIFIED = "suite_excess_worst", "certified_excess_worst"
LINEAR = 0.01
"""Below this share the axis of leakage is linear, above it logarithmic."""


def extract_figure(found: Findings, defenses: Sequence[str]) -> Figure:
    """Excess leakage (share, the larger of train and test) of the extract's settings over their distortion.

    Args:
        found: its ``info``, one line of data, scale, seeds and device, is the title.
        defenses: whose starting points are shown, besides the anchors and what is recommended.
    """
    rows, marks = shown_rows(found, defenses)
    table = pd.DataFrame(rows).dropna(subset=[WORST])
    kinds = sorted(set(table["defense"]), key=lambda name: (name in ANCHORS, name))
    figure = Figure(figsize=(8, 4.6), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    handles = []
    for defense in kinds:
        colour, marker = style_of(defense, kinds)
        own = table[table["defense"] == defense]
        columns = ["confidence_distortion", WORST, CERTIFIED, "trial", "cut"]
        for x, y, bound, trial, cut in own[columns].itertuples(index=False):
            leaks = max(float(y), 0.0)
            if not pd.isna(bound):
                axes.vlines(x, leaks, max(leaks, bound), color=colour, lw=5, alpha=0.25, zorder=2)
            face = "white" if not pd.isna(cut) and bool(cut) else colour
            size = 130 if marker == "*" else 55
            axes.scatter(x, leaks, marker=marker, s=size, facecolors=face, edgecolors=colour, zorder=4)
            if str(trial) in marks:
                axes.annotate(marks[str(trial)], (x, leaks), (-8, 7), textcoords="offset points", ha="right")
        name = {UNDEFENDED: "undefended", LABEL_ONLY: "label-only"}.get(defense, defense)
        look: dict[str, Any] = {"ls": "", "marker": marker, "ms": 11 if marker == "*" else 7}
        handles.append(Line2D([], [], **look, color=colour, label=name))
    handles += [
        Line2D([], [], ls="", marker="o", mfc="white", mec="#777777", label="hollow: at least so much"),
        Line2D([], [], color="#777777", lw=5, alpha=0.4, label="certificate: no attacker comes above"),
        Line2D([], [], color="#CC0000", lw=1, ls=":", label=f"accepted: {found.margin:g}"),
    ]
    axes.axhline(found.margin, color="#CC0000", lw=1, ls=":", zorder=1)
    axes.axhline(0, color="black", lw=0.8, zorder=1)
    axes.set_yscale("symlog", linthresh=LINEAR, linscale=0.6)
    axes.yaxis.set_major_locator(FixedLocator(TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(-0.25 * LINEAR, 1)
    axes.set_ylabel("excess leakage\n(share of label-only's error)")
    axes.set_xlabel("distortion of the scores (mean l2 norm)")
    axes.grid(alpha=0.25, lw=0.6)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle("\n".join(textwrap.wrap(visible_line(found.info), 110)), fontsize=9, parse_math=False)
    return figure


def main(words: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else list(words)
    if len(words) != 2 or not words[1].endswith(".png"):
        print("usage: python -m study.reports.extract_figure STUDY OUT.png", file=sys.stderr)
        return 2
    extract_figure(Findings.of(load(words[0])), KNOWN).savefig(words[1])
    print(words[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
