"""The page's section of reconstructed images, embedded as PNG."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from mipoison.data.datasets import DATASETS
from study.records.finished import StoredStudy
from study.records.images import kept_pictures, read_pictures
from study.reports.figures import side_by_side
from study.reports.html.chart_data import shown_name
from study.reports.reconstructions import chosen_settings

FACES = (
    "These may be reconstructed photographs of people: if so, keep this page to yourself, whatever the "
    "licence of the data set."
)
KEPT = "pictures.parquet"
"""Reconstructions of a compact copy of the paper's tables: trial, attack, shape and pixels (uint8)."""


def shows_people(study: StoredStudy) -> bool:
    """Whether the data may show people: identities, a user's own folder, or data that are not known."""
    names = set(study.episodes["dataset"].dropna()) if "dataset" in study.episodes else set()
    kinds = set()
    for name in names:
        spec = DATASETS.get(str(name).partition(":")[0])
        kinds.add("unknown" if spec is None else spec.kind)
    return kinds != {"classes"}


def pictures(study: StoredStudy, trial: str) -> dict[str, NDArray[np.float64]]:
    """A trial's images: attacker (or ``truth``) -> (n, C, H, W) in [0, 1]; empty without a valid file."""
    kept = kept_pictures(study.storage, f"{study.folder}/{KEPT}", trial)
    return read_pictures(study.storage, study.folder, trial) if kept is None else kept


def grid(study: StoredStudy, configurations: pd.DataFrame) -> dict[str, Any] | None:
    """The true images, then those of ``chosen_settings``, one row each; None if no images are kept.

    A compact copy has none, so that no private image is published by accident. A row shows the first seed's
    images as the setting's worst attacker (by error, over all seeds) reconstructs them. ``people`` is a
    warning where the data may show people.
    """
    rows: list[dict[str, Any]] = []
    for _, s in chosen_settings(configurations.dropna(subset=["worst_reconstruction_error"])).iterrows():
        found = pictures(study, str(s["trial"]))
        attacker = str(s["worst_reconstruction_error_attacker"])
        if attacker not in found or "truth" not in found:
            continue
        n = len(found["truth"])
        if not rows:
            more = "private images of the first seed"
            rows.append(_row("truth", more, found["truth"], f"{n} private images"))
        distortion, error = s["confidence_distortion"], s["worst_reconstruction_error"]
        numbers = f"distortion {distortion:.3g}, worst-case error {error:.4f}"
        alt = f"the same {n} images as attacker {attacker} reconstructs them under {shown_name(s)}"
        rows.append(_row(shown_name(s), f"{numbers} (MSE), attacker {attacker}", found[attacker], alt))
    return {"rows": rows, "people": FACES if shows_people(study) else None} if rows else None


def _row(name: str, more: str, images: NDArray[Any], alt: str) -> dict[str, Any]:
    pixels = (side_by_side(images) * 255).round().astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="PNG", optimize=True)
    height, width, _ = pixels.shape
    data = base64.b64encode(sink.getvalue()).decode("ascii")
    return {"name": name, "more": more, "alt": alt, "width": width, "height": height, "data": data}
