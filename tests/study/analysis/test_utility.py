"""The faces of utility of each setting, against a slow loop over the records."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import pytest

from study.analysis.frontier import configuration_table, pareto_front, reference_point
from study.analysis.indicators import hypervolume_by_seed
from study.analysis.utility import COLUMNS, face_values, utility_table
from study.records.constraints import FACES, Constraints, bound_of
from tests.study.analysis.helpers import failed, make_episodes


def with_utility(frame: pd.DataFrame) -> pd.DataFrame:
    """Made-up faces, equal for all attackers of a setting and seed."""
    rng = np.random.default_rng(1)
    groups = frame.groupby(["trial", "seed"]).ngroup().to_numpy()
    own = {name: rng.uniform(0, 0.5, groups.max() + 1)[groups] for name in COLUMNS}
    own = {name: values for name, values in own.items() if name not in frame}
    return frame.assign(**own)


@pytest.fixture(scope="module")
def episodes() -> pd.DataFrame:
    frame = with_utility(make_episodes(n_lpa=3, seeds=3))
    rows = frame.to_dict("records")
    lost = next(i for i, r in enumerate(rows) if r["trial"] == "t001-noise" and r["seed"] == 1)
    rows[lost] = failed(rows[lost])  # its seed is left out of the setting's means
    frame = pd.DataFrame(rows)
    frame.loc[frame["trial"] == "t002-lpa", "top5_agreement"] = np.nan
    return frame


def slowly(episodes: pd.DataFrame, trial: str, face: str) -> float | None:
    rows: list[dict[str, Any]] = episodes[episodes["trial"] == trial].to_dict("records")
    seeds = {r["seed"] for r in rows} - {r["seed"] for r in rows if r["status"] != "ok"}
    known = FACES[face]
    values = []
    for seed in sorted(seeds):
        row = next(r for r in rows if r["seed"] == seed)
        values.append(row[known.column] - (0 if known.less is None else row[known.less]))
    values = [v for v in values if not np.isnan(v)]
    return fmean(values) if values else None


def test_every_face_is_the_mean_over_the_seeds_of_the_worst_case(episodes: pd.DataFrame) -> None:
    table = utility_table(episodes.sample(frac=1, random_state=0)).set_index("trial")
    assert list(table.index) == sorted(episodes["trial"].unique())
    for trial in table.index:
        for face in FACES:
            expected = slowly(episodes, trial, face)
            if expected is None:
                assert pd.isna(table.loc[trial, face])
            else:
                assert table.loc[trial, face] == pytest.approx(expected)
    both = configuration_table(episodes, constraints=Constraints()).set_index("trial")
    for name in ("confidence_distortion", "accuracy_drop"):
        pd.testing.assert_series_equal(table[name], both[name])


def test_older_records_have_the_faces_that_they_measured() -> None:
    table = utility_table(make_episodes(n_lpa=2, seeds=2))
    assert table[["confidence_distortion", "accuracy_drop"]].notna().all(axis=None)
    assert table["log_loss_increase"].isna().all()
    assert len(utility_table(make_episodes(n_lpa=2).iloc[:0])) == 0


def test_face_values_are_per_row() -> None:
    rows = pd.DataFrame({"ece": [0.3, np.nan], "clean_ece": [0.1, 0.1], "top2_agreement": [0.5, 0.6]})
    got = face_values(rows, ["ece_increase", "top2_agreement"])
    assert got["ece_increase"].iloc[0] == pytest.approx(0.2)
    assert np.isnan(got["ece_increase"].iloc[1])
    assert got["top2_agreement"].tolist() == [0.5, 0.6]


@pytest.mark.parametrize("face", FACES)
def test_a_bound_decides_who_is_feasible_and_changes_no_other_number(
    episodes: pd.DataFrame, face: str
) -> None:
    ok = episodes[episodes["status"] == "ok"]
    by_trial = {  # over all seeds, also those on which an attacker failed
        trial: np.mean(
            [
                float("nan") if (v := FACES[face].of(seed.iloc[0].to_dict())) is None else v
                for _, seed in part.groupby("seed")
            ]
        )
        for trial, part in ok.groupby("trial")
    }
    values = utility_table(episodes).set_index("trial")[face].astype(float)
    values = pd.Series(by_trial).reindex(values.index)
    bound = max(float(values.median()), 0.0)
    constraints = Constraints(**{"max_accuracy_drop": 1.0, bound_of(face): bound})
    table = configuration_table(episodes, constraints=constraints).set_index("trial")
    slack = 1e-9
    expected = values >= bound - slack if FACES[face].more_is_better else values <= bound + slack
    assert expected.sum() > 0
    assert table["feasible"].tolist() == (expected & values.notna()).tolist()
    assert set(pareto_front(table.reset_index())["trial"]) <= set(values.index[expected])
    free = configuration_table(episodes, constraints=Constraints(max_accuracy_drop=1.0)).set_index("trial")
    assert list(table.columns) == list(free.columns)
    same = [c for c in free if c not in ("feasible", "dominated_by")]
    pd.testing.assert_frame_equal(table[same], free[same])


def test_the_hypervolume_of_a_seed_is_that_of_its_feasible_settings(episodes: pd.DataFrame) -> None:
    reference = reference_point(episodes)
    assert reference is not None
    every = hypervolume_by_seed(episodes, reference, Constraints(max_accuracy_drop=1.0)).mean
    some = hypervolume_by_seed(
        episodes, reference, Constraints(max_accuracy_drop=1.0, min_top2_agreement=0.25)
    ).mean
    assert 0 < some < every
