"""The data of the page's charts, as plain numbers and texts for JSON, computed from the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mipoison.defenses import ANCHORS, DEFENSES, LABEL_ONLY, UNDEFENDED
from mipoison.metrics.leakage import ERROR_PERCENTS, PERCENTILE_COLUMNS
from mipoison.metrics.statistics import mean_interval
from study.analysis.frontier import pareto_front
from study.analysis.identification import CHANCE, IDENTIFIED
from study.analysis.knobs import KNOB
from study.analysis.worst_case import find_worst, prepare
from study.records.constraints import FACES
from study.records.flat import finite
from study.reports.cells import setting_name
from study.reports.findings import Findings
from study.reports.leakage import CERTIFIED, EXCESS, EXTRAPOLATED, LIMIT, POSSIBLE, WORST_ATTACKER, WORST_POOL
from study.reports.limits_report import extrapolation_text
from study.reports.reconstructions import chosen_settings
from study.reports.rounding import limits_of, rounded_up, upper_limit

Plain = dict[str, Any]
NAMES = {UNDEFENDED: "undefended", LABEL_ONLY: "label-only"}
MEASURES = {
    "error": "worst_reconstruction_error",
    "accuracy": "worst_attack_accuracy",
    "excess": EXCESS,
    "identification": IDENTIFIED,
    "extrapolated_excess": EXTRAPOLATED,
}
"""Field of a row -> the column of a setting that it shows, with an interval (``_low``, ``_high``)."""
ALONE = {"certified": CERTIFIED, "possible": POSSIBLE, "limit": LIMIT, "distortion": "confidence_distortion"}
"""Fields without an interval -> their columns."""
MOST = {"certified_most": "certified", "excess_most": "excess_high"}
"""Fields for texts -> bounds from above, which they round up to three decimals."""
UTILITY = tuple(name for name in FACES if name != "confidence_distortion")
"""Faces of utility that are fields, too."""


def flag(value: Any) -> bool:
    """True or False; missing is False."""
    return False if pd.isna(value) else bool(value)


def with_interval(setting: Mapping[str, Any], name: str, form: str) -> str:
    """``0.0426 [0.0411, 0.0441]``; without the interval where there is none."""
    value, low, high = (finite(setting[f"{name}{end}"]) for end in ("", "_low", "_high"))
    if value is None:
        return "not known"
    if low is None or high is None:
        return f"{value:z{form}} (no interval)"
    return f"{value:z{form}} [{low:z{form}}, {high:z{form}}]"


def excess_text(setting: Mapping[str, Any]) -> str:
    """Excess leakage with its one-sided limits."""
    return limits_of(setting, EXCESS, missing="not known", alone=" (no interval)")


def settings(
    found: Findings,
    shown: pd.DataFrame,
    commands: Mapping[str, str],
    recommended: str | None = None,
) -> list[Plain]:
    """One row per setting with a distortion and a worst case: what all charts of settings draw.

    ``lines`` is the text of the setting's details; knobs are fields ``knob_<name>``.

    Args:
        shown: the settings, of ``found.with_leakage``. commands: trial -> what runs it again.
        recommended: the trial that the study recommends.
    """
    curve_of = {row["trial"]: row for row in found.extrapolated if row["face"] == "train"}
    front = set(found.front["trial"])
    faces = found.utility.set_index("trial")
    verdicts = found.verdicts.set_index("trial")["verdict"]
    out = []
    for _, s in shown.iterrows():
        if finite(s["confidence_distortion"]) is None or finite(s["worst_reconstruction_error"]) is None:
            continue
        trial, defense = str(s["trial"]), str(s["defense"])
        row: Plain = {"trial": trial, "defense": NAMES.get(defense, defense), "setting": shown_name(s)}
        verdict = verdicts.get(trial)
        row["verdict"] = None if pd.isna(verdict) else str(verdict)
        for field, name in MEASURES.items():
            row |= {f"{field}{end}": finite(s.get(f"{name}{end}")) for end in ("", "_low", "_high")}
        row |= {field: finite(s.get(name)) for field, name in ALONE.items()}
        for field, name in MOST.items():
            row[field] = None if row[name] is None else rounded_up(row[name])
        row |= {face: finite(faces[face].get(trial)) for face in UTILITY}
        knobs = {f"knob_{c.removeprefix(KNOB)}": finite_number(s[c]) for c in s.index if c.startswith(KNOB)}
        row |= {name: value for name, value in knobs.items() if value is not None}
        row |= {"feasible": flag(s["feasible"]), "screened": flag(s["cut"]), "front": trial in front}
        row |= {"recommended": trial == recommended, "solid": flag(s["feasible"]) and not flag(s["cut"])}
        row |= {"lines": details(s, trial in front, row["verdict"]), "command": commands[trial]}
        if row["limit"] is not None:
            row["lines"].insert(-1, f"estimated limit {row['limit']:.4f} (MSE on train images)")
        if curve := curve_of.get(trial):
            row |= {f"extrapolated_error{end}": curve[f"limit{end}"] for end in ("", "_low", "_high")}
            row["lines"].insert(-1, f"extrapolated: {extrapolation_text(curve)}")
        out.append(row)
    return out


def finite_number(value: Any) -> float | None:
    """A knob's value as a number; None for words and flags."""
    return (
        finite(value) if isinstance(value, int | float | np.number) and not isinstance(value, bool) else None
    )


def shown_name(setting: Mapping[str, Any]) -> str:
    """``undefended``, ``label-only``, or the defense and its knobs."""
    return NAMES.get(str(setting["defense"]), setting_name(setting))


