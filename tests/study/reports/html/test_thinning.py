"""A page of many settings keeps the frontier and thins the rest."""

from __future__ import annotations

import numpy as np
from pandas.testing import assert_frame_equal

from study.analysis.frontier import configuration_table
from study.records.constraints import Constraints
from study.records.schema import to_frame
from study.reports.html.thinning import thinned
from tests.study import synthetic


def test_a_page_keeps_the_frontier_and_thins_the_rest() -> None:
    rng = np.random.default_rng(0)
    frame = to_frame(synthetic.episodes(synthetic.plan(300, rng), 2, synthetic.ATTACKERS[:2], rng))
    settings = configuration_table(frame, constraints=Constraints())
    shown = thinned(settings, 200)
    assert len(shown) == 200
    front = settings[settings["feasible"].fillna(False) & ~settings["cut"] & (settings["dominated_by"] == 0)]
    assert set(front["trial"]) <= set(shown["trial"])
    assert {"none", "label-only"} <= set(shown["trial"])
    assert set(shown["defense"]) == set(settings["defense"])
    assert_frame_equal(shown, settings.loc[shown.index])
    assert thinned(settings, 400) is settings
