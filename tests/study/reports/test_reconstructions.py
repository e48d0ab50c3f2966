"""Reconstructions worth a picture: the anchors, and of each defense the best."""

import pandas as pd

from study.analysis.frontier import configuration_table
from study.reports.reconstructions import chosen_settings


def test_of_each_family_the_best_is_shown(episodes: pd.DataFrame) -> None:
    settings = configuration_table(episodes, max_accuracy_drop=0.02)
    found = chosen_settings(settings)
    assert found["defense"].tolist()[:2] == ["none", "label-only"]
    assert found["defense"].is_unique
    for _, row in found.iloc[2:].iterrows():
        family = settings[settings["defense"] == row["defense"]]
        fine = family[family["feasible"]] if family["feasible"].any() else family
        assert row["worst_reconstruction_error"] == fine["worst_reconstruction_error"].max()
