"""The data of the page's charts, as plain numbers and texts for JSON, computed from the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mipoison.defenses import ANCHORS, DEFENSES, LABEL_ONLY, UNDEFENDED
from mipoison.metrics.excess import MARGIN
from mipoison.metrics.leakage import ERROR_PERCENTS, PERCENTILE_COLUMNS
from mipoison.metrics.statistics import mean_interval
from study.analysis.frontier import pareto_front
from study.analysis.identification import CHANCE, IDENTIFIED
from study.analysis.indicators import knee
from study.analysis.knobs import KNOB
from study.analysis.worst_case import find_worst, prepare
from study.records.flat import finite
from study.reports.cells import setting_name
from study.reports.figures import ANCHOR_STYLE, CERTAIN, COLOURS, MARKERS, style_of
from study.reports.leakage import CERTIFIED, EXCESS, LIMIT, POSSIBLE
from study.reports.limits_report import extrapolation_text

Plain = dict[str, Any]
NAMES = {UNDEFENDED: "undefended", LABEL_ONLY: "label-only (the floor)"}
SHAPES = (*MARKERS, "*", "h")
"""Markers in the order in which the page's script defines their shapes."""


MEASURES = {
    "error": "worst_reconstruction_error",
    "accuracy": "worst_attack_accuracy",
    "excess": EXCESS,
    "identification": IDENTIFIED,
}
"""Chart -> the column of a setting that it shows, with an interval."""


def flag(value: Any) -> bool:
    """True or False; missing is False."""
    return False if pd.isna(value) else bool(value)


def defenses(configurations: pd.DataFrame) -> list[Plain]:
    """The defenses shown, anchors last: name, label, index of colour (None for anchors), index of marker."""
    names = sorted(configurations["defense"].unique(), key=lambda f: (f in ANCHORS, f))
    out = []
    for name in names:
        colour, marker = style_of(name, names)
        slot = None if name in ANCHOR_STYLE else COLOURS.index(colour)
        label = NAMES.get(name, name)
        out.append({"name": name, "label": label, "slot": slot, "shape": SHAPES.index(marker)})
    return out


def with_interval(setting: Mapping[str, Any], name: str, form: str) -> str:
    """``0.0426 [0.0411, 0.0441]``; without the interval where there is none."""
    value, low, high = (finite(setting[f"{name}{end}"]) for end in ("", "_low", "_high"))
    if value is None:
        return "not known"
    if low is None or high is None:
        return f"{value:{form}} (no interval)"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def points(
    configurations: pd.DataFrame,
    commands: Mapping[str, str],
    curves: Sequence[Mapping[str, Any]] = (),
) -> list[Plain]:
    """One entry per setting that the frontier's charts draw; ``lines`` is the text of its tooltip.

    Args:
        configurations: with the columns of ``leakage_table`` and ``identification_table``, or without.
        curves: rows of ``study.records.curves``; those of private training images are shown.
    """
    curve_of = {row["trial"]: row for row in curves if row["face"] == "train"}
    front = set(pareto_front(configurations)["trial"])
    knee_trial = knee(configurations)
    out = []
    for _, s in configurations.iterrows():
        if finite(s["confidence_distortion"]) is None or finite(s["worst_reconstruction_error"]) is None:
            continue
        trial = str(s["trial"])
        point: Plain = {"trial": trial, "defense": str(s["defense"]), "x": finite(s["confidence_distortion"])}
        for key, name in MEASURES.items():
            point[key] = [finite(s.get(f"{name}{end}")) for end in ("", "_low", "_high")]
        point |= {"certified": finite(s.get(CERTIFIED)), "possible": finite(s.get(POSSIBLE))}
        point |= {"feasible": flag(s["feasible"]), "cut": flag(s["cut"]), "front": trial in front}
        point |= {
            "knee": trial == knee_trial,
            "lines": tooltip(s, trial in front),
            "command": commands[trial],
        }
        point["limit"] = finite(s.get(LIMIT))
        if point["limit"] is not None:
            point["lines"].insert(-1, f"estimated limit {point['limit']:.4f} (MSE on train images)")
        if curve := curve_of.get(trial):
            point["extrapolated"] = [curve[f"limit{end}"] for end in ("", "_low", "_high")]
            point["lines"].insert(-1, f"extrapolated: {extrapolation_text(curve)}")
        out.append(point)
    return out


