"""The picture of a study's extract shows the numbers of its table; README's is of the committed records."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from study.records.finished import load
from study.reports.extract import shown_rows
from study.reports.extract_figure import CERTIFIED, KNOWN, WORST, extract_figure, main
from study.reports.findings import Findings

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "study" / "results" / "digits"


@pytest.fixture(scope="module")
def found() -> Findings:
    return Findings.of(load(DIGITS))


def test_points_and_bands_are_the_table_s(found: Findings) -> None:
    rows, marks = shown_rows(found, KNOWN)
    (axes,) = extract_figure(found, KNOWN).axes
    points = {
        (round(float(x), 9), round(float(y), 9))
        for drawn in axes.collections
        if hasattr(drawn, "get_offsets") and len(drawn.get_paths()) == 1 and len(drawn.get_facecolor())
        for x, y in drawn.get_offsets()
    }
    wanted = {
        (round(float(row["confidence_distortion"]), 9), round(max(0.0, float(row[WORST])), 9)) for row in rows
    }
    assert len(wanted) > 10
    assert wanted <= points
    tops = {
        round(float(segment[1][1]), 9)
        for drawn in axes.collections
        if hasattr(drawn, "get_segments")
        for segment in drawn.get_segments()
    }
    assert tops == {
        round(max(0.0, float(row[WORST]), float(row[CERTIFIED])), 9)
        for row in rows
        if not pd.isna(row[CERTIFIED])
    }
    assert sorted(text.get_text() for text in axes.texts) == sorted(marks.values()) == ["deploy", "next"]


def test_what_was_only_screened_is_hollow(found: Findings) -> None:
    rows, _ = shown_rows(found, KNOWN)
    cut = sum(bool(row["cut"]) for row in rows if not pd.isna(row["cut"]))
    (axes,) = extract_figure(found, KNOWN).axes
    white = [
        drawn
        for drawn in axes.collections
        if len(drawn.get_facecolor()) and np.allclose(drawn.get_facecolor()[0], 1)
    ]
    assert len(white) == cut > 0


def test_the_committed_picture_is_that_of_the_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for what another release of matplotlib draws otherwise."""
    assert main([str(DIGITS), str(tmp_path / "again.png")]) == 0
    again, committed = (matplotlib.image.imread(p) for p in (tmp_path / "again.png", DIGITS / "extract.png"))
    assert again.shape == committed.shape
    assert float(np.abs(again - committed).mean()) < 0.01
    assert "study/results/digits/extract.png" in (ROOT / "README.md").read_text()


def test_a_misused_command_says_how() -> None:
    assert main([]) == 2
    assert main(["study", "picture.svg"]) == 2
