"""Three numbers of each setting, computed here slowly, and the marks that show them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from study.analysis.frontier import LABEL_ONLY
from study.analysis.verdicts import verdict_table
from study.reports.leakage_panel import (
    CERTIFIED,
    EXCESS,
    EXTRAPOLATED,
    POSSIBLE,
    draw_bounds,
    finish,
    leakage_table,
)  # fmt: skip
from tests.study.analysis.helpers import make_episodes
from tests.study.records.test_curves import ROW

ERRORS = ("reconstruction_error", "reconstruction_error_test")


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    """Two pools, with certificates for some settings and an estimated limit for all."""
    frame = make_episodes(n_lpa=2, seeds=3)
    rng = np.random.default_rng(0)
    frame["reconstruction_error_test"] = frame["reconstruction_error"] * rng.uniform(0.8, 1.2, len(frame))
    by_seed = frame.groupby(["trial", "seed"])["reconstruction_error"].transform("min")
    frame["estimated_limit"], frame["estimated_limit_test"] = by_seed * 0.9, by_seed * 0.8
    some = frame["defense"].isin(["rounding", LABEL_ONLY])
    for name in ("certified_excess", "certified_excess_test"):
        values = frame.groupby(["trial", "seed"])["seed"].transform(lambda s: rng.uniform(0.3, 0.6))
        frame[name] = values.where(some)
    for name in ("smallest_cell", "smallest_cell_test"):  # exact certificates
        frame[name] = np.where(some, 7.0, np.nan)
    return frame


def test_the_numbers_are_the_larger_of_train_and_test(measured: pd.DataFrame) -> None:
    table = leakage_table(measured, verdict_table(measured)).set_index("trial")
    floor = measured[measured["defense"] == LABEL_ONLY]
    least = {name: min(one[name].mean() for _, one in floor.groupby("attack")) for name in ERRORS}
    assert len(table) == measured["trial"].nunique()
    for trial, rows in measured.groupby("trial"):
        excess = [
            1 - min(one[name].mean() for _, one in rows.groupby("attack")) / least[name] for name in ERRORS
        ]
        assert table[EXCESS][trial] == pytest.approx(max(0.0, *excess))
        possible = [
            1 - np.mean([one[limit].iloc[0] for _, one in rows.groupby("seed")]) / least[error]
            for limit, error in zip(("estimated_limit", "estimated_limit_test"), ERRORS, strict=True)
        ]
        assert table[POSSIBLE][trial] == pytest.approx(max(0.0, *possible))
        bounds = rows[["certified_excess", "certified_excess_test"]].to_numpy()
        if np.isnan(bounds).any():
            assert pd.isna(table[CERTIFIED][trial])
        else:
            assert table[CERTIFIED][trial] == pytest.approx(bounds.max())
    ends = verdict_table(measured).set_index("trial")
    for end in ("_low", "_high"):
        larger = ends[[f"suite_excess{end}", f"suite_excess_test{end}"]].max(axis=1)
        pd.testing.assert_series_equal(table[EXCESS + end], larger, check_names=False)


def test_older_records_have_an_excess_and_no_bound_but_label_only_s() -> None:
    episodes = make_episodes(n_lpa=2, seeds=3)
    table = leakage_table(episodes, verdict_table(episodes))
    assert table[EXCESS].notna().all()
    assert table[POSSIBLE].isna().all()
    assert table.dropna(subset=[CERTIFIED])[["trial", CERTIFIED]].to_numpy().tolist() == [["label-only", 0.0]]
    table = table[table["trial"] != "label-only"].reset_index(drop=True)
    figure = Figure()
    axes = figure.subplots()
    table["confidence_distortion"] = 0.1
    draw_bounds(axes, table, "red")
    labels = [handle.get_label() for handle in finish(axes, table, 0.02)]
    assert labels == ["margin of 0.02"]


def test_every_mark_is_where_its_number_is(measured: pd.DataFrame) -> None:
    table = leakage_table(measured, verdict_table(measured))
    table["confidence_distortion"] = np.linspace(0, 0.3, len(table))
    axes = Figure().subplots()
    draw_bounds(axes, table, "red")
    labels = [str(handle.get_label()) for handle in finish(axes, table, 0.02)]
    assert [text.partition(" ")[0] for text in labels] == ["margin", "certificate", "seems"]
    stems, certificates, possible = axes.collections
    known = table.dropna(subset=[CERTIFIED])
    expected = known[["confidence_distortion", CERTIFIED]].to_numpy(dtype=float)
    assert np.asarray(certificates.get_offsets()) == pytest.approx(expected)
    assert len(stems.get_paths()) == len(known) > 0
    expected = table[["confidence_distortion", POSSIBLE]].to_numpy(dtype=float)
    assert np.asarray(possible.get_offsets()) == pytest.approx(expected)
    low, high = axes.get_ylim()
    marks = table[[EXCESS, CERTIFIED, POSSIBLE]].astype(float).to_numpy()
    assert low < np.nanmin(marks)
    assert np.nanmax(marks) < high


def test_what_is_extrapolated_is_the_larger_of_train_and_test(measured: pd.DataFrame) -> None:
    floor = measured[measured["defense"] == LABEL_ONLY]
    least = {name: min(one[name].mean() for _, one in floor.groupby("attack")) for name in ERRORS}
    faces = dict(zip(("train", "test"), ERRORS, strict=True))
    curves = [
        ROW | {"trial": trial, "face": face, "errors": [0.03, 0.029, 0.028, error], "gain": gain,
               "gain_low": gain - 0.02, "gain_high": gain + 0.3}
        for trial, face, error, gain in (
            ("none", "train", 0.02, 0.1), ("none", "test", 0.018, 0.05), (LABEL_ONLY, "train", 0.03, -0.2))
    ]  # fmt: skip
    table = leakage_table(measured, verdict_table(measured), curves).set_index("trial")
    for end, more in (("", 0.0), ("_low", -0.02), ("_high", 0.3)):
        column = table[EXTRAPOLATED + end]
        shares = [1 - c["errors"][-1] * (1 - c["gain"] - more) / least[faces[c["face"]]] for c in curves[:2]]
        assert column["none"] == pytest.approx(max(shares))
        assert column.notna().sum() == 2
    assert table[EXTRAPOLATED][LABEL_ONLY] == 0  # an error above label-only's is no gain
    rest = leakage_table(measured, verdict_table(measured)).set_index("trial")
    pd.testing.assert_frame_equal(table[rest.columns[:5]], rest[rest.columns[:5]])

    table["confidence_distortion"] = 0.1
    axes = Figure().subplots()
    draw_bounds(axes, table.reset_index(), "red")
    labels = [str(handle.get_label()) for handle in finish(axes, table.reset_index(), 0.02)]
    assert labels[-1] == "extrapolated (bounds nothing)"
    stems, marks = axes.collections[-2:]
    known = table.dropna(subset=[EXTRAPOLATED])
    expected = known[["confidence_distortion", EXTRAPOLATED]].to_numpy(dtype=float)
    assert np.asarray(marks.get_offsets()) == pytest.approx(expected)
    ends = [path.vertices[:, 1].tolist() for path in stems.get_paths()]
    assert ends == known[[f"{EXTRAPOLATED}_low", f"{EXTRAPOLATED}_high"]].to_numpy(dtype=float).tolist()