def charts(drawn: Sequence[Mapping[str, Any]]) -> list[str]:
    """The charts of MEASURES that are shown: all that any of the points has a value of.

    As in ``frontier.png``, not attack accuracy where it is 1.00 for every setting, unless nothing else is
    known.
    """
    known = [key for key in MEASURES if any(point[key][0] is not None for point in drawn)]
    certain = all(point["accuracy"][0] is None or point["accuracy"][0] >= CERTAIN for point in drawn)
    if certain and "identification" in known:
        known.remove("accuracy")
    return known or ["error"]


def tooltip(s: Mapping[str, Any], on_front: bool) -> list[str]:
    """The lines of a setting's tooltip: knobs, cost, worst cases with their attackers, seeds, standing."""
    lines = [NAMES.get(str(s["defense"]), setting_name(s)), f"trial {s['trial']}"]
    distortion, drop = finite(s["confidence_distortion"]), finite(s["accuracy_drop"])
    lines.append(f"distortion {distortion:.3g} (mean l2 of c' - c)")
    if drop is not None:
        lines.append(f"accuracy lost {100 * drop:.2f} percentage points")
    for name, words, unit, form in (
        ("worst_reconstruction_error", "worst-case error", "MSE in [0, 1]", ".4f"),
        ("worst_attack_accuracy", "worst-case attack accuracy", "share", ".3f"),
    ):
        lines.append(f"{words} {with_interval(s, name, form)} ({unit}) by {s[f'{name}_attacker']}")
    if finite(s.get(EXCESS)) is not None:
        text = f"excess leakage {with_interval(s, EXCESS, '.3f')}, the larger of train and test (share"
        certified = finite(s.get(CERTIFIED))
        lines.append(f"{text} of label-only's error; one-sided 95 % limits)")
        lines.append(f"certified: {'nothing' if certified is None else f'at most {certified:.3f} (share)'}")
    elif finite(s["excess_leakage"]) is not None:
        lines.append(f"excess leakage over label-only {with_interval(s, 'excess_leakage', '+.3f')} (share)")
    if finite(s.get(IDENTIFIED)) is not None:
        lines.append(f"{identification_text(s)} by {s[f'{IDENTIFIED}_attacker']}")
    lines.append(f"seeds {s['n_shared_seeds']}; intervals 95 % Student-t over seeds")
    lines.append(standing(s, on_front))
    return lines


def identification_text(s: Mapping[str, Any]) -> str:
    """What the tooltip says of a setting's identification AUC."""
    pool = s[f"{IDENTIFIED}_pool"]
    return f"identification AUC {with_interval(s, IDENTIFIED, '.3f')} on {pool} images (chance {CHANCE})"


def standing(s: Mapping[str, Any], on_front: bool) -> str:
    """A sentence on why a setting is or is not on the frontier."""
    if on_front:
        return "on the frontier: nothing dominates it"
    bound = "; not all attackers ran: what is shown is a bound" if flag(s["cut"]) else ""
    if not flag(s["feasible"]):
        return f"not feasible: outside the study's constraints{bound}"
    count = finite(s["dominated_by"])
    return (
        f"not on the frontier{bound}"
        if count is None
        else f"dominated by {count:.0f} setting{'' if count == 1 else 's'}{bound}"
    )


def parallel(configurations: pd.DataFrame) -> list[Plain]:
    """Parallel coordinates of each defense with two settings or more: knobs and outcomes as axes."""
    out = []
    rows = configurations.dropna(subset=["confidence_distortion", "worst_reconstruction_error"])
    for defense, group in rows[~rows["defense"].isin(ANCHORS)].groupby("defense", sort=True):
        if len(group) < 2:
            continue
        axes = [_axis(defense, column, group[column]) for column in _varied(defense, group)]
        for column, label, log in (
            ("confidence_distortion", "distortion (l2)", bool((group["confidence_distortion"] > 0).all())),
            ("worst_attack_accuracy", "worst-case accuracy (share)", False),
            ("worst_reconstruction_error", "worst-case error (MSE)", False),
        ):
            values = [finite(v) for v in group[column]]
            axes.append({"label": label, "log": log, "choices": None, "values": values})
        names = [setting_name(s) for _, s in group.iterrows()]
        bounds = [flag(v) for v in group["cut"]]
        out.append({"defense": defense, "axes": axes, "names": names, "cut": bounds})
    return out


