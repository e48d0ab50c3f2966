"""The frontier agrees with a slow loop and hand-computed cases, and ignores the order of rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
from pandas.testing import assert_frame_equal

from study.analysis.frontier import (
    COLUMNS,
    Reference,
    configuration_table,
    defense_table,
    frontier_table,
    hypervolume,
    pareto_front,
    reference_point,
)
from study.records.constraints import Constraints
from tests.study.analysis.helpers import ATTACKS, failed, make_episodes, one_each, record, row_of, table


def dominates(p, q):
    nowhere_worse = p[0] <= q[0] and p[1] <= q[1] and p[2] >= q[2]
    return nowhere_worse and (p[0] < q[0] or p[1] < q[1] or p[2] > q[2])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("grid", [3, 1000])
def test_front_is_that_of_a_slow_loop(seed, grid):
    # A coarse grid makes ties and duplicates
    points = np.random.default_rng(seed).integers(0, grid, (40, 3)) / grid
    settings = table(one_each(points))
    counts = [sum(dominates(q, p) for q in points) for p in points]
    assert settings["dominated_by"].tolist() == counts
    expected = sorted((p[0], f"t{i:03d}") for i, p in enumerate(points) if counts[i] == 0)
    assert pareto_front(settings)["trial"].tolist() == [trial for _, trial in expected]


def test_equal_settings_all_stay_and_infeasible_ones_neither_stay_nor_dominate():
    rows = one_each([(0.1, 0.5, 0.02), (0.1, 0.5, 0.02), (0.2, 0.6, 0.01)])
    rows.append(record("better", "lfp", "raw", 0, distortion=0.01, accuracy=0.1, error=0.04, drop=0.03))
    settings = table(rows)
    assert pareto_front(settings)["trial"].tolist() == ["t000", "t001"]
    assert settings["trial"].tolist() == ["better", "t000", "t001", "t002"]
    assert settings["dominated_by"].tolist() == [0, 0, 0, 2]
    assert not row_of(settings, "better")["feasible"]
    assert row_of(table(rows, max_accuracy_drop=0.03), "better")[
        "feasible"
    ]  # 0.95 - 0.92 is not 0.03 in binary


@pytest.mark.parametrize(
    ("excess", "within"),
    [
        ((0.010, 0.012, 0.011), True),
        ((0.019, 0.020, 0.021), False),  # the mean is at the margin, the bound is not
        ((0.022, 0.033, 0.045), False),
        ((-0.10, 0.0, 0.13), False),  # an interval that reaches far below zero, and far above
        ((-0.017, -0.018, -0.016), False),  # worse than reading labels: no evidence
        ((-0.010, 0.000, 0.008), True),
    ],
)
def test_within_the_margin_is_non_inferiority(excess, within):
    rows = [record("label-only", "label-only", "raw", s, error=0.05) for s in range(3)]
    rows += [record("a", "lpa", "raw", s, error=0.05 * (1 - e)) for s, e in enumerate(excess)]
    got = row_of(table(rows), "a")
    # scipy's own one-sided interval, by the test that a mean is not less
    test = scipy.stats.ttest_1samp(excess, 0.0, alternative="less")
    assert got["excess_leakage_bound"] == pytest.approx(test.confidence_interval(0.95).high)
    assert got["within_margin"] == within
    assert pd.notna(defense_table(table(rows)).set_index("defense").loc["lpa", "trial"]) == within


def test_cost_counts_each_seed_once():
    rows = [record("a", "lpa", "raw", 0, distortion=0.1, drop=0.01)]
    rows += [record("a", "lpa", "raw", 1, distortion=0.3, drop=0.03)]
    rows += [record("a", "lpa", "passive", 1, distortion=0.3, drop=0.03)]  # seed 1 has twice as many rows
    rows += [failed(record("a", "lpa", "passive", 0))]
    got = row_of(table(rows), "a")
    assert got["confidence_distortion"] == pytest.approx(0.3)  # only seed 1 has the whole suite
    rows = [r for r in rows if r["attack"] == "raw" or r["seed"] == 0]
    got = row_of(table(rows), "a")  # now 'passive' succeeded nowhere, and leaves the suite
    assert (got["confidence_distortion"], got["accuracy_drop"]) == pytest.approx((0.2, 0.02))


def test_failures_are_counted_and_a_setting_without_a_worst_case_is_null():
    rows = [record("a", "lpa", k, s) for k in ATTACKS for s in range(2)]
    broken = [record("b", "noise", k, s, distortion=0.001) for k in ATTACKS for s in range(2)]
    broken[0], broken[1] = failed(broken[0]), failed(broken[1])
    partly = [record("c", "noise", k, s, error=0.03 + 0.01 * s) for k in ATTACKS for s in range(2)]
    partly[0] = failed(partly[0])
    unfinished = [record("d", "noise", "raw", 0, error=0.049)]
    settings = table(rows + broken + partly + unfinished)
    got = settings.set_index("trial")
    assert got["n_failed"].to_dict() == {"a": 0, "b": 2, "c": 1, "d": 0}
    assert got["complete"].to_dict() == {"a": True, "b": False, "c": False, "d": False}
    assert got["n_shared_seeds"].to_dict() == {"a": 2, "b": 0, "c": 1, "d": 0}
    for trial in ("b", "d"):
        assert got.loc[trial, [c for c in COLUMNS if c.startswith("worst_")]].isna().all()
        assert pd.isna(got.loc[trial, "dominated_by"])
    assert got.loc["b", "confidence_distortion"] == pytest.approx(0.001)  # of the attackers that succeeded
    assert got.loc["c", "worst_reconstruction_error"] == pytest.approx(0.04)
    assert pd.isna(got.loc["c", "worst_reconstruction_error_low"])
    assert pareto_front(settings)["trial"].tolist() == ["c"]


def test_a_study_in_which_everything_failed():
    rows = [failed(record("a", "lpa", "raw", s)) for s in range(2)]
    frame = pd.DataFrame(rows).drop(columns=["attack_accuracy", "reconstruction_error", "mean_image_error"])
    settings = configuration_table(frame, constraints=Constraints())
    assert settings["n_failed"].tolist() == [2]
    assert not settings["feasible"].any()
    assert pareto_front(settings).empty
    assert reference_point(frame) is None
    assert defense_table(settings)["trial"].isna().all()
    assert configuration_table(frame.iloc[:0], constraints=Constraints()).empty


def test_without_a_label_only_anchor_excess_is_null():
    frame = make_episodes()
    settings = configuration_table(frame[frame["defense"] != "label-only"], constraints=Constraints())
    assert settings[["excess_leakage", "excess_attack_accuracy", "within_margin"]].isna().all().all()
    assert settings["worst_attack_accuracy"].notna().all()
    assert not pareto_front(settings).empty
    assert defense_table(settings)["trial"].isna().all()
    assert reference_point(frame[frame["defense"] != "label-only"]) is None


def test_one_seed_has_no_interval():
    settings = configuration_table(make_episodes(seeds=1), constraints=Constraints())
    bounds = [c for c in COLUMNS if c.endswith(("_low", "_high"))]
    assert settings[bounds].isna().all().all()
    told = settings.set_index("trial")["within_margin"].dropna()
    assert told.to_dict() == {"label-only": True}  # the floor by definition; one seed bounds nothing else


@pytest.mark.parametrize("seed", range(2))
def test_neither_row_order_nor_files_matter(seed):
    frame = make_episodes()
    frame = pd.concat([frame, pd.DataFrame([failed(frame.iloc[7].to_dict()) | {"episode_id": "again"}])])
    rng = np.random.default_rng(seed)
    shuffled = frame.iloc[rng.permutation(len(frame))]
    parts = [part.dropna(axis=1, how="all") for _, part in shuffled.groupby("trial", sort=False)]
    joined = pd.concat([parts[i] for i in rng.permutation(len(parts))])
    for other in (shuffled, joined.reindex(columns=[c for c in joined.columns[::-1]])):
        kept = frame if other is shuffled else frame[[c for c in frame.columns if c in other.columns]]
        assert_frame_equal(frontier_table(other, Constraints()), frontier_table(kept, Constraints()))
        assert_frame_equal(
            configuration_table(other, constraints=Constraints()),
            configuration_table(kept, constraints=Constraints()),
        )


def test_frontier_survives_parquet(tmp_path):
    front = frontier_table(make_episodes(), Constraints())
    assert front.dtypes.astype(str).to_dict().items() >= {
        "trial": "string", "worst_attack_accuracy": "Float64", "complete": "boolean", "n_pairs": "Int64",
        "defense.budget": "Float64", "defense.rounds": "Int64", "defense.substitute_features": "string",
        "defense.swap": "boolean", "defense.decimals": "Int64",
    }.items()  # fmt: skip
    pq.write_table(pa.Table.from_pandas(front, preserve_index=False), tmp_path / "frontier.parquet")
    back = pd.read_parquet(tmp_path / "frontier.parquet")
    assert_frame_equal(back, front, check_dtype=False)
    again = make_episodes()
    again.to_parquet(tmp_path / "episodes.parquet")
    assert_frame_equal(frontier_table(pd.read_parquet(tmp_path / "episodes.parquet"), Constraints()), front)


def test_hypervolume_by_hand():
    reference = Reference(worst=(1.0, 1.0, 0.0), ideal=(0.0, 0.2, 0.05))
    # scaled: (0.5, 0.5, 0.4) covers 0.5 * 0.5 * 0.6 = 0.15
    one = (0.5, 0.6, 0.03)
    assert hypervolume(table(one_each([one])), reference) == pytest.approx(0.15)
    # and (0.2, 0.75, 0.8) covers 0.8 * 0.25 * 0.2 = 0.04, of which 0.5 * 0.25 * 0.2 = 0.025 twice
    two = (0.2, 0.8, 0.01)
    assert hypervolume(table(one_each([one, two])), reference) == pytest.approx(0.165)
    beyond = [(0.0, 0.1, 0.07), (1.5, 0.1, 0.04), (0.1, 0.3, -0.01)]
    assert hypervolume(table(one_each(beyond[:1])), reference) == pytest.approx(1.0)
    assert hypervolume(table(one_each(beyond[1:])), reference) == 0.0
    assert hypervolume(table(one_each([one], drop=0)).iloc[:0], reference) == 0.0
    infeasible = [*one_each([one]), record("x", "lfp", "raw", 0, drop=0.5, distortion=0.0, accuracy=0.0)]
    assert hypervolume(table(infeasible), reference) == pytest.approx(0.15)


def test_reference_is_fixed_by_the_label_only_anchor():
    frame = make_episodes(seeds=2)
    assert reference_point(frame).ideal[1] == 0
    frame["n_classes"] = 5
    got = reference_point(frame)
    assert got.worst == pytest.approx((1.1 * 0.35 * 1.005, 1.05, 0))
    assert got.ideal == pytest.approx((0, 0.2, 0.05))
    assert reference_point(frame[frame["defense"].isin(["label-only", "none"])]) == got
    assert 0 < hypervolume(configuration_table(frame, constraints=Constraints()), got) < 1


def test_defense_table_names_the_cheapest_setting_within_the_margin():
    frame = make_episodes(n_lpa=18, seeds=6)
    settings = configuration_table(frame, constraints=Constraints())
    got = defense_table(settings).set_index("defense")
    assert got.loc["lpa", "n_settings"] == 18
    within = settings[(settings["defense"] == "lpa") & settings["within_margin"]]
    assert 2 <= len(within) < 18
    assert got.loc["lpa", "confidence_distortion"] == within["confidence_distortion"].min()
    assert "budget=" in got.loc["lpa", "knobs"]
    assert pd.isna(got.loc["lfp", "trial"])  # costs too much accuracy
    assert pd.isna(got.loc["none", "trial"])
    assert got.loc["label-only", "trial"] == "label-only"
