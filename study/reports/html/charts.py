"""The page's charts as Vega-Lite specifications, made by Altair; the page holds the data once."""

from __future__ import annotations

import altair as alt

from study.records.constraints import FACES
from study.reports.html.chart_data import UTILITY, varied_knobs
from study.reports.html.drawing import (
    PLUS,
    Drawing,
    Rows,
    bars,
    base,
    drawing,
    known,
    line_across,
    marks_at,
    points,
    together,
    tooltip_of,
    zoom,
)  # fmt: skip
from study.reports.html.marks import (
    CROSS,
    INK,
    PAPER,
    SOFT,
    Plain,
    colour,
    distortion_axis,
    linear_axis,
    share_axis,
)  # fmt: skip

LEAST_KNOB_VALUES = 4
"""Fewest values of a knob that get a chart."""
CERTAIN = 0.995
"""An attack accuracy (share) from which on every class counts as given away: 1.00 when rounded."""
NAMED = ("trial", "setting", "defense", "verdict")
EXCESS = ("excess", "excess_low", "excess_high")
COMPARED = (*NAMED, "distortion", *EXCESS, "certified", "recommended")
"""Fields of a setting that the comparison of several studies draws."""


def hero(rows: Rows, key: Rows, margin: float) -> Drawing:
    """Excess leakage against distortion: measured with interval, estimated limit, certificate as a band."""
    x = distortion_axis(rows, "distortion (mean l2; 0: undefended)")
    marks = [f for f in ("certified", "possible") if known(rows, f)]
    y = share_axis(rows, [*EXCESS, *marks], "excess leakage (share)")
    bound = alt.Y("certified:Q", scale=y["scale"], axis=y["axis"])
    certified = base().transform_filter("isValid(datum.certified)")
    layers = [
        certified.mark_bar(width=13, opacity=0.22, aria=False).encode(
            x=x, y=bound, y2=alt.Y2Datum(-0.01), color=colour(key)
        ),
        certified.mark_tick(orient="horizontal", thickness=2.5, size=18, aria=False).encode(
            x=x, y=bound, color=colour(key)
        ),
        *line_across(0, "nothing beyond the label", SOFT, y, dash=(1, 0), below=True, right=False),
        *line_across(margin, f"margin {margin:g}", "var(--c2)", y, right=False),
        bars(x, y, "excess", colour(key)),
    ]
    if "possible" in marks:
        layers.append(marks_at(x, y, "possible", CROSS, key, 45))
    tooltip = tooltip_of(
        alt.Tooltip("excess:Q", format=".3f", title="excess leakage"),
        alt.Tooltip("excess_low:Q", format=".3f", title="at least (one-sided 95 %)"),
        alt.Tooltip("excess_most:Q", format=".3f", title="at most (one-sided 95 %)"),
        alt.Tooltip("certified_most:Q", format=".3f", title="certified at most"),
        alt.Tooltip("possible:Q", format=".3f", title="seems possible"),
    )
    layers += points(x, y, key, tooltip)
    name = base().transform_filter("datum.recommended").mark_text(
        text="recommended", dy=-19, fontWeight="bold", color=INK, stroke=PAPER, strokeWidth=0, fontSize=12,
        align=alt.ExprRef("'right'"), dx=14, aria=False,
    )  # fmt: skip
    layers.append(name.encode(x=x, y=y))
    columns = (*NAMED, "distortion", *EXCESS, *marks)
    title = "Excess leakage against distortion"
    return drawing("hero", title, together(layers), "settings", *columns, tall=True)


