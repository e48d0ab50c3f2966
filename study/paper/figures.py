"""Draws the paper's figures from our records: reconstructions, trade-offs, curves, projections."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from mipoison.metrics.leakage import ERROR_PERCENTS, PERCENTILE_COLUMNS
from mipoison.metrics.statistics import mean_interval
from mipoison.storage.files import Storage
from study.paper.diagnostics import COSINE, VECTORS
from study.paper.experiments import FACES, PaperRow, sweep, table_rows
from study.paper.measured import Measured
from study.paper.run import FOLDER
from study.records.images import kept_pictures, read_pictures
from study.records.reading import Unreadable, fetch, leave_out
from study.records.reading.tables import cosine_of, vectors_of
from study.reports.figures import COLOURS, DPI, MARKERS, grid_figure
from study.runtime.plain import visible_line
from study.runtime.scratch import scratch_folder

T = TypeVar("T")
FIRST = 0
"""Seed of the stored vectors."""
PICTURES = "pictures.parquet"
"""Reconstructions of a compact copy: trial, attack, shape and pixels (uint8)."""


def _new(title: str, info: str, columns: int, *, height: float = 4.4) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(5.2 * columns, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(np.atleast_1d(np.array(figure.subplots(1, columns))).ravel())
    figure.suptitle(
        title + "\n" + textwrap.fill(visible_line(info), 85 * columns), fontsize=9, parse_math=False
    )
    return figure, axes


def _read(measured: Measured, name: str, judge: Callable[[bytes], T]) -> T | None:
    """Read and validate a file beside the records; None if it does not exist or is invalid."""
    try:
        data = fetch(measured.storage, f"{measured.folder}/{name}")
        return None if data is None else judge(data)
    except Unreadable as error:
        leave_out(f"{measured.folder}/{name}", error)
        return None


def pictures(measured: Measured, trial: str) -> dict[str, NDArray[Any]]:
    """Attacker (or ``truth``) -> images (n, C, H, W) in [0, 1] of a trial's first seed; empty without."""
    kept = kept_pictures(measured.storage, f"{measured.folder}/{PICTURES}", trial)
    return dict(read_pictures(measured.storage, measured.folder, trial) if kept is None else kept)


def _grid(measured: Measured, rows: Iterable[PaperRow], path: Path, figure: str) -> bool:
    """Draw the true images and the reconstructions of each row; False, without a file, if none were run."""
    strips: list[tuple[str, NDArray[Any]]] = []
    for row in rows:
        found = pictures(measured, row.trial)
        if row.attack not in found or "truth" not in found:
            continue
        if not strips:
            strips.append(("truth", found["truth"]))
        if found[row.attack].shape != strips[0][1].shape:
            leave_out(f"{measured.folder}, pictures of {row.trial}", "another shape than the others")
            continue
        error = measured.values(row, "reconstruction_error").mean()
        name = {"none": "undefended"}.get(row.defense, row.defense)
        words = f"{name} {row.setting}".strip()
        strips.append((f"{words}\nattacker {row.attack}, error {error:.4f}", found[row.attack]))
    if len(strips) < 2:
        return False
    grid_figure(
        strips, path, f"after the paper's Figure {figure}; images of the first seed; {measured.caption()}"
    )
    return True


def _unique(rows: Iterable[PaperRow]) -> list[PaperRow]:
    return list({(r.trial, r.attack): r for r in rows}.values())


def _per_dataset(
    found: Mapping[str, Measured], table: str, figure: str, folder: Path
) -> list[tuple[str, Path]]:
    out = []
    for run, measured in found.items():
        rows = _unique(r for r in table_rows(table) if r.run == run)
        path = folder / f"figure_{figure}_{measured.name}.png"
        if rows and _grid(measured, rows, path, figure):
            out.append((path.name, path))
    return out


