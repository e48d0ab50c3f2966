"""The table of certain, measured, estimated and extrapolated leakage, and the answer's line of it."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from study.records.constraints import Constraints
from study.reports.findings import Findings
from study.reports.limits_report import (
    BOUNDS_NOTHING,
    CERTIFICATE_HOLDS,
    errors_text,
    extrapolation_text,
    limits_report,
)
from study.reports.markdown import markdown
from study.reports.summary import summary
from tests.study.analysis.helpers import make_episodes
from tests.study.records.test_curves import ROW


def curve(trial: str, face: str = "train", **more: Any) -> dict[str, Any]:
    return ROW | {"trial": trial, "face": face} | more


@pytest.fixture(scope="module")
def episodes() -> pd.DataFrame:
    frame = make_episodes(n_lpa=2, seeds=3)
    frame["reconstruction_error_test"] = frame["reconstruction_error"]
    frame["estimated_limit"] = frame["estimated_limit_test"] = 0.02
    return frame


def of(episodes: pd.DataFrame, *curves: dict[str, Any]) -> Findings:
    return Findings(episodes=episodes, about={"study": "s"}, constraints=Constraints(), curves=curves)


def printed(found: Findings) -> str:
    sink = io.StringIO()
    Console(file=sink, width=120).print(limits_report(found))
    return sink.getvalue()


def test_a_row_is_computed_by_hand(episodes: pd.DataFrame) -> None:
    text = printed(of(episodes, curve("none"), curve("none", "test", gain=0.1, gain_low=0.0, gain_high=0.2)))
    floor = (
        episodes[episodes["defense"] == "label-only"].groupby("attack")["reconstruction_error"].mean().min()
    )
    shares = [1 - (1 - gain) * 0.032 / floor for gain in (0.1, 0.03, 0.4)]  # the larger of train and test
    assert f"{max(0.0, shares[0]):.3f}" in text
    assert f"[{max(0.0, shares[1]):.3f}, {shares[2]:.3f}]" in text
    assert f"{1 - 0.02 / floor:.3f}" in text
    assert "50.0 at 45, 40.0 at 90" in text
    assert "35.0 at 180, 32.0 at 360" in text
    assert "kernel" in text
    assert BOUNDS_NOTHING in " ".join(text.split())
    assert "noise" not in text  # no curve


def test_estimates_above_a_certificate_are_explained(episodes: pd.DataFrame) -> None:
    """Label-only has a certificate of 0, and with more images better means of the labels."""
    sure = episodes.copy()
    mine = sure["defense"] == "label-only"
    for pool in ("", "_test"):
        sure.loc[mine, f"certified_excess{pool}"] = 0.0
        sure.loc[mine, f"smallest_cell{pool}"] = 7
    curves = [curve("none"), curve("label-only")]
    assert CERTIFICATE_HOLDS in " ".join(printed(of(sure, *curves)).split())
    sure.loc[mine, ["certified_excess", "certified_excess_test"]] = 0.99
    assert CERTIFICATE_HOLDS not in " ".join(printed(of(sure, *curves)).split())


def test_errors_stand_on_lines_of_two() -> None:
    row = curve("none", sizes=[1, 2, 3], errors=[0.1, 0.05, 0.025])
    assert errors_text(row) == "100.0 at 1, 50.0 at 2\n25.0 at 3"


def test_the_page_of_a_study_without_curves_is_as_before(episodes: pd.DataFrame) -> None:
    plain, curved = of(episodes), of(episodes, *(curve(t) for t in ("none", "label-only")))
    assert "extrapolated" not in markdown(plain)
    assert "How much leaks" not in markdown(plain)
    assert "How much leaks" in markdown(curved)
    line = next(text for text in summary(curved) if text.startswith("extrapolated"))
    assert line.startswith("extrapolated     error 0.0300 [0.0200, 0.0310] on train images if kernel")
    without = [text for text in summary(curved) if "extrapolated" not in text]
    assert without[:2] == summary(plain)[:2]
    assert len(without) - len(summary(plain)) <= 1


def test_a_curve_of_an_unknown_trial_is_not_shown(episodes: pd.DataFrame) -> None:
    assert "50.0 at 45" not in printed(of(episodes, curve("t999-noise")))


def test_doubts_about_an_extrapolation_are_said(episodes: pd.DataFrame) -> None:
    assert extrapolation_text(curve("none")).endswith("(it bounds nothing)")
    one = extrapolation_text(curve("none", seeds=[0], scale=0.0))
    assert "interval too narrow, as one seed" in one
    assert "no law of a falling error fits" in one
    seldom = " ".join(printed(of(episodes, curve("none", seeds=[0]))).split())
    assert "too narrow, as one seed" in seldom
    assert "too narrow" not in " ".join(printed(of(episodes, curve("none"))).split())
