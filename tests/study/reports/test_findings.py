"""The tables of a report: what each is computed from, and that each is computed once."""

from __future__ import annotations

import pandas as pd
from pandas.testing import assert_frame_equal

from study.analysis.frontier import configuration_table, pareto_front
from study.analysis.selection_bias import selection_bias
from study.analysis.utility import utility_table
from study.analysis.verdicts import verdict_table
from study.records.constraints import Constraints
from study.reports.findings import Findings
from study.reports.leakage import leakage_table
from study.reports.tables import statistics_tables

BOUNDS = Constraints(max_confidence_distortion=0.1)


def test_each_table_is_that_of_the_records(episodes: pd.DataFrame) -> None:
    fresh = episodes.assign(seed=episodes["seed"] + 100)
    found = Findings(episodes=episodes, fresh=fresh, about={"study": "s"}, constraints=BOUNDS, margin=0.3)
    table, again = (configuration_table(f, constraints=BOUNDS, margin=0.3) for f in (episodes, fresh))
    assert_frame_equal(found.configurations, table)
    assert_frame_equal(found.front, pareto_front(table))
    assert found.front["confidence_distortion"].max() <= 0.1
    verdicts = verdict_table(episodes, margin=0.3)
    assert_frame_equal(found.verdicts, verdicts)
    assert_frame_equal(found.leakage, leakage_table(episodes, verdicts))
    assert_frame_equal(found.utility, utility_table(episodes))
    assert found.bias is not None
    assert_frame_equal(found.bias, selection_bias(table, again))
    for name in ("configurations", "verdicts", "leakage", "utility", "bias"):
        assert getattr(found, name) is getattr(found, name)


def test_without_fresh_seeds_there_is_no_bias(episodes: pd.DataFrame) -> None:
    for fresh in (None, episodes.iloc[:0]):
        found = Findings(episodes=episodes, fresh=fresh, about={}, constraints=BOUNDS)
        assert found.again is None
        assert found.bias is None


def test_what_page_and_tables_share_is_made_once_for_each_study(episodes: pd.DataFrame) -> None:
    one, other = (Findings(episodes=episodes, about={"study": n}, constraints=BOUNDS) for n in "ab")
    asked: list[object] = []

    def make(found: Findings) -> str:
        asked.append(found.about["study"])
        return f"of {found.about['study']}"

    assert [f.once(make) for f in (one, one, other)] == ["of a", "of a", "of b"]
    assert asked == ["a", "b"]
    assert one.judged is one.judged
    tables = statistics_tables(one)
    tables.clear()  # the caller's own list
    assert len(statistics_tables(one)) == 6
