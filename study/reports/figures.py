"""The study's figures, each with its own title and legend; written as PNG without a display."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator
from numpy.typing import NDArray

from mipoison.defenses import DEFENSES, LABEL_ONLY, UNDEFENDED
from mipoison.metrics.excess import MARGIN
from study.analysis.frontier import measured
from study.analysis.identification import CHANCE, IDENTIFIED
from study.analysis.indicators import knee
from study.reports.leakage import EXCESS, LIMIT
from study.reports.leakage_panel import draw_bounds, draw_possible, finish
from study.runtime.plain import visible_line
from study.runtime.scratch import scratch_folder

DPI = 150
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D00")
"""Okabe and Ito's palette for colour-blind readers (its yellow darkened); markers differ as well."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
ANCHOR_STYLE = {LABEL_ONLY: ("black", "*", "--"), UNDEFENDED: ("#666666", "h", ":")}
CERTAIN = 0.995
"""An attack accuracy (share) from which on every class counts as given away: 1.00 when rounded."""
PANELS = (
    (
        "worst_reconstruction_error",
        "worst-case reconstruction\nerror on train images\n(MSE, up: protected)",
        True,
    ),
    ("worst_attack_accuracy", "worst-case\nattack accuracy\n(share, down: protected)", False),
    (
        EXCESS,
        "excess leakage, the larger\nof train and test (share of\nlabel-only's error, zero: none)",
        False,
    ),
    (
        IDENTIFIED,
        "identification AUC, the\nlarger of train and test\n(0.5: chance, down: protected)",
        False,
    ),
)
"""Column, axis label, whether more is better."""
HEIGHTS = {"worst_reconstruction_error": 1.3, "worst_attack_accuracy": 1.0, EXCESS: 1.3, IDENTIFIED: 1.0}
"""Of each panel, relative to the others."""
ALWAYS = {"worst_reconstruction_error", EXCESS}
"""Panels of every figure."""
HOLLOW = "a bound (not all attackers ran), or\noutside the constraints (hollow)"
INCHES = {4: 13.0, 3: 10.5, 2: 9.5}
"""Number of panels -> height of the figure."""


def figure_bytes(draw: Callable[[Path], object]) -> bytes | None:
    """The bytes of the PNG that ``draw`` writes to the path it is given; None if it writes none."""
    with scratch_folder("figure") as folder:
        path = Path(folder) / "figure.png"
        draw(path)
        return path.read_bytes() if path.exists() else None


def style_of(defense: str, defenses: Sequence[str]) -> tuple[str, str]:
    """Colour and marker of a defense, by its position among those shown in the order of DEFENSES."""
    if defense in ANCHOR_STYLE:
        return ANCHOR_STYLE[defense][:2]
    known = [name for name in DEFENSES if name in defenses and name not in ANCHOR_STYLE]
    order = [*known, *sorted(set(defenses) - set(known) - set(ANCHOR_STYLE))]
    place = order.index(defense)
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]


