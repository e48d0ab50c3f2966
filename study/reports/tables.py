"""The study's tables, made from episode records and configuration tables for a terminal of 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from mipoison.defenses import ANCHORS
from mipoison.metrics.checks import checks_table
from mipoison.metrics.excess import MARGIN
from study.analysis.check_counts import check_counts
from study.analysis.comparisons import CONTROLS, NEAR, equal_distortion
from study.analysis.frontier import defense_table, pareto_front, waiting
from study.analysis.identification import IDENTIFIED
from study.reports.cells import (
    add_row,
    alignments,
    by_attacker,
    new_table,
    setting_name,
    with_alignment,
    with_interval,
)
from study.reports.findings import Findings
from study.reports.indicators_report import indicators_report
from study.reports.leakage import EXCESS
from study.reports.limits_report import limits_report
from study.reports.rounding import limits_of, upper_limit
from study.reports.utility_report import utility_report
from study.runtime.plain import NOTHING, number, visible_line

SHOWN = 16
"""Largest number of comparisons, and of kinds of failures, that a table lists; it counts all."""


EXCESS_NOTE = "1 - worst error / worst label-only error, with its 95 % Student-t interval over paired seeds. "
BOTH_NOTE = (
    "with the whole suite's best attacker, share of label-only's error, with one-sided 95 % limits. "
    "Identification: AUC of telling an image from others of its label, with its 95 % Student-t interval over "
    "seeds; 0.5 is chance. Excess leakage is of private train or test images, whichever has the larger upper "
    "limit, identification of the larger; errors are of train images. "
)
CUT_NOTE = (
    "Settings cut short do not count; a cheaper one may be among them, if another defense dominates it. "
)
LEAKING_NOTE = (
    "Settings that the first attackers have shown to leak beyond the margin faced no others: they leak at "
    "least what is shown. "
)
LARGEST_NOTE = (
    "Train and test at most: the larger upper one-sided 95 % limit of both, with the whole suite's best "
    "attacker. "
)


def frontier_report(
    configurations: pd.DataFrame,
    info: str,
    cosines: Mapping[str, float] = MappingProxyType({}),
    *,
    both: bool = False,
) -> Table:
    """The Pareto front, ordered by distortion, anchors included.

    Args:
        configurations: the ``configuration_table``; with ``both``, ``Findings.with_leakage``.
        cosines: trial -> mean cosine to its target, see ``alignments``.
        both: show identification, and excess leakage of train or test. Records without
            identification keep the columns that they were published with: excess on train.
    """
    front = pareto_front(configurations)
    feasible, pruned = (int(configurations[name].fillna(False).sum()) for name in ("feasible", "cut"))
    open_, more = int(waiting(configurations).sum()), ""
    if open_:
        more = f"; {open_} more may belong to it, as not all attackers have run: continue with --resume"
    table = new_table(
        f"Frontier: {len(front)} of {len(configurations)} settings ({feasible} feasible, {pruned} cut short) "
        f"are not dominated{more}",
        "Distortion: mean l2 of c' - c. Drop: accuracy lost. Worst case: the best attacker of the suite, "
        "mean over seeds (error: MSE in [0, 1], higher is better protected). Excess leakage: "
        f"{BOTH_NOTE if both else EXCESS_NOTE}Mean cosine: of the "
        "released vectors' gradients to the target that a defense aligns them with. "
        f"{LEAKING_NOTE if front['cut'].any() else ''}{info}.",
        "distortion", "defense|", "drop", "worst attack\naccuracy", "worst\nerror",
        "excess\nleakage", *(["identi-\nfication"] if both else []), "seeds",
    )  # fmt: skip
    for _, s in front.iterrows():
        add_row(
            table,
            number(s["confidence_distortion"], ".3g"),
            with_alignment(s, cosines),
            number(s["accuracy_drop"]),
            by_attacker(s, "worst_attack_accuracy", ".3f"),
            by_attacker(s, "worst_reconstruction_error", ".4f"),
            limits_of(s, EXCESS, between="\n") if both else with_interval(s, "excess_leakage"),
            *([with_interval(s, IDENTIFIED, ".3f")] if both else []),
            str(s["n_shared_seeds"]),
        )
    return table


def defense_report(
    configurations: pd.DataFrame, info: str, *, margin: float = MARGIN, largest: pd.Series | None = None
) -> Table:
    """Of each defense, the least distortion at which these attackers get at most a margin beyond the label.

    Args:
        margin: the one that the ``configuration_table`` was made with.
        largest: by trial, the larger upper limit of the excess on train and on test images. None: not shown.
    """
    table = new_table(
        f"Least distortion at which these attackers get at most {margin:g} beyond the label",
        "Per defense, the feasible setting of least distortion whose excess leakage on private training "
        f"images is at most {margin:g} by its bound: the upper end of the one-sided 95 % Student-t interval "
        "over paired seeds (none with one seed). A bound below zero does not count: such attackers do worse "
        f"than one who reads labels alone. {CUT_NOTE if configurations['cut'].any() else ''}"
        "It says nothing of attackers that are not in the suite, and is no "
        f"certificate. The worst attackers are those by error and by attack accuracy. "
        f"{'' if largest is None else LARGEST_NOTE}{info}.",
        "defense<", "settings", "distortion", "knobs|", "excess leakage", "at most",
        *([] if largest is None else ["train and\ntest at most"]), "worst attackers|",
    )  # fmt: skip
    for _, f in defense_table(configurations).iterrows():
        attackers = dict.fromkeys(f[[c for c in f.index if c.endswith("_attacker")]].dropna())
        add_row(
            table,
            str(f["defense"]),
            str(f["n_settings"]),
            "none shown" if pd.isna(f["trial"]) else number(f["confidence_distortion"], ".3g"),
            NOTHING if pd.isna(f["knobs"]) else str(f["knobs"]) or NOTHING,
            with_interval(f, "excess_leakage"),
            upper_limit(f["excess_leakage_bound"], sign="+"),
            *([] if largest is None else [upper_limit(largest.get(f["trial"]))]),
            ", ".join(attackers) or NOTHING,
        )
    return table


def fresh_report(bias: pd.DataFrame, info: str) -> Table:
    """The frontier on the seeds of the search, and on fresh ones (see ``selection_bias``)."""
    table = new_table(
        f"Selection bias: {len(bias)} settings on the seeds of the search and on fresh ones",
        "Worst case: the best attacker of the suite on those seeds. A frontier picks the luckiest settings; "
        f"trust the fresh columns. {info}.",
        "distortion", "defense|", "error", "error, fresh", "excess leakage", "excess, fresh",
    )  # fmt: skip
    for _, row in bias.iterrows():
        error = [number(row[f"worst_reconstruction_error{end}"]) for end in ("", "_fresh")]
        excess = [_excess_text(row, end) for end in ("", "_fresh")]
        add_row(table, f"{row['confidence_distortion']:.3g}", setting_name(row), *error, *excess)
    return table


def _excess_text(row: Mapping[str, Any], end: str) -> str:
    low, high = row[f"excess_leakage_low{end}"], row[f"excess_leakage_high{end}"]
    interval = "" if pd.isna(low) or pd.isna(high) else f"\n[{low:+.3f}, {high:+.3f}]"
    return number(row[f"excess_leakage{end}"], "+.3f") + interval


def equal_distortion_report(episodes: pd.DataFrame, configurations: pd.DataFrame, info: str) -> Table:
    """Each setting against noise, tail noise and rounding of equal distortion; of many pairs, some evenly."""
    pairs = equal_distortion(episodes, configurations)
    counts = pairs["verdict"].value_counts()
    summary = ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) or "no pair near enough"
    shown = pairs.iloc[np.linspace(0, len(pairs) - 1, min(len(pairs), SHOWN)).round().astype(int)]
    table = new_table(
        f"At equal distortion: against the nearest {', '.join(CONTROLS)} ({summary})",
        f"{len(shown)} of {len(pairs)} shown. The nearest in log distortion, within a factor {NEAR:g}. "
        "Difference: worst-case error minus the control's, times 1000, mean over paired seeds with 95 % "
        "Student-t interval; above zero the defense protects better than the control. A verdict needs three "
        "seeds and an interval (bootstrap too) without zero. p: paired t-test, adjusted by Holm for the "
        f"number of comparisons; a verdict with p above 0.05 may be one of many tries. {info}.",
        "distortion", "defense|", "distortion", "against|", "difference\nx 1000", "p", "verdict<",
    )  # fmt: skip
    by_trial = configurations.set_index("trial", drop=False)
    for _, p in shown.iterrows():
        scaled = {k: p[k] * 1000 for k in ("difference", "difference_low", "difference_high")}
        add_row(
            table,
            number(p["confidence_distortion"], ".3g"),
            setting_name(by_trial.loc[p["trial"]]),
            number(p["other_confidence_distortion"], ".3g"),
            setting_name(by_trial.loc[p["other_trial"]]),
            with_interval(scaled, "difference", "+.2f"),
            number(p["p_holm"], ".2g"),
            textwrap.fill(str(p["verdict"]), 14),
        )
    return table


def attackers_report(episodes: pd.DataFrame, configurations: pd.DataFrame, info: str, n: int = 8) -> Table:
    """Error of every attacker on the anchors and on ``n`` settings spread over the front."""
    front = pareto_front(configurations)
    rest = front[~front["defense"].isin(ANCHORS)]
    rest = (
        rest.iloc[np.linspace(0, len(rest) - 1, min(len(rest), n)).round().astype(int)] if len(rest) else rest
    )
    anchors = configurations[configurations["defense"].isin(ANCHORS)]
    columns = [*anchors["trial"], *rest["trial"]]
    ok = episodes[episodes["status"] == "ok"]
    errors = ok.pivot_table(index="attack", columns="trial", values="reconstruction_error", aggfunc="mean")
    table = new_table(
        "Attackers: mean reconstruction error x 1000 over seeds",
        f"Less is a better attack; the least of a column, marked *, is the setting's worst case. {info}.",
        "attacker<", *(str(c).replace("-", "\n", 1) for c in columns),
    )  # fmt: skip
    errors = errors.reindex(columns=columns)
    if columns:
        errors = errors.sort_values("none" if "none" in columns else columns[0])
    for attack, row in errors.iterrows():
        cells = [
            NOTHING if pd.isna(v) else f"{1000 * v:.1f}" + ("*" if v == errors[c].min() else "")
            for c, v in row.items()
        ]
        add_row(table, str(attack), *cells)
    return table


def attackers_table(measured: pd.DataFrame, stored: pd.DataFrame | None = None) -> Table:
    """Each attacker's error and accuracy on one setting, means over seeds, stored values beside them."""
    table = new_table(
        "Measured" if stored is None else "Measured, and stored",
        "Mean over seeds. Error: MSE in [0, 1] (less is a better attack). Accuracy: share.",
        "attacker|", "status<", "error", *(["stored"] if stored is not None else []),
        "accuracy", *(["stored"] if stored is not None else []),
    )  # fmt: skip
    frames = [measured] if stored is None else [measured, stored]
    means = [
        f[f["status"] == "ok"].groupby("attack")[["reconstruction_error", "attack_accuracy"]].mean()
        for f in frames
    ]
    status = measured.groupby("attack")["status"].agg(lambda s: ", ".join(sorted(set(s))))
    order = means[0]["reconstruction_error"].sort_values(kind="stable").index
    for attack in [*order, *sorted(set(status.index) - set(order))]:
        cells = [
            number(mean[column].get(attack, np.nan), form)
            for column, form in (("reconstruction_error", ".6f"), ("attack_accuracy", ".4f"))
            for mean in means
        ]
        add_row(table, str(attack), str(status[attack]), *cells)
    return table


