"""From the records alone: the tables and the figure that the study itself wrote."""

from pathlib import Path

from study.records.finished import load
from study.reports.report_files import markdown_of, write_tables_and_figure


def test_rendering_is_what_the_study_wrote(small_study: Path, tmp_path: Path) -> None:
    study = load(small_study)
    write_tables_and_figure(study, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frontier.png", "report.md"]
    assert (
        (tmp_path / "report.md").read_text() == markdown_of(study) == (small_study / "report.md").read_text()
    )
    assert (tmp_path / "frontier.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
