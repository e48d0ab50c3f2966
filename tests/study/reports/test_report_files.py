"""From the records alone: the tables and the figure that the study itself wrote."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from study import pareto
from study.records.finished import load
from study.reports import html
from study.reports.html import build
from study.reports.report_files import markdown_of, write_tables_and_figure
from tests.study.conftest import SMALL


def test_rendering_is_what_the_study_wrote(small_study: Path, tmp_path: Path) -> None:
    study = load(small_study)
    write_tables_and_figure(study, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frontier.png", "report.md"]
    assert (
        (tmp_path / "report.md").read_text() == markdown_of(study) == (small_study / "report.md").read_text()
    )
    assert (tmp_path / "frontier.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_study_keeps_the_margin_that_its_answer_was_given_with(
    small_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "write_page", lambda *args, **more: 0)  # it is built below, without vectors
    shutil.copytree(small_study, tmp_path / "small")
    arguments = [*SMALL.split(), "--storage", str(tmp_path), "--resume", "--margin", "0.999"]
    assert pareto.main(arguments) == 0  # a resumed study may have another margin
    study = load(tmp_path / "small")
    assert (load(small_study).margin, study.margin) == (0.02, 0.999)
    written = (tmp_path / "small" / "report.md").read_text()
    assert written == markdown_of(study) != markdown_of(load(small_study))
    assert "gains more than 0.999 over the label alone" in " ".join(written.split())
    title = "at which these attackers get at most 0.999 beyond the label"
    assert title in written
    assert title in build(study, "small", with_vectors=False)
    found = pd.read_parquet(tmp_path / "small" / "frontier.parquet").set_index("trial")
    assert found.loc["none", "excess_leakage_bound"] > 0.02
    assert found.loc["none", "within_margin"] == (found.loc["none", "excess_leakage_bound"] <= 0.999)
    before, now = (
        json.loads((p / "small" / "study.json").read_text()) for p in (small_study.parent, tmp_path)
    )
    assert now == before | {"margin": 0.999}
