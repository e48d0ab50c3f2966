"""Reports read the columns that they show, and no others."""

from pathlib import Path

from study.analysis.frontier import configuration_table
from study.records.finished import load
from study.reports.columns import SHOWN, shown_in_reports
from study.reports.report_files import markdown_of


def test_the_page_of_the_shown_columns_is_that_of_all(small_study: Path) -> None:
    whole, few = load(small_study), load(small_study, wanted=shown_in_reports)
    assert len(few.episodes.columns) < 0.8 * len(whole.episodes.columns)
    assert set(SHOWN) <= set(few.episodes)
    assert markdown_of(few) == markdown_of(whole)
    assert configuration_table(few.episodes, constraints=whole.constraints).equals(
        configuration_table(whole.episodes, constraints=whole.constraints)
    )
