"""The table of utility: every face of the settings that matter, and what breaks a constraint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from mipoison.defenses import ANCHORS
from study.analysis.utility import COLUMNS
from study.records.constraints import FACES, Constraints
from study.reports.findings import Findings
from study.reports.utility_report import HEADINGS, utility_report
from tests.study.analysis.helpers import make_episodes

WIDTH = 100


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    frame = make_episodes(n_lpa=3, seeds=2)
    for column in COLUMNS:
        if column not in frame:
            frame[column] = (
                0.123 if column.startswith("clean_") else 0.25 + 0.5 * frame["confidence_distortion"]
            )
    return frame


def printed(episodes: pd.DataFrame, **bounds: Any) -> tuple[str, Findings]:
    found = Findings(episodes=episodes, about={"study": "s"}, constraints=Constraints(**bounds))
    console = Console(record=True, width=WIDTH, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(utility_report(found))
    return console.export_text(), found


def test_it_has_every_face_of_anchors_and_frontier(measured: pd.DataFrame) -> None:
    assert [*HEADINGS, "confidence_distortion"] == sorted(
        FACES, key=[*HEADINGS, "confidence_distortion"].index
    )
    text, found = printed(measured)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text
    utility = found.utility.set_index("trial")
    for trial in {*ANCHORS, *found.front["trial"]}:
        assert f"{utility.loc[trial, 'log_loss']:.3f}" in text
        assert f"{utility.loc[trial, 'log_loss_increase']:+.3f}" in text
        assert f"{utility.loc[trial, 'top5_agreement']:.3g}" in text
    assert " !" not in text.partition("The anchors, the frontier")[0]


def test_what_breaks_a_constraint_is_marked(measured: pd.DataFrame) -> None:
    text, found = printed(measured, max_confidence_distortion=0.1)
    rows = text.partition("The anchors, the frontier")[0]
    floor = found.configurations.set_index("trial").loc["label-only", "confidence_distortion"]
    assert floor > 0.1
    assert rows.count("!") == 1  # label-only: whatever else is too distorted is not on the frontier
    assert f"{floor:.3g} !" in rows
    assert "accuracy drop at most 0.02, distortion at most 0.1" in " ".join(text.split())


def test_faces_of_older_records_are_left_out(measured: pd.DataFrame) -> None:
    text, _ = printed(make_episodes(n_lpa=2, seeds=2))
    heading = text.partition("──")[0]
    assert "distortion" in heading
    assert "top-5" not in heading
    assert "nan" not in text
    assert "<NA>" not in text
    some = measured.assign(top5_agreement=np.where(measured["trial"] == "none", np.nan, 0.5))
    assert "top-5" in printed(some)[0].partition("──")[0]