def _numbers(table: pd.DataFrame, column: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = table[column].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    return values


def _points(
    axes: Axes, group: pd.DataFrame, column: str, style: tuple[str, str], front: pd.DataFrame
) -> None:
    """Draw settings with 95 % intervals; infeasible ones and bounds are hollow, optimal ones outlined."""
    colour, marker = style
    x, y = _numbers(group, "confidence_distortion"), _numbers(group, column)
    bars = np.abs(np.stack([_numbers(group, f"{column}_low"), _numbers(group, f"{column}_high")]) - y)
    solid = measured(group)
    optimal = group["trial"].isin(front["trial"]).to_numpy(dtype=bool)
    look: dict[str, Any] = {"s": 120 if marker == "*" else 36, "marker": marker, "zorder": 4}
    for mask, face, edge, width in (
        (~solid, "none", colour, 0.9),
        (solid & ~optimal, colour, "white", 0.5),
        (solid & optimal, colour, "black", 1.3),
    ):
        if mask.any():
            axes.scatter(x[mask], y[mask], facecolors=face, edgecolors=edge, linewidths=width, **look)
    shown = np.isfinite(bars).all(axis=0) & np.isfinite(x)
    if shown.any():
        look = {"fmt": "none", "ecolor": colour, "elinewidth": 1, "alpha": 0.6, "zorder": 3}
        axes.errorbar(x[shown], y[shown], bars[:, shown], **look)


def _attainable(axes: Axes, front: pd.DataFrame, column: str, more_is_better: bool) -> None:
    """Draw, as steps, the best value that a Pareto-optimal setting reaches at no more than a distortion, of
    those that all attackers attacked."""
    points = (
        front[measured(front)]
        .dropna(subset=["confidence_distortion", column])
        .sort_values("confidence_distortion")
    )
    if len(points) > 1:
        best = np.maximum.accumulate if more_is_better else np.minimum.accumulate
        x, y = _numbers(points, "confidence_distortion"), best(_numbers(points, column))
        axes.step(x, y, where="post", color="black", lw=1, alpha=0.45, zorder=2)


def _zero_scale(axes: Axes, distortion: NDArray[np.float64]) -> None:
    """Make the distortion axis logarithmic, with room for zero left of the smallest positive value."""
    positive = distortion[np.isfinite(distortion) & (distortion > 0)]
    low, high = (positive.min(), positive.max()) if len(positive) else (1e-4, 1.0)
    linear = 10.0 ** math.floor(math.log10(low))
    axes.set_xscale("symlog", linthresh=linear, linscale=0.6)
    axes.set_xlim(-linear * 0.35, max(high, linear) * 1.7)
    axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=linear))
    axes.xaxis.set_minor_locator(SymmetricalLogLocator(base=10, linthresh=linear, subs=list(range(2, 10))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def _own_front(axes: Axes, group: pd.DataFrame, column: str, more_is_better: bool, colour: str) -> None:
    """Draw one defense's own front: the best value that its settings reach at no more than a distortion, of
    those that all attackers attacked."""
    points = (
        group[measured(group)]
        .dropna(subset=["confidence_distortion", column])
        .sort_values("confidence_distortion")
    )
    if len(points) > 1:
        best = np.maximum.accumulate if more_is_better else np.minimum.accumulate
        x, y = _numbers(points, "confidence_distortion"), best(_numbers(points, column))
        axes.step(x, y, where="post", color=colour, lw=1.1, alpha=0.7, zorder=2)


def _fresh_points(axes: Axes, fresh: pd.DataFrame, column: str, defenses: Sequence[str]) -> None:
    """Draw re-evaluated settings: the value on fresh seeds, joined to that of the search."""
    for _, row in fresh.dropna(subset=[column, f"{column}_fresh"]).iterrows():
        colour = style_of(str(row["defense"]), defenses)[0]
        x, before, after = row["confidence_distortion"], row[column], row[f"{column}_fresh"]
        axes.plot([x, x], [before, after], color=colour, lw=0.8, ls=":", zorder=3)
        axes.scatter([x], [after], marker="_", s=90, color=colour, linewidths=2, zorder=5)


def frontier_figure(
    configurations: pd.DataFrame,
    front: pd.DataFrame,
    path: str | Path,
    info: str,
    *,
    leakage: pd.DataFrame,
    identified: pd.DataFrame | None = None,
    margin: float = MARGIN,
    fresh: pd.DataFrame | None = None,
) -> Path:
    """Draw worst-case error, attack accuracy, excess leakage and identification against distortion.

    There is no panel of attack accuracy where it is 1.00 for every setting: the label gives every class away;
    and none of identification where no setting has it, as in older records.

    Args:
        configurations: a ``configuration_table``. Settings without a worst case are left out and counted in
            the title.
        front: its ``pareto_front``; outlined, and joined by the best value attained at no more distortion.
            Settings that were cut are hollow, and no line follows them.
        path: where to write the PNG; its folder must exist.
        info: one line for the title: data, auxiliary, seeds (see ``tables.describe``).
        leakage: the ``leakage_table``: excess leakage with its interval, certificate and estimated limit.
        identified: the ``identification_table``.
        margin: the excess leakage (share) that is accepted, drawn as a line.
        fresh: the ``selection_bias`` table: dashes mark what fresh seeds measure.

    Returns:
        The path.
    """
    drawn = configurations.dropna(subset=["confidence_distortion", "worst_reconstruction_error"])
    drawn = drawn.merge(leakage, on="trial", how="left")
    front = front.merge(leakage, on="trial", how="left")
    drawn, front = (table[[c for c in table if not c.startswith("defense.")]] for table in (drawn, front))
    if identified is not None:
        drawn = drawn.merge(identified, on="trial", how="left")
        front = front.merge(identified, on="trial", how="left")
    told = len(drawn) == 0 or bool((_numbers(drawn, "worst_attack_accuracy") < CERTAIN).any())
    known = {IDENTIFIED} if IDENTIFIED in drawn and drawn[IDENTIFIED].notna().any() else set()
    known |= {"worst_attack_accuracy"} if told else set()
    shown = [panel for panel in PANELS if panel[0] in known | ALWAYS]
    defenses = sorted(drawn["defense"].unique(), key=lambda f: (f in ANCHOR_STYLE, f))
    figure = Figure(figsize=(9, INCHES[len(shown)]), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    heights = [HEIGHTS[column] for column, _, _ in shown]
    panels = figure.subplots(len(shown), 1, sharex=True, height_ratios=heights)
    excess = panels[[column for column, _, _ in shown].index(EXCESS)]
    handles: list[Line2D] = []
    for defense in defenses:
        colour, marker = style = style_of(defense, defenses)
        group = drawn[drawn["defense"] == defense]
        draw_bounds(excess, group, colour)
        draw_possible(panels[0], group, LIMIT, colour)
        for axes, (column, _, more) in zip(panels, shown, strict=True):
            if defense not in ANCHOR_STYLE:
                _own_front(axes, group, column, more, colour)
            _points(axes, group, column, style, front)
        name = {UNDEFENDED: "undefended", LABEL_ONLY: "label-only (the floor)"}.get(defense, defense)
        dashes = ANCHOR_STYLE[defense][2] if defense in ANCHOR_STYLE else ""
        look: dict[str, Any] = {"ls": dashes, "lw": 1.1, "marker": marker}
        handles.append(Line2D([], [], **look, ms=10 if marker == "*" else 7, color=colour, label=name))
    for axes, (column, label, more_is_better) in zip(panels, shown, strict=True):
        for defense, (colour, _, dashes) in ANCHOR_STYLE.items():
            for value in _numbers(drawn[drawn["defense"] == defense], column)[:1]:
                if math.isfinite(value) and column != EXCESS:
                    axes.axhline(value, color=colour, ls=dashes, lw=1.1, zorder=1)
        _attainable(axes, front, column, more_is_better)
        if fresh is not None and column != IDENTIFIED:
            _fresh_points(axes, fresh, "excess_leakage" if column == EXCESS else column, defenses)
        axes.set_ylabel(label)
        axes.grid(alpha=0.25, lw=0.6)
    mean_image = _numbers(drawn, "mean_image_error")
    if np.isfinite(mean_image).any():
        panels[0].axhline(np.nanmean(mean_image), color="#CC0000", ls="-.", lw=1.1, zorder=1)
        handles.append(Line2D([], [], color="#CC0000", ls="-.", lw=1.1, label="mean image (learned nothing)"))
    handles += finish(excess, drawn, margin)
    if drawn[EXCESS].isna().all():
        why = "no label-only anchor to compare with"
        excess.text(0.5, 0.6, why, transform=excess.transAxes, ha="center")
    if IDENTIFIED in known:
        panels[-1].axhline(CHANCE, color="black", lw=0.8, zorder=1)
        handles.append(Line2D([], [], color="black", lw=0.8, label="chance of identification: 0.5"))
    _zero_scale(panels[0], _numbers(drawn, "confidence_distortion"))
    panels[-1].set_xlabel("confidence distortion: mean l2 norm of c' - c (logarithmic, with zero)")
    sign: dict[str, Any] = {"ls": "", "marker": "o", "ms": 7}
    handles += [
        Line2D([], [], color="black", lw=1, alpha=0.45, label="best at no more distortion"),
        Line2D([], [], **sign, mfc="#BBBBBB", mec="black", mew=1.3, label="not dominated (outlined)"),
        Line2D([], [], **sign, mfc="none", mec="#777777", label=HOLLOW),
        Line2D(
            [], [], ls="", marker="|", ms=9, color="#777777", label="95 % interval (excess: one-sided limits)"
        ),
    ]
    best = drawn[drawn["trial"] == (knee(configurations) or "")]
    if len(best):
        place = _numbers(best, "confidence_distortion"), _numbers(best, "worst_reconstruction_error")
        panels[0].scatter(*place, marker="o", s=190, facecolors="none", edgecolors="black", lw=1.2, zorder=6)
        handles.append(Line2D([], [], **(sign | {"ms": 12}), mfc="none", mec="black", label="knee (ringed)"))
    handles.append(Line2D([], [], color="#777777", lw=1.1, label="a defense's own front (its colour)"))
    if fresh is not None and len(fresh):
        handles.append(Line2D([], [], ls=":", marker="_", ms=10, color="#777777", label="on fresh seeds"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    left_out = len(configurations) - len(drawn)
    title = f"What {len(drawn)} defense settings cost and leak at worst"
    title += f" ({left_out} without a worst case left out)" if left_out else ""
    figure.suptitle(title + "\n" + textwrap.fill(visible_line(info), 105), fontsize=10, parse_math=False)
    figure.savefig(path)
    return Path(path)


def side_by_side(images_NCHW: NDArray[Any]) -> NDArray[np.float64]:
    """Images side by side with white gaps, as one image (H, W', 3)."""
    images = np.clip(np.asarray(images_NCHW, dtype=np.float64), 0, 1)
    images = np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images
    gap = max(1, images.shape[-1] // 16)
    padded = np.pad(images, ((0, 0), (0, 0), (0, 0), (0, gap)), constant_values=1.0)
    return np.concatenate(list(padded.transpose(0, 2, 3, 1)), axis=1)[:, :-gap]


def grid_figure(rows: Sequence[tuple[str, NDArray[Any]]], path: str | Path, info: str) -> Path:
    """Draw reconstructed images below the true ones, in labelled rows.

    Args:
        rows: (label, images (n, C, H, W) in [0, 1], C 1 or 3), all of one shape, from top to bottom: the
            truth, undefended, label-only, then defenses labelled with name, knobs, distortion and attacker.
            Missing pixels (NaN) show black.
        path: where to write the PNG; its folder must exist.
        info: one line for the title: data, auxiliary, seed (lines in a label are kept, long ones wrapped).

    Raises:
        ValueError: no rows, or images of another shape than (n, 1 or 3, H, W) or than the first row's.
    """
    if not rows:
        raise ValueError("a reconstruction grid needs at least one row")
    shape = np.shape(rows[0][1])
    if len(shape) != 4 or shape[0] < 1 or shape[1] not in (1, 3):
        raise ValueError(f"row {rows[0][0]!r} has images of shape {shape}, not (n, 1 or 3, H, W)")
    for label, images in rows:
        if np.shape(images) != shape:
            raise ValueError(f"row {label!r} has images of shape {np.shape(images)}, the first row {shape}")
    n, _, height, width = shape
    fill = textwrap.TextWrapper(36, break_on_hyphens=False).fill
    labels = ["\n".join(fill(visible_line(line)) for line in label.split("\n")) for label, _ in rows]
    longest = max(len(line) for text in labels for line in text.split("\n"))
    label_inches, image_inches = 0.3 + 0.072 * longest, max(0.45, min(0.9, 9.0 / n))
    row_inches = [max(image_inches * height / width, 0.19 * (text.count("\n") + 1)) + 0.08 for text in labels]
    total = label_inches + n * image_inches
    title = textwrap.fill(
        "Reconstructions of private images: " + visible_line(info), max(30, int(total * 12))
    )
    top = 0.2 + 0.19 * (title.count("\n") + 1)
    figure = Figure(figsize=(total + 0.1, sum(row_inches) + top + 0.1), dpi=DPI)
    FigureCanvasAgg(figure)
    tall = figure.get_figheight()
    y = tall - top
    for text, (_, images), inches in zip(labels, rows, row_inches, strict=True):
        y -= inches
        wide = n * image_inches / (total + 0.1)
        axes = figure.add_axes((label_inches / (total + 0.1), y / tall, wide, (inches - 0.08) / tall))
        axes.imshow(side_by_side(np.nan_to_num(images)), interpolation="nearest", vmin=0, vmax=1)
        axes.set_axis_off()
        middle = (y + (inches - 0.08) / 2) / tall
        right = (label_inches - 0.12) / (total + 0.1)
        figure.text(right, middle, text, ha="right", va="center", fontsize=8.5, parse_math=False)
    figure.text(0.5, 1 - 0.12 / tall, title, ha="center", va="top", fontsize=10, parse_math=False)
    figure.savefig(path)
    return Path(path)
