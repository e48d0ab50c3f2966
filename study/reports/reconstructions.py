"""The figure of reconstructed images, and which settings it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from mipoison.defenses import ANCHORS
from study.records.images import read_pictures
from study.records.reading import leave_out
from study.records.store import Records
from study.reports.cells import setting_name
from study.reports.figures import grid_figure


def reconstruction_figure(records: Records, configurations: pd.DataFrame, path: Path, info: str) -> None:
    """Draw the images of :func:`chosen_settings` as one figure; no file is written if no images are kept.

    Each row shows the first seed's images as the setting's worst attacker (by error, over all seeds)
    reconstructs them.
    """
    usable = configurations.dropna(subset=["worst_reconstruction_error"])
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
        cost = "" if setting["feasible"] else " (outside the constraints)"
        rows.append(
            (
                f"{name}{cost}\ndistortion {distortion:.4f}, error {error:.4f}\nattacker {attacker}",
                pictures[attacker],
            )
        )
    if rows:
        grid_figure(rows, path, info)


def chosen_settings(configurations: pd.DataFrame) -> pd.DataFrame:
    """The settings whose images are shown: undefended, label-only, and the best one of each defense."""
    return pd.concat([_anchor_rows(configurations), _best_rows(configurations)])


def _anchor_rows(configurations: pd.DataFrame) -> pd.DataFrame:
    order = {name: i for i, name in enumerate(reversed(ANCHORS))}
    anchors = configurations[configurations["defense"].isin(ANCHORS)]
    return anchors.sort_values("defense", key=lambda column: column.map(order))


def _best_rows(configurations: pd.DataFrame) -> pd.DataFrame:
    """Of each defense the setting with the highest worst-case error, feasible ones before others."""
    searched = configurations[~configurations["defense"].isin(ANCHORS)]
    ranked = searched.sort_values(
        ["feasible", "worst_reconstruction_error", "confidence_distortion"],
        ascending=[False, False, True],
        kind="stable",
    )
    return ranked.drop_duplicates("defense").sort_values("defense")