def leakage(rows: Rows, key: Rows, chance: float,
            mean_image: float | None) -> list[Drawing]:  # fmt: skip
    """Other faces of leakage against distortion; attack accuracy only where it says anything."""
    x, out = distortion_axis(rows), []
    if values := known(rows, "identification", "identification_low", "identification_high"):
        y = linear_axis("identification", "identification AUC", [*values, chance])
        layers = [
            *line_across(chance, f"chance: {chance:g}", SOFT, y, below=True),
            bars(x, y, "identification", colour(key)),
        ]
        tooltip = tooltip_of(alt.Tooltip("identification:Q", format=".3f", title="identification AUC"))
        layers += points(x, y, key, tooltip)
        columns = (*NAMED, "distortion", *(f"identification{e}" for e in ("", "_low", "_high")))
        title = "Is the right image told from others of its label? (down: protected)"
        out.append(drawing("identification", title, together(layers), "settings", *columns))
    values = known(rows, "error", "error_low", "error_high", "limit", "extrapolated_error")
    y = linear_axis("error", "error (MSE, train)", values)
    layers = [bars(x, y, "error", colour(key))]
    floor = next((r for r in rows if r["defense"] == "label-only"), None)
    if floor is not None:
        layers += line_across(floor["error"], "label-only", "var(--floor)", y, dash=(6, 4), right=False)
    if values and mean_image is not None and mean_image <= max(values):
        layers += line_across(mean_image, "mean image (learned nothing)", "var(--mean)", y)
    more = [f for f in ("limit", "extrapolated_error") if known(rows, f)]
    if "limit" in more:
        layers.append(marks_at(x, y, "limit", CROSS, key, 45))
    if "extrapolated_error" in more:
        layers += [bars(x, y, "extrapolated_error", colour(key), (1, 3))]
        layers += [marks_at(x, y, "extrapolated_error", PLUS, key, 60)]
    tooltip = tooltip_of(alt.Tooltip("error:Q", format=".4f", title="worst-case error"),
                       alt.Tooltip("limit:Q", format=".4f", title="estimated limit"))  # fmt: skip
    layers += points(x, y, key, tooltip)
    columns = (*NAMED, "distortion", "error", "error_low", "error_high", *more)
    title = "Worst-case reconstruction error (up: protected)"
    out.append(drawing("error", title, together(layers), "settings", *columns))
    accuracy = known(rows, "accuracy")
    if accuracy and min(accuracy) < CERTAIN:
        y = linear_axis("accuracy", "attack accuracy (share)", known(rows, "accuracy", "accuracy_low"))
        layers = [bars(x, y, "accuracy", colour(key))]
        tooltip = tooltip_of(alt.Tooltip("accuracy:Q", format=".3f", title="attack accuracy"))
        layers += points(x, y, key, tooltip)
        columns = (*NAMED, "distortion", "accuracy", "accuracy_low", "accuracy_high")
        title = "Worst-case attack accuracy (down: protected)"
        out.append(drawing("accuracy", title, together(layers), "settings", *columns))
    return out


def _against_excess(field: str, title: str, rows: Rows, key: Rows,
                    scale: alt.Scale) -> alt.LayerChart:  # fmt: skip
    x = alt.X(
        f"{field}:Q", scale=scale, axis=alt.Axis(format="~g", title=title, labelOverlap=True, tickCount=4)
    )
    y = share_axis(rows, EXCESS, "excess leakage")
    tooltip = tooltip_of(alt.Tooltip(f"{field}:Q", format=".3g", title=title),
                       alt.Tooltip("excess:Q", format=".3f", title="excess leakage"))  # fmt: skip
    return together([bars(x, y, "excess", colour(key)), *points(x, y, key, tooltip)])


def utility(rows: Rows, key: Rows) -> list[Drawing]:
    """Excess leakage against each face of utility that differs between settings."""
    out = []
    for face in UTILITY:
        if len({round(v, 6) for v in known(rows, face)}) < 2:
            continue
        words = FACES[face].words
        hint = "right: kept" if FACES[face].more_is_better else "left: kept"
        values = known(rows, face)
        room = 0.06 * (max(values) - min(values))
        scale = alt.Scale(domain=[min(values) - room, max(values) + room], nice=False)
        chart = _against_excess(face, words, rows, key, scale)
        title = f"{words[0].upper()}{words[1:]} ({hint})"
        out.append(drawing(f"utility-{face}", title, chart, "settings", *NAMED, face, *EXCESS))
    return out


def knobs(rows: Rows, key: Rows) -> list[Drawing]:
    """Excess leakage against every numeric knob that was varied, one chart a defense and knob."""
    out = []
    for defense, knob, log in varied_knobs(rows, LEAST_KNOB_VALUES):
        field = f"knob_{knob}"
        own = [r for r in rows if r["defense"] == defense and r.get(field) is not None]
        ends = [f([r[field] for r in own]) for f in (min, max)]
        room = 0.06 * (ends[1] - ends[0])
        ends = [ends[0] / 1.15, ends[1] * 1.15] if log else [ends[0] - room, ends[1] + room]
        scale = alt.Scale(type="log" if log else "linear", domain=ends, nice=False)
        chart = _against_excess(field, f"{defense}: {knob}", own, key, scale)
        columns = (*NAMED, field, "distortion", *EXCESS)
        name = f"knob-{defense}-{knob}"
        out.append(drawing(name, f"{defense}: {knob}", chart, "settings", *columns, only=defense))
    return out


