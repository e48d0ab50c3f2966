"""What the page's script draws: the settings' points and the worst attackers' curves."""

from __future__ import annotations

import pandas as pd
import pytest

from mipoison.metrics.leakage import ERROR_PERCENTS, PERCENTILE_COLUMNS
from mipoison.metrics.statistics import mean_interval
from study.analysis.frontier import configuration_table, pareto_front
from study.records.constraints import Constraints
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


def test_a_curve_s_limit_stands_beside_the_estimated_one(episodes: pd.DataFrame) -> None:
    frame = episodes.assign(estimated_limit=0.011 + 0.001 * episodes["seed"])
    settings = configuration_table(frame, constraints=Constraints())
    rows = [ROW | {"trial": "none"}, ROW | {"trial": "none", "face": "test", "limit": 0.5}]
    commands = dict.fromkeys(settings["trial"], "again")
    drawn = chart_data(frame, settings, commands, rows)
    points = {p["trial"]: p for p in drawn["points"]}
    assert points["none"]["extrapolated"] == [0.03, 0.02, 0.031]
    assert points["none"]["limit"] == pytest.approx(0.012)
    assert points["none"]["lines"][-3] == "estimated limit 0.0120 (MSE)"
    assert points["none"]["lines"][-2].startswith(
        "extrapolated: error 0.0300 [0.0200, 0.0310] on train images"
    )
    assert [t for t, p in points.items() if "extrapolated" in p or "limit" in p] == ["none"]
    plain = chart_data(frame, settings, commands)
    others = [p for p in drawn["points"] if p["trial"] != "none"]
    assert others == [p for p in plain["points"] if p["trial"] != "none"]
    older = chart_data(episodes, settings, commands, rows)
    point = next(p for p in older["points"] if p["trial"] == "none")
    assert point["limit"] is None
    assert "estimated" not in "".join(point["lines"])
