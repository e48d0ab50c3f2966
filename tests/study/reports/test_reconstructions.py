"""Reconstructions worth a picture: the anchors, and of each defense the best."""

import pandas as pd

from study.analysis.frontier import configuration_table
from study.records.constraints import Constraints
from study.reports.reconstructions import chosen_settings


def test_of_each_defense_the_best_is_shown(episodes: pd.DataFrame) -> None:
    settings = configuration_table(episodes, constraints=Constraints())
    found = chosen_settings(settings)
    assert found["defense"].tolist()[:2] == ["none", "label-only"]
    assert found["defense"].is_unique
    assert len(found) > 2
    for _, row in found.iloc[2:].iterrows():
        same = settings[settings["defense"] == row["defense"]]
        fine = same[same["feasible"]] if same["feasible"].any() else same
        assert row["worst_reconstruction_error"] == fine["worst_reconstruction_error"].max()
