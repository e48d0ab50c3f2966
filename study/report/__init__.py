"""What a study leaves for people: tables in the terminal, the frontier's figure, reconstructions."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from mipoison.defenses import ANCHORS
from study.frontier import selection_bias, settings_table
from study.records import Records
from study.report.figures import frontier_figure, grid_figure
from study.report.tables import describe, fresh_report, print_report, setting_name


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
    settings = settings_table(episodes, max_accuracy_drop=max_accuracy_drop)
    about = {"study": records.study, "scale": scale}
    print_report(episodes, settings, console=console, title_info=about)
    info = describe(episodes, about)
    if fresh is not None:
        bias = selection_bias(episodes, fresh, max_accuracy_drop)
        console.print(fresh_report(bias, f"{info}; fresh: {describe(fresh)}"))
        records.storage.write(f"{records.study}/frontier_fresh.parquet", bias.to_parquet(index=False))
    with tempfile.TemporaryDirectory() as folder:
        for name, draw in (
            ("frontier.png", lambda path: frontier_figure(settings, front, path, info)),
            ("reconstructions.png", lambda path: _grid(records, settings, path, info)),
        ):
            path = Path(folder) / name
            draw(path)
            if path.exists():
                records.storage.write(f"{records.study}/{name}", path.read_bytes())
    console.print(
        f"written to {records.storage.root}/{records.study}: episodes/*.parquet, frontier.parquet, *.png",
        soft_wrap=True,
    )


def _grid(records: Records, settings: pd.DataFrame, path: Path, info: str) -> None:
    """Truth, undefended, label-only, then of each family the setting with the highest worst-case error.

    Each row shows what that setting's worst attacker (by error, over all seeds) made of the first seed's
    images.
    """
    usable = settings.dropna(subset=["worst_reconstruction_error"])
    rows: list[tuple[str, NDArray[Any]]] = []
    for _, setting in pd.concat([_anchor_rows(usable), _best_rows(usable)]).iterrows():
        pictures = _pictures(records, str(setting["trial"]))
        attacker = str(setting["worst_reconstruction_error_attacker"])
        if attacker not in pictures:
            continue
        if not rows:
            rows.append(("truth", pictures["truth"]))
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


def _pictures(records: Records, trial: str) -> dict[str, NDArray[Any]]:
    data = records.storage.read(f"{records.study}/pictures/{trial}.npz")
    if data is None:
        return {}
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name].astype(np.float64) / 255 for name in archive.files}
