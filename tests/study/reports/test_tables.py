"""The tables fit a terminal of 100 columns, and the figures have content."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from mipoison.metrics.checks import checks_table
from mipoison.metrics.statistics import mean_interval
from study.analysis.check_counts import check_counts
from study.analysis.comparisons import equal_distortion, holm
from study.analysis.frontier import configuration_table, defense_table, pareto_front
from study.reports.cells import describe
from study.reports.figures import COLOURS, frontier_figure, grid_figure, style_of
from study.reports.tables import print_report
from study.runtime.progress import progress_line
from tests.study.analysis.test_frontier import failed, make_episodes, record

WIDTH = 100


def printed(episodes, **title_info):
    settings = configuration_table(episodes, max_accuracy_drop=0.02)
    console = Console(record=True, width=WIDTH, file=open("/dev/null", "w"))  # noqa: SIM115
    print_report(episodes, settings, console=console, title_info=title_info)
    return console.export_text(), settings


@pytest.fixture(scope="module")
def episodes():
    rows = make_episodes(seeds=4).to_dict("records")
    lpa = [i for i, r in enumerate(rows) if r["trial"] == "t003-lpa"]
    rows[lpa[0]] = failed(rows[lpa[0]], "RuntimeError: [/bold] CUDA out of memory")
    rows[lpa[1]]["check.no_better_than_mean_image"] = True
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def report(episodes):
    return printed(episodes, study="test-study", scale="tiny")


def test_report_fits_and_truncates_nothing(report):
    text, settings = report
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text
    for _, s in pareto_front(settings).iterrows():
        assert f"{s['confidence_distortion']:.3g}" in text
        assert f"{s['worst_attack_accuracy']:.3f}" in text
        assert f"{s['worst_reconstruction_error']:.4f}" in text
        assert f"[{s['excess_leakage_low']:+.3f}, {s['excess_leakage_high']:+.3f}]" in text
    for defense in defense_table(settings)["defense"]:
        assert re.search(rf"^ +{defense} ", text, flags=re.MULTILINE)
    assert "<NA>" not in text
    assert "nan" not in text
    assert "sub_features=log" in text


def test_every_caption_says_where_the_numbers_come_from(report):
    flat = " ".join(report[0].split())
    source = "study test-study; scale tiny; data digits; auxiliary same; all training images; 4 seeds"
    assert flat.count(source + " (0, 1, 2, 3)") == 7
    assert flat.count("device cpu") == 7


def test_failures_and_raised_checks_are_counted(report, episodes):
    text, _ = report
    assert f"Failures: 1 of {len(episodes)} episodes" in text
    assert "[/bold] CUDA out of memory" in " ".join(text.split())  # not parsed as markup
    assert f"1/{len(episodes) - 1}" in text
    for column, _, _ in checks_table():
        assert column.removeprefix("check.") in text


def test_report_of_little_or_nothing():
    one_seed, settings = printed(make_episodes(n_lpa=2, seeds=1))
    assert "1 seed (0)" in one_seed
    assert settings["excess_leakage_low"].isna().all()
    frame = make_episodes(n_lpa=2, seeds=2)
    without, _ = printed(frame[frame["defense"] != "label-only"])
    assert "none shown" in without
    for text in (one_seed, without, printed(pd.DataFrame([failed(record("a", "lpa", "raw", 0))]))[0]):
        assert "<NA>" not in text
        assert "nan" not in text


def study_with_differences(differences, distortion=0.11):
    errors = {"t-lpa": ("lpa", 0.1, differences), "t-noise": ("noise", distortion, [0.0] * len(differences))}
    return pd.DataFrame(
        record(trial, defense, "raw", seed, distortion=d, error=0.03 + extra)
        for trial, (defense, d, extras) in errors.items()
        for seed, extra in enumerate(extras)
    )


def compared(frame):
    return equal_distortion(frame, configuration_table(frame, max_accuracy_drop=0.02))


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


def test_every_defense_but_controls_and_anchors_is_compared():
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


def test_describe_and_progress_line():
    frame = pd.DataFrame([{"dataset": "mnist", "auxiliary": "disjoint", "scene.limit": 200.0, "seed": 3}])
    assert describe(frame, {"study": "x", "scale": None}) == (
        "study x; data mnist; auxiliary disjoint; at most 200 training images a side; 1 seed (3); "
        "device unknown"
    )
    line = progress_line(12, 1, 60, 0.4123, 0.52, 200)
    assert line == (
        "12/60 done, 1 failed | lowest worst-case attack accuracy 0.412 | hypervolume 0.520 | 3 min left"
    )
    assert progress_line(0, 0, 60, None, None, None).endswith("accuracy - | hypervolume - | - left")
    assert progress_line(1, 0, 2, 0.5, 0.5, 12).endswith("| 12 s left")
    assert progress_line(1, 0, 2, 0.5, 0.5, 9000).endswith("| 2.5 h left")


def drawn(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        return np.asarray(image.convert("RGB"))


def test_frontier_figure_draws_every_defense(episodes, tmp_path):
    settings = configuration_table(episodes, max_accuracy_drop=0.02)
    got = frontier_figure(settings, pareto_front(settings), tmp_path / "frontier.png", describe(episodes))
    pixels = drawn(got)
    assert pixels.shape == (1575, 1350, 3)
    defenses = sorted(settings["defense"].unique())
    for defense in ("lpa", "noise", "rounding", "lfp"):
        colour = [int(style_of(defense, defenses)[0][i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == colour).all(axis=2).sum() > 100


def test_frontier_figure_of_one_seed_without_anchor_and_of_nothing(tmp_path):
    frame = make_episodes(n_lpa=2, seeds=1)
    settings = configuration_table(frame[frame["defense"] != "label-only"], max_accuracy_drop=0.02)
    assert drawn(frontier_figure(settings, pareto_front(settings), tmp_path / "a.png", "one seed")).std() > 5
    nothing = configuration_table(
        pd.DataFrame([failed(record("a", "lpa", "raw", 0))]), max_accuracy_drop=0.02
    )
    assert drawn(frontier_figure(nothing, pareto_front(nothing), tmp_path / "b.png", "failed")).std() > 1


def test_defenses_are_told_apart():
    defenses = ["lpa", "lfp", "noise", "rounding", "new", "newer"]
    assert len({style_of(f, defenses) for f in defenses}) == len(defenses)
    assert {style_of(f, defenses)[0] for f in defenses} <= set(COLOURS)
    assert style_of("lpa", defenses) == style_of("lpa", defenses[::-1])  # not by the order of the rows


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_shows_its_images(tmp_path, channels):
    truth = np.zeros((4, channels, 8, 8))
    truth[1], truth[2, 0], truth[3] = 1.0, 0.5, np.nan
    rows = [("truth", truth), ("lpa budget=0.01 rounds=7\ndistortion 0.0098, raw", 1 - truth)]
    rows.append(("dim", truth + 0.25))
    pixels = drawn(grid_figure(rows, tmp_path / "grid.png", "digits; auxiliary same; seed 0"))
    assert pixels.shape[1] > 4 * 0.9 * 150
    for value in (0, 64, 255):  # dim: a quarter
        assert (np.abs(pixels.astype(int) - value).max(axis=2) <= 1).sum() > 5000


def test_grid_refuses_odd_shapes(tmp_path):
    images = np.zeros((2, 1, 8, 8))
    with pytest.raises(ValueError, match="at least one row"):
        grid_figure([], tmp_path / "x.png", "")
    with pytest.raises(ValueError, match=r"'truth' has images of shape \(2, 2, 8, 8\)"):
        grid_figure([("truth", np.zeros((2, 2, 8, 8)))], tmp_path / "x.png", "")
    with pytest.raises(ValueError, match=r"'b' has images of shape \(1, 1, 8, 8\)"):
        grid_figure([("a", images), ("b", images[:1])], tmp_path / "x.png", "")


def test_checks_count_settings_beside_records():
    """A check that is measured once per setting is repeated in the record of every seed and attacker."""
    rows = [record(t, "lpa", k, s) | {"check.repeated_queries_differ": t == "a"}
            for t in "abc" for k in ("raw", "passive") for s in range(3)]  # fmt: skip
    frame = pd.concat([pd.DataFrame(rows[:4]), pd.DataFrame(rows[4:])])  # an index that repeats
    told = frame["check.repeated_queries_differ"].astype("boolean")
    frame["check.repeated_queries_differ"] = told.mask(frame["trial"] == "c")  # does not apply there
    assert check_counts(frame, "check.repeated_queries_differ") == (1, 2, 6, 12)
    assert check_counts(frame, "check.unheard_of") == (0, 0, 0, 0)