def failures_report(episodes: pd.DataFrame, info: str) -> Table:
    """Failed episodes by defense, attacker and error."""
    bad = episodes[episodes["status"] == "failed"]
    table = new_table(
        f"Failures: {len(bad)} of {len(episodes)} episodes",
        f"A failed episode has no measurements; its seed is left out of its setting's worst case. {info}.",
        "episodes", "defense<", "attacker<", "error|",
    )  # fmt: skip
    error = bad["error"].astype(object).fillna("unknown")
    groups = bad.groupby([bad["defense"], bad["attack"], error]).size()
    groups = groups.sort_values(ascending=False, kind="stable")
    for (defense, attack, error), count in groups.head(SHOWN).items():
        cut = textwrap.shorten(visible_line(error), 160, placeholder=" ...")
        add_row(table, str(count), str(defense), str(attack), cut)
    if len(groups) > SHOWN:
        add_row(table, str(groups.iloc[SHOWN:].sum()), "others", "", f"{len(groups) - SHOWN} more kinds")
    return table


def checks_report(episodes: pd.DataFrame, info: str) -> Table:
    """How many settings and records raised each validity check, of those it applied to, and what it means."""
    table = new_table(
        "Validity checks",
        "Settings: those with a record that raised the check, of those that it applied to; records are one a "
        f"seed and attacker, and repeat what is measured once a setting. See the columns check.*. {info}.",
        "settings", "records", "check<", "means|",
    )  # fmt: skip
    for column, _, means in checks_table():
        settings, of_settings, raised, applied = check_counts(episodes, column)
        meaning = means if raised else ("raised nowhere" if applied else "never applied")
        counts = (f"{settings}/{of_settings}", f"{raised}/{applied}")
        add_row(table, *counts, column.removeprefix("check."), meaning)
    return table


