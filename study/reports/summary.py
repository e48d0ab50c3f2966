"""The answer of a study in a few lines: what to deploy, its guarantee, its measured leakage, its costs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from mipoison.defenses import ANCHORS, LABEL_ONLY, UNDEFENDED
from study.analysis.verdicts import POOLS
from study.reports.answers import answers_of, answers_text, brief
from study.reports.cells import setting_name
from study.reports.findings import COSTS, Findings
from study.reports.leakage import ATTACKER
from study.reports.limits_report import extrapolation_text
from study.reports.raised import raised_text
from study.reports.rounding import limits_of, rounded_up, upper_limit
from study.runtime.plain import NOTHING, number

WIDTH, LABEL = 100, 17
NEARLY = 0.9
"""A setting with this share of label-only's distortion saves too little to be preferred unsaid."""
HARDLY = 0.01
"""A smaller share is not printed."""
MORE_NEEDED = "more seeds or attackers are needed before anything is called safe"
NOT_EVEN_UNDEFENDED = f"not even undefended is shown to leak: {MORE_NEEDED}"
BY_CONSTRUCTION = (
    "labels give nothing beyond themselves by construction: a limit above 0 is what these seeds can tell"
)
LISTED = 2
"""Settings that are named of those that are undecided."""


class Choice(NamedTuple):
    """What the study recommends.

    Attributes:
        deploy: the setting, None if none is certified or safe. runner_up: the next one, None if none is.
        undecided: by distortion, without the anchors and without settings that not all attackers attacked.
    """

    deploy: Mapping[str, Any] | None
    runner_up: Mapping[str, Any] | None
    undecided: pd.DataFrame


def choose(table: pd.DataFrame) -> Choice:
    """The recommendation: of the certified feasible settings the one of least distortion, else of the safe.

    The runner-up is the cheapest safe setting with less distortion than a certified one that is deployed (a
    weaker claim at a lower price), else the next one by distortion with the same claim.
    """
    usable = table[table["feasible"].fillna(False).astype(bool)].dropna(subset=["confidence_distortion"])
    usable = usable.sort_values(["confidence_distortion", "trial"], kind="stable")
    by_claim = {claim: usable[usable["verdict"] == claim] for claim in ("certified", "safe")}
    whole = ~usable["cut"].fillna(False).astype(bool)  # all attackers ran: more seeds would decide
    undecided = usable[(usable["verdict"] == "undecided") & whole & ~usable["defense"].isin(ANCHORS)]
    ranked = [row for claim in ("certified", "safe") for _, row in by_claim[claim].iterrows()]
    if not ranked:
        return Choice(None, None, undecided)
    deploy, rest = ranked[0], ranked[1:]
    cheaper = [row for row in rest if row["confidence_distortion"] < deploy["confidence_distortion"]]
    return Choice(deploy, next(iter([*cheaper, *rest]), None), undecided)


def no_claim(table: pd.DataFrame, findings: Findings) -> str:
    """Of which settings none is certified or safe: what follows "no" or "no other".

    A feasible setting that was cut may be safe, unless what was measured of it exceeds the margin already.

    Args:
        table: ``Findings.judged``.
    """
    cut, feasible = (table[name].fillna(False).astype(bool) for name in ("cut", "feasible"))
    beyond = (table["suite_excess_worst"] > findings.margin).fillna(False).astype(bool)
    unjudged = cut & feasible & ~beyond & ~table["defense"].isin(ANCHORS)
    which = f"setting with {findings.constraints}{' that all attackers attacked' if unjudged.any() else ''}"
    return f"{which} is certified or safe to a margin of {findings.margin:g}"


def summary(findings: Findings) -> list[str]:
    """The summary's lines, at most 25 of at most 100 columns (a few more with many constraints).

    Args:
        findings: the records have all columns.
    """
    lines = []
    for label, text in answer(findings):
        indent = " " * LABEL
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"{label:<{LABEL}}", subsequent_indent=indent)
    return [*lines, *textwrap.wrap(findings.info, WIDTH)]


def answer(findings: Findings) -> list[tuple[str, str]]:
    """The summary as (label, text), one for each of its statements."""
    table = findings.judged
    anchors = {row["defense"]: row for _, row in table.iterrows() if row["trial"] == row["defense"]}
    return list(_parts(table, choose(table), anchors, findings))


