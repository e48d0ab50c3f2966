"""The verdict that the page opens with: what to deploy, and the numbers that matter most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mipoison.defenses import LABEL_ONLY
from study.reports.answers import answers_text
from study.reports.cells import setting_name
from study.reports.findings import Findings
from study.reports.label import WORDS, worst_attacker
from study.reports.rounding import upper_limit, with_limits
from study.reports.summary import NOT_EVEN_UNDEFENDED, above_zero, excess_at_most, no_claim

Plain = dict[str, Any]
NONE = {
    "state": "none",
    "badge": "no verdict",
    "deploy": "Deploy nothing of this study",
    "numbers": [],
}


def verdict(found: Findings, label: Mapping[str, Any] | None) -> Plain:
    """State, badge, what to deploy, what that means, and (name, value, explanation) of a few numbers.

    Args:
        label: of the recommended setting; None if the study recommends none.
    """
    if label is None:
        return NONE | {"means": f"No {no_claim(found.judged, found)}, and label-only is not usable."}
    if label["trial"] == LABEL_ONLY:
        return {
            "state": "label-only",
            "badge": f"labels alone{_raised(label)}",
            "deploy": "Release labels only",
            "means": f"{_others(found)} A label gives away nothing beyond itself.{_unshown(label)}",
            "numbers": _numbers(label),
        }
    claim = str(label["verdict"])
    means = WORDS.get(claim, "")
    return {
        "state": claim,
        "badge": f"{claim}{_raised(label)}",
        "deploy": f"Deploy {label['setting']['text']}",
        "means": f"{means[:1].upper()}{means[1:]} (margin {label['margin']:g}). "
        f"Setting {label['trial']}.{_unshown(label)}",
        "numbers": _numbers(label),
    }


def _raised(label: Mapping[str, Any]) -> str:
    """The checks that put the verdict in doubt, for the headline."""
    checks = label["checks_raised"]
    return f"; raised in its records: {', '.join(checks)}" if checks else ""


def _unshown(label: Mapping[str, Any]) -> str:
    """What is to be known where these attackers do not even show the undefended setting to leak."""
    shown = label["measured"]["excess_leakage"]["undefended_leaks"]
    return f" {NOT_EVEN_UNDEFENDED[0].upper()}{NOT_EVEN_UNDEFENDED[1:]}." if shown is False else ""


def _others(found: Findings) -> str:
    """What beside label-only is certified or safe within the constraints, the cheapest of each."""
    table = found.judged
    usable = table[table["feasible"].fillna(False).astype(bool) & (table["trial"] != LABEL_ONLY)]
    usable = usable.sort_values(["confidence_distortion", "trial"], kind="stable")
    certified, safe = (usable[usable["verdict"] == claim] for claim in ("certified", "safe"))
    if certified.empty and safe.empty:
        return f"No other {no_claim(table, found)}."
    parts = [f"certified too: {_cheapest(certified)}" if len(certified) else "nothing else is certified"]
    if len(safe):
        parts.append(f"safe against these attackers: {_cheapest(safe)}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]} (margin {found.margin:g})."


def _cheapest(settings: pd.DataFrame) -> str:
    """The first of settings with its distortion and bound, and how many more there are."""
    row = settings.iloc[0]
    known = [] if pd.isna(row["confidence_distortion"]) else [row["confidence_distortion"]]
    costs = [f"distortion {value:.3g}" for value in known]
    most = excess_at_most(row)
    if row["verdict"] == "certified":
        costs += [f"certificate {upper_limit(row['certified_excess_worst'])}"]
    elif most is not None:
        costs += [f"excess at most {upper_limit(most)}"]
    more = f" and {len(settings) - 1} more" if len(settings) > 1 else ""
    return f"{setting_name(row)} ({', '.join([str(row['trial']), *costs])}){more}"


def _numbers(label: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    measured, utility, certificate = label["measured"], label["utility"], label["certificate"]
    out = []
    if certificate is None:
        out.append(("guarantee", "none", "what follows speaks of these attackers alone"))
    else:
        most = f"at most {upper_limit(certificate['excess_leakage_at_most'])}"
        out.append(("guarantee", most, "excess leakage, for every attacker"))
    told, answers = label["answers"], None
    if label["setting"]["defense"] != LABEL_ONLY:
        answers = answers_text(told)
    if answers is not None:
        known = [told[name] for name in ("train", "test") if told[name] is not None]
        out.append(("answers", "one a label" if told["one_a_label"] else f"{max(known)} different", answers))
    excess = measured["excess_leakage"]
    if excess["worst"]["value"] is not None:
        against = "" if excess["undefended"] is None else f"; undefended {excess['undefended']:z.3f}"
        text = f"{worst_attacker(measured)}{against}"
        if label["setting"]["defense"] == LABEL_ONLY:
            text += above_zero(excess["worst"]["high"])
        out.append(("measured", excess_text(excess["worst"]), text))
    auc = measured["identification_auc"]
    if auc["value"] is not None:
        text = f"telling an image from others of its label; chance {auc['chance']:g}"
        out.append(("identification", f"AUC {auc['value']:.3f}", text))
    if utility["confidence_distortion"] is not None:
        out.append(("costs", f"distortion {utility['confidence_distortion']:.3g}", costs_text(utility)))
    return out


def excess_text(interval: Mapping[str, Any]) -> str:
    """``0.004 [-0.001, 0.010]``: excess leakage with its one-sided limits; a dash if it is not known."""
    return with_limits(interval["value"], interval["low"], interval["high"])


def interval_text(interval: Mapping[str, Any], form: str) -> str:
    """``0.004 [-0.001, 0.010]``; a dash if it is not known."""
    if interval["value"] is None:
        return "-"
    low, high = interval["low"], interval["high"]
    ends = "" if low is None or high is None else f" [{low:z{form}}, {high:z{form}}]"
    return f"{interval['value']:z{form}}{ends}"


def costs_text(utility: Mapping[str, Any]) -> str:
    """The faces of utility that are known, in words."""
    parts = []
    if utility["distortion_share_of_label_only"] is not None:
        parts.append(f"{utility['distortion_share_of_label_only']:.0%} of label-only's")
    if utility["accuracy_drop"] is not None:
        parts.append(f"accuracy lost {100 * utility['accuracy_drop']:z.1f} points")
    for name, words in (
        ("rank_correlation", "rank correlation"),
        ("top2_agreement", "top-2 agreement"),
        ("top5_agreement", "top-5 agreement"),
    ):
        if utility[name] is not None:
            parts.append(f"{words} {utility[name]:.2f}")
    return ", ".join(parts)
