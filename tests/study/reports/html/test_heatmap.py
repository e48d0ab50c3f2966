"""The heat map: means, the worst marked, colours told apart without hue."""

from __future__ import annotations

import numpy as np
import pandas as pd

from study.reports.html.heatmap import colour
from tests.study.reports.html.helpers import Reader


def test_heat_map_holds_the_means_and_marks_the_worst(page: str, episodes: pd.DataFrame) -> None:
    rows = {row[0].split("t0")[0]: row for row in Reader(page).rows if row}
    heading = next(row for row in Reader(page).rows if row and row[0] == "setting" and "passive" in row)
    cells = next(row for row in Reader(page).rows if row and row[0].endswith("t005-lpa"))
    means = episodes[episodes["trial"] == "t005-lpa"].groupby("attack")["reconstruction_error"].mean()
    for attack, cell in zip(heading[1:], cells[1:], strict=True):
        assert cell.startswith(f"{1000 * means[attack]:.1f}")
        assert ("▲" in cell) == (attack == means.idxmin())
    cut = next(row for row in Reader(page).rows if row and row[0].endswith("t200-lfp"))
    assert sorted(cut[1:])[-2:] == ["cut", "cut"]
    partly = next(row for row in Reader(page).rows if row and row[0].endswith("t003-lpa"))
    assert sum("†" in cell for cell in partly) == 1
    assert rows


def test_colours_are_told_apart_without_hue() -> None:
    def luminance(text: str) -> float:
        parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    shades = [colour(p) for p in np.linspace(0, 1, 11)]
    values = [luminance(background) for background, _ in shades]
    assert values == sorted(values)
    for value, (_, ink) in zip(values, shades, strict=True):
        contrast = (value + 0.05) / 0.05 if ink == "#000" else 1.05 / (value + 0.05)
        assert contrast >= 4.5  # WCAG AA