def _projections(found: Mapping[str, Measured], folder: Path) -> list[tuple[str, Path]]:
    """Figure 3: PCA and t-SNE of clean vectors beside released ones."""
    out = []
    for measured in found.values():
        vectors = _read(measured, VECTORS, vectors_of)
        if vectors is None:
            continue
        defenses = list(vectors)
        title = "Clean and released vectors of private images, PCA (above) and t-SNE (below)"
        figure = Figure(figsize=(4.2 * (len(defenses) - 1), 8.2), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(
            title + "\n" + textwrap.fill(visible_line(measured.caption(FIRST)), 130),
            fontsize=9,
            parse_math=False,
        )
        grid = np.array(figure.subplots(2, len(defenses) - 1)).reshape(2, -1)
        clean = vectors["none"]
        for column, defense in enumerate(defenses[1:]):
            released = vectors[defense]
            both = np.concatenate([clean, released])
            near = min(30, len(both) // 4)
            for row, (name, points) in enumerate(
                (
                    ("PCA", PCA(2).fit_transform(both)),
                    ("t-SNE", TSNE(2, random_state=0, perplexity=near, init="pca").fit_transform(both)),
                )
            ):
                axes = grid[row, column]
                axes.scatter(*points[: len(clean)].T, s=16, color=COLOURS[0], label="clean", alpha=0.7)
                look: dict[str, Any] = {"s": 16, "color": COLOURS[1], "marker": "x", "alpha": 0.7}
                axes.scatter(*points[len(clean) :].T, label="released", **look)
                axes.set_title(f"{visible_line(defense, 60)}: {name}", fontsize=9, parse_math=False)
                axes.legend(fontsize=8)
        path = folder / f"figure_3_{measured.name}.png"
        figure.savefig(path)
        out.append((path.name, path))
    return out


def _trade_off(found: Mapping[str, Measured], folder: Path) -> list[tuple[str, Path]]:
    """Figure 8: attack accuracy against model accuracy; error against distortion; LPA, MID and noise."""
    measured = found.get(FACES)
    if measured is None:
        return []
    rows = _unique([*table_rows("VI"), *sweep()])
    title = "Utility and privacy of LPA (without its label step), MID and matched noise"
    figure, (left, right) = _new(title, measured.caption(), 2, height=5)
    drawn = False
    for i, defense in enumerate(("none", "lpa", "mid", "noise")):
        points = [
            [
                measured.values(row, column)
                for column in (
                    "protected_accuracy",
                    "attack_accuracy",
                    "confidence_distortion",
                    "reconstruction_error",
                )
            ]
            for row in rows
            if row.defense == defense
        ]
        points = [p for p in points if len(p[0])]
        if not points:
            continue
        drawn = True
        look: dict[str, Any] = {
            "color": COLOURS[i],
            "marker": MARKERS[i],
            "ls": "",
            "capsize": 2,
            "label": defense,
        }
        for axes, (x, y) in ((left, (0, 1)), (right, (2, 3))):
            means = np.array([[p[x].mean(), p[y].mean()] for p in points])
            bars = [mean_interval(p[y].to_numpy()) for p in points]
            spread = [0.0 if b.low is None else b.mean - b.low for b in bars]
            axes.errorbar(means[:, 0], means[:, 1], spread, **look)
    left.set(xlabel="model accuracy (share)", ylabel="attack accuracy (share, down: protected)")
    right.set(xlabel="mean l2 of c' - c", ylabel="reconstruction error (MSE in [0, 1], up: protected)")
    right.set_xscale("symlog", linthresh=1e-3)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    if not drawn:
        return []
    path = folder / "figure_8.png"
    figure.savefig(path)
    return [(path.name, path)]


def _curves(found: Mapping[str, Measured], folder: Path) -> list[tuple[str, Path]]:
    """Figure 10: eta(epsilon), the share of images reconstructed with an error below epsilon."""
    shown = {row.run for row in table_rows("I")}
    usable = {run: m for run, m in found.items() if run in shown and PERCENTILE_COLUMNS[0] in m.episodes}
    if not usable:
        return []
    title = "eta(epsilon): share of private images with an error below epsilon (right and down: protected)"
    title += "; dots: mean error, the least gamma of a gamma-inversion"
    info = (
        "; ".join(m.caption() for m in list(usable.values())[:1])
        + "; for sizes of the others see their tables"
    )
    figure, panels = _new(title, info, len(usable))
    for axes, (run, measured) in zip(panels, usable.items(), strict=True):
        rows = _unique(r for r in table_rows("I") if r.run == run)
        for i, row in enumerate(rows):
            errors = [measured.values(row, column).mean() for column in PERCENTILE_COLUMNS]
            if np.isfinite(errors).all():
                name = {"none": "undefended"}.get(row.defense, row.defense)
                dashes = "--" if row.ours else "-"
                shares = np.array(ERROR_PERCENTS) / 100
                colour = COLOURS[i % len(COLOURS)]
                axes.plot(errors, shares, color=colour, ls=dashes, lw=1.3, label=name)
                gamma = measured.values(row, "reconstruction_error").mean()
                axes.plot(gamma, np.interp(gamma, errors, shares), "o", ms=5, color=colour)
        axes.set(xlabel="epsilon (MSE in [0, 1])", ylabel="eta: share of images", title=measured.name)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    path = folder / "figure_10.png"
    figure.savefig(path)
    return [(path.name, path)]


def _cosines(found: Mapping[str, Measured], folder: Path) -> list[tuple[str, Path]]:
    """Proposition 1's cosine along the attacker's training, and the private loss."""
    out = []
    for measured in found.values():
        frame = _read(measured, COSINE, cosine_of)
        if frame is None:
            continue
        title = (
            "Proposition 1 as a diagnostic: the attacker's step against the private loss, along its training"
        )
        figure, (left, right) = _new(title, measured.caption(int(frame["seed"].iloc[0])), 2)
        for i, (defense, group) in enumerate(frame.groupby("defense", sort=False)):
            look: dict[str, Any] = {
                "color": COLOURS[i],
                "marker": MARKERS[i],
                "ms": 3,
                "lw": 1.2,
                "label": defense,
            }
            mean = group.groupby("step").mean(numeric_only=True)
            left.plot(mean.index, mean["cosine"], **look)
            right.plot(mean.index, mean["private_loss"], **look)
        left.axhline(0, color="black", lw=0.8)
        left.set(
            xlabel="training step",
            ylabel="cos(grad of attack loss, -grad of private loss)\nabove 0: poisoned",
        )
        right.set(xlabel="training step", ylabel="loss on (clean vector, private image) pairs")
        for axes in (left, right):
            axes.grid(alpha=0.25)
            axes.legend(fontsize=8)
        path = folder / f"proposition_1_{measured.name}.png"
        figure.savefig(path)
        out.append((path.name, path))
    return out


Draw = Callable[[Mapping[str, Measured], Path], list[tuple[str, Path]]]
DRAWINGS: dict[str, Draw] = {
    "3": lambda found, folder: [*_projections(found, folder), *_cosines(found, folder)],
    "4": lambda found, folder: _per_dataset(found, "I", "4", folder),
    "5": lambda found, folder: _per_dataset(found, "IV", "5", folder),
    "6": lambda found, folder: _per_dataset(found, "V", "6", folder),
    "7": lambda found, folder: _per_dataset(found, "VI", "7", folder),
    "8": _trade_off,
    "10": _curves,
}


def write_figures(found: Mapping[str, Measured], figures: Iterable[str], storage: str) -> list[str]:
    """Write ``figure_<n>[_<data>].png`` below ``<storage>/reproduction``; return what was written."""
    target, written = Storage(storage).below(FOLDER), []
    with scratch_folder("figures") as scratch:
        for figure in figures:
            for name, path in DRAWINGS[figure](found, Path(scratch)):
                target.write(name, path.read_bytes())
                written.append(target.where(name))
    return written
