"""Upper limits are rounded up, by one function, wherever they are printed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from study.reports.board import caption, cells, judged_settings
from study.reports.findings import Findings
from study.reports.html.chart_data import settings
from study.reports.label import label, label_markdown
from study.reports.markdown import markdown
from study.reports.rounding import limits_of, rounded_up, upper_limit
from study.reports.summary import summary
from tests.study.reports.test_label import study_of
from tests.study.reports.test_summary import rows


@pytest.mark.parametrize(
    ("limit", "text"),
    [(0.0111, "0.012"), (0.011, "0.011"), (0.0110000000001, "0.011"), (1e-16, "0.000"), (-0.0004, "0.000")],
)
def test_up_and_not_by_the_noise_of_sums(limit: float, text: str) -> None:
    assert upper_limit(limit) == text
    assert rounded_up(limit) == float(text)


def test_texts() -> None:
    row = {"x": 0.0042, "x_low": -0.0014, "x_high": 0.0101}
    assert limits_of(row, "x") == "0.004 [-0.001, 0.011]"
    assert limits_of(row, "x", between="\n") == "0.004\n[-0.001, 0.011]"
    assert limits_of(row | {"x_low": None}, "x") == "0.004"
    assert limits_of(row | {"x": pd.NA}, "x", missing="not known") == "not known"
    assert upper_limit(None) == "-"
    assert upper_limit(0.0101, sign="+") == "+0.011"


def test_one_limit_is_one_number_in_answer_tables_page_label_and_board(tmp_path: Path) -> None:
    """A safe setting's upper limit, which the nearest rounding would put lower, and a certificate."""
    sure = {"smallest_cell": 7, "smallest_cell_test": 5}
    bound = sure | {"certified_excess": 0.0512, "certified_excess_test": 0.04}
    study = study_of(
        rows("t1", "rounding", distortion=0.2, gain=0.0, seed=3, **bound),
        rows("t2", "noise", distortion=0.1, gain=0.0, seed=5),
        tmp_path=tmp_path,
    )
    study.episodes["victim"] = "mlp"
    found = Findings.of(study)
    for trial in ("t1", "t2"):
        more = found.with_leakage.set_index("trial").loc[trial]
        high = float(more["excess_high"])
        said = f"{rounded_up(high):.3f}"
        assert f"{high:.3f}" != said
        assert f", {said}]" in label_markdown(label(study, trial))
        head, lines = cells(judged_settings(study, "s").query("trial == @trial"))
        assert lines[0][head.index("excess at most")] == said
        commands = dict.fromkeys(found.configurations["trial"], "")
        point = next(r for r in settings(found, found.with_leakage, commands) if r["trial"] == trial)
        assert any(f", {said}]" in line for line in point["lines"])
        assert f", {said}]" in markdown(found)
    _, lines = cells(judged_settings(study, "s").query("trial == 't1'"))
    assert "0.052" in lines[0]
    assert "at most 0.052" in label_markdown(label(study, "t1"))
    assert "rounded up" in caption()
    assert "Upper limits are rounded up" in " ".join(" ".join(summary(found)).split())
