"""Figures that are really drawn: every family, and odd grids refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from study.analysis.frontier import configuration_table, pareto_front
from study.analysis.identification import identification_table
from study.analysis.verdicts import verdict_table
from study.records.constraints import Constraints
from study.reports.cells import describe
from study.reports.figures import COLOURS, frontier_figure, grid_figure, style_of
from study.reports.leakage import leakage_table
from tests.study.analysis.helpers import failed, make_episodes, record


def drawn(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        return np.asarray(image.convert("RGB"))


def test_frontier_figure_draws_every_family(episodes, tmp_path):
    settings = configuration_table(episodes, constraints=Constraints())
    got = frontier_figure(
        settings,
        pareto_front(settings),
        tmp_path / "frontier.png",
        describe(episodes),
        leakage=leakage_table(episodes, verdict_table(episodes)),
    )
    pixels = drawn(got)
    assert pixels.shape == (1575, 1350, 3)
    families = sorted(settings["defense"].unique())
    for family in ("lpa", "noise", "rounding", "lfp"):
        colour = [int(style_of(family, families)[0][i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == colour).all(axis=2).sum() > 100


def test_frontier_figure_of_one_seed_without_anchor_and_of_nothing(tmp_path):
    frame = make_episodes(n_lpa=2, seeds=1)
    frame = frame[frame["defense"] != "label-only"]
    nothing = pd.DataFrame([failed(record("a", "lpa", "raw", 0))])
    for name, rows, least in (("one seed", frame, 5), ("failed", nothing, 1)):
        settings, path = configuration_table(rows, constraints=Constraints()), tmp_path / f"{name}.png"
        leakage = leakage_table(rows, verdict_table(rows))
        got = drawn(frontier_figure(settings, pareto_front(settings), path, name, leakage=leakage))
        assert got.std() > least


def test_no_panel_of_attack_accuracy_where_it_is_1_for_all(episodes, tmp_path):
    certain = episodes.assign(
        attack_accuracy=episodes["attack_accuracy"].where(episodes["attack_accuracy"].isna(), 1.0)
    )
    settings = configuration_table(certain, constraints=Constraints())
    leakage = leakage_table(certain, verdict_table(certain))
    got = frontier_figure(settings, pareto_front(settings), tmp_path / "a.png", "all 1", leakage=leakage)
    assert drawn(got).shape == (1425, 1350, 3)


@pytest.mark.parametrize("told", [True, False])
def test_a_panel_of_identification_where_it_is_known(episodes, tmp_path, told):
    ok = episodes["status"] == "ok"
    auc = pd.Series(np.linspace(0.5, 0.9, len(episodes)), episodes.index).where(ok)
    frame = episodes.assign(identification_auc=auc, identification_auc_test=auc)
    if not told:
        frame["attack_accuracy"] = frame["attack_accuracy"].where(~ok, 1.0)
    settings = configuration_table(frame, constraints=Constraints())
    saved = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, path: saved.append(self))
        frontier_figure(
            settings, pareto_front(settings), tmp_path / "a.png", "made up",
            leakage=leakage_table(frame, verdict_table(frame)), identified=identification_table(frame),
        )  # fmt: skip
    (figure,) = saved
    figure.draw_without_rendering()
    panels = figure.axes
    assert len(panels) == (4 if told else 3)
    assert "identification AUC" in panels[-1].get_ylabel()
    table = identification_table(frame).set_index("trial")
    drawn = {tuple(np.round(p, 9)) for c in panels[-1].collections if hasattr(c, "get_offsets")
             for p in np.asarray(c.get_offsets()) if np.isfinite(p).all()}  # fmt: skip
    for _, setting in settings.dropna(subset=["worst_reconstruction_error"]).iterrows():
        place = setting["confidence_distortion"], table.loc[setting["trial"], "identification"]
        assert tuple(np.round(np.array(place, dtype=float), 9)) in drawn
    lines = {
        round(float(line.get_ydata()[0]), 9) for line in panels[-1].lines if len(set(line.get_ydata())) == 1
    }
    assert {0.5, *(round(float(table.loc[t, "identification"]), 9) for t in ("none", "label-only"))} <= lines
    low, high = panels[-1].get_ylim()
    assert low < 0.5 < table["identification"].max() < high
    texts = [axes.yaxis.label.get_window_extent() for axes in panels]  # no label reaches into another's
    assert not any(a.overlaps(b) for i, a in enumerate(texts) for b in texts[:i])
    labels = [text.get_text() for text in figure.legends[0].texts]
    assert "chance of identification: 0.5" in labels


def test_a_bound_is_hollow_and_no_line_follows_it(tmp_path):
    """A setting that leaks beyond the margin is on the front although not all attackers attacked it."""
    trials = (("none", 0.0, 0.01), ("t1", 0.1, 0.045), ("t2", 0.15, 0.03), ("t3", 0.2, 0.035),
              ("label-only", 0.5, 0.05))  # fmt: skip
    rows = []
    for trial, distortion, error in trials:
        for seed in range(3):
            defense = trial if trial in ("none", "label-only") else "noise"
            row = record(
                trial, defense, "ridge", seed, distortion=distortion, error=error * (1 + 1e-4 * seed)
            )
            rows += [row, row | {"attack": "raw"}]
            if trial == "t1":
                rows[-1] |= {"status": "cut", "reconstruction_error": None, "attack_accuracy": None}
    frame = pd.DataFrame(rows)
    settings = configuration_table(frame, constraints=Constraints())
    front = pareto_front(settings)
    assert {"t1", "t2", "t3"} <= set(front["trial"])
    saved = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, path: saved.append(self))
        leakage = leakage_table(frame, verdict_table(frame))
        frontier_figure(settings, front, tmp_path / "a.png", "made up", leakage=leakage)
    (figure,) = saved
    error = figure.axes[0]
    steps = [line for line in error.lines if line.get_drawstyle() == "steps-post"]
    assert [np.round(line.get_xdata(), 6).tolist() for line in steps] == [[0.15, 0.2], [0, 0.15, 0.2, 0.5]]
    for line in steps:
        assert not np.isclose(line.get_ydata(), 0.0450045, atol=1e-6).any()
    for points in error.collections:
        if hasattr(points, "get_offsets") and len(points.get_facecolor()) == 0:
            assert np.asarray(points.get_offsets())[:, 0].tolist() == pytest.approx([0.1])
            break
    else:
        pytest.fail("no hollow mark")
    labels = [text.get_text() for text in figure.legends[0].texts]
    assert any("a bound (not all attackers ran)" in label and "(hollow)" in label for label in labels)


def test_families_are_told_apart():
    families = ["lpa", "lfp", "noise", "rounding", "new", "newer"]
    assert len({style_of(f, families) for f in families}) == len(families)
    assert {style_of(f, families)[0] for f in families} <= set(COLOURS)
    assert style_of("lpa", families) == style_of("lpa", families[::-1])  # not by the order of the rows


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
