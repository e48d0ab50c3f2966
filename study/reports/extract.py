"""A study's well-known settings as a Markdown table, for a page that shows few of them (README, FINDINGS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mipoison.defenses import ANCHORS, DEFENSES
from study.records.flat import knobs_of, same_value
from study.reports.cells import setting_name
from study.reports.findings import Findings
from study.reports.rounding import rounded_up
from study.reports.summary import choose
from study.runtime.plain import markdown_text

MANY = 3
"""With more knobs a starting point's name is shortened."""
HEAD = ("setting", "distortion", "order", "leaks, train", "leaks, test", "at most", "AUC", "verdict")
"""``order``: rank correlation with the clean scores. ``leaks``: measured excess leakage in percent, with its
one-sided 95 % limits. ``at most``: certified excess leakage in percent, the larger of both. ``AUC``:
of identification, the larger of both."""


def extract(found: Findings, defenses: Sequence[str]) -> str:
    """The anchors, these defenses' starting points, the recommended setting and the next, by distortion.

    A plus after a leak: not all attackers ran (screened, or cut short), so that more may be read. A setting
    that is outside the study's constraints (or was not measured) says so beside its name.
    """
    shown, marks = shown_rows(found, defenses)
    lines = [HEAD, ("---",) * len(HEAD), *(_cells(row, marks.get(str(row["trial"]))) for row in shown)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def shown_rows(found: Findings, defenses: Sequence[str]) -> tuple[list[pd.Series], dict[str, str]]:
    """Rows of the settings that :func:`extract` shows, by distortion, and ``deploy`` or ``next`` by trial."""
    table = found.judged.merge(found.utility[["trial", "rank_correlation"]], on="trial", how="left")
    choice = choose(table)
    marks = {
        str(row["trial"]): mark
        for row, mark in ((choice.deploy, "deploy"), (choice.runner_up, "next"))
        if row is not None
    }
    shown = [
        row
        for _, row in table.sort_values(["confidence_distortion", "trial"], kind="stable").iterrows()
        if row["defense"] in ANCHORS
        or (row["defense"] in defenses and _is_start(row))
        or row["trial"] in marks
    ]
    return shown, marks


def _is_start(row: Mapping[str, Any]) -> bool:
    """Whether the knobs have the values of a starting point; those that the record lacks do not count."""
    config, known = DEFENSES[str(row["defense"])], knobs_of(row)
    starts = [config.from_flat(dict(start)) for start in config.STARTS]
    return any(all(same_value(known[name], getattr(start, name)) for name in known) for start in starts)


def _short(row: Mapping[str, Any]) -> str:
    """Defense and knobs; of a starting point with many knobs those that tell its defense's starts apart."""
    name = setting_name(row)
    if row["defense"] in ANCHORS or not _is_start(row):
        return name
    defense, *knobs = name.split(" ")
    told = {knob for start in DEFENSES[defense].STARTS for knob in start}
    kept = [knob for knob in knobs if knob.partition("=")[0] in told]
    return " ".join([defense, *(kept if len(knobs) > MANY else knobs)])


def _cells(row: pd.Series, mark: str | None) -> tuple[str, ...]:
    name = markdown_text(_short(row))
    if mark is not None:
        name += f" ({mark})"
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
    limits = "" if pd.isna(low) or pd.isna(high) else f" [{_percent(low)}, {_percent(rounded_up(high))}]"
    return f"{_percent(value)}{more}{limits}"


def _percent(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:.1f}"  # adding zero: no minus before zero


def _number(value: Any, form: str) -> str:
    return "" if value is None or pd.isna(value) else format(float(value), form)