def shares(rows: Rows, key: Rows) -> Drawing | None:
    """The share of images that are reconstructed with an error below epsilon; None without percentiles."""
    if not rows:
        return None
    x = alt.X(
        "epsilon:Q",
        axis=alt.Axis(title="epsilon: error of an image (MSE in [0, 1])", format="~g", tickCount=8),
    )
    y = alt.Y("eta:Q", axis=alt.Axis(title="share of images", format="~g"),
              scale=alt.Scale(domain=[0, 1]))  # fmt: skip
    anchor = "datum.defense == 'undefended' || datum.defense == 'label-only'"
    dash = alt.StrokeDashValue([1, 0], condition={"test": anchor, "value": [6, 4]})
    tooltip = [alt.Tooltip("setting:N"), alt.Tooltip("attacker:N"), alt.Tooltip("epsilon:Q", format=".4f"),
               alt.Tooltip("eta:Q", format=".2f", title="share of images")]  # fmt: skip
    drawn = base("curves").encode(
        x=x, y=y, color=colour(key), detail=alt.Detail("trial:N"), order=alt.Order("eta:Q"), tooltip=tooltip
    )
    layers = [
        drawn.mark_line(strokeWidth=1.8).encode(strokeDash=dash),
        drawn.mark_point(size=14, filled=True),
    ]
    title = "How many images are reconstructed how closely (right: protected)"
    columns = ("trial", "setting", "attacker", "eta", "epsilon", "low", "high")
    return drawing("curves", title, together(layers), "curves", *columns, tall=True)


def projections(panels: Rows) -> tuple[list[Drawing], dict[str, list[Plain]]]:
    """Clean and released vectors in two dimensions: the drawings, and their data sets."""
    drawings, data = [], {}
    for i, panel in enumerate(panels):
        for view in panel["views"]:
            name = f"vectors-{i}-{view['method'].lower()}"
            data[name] = [
                {"x": x, "y": y, "vector": kind} for kind in ("clean", "released") for x, y in view[kind]
            ]
            moved = "" if panel["moved"] is None else f", moved by {panel['moved']:.3g} (mean l2)"
            axes = {c: alt.Axis(labels=False, ticks=False, title=None) for c in "xy"}
            hue = alt.Scale(domain=["clean", "released"], range=["var(--c0)", "var(--c1)"])
            forms = alt.Scale(domain=["clean", "released"], range=["circle", CROSS])
            chart = alt.Chart(alt.NamedData(name)).mark_point(size=18, strokeWidth=1.1, filled=False).encode(
                x=alt.X("x:Q", axis=axes["x"]), y=alt.Y("y:Q", axis=axes["y"]),
                stroke=alt.Stroke("vector:N", scale=hue, legend=None),
                shape=alt.Shape("vector:N", scale=forms, legend=None), tooltip=[alt.Tooltip("vector:N")],
            )  # fmt: skip
            title = f"{panel['name']}: {view['method']}{moved}"
            drawings.append(drawing(name, title, together([chart]), name, "vector", "x", "y"))
    return drawings, data


def compare(rows: Rows) -> Drawing:
    """The settings of several studies: excess leakage against distortion, colour and shape by study."""
    names = list(dict.fromkeys(str(r["study"]) for r in rows))
    hue = alt.Scale(domain=names, range=[f"var(--c{i % 7})" for i in range(len(names))])
    forms = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross"]
    form = alt.Scale(domain=names, range=[forms[i % len(forms)] for i in range(len(names))])
    legend = alt.Legend(title=None, orient="bottom", labelColor=INK, columns=2)
    x, y = distortion_axis(rows), share_axis(rows, [*EXCESS, "certified"], "excess leakage (share)")
    bound = alt.Y("certified:Q", scale=y["scale"], axis=y["axis"])
    shapes = base("all").mark_point(size=75, strokeWidth=1.4, filled=False)
    tooltip = [
        alt.Tooltip("study:N"),
        *tooltip_of(alt.Tooltip("excess:Q", format=".3f", title="excess leakage")),
    ]
    stroke = alt.Stroke("study:N", scale=hue, legend=legend)
    shown = {"x": x, "y": y, "stroke": stroke, "shape": alt.Shape("study:N", scale=form, legend=legend)}
    layers = [
        base("all").mark_tick(orient="horizontal", thickness=2.5, size=16, aria=False).encode(
            x=x, y=bound, color=alt.Color("study:N", scale=hue, legend=legend)
        ).transform_filter("isValid(datum.certified)"),
        bars(x, y, "excess", alt.Color("study:N", scale=hue, legend=legend), data="all"),
        shapes.encode(**shown, tooltip=tooltip, description=alt.Description("setting:N")).add_params(zoom()),
        base("all").transform_filter("datum.recommended").mark_point(
            shape="circle", size=330, filled=False, color=INK, aria=False
        ).encode(x=x, y=y),
    ]  # fmt: skip
    columns = ("study", *COMPARED[:-1])
    title = "Excess leakage against distortion; ring: each study's recommended setting; dash: certificate"
    return drawing("compare", title, together(layers), "all", *columns, tall=True)
