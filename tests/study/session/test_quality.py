"""The quality from outcomes equals the one computed from all records."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mipoison.defenses import ANCHORS
from study.analysis.frontier import configuration_table, hypervolume, reference_point
from study.analysis.verdicts import verdict_table
from study.records.constraints import Constraints
from study.records.schema import to_frame
from study.session.quality import Least, Quality, corner_of, quality
from study.trial.run import Record, outcomes_of

RESULTS = Path(__file__).parents[3] / "study" / "results"
DROP = Constraints()


@pytest.mark.parametrize("name", ["digits-search", "fashion-search", "mnist-suite"])
def test_it_is_that_of_the_records(name: str) -> None:
    table = pq.read_table(io.BytesIO((RESULTS / name / "episodes.parquet").read_bytes()))
    trials: dict[str, list[Record]] = {}
    for row in table.to_pylist():
        trials.setdefault(row["trial"], []).append(row)
    episodes = to_frame(table)
    settings = configuration_table(episodes, constraints=DROP)
    usable = settings[settings["feasible"].fillna(False).astype(bool)]
    corner = reference_point(episodes)
    assert corner is not None
    anchors = [row for anchor in ANCHORS for row in trials[anchor]]
    outcomes = outcomes_of(trials, DROP, trials["label-only"])
    found = quality(outcomes, corner_of(anchors), DROP)
    assert len(trials) > 5
    assert found.accuracy == pytest.approx(usable["worst_attack_accuracy"].min(), abs=1e-12)
    assert found.hypervolume == pytest.approx(hypervolume(settings, corner), abs=1e-12)
    assert found.hypervolume is not None
    assert found.hypervolume > 0
    verdicts = verdict_table(episodes).set_index("trial")["suite_excess_worst"]
    searched = usable[~usable["cut"] & ~usable["trial"].isin(ANCHORS)].set_index("trial")
    least = verdicts.reindex(searched.index).astype(float)
    assert found.excess is not None
    assert found.excess.value == pytest.approx(least.min(), abs=1e-12)
    cheapest = searched.loc[least == least.min(), "confidence_distortion"].min()
    assert found.excess.distortion == pytest.approx(cheapest, abs=1e-12)
    assert found.identification is None  # these records are older than the column


def test_nothing_is_known_without_anchors_or_values() -> None:
    assert quality({}, None, DROP) == Quality()
    unknown: dict[str, float | None] = {"worst_attack_accuracy": None, "accuracy_drop": 0.0, "cut": 0.0}
    assert quality({"t": unknown}, None, DROP) == Quality()
    assert quality({"t": {"worst_attack_accuracy": 0.3, "accuracy_drop": 0.5}}, None, DROP).accuracy is None


def test_the_least_leakage_is_that_of_the_searched_feasible_whole_settings() -> None:
    def setting(excess: float, auc: float, distortion: float, **more: float) -> dict[str, float | None]:
        names = ("suite_excess_worst", "worst_identification_auc", "confidence_distortion")
        values = dict(zip(names, (excess, auc, distortion), strict=True))
        return {**values, "accuracy_drop": 0.0, "cut": 0.0, **more}

    outcomes = {
        "label-only": setting(0.0, 0.5, 0.3),
        "a": setting(0.2, 0.7, 0.01),
        "b": setting(0.1, 0.8, 0.02),
        "b-twin": setting(0.1, 0.9, 0.015),
        "infeasible": setting(0.05, 0.55, 0.02, accuracy_drop=0.5),
        "cut": setting(0.05, 0.55, 0.4, cut=3.0),
    }
    found = quality(outcomes, None, DROP)
    assert (found.excess, found.identification) == (Least(0.1, 0.015), Least(0.7, 0.01))