def statistics_tables(found: Findings) -> list[Table]:
    """Frontier, leakage (where there are learning curves), utility, defenses, comparison at equal distortion,
    indicators, attackers; not to be changed."""
    return list(found.once(_statistics_tables))


def _statistics_tables(found: Findings) -> list[Table]:
    episodes, configurations, info = found.episodes, found.configurations, found.info
    newer = len(found.identified) > 0
    largest = found.leakage.set_index("trial")[f"{EXCESS}_high"] if newer else None
    return [
        frontier_report(found.with_leakage, info, alignments(episodes), both=newer),
        *([limits_report(found)] if found.curves else []),
        found.once(utility_report),
        defense_report(configurations, info, margin=found.margin, largest=largest),
        equal_distortion_report(found.alike, found.comparable, found.alike_info),
        indicators_report(found),
        attackers_report(episodes, configurations, info),
    ]


def print_report(found: Findings, *, console: Console) -> None:
    """Print the tables of :func:`statistics_tables`, then failures and raised checks.

    Args:
        console: 100 columns or more are best.
    """
    tables = statistics_tables(found)
    if (found.episodes["status"] == "failed").any():
        tables += [failures_report(found.episodes, found.info)]
    for table in [*tables, checks_report(found.episodes, found.info)]:
        console.print(table)
        console.print()
