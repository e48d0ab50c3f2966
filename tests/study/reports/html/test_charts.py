"""Which charts a page has, and what their marks show."""

from __future__ import annotations

from typing import Any

import altair as alt
import jsonschema
import pytest

from study.reports.html.charts import compare, hero, knobs, leakage, projections, shares, utility
from study.reports.html.marks import key_of


def row(trial: str, defense: str, distortion: float, **more: Any) -> dict[str, Any]:
    names = ("certified", "possible", "limit", "identification", "extrapolated_error", "rank_correlation")
    known: dict[str, Any] = {"excess": 0.1, "error": 0.03, "accuracy": 1.0, "log_loss_increase": 0.1}
    return {
        "trial": trial,
        "defense": defense,
        "distortion": distortion,
        **dict.fromkeys(names),
        **known,
        **more,
    }


ROWS = [row("none", "undefended", 0.0), row("label-only", "label-only", 0.014, rank_correlation=0.7)]
ROWS += [row(f"t{i}", "noise", 0.01 * i, knob_budget=0.01 * i, rank_correlation=0.1 * i) for i in range(1, 6)]
KEY = key_of(ROWS)


def fields(drawing: Any) -> set[str]:
    """Fields that any layer encodes on x or y."""
    layers = drawing.spec["layer"]
    return {
        layer["encoding"][c]["field"]
        for layer in layers
        for c in ("x", "y", "y2")
        if "field" in layer.get("encoding", {}).get(c, {})
    }


def test_the_hero_shows_what_is_known() -> None:
    assert fields(hero(ROWS, KEY, 0.02)) >= {"distortion", "excess", "excess_low", "excess_high"}
    assert "possible" not in fields(hero(ROWS, KEY, 0.02))
    rows = [ROWS[0] | {"certified": 0.3, "possible": 0.2}, *ROWS[1:]]
    made = hero(rows, KEY, 0.02)
    assert fields(made) >= {"certified", "possible"}
    assert {"certified", "possible"} <= set(made.columns)
    assert {"margin 0.02"} <= {str(d.get("text")) for rows in made.spec["datasets"].values() for d in rows}


def test_a_chart_that_says_nothing_is_left_out() -> None:
    assert [d.name for d in leakage(ROWS, KEY, 0.5, 0.07)] == ["error"]  # accuracy is 1.00 for all
    rows = [r | {"accuracy": 0.5, "identification": 0.6, "limit": 0.02} for r in ROWS]
    drawn = leakage(rows, KEY, 0.5, 0.02)
    assert [d.name for d in drawn] == ["identification", "error", "accuracy"]
    assert "limit" in fields(drawn[1])
    assert "limit" not in fields(drawn[2])
    assert [d.name for d in utility(ROWS, KEY)] == ["utility-rank_correlation"]  # the log loss is equal


def test_a_knob_s_chart_shows_its_defense_alone() -> None:
    (drawn,) = knobs(ROWS, KEY)
    assert (drawn.name, drawn.only) == ("knob-noise-budget", "noise")
    assert "knob_budget" in fields(drawn)


def test_shares_of_images_and_projections() -> None:
    assert shares([], KEY) is None
    curve = [{"trial": "none", "defense": "undefended", "eta": 0.5, "epsilon": 0.1}]
    drawn = shares(curve, KEY)
    assert drawn is not None
    assert fields(drawn) == {"epsilon", "eta"}
    view = {"method": "PCA", "clean": [[0.0, 1.0]], "released": [[1.0, 0.0]]}
    drawings, data = projections([{"name": "noise", "moved": 0.1, "views": [view]}])
    assert [d.title for d in drawings] == ["noise: PCA, moved by 0.1 (mean l2)"]
    assert data[drawings[0].data][1] == {"x": 1.0, "y": 0.0, "vector": "released"}


def test_studies_are_told_apart_by_colour_and_shape() -> None:
    drawn = compare([r | {"study": s} for s in ("a", "b") for r in ROWS])
    (marks,) = [one for one in drawn.spec["layer"] if "shape" in one["encoding"]]
    for channel in ("shape", "stroke"):
        scale = marks["encoding"][channel]["scale"]
        assert scale["domain"] == ["a", "b"]
        assert len(set(scale["range"])) == 2
    assert drawn.columns[0] == "study"


def test_every_chart_keeps_to_the_schema_of_vega_lite() -> None:
    """Pages are made without this check, which takes most of a chart's time."""
    rows = [r | {"certified": 0.3, "possible": 0.2, "limit": 0.02, "identification": 0.6} for r in ROWS]
    curve = [{"trial": "none", "defense": "undefended", "eta": 0.5, "epsilon": 0.1}]
    made = [hero(rows, KEY, 0.02), *leakage(rows, KEY, 0.5, 0.07), *utility(rows, KEY), *knobs(rows, KEY)]
    made += [shares(curve, KEY), compare([r | {"study": "a"} for r in rows])]
    for drawn in made:
        assert drawn is not None
        alt.Chart.from_dict(drawn.spec).to_dict(validate=True)
    with pytest.raises(jsonschema.ValidationError, match="no such"):
        alt.Chart.from_dict(made[0].spec | {"autosize": "no such"}).to_dict(validate=True)
