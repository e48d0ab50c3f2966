"""The study's tables on a terminal, rendered from episode records alone; readable at 100 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mipoison.defenses import ANCHORS
from mipoison.metrics.checks import checks_table
from mipoison.metrics.statistics import ROUNDING, mean_intervals, paired_differences
from study.analysis.frontier import LABEL_ONLY, MARGIN, family_table, pareto_front, reference_point
from study.analysis.indicators import (
    LEVELS,
    attained_at,
    attainment,
    hypervolume_by_family,
    hypervolume_by_seed,
    knee,
    seed_points,
)
from study.analysis.knobs import knobs_text
from study.analysis.worst_case import find_worst, prepare
from study.runtime.plain import visible, visible_line

NEAR = 1.5
"""Two settings have equal distortion if the larger is at most this factor above the smaller."""
SHOWN = 16
"""At most so many comparisons are listed; all are counted."""
NOTHING = "-"
NO_DIFFERENCE, TOO_FEW = "no difference shown", "too few seeds"
CONTROLS = ("noise", "tail-noise", "rounding")
"""What a defense has to beat at equal distortion before its idea is worth anything."""
PAIRS = {
    "trial": "string",
    "defense": "string",
    "other": "string",
    "other_trial": "string",
    "confidence_distortion": "Float64",
    "other_confidence_distortion": "Float64",
    "difference": "Float64",
    "difference_low": "Float64",
    "difference_high": "Float64",
    "n_pairs": "Int64",
    "verdict": "string",
    "p_holm": "Float64",
}


def describe(episodes: pd.DataFrame, more: Mapping[str, object] | None = None) -> str:
    """Where numbers come from, in a line: ``more`` (study, scale), data, sizes, seeds, attackers, device."""

    def values(column: str, missing: str) -> str:
        found = sorted(episodes[column].dropna().unique()) if column in episodes else []
        return ", ".join(f"{v:g}" if isinstance(v, float) else visible_line(v) for v in found) or missing

    parts = [f"{key} {value}" for key, value in (more or {}).items() if value is not None]
    parts += [f"data {values('dataset', 'unknown')}", f"auxiliary {values('auxiliary', 'unknown')}"]
    limit = values("scene.limit", "")
    parts += [f"at most {limit} training images a side" if limit else "all training images"]
    seeds = [] if "seed" not in episodes else sorted({int(s) for s in episodes["seed"].dropna()})
    parts += [f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'} ({', '.join(map(str, seeds))})"]
    if "attack" in episodes and len(episodes):
        parts += [f"{episodes['attack'].nunique()} attackers"]
    sizes = {"victim": "scene.victim_steps", "decoder": "scene.decoder_steps"}
    told = [f"{name} {values(column, '')}" for name, column in sizes.items() if values(column, "")]
    parts += [f"training steps: {', '.join(told)}"] if told else []
    return "; ".join([*parts, f"device {values('device', 'unknown')}"])


def number(value: Any, form: str = ".4f") -> str:
    """A number in the given format, or a dash where it is missing."""
    return NOTHING if pd.isna(value) else format(float(value), form)


def setting_name(setting: Mapping[str, Any]) -> str:
    """Family and knobs: ``lpa budget=0.012 rounds=7``."""
    return f"{setting['defense']} {knobs_text(setting)}".strip()


def _with_interval(setting: Mapping[str, Any], name: str, form: str = "+.3f") -> str:
    low, high = setting[f"{name}_low"], setting[f"{name}_high"]
    interval = "" if pd.isna(low) or pd.isna(high) else f"\n[{low:{form}}, {high:{form}}]"
    return number(setting[name], form) + interval


def _by_attacker(setting: Mapping[str, Any], name: str, form: str) -> str:
    attacker = setting[f"{name}_attacker"]
    named = "" if pd.isna(attacker) else "\n" + textwrap.fill(str(attacker), 14)
    return number(setting[name], form) + named


def _table(title: str, caption: str, *columns: str) -> Table:
    """Columns: ``name`` is right-aligned, ``name<`` left-aligned, ``name|`` so too with the room left."""
    title, caption = visible(title), visible(caption)
    table = Table(title=Text(title, style="bold"), caption=Text(caption), box=box.SIMPLE_HEAD, expand=True)
    table.collapse_padding = True
    table.title_justify = table.caption_justify = "left"
    for column in columns:
        name, left, ratio = column.rstrip("<|"), column[-1] in "<|", 1 if column.endswith("|") else None
        table.add_column(
            Text(visible(name)), justify="left" if left else "right", ratio=ratio, overflow="fold"
        )
    return table


def _row(table: Table, *cells: str) -> None:
    # Text: an error message may hold what rich takes for markup, and what a terminal obeys.
    table.add_row(*(Text(visible(cell)) for cell in cells))


def frontier_report(settings: pd.DataFrame, info: str) -> Table:
    """The Pareto front by distortion, anchors included."""
    front = pareto_front(settings)
    feasible, cut = (int(settings[name].fillna(False).sum()) for name in ("feasible", "cut"))
    table = _table(
        f"Frontier: {len(front)} of {len(settings)} settings ({feasible} feasible, {cut} cut short) are not "
        "dominated",
        "Distortion: mean l2 of c' - c. Drop: accuracy lost. Worst case: the best attacker of the suite, "
        "mean over seeds (error: MSE in [0, 1], higher is better protected). Excess leakage: 1 - worst error "
        f"/ worst label-only error, with its 95 % Student-t interval over paired seeds. {info}.",
        "distortion", "defense|", "drop", "worst attack\naccuracy", "worst\nerror",
        "excess\nleakage", "seeds",
    )  # fmt: skip
    for _, s in front.iterrows():
        _row(
            table,
            number(s["confidence_distortion"], ".3g"),
            setting_name(s),
            number(s["accuracy_drop"]),
            _by_attacker(s, "worst_attack_accuracy", ".3f"),
            _by_attacker(s, "worst_reconstruction_error", ".4f"),
            _with_interval(s, "excess_leakage"),
            str(s["n_shared_seeds"]),
        )
    return table


def family_report(settings: pd.DataFrame, info: str) -> Table:
    """Per family, the least distortion at which these attackers get at most MARGIN beyond the label."""
    table = _table(
        f"Least distortion at which these attackers get at most {MARGIN:g} beyond the label",
        "Per family, the feasible setting of least distortion whose excess leakage on private training "
        f"images is at most {MARGIN:g} by its bound: the upper end of the one-sided 95 % Student-t interval "
        "over paired seeds (none with one seed). A bound below zero does not count: such attackers do worse "
        "than one who reads labels alone. It says nothing of attackers that are not in the suite, and is no "
        f"certificate. The worst attackers are those by error and by attack accuracy. {info}.",
        "defense<", "settings", "distortion", "knobs|", "excess leakage", "at most", "worst attackers|",
    )  # fmt: skip
    for _, f in family_table(settings).iterrows():
        attackers = dict.fromkeys(f[[c for c in f.index if c.endswith("_attacker")]].dropna())
        _row(
            table,
            str(f["defense"]),
            str(f["n_settings"]),
            "none shown" if pd.isna(f["trial"]) else number(f["confidence_distortion"], ".3g"),
            NOTHING if pd.isna(f["knobs"]) else str(f["knobs"]) or NOTHING,
            _with_interval(f, "excess_leakage"),
            number(f["excess_leakage_bound"], "+.3f"),
            ", ".join(attackers) or NOTHING,
        )
    return table


def fresh_report(bias: pd.DataFrame, info: str) -> Table:
    """The frontier on the seeds of the search, and on fresh ones (see ``selection_bias``)."""
    table = _table(
        f"Selection bias: {len(bias)} settings on the seeds of the search and on fresh ones",
        "Worst case: the best attacker of the suite on those seeds. A frontier picks the luckiest settings; "
        f"trust the fresh columns. {info}.",
        "distortion", "defense|", "error", "error, fresh", "excess leakage", "excess, fresh",
    )  # fmt: skip
    for _, row in bias.iterrows():
        error = [number(row[f"worst_reconstruction_error{end}"]) for end in ("", "_fresh")]
        excess = [_excess_text(row, end) for end in ("", "_fresh")]
        _row(table, f"{row['confidence_distortion']:.3g}", setting_name(row), *error, *excess)
    return table


def _excess_text(row: Mapping[str, Any], end: str) -> str:
    low, high = row[f"excess_leakage_low{end}"], row[f"excess_leakage_high{end}"]
    interval = "" if pd.isna(low) or pd.isna(high) else f"\n[{low:+.3f}, {high:+.3f}]"
    return number(row[f"excess_leakage{end}"], "+.3f") + interval


def equal_distortion(
    episodes: pd.DataFrame, settings: pd.DataFrame, controls: tuple[str, ...] = CONTROLS
) -> pd.DataFrame:
    """Each setting against the setting of each control that is nearest in log distortion (within NEAR).

    Every family but the controls themselves and the anchors is compared. Settings cut short are left out.

    Returns:
        One row per setting and control with such a neighbour, by family and distortion: both trials and
        distortions; mean over paired seeds of the setting's worst-case error minus the control's, its 95 %
        Student-t interval; a verdict. ``A beats B`` needs three seeds or more, and the Student-t and the
        bootstrap interval (see ``paired_difference``) both to exclude zero. ``p_holm``: the paired t-test's
        p, adjusted by Holm (1979) for the number of comparisons in the table.
    """
    worst = find_worst(prepare(episodes))
    seeds, seed = np.unique(worst.seed, return_inverse=True)
    errors = np.full((len(worst.trials), len(seeds)), np.nan)
    errors[worst.trial, seed] = worst.error
    known = worst.trials[worst.counts > 0]
    whole = ~settings["cut"].fillna(False).astype(bool)
    usable = settings[whole & settings["trial"].isin(known)].dropna(subset=["confidence_distortion"])
    usable = usable[usable["confidence_distortion"] > 0]
    usable = usable.sort_values(["confidence_distortion", "trial"], kind="stable", ignore_index=True)
    pairs = _neighbours(usable, controls)
    by_seed = errors[pd.Index(worst.trials).get_indexer(usable["trial"])]
    own, near = (by_seed[pairs[name].to_numpy(dtype=int)] for name in ("own", "near"))
    both = ~np.isnan(own) & ~np.isnan(near)
    n_pairs = both.sum(axis=1)
    compared: dict[int, tuple[Any, ...]] = {}
    for n in np.unique(n_pairs[n_pairs > 0]):
        places = np.flatnonzero(n_pairs == n)
        a, b = (values[places][both[places]].reshape(-1, n) for values in (own, near))
        paired = paired_differences(a, b, rng=np.random.default_rng(0))
        _, low, high = mean_intervals((a - b).ravel(), np.full(len(a), n))
        p = _paired_p(a - b) if n >= 3 else np.full(len(a), np.nan)
        compared |= dict(zip(places.tolist(), zip(paired, low, high, p, strict=True), strict=True))
    trials, defenses, distortions = (
        usable[c].to_numpy(dtype=object) for c in ("trial", "defense", "confidence_distortion")
    )
    rows = []
    for place, (i, j, other) in enumerate(pairs.itertuples(index=False)):
        if place not in compared:
            continue
        difference, *numbers = compared[place]
        bounds = [None if np.isnan(v) else v for v in numbers[:2]]
        verdict = TOO_FEW if difference.n < 3 else NO_DIFFERENCE
        if difference.significant:
            names = (defenses[i], other) if difference.mean > 0 else (other, defenses[i])
            verdict = f"{names[0]} beats {names[1]}"
        measured = (distortions[i], distortions[j], difference.mean, *bounds, difference.n)
        rows.append(
            (
                trials[i],
                defenses[i],
                other,
                trials[j],
                *measured,
                verdict,
                None if np.isnan(numbers[2]) else numbers[2],
            )
        )
    table = pd.DataFrame(rows, columns=list(PAIRS), dtype=object).astype(PAIRS)
    table["p_holm"] = holm(table["p_holm"])
    return table


def _neighbours(usable: pd.DataFrame, controls: tuple[str, ...]) -> pd.DataFrame:
    """Places of each setting (``own``) and of each control's nearest one (``near``), within NEAR."""
    logs = np.log(usable["confidence_distortion"].to_numpy(dtype=float))
    of_control = [np.flatnonzero((usable["defense"] == other).to_numpy(dtype=bool)) for other in controls]
    compared = usable[~usable["defense"].isin([*controls, *ANCHORS])]
    pairs = []
    for i in compared.sort_values("defense", kind="stable").index:
        for other, places in zip(controls, of_control, strict=True):
            apart = np.abs(logs[places] - logs[i])
            if len(apart) and apart.min() <= math.log(NEAR):
                pairs.append((i, int(places[apart.argmin()]), other))
    return pd.DataFrame(pairs, columns=["own", "near", "other"])


