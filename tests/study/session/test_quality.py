"""The quality from outcomes equals the one computed from all records."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from mipoison.defenses import ANCHORS
from study.analysis.frontier import configuration_table, hypervolume, reference_point
from study.records.schema import to_frame
from study.session.quality import quality
from study.trial.run import Record, outcome_of

RESULTS = Path(__file__).parents[3] / "study" / "results"
DROP = 0.02


@pytest.mark.parametrize("name", ["digits-search", "fashion-search", "mnist-suite"])
def test_it_is_that_of_the_records(name: str) -> None:
    table = pq.read_table(io.BytesIO((RESULTS / name / "episodes.parquet").read_bytes()))
    trials: dict[str, list[Record]] = {}
    for row in table.to_pylist():
        trials.setdefault(row["trial"], []).append(row)
    episodes = to_frame(table)
    settings = configuration_table(episodes, max_accuracy_drop=DROP)
    usable = settings[settings["feasible"].fillna(False).astype(bool)]
    corner = reference_point(episodes)
    assert corner is not None
    anchors = [row for anchor in ANCHORS for row in trials[anchor]]
    best, volume = quality([outcome_of(rows, DROP) for rows in trials.values()], anchors, DROP)
    assert len(trials) > 5
    assert best == pytest.approx(usable["worst_attack_accuracy"].min(), abs=1e-12)
    assert volume == pytest.approx(hypervolume(settings, corner), abs=1e-12)
    assert volume > 0


def test_nothing_is_known_without_anchors_or_values() -> None:
    assert quality([], [], DROP) == (None, None)
    assert quality([{"worst_attack_accuracy": None, "accuracy_drop": 0.0, "cut": 0.0}], [], DROP) == (
        None,
        None,
    )
    assert pd.isna(quality([{"worst_attack_accuracy": 0.3, "accuracy_drop": 0.5}], [], DROP)[0])
