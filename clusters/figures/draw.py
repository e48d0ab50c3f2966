"""Draws the figures of SCALING.md from the measurements beside it: python clusters/figures/draw.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / name).read_text().splitlines()]


def scheduling(measured: list[dict[str, Any]]) -> None:
    figure, axes = plt.subplots(figsize=(9.5, 4.6), layout="constrained")
    for nodes in sorted({r["nodes"] for r in measured}):
        name = f"{nodes} node" + "s" * (nodes > 1)
        mine = sorted((r for r in measured if r["nodes"] == nodes), key=lambda r: r["length_s"])
        x = [r["length_s"] for r in mine]
        (line,) = axes.plot(x, [r["steady"] for r in mine], "o-", label=f"{name}, steady")
        whole = [r["efficiency"] for r in mine]
        axes.plot(x, whole, "s--", color=line.get_color(), label=f"{name}, start and end included")
    axes.axhline(0.9, color="grey", lw=1, ls=":")
    axes.set(
        ylim=(0, 1.03),
        xlabel="length of a trial (s)",
        ylabel="share of node time spent in trials",
    )
    axes.set_title(
        "Scheduling on simulated nodes: sleeping trials, Tune and our searcher, one lane a node", fontsize=9
    )
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=4)
    axes.set_xlim(0)
    axes.grid(alpha=0.3)
    figure.savefig(HERE / "scheduling.png", dpi=130)


def growth(measured: list[dict[str, Any]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
    measured.sort(key=lambda r: r["trials"])
    x = [r["trials"] for r in measured]
    left.plot(
        x, [1e3 * r["ask_s"] for r in measured], "o-", label="before it runs: suggestion, trials/*.json"
    )
    left.plot(x, [1e3 * r["done_s"] for r in measured], "s-", label="after it: records read back, frontier")
    left.set(xscale="log", xlabel="finished trials", ylabel="driver, CPU ms per further trial")
    left.set_ylim(0)
    left.legend(fontsize=8)
    right.plot(x, [r["small_s"] for r in measured], "o-", label="one Parquet file a trial")
    right.plot(x, [r["compact_s"] for r in measured], "s-", label="one compacted file")
    right.set(
        xscale="log", yscale="log", xlabel="finished trials (21 episodes each)", ylabel="reading all, CPU s"
    )
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle("Cost of a study as it grows (records of digits-search, cloned; local disk)", fontsize=10)
    figure.savefig(HERE / "growth.png", dpi=130)


if __name__ == "__main__":
    scheduling(rows("scheduling.jsonl"))
    growth(rows("growth.jsonl"))
