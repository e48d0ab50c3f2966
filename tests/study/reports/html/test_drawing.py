"""A drawing's layers read the settings by name, and its size is the page's matter."""

from __future__ import annotations

from typing import Any

from study.reports.html.drawing import bars, drawing, known, line_across, points, together, tooltip_of
from study.reports.html.marks import colour, distortion_axis, key_of, share_axis

ROWS: list[dict[str, Any]] = [
    {"defense": "noise", "distortion": 0.01, "excess": 0.1, "excess_low": 0.05, "excess_high": None},
    {"defense": "undefended", "distortion": 0.0, "excess": None},
]


def test_a_drawing_is_a_specification_without_its_data() -> None:
    x, y, key = distortion_axis(ROWS), share_axis(ROWS, ["excess"], "excess"), key_of(ROWS)
    layers = [*line_across(0.02, "margin", "red", y), bars(x, y, "excess", colour(key))]
    layers += points(x, y, key, tooltip_of())
    made = drawing("name", "Title", together(layers), "settings", "trial", "excess")
    assert made.spec["width"] == "container"
    assert {p["name"] for p in made.spec["params"]} >= {"hidden", "chosen"}
    assert len(made.spec["layer"]) == len(layers)
    assert list(made.spec["datasets"].values()) == [[{"text": "margin", "value": 0.02}]] * 1
    filters = [str(layer.get("transform")) for layer in made.spec["layer"]]
    assert sum("hidden" in text for text in filters) == len(layers) - 2  # all but the line and its text
    assert sum("chosen" in text for text in filters) == 1
    assert (made.columns, made.only, made.tall) == (("trial", "excess"), None, False)


def test_known_values_are_those_that_are_there() -> None:
    assert known(ROWS, "excess", "excess_low", "excess_high") == [0.1, 0.05]
