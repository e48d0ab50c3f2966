"""Marks, colours and scales that the page's charts share, and the defense key that explains them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from mipoison.metrics.excess import MARGIN
from study.reports.figures import ANCHOR_STYLE, COLOURS, MARKERS, style_of
from study.reports.html.chart_data import NAMES

Plain = dict[str, Any]
INK, SOFT, LINE, PAPER = "var(--ink)", "var(--soft)", "var(--line)", "var(--paper)"
"""Colours are the page's own, so that dark, light and print need no second drawing."""
CROSS = "M-1,-1L1,1M1,-1L-1,1"
"""A cross, as a path in the square from -1 to 1: the estimated limit."""
STAR = "M0,-1L.24,-.32L.95,-.31L.38,.12L.59,.81L0,.4L-.59,.81L-.38,.12L-.95,-.31L-.24,-.32Z"
HEXAGON = "M0,-.9L.78,-.45L.78,.45L0,.9L-.78,.45L-.78,-.45Z"
SALTIRE = "M-.9,-.6L-.6,-.9L0,-.3L.6,-.9L.9,-.6L.3,0L.9,.6L.6,.9L0,.3L-.6,.9L-.9,.6L-.3,0Z"
SIGNS = {
    "o": ("circle", "●"), "s": ("square", "■"), "^": ("triangle-up", "▲"), "D": ("diamond", "◆"),
    "v": ("triangle-down", "▼"), "P": ("cross", "✚"), "X": (SALTIRE, "✖"), "<": ("triangle-left", "◀"),
    ">": ("triangle-right", "▶"), "*": (STAR, "★"), "h": (HEXAGON, "⬢"),
}  # fmt: skip
"""Marker of ``frontier.png`` -> the same as a shape of Vega, and as a character for the key."""
assert set(SIGNS) == {*MARKERS, "*", "h"}
SHARE_TICKS = (-0.02, 0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


def key_of(rows: Sequence[Mapping[str, Any]]) -> list[Plain]:
    """The defenses shown, anchors last: name, colour, shape, sign, and how many settings each has."""
    inner = {shown: name for name, shown in NAMES.items()}
    names = sorted({inner.get(str(r["defense"]), str(r["defense"])) for r in rows})
    names.sort(key=lambda name: (name in ANCHOR_STYLE, name))
    out = []
    for name in names:
        colour, marker = style_of(name, names)
        css = {"label-only": "var(--floor)", "none": "var(--bare)"}.get(name)
        shape, sign = SIGNS[marker]
        shown = NAMES.get(name, name)
        out.append(
            {
                "name": shown,
                "colour": css or f"var(--c{COLOURS.index(colour)})",
                "shape": shape,
                "sign": sign,
                "count": sum(r["defense"] == shown for r in rows),
            }
        )
    return out


def colour(key: Sequence[Mapping[str, Any]]) -> alt.Color:
    """Colour by defense."""
    scale = alt.Scale(domain=[d["name"] for d in key], range=[d["colour"] for d in key])
    return alt.Color("defense:N", scale=scale, legend=None)


def shape(key: Sequence[Mapping[str, Any]]) -> alt.Shape:
    """Shape by defense: nothing is told by colour alone."""
    scale = alt.Scale(domain=[d["name"] for d in key], range=[d["shape"] for d in key])
    return alt.Shape("defense:N", scale=scale, legend=None)


def distortion_axis(rows: Sequence[Mapping[str, Any]], title: str = "distortion (mean l2)") -> alt.X:
    """Logarithmic with a place for zero: linear below the smallest power of ten that holds a value."""
    positive = [r["distortion"] for r in rows if r["distortion"] > 0] or [1e-3, 1e-2]
    low, high = 10 ** math.floor(math.log10(min(positive))), max(positive)
    powers = [10.0**k for k in range(round(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    scale = alt.Scale(type="symlog", constant=low, domain=[-low / 3, high * 1.5], nice=False)
    axis = alt.Axis(values=[0, *powers], format="~g", title=title, labelOverlap=True)
    return alt.X("distortion:Q", scale=scale, axis=axis)


def share_axis(rows: Sequence[Mapping[str, Any]], fields: Sequence[str], title: str) -> alt.Y:
    """Shares of which small ones matter: linear around zero, logarithmic from the usual margin on."""
    values = [r[f] for r in rows for f in fields if r.get(f) is not None]
    top = min(1.0, max([0.1, *values]) * 1.25)
    scale = alt.Scale(type="symlog", constant=MARGIN, domain=[-MARGIN / 2, top], nice=False, clamp=True)
    axis = alt.Axis(values=[t for t in SHARE_TICKS if -MARGIN / 2 <= t <= top], format="~g", title=title)
    return alt.Y("excess:Q", scale=scale, axis=axis)


def linear_axis(field: str, title: str, values: Sequence[float]) -> alt.Y:
    """A linear axis that holds the values; ends of intervals that lie outside are cut off at its edge."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)  # nothing was measured
    room = (high - low or abs(high) or 1.0) * 0.08
    scale = alt.Scale(domain=[low - room, high + room], zero=False, nice=False, clamp=True)
    return alt.Y(f"{field}:Q", scale=scale, axis=alt.Axis(title=title, format="~g"))


def config() -> Plain:
    """Vega-Lite's configuration: the page's colours and font."""
    return {
        "background": "transparent",
        "font": "system-ui, sans-serif",
        "view": {"stroke": LINE},
        "axis": {
            "labelColor": SOFT, "titleColor": INK, "gridColor": LINE, "gridOpacity": 0.6, "domainColor": LINE,
            "tickColor": LINE, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal",
        },
    }  # fmt: skip
