"""What the page's script draws: the settings' points and the worst attackers' curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mipoison.metrics.leakage import ERROR_PERCENTS, PERCENTILE_COLUMNS
from mipoison.metrics.statistics import mean_interval
from study.analysis.frontier import configuration_table, pareto_front
from study.records.constraints import Constraints
from study.reports.findings import Findings
from study.reports.html.chart_data import chart_data
from tests.study.records.test_curves import ROW
from tests.study.reports.html.helpers import numbers_of


def test_points_are_the_settings(page: str, episodes: pd.DataFrame) -> None:
    """Against plain means over the records, and the frontier's own table."""
    numbers = numbers_of(page)
    points = {p["trial"]: p for p in numbers["points"]}
    settings = configuration_table(episodes, constraints=Constraints())
    assert set(points) == set(settings.dropna(subset=["worst_reconstruction_error"])["trial"])
    assert {t for t, p in points.items() if p["front"]} == set(pareto_front(settings)["trial"])
    whole = episodes[(episodes["status"] == "ok") & ~episodes["trial"].isin(["t003-lpa", "t200-lfp"])]
    by_attack = whole.groupby(["trial", "attack"])[["reconstruction_error", "attack_accuracy"]].mean()
    for trial, means in by_attack.groupby(level="trial"):
        assert points[trial]["error"][0] == pytest.approx(means["reconstruction_error"].min())
        assert points[trial]["accuracy"][0] == pytest.approx(means["attack_accuracy"].max())
        worst = means["reconstruction_error"].idxmin()[1]
        errors = whole[(whole["trial"] == trial) & (whole["attack"] == worst)]["reconstruction_error"]
        interval = mean_interval(errors.to_numpy())
        assert points[trial]["error"][1:] == pytest.approx([interval.low, interval.high])
        text = "\n".join(points[trial]["lines"])
        assert f"by {worst}" in text
        assert "seeds 3" in text
    assert "budget=" in points["t005-lpa"]["lines"][0]
    assert points["t200-lfp"]["cut"]
    assert "bound" in points["t200-lfp"]["lines"][-1]
    assert points["t003-lpa"]["command"] == (
        "python study/evaluate.py --like 'results/it'\"'\"'s here' --trial t003-lpa --data-root '/my data'"
    )


def test_curves_are_the_mean_percentiles_of_the_worst_attacker(page: str, episodes: pd.DataFrame) -> None:
    numbers = numbers_of(page)
    curve = next(c for c in numbers["curves"] if c["trial"] == "t005-lpa")
    own = episodes[(episodes["trial"] == "t005-lpa") & (episodes["attack"] == curve["attacker"])]
    assert curve["epsilon"] == pytest.approx(own[list(PERCENTILE_COLUMNS)].mean().tolist(), rel=1e-4)
    assert numbers["eta"] == [p / 100 for p in ERROR_PERCENTS]


def found_in(frame: pd.DataFrame) -> pd.DataFrame:
    return Findings(episodes=frame, about={}, constraints=Constraints()).with_leakage


def test_a_curve_s_limit_stands_beside_the_estimated_one(episodes: pd.DataFrame) -> None:
    frame = episodes.assign(estimated_limit=0.011 + 0.001 * episodes["seed"])
    settings = found_in(frame)
    rows = [ROW | {"trial": "none"}, ROW | {"trial": "none", "face": "test", "limit": 0.5}]
    commands = dict.fromkeys(settings["trial"], "again")
    drawn = chart_data(frame, settings, commands, rows)
    points = {p["trial"]: p for p in drawn["points"]}
    assert points["none"]["extrapolated"] == [0.03, 0.02, 0.031]
    assert points["none"]["limit"] == pytest.approx(0.012)
    assert points["none"]["lines"][-3] == "estimated limit 0.0120 (MSE on train images)"
    assert points["none"]["lines"][-2].startswith(
        "extrapolated: error 0.0300 [0.0200, 0.0310] on train images"
    )
    assert [t for t, p in points.items() if "extrapolated" in p] == ["none"]
    # Every setting with an estimated limit shows it, learning curve or not.
    assert [p["limit"] for p in drawn["points"] if p["trial"] != "t003-lpa"] == pytest.approx(
        [0.012] * (len(drawn["points"]) - 1)
    )
    older = chart_data(episodes, found_in(episodes), commands, rows)
    point = next(p for p in older["points"] if p["trial"] == "none")
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
    settings = found_in(frame)
    drawn = chart_data(frame, settings, dict.fromkeys(settings["trial"], "again"), margin=0.05)
    assert drawn["charts"] == ["error", "accuracy", "excess", "identification"]
    assert (drawn["margin"], drawn["chance"]) == (0.05, 0.5)
    floor = frame[frame["defense"] == "label-only"].groupby("attack")[list(more)[:1]].mean().min()
    for trial in ("none", "t005-lpa"):
        point = next(p for p in drawn["points"] if p["trial"] == trial)
        means = frame[frame["trial"] == trial].groupby("attack")[list(more)].mean()
        auc = means[["identification_auc", "identification_auc_test"]].max(axis=None)
        assert point["identification"][0] == pytest.approx(auc)
        text = "\n".join(point["lines"])
        assert f"identification AUC {auc:.3f}" in text
        train = frame[frame["defense"] == "label-only"].groupby("attack")["reconstruction_error"].mean().min()
        excess = [
            1 - means["reconstruction_error_test"].min() / floor["reconstruction_error_test"],
            1 - frame[frame["trial"] == trial].groupby("attack")["reconstruction_error"].mean().min() / train,
        ]
        assert point["excess"][0] == pytest.approx(max(0.0, *excess))
        assert f"excess leakage {max(0.0, *excess):.3f}" in text
        assert "certified: nothing" in text
    certain = frame.assign(attack_accuracy=frame["attack_accuracy"].where(~ok, 1.0))
    settings = found_in(certain)
    drawn = chart_data(certain, settings, dict.fromkeys(settings["trial"], "again"))
    assert drawn["charts"] == ["error", "excess", "identification"]


def test_older_records_have_no_chart_of_identification(page: str) -> None:
    numbers = numbers_of(page)
    assert numbers["charts"] == ["error", "accuracy", "excess"]
    assert 'id="frontier-excess"' in page
    assert 'id="frontier-identification"' not in page
    assert {tuple(p["identification"]) for p in numbers["points"]} == {(None, None, None)}