def _parts(
    table: pd.DataFrame, found: Choice, anchors: Mapping[str, Any], findings: Findings
) -> Iterator[tuple[str, str]]:
    deploy, none, margin = found.deploy, anchors.get(UNDEFENDED), findings.margin
    if deploy is None:
        deploy = anchors.get(LABEL_ONLY)
        if deploy is not None and not _true(deploy["feasible"]):
            deploy = None
        what = "nothing: no" if deploy is None else "nothing but label-only: no other"
        yield "DEPLOY", f"{what} {no_claim(table, findings)}"
    elif deploy["verdict"] == "certified":
        yield "DEPLOY", f"{setting_name(deploy)} ({deploy['trial']}): certified"
    else:
        yield (
            "DEPLOY",
            f"nothing is certified; safe against these attackers alone: {setting_name(deploy)} "
            f"({deploy['trial']})",
        )
    if deploy is not None:
        yield "guarantee", _guarantee(deploy)
        if deploy["defense"] != LABEL_ONLY and (text := answers_text(answers_of(deploy))):
            yield "answers", text
        if text := raised_text(findings.episodes[findings.episodes["trial"] == deploy["trial"]]):
            yield "checks", text
        if _true(deploy["cut"]):
            yield "attackers", "only a part of them so far: continue the study with --resume"
        yield "measured", _measured(deploy, none)
        if _values(deploy, "identification_auc"):  # records older than the column have none
            yield "identification", _identification(deploy, none)
        if not pd.isna(deploy["estimated_limit"]):
            yield (
                "estimated limit",
                f"error {_interval(deploy, 'estimated_limit', '.4f')} seems possible on train images "
                f"(nearest neighbours); the suite reached {number(deploy['worst_reconstruction_error'])}",
            )
        for curve in findings.extrapolated:
            if curve["trial"] == deploy["trial"] and curve["face"] == "train":
                yield "extrapolated", extrapolation_text(curve)
        yield "costs", _costs(deploy, anchors.get(LABEL_ONLY))
        if text := _nearly_label_only(deploy, anchors.get(LABEL_ONLY)):
            yield "label-only", text
    if found.runner_up is not None:
        yield "runner-up", _runner_up(found.runner_up)
    named = [row for row in (deploy, found.runner_up) if row is not None and row["defense"] != LABEL_ONLY]
    if text := _held_out(named, findings):
        yield "held-out seeds", text
    searched = table[~table["defense"].isin(ANCHORS)]
    cut = int(searched["cut"].fillna(False).sum())
    yield "undecided", _undecided(found.undecided, len(searched), cut)
    leaks = int((table["verdict"] == "leaks").sum())
    out = int((~table["feasible"].fillna(False).astype(bool)).sum())
    text = f"{leaks} of {len(table)} settings are shown to leak"
    if out:
        text += f"; {out} are outside the constraints ({findings.constraints}), or were not measured"
    if none is not None and shown_to_leak(none) is False:
        text += f"; {NOT_EVEN_UNDEFENDED}"
    yield "leaks", text
    yield (
        "words",
        f"certified: no attacker whatsoever gains more than {margin:g} over the label alone. safe: these "
        f"attackers do not, at 95 % confidence, on train and test images, and no check doubts it. leaks: a "
        f"gain above zero is shown. Upper limits are rounded up.",
    )


def _guarantee(row: Mapping[str, Any]) -> str:
    if pd.isna(row["certified_excess_worst"]):
        return "none: no certificate exists for this release; what follows speaks of these attackers alone"
    worst = upper_limit(row["certified_excess_worst"])
    text = f"no attacker gains more than {worst} over the best use of the label alone"
    named = max(_values(row, "certified_identification"), default=None)
    if named is not None:
        text += f", or names the image more often than {upper_limit(named)} (any seed, train and test)"
    return text


def _runner_up(row: Mapping[str, Any]) -> str:
    """Its claim, price and bound: a certificate where it has one, else what these attackers gain at most."""
    most = excess_at_most(row)
    if row["verdict"] == "certified":
        bound = f"no attacker gains more than {upper_limit(row['certified_excess_worst'])}"
        bound += "" if most is None else f" (measured: at most {upper_limit(most)})"
    else:
        bound = f"excess leakage at most {upper_limit(most, missing=NOTHING)}"
    words = brief(answers_of(row)) if row["defense"] != LABEL_ONLY else None
    return (
        f"{setting_name(row)} ({row['trial']}): {row['verdict']}, distortion "
        f"{number(row['confidence_distortion'], '.3g')}, {bound}{'' if words is None else f'; {words}'}"
    )


def _held_out(named: list[Mapping[str, Any]], findings: Findings) -> str | None:
    """What the seeds that the search never used say of the settings that are named; None without."""
    if findings.held_out is None:
        return None
    parts = []
    for row in named:
        if row["trial"] not in findings.held_out.index:
            continue
        there = findings.held_out.loc[row["trial"]]
        verdict = NOTHING if pd.isna(there["verdict"]) else there["verdict"]
        most = upper_limit(excess_at_most(there), missing=NOTHING)
        parts.append(f"{row['trial']} {verdict}, excess leakage at most {most}")
    return f"{'; '.join(parts)} (seeds that the search never saw)" if parts else None


def _measured(row: Mapping[str, Any], none: Mapping[str, Any] | None) -> str:
    text = (
        f"excess leakage {limits_of(row, 'suite_excess')} on train, "
        f"{limits_of(row, 'suite_excess_test')} on test images"
    )
    train, test = (row[column] for column in ATTACKER.values())
    if not pd.isna(train):
        text += f"; worst attacker {train}"
        text += "" if pd.isna(test) or test == train else f" on train, {test} on test"
    bare = pd.NA if none is None else none["suite_excess_worst"]
    text += "" if pd.isna(bare) else f" (undefended {number(bare, '.3f')})"
    return text + (above_zero(excess_at_most(row)) if row["defense"] == LABEL_ONLY else "")