def details(s: Mapping[str, Any], on_front: bool, verdict: str | None) -> list[str]:
    """Lines on a setting: name, verdict, cost, worst cases with their attackers, seeds, standing."""
    lines = [shown_name(s), f"trial {s['trial']}; {verdict or 'no verdict'}"]
    distortion, drop = finite(s["confidence_distortion"]), finite(s["accuracy_drop"])
    lines.append(f"distortion {distortion:.3g} (mean l2 of c' - c)")
    if drop is not None:
        lines.append(f"accuracy lost {100 * drop:z.2f} percentage points")
    for name, words, unit, form in (
        ("worst_reconstruction_error", "worst-case error", "MSE in [0, 1]", ".4f"),
        ("worst_attack_accuracy", "worst-case attack accuracy", "share", ".3f"),
    ):
        lines.append(f"{words} {with_interval(s, name, form)} ({unit}) by {s[f'{name}_attacker']}")
    if finite(s.get(EXCESS)) is not None:
        text = f"excess leakage {excess_text(s)} (share"
        certified = finite(s.get(CERTIFIED))
        by = s.get(WORST_ATTACKER)
        named = "" if pd.isna(by) else f" by {by} on {s[WORST_POOL]} images"
        lines.append(f"{text} of label-only's error; one-sided 95 % limits){named}")
        lines.append(
            f"certified: {'nothing' if certified is None else f'at most {upper_limit(certified)} (share)'}"
        )
    elif finite(s["excess_leakage"]) is not None:
        lines.append(f"excess leakage over label-only {with_interval(s, 'excess_leakage', '.3f')} (share)")
    if finite(s.get(IDENTIFIED)) is not None:
        lines.append(f"{identification_text(s)} by {s[f'{IDENTIFIED}_attacker']}")
    lines.append(f"seeds {s['n_shared_seeds']}; intervals 95 % Student-t over seeds")
    lines.append(standing(s, on_front))
    return lines


def identification_text(s: Mapping[str, Any]) -> str:
    """What the details say of a setting's identification AUC."""
    pool = s[f"{IDENTIFIED}_pool"]
    return f"identification AUC {with_interval(s, IDENTIFIED, '.3f')} on {pool} images (chance {CHANCE})"


def standing(s: Mapping[str, Any], on_front: bool) -> str:
    """A sentence on why a setting is or is not on the frontier."""
    bound = "; not all attackers ran: what is shown is a bound" if flag(s["cut"]) else ""
    if on_front:
        return f"on the frontier: nothing dominates it{bound}"
    if not flag(s["feasible"]):
        return f"not feasible: outside the study's constraints{bound}"
    count = finite(s["dominated_by"])
    return (
        f"not on the frontier{bound}"
        if not count
        else f"dominated by {count:.0f} setting{'' if count == 1 else 's'}{bound}"
    )


def varied_knobs(rows: Sequence[Mapping[str, Any]], least: int) -> list[tuple[str, str, bool]]:
    """(Defense, knob, whether the search uses a log scale) of the numeric knobs that a study varied.

    Args:
        rows: of :func:`settings`. least: fewest values of such a knob.
    """
    out = []
    for defense in sorted({str(row["defense"]) for row in rows} & set(DEFENSES) - set(ANCHORS)):
        own = [row for row in rows if row["defense"] == defense]
        for name, knob in DEFENSES[defense].KNOBS.items():
            values = {row.get(f"knob_{name}") for row in own} - {None}
            if knob.choices is None and len(values) >= least:
                out.append((defense, name, bool(knob.log) and min(v for v in values if v is not None) > 0))
    return out


def curves(episodes: pd.DataFrame, configurations: pd.DataFrame, also: str | None = None) -> list[Plain]:
    """eta(epsilon) under the worst attacker by error; empty if the records lack percentiles.

    Of undefended, label-only, each defense's best setting, and ``also``. One row per setting and share: the
    percentiles 0, 5, ... 100 of the per-image error, as mean and 95 % Student-t interval over the seeds of
    the worst case.
    """
    if PERCENTILE_COLUMNS[0] not in episodes:
        return []
    usable = configurations.dropna(subset=["worst_reconstruction_error"])
    drawn = usable[usable["trial"].isin({*chosen_settings(usable)["trial"], also})]
    worst = find_worst(prepare(episodes))
    place_of = {str(trial): i for i, trial in enumerate(worst.trials) if worst.counts[i]}
    ok = episodes[(episodes["status"] == "ok") & episodes["trial"].isin(drawn["trial"])]
    out: list[Plain] = []
    for _, s in drawn.iterrows():
        place = place_of.get(str(s["trial"]))
        if place is None:
            continue
        case = worst.case(place)
        rows = ok[(ok["trial"] == s["trial"]) & (ok["attack"] == case.error_attacker)]
        rows = rows[rows["seed"].isin(case.error_by_seed.index)].drop_duplicates("seed")
        table = rows[list(PERCENTILE_COLUMNS)].to_numpy(dtype=float, na_value=np.nan)
        if not len(table) or not np.isfinite(table).all():
            continue
        name = {"trial": str(s["trial"]), "setting": shown_name(s), "attacker": case.error_attacker}
        name["defense"] = NAMES.get(str(s["defense"]), str(s["defense"]))
        for percent, column in zip(ERROR_PERCENTS, table.T, strict=True):
            i = mean_interval(column)
            ends = {"epsilon": i.mean, "low": i.low, "high": i.high}
            out.append({**name, "eta": percent / 100, **{k: _rounded(v) for k, v in ends.items()}})
    return out


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def mean_image(configurations: pd.DataFrame) -> float | None:
    """The error of the mean image, over settings; None if unknown."""
    values = configurations["mean_image_error"].dropna()
    return finite(values.mean()) if len(values) else None


def on_front(configurations: pd.DataFrame) -> int:
    """How many settings nothing dominates."""
    return len(pareto_front(configurations))
