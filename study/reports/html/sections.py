"""The sections of the report page: from records and configuration tables to HTML."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from mipoison.defenses import ANCHORS, LABEL_ONLY
from mipoison.metrics.checks import checks_table
from study.analysis.check_counts import check_counts
from study.analysis.frontier import pareto_front
from study.analysis.identification import IDENTIFIED
from study.records.finished import StoredStudy
from study.records.flat import finite
from study.records.status import PRUNED
from study.reports.cells import describe, setting_name
from study.reports.findings import Findings
from study.reports.html.chart_data import flag, standing, with_interval
from study.reports.html.importance import LEAST, MOST, OBJECTIVE_NAMES, importances
from study.reports.html.markup import command, escape, from_rich, note, scroller, section, table
from study.reports.html.vectors import SHOWN
from study.reports.leakage import EXCESS
from study.reports.limits_report import BOUNDS_NOTHING
from study.reports.tables import fresh_report, statistics_tables
from study.settings.study_settings import StudySettings

ABOUT_KEYS = ("command", "content", "settings", "source", "started", "study", "versions")
SETTINGS = {"victim_digest", *(f.name for f in dataclasses.fields(StudySettings))}
"""Keys of ``study.json``, and of its settings, that the page shows."""
TITLES = {
    "error": "Worst-case reconstruction error (MSE on private train images; up: protected)",
    "accuracy": "Worst-case attack accuracy (share of images recognised; down: protected)",
    "excess": "Excess leakage, the larger of train and test (share of label-only's error; down: protected)",
    "identification": "Identification AUC, the larger of train and test (down: protected)",
}
"""Titles of the frontier's charts."""
NAMED = 100
"""Most trials that the page names for one kind of failure; the others are counted."""


def header(study: StoredStudy, configurations: pd.DataFrame, left_out: str = "") -> str:
    """Name, data, counts, constraint, versions, a sentence on what is ``left_out``, and the contents."""
    episodes = study.episodes
    counts = episodes["status"].value_counts()
    on_front = len(pareto_front(configurations))
    scale = study.about.get("settings", {}).get("scale")
    versions = ", ".join(sorted(set(episodes["versions"].dropna()))) if "versions" in episodes else "unknown"
    facts = [
        ("settings", f"{len(configurations)}, of which {on_front} on the frontier (nothing dominates them)"),
        ("episodes", ", ".join(f"{n} {status}" for status, n in counts.items())),
        ("data", describe(episodes, {"scale": scale})),
        ("constraints", str(study.constraints)),
        ("begun", study.about.get("started", "unknown")),
        ("versions", versions),
    ]
    listed = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
    links = "".join(
        f'<a href="#{name}">{title}</a>'
        for name, title in (
            ("frontier", "frontier"), ("attackers", "attackers"), ("knobs", "knobs"), ("curves", "curves"),
            ("reconstructions", "reconstructions"), ("vectors", "vectors"), ("settings", "settings"),
            ("statistics", "statistics"), ("checks", "checks"), ("failures", "failures"), ("about", "about"),
        )
    )  # fmt: skip
    left_out = note(left_out) if left_out else ""
    return (
        f'<header><button type="button" id="theme">light / dark</button><h1>{escape(study.name)}</h1>'
        "<p>What defenses of a classifier's confidence vectors cost, and what a model-inversion "
        "attacker still makes of them in the worst case over a suite of adaptive attackers.</p>"
        f'<dl class="facts">{listed}</dl>{left_out}<nav aria-label="Contents">{links}</nav>'
        "<noscript><p class='warning'>Scripts are off: the drawings are missing, the tables below hold "
        "the same numbers.</p></noscript></header>"
    )


