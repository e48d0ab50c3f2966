"""Defenses compared at equal distortion: verdicts, Holm's correction, neighbours."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mipoison.metrics.statistics import mean_interval, mean_intervals, paired_difference, paired_differences
from study.analysis.comparisons import equal_distortion, holm
from study.analysis.frontier import configuration_table
from study.records.constraints import Constraints
from tests.study.analysis.helpers import make_episodes, record


def study_with_differences(differences, distortion=0.11):
    errors = {"t-lpa": ("lpa", 0.1, differences), "t-noise": ("noise", distortion, [0.0] * len(differences))}
    return pd.DataFrame(
        record(trial, family, "raw", seed, distortion=d, error=0.03 + extra)
        for trial, (family, d, extras) in errors.items()
        for seed, extra in enumerate(extras)
    )


def compared(frame):
    return equal_distortion(frame, configuration_table(frame, constraints=Constraints()))


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.0010, 0.0011, 0.0012, 0.0009], "lpa beats noise"),
        ([-0.0010, -0.0011, -0.0012, -0.0009], "noise beats lpa"),
        ([0.0010, -0.0011, 0.0012, -0.0009], "no difference shown"),
        ([0.0010, 0.0002, 0.0060], "no difference shown"),  # the bootstrap alone would exclude zero
        ([0.0010, 0.0011], "too few seeds"),
        ([0.0010], "too few seeds"),
    ],
)
def test_verdicts_at_equal_distortion(differences, verdict):
    (pair,) = compared(study_with_differences(differences)).to_dict("records")
    assert pair["verdict"] == verdict
    expected = mean_interval(differences)
    assert pair["difference"] == pytest.approx(expected.mean)
    if expected.low is not None:
        bounds = (pair["difference_low"], pair["difference_high"])
        assert bounds == pytest.approx((expected.low, expected.high))


def test_every_family_but_controls_and_anchors_is_compared():
    frame = study_with_differences([0.0010, 0.0011, 0.0012])
    renamed = frame.replace({"defense": {"lpa": "lpa-ensemble"}})
    (pair,) = compared(renamed).to_dict("records")
    assert (pair["defense"], pair["verdict"]) == ("lpa-ensemble", "lpa-ensemble beats noise")
    assert compared(frame.replace({"defense": {"lpa": "tail-noise"}})).empty
    assert compared(frame.replace({"defense": {"lpa": "label-only"}})).empty


def test_settings_cut_short_are_not_compared():
    frame = study_with_differences([0.0010, 0.0011, 0.0012])
    extra = frame[frame["trial"] == "t-lpa"].assign(attack="tuned", status="cut", reconstruction_error=None)
    frame = pd.concat([frame, extra, frame[frame["trial"] == "t-noise"].assign(attack="tuned")])
    assert compared(frame).empty


def test_what_lies_above_the_floor_is_the_attackers_failure():
    """Both settings keep the label alone: noise's attackers only did worse, which is no protection."""
    frame = study_with_differences([-0.0010, -0.0011, -0.0012, -0.0009])
    (pair,) = compared(frame).to_dict("records")
    assert pair["verdict"] == "noise beats lpa"
    floor = [record("label-only", "label-only", "raw", s, distortion=0.4, error=0.028) for s in range(3)]
    (pair,) = compared(pd.concat([frame, pd.DataFrame(floor)])).to_dict("records")
    assert pair["difference"] == pytest.approx((-0.0009) / 4)  # on the last seed the floor is unknown
    assert pair["verdict"] == "no difference shown"


def test_a_setting_that_was_evaluated_twice_is_compared_once():
    frame = make_episodes(n_lpa=4)
    again = frame[frame["defense"] == "lpa"].assign(trial=lambda rows: rows["trial"] + "-again")
    pd.testing.assert_frame_equal(compared(frame), compared(pd.concat([frame, again])))


def test_holm_by_hand():
    p = pd.Series([0.01, None, 0.04, 0.03], dtype="Float64")
    assert holm(p).tolist()[::2] == pytest.approx([0.03, 0.06])
    assert holm(p)[3] == pytest.approx(0.06)
    assert pd.isna(holm(p)[1])
    assert holm(pd.Series([0.9, 0.8], dtype="Float64")).tolist() == [1.0, 1.0]


def test_only_near_distortions_are_compared():
    assert len(compared(study_with_differences([0.1, 0.1], distortion=0.149))) == 1
    assert compared(study_with_differences([0.1, 0.1], distortion=0.151)).empty
    assert compared(study_with_differences([0.1, 0.1], distortion=0.0)).empty
    frame = make_episodes(n_lpa=4)
    pairs = compared(frame)
    assert set(pairs["other"]) == {"noise", "rounding"}
    assert (pairs["other_confidence_distortion"] / pairs["confidence_distortion"]).between(1 / 1.5, 1.5).all()
    pd.testing.assert_frame_equal(pairs, compared(frame.sample(frac=1, random_state=1)))


def test_many_intervals_and_comparisons_are_those_of_each() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 12, 60)
    values = rng.normal(size=counts.sum())
    mean, low, high = mean_intervals(values, counts)
    for i, sample in enumerate(np.split(values, np.cumsum(counts)[:-1])):
        one = mean_interval(sample) if len(sample) else None
        expected = (None, None, None) if one is None else (one.mean, one.low, one.high)
        assert expected == tuple(None if np.isnan(v) else v for v in (mean[i], low[i], high[i]))
    for n in (1, 2, 3, 9):
        a, b = rng.normal(size=(2, 300, n))
        b[:20] = a[:20]  # constant differences, too
        together = paired_differences(a, b, rng=np.random.default_rng(1))
        alone = [paired_difference(x, y, rng=np.random.default_rng(1)) for x, y in zip(a, b, strict=True)]
        assert together == alone