def _paired_p(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row of differences: the paired t-test's p; of constant ones 1 if they are 0, else 0."""
    constant = np.ptp(differences, axis=1) <= ROUNDING * np.abs(differences).max(axis=1)
    p = (~differences.any(axis=1)).astype(float)
    if not constant.all():
        p[~constant] = scipy.stats.ttest_1samp(differences[~constant], 0.0, axis=1).pvalue
    return p


def holm(p: pd.Series) -> pd.Series:
    """p-values adjusted for their number (Holm 1979); missing ones stay missing and do not count."""
    found = p.dropna().astype(float).sort_values(kind="stable")
    n = len(found)
    adjusted = np.minimum(np.maximum.accumulate(found.to_numpy() * (n - np.arange(n))), 1.0)
    return pd.Series(adjusted, index=found.index).reindex(p.index).astype("Float64")


def equal_distortion_report(episodes: pd.DataFrame, settings: pd.DataFrame, info: str) -> Table:
    """Families against noise, tail noise and rounding of the same size, evenly spaced if there are many."""
    pairs = equal_distortion(episodes, settings)
    counts = pairs["verdict"].value_counts()
    summary = ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) or "no pair near enough"
    shown = pairs.iloc[np.linspace(0, len(pairs) - 1, min(len(pairs), SHOWN)).round().astype(int)]
    table = _table(
        f"At equal distortion: against the nearest {', '.join(CONTROLS)} ({summary})",
        f"{len(shown)} of {len(pairs)} shown. The nearest in log distortion, within a factor {NEAR:g}. "
        "Difference: worst-case error minus the control's, times 1000, mean over paired seeds with 95 % "
        "Student-t interval; above zero the defense protects better than the control. A verdict needs three "
        "seeds and an interval (bootstrap too) without zero. p: paired t-test, adjusted by Holm for the "
        f"number of comparisons; a verdict with p above 0.05 may be one of many tries. {info}.",
        "distortion", "defense|", "distortion", "against|", "difference\nx 1000", "p", "verdict<",
    )  # fmt: skip
    by_trial = settings.set_index("trial", drop=False)
    for _, p in shown.iterrows():
        scaled = {k: p[k] * 1000 for k in ("difference", "difference_low", "difference_high")}
        _row(
            table,
            number(p["confidence_distortion"], ".3g"),
            setting_name(by_trial.loc[p["trial"]]),
            number(p["other_confidence_distortion"], ".3g"),
            setting_name(by_trial.loc[p["other_trial"]]),
            _with_interval(scaled, "difference", "+.2f"),
            number(p["p_holm"], ".2g"),
            textwrap.fill(str(p["verdict"]), 14),
        )
    return table