def _identification(row: Mapping[str, Any], none: Mapping[str, Any] | None) -> str:
    def of(setting: Mapping[str, Any]) -> str:
        auc, rate = _values(setting, "identification_auc"), _values(setting, "identification_rate")
        return f"AUC {max(auc):.3f}, nearest image right {_share(rate)}"

    chance = _share(_values(row, "identification_chance"))
    known = none is not None and _values(none, "identification_auc")
    against = f"; undefended {of(none)}" if none is not None and known else ""
    return f"{of(row)} (chance: 0.5 and {chance}){against}"


def _share(values: list[float]) -> str:
    return f"{values[0]:.3f}" if values else NOTHING


def _costs(row: Mapping[str, Any], label_only: Mapping[str, Any] | None) -> str:
    parts = []
    for face, columns in COSTS.items():
        if pd.isna(row[columns[0]]):
            continue
        text = f"{face} {number(row[columns[0]], '.3g')}"
        if len(columns) == 2 and not pd.isna(row[columns[1]]):
            text += f" (clean {number(row[columns[1]], '.3g')})"
        if face == "distortion" and label_only is not None and _positive(label_only[columns[0]]):
            text += f" ({row[columns[0]] / label_only[columns[0]]:.0%} of label-only's)"
        parts.append(text)
    return ", ".join(parts)


def _nearly_label_only(row: Mapping[str, Any], label_only: Mapping[str, Any] | None) -> str | None:
    """What a reader has to know of a setting that saves next to nothing of label-only's distortion."""
    if label_only is None or row["trial"] == label_only["trial"] or not _true(label_only["feasible"]):
        return None
    mine, bound = row["confidence_distortion"], label_only["confidence_distortion"]
    if pd.isna(bound) or not NEARLY * bound <= mine < bound:
        return None
    share = bound / mine - 1
    more = "hardly more" if share < HARDLY else f"{share:.0%} more"
    return (
        f"has {more} distortion than this setting and gives away nothing beyond the label: release it unless "
        f"scores are needed"
    )


def _undecided(undecided: pd.DataFrame, n: int, cut: int) -> str:
    text = f"{len(undecided)} of {n} settings besides the anchors"
    if cut:
        text += f" ({cut} other{'' if cut == 1 else 's'} screened or pruned)"
    listed = []
    for _, row in undecided.head(LISTED).iterrows():
        more = row["seeds_to_decide"]
        if pd.isna(more):
            needs = "two seeds or more with the whole suite, or attackers that reach label-only's error"
        else:
            needs = f"{more} more seed{'' if more == 1 else 's'}"
        listed.append(f"{setting_name(row)} ({row['trial']}) by {needs}")
    if listed:
        text += f"; to be decided: {'; '.join(listed)}"
    rest = len(undecided) - len(listed)
    return text + (f"; {rest} more" if rest else "")


def shown_to_leak(row: Mapping[str, Any]) -> bool | None:
    """Whether a gain is shown on one of the pools; None without a verdict.

    A lower limit above 0 counts, too: where attackers fail on train, the verdict speaks of train alone.

    Args:
        row: of a ``verdict_table``.
    """
    if pd.isna(row["verdict"]):
        return None
    lows = [row[f"suite_excess{pool}_low"] for pool in POOLS]
    return row["verdict"] == "leaks" or any(not pd.isna(low) and float(low) > 0 for low in lows)


def above_zero(limit: float | None) -> str:
    """What follows label-only's upper limit: why it is above 0, where it is printed so."""
    return "" if limit is None or rounded_up(limit) <= 0 else f"; {BY_CONSTRUCTION}"


def excess_at_most(row: Mapping[str, Any]) -> float | None:
    """The one-sided 95 % upper limit of the measured excess, the larger of train and test, rounded up."""
    highs = [row[f"suite_excess{pool}_high"] for pool in POOLS]
    return max((rounded_up(high) for high in highs if not pd.isna(high)), default=None)


def _true(value: Any) -> bool:
    return False if pd.isna(value) else bool(value)


def _positive(value: Any) -> bool:
    return not pd.isna(value) and float(value) > 0


def _values(row: Mapping[str, Any], name: str) -> list[float]:
    """Of train and test, those that are known."""
    return [float(row[name + pool]) for pool in ("", "_test") if not pd.isna(row[name + pool])]


def _interval(row: Mapping[str, Any], name: str, form: str) -> str:
    """Value and two-sided interval."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if pd.isna(row[name]):
        return NOTHING
    bounds = "" if pd.isna(low) or pd.isna(high) else f" [{low:{form}}, {high:{form}}]"
    return f"{row[name]:{form}}{bounds}"
