"""A study's well-known settings as a Markdown table, for a page that shows few of them (README, FINDINGS)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mipoison.defenses import ANCHORS, DEFENSES
from study.records.flat import knobs_of
from study.reports.cells import setting_name
from study.reports.findings import Findings
from study.reports.summary import choose, judged, rounded_up
from study.runtime.plain import markdown_text

TOLERANCE = 1e-9
"""Relative difference of two values of a knob that are the same."""
HEAD = ("setting", "distortion", "order", "leaks, train", "leaks, test", "at most", "AUC", "verdict")
"""``order``: rank correlation with the clean scores. ``leaks``: measured excess leakage in percent, with its
one-sided 95 % limits. ``at most``: certified excess leakage in percent, the larger of both. ``AUC``:
of identification, the larger of both."""


def extract(found: Findings, defenses: Sequence[str]) -> str:
    """The anchors, the starting points of these defenses and the recommended setting, by distortion.

    A plus after a leak: not all attackers ran (screened, or cut short), so that more may be read. A setting
    that is outside the study's constraints (or was not measured) says so beside its name.
    """
    table = judged(found).merge(found.utility[["trial", "rank_correlation"]], on="trial", how="left")
    deploy = choose(table).deploy
    shown = [
        row
        for _, row in table.sort_values(["confidence_distortion", "trial"], kind="stable").iterrows()
        if row["defense"] in ANCHORS
        or (row["defense"] in defenses and _is_start(row))
        or (deploy is not None and row["trial"] == deploy["trial"])
    ]
    lines = [HEAD, ("---",) * len(HEAD), *(_cells(row, deploy) for row in shown)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _is_start(row: Mapping[str, Any]) -> bool:
    """Whether the knobs have the values of a starting point; those that the record lacks do not count."""
    config, known = DEFENSES[str(row["defense"])], knobs_of(row)
    starts = [config.from_flat(dict(start)) for start in config.STARTS]
    return any(all(_equal(known[name], getattr(start, name)) for name in known) for start in starts)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=TOLERANCE)
    return bool(a == b)


def _cells(row: pd.Series, deploy: Mapping[str, Any] | None) -> tuple[str, ...]:
    name = markdown_text(setting_name(row))
    if deploy is not None and row["trial"] == deploy["trial"]:
        name = f"**{name}** (recommended)"
    if pd.isna(row["feasible"]) or not bool(row["feasible"]):
        name += " (outside the constraints)"
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