def frontier(configurations: pd.DataFrame, data: Mapping[str, Any]) -> str:
    """The charts of the frontier, their legend, and the setting that the reader has chosen.

    Args:
        data: the ``chart_data``.
    """
    drawn = configurations.dropna(subset=["confidence_distortion", "worst_reconstruction_error"])
    missing = len(configurations) - len(drawn)
    text = (
        "Every setting under its worst attacker, against what it costs in distortion (mean l2 distance "
        "between clean and released vector; logarithmic, with a place for zero). Bars: 95 % Student-t "
        "intervals over seeds. Full: not dominated; faint: dominated; hollow: outside the constraints, "
        "or (dashed) cut short, then what is shown is a bound. Steps: best on the frontier at no more "
        "distortion. Dashed lines: the anchors. "
    )
    text += f"{missing} settings without a worst case are not drawn. " if missing else ""
    if not (configurations["defense"] == LABEL_ONLY).any():
        text += "There is no label-only anchor here, so nothing says what leaks beyond the label. "
    text += _explained(data)
    text += (
        "Point, tap or use the arrow keys; click or Enter keeps a setting. Drag: zoom, double click: undo."
    )
    plots = "".join(
        f'<figure class="plot"><figcaption id="{key}-title">{escape(title)}</figcaption>'
        f'<div id="{key}" class="chart" tabindex="0" role="group" aria-labelledby="{key}-title" '
        f'aria-describedby="frontier-note"></div></figure>'
        for key, title in ((f"frontier-{name}", TITLES[name]) for name in data["charts"])
    )
    chosen = '<div id="chosen" class="chosen" aria-live="polite"><p>No setting chosen yet.</p></div>'
    return section(
        "frontier",
        "The frontier",
        f'<p class="note" id="frontier-note">{escape(text)}</p>',
        '<div id="key" class="key" role="group" aria-label="Defenses shown"></div>',
        f'<div class="pair">{plots}</div>{chosen}',
    )


def _explained(data: Mapping[str, Any]) -> str:
    """What the note says of the marks that the charts have."""
    points, text = data["points"], ""
    if "excess" in data["charts"]:
        text += (
            "Excess leakage: what the attackers gained over label-only, with one-sided 95 % limits; a cap "
            f"is a certificate, which no attacker exceeds; dotted: the margin of {data['margin']:g}. "
        )
    if "identification" in data["charts"]:
        text += (
            "Identification: how often the reconstruction is closer to its own image than to another one "
            f"of the label, by the strongest attacker; {data['chance']:g} is chance. "
        )
    if any(point["limit"] is not None for point in points):
        text += "x is the estimated limit: what seems possible from the releases. "
    if any("extrapolated" in point for point in points):
        text += (
            "+, in the chart of errors, is extrapolated: the error that the learning curves' attacker would "
            f"reach with ever more images, with its dotted interval, which the edge may cut off. "
            f"{BOUNDS_NOTHING} "
        )
    return text


def _many(configurations: pd.DataFrame) -> bool:
    return bool(len(configurations) and configurations["defense"].value_counts().max() > MOST)


def knobs(configurations: pd.DataFrame) -> str:
    """Importance of knobs, then parallel coordinates of the settings."""
    found, skipped = importances(configurations)
    parts = [
        note(
            "Importance: fANOVA (Hutter et al. 2014; Optuna, 64 trees) on a defense's settings with a "
            "worst case: the share of an objective's variance that a knob explains alone. R²: how well "
            "a random forest of 100 trees predicts settings, each by the trees not trained on it (out of "
            f"bag); at 0 or below no shares are given. At least {LEAST} settings are needed; a few dozen are "
            "better. The settings were picked by a search, not at random, which favours what the search "
            "liked. Outcomes are those of the attackers that all settings faced."
            + (f" Of a defense's settings {MOST} count, evenly by name." if _many(configurations) else "")
        )
    ]
    rows = []
    for i in found:
        shares = (
            ", ".join(f"{k} {v:.0%}" for k, v in i.shares.items()) or "not given: the forest predicts nothing"
        )
        bars = "".join(
            f'<i style="--w:{v:.3f}" title="{escape(k)} {v:.0%}"></i>' for k, v in i.shares.items()
        )
        bar = f'<span class="bars" aria-hidden="true">{bars}</span>'
        rows.append([i.defense, OBJECTIVE_NAMES[i.objective], i.n, f"{i.skill:.2f}", shares, bar])
    columns = ["defense", "objective", "settings", "R²", "knobs by importance", "shares"]
    if rows:
        parts.append(table("Knob importance", columns, rows, numeric=(2, 3), raw=(5,)))
    if skipped:
        parts.append(
            note(
                "No importance is given for " + "; ".join(f"{f} ({why})" for f, why in skipped.items()) + "."
            )
        )
    parts += [
        "<h3>Settings as lines</h3>",
        note(
            "One line a setting, through its knobs and what came of them; the colour is the worst-case "
            "error (dark leaks more). Settings cut short are dashed: their outcomes are bounds. "
            "Defenses with one setting have no such drawing."
        ),
        '<label class="choice">defense <select id="parallel-defense"></select></label>',
        '<div class="scroll" tabindex="0" role="region" aria-label="Settings as lines">'
        '<div id="parallel" class="chart"></div></div>',
    ]
    return section("knobs", "Knobs", *parts)


