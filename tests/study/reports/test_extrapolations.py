"""Extrapolations end at certificates: against means over seeds, and rows without one as they were."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from study.records.constraints import Constraints
from study.reports.extrapolations import CUT, bounded_curves, certified_errors
from study.reports.findings import Findings
from study.reports.limits_report import extrapolation_text
from tests.study.analysis.helpers import make_episodes
from tests.study.records.test_curves import ROW


@pytest.fixture
def measured() -> pd.DataFrame:
    """Rounding has exact certificates; one setting's seed lacks one; noise has one that is not exact."""
    frame = make_episodes(n_lpa=2, seeds=3)
    some = frame["defense"].isin(["rounding", "noise"])
    for name in ("certified_error", "certified_error_test"):
        frame[name] = (0.025 + 0.001 * frame["seed"]).where(some)
    for name in ("smallest_cell", "smallest_cell_test"):
        frame[name] = np.where(frame["defense"] == "rounding", 7.0, np.nan)
    frame.loc[(frame["trial"] == "t102-rounding") & (frame["seed"] == 1), "certified_error"] = np.nan
    return frame


def test_only_exact_certificates_of_all_seeds(measured: pd.DataFrame) -> None:
    found = certified_errors(measured)
    assert set(found) == {
        (f"t10{i}-rounding", face)
        for i in range(1, 5)
        for face in ("train", "test")
        if (i, face) != (2, "train")
    }
    assert list(found.values()) == pytest.approx([0.026] * 7)


def test_limits_and_gains_end_at_the_certificate(measured: pd.DataFrame) -> None:
    curve = ROW | {
        "trial": "t101-rounding", "errors": [0.05, 0.04, 0.035, 0.032],
        "limit": 0.027, "limit_low": 0.001, "limit_high": 0.03,
        "gain": 0.15, "gain_low": 0.1, "gain_high": 1.0,
    }  # fmt: skip
    others = [curve | {"trial": trial} for trial in ("t102-rounding", "none", "t001-noise")]
    bounded, *rest = bounded_curves([curve, *others], measured)
    assert (bounded["limit"], bounded["limit_high"]) == (0.027, 0.03)
    assert bounded["limit_low"] == pytest.approx(0.026)
    assert (bounded["gain"], bounded["gain_low"]) == (0.15, 0.1)
    assert bounded["gain_high"] == pytest.approx(1 - 0.026 / 0.032)
    assert bounded[CUT]
    assert rest == [other | {CUT: False} for other in others]
    assert "cut off at its certificate" in extrapolation_text(bounded)
    assert "certificate" not in extrapolation_text(rest[0])
    assert bounded_curves([curve], make_episodes(n_lpa=2)) == [curve | {CUT: False}]  # older records
    found = Findings(episodes=measured, about={}, constraints=Constraints(), curves=[curve])
    floor = (
        measured[measured["defense"] == "label-only"].groupby("attack")["reconstruction_error"].mean().min()
    )
    table = found.leakage.set_index("trial")
    assert table.loc["t101-rounding", "extrapolated_excess_high"] == pytest.approx(max(0, 1 - 0.026 / floor))