def indicators_report(
    episodes: pd.DataFrame, settings: pd.DataFrame, info: str, max_accuracy_drop: float
) -> Table:
    """Knee, hypervolume with its reference, and what half and three quarters of the seeds attain."""
    reference = reference_point(episodes)
    table = _table(
        "Indicators of the frontier",
        "Hypervolume: share of the box between the fixed corners; distortion from 0 to 1.1 times that of "
        "label-only, attack accuracy from chance to 1.05, error from that of the mean image to 0; a family's "
        "is taken with the anchors. Knee: farthest above the chord of the front of distortion and error. "
        "Attained: worst-case error that a quarter, half, three quarters of the seeds reach at no more than "
        f"that distortion, by settings of the family. {info}.",
        "indicator|", "value|",
    )  # fmt: skip
    cut = int(settings["cut"].fillna(False).sum())
    _row(table, "settings that nothing dominates", f"{len(pareto_front(settings))} of {len(settings)}")
    _row(table, "settings cut short (label-only dominates them)", str(cut))
    best = knee(settings)
    by_trial = settings.set_index("trial", drop=False)
    _row(table, "knee", NOTHING if best is None else f"{setting_name(by_trial.loc[best])} ({best})")
    if reference is not None:
        spread = hypervolume_by_seed(episodes, reference, max_accuracy_drop)
        interval = "" if spread.low is None else f" [{spread.low:.3f}, {spread.high:.3f}] over seeds"
        _row(table, "hypervolume of all settings, mean of each seed's", f"{spread.mean:.3f}{interval}")
        volumes = hypervolume_by_family(settings, reference)
        _row(table, "hypervolume by family", ", ".join(f"{f} {v:.3f}" for f, v in volumes.items()))
        corner = ", ".join(f"{v:.4g}" for v in (*reference.worst, *reference.ideal))
        _row(table, "its corners (distortion, accuracy, error): worst, ideal", corner)
    points = seed_points(episodes, settings)
    families = sorted(set(points["defense"]) - set(ANCHORS))
    attained = {family: attainment(points[points["defense"] == family]) for family in families}
    floor = by_trial.loc[by_trial["defense"] == LABEL_ONLY, "confidence_distortion"]
    for share in (0.1, 0.3, 1.0) if len(floor) and not pd.isna(floor.iloc[0]) else ():
        at = share * float(floor.iloc[0])
        for family, found in attained.items():
            values = [attained_at(found, level, at) for level in LEVELS]
            if any(v is not None for v in values):
                text = ", ".join(number(np.nan if v is None else v) for v in values)
                _row(table, f"attained at distortion {at:.3g}, {family}", text)
    return table


