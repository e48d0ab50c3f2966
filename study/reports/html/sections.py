"""The sections of the report page: what its templates show, from records and tables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from mipoison.defenses import ANCHORS
from mipoison.metrics.checks import checks_table
from study.analysis.check_counts import check_counts
from study.analysis.frontier import pareto_front
from study.analysis.identification import IDENTIFIED
from study.records.finished import StoredStudy
from study.records.flat import finite
from study.records.status import PRUNED
from study.reports.cells import describe
from study.reports.commands import without_paths
from study.reports.findings import Findings
from study.reports.html.chart_data import excess_text, on_front, shown_name, standing, with_interval
from study.reports.html.importance import LEAST, MOST, OBJECTIVE_NAMES, importances
from study.reports.leakage import EXCESS
from study.reports.limits_report import BOUNDS_NOTHING
from study.reports.tables import fresh_report, statistics_tables
from study.settings.study_settings import StudySettings

Plain = dict[str, Any]
ABOUT_KEYS = ("command", "content", "settings", "source", "started", "study", "versions")
SETTINGS = {"victim_digest", *(f.name for f in dataclasses.fields(StudySettings))}
"""Keys of ``study.json``, and of its settings, that the page shows."""
CROSS_SIGN = "\u00d7"
"""The mark of the estimated limit."""
NAMED = 100
"""Most trials that the page names for one kind of failure; the others are counted."""
COLUMNS = [
    "setting", "distortion\n(mean l2)", "accuracy lost\n(points)",
    "excess leakage\n(share)\n[one-sided 95 %]", "identification\n(AUC) [95 %]",
    "worst-case error\n(MSE) [95 %]", "worst attackers", "seeds", "run it again",
]  # fmt: skip
"""Of the table of settings."""


def shown_table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    numeric: Sequence[int] = (),
    name: str = "",
    note: str = "",
) -> Plain:
    """A table for the templates; ``numeric``: places of right-aligned columns; ``name`` makes it sortable."""
    keys = ("caption", "columns", "rows", "numeric", "name", "note")
    return dict(zip(keys, (caption, columns, rows, list(numeric), name, note), strict=True))


def from_rich(shown: Table) -> Plain:
    """A rich table of ``study.reports.tables`` for the templates, its caption as a note."""
    columns = [_plain(column.header) for column in shown.columns]
    cells = [[_plain(cell) for cell in column.cells] for column in shown.columns]
    numeric = [i for i, column in enumerate(shown.columns) if column.justify == "right"]
    rows = list(zip(*cells, strict=True))
    note = _plain(shown.caption) if shown.caption else ""
    return shown_table(_plain(shown.title), columns, rows, numeric, note=note)


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


def facts(study: StoredStudy, configurations: pd.DataFrame) -> list[tuple[str, str]]:
    """Data, counts, constraints, versions."""
    episodes = study.episodes
    counts = episodes["status"].value_counts()
    scale = study.about.get("settings", {}).get("scale")
    versions = ", ".join(sorted(set(episodes["versions"].dropna()))) if "versions" in episodes else "unknown"
    front = on_front(configurations)
    return [
        ("settings", f"{len(configurations)}, of which {front} on the frontier (nothing dominates them)"),
        ("episodes", ", ".join(f"{n} {status}" for status, n in counts.items())),
        ("data", describe(episodes, {"scale": scale})),
        ("constraints", str(study.constraints)),
        ("begun", str(study.about.get("started", "unknown"))),
        ("versions", versions),
    ]


def legend(rows: Sequence[Mapping[str, Any]], margin: float) -> list[tuple[str, str]]:
    """(Sign, meaning) of the marks that the hero chart has."""
    known = {name for row in rows for name, value in row.items() if value is not None}
    marks = [("◯", "recommended")] if any(row["recommended"] for row in rows) else []
    marks += [
        ("●", "measured: share by which the worst attacker beats label-only"),
        ("│", "one-sided 95 % limits"),
    ]
    if "certified" in known:
        marks.append(("▆", "certificate: no attacker comes above the band"))
    if "possible" in known:
        marks.append((CROSS_SIGN, "seems possible (estimated limit)"))
    if any(not row["solid"] for row in rows):
        marks.append(("○", "hollow: a bound (not all attackers ran), or outside the constraints"))
    if any(not row["front"] for row in rows):
        marks.append(("◌", "faint: dominated"))
    return marks


def attackers_note(rows: Sequence[Mapping[str, Any]], has_floor: bool) -> str:
    """What the charts of leakage show."""
    text = (
        "The strongest attackers against each setting; marks as above, bars are 95 % Student-t intervals "
        "over seeds, those of excess leakage one-sided 95 % limits. "
    )
    if not has_floor:
        text += "There is no label-only anchor here, so nothing says what leaks beyond the label. "
    if any(row["identification"] is not None for row in rows):
        text += (
            "Identification: how often the reconstruction is closer to its own image than to another one of "
            "the label, by the strongest attacker, so that settings at chance lie a little above 0.5. "
        )
    if any(row["limit"] is not None for row in rows):
        text += f"{CROSS_SIGN}: the estimated limit, what seems possible from the releases. "
    if any("extrapolated_error" in row for row in rows):
        text += f"+: extrapolated by a learning curve, with its dotted interval. {BOUNDS_NOTHING} "
    return text.strip()


def importance(configurations: pd.DataFrame) -> Plain | None:
    """The table of knob importance; None where no defense has enough settings for one."""
    found, skipped = importances(configurations)
    if not found:
        return None
    rows = []
    for i in found:
        nothing = "not given: the forest predicts nothing"
        shares = ", ".join(f"{k} {v:.0%}" for k, v in i.shares.items()) or nothing
        rows.append([i.defense, OBJECTIVE_NAMES[i.objective], i.n, f"{i.skill:.2f}", shares])
    note = (
        "Importance: fANOVA (Hutter et al. 2014; Optuna, 64 trees): the share of an objective's variance "
        "that a knob explains alone. R²: how well a random forest of 100 trees predicts settings, each by "
        "the trees not trained on it (out of bag); at 0 or below no shares are given. The settings were "
        "picked by a search, not at random, which favours what the search liked. Outcomes are those of the "
        f"attackers that all settings faced. At least {LEAST} settings are needed, at most {MOST} count. "
    )
    if skipped:
        note += "No importance: " + "; ".join(f"{f} ({why})" for f, why in skipped.items()) + "."
    columns = ["defense", "objective", "settings", "R²", "knobs by importance"]
    return shown_table("Knob importance", columns, rows, (2, 3), note=note)


def two_lines(text: str) -> str:
    """The text with the interval on a line of its own."""
    return text.replace(" [", "\n[").replace(" (no", "\n(no")


def settings_table(
    configurations: pd.DataFrame, commands: Mapping[str, str], verdicts: Mapping[str, Any], prefix: str
) -> list[Plain]:
    """Rows of the table of all settings, anchors first, with the command that runs each again."""
    rows, front = [], set(pareto_front(configurations)["trial"])
    order = configurations.assign(_later=~configurations["defense"].isin(ANCHORS))
    for _, s in order.sort_values(["_later", "confidence_distortion", "trial"], kind="stable").iterrows():
        distortion, drop = finite(s["confidence_distortion"]), finite(s["accuracy_drop"])
        attackers = dict.fromkeys(
            str(s[f"{w}_attacker"]) for w in (EXCESS, "worst_reconstruction_error", "worst_attack_accuracy")
        )
        newer = finite(s[EXCESS]) is not None
        excess = excess_text(s) if newer else with_interval(s, "excess_leakage", ".3f")
        trial = str(s["trial"])
        verdict = verdicts.get(trial)
        rows.append(
            {
                "trial": trial,
                "name": shown_name(s),
                "link": prefix + trial,
                "verdict": None if pd.isna(verdict) else verdict,
                "standing": standing(s, trial in front),
                "numbers": [
                    "not known" if distortion is None else f"{distortion:.3g}",
                    "not known" if drop is None else f"{100 * drop:+z.2f}",
                    two_lines(excess),
                    two_lines(with_interval(s, IDENTIFIED, ".3f")),
                    two_lines(with_interval(s, "worst_reconstruction_error", ".4f")),
                ],
                "attackers": ", ".join(a for a in attackers if a != "<NA>") or "not known",
                "seeds": f"{s['n_shared_seeds']} of {s['n_seeds']}",
                "command": commands[trial],
            }
        )
    return rows


def statistics(found: Findings) -> list[Plain]:
    """The tables that the study prints on a terminal, without that of utility, which has its own section."""
    shown = [from_rich(t) for t in statistics_tables(found)]
    if found.fresh is not None and found.bias is not None:
        shown.append(from_rich(fresh_report(found.bias, f"{found.info}; fresh: {describe(found.fresh)}")))
    return [t for t in shown if not t["caption"].startswith("What each setting costs in utility")]


def checks(episodes: pd.DataFrame) -> Plain:
    """A table of all validity checks: how often each was raised, when it is raised, what it means."""
    rows = []
    for column, raised_if, means in checks_table():
        settings, of_settings, raised, applied = check_counts(episodes, column)
        counts = (
            [f"{settings} of {of_settings}", f"{raised} of {applied}"] if applied else ["never applied"] * 2
        )
        rows.append([column.removeprefix("check."), *counts, raised_if, means])
    columns = ["check", "raised (settings)", "raised (records)", "raised if", "means"]
    return shown_table("Validity checks", columns, rows)


def failures(episodes: pd.DataFrame) -> Plain | None:
    """A table of all episodes that failed or were cut, with their errors; None if there are none."""
    bad = episodes[episodes["status"] != "ok"]
    if bad.empty:
        return None
    error = bad["error"].astype(object).where(bad["error"].notna(), "unknown")
    keys = ["status", "defense", "attack", "error"]
    groups = bad[[*keys, "trial"]].assign(error=error).groupby(keys, sort=False)
    rows = [
        [status, defense, attack, len(group), _named(sorted(set(map(str, group["trial"])))), text]
        for (status, defense, attack, text), group in groups
    ]
    rows.sort(key=lambda r: (r[0] == PRUNED, -int(r[3]), *map(str, r[1:3])))
    columns = ["status", "defense", "attacker", "episodes", "trials", "error"]
    return shown_table("Episodes without a measurement", columns, rows, (3,))


def _named(trials: list[str]) -> str:
    more = f" and {len(trials) - NAMED} more" if len(trials) > NAMED else ""
    return ", ".join(trials[:NAMED]) + more


def about(study: StoredStudy) -> str:
    """What a study writes into ``study.json``, without paths of the machine: the page is shown around."""
    known = {name: study.about[name] for name in ABOUT_KEYS if name in study.about}
    known["settings"] = {k: v for k, v in study.about.get("settings", {}).items() if k in SETTINGS}
    if isinstance(words := known.get("command"), list):
        known["command"] = without_paths(words)
    for name in ("dataset", "storage", "data_root", "victim", "victim_state"):
        if isinstance(value := known["settings"].get(name), str):
            known["settings"][name] = without_paths([f"--{name}", value])[1]
    return json.dumps(known, indent=2, sort_keys=True)
