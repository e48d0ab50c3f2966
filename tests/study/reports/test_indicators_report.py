"""The table of indicators: defenses are compared under the attackers that all settings faced."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from mipoison.metrics.statistics import mean_interval
from study.analysis.frontier import reference_point
from study.analysis.indicators import hypervolume_by_defense
from study.records.constraints import Constraints
from study.reports.findings import Findings
from study.reports.indicators_report import indicators_report, spread_text
from tests.study.analysis.helpers import make_episodes

SCREENED = "t003-noise"
"""A setting that the others' attackers did not attack."""


@pytest.fixture
def screened() -> pd.DataFrame:
    """A study whose attacker ``raw`` screened: of one setting it is the only one that ran."""
    episodes = make_episodes()
    episodes["screened"] = (episodes["trial"] == SCREENED).astype("boolean")
    cut = episodes["screened"] & (episodes["attack"] != "raw")
    episodes.loc[cut, "status"] = "cut"
    episodes.loc[cut, ["attack_accuracy", "reconstruction_error"]] = None
    return episodes


def text(found: Findings) -> str:
    sink = io.StringIO()
    Console(file=sink, width=200, color_system=None).print(indicators_report(found))
    return " ".join(sink.getvalue().split())


def test_defenses_are_compared_under_the_attackers_that_all_settings_faced(screened: pd.DataFrame) -> None:
    found = Findings(episodes=screened, about={"study": "s"}, constraints=Constraints())
    assert set(found.alike["attack"]) == {"raw"}
    assert not found.comparable["cut"].any()
    assert found.configurations.set_index("trial").loc[SCREENED, "cut"]
    reference = reference_point(screened)
    assert reference is not None
    table = text(found)
    for defense, volume in hypervolume_by_defense(found.comparable, reference).items():
        assert f"{defense} {volume:.3f}" in table
    assert "the attackers that screened: raw" in table
    assert "settings cut short: not all attackers ran 1" in table


def test_without_screening_nothing_is_left_out() -> None:
    found = Findings(episodes=make_episodes(), about={"study": "s"}, constraints=Constraints())
    assert found.alike is found.episodes
    assert found.comparable is found.configurations
    assert "screened" not in text(found)


def test_a_share_s_interval_stays_within_0_and_1() -> None:
    few = spread_text(mean_interval(np.array([0.2, 0.5])))
    assert few == " [0.000, 1.000] over seeds (cut off at 0 and 1: too few seeds)"
    enough = spread_text(mean_interval(np.array([0.41, 0.4, 0.42, 0.4])))
    assert enough.startswith(" [0.3")
    assert enough.endswith("over seeds")
    assert spread_text(mean_interval(np.array([0.2]))) == ""
