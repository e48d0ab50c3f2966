"""What the page's charts draw: the settings, and the worst attackers' curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mipoison.metrics.leakage import ERROR_PERCENTS, PERCENTILE_COLUMNS
from mipoison.metrics.statistics import mean_interval
from study.analysis.frontier import configuration_table, pareto_front
from study.records.constraints import Constraints
from study.reports.findings import Findings
from study.reports.html.chart_data import settings, varied_knobs
from tests.study.records.test_curves import ROW
from tests.study.reports.html.helpers import numbers_of, settings_of
from tests.study.reports.test_label import study_of
from tests.study.reports.test_summary import CERTIFIED, rows


def test_points_are_the_settings(page: str, episodes: pd.DataFrame) -> None:
    """Against plain means over the records, and the frontier's own table."""
    points = {p["trial"]: p for p in settings_of(page)}
    table = configuration_table(episodes, constraints=Constraints())
    assert set(points) == set(table.dropna(subset=["worst_reconstruction_error"])["trial"])
    assert {t for t, p in points.items() if p["front"]} == set(pareto_front(table)["trial"])
    whole = episodes[(episodes["status"] == "ok") & ~episodes["trial"].isin(["t003-lpa", "t200-lfp"])]
    by_attack = whole.groupby(["trial", "attack"])[["reconstruction_error", "attack_accuracy"]].mean()
    for trial, means in by_attack.groupby(level="trial"):
        assert points[trial]["error"] == pytest.approx(means["reconstruction_error"].min())
        assert points[trial]["accuracy"] == pytest.approx(means["attack_accuracy"].max())
        worst = means["reconstruction_error"].idxmin()[1]
        errors = whole[(whole["trial"] == trial) & (whole["attack"] == worst)]["reconstruction_error"]
        interval = mean_interval(errors.to_numpy())
        ends = [points[trial]["error_low"], points[trial]["error_high"]]
        assert ends == pytest.approx([interval.low, interval.high])
        text = "\n".join(points[trial]["lines"])
        assert f"by {worst}" in text
        assert "seeds 3" in text
    assert "budget=" in points["t005-lpa"]["lines"][0]
    assert points["t200-lfp"]["screened"]
    assert not points["t200-lfp"]["solid"]
    assert points["t005-lpa"]["knob_rounds"] == whole[whole["trial"] == "t005-lpa"]["defense.rounds"].iloc[0]
    assert "bound" in points["t200-lfp"]["lines"][-1]
    assert points["t003-lpa"]["command"] == (
        "python study/evaluate.py --like 'results/it'\"'\"'s here' --trial t003-lpa --data-root DATA"
    )


def test_curves_are_the_mean_percentiles_of_the_worst_attacker(page: str, episodes: pd.DataFrame) -> None:
    rows = numbers_of(page)["studies"][0]["datasets"]["curves"]
    trials = {row["trial"] for row in rows}
    assert {"none", "label-only"} < trials
    assert len(trials) <= 2 + episodes["defense"].nunique()  # the anchors, and each defense's best
    for trial in trials:
        curve = [row for row in rows if row["trial"] == trial]
        own = episodes[(episodes["trial"] == trial) & (episodes["attack"] == curve[0]["attacker"])]
        expected = own[list(PERCENTILE_COLUMNS)].mean().tolist()
        assert [row["epsilon"] for row in curve] == pytest.approx(expected, rel=1e-4)
        assert [row["eta"] for row in curve] == [p / 100 for p in ERROR_PERCENTS]


def test_knobs_that_were_varied_get_a_chart(page: str) -> None:
    rows = settings_of(page)
    assert ("noise", "budget", True) in varied_knobs(rows, 4)
    assert ("lpa", "rounds", True) in varied_knobs(rows, 4)
    assert "label-only" not in {defense for defense, _, _ in varied_knobs(rows, 1)}
    assert varied_knobs(rows, 100) == []


