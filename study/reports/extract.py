"""A study's well-known settings as a Markdown table, for a page that shows few of them (README, FINDINGS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mipoison.defenses import ANCHORS, DEFENSES
from study.analysis.knobs import KNOB
from study.reports.cells import setting_name
from study.reports.findings import Findings
from study.reports.summary import choose, judged, rounded_up
from study.runtime.plain import markdown_text

HEAD = ("setting", "distortion", "order", "leaks, train", "leaks, test", "at most", "AUC", "verdict")
"""``order``: rank correlation with the clean scores. ``leaks``: measured excess leakage in percent, with its
one-sided 95 % limits. ``at most``: certified excess leakage in percent, the larger of both. ``AUC``:
of identification, the larger of both."""


def extract(found: Findings, defenses: Sequence[str]) -> str:
    """The anchors, the starting points of these defenses and the recommended setting, by distortion.

    A plus after a leak: not all attackers ran (screened, or cut short), so that more may be read.
    """
    table = judged(found).merge(found.utility[["trial", "rank_correlation"]], on="trial", how="left")
    deploy = choose(table).deploy
    names = {_name(defense, start) for defense in defenses for start in DEFENSES[defense].STARTS}
    shown = [
        row
        for _, row in table.sort_values(["confidence_distortion", "trial"], kind="stable").iterrows()
        if row["defense"] in ANCHORS
        or setting_name(row) in names
        or (deploy is not None and row["trial"] == deploy["trial"])
    ]
    lines = [HEAD, ("---",) * len(HEAD), *(_cells(row, deploy) for row in shown)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _name(defense: str, start: Mapping[str, Any]) -> str:
    flat = DEFENSES[defense].from_flat(dict(start)).flat()
    return setting_name({"defense": defense, **{KNOB + name: value for name, value in flat.items()}})


def _cells(row: pd.Series, deploy: Mapping[str, Any] | None) -> tuple[str, ...]:
    name = markdown_text(setting_name(row))
    if deploy is not None and row["trial"] == deploy["trial"]:
        name = f"**{name}** (recommended)"
    bound = row["certified_excess_worst"]
    aucs = [row[f"identification_auc{pool}"] for pool in ("", "_test")]
    known = [float(auc) for auc in aucs if not pd.isna(auc)]
    return (
        name,
        _number(row["confidence_distortion"], ".4f"),
        _number(row["rank_correlation"], ".2f"),
        _leak(row, "suite_excess"),
        _leak(row, "suite_excess_test"),
        "" if pd.isna(bound) else f"{100 * rounded_up(bound):.1f}",
        _number(max(known, default=None), ".2f"),
        "" if pd.isna(row["verdict"]) else str(row["verdict"]),
    )


def _leak(row: pd.Series, column: str) -> str:
    value, low, high = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
    if pd.isna(value):
        return ""
    more = "+" if not pd.isna(row["cut"]) and bool(row["cut"]) else ""
    limits = "" if pd.isna(low) or pd.isna(high) else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f}{more}{limits}"


def _number(value: Any, form: str) -> str:
    return "" if value is None or pd.isna(value) else format(float(value), form)