def curves(drawn: Mapping[str, Any]) -> str:
    """The epsilon-eta curves, or a note on why there are none."""
    if not drawn["curves"]:
        return section(
            "curves",
            "How many images how closely",
            note(
                "These records hold no percentiles of the per-image errors (they are older than the column)."
            ),
        )
    text = (
        "eta(epsilon): the share of private images that the setting's worst attacker (by mean error) "
        "reconstructs with an error below epsilon; mean over seeds, with a 95 % Student-t band for the "
        "curve pointed at. Right and down is better protected. Drawn: the anchors and the frontier; "
        "others faint."
    )
    chart = (
        '<div id="curves-chart" class="chart" tabindex="0" role="group" '
        'aria-label="Share of images by error: arrow keys go from curve to curve"></div>'
    )
    return section(
        "curves", "How many images how closely", note(text), f'<figure class="plot">{chart}</figure>'
    )


def vectors(panels: list[dict[str, Any]], about: str, again: str | None) -> str:
    """Projections of clean and released vectors."""
    text = about
    if panels:
        text += (
            f" Up to {SHOWN} private images of the first seed; each panel's projection is fitted on its "
            "clean and released vectors together. Distances in t-SNE say little; overlap is not "
            "evidence of protection."
        )
    chart = '<div id="vectors-charts" class="small"></div>' if panels else ""
    how = "" if again is None else command(again)
    return section("vectors", "Clean and released vectors", note(text), how, chart)


def two_lines(text: str) -> str:
    """The text with the interval on a line of its own."""
    return text.replace(" [", "\n[").replace(" (no", "\n(no")


def all_settings(configurations: pd.DataFrame, commands: Mapping[str, str]) -> str:
    """A table of all settings with the command that runs each again."""
    rows = []
    order = configurations.assign(_later=~configurations["defense"].isin(ANCHORS))
    for _, s in order.sort_values(["_later", "confidence_distortion", "trial"], kind="stable").iterrows():
        distortion, drop = finite(s["confidence_distortion"]), finite(s["accuracy_drop"])
        attackers = dict.fromkeys(
            str(s[f"{w}_attacker"]) for w in ("worst_reconstruction_error", "worst_attack_accuracy")
        )
        rows.append(
            [
                setting_name(s),
                "not known" if distortion is None else f"{distortion:.3g}",
                "not known" if drop is None else f"{100 * drop:+.2f}",
                two_lines(with_interval(s, "worst_reconstruction_error", ".4f")),
                two_lines(with_interval(s, "worst_attack_accuracy", ".3f")),
                two_lines(
                    with_interval(s, EXCESS, ".3f")
                    if finite(s[EXCESS]) is not None
                    else with_interval(s, "excess_leakage", "+.3f")
                ),
                two_lines(with_interval(s, IDENTIFIED, ".3f")),
                ", ".join(a for a in attackers if a != "<NA>") or "not known",
                f"{s['n_shared_seeds']} of {s['n_seeds']}",
                standing(s, not flag(s["cut"]) and flag(s["feasible"]) and finite(s["dominated_by"]) == 0),
                command(commands[str(s["trial"])]),
            ]
        )
    columns = [
        "setting", "distortion\n(mean l2)", "accuracy lost\n(points)", "worst-case error\n(MSE) [95 %]",
        "worst-case accuracy\n(share) [95 %]", "excess leakage\n(share) [95 %]",
        "identification\n(AUC) [95 %]",
        "worst attackers", "seeds",
        "standing", "run it again",
    ]  # fmt: skip
    text = (
        "A click on a heading sorts. The command runs the setting from nothing (victims included) and "
        "says whether its numbers equal the stored ones; on the device and versions above they do, on "
        "a CPU exactly. Where the data are not in the default folder, add --data-root FOLDER."
    )
    shown = table(f"{len(rows)} settings", columns, rows, numeric=range(1, 7), raw=(10,), name="all-settings")
    return section("settings", "Settings", note(text), shown)


