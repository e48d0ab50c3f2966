"""The figure of ``audit_endpoints``: each audit's interval beside what the full study of the endpoint found.

``python -m study.bench.endpoint_figure study/results/audit/endpoints.csv study/results/audit/endpoints.png``
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from study.bench.simulated_endpoint import POOLS
from study.reports.figures import COLOURS, DPI

TITLES = {"train": "images that the classifier was trained on", "test": "private images that it was not"}


def figure(table: pd.DataFrame) -> Figure:
    """A row an endpoint, ordered by the study's excess on training images; a panel for each pool.

    Args:
        table: as ``audit_endpoints`` writes it.
    """
    rows = table.sort_values(["full_train", "number"], kind="stable")
    place = range(len(rows))
    made = Figure(figsize=(10, 1.4 + 0.26 * len(rows)), layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(1, len(POOLS), sharey=True)
    for ax, pool in zip(axes, POOLS, strict=True):
        low, high = rows[f"low_{pool}"], rows[f"high_{pool}"]
        ax.hlines(place, low, high, color=COLOURS[0], linewidth=5, alpha=0.45, label="the audit's interval")
        ax.plot(rows[f"audit_{pool}"], place, "|", color=COLOURS[0], markersize=9, label="its estimate")
        ax.plot(rows[f"full_{pool}"], place, "o", color="black", markersize=4, label="full study")
        missed = ~rows[f"covers_{pool}"].astype(bool)
        if missed.any():
            at = [y for y, out in zip(place, missed, strict=True) if out]
            ax.plot(rows.loc[missed, f"full_{pool}"], at, "x", color=COLOURS[1], label="not covered")
        ax.set_xlabel(f"excess leakage (share of label-only's error)\n{TITLES[pool]}")
        ax.grid(axis="x", alpha=0.3)
    names = [
        f"{number} {defense}" + ("" if hit else f" (named {named})")
        for number, defense, named, hit in zip(
            rows["number"], rows["defense"], rows["named"], rows["hit"].astype(bool), strict=True
        )
    ]
    axes[0].set_yticks(list(place), names, fontsize=8)
    axes[-1].legend(loc="lower right", fontsize=8)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; exit code 2 for bad usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) != 2 or not words[0].endswith(".csv") or not words[1].endswith(".png"):
        print("usage: python -m study.bench.endpoint_figure TABLE.csv OUT.png", file=sys.stderr)
        return 2
    figure(pd.read_csv(Path(words[0]), keep_default_na=False)).savefig(words[1], dpi=DPI)
    return 0


if __name__ == "__main__":
    sys.exit(main())
