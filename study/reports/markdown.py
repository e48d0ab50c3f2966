"""What a study leaves for people: tables in the terminal, the frontier's figure, reconstructions."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from mipoison.defenses import ANCHORS
from study.analysis.frontier import selection_bias, settings_table
from study.records.images import read_pictures
from study.records.reading import leave_out
from study.records.store import Records
from study.reports.cells import describe, setting_name
from study.reports.figures import drawn, frontier_figure, grid_figure
from study.reports.tables import equal_distortion_report, fresh_report, print_report
from study.runtime.plain import fenced, markdown_text

MARKDOWN_WIDTH = 120


def write_report(
    records: Records,
    episodes: pd.DataFrame,
    front: pd.DataFrame,
    console: Console,
    *,
    fresh: pd.DataFrame | None = None,
    max_accuracy_drop: float,
    scale: str,
) -> None:
    """Print the tables; write ``frontier.png`` and ``reconstructions.png`` beside the episodes."""
    about = {"study": records.study, "scale": scale}
    settings = settings_table(episodes, max_accuracy_drop=max_accuracy_drop)
    bias = None
    if fresh is not None:
        bias = selection_bias(settings, fresh, max_accuracy_drop)
        records.storage.write(f"{records.study}/frontier_fresh.parquet", bias.to_parquet(index=False))
    print_tables(episodes, fresh, console, about, max_accuracy_drop, settings)
    info = describe(episodes, about)
    text = markdown(episodes, fresh, about, max_accuracy_drop, settings)
    records.storage.write(f"{records.study}/report.md", text.encode())
    for name, draw in (
        ("frontier.png", lambda path: frontier_figure(settings, front, path, info, fresh=bias)),
        ("reconstructions.png", lambda path: _grid(records, settings, path, info)),
    ):
        data = drawn(draw)
        if data is not None:
            records.storage.write(f"{records.study}/{name}", data)
    console.print(
        f"written to {records.storage.where(records.study)}: "
        "episodes/*.parquet, frontier.parquet, report.md, *.png",
        soft_wrap=True,
        markup=False,
    )


def print_tables(
    episodes: pd.DataFrame,
    fresh: pd.DataFrame | None,
    console: Console,
    about: Mapping[str, object],
    max_accuracy_drop: float,
    settings: pd.DataFrame | None = None,
) -> None:
    """All tables of a study, from its records alone (``settings``: their settings table, if it is there)."""
    if settings is None:
        settings = settings_table(episodes, max_accuracy_drop=max_accuracy_drop)
    print_report(episodes, settings, console=console, title_info=about, max_accuracy_drop=max_accuracy_drop)
    if fresh is not None and len(fresh):
        bias = selection_bias(settings, fresh, max_accuracy_drop)
        console.print(fresh_report(bias, f"{describe(episodes, about)}; fresh: {describe(fresh)}"))
        console.print()
        console.print("On the fresh seeds alone:")
        again = settings_table(fresh, max_accuracy_drop=max_accuracy_drop)
        console.print(equal_distortion_report(fresh, again, describe(fresh, about)))


def markdown(
    episodes: pd.DataFrame,
    fresh: pd.DataFrame | None,
    about: Mapping[str, object],
    max_accuracy_drop: float,
    settings: pd.DataFrame | None = None,
) -> str:
    """The tables as a Markdown page; nothing in it depends on when or where it is rendered."""
    sink = io.StringIO()
    console = Console(file=sink, width=MARKDOWN_WIDTH, color_system=None, force_terminal=False)
    print_tables(episodes, fresh, console, about, max_accuracy_drop, settings)
    body = "\n".join(line.rstrip() for line in sink.getvalue().splitlines())
    return f"# {markdown_text(about['study'])}\n\n![frontier](frontier.png)\n\n{fenced(body)}\n"


def _grid(records: Records, settings: pd.DataFrame, path: Path, info: str) -> None:
    """Truth, undefended, label-only, then of each family the setting with the highest worst-case error.

    Each row shows what that setting's worst attacker (by error, over all seeds) made of the first seed's
    images.
    """
    usable = settings.dropna(subset=["worst_reconstruction_error"])
    rows: list[tuple[str, NDArray[Any]]] = []
    for _, setting in chosen_settings(usable).iterrows():
        pictures = read_pictures(records.storage, records.study, str(setting["trial"]))
        attacker = str(setting["worst_reconstruction_error_attacker"])
        if attacker not in pictures or "truth" not in pictures:
            continue
        if not rows:
            rows.append(("truth", pictures["truth"]))
        if pictures[attacker].shape != rows[0][1].shape:
            leave_out(f"{records.study}/pictures/{setting['trial']}.npz", "pictures of another shape")
            continue
        distortion, error = setting["confidence_distortion"], setting["worst_reconstruction_error"]
        name = {"none": "undefended"}.get(str(setting["defense"]), setting_name(setting))
        cost = "" if setting["feasible"] else f" (costs {100 * setting['accuracy_drop']:.1f} % accuracy)"
        rows.append(
            (
                f"{name}{cost}\ndistortion {distortion:.4f}, error {error:.4f}\nattacker {attacker}",
                pictures[attacker],
            )
        )
    if rows:
        grid_figure(rows, path, info)


def chosen_settings(settings: pd.DataFrame) -> pd.DataFrame:
    """The settings worth a picture: undefended, label-only, of each family the best by worst-case error."""
    return pd.concat([_anchor_rows(settings), _best_rows(settings)])


def _anchor_rows(settings: pd.DataFrame) -> pd.DataFrame:
    order = {name: i for i, name in enumerate(reversed(ANCHORS))}
    anchors = settings[settings["defense"].isin(ANCHORS)]
    return anchors.sort_values("defense", key=lambda column: column.map(order))


def _best_rows(settings: pd.DataFrame) -> pd.DataFrame:
    """Of each family the setting with the highest worst-case error, feasible first; the first of equals."""
    searched = settings[~settings["defense"].isin(ANCHORS)]
    ranked = searched.sort_values(
        ["feasible", "worst_reconstruction_error", "confidence_distortion"],
        ascending=[False, False, True],
        kind="stable",
    )
    return ranked.drop_duplicates("defense").sort_values("defense")