def attackers_report(episodes: pd.DataFrame, settings: pd.DataFrame, info: str, n: int = 8) -> Table:
    """Error of every attacker on the anchors and on settings spread over the front."""
    front = pareto_front(settings)
    rest = front[~front["defense"].isin(ANCHORS)]
    rest = (
        rest.iloc[np.linspace(0, len(rest) - 1, min(len(rest), n)).round().astype(int)] if len(rest) else rest
    )
    anchors = settings[settings["defense"].isin(ANCHORS)]
    columns = [*anchors["trial"], *rest["trial"]]
    ok = episodes[episodes["status"] == "ok"]
    errors = ok.pivot_table(index="attack", columns="trial", values="reconstruction_error", aggfunc="mean")
    table = _table(
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
        _row(table, str(attack), *cells)
    return table


def attackers_table(measured: pd.DataFrame, stored: pd.DataFrame | None = None) -> Table:
    """One setting: mean over seeds of each attacker's error and accuracy, with what is stored beside it."""
    table = _table(
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
        _row(table, str(attack), str(status[attack]), *cells)
    return table


def failures_report(episodes: pd.DataFrame, info: str) -> Table:
    """Failed episodes by defense, attacker and error."""
    bad = episodes[episodes["status"] == "failed"]
    table = _table(
        f"Failures: {len(bad)} of {len(episodes)} episodes",
        f"A failed episode has no measurements; its seed is left out of its setting's worst case. {info}.",
        "episodes", "defense<", "attacker<", "error|",
    )  # fmt: skip
    error = bad["error"].astype(object).fillna("unknown")
    groups = bad.groupby([bad["defense"], bad["attack"], error]).size()
    groups = groups.sort_values(ascending=False, kind="stable")
    for (defense, attack, error), count in groups.head(SHOWN).items():
        cut = textwrap.shorten(visible_line(error), 160, placeholder=" ...")
        _row(table, str(count), str(defense), str(attack), cut)
    if len(groups) > SHOWN:
        _row(table, str(groups.iloc[SHOWN:].sum()), "others", "", f"{len(groups) - SHOWN} more kinds")
    return table


def check_counts(episodes: pd.DataFrame, column: str) -> tuple[int, int, int, int]:
    """Settings that raised a check, those it applied to, and the same of records."""
    if column not in episodes:
        return 0, 0, 0, 0
    applies = episodes[episodes[column].notna()]
    raised = applies[applies[column].astype(bool)]
    return raised["trial"].nunique(), applies["trial"].nunique(), len(raised), len(applies)


def checks_report(episodes: pd.DataFrame, info: str) -> Table:
    """How many settings and records raised each validity check, of those it applied to; what that says."""
    table = _table(
        "Validity checks",
        "Settings: those with a record that raised the check, of those that it applied to; records are one a "
        f"seed and attacker, and repeat what is measured once a setting. See the columns check.*. {info}.",
        "settings", "records", "check<", "means|",
    )  # fmt: skip
    for column, _, means in checks_table():
        settings, of_settings, raised, applied = check_counts(episodes, column)
        meaning = means if raised else ("raised nowhere" if applied else "never applied")
        counts = (f"{settings}/{of_settings}", f"{raised}/{applied}")
        _row(table, *counts, column.removeprefix("check."), meaning)
    return table


def statistics_tables(
    episodes: pd.DataFrame,
    settings: pd.DataFrame,
    *,
    title_info: Mapping[str, object] | None = None,
    max_accuracy_drop: float = 0.02,
) -> list[Table]:
    """Frontier, families, comparison at equal distortion, indicators, attackers.

    Args:
        episodes: the records of one study.
        settings: their ``settings_table``.
        title_info: what captions say besides data, auxiliary, limit, seeds and device: study, scale.
        max_accuracy_drop: the study's constraint (share), for the hypervolume of each seed.
    """
    info = describe(episodes, title_info)
    tables = [frontier_report(settings, info), family_report(settings, info)]
    tables += [equal_distortion_report(episodes, settings, info)]
    tables += [indicators_report(episodes, settings, info, max_accuracy_drop)]
    return [*tables, attackers_report(episodes, settings, info)]


def print_report(
    episodes: pd.DataFrame,
    settings: pd.DataFrame,
    *,
    console: Console,
    title_info: Mapping[str, object] | None = None,
    max_accuracy_drop: float = 0.02,
) -> None:
    """Print the tables of :func:`statistics_tables`, then failures and raised checks.

    Args: see there; ``console`` is best at 100 columns or more.
    """
    info = describe(episodes, title_info)
    tables = statistics_tables(episodes, settings, title_info=title_info, max_accuracy_drop=max_accuracy_drop)
    if (episodes["status"] == "failed").any():
        tables += [failures_report(episodes, info)]
    for table in [*tables, checks_report(episodes, info)]:
        console.print(table)
        console.print()


def time_left(seconds: float | None) -> str:
    """``7 min left``; a dash for what is not known yet."""
    text = NOTHING
    if seconds is not None and math.isfinite(seconds):
        units = ((100, 1, "s"), (5400, 60, "min"), (math.inf, 3600, "h"))
        _, size, unit = next(u for u in units if seconds < u[0])
        text = f"{max(0.0, seconds) / size:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{text} left"


def progress_line(
    done: int,
    failed: int,
    total: int,
    best_worst_accuracy: float | None,
    hypervolume: float | None,
    seconds_left: float | None,
) -> str:
    """The live line of a study; what is not known yet shows as a dash."""
    best, volume = (number(math.nan if v is None else v, ".3f") for v in (best_worst_accuracy, hypervolume))
    counts = f"{done}/{total} done, {failed} failed"
    quality = f"lowest worst-case attack accuracy {best} | hypervolume {volume}"
    return f"{counts} | {quality} | {time_left(seconds_left)}"