def drawn(frame: pd.DataFrame, curves: Sequence[dict[str, Any]] = (), margin: float = 0.02) -> list[Any]:
    found = Findings(episodes=frame, about={}, constraints=Constraints(), curves=curves, margin=margin)
    shown = found.with_leakage
    return settings(found, shown, dict.fromkeys(shown["trial"], "again"), "none")


def test_a_curve_s_limit_stands_beside_the_estimated_one(episodes: pd.DataFrame) -> None:
    frame = episodes.assign(estimated_limit=0.011 + 0.001 * episodes["seed"])
    rows = [ROW | {"trial": "none"}, ROW | {"trial": "none", "face": "test", "limit": 0.5}]
    points = {p["trial"]: p for p in drawn(frame, rows)}
    ends = [points["none"][f"extrapolated_error{end}"] for end in ("", "_low", "_high")]
    assert ends == [0.03, 0.02, 0.031]
    assert points["none"]["limit"] == pytest.approx(0.012)
    assert points["none"]["lines"][-3] == "estimated limit 0.0120 (MSE on train images)"
    assert points["none"]["lines"][-2].startswith(
        "extrapolated: error 0.0300 [0.0200, 0.0310] on train images"
    )
    assert [t for t, p in points.items() if "extrapolated_error" in p] == ["none"]
    # Every setting with an estimated limit shows it, learning curve or not.
    assert [p["limit"] for t, p in points.items() if t != "t003-lpa"] == pytest.approx(
        [0.012] * (len(points) - 1)
    )
    point = next(p for p in drawn(episodes, rows) if p["trial"] == "none")
    assert point["recommended"]
    assert point["limit"] is None
    assert "estimated" not in "".join(point["lines"])


def test_excess_and_identification_are_the_larger_of_train_and_test(episodes: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    more = {
        "reconstruction_error_test": episodes["reconstruction_error"] * rng.uniform(0.8, 1.2, len(episodes)),
        "identification_auc": rng.uniform(0.5, 0.9, len(episodes)),
        "identification_auc_test": rng.uniform(0.5, 0.9, len(episodes)),
    }
    ok = episodes["status"] == "ok"
    frame = episodes.assign(**{name: np.where(ok, values, np.nan) for name, values in more.items()})
    points = drawn(frame)
    floor = frame[frame["defense"] == "label-only"].groupby("attack")[list(more)[:1]].mean().min()
    for trial in ("none", "t005-lpa"):
        point = next(p for p in points if p["trial"] == trial)
        means = frame[frame["trial"] == trial].groupby("attack")[list(more)].mean()
        auc = means[["identification_auc", "identification_auc_test"]].max(axis=None)
        assert point["identification"] == pytest.approx(auc)
        text = "\n".join(point["lines"])
        assert f"identification AUC {auc:.3f}" in text
        train = frame[frame["defense"] == "label-only"].groupby("attack")["reconstruction_error"].mean().min()
        excess = [
            1 - means["reconstruction_error_test"].min() / floor["reconstruction_error_test"],
            1 - frame[frame["trial"] == trial].groupby("attack")["reconstruction_error"].mean().min() / train,
        ]
        assert point["excess"] == pytest.approx(max(0.0, *excess))
        assert f"excess leakage {max(0.0, *excess):.3f}" in text
        assert "certified: nothing" in text


def test_older_records_have_no_identification(page: str) -> None:
    assert {p["identification"] for p in settings_of(page)} == {None}
    assert 'data-chart="error"' in page
    assert 'data-chart="identification"' not in page


def test_bounds_from_above_are_rounded_up(tmp_path: Path) -> None:
    bound = CERTIFIED | {"certified_excess_test": 0.0152}
    part = rows("t1", "rounding", distortion=0.2, gain=0.0, seed=3, **bound)
    found = Findings.of(study_of(part, tmp_path=tmp_path))
    commands = dict.fromkeys(found.configurations["trial"], "")
    row = next(r for r in settings(found, found.with_leakage, commands) if r["trial"] == "t1")
    assert (row["certified"], row["certified_most"]) == (0.0152, 0.016)
    assert "certified: at most 0.016 (share)" in row["lines"]
    assert row["excess_high"] <= row["excess_most"] < row["excess_high"] + 0.001