def _varied(defense: str, group: pd.DataFrame) -> list[str]:
    knobs = DEFENSES[defense].KNOBS if defense in DEFENSES else {}
    return [
        column
        for column in (f"{KNOB}{name}" for name in knobs)
        if column in group and group[column].notna().all() and group[column].nunique() > 1
    ]


def _axis(defense: str, column: str, values: pd.Series) -> Plain:
    name = column.removeprefix(KNOB)
    knob = DEFENSES[defense].KNOBS[name]
    if knob.choices is None:
        numbers = [finite(v) for v in values]
        return {"label": name, "log": knob.log, "choices": None, "values": numbers}
    texts = [str(v) for v in values]
    choices = [str(c) for c in knob.choices]
    choices += sorted(set(texts) - set(choices))
    return {"label": name, "log": False, "choices": choices, "values": [choices.index(t) for t in texts]}


def curves(episodes: pd.DataFrame, configurations: pd.DataFrame) -> list[Plain]:
    """eta(epsilon) of each setting under its worst attacker by error; empty if the records lack percentiles.

    ``epsilon``, ``low``, ``high``: the percentiles 0, 5, ... 100 of the per-image error, as mean and 95 %
    Student-t interval over the seeds of the worst case.
    """
    if PERCENTILE_COLUMNS[0] not in episodes:
        return []
    worst = find_worst(prepare(episodes))
    place_of = {str(trial): i for i, trial in enumerate(worst.trials) if worst.counts[i]}
    asked = (episodes["status"] == "ok") & episodes["trial"].isin(configurations["trial"])
    ok = episodes.loc[asked, ["trial", "attack", "seed", *PERCENTILE_COLUMNS]]
    places = ok.groupby(["trial", "attack"]).indices
    front = set(pareto_front(configurations)["trial"])
    out = []
    for _, s in configurations.iterrows():
        place = place_of.get(str(s["trial"]))
        if place is None:
            continue
        case = worst.case(place)
        rows = ok.iloc[places[(s["trial"], case.error_attacker)]]
        rows = rows[rows["seed"].isin(case.error_by_seed.index)].drop_duplicates("seed")
        table = rows[list(PERCENTILE_COLUMNS)].to_numpy(dtype=float, na_value=np.nan)
        if not len(table) or not np.isfinite(table).all():
            continue
        intervals = [mean_interval(column) for column in table.T]
        name = NAMES.get(str(s["defense"]), setting_name(s))
        curve: Plain = {"trial": s["trial"], "defense": s["defense"], "name": name}
        curve |= {"attacker": case.error_attacker, "seeds": len(table), "front": s["trial"] in front}
        for key, end in (("epsilon", "mean"), ("low", "low"), ("high", "high")):
            curve[key] = [_rounded(getattr(i, end)) for i in intervals]
        out.append(curve)
    return out


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def chart_data(
    episodes: pd.DataFrame,
    configurations: pd.DataFrame,
    commands: Mapping[str, str],
    learned: Sequence[Mapping[str, Any]] = (),
    *,
    margin: float = MARGIN,
) -> Plain:
    """All data of the charts; ``eta`` holds the shares of images that the curves' percentiles stand for.

    Args:
        configurations: see :func:`points`. learned: the learning curves, see :func:`points`.
        margin: accepted excess leakage.
    """
    mean_image = configurations["mean_image_error"].dropna()
    drawn = points(configurations, commands, learned)
    return {
        "defenses": defenses(configurations),
        "points": drawn,
        "charts": charts(drawn),
        "margin": margin,
        "chance": CHANCE,
        "meanImage": finite(mean_image.mean()) if len(mean_image) else None,
        "parallel": parallel(configurations),
        "curves": curves(episodes, configurations),
        "eta": [p / 100 for p in ERROR_PERCENTS],
    }
