"""The marks that show each setting's leakage."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from study.analysis.verdicts import verdict_table
from study.reports.leakage import CERTIFIED, EXCESS, EXTRAPOLATED, POSSIBLE, leakage_table
from study.reports.leakage_panel import draw_bounds, finish
from tests.study.analysis.helpers import make_episodes
from tests.study.records.test_curves import ROW


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


def test_what_is_extrapolated_stands_with_its_interval(measured: pd.DataFrame) -> None:
    table = leakage_table(measured, verdict_table(measured), [ROW | {"trial": "none"}])
    table["confidence_distortion"] = 0.1
    axes = Figure().subplots()
    draw_bounds(axes, table, "red")
    labels = [str(handle.get_label()) for handle in finish(axes, table, 0.02)]
    assert labels[-1] == "extrapolated (bounds nothing)"
    stems, marks = axes.collections[-2:]
    known = table.dropna(subset=[EXTRAPOLATED])
    expected = known[["confidence_distortion", EXTRAPOLATED]].to_numpy(dtype=float)
    assert np.asarray(marks.get_offsets()) == pytest.approx(expected)
    ends = [path.vertices[:, 1].tolist() for path in stems.get_paths()]
    assert ends == known[[f"{EXTRAPOLATED}_low", f"{EXTRAPOLATED}_high"]].to_numpy(dtype=float).tolist()