def statistics(found: Findings) -> str:
    """The tables that the study prints on a terminal."""
    shown = [from_rich(t) for t in statistics_tables(found)]
    if found.fresh is not None and found.bias is not None:
        shown.append(from_rich(fresh_report(found.bias, f"{found.info}; fresh: {describe(found.fresh)}")))
    return section("statistics", "Statistics, as printed", *shown)


def checks(episodes: pd.DataFrame) -> str:
    """A table of all validity checks: how often each was raised, when it is raised, what it means."""
    rows = []
    for column, raised_if, means in checks_table():
        settings, of_settings, raised, applied = check_counts(episodes, column)
        counts = (
            [f"{settings} of {of_settings}", f"{raised} of {applied}"] if applied else ["never applied"] * 2
        )
        rows.append([column.removeprefix("check."), *counts, raised_if, means])
    columns = ["check", "raised (settings)", "raised (records)", "raised if", "means"]
    text = (
        "A raised check removes no record; it says how far to trust it. Counted: those to which it applied."
    )
    return section(
        "checks", "Validity checks", note(text), table("Validity checks", columns, rows, name="all-checks")
    )


def failures(episodes: pd.DataFrame) -> str:
    """A table of all episodes that failed or were cut, with their errors."""
    bad = episodes[episodes["status"] != "ok"]
    if bad.empty:
        return section("failures", "Failures", note(f"None: all {len(episodes)} episodes ran to their end."))
    error = bad["error"].astype(object).where(bad["error"].notna(), "unknown")
    keys = ["status", "defense", "attack", "error"]
    groups = bad[[*keys, "trial"]].assign(error=error).groupby(keys, sort=False)
    rows = [
        [status, defense, attack, len(group), _named(sorted(set(map(str, group["trial"])))), text]
        for (status, defense, attack, text), group in groups
    ]
    rows.sort(key=lambda r: (r[0] == PRUNED, -int(r[3]), *map(str, r[1:3])))
    text = (
        "failed: no measurement, and its seed is left out of its setting's worst case (never counted "
        "as zero). cut: not run, because label-only had already dominated the setting, or it was only "
        "screened."
    )
    columns = ["status", "defense", "attacker", "episodes", "trials", "error"]
    return section(
        "failures",
        "Failures",
        note(text),
        table("Episodes without a measurement", columns, rows, numeric=(3,)),
    )


def _named(trials: list[str]) -> str:
    more = f" and {len(trials) - NAMED} more" if len(trials) > NAMED else ""
    return ", ".join(trials[:NAMED]) + more


def about(study: StoredStudy) -> str:
    """The content of ``study.json``, reduced to the keys that a study writes."""
    known = {name: study.about[name] for name in ABOUT_KEYS if name in study.about}
    known["settings"] = {k: v for k, v in study.about.get("settings", {}).items() if k in SETTINGS}
    text = json.dumps(known, indent=2, sort_keys=True)
    inner = scroller("study.json", f"<pre>{escape(text)}</pre>")
    return section(
        "about", "study.json", f"<details><summary>settings, versions, source</summary>{inner}</details>"
    )
