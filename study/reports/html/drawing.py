"""Building blocks of the page's charts: a drawing, and the layers that charts of settings share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import altair as alt
from altair.utils.schemapi import debug_mode

from study.reports.html.marks import INK, Plain, colour, config, shape

Rows = Sequence[Mapping[str, Any]]
"""Settings (``chart_data.settings``), or the key of defenses (``marks.key_of``)."""
PLUS = "M-1,0L1,0M0,-1L0,1"
"""What is extrapolated."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One chart of the page.

    Attributes:
        name: id on the page. title: its heading. spec: Vega-Lite. data: name of its data set.
        columns: of the data set, in its CSV file. only: the one defense whose rows it shows, None for all.
        tall: whether it may be taller than the small ones.
    """

    name: str
    title: str
    spec: Plain
    data: str
    columns: tuple[str, ...]
    only: str | None = None
    tall: bool = False


def quickly() -> AbstractContextManager[None]:
    """Within it Altair does not check every part of a chart as it is made; tests check whole charts.

    Channels are given as objects (``alt.SizeValue(330)``, not ``size=alt.value(330)``): to find the class of
    anything else, Altair hashes its schema, which took a fifth of a page.
    """
    return debug_mode(False)


def drawing(name: str, title: str, chart: alt.LayerChart, data: str, *columns: str, **more: Any) -> Drawing:
    """A finished chart: :class:`Drawing` says what the rest means."""
    spec = chart.to_dict(validate=False)
    spec["autosize"] = {"type": "fit", "contains": "padding"}
    spec["description"] = title  # the label of the drawing for a screen reader
    spec.setdefault("params", [])
    return Drawing(name=name, title=title, spec=spec, data=data, columns=columns, **more)


def base(data: str = "settings") -> alt.Chart:
    """The rows of a data set, without the defenses that the reader has hidden."""
    return alt.Chart(alt.NamedData(data)).transform_filter("indexof(hidden, datum.defense) < 0")


def line_across(
    value: float,
    text: str,
    css: str,
    y: alt.Y,
    *,
    dash: Sequence[int] = (2, 3),
    below: bool = False,
    right: bool = True,
) -> list[alt.Chart]:
    """A line across the chart with its text."""
    data = alt.Chart(alt.InlineData([{"value": value, "text": text}]))
    at = alt.Y("value:Q", scale=y["scale"], axis=y["axis"])
    rule = data.mark_rule(color=css, strokeDash=list(dash), strokeWidth=1.3, aria=False).encode(y=at)
    place = {"x": alt.ExprRef("width - 4"), "align": "right"} if right else {"x": 4, "align": "left"}
    words = data.mark_text(color=css, dy=10 if below else -7, fontSize=11, aria=False, **place)
    return [rule, words.encode(y=at, text=alt.Text("text:N"))]


def tooltip_of(*more: alt.Tooltip) -> list[alt.Tooltip]:
    """The setting's name, verdict and distortion, then ``more``."""
    return [
        alt.Tooltip("setting:N"),
        alt.Tooltip("trial:N"),
        alt.Tooltip("verdict:N"),
        alt.Tooltip("distortion:Q", format=".3g"),
        *more,
    ]


def zoom() -> alt.Parameter:
    """With Shift: the wheel zooms and dragging moves; alone they scroll the page."""
    move = "[pointerdown[event.shiftKey], window:pointerup] > window:pointermove!"
    return alt.selection_interval(bind="scales", translate=move, zoom="wheel![event.shiftKey]", name="zoom")


def points(x: alt.X, y: alt.Y, key: Rows, tooltip: list[alt.Tooltip]) -> list[alt.Chart]:
    """The settings: full, or hollow where what is shown is a bound or the setting is not feasible; faint off
    the frontier; rings around the recommended and the chosen one."""
    hue = colour(key)
    marks = base().mark_point(size=85, strokeWidth=1.4)
    shown = marks.encode(
        x=x,
        y=y,
        shape=shape(key),
        stroke=alt.Stroke("defense:N", scale=hue["scale"], legend=None),
        fill=alt.Fill("defense:N", scale=hue["scale"], legend=None),
        fillOpacity=alt.FillOpacityValue(0.0, condition={"test": "datum.solid", "value": 1.0}),
        opacity=alt.OpacityValue(0.4, condition={"test": "datum.front || datum.recommended", "value": 1.0}),
        tooltip=tooltip,
        description=alt.Description("setting:N"),
    ).add_params(zoom())
    ring = base().mark_point(shape="circle", filled=False, color=INK, opacity=1, aria=False).encode(x=x, y=y)
    return [
        ring.transform_filter("datum.recommended").encode(
            size=alt.SizeValue(330), strokeWidth=alt.StrokeWidthValue(1.6)
        ),
        ring.transform_filter("datum.trial == chosen").encode(
            size=alt.SizeValue(520),
            strokeWidth=alt.StrokeWidthValue(3),
            strokeDash=alt.StrokeDashValue([4, 2]),
        ),
        shown,
    ]


def bars(
    x: alt.X, y: alt.Y, field: str, hue: alt.Color, dash: Sequence[int] = (1, 0), data: str = "settings"
) -> alt.Chart:
    """Intervals from ``<field>_low`` to ``<field>_high``, where both are known."""
    low = alt.Y(f"{field}_low:Q", scale=y["scale"], axis=y["axis"])
    there = base(data).transform_filter(f"isValid(datum.{field}_low) && isValid(datum.{field}_high)")
    drawn = there.mark_rule(strokeWidth=1.3, opacity=0.7, strokeDash=list(dash), aria=False)
    return drawn.encode(x=x, y=low, y2=alt.Y2(f"{field}_high:Q"), color=hue)


def marks_at(x: alt.X, y: alt.Y, field: str, path: str, key: Rows, size: int) -> alt.Chart:
    """Small marks at ``field``, where it is known; ``path`` is their shape."""
    at = alt.Y(f"{field}:Q", scale=y["scale"], axis=y["axis"])
    there = base().transform_filter(f"isValid(datum.{field})")
    marks = there.mark_point(shape=path, size=size, strokeWidth=1.4, filled=False, aria=False)
    return marks.encode(x=x, y=at, stroke=alt.Stroke("defense:N", scale=colour(key)["scale"], legend=None))


def known(rows: Rows, *fields: str) -> list[float]:
    """All values of these fields that are known."""
    return [r[f] for r in rows for f in fields if r.get(f) is not None]


def together(layers: list[alt.Chart]) -> alt.LayerChart:
    """The layers as one chart, with the two parameters that the page's script sets."""
    # All at once: Altair copies the whole chart for whatever is added afterwards.
    chart = alt.layer(*layers, width="container", height=220, config=alt.Config(**config()))
    chart = chart.add_params(alt.param("hidden", value=[]), alt.param("chosen", value=""))
    return cast(alt.LayerChart, chart)
